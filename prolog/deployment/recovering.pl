:- module(deployment_recovering,
          [ recovering/3,               % +Context, +Call, -Result
            recovered_first/3,          % +Seen, +Context, +Call
            recovery_plan/4             % +Way, +Intent, +Facts, -Plan
          ]).

/** <module> Finishing or undoing what an operation left that did not come to its end

What is to be active, runs and is healthy is finished; everything else goes back to what was before.  Both are plans like
any other.
*/

:- autoload(library(lists), [last/2, memberchk/2]).
:- use_module(balancing, [brought_back//1]).
:- use_module(declarations, [resolve/5]).
:- use_module(intents, [pending/2]).
:- use_module(gate, [leased_run/4]).
:- use_module(locks, [unless_locked/6, lock_refusal/2]).
:- use_module(observation, [observing_balanced/3, record_seen/4]).
:- use_module(plan, [observed/2, release_probe/3]).
:- use_module(releases, [hash_of_id/2]).
:- use_module(run, [note_event/4]).

%!  recovering(+Context, +Call, -Result) is det.
%
%   Result is `nothing_to_recover`, `completed(Hash)` or `undone(Hash)` of the release that is active then (or `none`),
%   error(locked(Owner, Since, Purpose)) where an operation is at work, or error(recovery_failed(Reason)).

recovering(Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(recovery_failed(Reason))
    ;   unless_locked(Seen, Context, Call, recover(Seen, Context), recovering(Context), Result)
    ).

recover(Facts, Context, Result) :-
    (   pending(Facts, Intent)
    ->  (   recovery_plan(finish, Intent, Facts, Plan)
        ->  leased_run(Plan, Facts, Context, Report),
            finished(Report, Intent, Facts, Context, Result)
        ;   undone(Intent, Facts, Context, Result)
        )
    ;   left_out(Facts, Id, Plan)
    ->  record_seen(Facts, Context, may, _),
        leased_run(Plan, Facts, Context, Report),
        back_at_work(Report, Id, Result)
    ;   record_seen(Facts, Context, must, _),
        Result = nothing_to_recover
    ).

%!  recovered_first(+Seen:list, +Context, +Call) is semidet.
%
%   Seen, what was observed on the host, has the intent of an operation that is over: that is finished or undone, and what
%   comes of it is told as the event `recovery`.  Fails where there is none.

recovered_first(Seen, Context, Call) :-
    memberchk(intent(_, _, _, _, _, _), Seen),
    Context = context(Service, Host, _, _, _, _),
    pending(facts(Service, Host, Call, Seen, none), _),
    recovering(Context, Call, Result),
    note_event(Host, recovery, Result, []).

%   What was stopped or started by hand, and killed while it did, may have left the host without requests.

left_out(Facts, Id, Plan) :-
    observed(balanced(_, ours), Facts),
    observed(running(Id), Facts),
    observed(current(Id), Facts),
    release_probe(Id, Facts, Probe),
    phrase(( step(health, Facts, Probe), brought_back(Facts) ), Plan).

back_at_work(Report, _, Result) :-
    lock_refusal(Report, Result),
    !.
back_at_work(report(completed, _, _), Id, completed(Hash)) :-
    hash_of_id(Id, Hash).
back_at_work(report(failed(_, Reason), _, _), _, error(recovery_failed(Reason))).

%   A load balancer that can't be told, what can't be cleared, and a lost connection are no reasons to go back.

finished(Report, _, _, _, Result) :-
    lock_refusal(Report, Result),
    !.
finished(report(completed, _, _), Intent, _, _, completed(Hash)) :-
    active_after(finish, Intent, Hash).
finished(report(failed(Step, Reason), Outcomes, _), Intent, facts(_, _, Call, _, _), Context, Result) :-
    (   ( Step = step(Id, _, _, _), memberchk(Id, [balancer_ready, settle]) ; memberchk(done(Step, unknown(_), _, _), Outcomes) )
    ->  Result = error(recovery_failed(Reason))
    ;   observing_balanced(Context, Call, Seen),
        undone_as_seen(Seen, Intent, Context, Result)
    ).

undone_as_seen(failed(Reason), _, _, error(recovery_failed(Reason))) :- !.
undone_as_seen(Facts, Intent, Context, Result) :-
    (   pending(Facts, Intent)
    ->  undone(Intent, Facts, Context, Result)
    ;   Result = error(changed_meanwhile)
    ).

undone(Intent, Facts, Context, Result) :-
    recovery_plan(undo, Intent, Facts, Plan),
    leased_run(Plan, Facts, Context, Report),
    (   lock_refusal(Report, Result)
    ->  true
    ;   Report = report(failed(_, Reason), _, _)
    ->  Result = error(recovery_failed(Reason))
    ;   active_after(undo, Intent, Hash),
        Result = undone(Hash)
    ).

active_after(finish, intent(_, _, _, Goal, _), Hash) :- hash_or_none(Goal, Hash).
active_after(undo, intent(Was, _, _, _, _), Hash) :- hash_or_none(Was, Hash).

hash_or_none(none, none) :- !.
hash_or_none(Id, Hash) :- hash_of_id(Id, Hash).

%!  recovery_plan(+Way, +Intent, +Facts, -Plan) is semidet.
%
%   Way is `finish` or `undo`.  Only what runs can be finished, or what was to be stopped; not what was being undone.

recovery_plan(Way, Intent, Facts, Plan) :-
    phrase(recovery(Way, Intent, Facts), Plan).

recovery(finish, intent(_, _, _, _, stopped), Facts) -->
    !,
    step(stop, Facts, stop(10)),
    step(settle, Facts, settle).
recovery(finish, intent(Was, _, _, Goal, running), Facts) -->
    { observed(current(Goal), Facts),
      observed(running(Goal), Facts) },
    healthy(Goal, Facts),
    (   { Goal == Was }
    ->  []
    ;   step(commit, Facts, commit(Goal)),
        pruned(Facts),
        { observed(backup(Back), Facts) -> true ; Back = none },
        recorded(Goal, Back, Facts)
    ),
    brought_back(Facts),
    step(settle, Facts, settle).
recovery(undo, intent(Was, Backup, Ran, _, _), Facts) -->
    stopped(Ran, Facts),
    linked(current, Was, Facts),
    linked(backup, Backup, Facts),
    started(Ran, Facts),
    committed(Was, Facts),
    recorded(Was, Backup, Facts),
    ( { Ran == none } -> [] ; brought_back(Facts) ),
    step(settle, Facts, settle).

stopped(Ran, Facts) -->
    { observed(running(Running), Facts), Running \== Ran, ! },
    step(stop, Facts, stop(10)).
stopped(_, _) --> [].

linked(Name, Id, Facts) -->
    { Fact =.. [Name, Found],
      ( observed(Fact, Facts) -> true ; Found = none ),
      Found \== Id, ! },
    step(Name, Facts, link(Name, Id)).
linked(_, _, _) --> [].

started(none, _) --> !, [].
started(Id, Facts) -->
    { Facts = facts(Service, Host, _, _, _),
      resolve(Service, Host, [], healthy_deadline, Deadline) },
    step(start, Facts, start(Id, Deadline)),
    healthy(Id, Facts).

healthy(Id, Facts) -->
    { release_probe(Id, Facts, Probe) },
    step(health, Facts, Probe),
    step(confirm, Facts, confirm(Id)).

%   Who was confirmed before is the last of the history again.

committed(Id, Facts) -->
    { observed(history(Id), Facts),
      findall(H, observed(history(H), Facts), History),
      \+ last(History, Id), ! },
    step(commit, Facts, commit(Id)).
committed(_, _) --> [].

pruned(Facts) -->
    { Facts = facts(Service, Host, _, _, _),
      resolve(Service, Host, [], keep_releases, Keep) },
    step(prune, Facts, try(prune(Keep))).

recorded(Id, Back, Facts) -->
    { hash_or_none(Id, Hash),
      hash_or_none(Back, Old) },
    step(record, Facts, try(record([deployed_hash-Hash, deployed_id-Id, rollback_hash-Old]))).

step(Id, facts(_, Host, _, _, _), Action) -->
    [step(Id, Host, Action, [])].
