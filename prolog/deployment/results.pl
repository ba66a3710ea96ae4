:- module(deployment_results,
          [ good_result/1,              % +Result
            restored/2,                 % +Undone, -Restored
            without_lock/1,             % ?Reason
            result_kind/3,              % +Operation, +Result, -Kind
            worst_kind/2                % +Kinds, -Kind
          ]).

/** <module> What a result means to who asked */

:- autoload(library(lists), [member/2, memberchk/2]).

%!  good_result(+Result) is semidet.
%
%   Nobody was left worse than asked.

good_result(Results) :-
    is_list(Results),
    !,
    Results \== [],
    forall(member(Each, Results), ( Each = result(_, Result) -> good_result(Result) ; good_result(Each) )).
good_result(mixed(Results)) :- good_result(Results).
good_result(deployed).
good_result(deployed(_)).
good_result(unchanged).
good_result(rolled_back(_)).
good_result(nothing_to_recover).
good_result(completed(_)).
good_result(undone(_)).
good_result(started).
good_result(stopped).
good_result(force_stopped).
good_result(drained).
good_result(locked).
good_result(unlocked).
good_result(locked(_, _, _)).
good_result(recorded(_)).
good_result(healthy).
good_result(running).
good_result(ok).
good_result(host_status(_, _, running, healthy, _, none)).

%!  restored(+Undone:list, -Restored) is det.
%
%   Whether what was before an operation is there again, by what was undone of it, see run/3: `ok` or `failed(Reason)`.  Hooks on
%   the way back, and what they leave behind, do not decide that.

restored(Undone, failed(Reason)) :-
    member(done(step(_, _, try(Action), _), Result, _, _), Undone),
    Result \== ok,
    decisive(Action),
    !,
    (   member(done(step(regain, _, _, _), failed(Why), _, _), Undone)
    ->  Reason = Why
    ;   arg(1, Result, Reason)
    ).
restored(_, ok).

decisive(balance(_, _, Change)) :- !, ( Change = ready(_) ; Change == kept_out ), !.
decisive(Action) :-
    functor(Action, Name, _),
    memberchk(Name, [stop, link, start, probe, confirm, commit]).

%!  without_lock(?Reason) is nondet.
%
%   Why an operation has not got its lock back.  Then it touches neither the host nor its load balancer.

without_lock(not_regained).
without_lock(not_confirmed_in_time).

%!  result_kind(+Operation:atom, +Result, -Kind) is det.
%
%   What Result means to who asked for Operation, a predicate's name.  Kind is the first of these that is true of a host:
%
%     - `not_restored`: it failed, and what was before could not be brought back
%     - `refused`: it was not begun, for it would not be safe
%     - `failed`: what was before is there again, or was never touched
%     - `warned`: it was done, but for a hook that failed afterwards
%     - `done`

result_kind(Operation, Result, Kind) :-
    each_result(Result, Results),
    findall(One, ( member(Each, Results), host_kind(Operation, Each, One) ), Kinds),
    worst_kind(Kinds, Kind).

%!  worst_kind(+Kinds:list(atom), -Kind) is det.
%
%   Kind is the worst of Kinds, see result_kind/3.  Where nobody did anything, it is `failed`.

worst_kind(Kinds, Kind) :-
    (   member(Worst, [not_restored, refused, failed, warned, done]),
        memberchk(Worst, Kinds)
    ->  Kind = Worst
    ;   Kind = failed
    ).

each_result(mixed(Results0), Results) :- !, each_result(Results0, Results).
each_result(Results0, Results) :-
    is_list(Results0),
    !,
    findall(Result, ( member(Each, Results0), ( Each = result(_, Result) -> true ; Result = Each ) ), Results).
each_result(Result, [Result]).

host_kind(service_status, running, Kind) :- !, Kind = done.
host_kind(service_status, _, Kind) :- !, Kind = failed.
host_kind(_, Result, Kind) :- good_result(Result), !, Kind = done.
host_kind(_, Result, Kind) :- bad_result(Result, Kind), !.
host_kind(_, _, failed).

bad_result(deployed_with_warnings(_), warned).
bad_result(error(security_validation_failed(_)), refused).
bad_result(error(locked(_, _, _)), refused).
bad_result(error(known_bad_release(_)), refused).
bad_result(rolled_back_after_failure(error(rollback_failed(_))), not_restored).
bad_result(error(deployment_failed(not_restored(_, _))), not_restored).
bad_result(error(rollback_failed(not_restored(_, _))), not_restored).
bad_result(error(start_failed(not_restored(_, _))), not_restored).
bad_result(error(stop_failed(not_restored(_, _))), not_restored).
bad_result(error(recovery_failed(_)), not_restored).
