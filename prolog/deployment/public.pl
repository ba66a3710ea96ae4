:- module(deployment_public,
          [ deploy_service/2, deploy_service/3,
            deploy_with_hooks/2,
            deploy_with_rollback/2, deploy_with_rollback/3,
            deploy_to_all_hosts/2, deploy_to_all_hosts/3,
            resume_rollout/2,
            fleet_status/2,
            recover/2, recover/3,
            deployment_plan/3,
            rollback_service/2, rollback_service/3,
            start_service/2, stop_service/2, restart_service/2,
            graceful_stop/3, drain_connections/3, force_stop_service/3,
            execute_hooks/3,
            run_health_check/3, wait_for_healthy/3,
            lock_service/2, lock_service/3, unlock_service/2, lock_status/2,
            rebuild_ledger/2,
            service_status/2, service_status/3
          ]).

/** <module> The operations as predicates

Each performs the operation of its name, see perform/2, and gives its result term.  Those that change a host work there
one at a time: whoever finds the lock taken gets `error(locked(Owner, Since, Purpose))`, at once or after `lock_wait(0)`
seconds.
*/

:- use_module(declarations, [service_targets/2]).
:- use_module(operations, [perform/2]).

%!  deploy_service(+Service, -Result) is det.
%!  deploy_service(+Service, +Options, -Result) is det.
%
%   Ship, switch and start, without hooks or health check.  Result is `deployed(Changes)`, `unchanged`,
%   `error(security_validation_failed(Errors))` or `error(deployment_failed(Reason))`.

deploy_service(Service, Result) :- perform(deploy_service(Service, []), Result).
deploy_service(Service, Options, Result) :- perform(deploy_service(Service, Options), Result).

%!  deploy_with_hooks(+Service, -Result) is det.
%
%   deploy_service/2 between the `pre_deploy` and `post_deploy` hooks, each of which runs once a host.  Result is
%   `deployed`, `unchanged`, `deployed_with_warnings(error(hook_failed(Action, Reason)))`,
%   `error(pre_deploy_failed(error(hook_failed(Action, Reason))))` or as in deploy_service/2.

deploy_with_hooks(Service, Result) :- perform(deploy_with_hooks(Service, []), Result).

%!  deploy_with_rollback(+Service, -Result) is det.
%!  deploy_with_rollback(+Service, +Options, -Result) is det.
%
%   Hooks, deployment and health check; what fails after the switch, or is unhealthy, is rolled back.  Result is as
%   in deploy_with_hooks/2, `error(known_bad_release(Hash))` where this very release failed its health check before (but
%   with `force(true)`), or `rolled_back_after_failure(Back)`: Back is `rolled_back(Hash)`,
%   `error(no_rollback_available)` after a first deployment (nothing stays active), or
%   `error(rollback_failed(Reason))`.  Options: `backend(live | dry | model(Script))`, `host(Host)`, `force(true)`,
%   `max_parallel(30)` hosts at once.

deploy_with_rollback(Service, Result) :- perform(deploy_with_rollback(Service, []), Result).
deploy_with_rollback(Service, Options, Result) :- perform(deploy_with_rollback(Service, Options), Result).

%!  deploy_to_all_hosts(+Service, -Results:list) is det.
%!  deploy_to_all_hosts(+Service, +Options, -Results:list) is det.
%
%   As deploy_with_rollback/2, always with a list: `result(Host, Result)` in order of declaration.  Where a rollout is declared, in its
%   batches, and obeying it: results may also be `rolled_back_with_fleet`, of a host that had succeeded and went back because others had not, and
%   `skipped(Reason)`, of one whose turn did not come.  Reason is `max_failures`, `max_unavailable` or `cancelled`.

deploy_to_all_hosts(Service, Results) :- perform(deploy_to_all_hosts(Service, []), Results).
deploy_to_all_hosts(Service, Options, Results) :- perform(deploy_to_all_hosts(Service, Options), Results).

%!  resume_rollout(+Service, -Results:list) is det.
%
%   Go on with the last rollout of Service, on those hosts that it did not come to or could not begin with.  Results are as in
%   deploy_to_all_hosts/2, of all its hosts; error(no_rollout_to_resume) where it had reached all, and error(release_changed(Old, New)) where
%   what would be shipped is no longer what its first hosts got.

resume_rollout(Service, Results) :- perform(resume_rollout(Service, []), Results).

%!  fleet_status(+Service, -Table:list) is det.
%
%   A row a host, see host_status/3.

fleet_status(Service, Table) :- perform(fleet_status(Service, []), Table).
%!  recover(+Service, -Results:list) is det.
%!  recover(+Service, +Options, -Results:list) is det.
%
%   Finish or undo what operations left on each host that did not come to their end: `result(Host, Status)` in order of
%   declaration.  Status is `nothing_to_recover`, `completed(Hash)`, `undone(Hash)`, error(locked(Owner, Since, Purpose)) or
%   error(recovery_failed(Reason)); Hash is the active release's, or `none`.

recover(Service, Results) :- perform(recover(Service, []), Results).
recover(Service, Options, Results) :- perform(recover(Service, Options), Results).

%!  deployment_plan(+Service, +Options, -Plan:list) is det.
%
%   The steps that deploy_with_rollback/3 would take, `step(Id, Host, Action, Undo)` each: hosts are observed and not
%   changed, hooks not run.  On a host that needs nothing, only the looking is left.

deployment_plan(Service, Options, Plan) :- perform(deployment_plan(Service, Options), Plan).

%!  rollback_service(+Service, -Result) is det.
%!  rollback_service(+Service, +Options, -Result) is det.
%
%   Back to the rollback point, or to the kept release `to(Hash)`.  Result is `rolled_back(Hash)`,
%   `error(no_rollback_available)` or `error(rollback_failed(Reason))`, after which what was active is active again.

rollback_service(Service, Result) :- perform(rollback_service(Service, []), Result).
rollback_service(Service, Options, Result) :- perform(rollback_service(Service, Options), Result).

%!  start_service(+Service, -Result) is det.
%
%   Start the active release.  `started` or `error(start_failed(Reason))`.  After a host has started again, nothing runs
%   there until this is called, unless systemd supervises the service: it starts the active release.

start_service(Service, Result) :- perform(start_service(Service, []), Result).

%!  stop_service(+Service, -Result) is det.
%
%   Stop now, between the `pre_shutdown` and `post_shutdown` hooks: TERM, and KILL after 10 seconds.  `stopped` or
%   `error(stop_failed(Reason))`.

stop_service(Service, Result) :- perform(stop_service(Service, []), Result).

%!  restart_service(+Service, -Result) is det.

restart_service(Service, Result) :- perform(restart_service(Service, []), Result).

%!  lock_service(+Service, -Result) is det.
%!  lock_service(+Service, +Options, -Result) is det.
%
%   Take the lock of each host by hand, until unlock_service/2: nothing that changes the service there is begun.
%   Options: `reason(Text)`.  `locked`, `error(locked(Owner, Since, Purpose))` or `error(lock_failed(Reason))`.

lock_service(Service, Result) :- perform(lock_service(Service, []), Result).
lock_service(Service, Options, Result) :- perform(lock_service(Service, Options), Result).

%!  unlock_service(+Service, -Result) is det.
%
%   Give back what lock_service/3 took, whoever it was.  `unlocked`, `error(lock_failed(Reason))`, or
%   `error(locked(Owner, Since, Purpose))` where an operation is at work.

unlock_service(Service, Result) :- perform(unlock_service(Service, []), Result).

%!  lock_status(+Service, -Status) is det.
%
%   `unlocked`, `locked(Owner, Since, Purpose)`, Since in seconds since the epoch, or `unreachable(Reason)`.

lock_status(Service, Status) :- perform(lock_status(Service, []), Status).

%!  graceful_stop(+Service, +Options, -Result) is det.
%
%   The `pre_shutdown` hooks, then no new connections, then `drain_timeout(30)` seconds for the open ones to
%   end, then TERM and `force_after(60)` seconds later KILL, then the `post_shutdown` hooks.  `stopped`;
%   `force_stopped` when connections were cut or the process killed; `error(pre_shutdown_hook_failed(Error))`;
%   `error(drain_failed(Reason))`.

graceful_stop(Service, Options, Result) :- perform(graceful_stop(Service, Options), Result).

%!  drain_connections(+Service, +Options, -Result) is det.
%
%   Tell the service to accept no more, by its `drain_endpoint` (POST) or `drain_signal`, and wait until nobody is
%   connected to its port: `timeout(30)` seconds at most.  `drained`, `timeout` or `error(Reason)`.

drain_connections(Service, Options, Result) :- perform(drain_connections(Service, Options), Result).

%!  force_stop_service(+Service, +Timeout, -Result) is det.
%
%   TERM, and KILL after Timeout seconds, without hooks.  `stopped` or `force_stopped`.

force_stop_service(Service, Timeout, Result) :- perform(force_stop_service(Service, Timeout, []), Result).

%!  execute_hooks(+Service, +Event, -Result) is det.
%
%   `ok` or, at the first failure, `error(hook_failed(Action, Reason))`.

execute_hooks(Service, Event, Result) :- perform(execute_hooks(Service, Event, []), Result).

%!  run_health_check(+Service, +Options, -Result) is det.
%
%   `retries(3)` attempts, `delay(2)` seconds apart, `timeout(5)` seconds each.  `healthy` or `unhealthy`.

run_health_check(Service, Options, Result) :- perform(run_health_check(Service, Options), Result).

%!  wait_for_healthy(+Service, +Options, -Result) is det.
%
%   Until it is healthy, `timeout(60)` seconds at most, asking every `interval(2)` seconds.

wait_for_healthy(Service, Options, Result) :- perform(wait_for_healthy(Service, Options), Result).

%!  rebuild_ledger(+Service, -Results:list) is det.
%
%   Ask all hosts which release is active and which is the rollback point, and record it: for a ledger that was lost.
%   Results are `result(Host, recorded(Hash))`, Hash `none` where nothing is active, or `result(Host, error(Reason))`.
%   What is done to hosts never depends on it; the history of runs is not among what hosts know.

rebuild_ledger(Service, Results) :- perform(rebuild_ledger(Service, []), Results).

%!  service_status(+Service, -Status) is det.
%
%   `running` or `stopped`, whether the process runs; `unreachable(Reason)`.

service_status(Service, Status) :- perform(service_status(Service, process, []), Status).

%!  service_status(+Service, ?Host, -Status) is nondet.
%
%   `running`, `unhealthy` when it runs and does not answer, `stopped` or `unreachable(Reason)`.

service_status(Service, Host, Status) :-
    (   nonvar(Host)
    ->  true
    ;   service_targets(Service, Hosts),
        member(Host, Hosts)
    ),
    perform(service_status(Service, health, [host(Host)]), Status).
