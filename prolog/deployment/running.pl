:- module(deployment_running,
          [ stopping/4,                 % +Manner, +Context, +Call, -Result
            starting/4,                 % +Operation, +Context, +Call, -Result
            draining/4,                 % +Timeout, +Context, +Call, -Result
            hooking/3,                  % +Event, +Context, -Result
            checking/4,                 % +Kind, +Context, +Call, -Result
            status/4,                   % +Depth, +Context, +Call, -Result
            host_status/3               % +Context, +Call, -Row
          ]).

/** <module> Stopping, starting, draining and checking on one host */

:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(plan, [stop_plan/3, start_plan/2, restart_plan/2, drain_plan/3, hooks_plan/4, check_plan/5, observed/2]).
:- use_module(locks, [unless_locked/6, lock_refusal/2]).
:- use_module(gate, [leased_run/4]).
:- use_module(run, [run/3]).
:- use_module(ledger, [deployed_hash/3]).
:- use_module(observation, [observing/3, observing_balanced/3]).
:- use_module(releases, [hash_of_id/2]).
:- use_module(results, [restored/2]).

%!  stopping(+Manner, +Context, +Call, -Result) is det.
%
%   Manner as in stop_plan/3.  Connections that had to be cut, or a process that had to be killed, make it
%   `force_stopped`; stop_service/2 asks for no more than `stopped`.

stopping(Manner, Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(stop_failed(Reason))
    ;   unless_locked(Seen, Context, Call, stop(Manner, Seen, Context), stopping(Manner, Context), Result)
    ).

stop(Manner, Facts, Context, Result) :-
    stop_plan(Manner, Facts, Plan),
    leased_run(Plan, Facts, Context, Report),
    (   lock_refusal(Report, Result)
    ->  true
    ;   Report = report(Verdict, Outcomes, Undone),
        restored(Undone, Restored),
        stop_result(Verdict, Manner, Outcomes, Restored, Result)
    ).

stop_result(completed, Manner, Outcomes, _, Result) :-
    (   Manner \== stop, forced(Outcomes)
    ->  Result = force_stopped
    ;   Result = stopped
    ).
stop_result(failed(Step, Reason), _, _, Restored, error(Error)) :-
    stop_error(Step, Reason, Restored, Error).

forced(Outcomes) :- member(done(step(drain, _, _, _), failed(timeout), _, _), Outcomes), !.
forced(Outcomes) :- member(done(step(balancer_await, _, _, _), ok, Notes, _), Outcomes), memberchk(sessions_left(_), Notes), !.
forced(Outcomes) :- member(done(step(stop, _, _, _), ok, Notes, _), Outcomes), memberchk(killed, Notes).

stop_error(Step, Reason, ok, Error) :- stop_error(Step, Reason, Error).
stop_error(Step, Reason0, failed(Why), stop_failed(not_restored(Reason, Why))) :-
    stop_error(Step, Reason0, Error),
    ( Error = stop_failed(Reason1) -> Reason = Reason1 ; Reason = Error ).

stop_error(step(_, _, hook(pre_shutdown, Action, _), _), Reason, pre_shutdown_hook_failed(Failure)) :-
    !,
    Failure = error(hook_failed(Action, Reason)).
stop_error(step(tell, _, _, _), Reason, drain_failed(Reason)) :- !.
stop_error(_, Reason, stop_failed(Reason)).

%!  starting(+Operation, +Context, +Call, -Result) is det.
%
%   Operation is `start` or `restart`, of the active release.

starting(Operation, Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(start_failed(Reason))
    ;   unless_locked(Seen, Context, Call, start(Operation, Seen, Context), starting(Operation, Context), Result)
    ).

start(start, Facts, Context, Result) :-
    start_plan(Facts, Plan),
    started(Plan, Facts, Context, Result).
start(restart, Facts, Context, Result) :-
    restart_plan(Facts, Plan),
    started(Plan, Facts, Context, Result).

started([], _, _, error(start_failed(not_deployed))) :- !.
started(Plan, Facts, Context, Result) :-
    leased_run(Plan, Facts, Context, Report),
    (   lock_refusal(Report, Result)
    ->  true
    ;   Report = report(Verdict, _, Undone),
        restored(Undone, Restored),
        start_result(Verdict, Restored, Result)
    ).

start_result(completed, _, started).
start_result(failed(Step, Reason0), Restored, error(Error)) :-
    (   ( Step = step(stop, _, _, _) ; Step = step(_, _, hook(pre_shutdown, _, _), _) )
    ->  stop_error(Step, Reason0, Restored, Error)
    ;   ( Restored = failed(Why) -> Reason = not_restored(Reason0, Why) ; Reason = Reason0 ),
        Error = start_failed(Reason)
    ).

%!  draining(+Timeout, +Context, +Call, -Result) is det.

draining(Timeout, Context, Call, Result) :-
    observing(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(Reason)
    ;   drain_plan(Timeout, Seen, Plan),
        run(Plan, Context, report(Verdict, _, _)),
        drain_result(Verdict, Result)
    ).

drain_result(completed, drained).
drain_result(failed(step(drain, _, _, _), timeout), timeout) :- !.
drain_result(failed(_, Reason), error(Reason)).

%!  hooking(+Event, +Context, -Result) is det.

hooking(Event, Context, Result) :-
    Context = context(Service, Host, _, _, _, _),
    hooks_plan(Service, Host, Event, Plan),
    run(Plan, Context, report(Verdict, _, _)),
    hooks_result(Verdict, Result).

hooks_result(completed, ok).
hooks_result(failed(step(_, _, hook(_, Action, _), _), Reason), error(hook_failed(Action, Reason))).

%!  checking(+Kind, +Context, +Call, -Result) is det.
%
%   Kind is `check` or `wait`.

checking(Kind, Context, Call, Result) :-
    Context = context(Service, Host, _, _, _, _),
    check_plan(Kind, Service, Call, Host, Plan),
    run(Plan, Context, report(Verdict, _, _)),
    (   Verdict == completed
    ->  Result = healthy
    ;   Result = unhealthy
    ).

%!  status(+Depth, +Context, +Call, -Result) is det.
%
%   Depth `process` asks whether the process runs, `health` whether it answers too.

status(Depth, Context, Call, Result) :-
    observing(Context, Call, Seen),
    status(Seen, Depth, Context, Call, Result).

status(failed(Reason), _, _, _, unreachable(Reason)) :- !.
status(Facts, _, _, _, stopped) :-
    \+ observed(running(_), Facts),
    !.
status(Facts, _, _, _, unhealthy) :-
    observed(running(none), Facts),
    !.
status(_, process, _, _, running) :- !.
status(_, health, Context, Call, Status) :-
    checking(check, Context, [retries(1)|Call], Health),
    (   Health == healthy
    ->  Status = running
    ;   Status = unhealthy
    ).

%!  host_status(+Context, +Call, -Row) is det.
%
%   Row is `host_status(Host, Release, Process, Health, Since, Drift)`: the hash of the active release, or `none`; `running`, `stopped`,
%   `leaderless` where the process that was started left others behind, or `unreachable(Reason)`; `healthy`, `unhealthy` or `unknown`; when
%   the process was started, in seconds since the epoch, or `none`; and `none` where the ledger says the same of the release, else
%   `drift(Known, Found)`.  Of an unreachable host, release and drift are `unknown`.

host_status(Context, Call, Row) :-
    observing(Context, Call, Seen),
    host_row(Seen, Context, Call, Row).

host_row(failed(Reason), Context, _, host_status(Host, unknown, unreachable(Reason), unknown, none, unknown)) :-
    !,
    Context = context(_, Host, _, _, _, _).
host_row(Facts, Context, Call, host_status(Host, Release, Process, Health, Since, Drift)) :-
    Facts = facts(Service, Host, _, _, _),
    ( observed(current(Id), Facts) -> hash_of_id(Id, Release) ; Release = none ),
    process_state(Facts, Process),
    (   Process == running
    ->  checking(check, Context, [retries(1)|Call], Health)
    ;   Health = unknown
    ),
    ( observed(since(Text), Facts), atom_number(Text, Since) -> true ; Since = none ),
    ( deployed_hash(Service, Host, Known) -> true ; Known = none ),
    ( Known == Release -> Drift = none ; Drift = drift(Known, Release) ).

process_state(Facts, leaderless) :- observed(running(none), Facts), !.
process_state(Facts, running) :- observed(running(_), Facts), !.
process_state(_, stopped).
