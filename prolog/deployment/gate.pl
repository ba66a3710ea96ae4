:- module(deployment_gate,
          [ with_gate/3,                % +Token, +Fleet, :Goal
            leased_run/4                % +Plan, +Facts, +Context, -Report
          ]).

/** <module> The gate of a fleet: of two deployments of a service, one wins on all its hosts

Who is to change the first host takes the lock of the gate before: that of the first of the fleet's hosts, in the order of
their names, that can be spoken to.  It is kept until all hosts are done, and renewed meanwhile.  A fleet that needs nothing
takes no lock.

Fleet is `fleet(Service, Hosts, Call, Run)`.
*/

:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(effects, [backend_setting/3, with_backend/3, in_phase/2, effect/2]).
:- use_module(locks, [unless_locked/6, leased_plan/4, lease_seconds/4, with_lease/3, at_work/2]).
:- use_module(options, [lookup/3]).
:- use_module(observation, [context/5, observing/3]).
:- use_module(run, [run/3, ask/2, collect_events/2, add_events/1]).

:- meta_predicate with_gate(+, +, 0).

:- dynamic
    gate_events/2,      % Token, Events of who opened it
    gate/3.             % Token, Fleet, State: closed, open(Host, Context, Keeper), lost(Host, Context, Keeper) or shut(Reason, Time)

%!  with_gate(+Token, +Fleet, :Goal) is semidet.
%
%   Goal is done once; what it changes on hosts, by leased_run/4 with a context of Token, is done behind the gate of Fleet.  A
%   fleet of one host needs none.

with_gate(_, fleet(_, [_], _, _), Goal) :-
    !,
    once(Goal).
with_gate(Token, Fleet, Goal) :-
    setup_call_cleanup(assertz(gate(Token, Fleet, closed)),
                       at_work(Token, once(Goal)),
                       leave(Token)).

leave(Token) :-
    retract(gate(Token, _, State)),
    !,
    given_back(State),
    catch(mutex_destroy(Token), error(existence_error(_, _), _), true), % nobody came to the gate
    findall(Event, ( retract(gate_events(Token, Events)), member(Event, Events) ), All),
    add_events(All).

given_back(State) :-
    State =.. [Name, Host, Context, Keeper],
    memberchk(Name, [open, lost]),
    !,
    keeper_ends(Keeper),
    in_phase(undo, run([step(unlock_fleet, Host, try(unlock), [])], Context, _)).
given_back(_).

%!  leased_run(+Plan, +Facts, +Context, -Report) is det.
%
%   As run/3, with the lease around it, behind the gate.  Where somebody else is behind it, Report is as if the lock had been taken
%   by them.

leased_run(Plan0, Facts, Context0, Report) :-
    Context0 = context(_, Host, _, _, _, Token),
    entry(Token, Host, Entry),
    (   Entry = shut(Reason)
    ->  Report = report(failed(step(lock, Host, lock(0, any, any), []), Reason), [], [])
    ;   leased_plan(Entry, Plan0, Facts, Plan),
        with_lease(Token, Context0, Context),
        at_work(Token, run(Plan, Context, Report))
    ).

%   Entry is `own` where the lease is that of this host alone, `gate` where the gate's is kept, or `shut(Reason)`.

entry(Token, Host, Entry) :-
    (   gate(Token, _, _)
    ->  with_mutex(Token, opened(Token, State)),
        entered(State, Host, Entry)
    ;   Entry = own
    ).

entered(shut(Reason, _), _, shut(Reason)).
entered(lost(_, _, _), _, shut(lock_lost)).
entered(open(Host, _, _), Host, gate) :- !.
entered(open(_, _, _), _, own).

opened(Token, State) :-
    gate(Token, Fleet, State0),
    (   decided(State0, Fleet)
    ->  State = State0
    ;   Fleet = fleet(_, Hosts0, _, _),
        sort(Hosts0, Hosts),
        first_open(Hosts, Token, Fleet, State),
        becomes(Token, State0, State)
    ).

becomes(Token, State0, State) :-
    retract(gate(Token, Fleet, State0)),
    assertz(gate(Token, Fleet, State)).

%   Who waits for the lock tries again, all hosts together.

decided(open(_, _, _), _).
decided(lost(_, _, _), _).
decided(shut(_, Time), fleet(_, _, Call, _)) :-
    (   lookup(lock_wait, [Call], Seconds), Seconds > 0
    ->  effect(now, Now),
        Now - Time < 0.5
    ;   true
    ).

first_open([Host|Hosts], Token, Fleet, State) :-
    Fleet = fleet(Service, _, Call, _),
    context(Service, Host, Call, Token, Context0),
    with_lease(Token, Context0, Context),
    collect_events(at_gate(Context, [lock_wait(0)|Call], Result), Events),
    assertz(gate_events(Token, Events)),
    (   Result == taken
    ->  lease_seconds(Service, Host, Call, Seconds),
        keeper(Token, Context, Seconds, Keeper),
        State = open(Host, Context, Keeper)
    ;   Result = error(Reason),
        ( Hosts == [] ; Reason = locked(_, _, _) )
    ->  effect(now, Now),
        State = shut(Reason, Now)
    ;   first_open(Hosts, Token, Fleet, State)
    ).

%   at_gate(+Context, +Call, -Result): Result is `taken` or error(Reason).

at_gate(Context, Call, Result) :-
    Context = context(Service, Host, _, _, _, _),
    lease_seconds(Service, Host, Call, Seconds),
    run([step(lock_fleet, Host, lock(Seconds, any, any), [unlock])], Context, report(Verdict, _, _)),
    (   Verdict == completed
    ->  Result = taken
    ;   Verdict = failed(_, held(_, _, _, _, _, _))
    ->  observing(Context, Call, Seen),
        held_gate(Seen, Context, Call, Result)
    ;   Verdict = failed(_, Reason),
        Result = error(Reason)
    ).

held_gate(failed(Reason), _, _, error(Reason)) :- !.
held_gate(Facts, Context, Call, Result) :-
    unless_locked(Facts, Context, Call, at_gate(Context, Call), at_gate(Context), Result).

% ---- renewing it -------------------------------------------------------------------------------------------

%   keeper(+Token, +Context, +Seconds, -Keeper): a thread that renews the lease thrice in its Seconds, or `none` on modelled
%   hosts, where no time passes.

keeper(Token, Context, Seconds, Keeper) :-
    backend_setting(Backend, Run, _),
    (   Backend == live
    ->  Pause is Seconds / 3,
        thread_create(with_backend(Backend, Run, in_phase(undo, keeping(Token, Context, Pause))), Keeper)
    ;   Keeper = none
    ).

keeping(Token, Context, Pause) :-
    thread_self(Me),
    (   thread_get_message(Me, ends, [timeout(Pause)])
    ->  true
    ;   ask(remote(Context, [do(keep, must, keep)]), Outcomes),
        (   Outcomes = [outcome(_, failed(lock_lost), _, _, _)]
        ->  with_mutex(Token, gate_lost(Token))
        ;   keeping(Token, Context, Pause)
        )
    ).

gate_lost(Token) :-
    gate(Token, _, open(Host, Context, Keeper)),
    !,
    becomes(Token, open(Host, Context, Keeper), lost(Host, Context, Keeper)).
gate_lost(_).

keeper_ends(none) :- !.
keeper_ends(Keeper) :-
    catch(thread_send_message(Keeper, ends), error(existence_error(_, _), _), true),   % it has ended, and lost the lock
    thread_join(Keeper, _).
