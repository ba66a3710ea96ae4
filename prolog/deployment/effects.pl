:- module(deployment_effects,
          [ effect/2,                   % +Effect, -Outcome
            effect_row/2,               % ?Effect, ?Documentation
            with_backend/3,             % +Backend, +Run, :Goal
            in_phase/2,                 % +Phase, :Goal
            backend_setting/3           % -Backend, -Run, -Phase
          ]).

/** <module> The door between rules and the world

Every effect is a row of effect_row/2 and passes through effect/2, which one of three backends answers:

  - `live`: Python foreign predicates `live_NAME`, defined in this module by the package unifyweaver_py.  Their
    first argument is `run(Id, Phase)`.
  - `dry`: hosts are observed, nothing is changed: changing steps answer `ok` with the note `planned`.
  - `model(Script)`: modelled hosts, see deployment_model.

Backend, run and phase belong to the calling thread.
*/

:- autoload(library(apply), [maplist/3, foldl/4, partition/4]).
:- autoload(library(lists), [append/3, member/2, memberchk/2]).
:- use_module(model, [model_effect/2, start_model/1]).
:- use_module(scripts, [script_text/3, step_outcomes/4, seconds_for/2]).

:- meta_predicate
    with_backend(+, +, 0),
    in_phase(+, 0).

%!  effect_row(?Effect, ?Documentation) is nondet.

effect_row(remote(_Context, _Steps),
           "perform do(Id, Mode, Action) steps on a target in one exec; Outcomes as step_outcomes/4").
effect_row(probe(_Target, _Request),
           "ask request(Method, Url, Options); answer(Status, Headers, Body) or failed(Reason)").
effect_row(balance(_Socket, _Request),
           "ask or tell HAProxy: look(Backend) and poll(Backend) answer servers(Servers), set(Backend, Server, State) done").
effect_row(scan(_Dir, _Patterns, _Needs),
           "find and hash the files to ship; sources(Hash, Files, Bytes) or failed(Reason)").
effect_row(seal(_Value),
           "keep a secret text: sealed(Token) stands for it, or refused; of env(Name), show the value nowhere").
effect_row(secrets(_Secrets),
           "fetch the values of Name-Source; sealed(Seals), seal(Name, Source, Digest) each, or failed(Reason)").
effect_row(ledger(_Request),
           "what was last observed: put/5, get/2, all/1, forget/2; the journal: begin/6, intent/6, events/3, end/4, \c
            runs/1, entries/1; what is written meanwhile may fail with ledger_failed(File, Why)").
effect_row(reconnect(_Target),
           "leave the connection to a target, and make another; done or failed(Reason)").
effect_row(sleep(_Seconds), "done or cancelled").
effect_row(emit(_Event), "tell who listens what happens; done").
effect_row(now, "seconds since the epoch").

%!  with_backend(+Backend, +Run, :Goal) is semidet.
%
%   Goal's effects in this thread are those of Backend; Run is the atom by which Python knows the operation,
%   or `none`.  The phase stays what it is.

with_backend(Backend, Run, Goal) :-
    setting(Old),
    Old = setting(_, _, Phase),
    b_setval(deployment_effects, setting(Backend, Run, Phase)),
    (   Backend = model(Script)
    ->  start_model(Script)
    ;   true
    ),
    once(Goal),
    b_setval(deployment_effects, Old).

%!  in_phase(+Phase, :Goal) is semidet.
%
%   Phase is `forward` or `undo`; what was cancelled forward may still be undone.

in_phase(Phase, Goal) :-
    setting(Old),
    Old = setting(Backend, Run, _),
    b_setval(deployment_effects, setting(Backend, Run, Phase)),
    once(Goal),
    b_setval(deployment_effects, Old).

%!  backend_setting(-Backend, -Run, -Phase) is det.
%
%   Those of this thread.

backend_setting(Backend, Run, Phase) :-
    setting(setting(Backend, Run, Phase)).

setting(Setting) :-
    nb_current(deployment_effects, Setting),
    Setting \== [],
    !.
setting(setting(live, none, forward)).

%!  effect(+Effect, -Outcome) is det.
%
%   @error existence_error(deployment_effect, Name) without the Python package

effect(Effect, Outcome) :-
    setting(setting(Backend, Run, Phase)),
    answer(Backend, run(Run, Phase), Effect, Outcome).

answer(live, Run, Effect, Outcome) :-
    !,
    live(Effect, Run, Outcome).
answer(dry, Run, Effect, Outcome) :-
    !,
    dry(Effect, Run, Outcome).
answer(model(_), _, Effect, Outcome) :-
    model_effect(Effect, Outcome).

live(remote(Context, Steps), Run, Outcomes) :-
    !,
    Context = context(_, _, Target, _, _, _),
    script_text(Context, Steps, Text),
    payload(Steps, Payload),
    foldl(add_seconds, Steps, 5, Seconds),
    foreign(shell(Target, Text, Payload, Seconds), Run, Ending),
    remote_outcomes(Ending, Steps, Outcomes).
live(now, _, Time) :-
    !,
    get_time(Time).
live(ledger(Request), _, Outcome) :-
    \+ defined(live_ledger(_, _, _)),
    !,
    memory_ledger(Request, Outcome).
live(seal(_), _, sealed(unknown)) :-
    \+ defined(live_seal(_, _, _)),
    !.
live(emit(_), _, done) :-
    \+ defined(live_emit(_, _, _)),
    !.
live(Effect, Run, Outcome) :-
    foreign(Effect, Run, Outcome).

%   foreign(+Effect, +Run, -Outcome) is det: live_NAME(Run, Argument…, Outcome) of the Python package.

foreign(Effect, Run, Outcome) :-
    Effect =.. [Name|Arguments],
    atom_concat(live_, Name, Foreign),
    append([Run|Arguments], [Outcome], All),
    Goal =.. [Foreign|All],
    (   defined(Goal)
    ->  call(Goal)
    ;   throw(error(existence_error(deployment_effect, Name), _))
    ).

payload(Steps, Payload) :-
    member(do(_, _, stage(_, Payload, _)), Steps),
    !.
payload(_, none).

add_seconds(do(_, _, Action), Sum0, Sum) :-
    seconds_for(Action, Seconds),
    Sum is Sum0 + Seconds.

remote_outcomes(done(Status, Lines, Errors), Steps, Outcomes) :-
    step_outcomes(Steps, done(Status, Errors), Lines, Outcomes).
remote_outcomes(cut(Reason, Lines), Steps, Outcomes) :-
    step_outcomes(Steps, cut(Reason), Lines, Outcomes).
remote_outcomes(failed(Reason), Steps, Outcomes) :-
    never_begun(Steps, Reason, Outcomes).

%   The first step that had to succeed is the one that failed: those before it may fail, those after it don't run.

never_begun([], _, []).
never_begun([do(Id, Mode, _)|Steps], Reason, [outcome(Id, failed(Reason), [], none, none)|Outcomes]) :-
    (   Mode == must
    ->  maplist(not_run, Steps, Outcomes)
    ;   never_begun(Steps, Reason, Outcomes)
    ).

not_run(do(Id, _, _), outcome(Id, not_run, [], none, none)).

defined(Goal) :-
    predicate_property(deployment_effects:Goal, foreign).

%   Hosts are observed for real; what would change them is only planned.

dry(remote(Context, Steps), Run, Outcomes) :-
    !,
    partition([do(_, _, Action)]>>memberchk(Action, [observe, survey]), Steps, Observing, _),
    (   Observing == []
    ->  Seen = []
    ;   live(remote(Context, Observing), Run, Seen)
    ),
    maplist(dry_outcome(Seen), Steps, Outcomes).
dry(probe(_, _), _, assumed) :- !.
dry(balance(_, poll(_)), _, assumed) :- !.
dry(balance(_, set(_, _, _)), _, done) :- !.
dry(ledger(Request), _, done) :-
    functor(Request, Name, _),
    memberchk(Name, [put, intent, events]),
    !.
dry(sleep(_), _, done) :- !.
dry(reconnect(_), _, done) :- !.
dry(Effect, Run, Outcome) :-
    live(Effect, Run, Outcome).

dry_outcome(Seen, do(Id, _, _), Outcome) :-
    member(Outcome, Seen),
    Outcome = outcome(Id, _, _, _, _),
    !.
dry_outcome(_, do(Id, _, _), outcome(Id, ok, [planned], none, none)).

%   Without the Python package, the ledger lives as long as the Prolog process, and has no journal.

:- dynamic remembered/5.    % Service, Host, Dir, Key, Value

memory_ledger(put(Service, Host, Dir, Key, Value), done) :-
    with_mutex(deployment_ledger,
               ( retractall(remembered(Service, Host, Dir, Key, _)),
                 assertz(remembered(Service, Host, Dir, Key, Value)) )).
memory_ledger(get(Service, Key), rows(Rows)) :-
    findall(row(Host, Dir, Value), remembered(Service, Host, Dir, Key, Value), Rows).
memory_ledger(all(Key), rows(Rows)) :-
    findall(row(Service, Host, Dir, Value), remembered(Service, Host, Dir, Key, Value), Rows).
memory_ledger(forget(Service, Key), done) :-
    retractall(remembered(Service, _, _, Key, _)).
memory_ledger(begin(_, _, _, _, _, _), done).
memory_ledger(intent(_, _, _, _, _, _), done).
memory_ledger(events(_, _, _), done).
memory_ledger(end(_, _, _, _), done).
memory_ledger(runs(_), _) :- throw(error(existence_error(deployment_effect, ledger), _)).
memory_ledger(entries(_), _) :- throw(error(existence_error(deployment_effect, ledger), _)).
