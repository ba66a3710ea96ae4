:- module(deployment_plan,
          [ survey_plan/4,              % +Flavour, +Service, +Host, -Plan
            deploy_plan/3,              % +Flavour, +Facts, -Plan
            rollback_plan/3,            % +To, +Facts, -Plan
            vacate_plan/2,              % +Facts, -Plan
            stop_plan/3,                % +Manner, +Facts, -Plan
            start_plan/2,               % +Facts, -Plan
            restart_plan/2,             % +Facts, -Plan
            drain_plan/3,               % +Timeout, +Facts, -Plan
            check_plan/5,               % +Kind, +Service, +Call, +Host, -Plan
            hooks_plan/4,               % +Service, +Host, +Event, -Plan
            observe_plan/2,             % +Host, -Plan
            disarm_action/2,            % +Facts, -Action
            release_probe/3,            % +Release, +Facts, -Probe
            observed/2,                 % ?Fact, +Facts
            earlier/3                   % +Release, +Facts, -Earlier
          ]).

/** <module> Which steps an operation takes on a host, and in what order

A plan is a list of `step(Id, Host, Action, Undo)`.  Action is done on the target (see deployment_scripts) or by the
controller: `secrets/1`, `scan/3`, `probe/3`, `request/3`, `balance/3`, `reconnect`, `record/1`, `nothing/1`.  An action in `try/1` may fail without
stopping the plan.  Undo is a list of actions, performed when this step or a later one fails; the undoing of
later steps comes first.  An action in `if_unhealthy/1` is performed when this step itself found that out.

Facts is `facts(Service, Host, Call, Observed, Release)`: the options of the call, what was observed on the
target, and the release to deploy (see release/5), or `none`.  Observed is a list of `current(Id)`,
`backup(Id)`, `release(Id)`, `port(Id, Text)`, `history(Id)`, `running(Id)` (`none`: processes that have lost their
leader), `since(Text)` (when it was started, in seconds since the epoch), `bad(Id)` (its health check failed), `balanced(Server, State)`
(see deployment_balancing), and `manifest(Id, Digest, Touched)` of a
release that another can be built on: Touched is what was changed there since, in hexadecimal, or `-`.  After
`unfinished(Id)` current, backup and running are those of before the operation that left Id active; `found(Id, Backup)` are then
those that are there, and `ran(none)` says that nothing ran before.  `intent(Token, Was, Backup, Ran, Goal, Wanted)` is what an operation wrote before it
began and did not clear: what was active, the rollback point and what ran before it (releases, or `none`), and the release
that is to be active, and `running` or `stopped`, or `back` once that is undone.
*/

:- autoload(library(apply), [maplist/2, foldl/4, maplist/3]).
:- autoload(library(lists), [append/2, append/3, member/2, last/2]).
:- use_module(balancing, [balancer_survey/3, taken_out//2, brought_back//1, brought_back//2]).
:- use_module(declarations, [resolve/5]).
:- use_module(health, [health_probe/5]).
:- use_module(hooks, [hook_actions/4, tell_actions/3, tolerated/1]).
:- use_module(options, [default_option/3, lookup/3]).
:- use_module(releases, [scan_action/3, hash_of_id/2]).
:- use_module(secrets, [secrets_of/3]).

%!  observed(?Fact, +Facts) is nondet.

observed(Fact, facts(_, _, _, Observed, _)) :-
    member(Fact, Observed).

%!  observe_plan(+Host, -Plan) is det.

observe_plan(Host, [step(observe, Host, observe, [])]).

%!  survey_plan(+Flavour, +Service, +Host, -Plan) is det.
%
%   What must be known before a deployment can be planned.  Hooks come before the scan: they may build what
%   is shipped.

survey_plan(Flavour, Service, Host, [step(observe, Host, survey, [])|Plan]) :-
    secrets_plan(Service, Host, Secrets),
    (   with_hooks(Flavour)
    ->  hooks_plan(Service, Host, pre_deploy, Hooks)
    ;   Hooks = []
    ),
    scan_action(Service, Host, Scan),
    balancer_survey(Service, Host, Balancer),
    append([Secrets, Balancer, Hooks, [step(scan, Host, Scan, [])]], Plan).

%   A secret that can't be had ends a deployment before it touches anything.

secrets_plan(Service, Host, Plan) :-
    secrets_of(Service, Host, Secrets),
    ( Secrets == [] -> Plan = [] ; Plan = [step(secrets, Host, secrets(Secrets), [])] ).

with_hooks(deploy_with_hooks).
with_hooks(deploy_with_rollback).
with_hooks(rollback).
with_hooks(stop).

with_check(deploy_with_rollback).
with_check(rollback).

%!  hooks_plan(+Service, +Host, +Event, -Plan) is det.

hooks_plan(Service, Host, Event, Plan) :-
    hook_actions(Service, Host, Event, Actions),
    numbered(Actions, Event, Host, 1, Plan).

numbered([], _, _, _, []).
numbered([Action|Actions], Event, Host, N, [step(Id, Host, Action, [])|Steps]) :-
    atomic_list_concat([Event, N], '_', Id),
    N1 is N + 1,
    numbered(Actions, Event, Host, N1, Steps).

%!  deploy_plan(+Flavour, +Facts, -Plan) is det.
%
%   Flavour is `deploy_service` (no hooks, no health check), `deploy_with_hooks` or `deploy_with_rollback`.

deploy_plan(Flavour, Facts, Plan) :-
    phrase(deploy(Flavour, Facts), Plan).

deploy(Flavour, Facts) -->
    stage(Facts),
    prepare(Facts),
    { default_option(graceful_stop, drain_timeout, Drain) },
    taken_out(Drain, Facts),
    keep(Facts),
    stopping(Flavour, Facts),
    arming(Facts),
    switch(Facts),
    starting(Flavour, Facts),
    reconnecting(Facts),
    checking(Flavour, Facts),
    disarming(Facts),
    brought_back(Drain, Facts),
    finishing(Flavour, Facts).

stage(Facts) -->
    { new_release(Facts, New, Files),
      \+ reusable(New, Facts), !,
      Facts = facts(Service, Host, _, _, _),
      scan_action(Service, Host, scan(Dir, Patterns, _)),
      once(observed(sources(Sources, _, _), Facts)),
      resolve(Service, Host, [], command_timeout, Seconds) },
    { (   observed(backup(New), Facts) -> Undo = [] ; Undo = [discard(New)] ) },
    base(Facts, Base),
    step(stage, Facts, stage(New, release(Dir, Patterns, Sources, Files, Base), Seconds), Undo).
stage(Facts) -->
    { new_release(Facts, New, _),
      ( observed(current(New), Facts) -> true ; observed(unfinished(New), Facts) ), ! },
    [].
stage(Facts) -->
    { new_release(Facts, New, _),
      Facts = facts(Service, Host, _, _, _),
      resolve(Service, Host, [], command_timeout, Seconds) },
    step(verify, Facts, verify(New, Seconds), []).

%   What a new release shares with the one whose manifest was observed is copied there, or hard-linked where nothing
%   ever writes into a release: a preparation does.

base(Facts, base(Id, Digest, Reuse, Touched)) -->
    { observed(manifest(Id, Digest, Touched), Facts), !,
      Facts = facts(Service, Host, _, _, _),
      (   resolve(Service, Host, [], link_unchanged, true),
          \+ resolve(Service, Host, [], prepare_command, _)
      ->  Reuse = link
      ;   Reuse = copy
      ) }.
base(_, none) --> [].

%   A release that was active is whole: it is not written again, unless forced; the active one never.

reusable(New, Facts) :- observed(current(New), Facts), !.
reusable(New, Facts) :- observed(unfinished(New), Facts), !.
reusable(_, Facts) :- forced(Facts), !, fail.
reusable(New, Facts) :- observed(backup(New), Facts), !.
reusable(New, Facts) :- observed(history(New), Facts), observed(release(New), Facts), !.

forced(facts(_, _, Call, _, _)) :- lookup(force, [Call], true).

prepare(Facts) -->
    { new_release(Facts, New, _),
      Facts = facts(Service, Host, _, _, _),
      \+ reusable(New, Facts), ! },
    shared(Service, Host, New, Facts),
    prepared(Service, Host, New, Facts).
prepare(_) --> [].

shared(Service, Host, New, Facts) -->
    { resolve(Service, Host, [], shared_paths, Paths), Paths \== [], ! },
    step(share, Facts, share(New, Paths), []).
shared(_, _, _, _) --> [].

prepared(Service, Host, New, Facts) -->
    { resolve(Service, Host, [], prepare_command, Command), !,
      resolve(Service, Host, [], command_timeout, Seconds) },
    step(prepare, Facts, prepare(New, Command, Seconds), []).
prepared(_, _, _, _) --> [].

%   The active release becomes the rollback point, in the same script as the switch: a deployment that does not
%   get there leaves the rollback point as it was.

keep(Facts) -->
    { new_release(Facts, New, _),
      observed(current(Old), Facts),
      Old \== New, !,
      (   observed(backup(Backup), Facts) -> true ; Backup = none ) },
    step(keep, Facts, link(backup, Old), [link(backup, Backup)]).
keep(_) --> [].

%   What runs is told to accept no more, drained and stopped; undone, it is started again and must be healthy.

stopping(Flavour, Facts) -->
    { observed(running(_), Facts), ! },
    hooks_if(Flavour, pre_shutdown, Facts),
    tell(try, Facts),
    { default_option(graceful_stop, drain_timeout, Drain),
      default_option(graceful_stop, force_after, Force),
      restart_actions(Flavour, Facts, Undo) },
    step(drain, Facts, try(drain(Drain)), []),
    step(stop, Facts, stop(Force), Undo),
    hooks_if(Flavour, post_shutdown, Facts).
stopping(_, _) --> [].

restart_actions(Flavour, Facts, Actions) :-
    was_running(Old, Facts),
    !,
    Facts = facts(Service, Host, _, _, _),
    resolve(Service, Host, [], healthy_deadline, Deadline),
    check_actions(Flavour, Facts, Old, Check),
    event_actions(Flavour, post_rollback, Facts, Hooks),
    append([[start(Old, Deadline)], Check, Hooks], Actions).

restart_actions(_, _, []).

%   Where only processes without their leader run, the active release is what should.

was_running(Release, Facts) :-
    \+ observed(ran(none), Facts),
    observed(running(Running), Facts),
    (   Running == none
    ->  observed(current(Release), Facts)
    ;   Release = Running
    ).

check_actions(Flavour, Facts, Release, [Probe, confirm(Release)]) :-
    with_check(Flavour),
    !,
    release_probe(Release, Facts, Probe).
check_actions(_, _, Release, [confirm(Release)]).

%!  release_probe(+Release, +Facts, -Probe) is det.
%
%   A release on the target is asked at its own port.

release_probe(Release, Facts, Probe) :-
    Facts = facts(Service, Host, Call, _, _),
    (   observed(port(Release, Text), Facts), atom_number(Text, Port)
    ->  health_probe(Service, Host, deploy, [port(Port)|Call], Probe)
    ;   health_probe(Service, Host, deploy, Call, Probe)
    ).

%   With `confirm_within` the host goes back by itself, unless the release is confirmed over another connection in time.

arming(Facts) -->
    { confirmed_within(Facts, Seconds), !,
      Facts = facts(Service, Host, _, _, _),
      resolve(Service, Host, [], healthy_deadline, Deadline) },
    step(arm, Facts, arm(Seconds, Deadline), []).
arming(_) --> [].

reconnecting(Facts) -->
    { confirmed_within(Facts, _), ! },
    step(reconnect, Facts, reconnect, []).
reconnecting(_) --> [].

disarming(Facts) -->
    { confirmed_within(Facts, _), !,
      disarm_action(Facts, Disarm) },
    step(disarm, Facts, Disarm, []).
disarming(_) --> [].

confirmed_within(facts(_, _, Call, _, _), Seconds) :- lookup(confirm_within, [Call], Seconds).

%!  disarm_action(+Facts, -Action) is det.
%
%   Action waits for a host that has begun to go back.

disarm_action(facts(Service, Host, _, _, _), disarm(Seconds)) :-
    resolve(Service, Host, [], healthy_deadline, Deadline),
    Seconds is Deadline + 40.

switch(Facts) -->
    { new_release(Facts, New, _),
      (   observed(current(Old), Facts) -> true ; Old = none ),
      ( Old \== New -> true ; observed(unfinished(_), Facts) ), ! },
    step(switch, Facts, link(current, New), [link(current, Old)]).
switch(_) --> [].

starting(Flavour, Facts) -->
    { new_release(Facts, New, _),
      Facts = facts(Service, Host, Call, _, _),
      resolve(Service, Host, Call, healthy_deadline, Deadline),
      failure_actions(Flavour, Facts, Hooks),
      append([[log_tail], Hooks, [stop(10)]], Undo) },
    step(start, Facts, start(New, Deadline), Undo).

failure_actions(Flavour, Facts, Actions) :-
    event_actions(Flavour, on_health_failure, Facts, OnFailure),
    (   Flavour \== rollback, observed(current(_), Facts)
    ->  event_actions(Flavour, pre_rollback, Facts, Before)
    ;   Before = []
    ),
    append(OnFailure, Before, Actions).

event_actions(Flavour, Event, facts(Service, Host, _, _, _), Actions) :-
    (   with_hooks(Flavour)
    ->  hook_actions(Service, Host, Event, Actions)
    ;   Actions = []
    ).

%   Only the new release's own process counts: it must own its port before and after the answer.

checking(Flavour, Facts) -->
    { with_check(Flavour), !,
      new_release(Facts, New, _),
      release_probe(New, Facts, Probe),
      ( Flavour == rollback -> Undo = [] ; Undo = [if_unhealthy(mark_bad(New))] ) },
    step(health, Facts, Probe, Undo),
    confirming(Facts).
checking(_, Facts) -->
    confirming(Facts).

confirming(Facts) -->
    { new_release(Facts, New, _) },
    step(confirm, Facts, confirm(New), []).

finishing(Flavour, Facts) -->
    hooks_if(Flavour, post_deploy, Facts),
    { new_release(Facts, New, _),
      Facts = facts(Service, Host, _, _, release(_, Hash, _)),
      undo_commit(Facts, Undo),
      resolve(Service, Host, [], keep_releases, Keep),
      record(Facts, Hash, Record) },
    step(commit, Facts, commit(New), Undo),
    step(prune, Facts, try(prune(Keep)), []),
    step(record, Facts, try(Record), []).

record(Facts, Hash, record([deployed_hash-Hash, deployed_id-Id|More])) :-
    new_release(Facts, Id, _),
    (   observed(current(Old), Facts),
        Old \== Id
    ->  Back = [Old]
    ;   findall(Backup, observed(backup(Backup), Facts), Back)
    ),
    findall(rollback_hash-OldHash, ( member(To, Back), hash_of_id(To, OldHash) ), More).

%!  rollback_plan(+To, +Facts, -Plan) is det.
%
%   Back to release To, which is on the target.  The rollback point becomes the release that was active
%   before To.

rollback_plan(To, facts(Service, Host, Call, Observed, _), Plan) :-
    hash_of_id(To, Hash),
    Facts = facts(Service, Host, Call, Observed, release(To, Hash, [])),
    phrase(rollback(Facts), Plan).

rollback(Facts) -->
    { Facts = facts(_, _, _, _, release(To, Hash, _)),
      earlier(To, Facts, Earlier),
      hash_of_id(Earlier, EarlierHash),
      (   observed(backup(Backup), Facts) -> true ; Backup = none ),
      undo_commit(Facts, Undo) },
    hooks_if(rollback, pre_rollback, Facts),
    { default_option(graceful_stop, drain_timeout, Drain) },
    taken_out(Drain, Facts),
    stopping(rollback, Facts),
    switch(Facts),
    step(keep, Facts, link(backup, Earlier), [link(backup, Backup)]),
    starting(rollback, Facts),
    checking(rollback, Facts),
    brought_back(Drain, Facts),
    step(commit, Facts, commit(To), Undo),
    hooks_if(rollback, post_rollback, Facts),
    step(record, Facts, try(record([deployed_hash-Hash, deployed_id-To, rollback_hash-EarlierHash])), []).

%!  vacate_plan(+Facts, -Plan) is det.
%
%   Nothing stays active, as it was before the first deployment.

vacate_plan(Facts, Plan) :-
    phrase(vacate(Facts), Plan).

vacate(Facts) -->
    { observed(current(Id), Facts), ! },
    hooks_if(rollback, pre_rollback, Facts),
    { default_option(graceful_stop, drain_timeout, Drain) },
    taken_out(Drain, Facts),
    stopping(rollback, Facts),
    step(switch, Facts, link(current, none), [link(current, Id)]),
    hooks_if(rollback, post_rollback, Facts),
    step(record, Facts, try(record([deployed_hash-none, deployed_id-none])), []).
vacate(_) --> [].

%   Committing takes the later releases off the history: they are put back in their order.

undo_commit(Facts, Undo) :-
    new_release(Facts, New, _),
    findall(Id, observed(history(Id), Facts), History),
    (   append(_, [New|Later], History)
    ->  true
    ;   last(History, Latest)
    ->  Later = [Latest]
    ;   Later = []
    ),
    findall(commit(Id), member(Id, Later), Undo).

%!  earlier(+Release, +Facts, -Earlier) is det.
%
%   The release that was active before Release and is still there, or `none`.

earlier(To, Facts, Earlier) :-
    findall(Id, observed(history(Id), Facts), History),
    append(Before, [To|_], History),
    findall(Id, ( member(Id, Before), observed(release(Id), Facts), \+ observed(bad(Id), Facts) ), Kept),
    last(Kept, Earlier),
    Earlier \== To,
    !.
earlier(_, _, none).

%!  stop_plan(+Manner, +Facts, -Plan) is det.
%
%   Manner is `stop`, `graceful(DrainTimeout, ForceAfter)` or `force(Seconds)` (no hooks).

stop_plan(Manner, Facts, Plan) :-
    phrase(stop(Manner, Facts), Plan).

stop(force(Seconds), Facts) -->
    !,
    step(stop, Facts, stop(Seconds), []).
stop(Manner, Facts) -->
    { balancer_patience(Manner, Patience) },
    taken_out(Patience, Facts),
    hooks_if(stop, pre_shutdown, Facts),
    draining(Manner, Facts, Seconds),
    step(stop, Facts, stop(Seconds), []),
    hooks_if(stop, post_shutdown, Facts).

balancer_patience(graceful(Timeout, _), Timeout).
balancer_patience(stop, Timeout) :- default_option(graceful_stop, drain_timeout, Timeout).

draining(graceful(Timeout, Seconds), Facts, Seconds) -->
    { observed(running(_), Facts), ! },
    tell(must, Facts),
    step(drain, Facts, try(drain(Timeout)), []).
draining(graceful(_, Seconds), _, Seconds) --> !, [].
draining(stop, _, 10) --> [].

%!  drain_plan(+Timeout, +Facts, -Plan) is det.

drain_plan(Timeout, Facts, Plan) :-
    (   observed(running(_), Facts)
    ->  phrase(( tell(must, Facts), step(drain, Facts, drain(Timeout), []) ), Plan)
    ;   Plan = []
    ).

tell(Mode, Facts) -->
    { Facts = facts(Service, Host, _, _, _),
      tell_actions(Service, Host, Actions) },
    told(Actions, Mode, Facts).

told([], _, _) --> [].
told([Action|Actions], Mode, Facts) -->
    { mode(Mode, Action, Step) },
    step(tell, Facts, Step, []),
    told(Actions, Mode, Facts).

mode(must, Action, Action).
mode(try, Action, try(Action)).

%!  start_plan(+Facts, -Plan) is det.
%
%   Start the active release; an empty plan when there is none.

start_plan(Facts, Plan) :-
    (   observed(current(Id), Facts)
    ->  phrase(start(Id, Facts), Plan)
    ;   Plan = []
    ).

start(Id, Facts) -->
    { observed(running(_), Facts), ! },
    started(Id, [log_tail], Facts),
    brought_back(Facts).
start(Id, Facts) -->
    { balancer_patience(stop, Patience) },
    started(Id, [log_tail, stop(10)], Facts),
    brought_back(Patience, Facts).

started(Id, Undo, Facts) -->
    { Facts = facts(Service, Host, _, _, _),
      resolve(Service, Host, [], healthy_deadline, Deadline) },
    step(start, Facts, start(Id, Deadline), Undo),
    step(confirm, Facts, confirm(Id), []).

%!  restart_plan(+Facts, -Plan) is det.
%
%   Stop what runs, and start the active release; an empty plan when there is none.  Undone, what ran is started again.

restart_plan(Facts, Plan) :-
    (   observed(current(Id), Facts)
    ->  phrase(restart(Id, Facts), Plan)
    ;   Plan = []
    ).

restart(Id, Facts) -->
    { balancer_patience(stop, Patience),
      restart_actions(deploy_service, Facts, Undo) },
    taken_out(Patience, Facts),
    hooks_if(stop, pre_shutdown, Facts),
    step(stop, Facts, stop(10), Undo),
    hooks_if(stop, post_shutdown, Facts),
    started(Id, [log_tail, stop(10)], Facts),
    brought_back(Patience, Facts).

%!  check_plan(+Kind, +Service, +Call, +Host, -Plan) is det.
%
%   One health check, of Kind `check` or `wait`.

check_plan(Kind, Service, Call, Host, [step(health, Host, Probe, [])]) :-
    health_probe(Service, Host, Kind, Call, Probe).

%   Hooks of an event as steps.  On the way back they never stop it.  After a deployment, an unhealthy health
%   check is a failure of the deployment where it can be rolled back.

hooks_if(Flavour, Event, facts(Service, Host, _, _, _)) -->
    { with_hooks(Flavour), !,
      hooks_plan(Service, Host, Event, Steps0),
      maplist(tolerant(Flavour), Steps0, Steps) },
    list(Steps).
hooks_if(_, _, _) --> [].

tolerant(rollback, step(Id, Host, Action, Undo), step(Id, Host, try(Action), Undo)) :- !.
tolerant(deploy_with_rollback, Step, Step) :-
    Step = step(_, _, hook(post_deploy, _, probe(_, _, _)), _),
    !.
tolerant(_, step(Id, Host, Action, Undo), step(Id, Host, try(Action), Undo)) :-
    Action = hook(Event, _, _),
    tolerated(Event),
    !.
tolerant(_, Step, Step).

list([]) --> [].
list([X|Xs]) --> [X], list(Xs).

step(Id, facts(_, Host, _, _, _), Action, Undo) -->
    [step(Id, Host, Action, Undo)].

new_release(facts(_, _, _, _, release(Id, _, Files)), Id, Files).
