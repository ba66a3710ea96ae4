:- module(test_operations, []).
:- use_module(library(deployment/operations)).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/releases), [release_hash_of/3]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(lists), [member/2, memberchk/2, subtract/3]).
:- use_module(library(plunit)).
:- use_module(library(prolog_wrap), [wrap_predicate/4, unwrap_predicate/2]).
:- use_module(modelled).

from(State, [host(_, Facts), sources(new)]) :-
    host(State, Facts).

deploys(Flavour, State, Trouble, Result, Left) :-
    deploys(Flavour, State, [], Trouble, Result, Left, _).

deploys(Flavour, State, Call, Trouble, Result, Left, Ids) :-
    from(State, Script0),
    append(Trouble, Script0, Script),
    Operation =.. [Flavour, api, Call],
    model(Operation, Script, Result, Left, Events),
    steps(Events, Ids).

% Facts of the host but for the releases that are kept.

same(State, Left) :-
    host(State, Facts),
    forall(member(Fact, Facts), memberchk(Fact, Left)),
    subtract(Left, Facts, []).

hook(Event, Action) :- declare_lifecycle_hook(api, Event, Action).

hash(Sources, Hash) :- release_hash_of(api, Sources, Hash).

known_bad([host(_, [bad(New)|Facts]), sources(new)]) :-
    id(new, New),
    host(running(old), Facts).

unhealthy([answers(_, [500, 500, 500, 200])]).

:- begin_tests(deploying, [setup(declare_api([])), cleanup(undeclare_api)]).

test(a_first_deployment, Result == deployed) :-
    id(new, New),
    deploys(deploy_with_rollback, empty, [], Result, Left),
    assertion(Left == [current(New), release(New), running(New), history(New)]).
test(a_plain_first_deployment_tells_so, Result == deployed(never_deployed)) :-
    deploys(deploy_service, empty, [], Result, _).
test(a_plain_deployment_tells_what_changed, Result == deployed(changed(Old, New))) :-
    maplist(hash, [old, new], [Old, New]),
    deploys(deploy_service, running(old), [], Result, _).
test(the_old_release_becomes_the_rollback_point) :-
    maplist(id, [old, older, new], [Old, Older, New]),
    deploys(deploy_with_rollback, running(old, older), [], deployed, Left),
    msort([backup(Old), current(New), release(New), release(Old), release(Older), running(New)], Expected),
    findall(F, ( member(F, Left), F \= history(_) ), Others),
    assertion(Others == Expected),
    findall(H, member(history(H), Left), History),
    assertion(History == [Older, Old, New]).
test(unchanged_touches_nothing, [forall(member(F, [deploy_service, deploy_with_hooks, deploy_with_rollback])),
                                 Result-Ids == unchanged-[observe, scan, record]]) :-
    deploys(F, running(new, old), [], [], Result, Left, Ids),
    assertion(same(running(new, old), Left)).
test(a_stopped_service_is_started_again, Result == deployed) :-
    deploys(deploy_with_rollback, stopped(new, old), [], Result, Left),
    assertion(same(running(new, old), Left)).
test(a_stopped_service_is_started_again_plainly, Result == deployed(no_changes)) :-
    deploys(deploy_service, stopped(new, old), [], Result, Left),
    assertion(same(running(new, old), Left)).
test(forced_it_is_started_anew, Result == deployed) :-
    deploys(deploy_with_rollback, running(new, old), [force(true)], [], Result, Left, Ids),
    assertion(memberchk(stop, Ids)),
    assertion(same(running(new, old), Left)).
test(unhealthy_is_rolled_back_and_all_is_as_before, Result == rolled_back_after_failure(rolled_back(Old))) :-
    hash(old, Old),
    unhealthy(Answers),
    deploys(deploy_with_rollback, running(old, older), Answers, Result, Left),
    assertion(same(running(old, older), Left)).
test(first_and_unhealthy_leaves_nothing_active, Result == rolled_back_after_failure(error(no_rollback_available))) :-
    deploys(deploy_with_rollback, empty, [answers(_, [500])], Result, Left),
    assertion(Left == []).
test(refused_until_the_deadline_is_unhealthy, Result == rolled_back_after_failure(error(no_rollback_available))) :-
    deploys(deploy_with_rollback, empty, [answers(_, [failed(connection_refused)])], Result, _).
test(what_was_stopped_stays_stopped_when_unhealthy, Result == rolled_back_after_failure(rolled_back(Old))) :-
    hash(old, Old),
    deploys(deploy_with_rollback, stopped(old, older), [answers(_, [500])], Result, Left),
    assertion(same(stopped(old, older), Left)).
test(old_and_new_unhealthy_is_a_failed_rollback,
     Result == rolled_back_after_failure(error(rollback_failed(unhealthy(status(500)))))) :-
    deploys(deploy_with_rollback, running(old), [answers(_, [500])], Result, Left),
    assertion(whole(Left)).
test(a_failed_deployment_tried_again_keeps_the_rollback_point, Second == rolled_back_after_failure(rolled_back(Old))) :-
    hash(old, Old),
    unhealthy(Answers),
    deploys(deploy_with_rollback, running(old, older), Answers, rolled_back_after_failure(rolled_back(Old)), First),
    append(Answers, [host(_, First), sources(new)], Script),
    model(deploy_with_rollback(api, []), Script, Second, Left),
    assertion(same(running(old, older), Left)).
test(what_was_unhealthy_is_not_deployed_again_unchanged, Result-Ids == error(known_bad_release(New))-[observe, scan]) :-
    known_bad(Script),
    hash(new, New),
    model(deploy_with_rollback(api, []), Script, Result, _, Events),
    steps(Events, Ids).
test(but_by_force, Result == deployed) :-
    known_bad(Script),
    model(deploy_with_rollback(api, [force(true)]), Script, Result, _).
test(and_where_it_was_left_active_what_was_before_is_restored, Result == rolled_back_after_failure(rolled_back(Old))) :-
    hash(old, Old),
    maplist(id, [new, old], [New, OldId]),
    unhealthy(Answers),
    append(Answers, [host(_, [bad(New), current(New), release(New), running(New), backup(OldId), release(OldId),
                              history(OldId)]), sources(new)], Script),
    model(deploy_with_rollback(api, []), Script, Result, _).
test(nobody_goes_back_to_it, Result == error(known_bad_release(Older))) :-
    host(running(old, older), Facts),
    id(older, Id),
    hash(older, Older),
    model(rollback_service(api, []), [host(_, [bad(Id)|Facts])], Result, _).
test(a_plan_says_why_there_is_none, Reason == known_bad_release(New)) :-
    known_bad(Script),
    hash(new, New),
    perform(deployment_plan(api, [backend(model(Script))]), Plan),
    memberchk(step(stage, _, failed(Reason), []), Plan).
test(failing_before_the_switch_is_an_error_and_the_old_one_runs,
     [forall(member(F, [deploy_service, deploy_with_hooks, deploy_with_rollback])),
      forall(member(Step, [stage, keep, stop])), Result == error(deployment_failed(no_space))]) :-
    deploys(F, running(old, older), [fails(_, Step:_, no_space)], Result, Left),
    assertion(same(running(old, older), Left)).
test(failing_at_the_switch_starts_the_old_one_again, Result == error(deployment_failed(no_space))) :-
    deploys(deploy_service, running(old, older), [fails(_, switch:_, no_space)], Result, Left),
    assertion(same(running(old, older), Left)).
test(failing_after_the_switch_rolls_back, [forall(member(Step, [start, confirm, commit])),
                                           Result == rolled_back_after_failure(rolled_back(Old))]) :-
    hash(old, Old),
    deploys(deploy_with_rollback, running(old, older), [fails(_, Step:_, no_space)], Result, Left),
    assertion(same(running(old, older), Left)).
test(a_plain_deployment_that_fails_after_the_switch_is_undone_too, Result == error(deployment_failed(exited(1)))) :-
    deploys(deploy_service, running(old, older), [fails(_, start:_, exited(1))], Result, Left),
    assertion(same(running(old, older), Left)).
test(what_can_not_be_undone_is_said, Result == error(deployment_failed(not_restored(exited(1), port_in_use(8080))))) :-
    deploys(deploy_service, running(old), [fails(_, start:_, exited(1)), fails(_, undo_stop_1:_, port_in_use(8080))],
            Result, _).
test(a_host_that_can_not_be_reached, Result == error(deployment_failed(timeout))) :-
    deploys(deploy_with_rollback, running(old), [fails(_, observe, timeout)], Result, _).
test(a_failing_preparation_leaves_all_as_it_was, Result == error(deployment_failed(command_failed(2, ["no"])))) :-
    declare_api([prepare_command(make)]),
    deploys(deploy_with_rollback, running(old, older), [fails(_, prepare, command_failed(2, ["no"]))], Result, Left),
    assertion(same(running(old, older), Left)),
    declare_api([]).

:- end_tests(deploying).

:- begin_tests(deploying_with_hooks, [cleanup(undeclare_api)]).

test(a_failing_hook_before_stops_before_anything_changed,
     [forall(member(F, [deploy_with_hooks, deploy_with_rollback])),
      Result == error(pre_deploy_failed(error(hook_failed(custom(b), command_failed(1, [])))))]) :-
    declare_api([]), hook(pre_deploy, custom(a)), hook(pre_deploy, custom(b)), hook(pre_deploy, custom(c)),
    deploys(F, running(old), [], [fails(_, pre_deploy_2:_, command_failed(1, []))], Result, Left, Ids),
    assertion(same(running(old), Left)),
    assertion(Ids == [observe, pre_deploy_1, pre_deploy_2]).
test(a_failing_hook_after_only_warns,
     [forall(member(F, [deploy_with_hooks, deploy_with_rollback])),
      Result == deployed_with_warnings(error(hook_failed(custom(a), command_failed(1, []))))]) :-
    declare_api([]), hook(post_deploy, custom(a)), hook(post_deploy, custom(b)),
    deploys(F, running(old), [], [fails(_, post_deploy_1:_, command_failed(1, []))], Result, Left, Ids),
    assertion(whole(Left)),
    assertion(\+ ( memberchk(post_deploy_2, Ids), \+ memberchk(post_deploy_1, Ids) )).
test(a_failing_health_check_after_rolls_back,
     [forall(member(Hook, [health_check, run_once(health_check)])),
      Result == rolled_back_after_failure(rolled_back(Old))]) :-
    declare_api([]), hook(post_deploy, Hook),
    hash(old, Old),
    deploys(deploy_with_rollback, running(old, older), [answers(_, [200, 500, 500, 500, 200])], Result, Left),
    assertion(same(running(old, older), Left)).
test(a_failing_health_check_after_a_deployment_with_hooks_warns,
     Result == deployed_with_warnings(error(hook_failed(health_check, unhealthy(status(500)))))) :-
    declare_api([]), hook(post_deploy, health_check),
    deploys(deploy_with_hooks, running(old), [answers(_, [500])], Result, _).
test(a_failing_hook_before_the_shutdown_ends_the_deployment,
     Result == error(deployment_failed(pre_shutdown_hook_failed(error(hook_failed(custom(a), timeout)))))) :-
    declare_api([]), hook(pre_shutdown, custom(a)),
    deploys(deploy_with_rollback, running(old, older), [fails(_, pre_shutdown_1:_, timeout)], Result, Left),
    assertion(same(running(old, older), Left)).
test(hooks_on_the_way_back_never_stop_it, Result == rolled_back_after_failure(rolled_back(Old))) :-
    declare_api([]),
    forall(member(E, [on_health_failure, pre_rollback, post_rollback]), hook(E, custom(x))),
    hash(old, Old),
    unhealthy(Answers),
    deploys(deploy_with_rollback, running(old, older), [fails(_, command, timeout)|Answers], Result, Left),
    assertion(same(running(old, older), Left)).
test(rollback_hooks_never_stop_a_rollback, Result == rolled_back(Older)) :-
    declare_api([]),
    forall(member(E, [pre_rollback, pre_shutdown, post_shutdown, post_rollback]), hook(E, custom(x))),
    hash(older, Older),
    deploys(rollback_service, running(old, older), [fails(_, command, timeout)], Result, _).
test(a_hook_that_runs_once_runs_on_the_first_host_only, Counts == [1, 0]) :-
    declare_api([]), hook(pre_deploy, run_once(custom(migrate))),
    declare_service_hosts(api, [host_config('a.example', []), host_config('b.example', [])]),
    perform(none, deploy_with_rollback(api, [backend(model([sources(new)]))]), deployed, Events),
    findall(N, ( member(H, ['a.example', 'b.example']),
                 aggregate_all(count, member(event(_, H, pre_deploy_1, _, _, _), Events), N) ), Counts).

:- end_tests(deploying_with_hooks).

:- begin_tests(rolling_back, [setup(declare_api([])), cleanup(undeclare_api)]).

three([current(C), backup(B), running(C), release(A), release(B), release(C), history(A), history(B), history(C)]) :-
    maplist(id, [a, b, c], [A, B, C]).

test(to_the_rollback_point, Result == rolled_back(Older)) :-
    hash(older, Older),
    deploys(rollback_service, running(old, older), [], Result, Left),
    id(older, Id),
    assertion(memberchk(current(Id), Left)),
    assertion(memberchk(running(Id), Left)),
    assertion(\+ member(backup(_), Left)).
test(twice_walks_back_and_then_there_is_no_more, Results == [rolled_back(B), rolled_back(A), error(no_rollback_available)]) :-
    maplist(hash, [a, b], [A, B]),
    three(Facts0),
    model(rollback_service(api, []), [host(_, Facts0)], R1, Facts1),
    model(rollback_service(api, []), [host(_, Facts1)], R2, Facts2),
    model(rollback_service(api, []), [host(_, Facts2)], R3, Facts3),
    assertion(Facts2 == Facts3),
    id(a, Id),
    assertion(memberchk(running(Id), Facts3)),
    Results = [R1, R2, R3].
test(to_a_release_that_is_kept, Result == rolled_back(A)) :-
    hash(a, A),
    three(Facts),
    model(rollback_service(api, [to(A)]), [host(_, Facts)], Result, Left),
    assertion(memberchk(running(A), Left)),
    assertion(\+ member(backup(_), Left)).
test(to_the_beginning_of_a_hash, Result == rolled_back(A)) :-
    hash(a, A),
    sub_atom(A, 0, 8, _, Short),
    three(Facts),
    model(rollback_service(api, [to(Short)]), [host(_, Facts)], Result, _).
test(to_a_release_that_is_not_kept, Result == error(no_rollback_available)) :-
    hash(gone, Gone),
    three(Facts),
    model(rollback_service(api, [to(Gone)]), [host(_, Facts)], Result, Left),
    subtract(Left, Facts, Added),
    subtract(Facts, Left, Missing),
    assertion(Added-Missing == []-[]).
test(to_what_is_active_already, Result == error(no_rollback_available)) :-
    hash(c, C),
    three(Facts),
    model(rollback_service(api, [to(C)]), [host(_, Facts)], Result, Left),
    subtract(Left, Facts, Added),
    assertion(Added == []).
test(without_a_rollback_point, [forall(member(S, [empty, running(old)])), Result == error(no_rollback_available)]) :-
    deploys(rollback_service, S, [], Result, Left),
    assertion(same(S, Left)).
test(to_an_unhealthy_release_leaves_what_was_active, Result == error(rollback_failed(unhealthy(status(500))))) :-
    unhealthy(Answers),
    deploys(rollback_service, running(old, older), Answers, Result, Left),
    assertion(same(running(old, older), Left)).
test(that_can_not_be_undone_says_so, Result == error(rollback_failed(not_restored(exited(1), port_in_use(1))))) :-
    deploys(rollback_service, running(old, older), [fails(_, start:_, exited(1)), fails(_, undo_stop_1:_, port_in_use(1))],
            Result, _).
test(of_a_host_that_can_not_be_reached, Result == error(rollback_failed(timeout))) :-
    deploys(rollback_service, running(old, older), [fails(_, observe, timeout)], Result, _).

:- end_tests(rolling_back).

:- begin_tests(stopping, [setup(declare_api([drain_signal('USR1')])), cleanup(undeclare_api)]).

stops(Operation, State, Trouble, Result, Left) :-
    from(State, Script0),
    append(Trouble, Script0, Script),
    model(Operation, Script, Result, Left).

test(gracefully, Result == stopped) :-
    stops(graceful_stop(api, []), running(old, older), [], Result, Left),
    assertion(same(stopped(old, older), Left)).
test(what_does_not_run_is_stopped, [forall(member(Op, [graceful_stop(api, []), stop_service(api, []), force_stop_service(api, 1, [])])),
                                    Result == stopped]) :-
    stops(Op, stopped(old), [], Result, _).
test(cutting_connections_is_forced, Result == force_stopped) :-
    stops(graceful_stop(api, []), running(old), [fails(_, drain, timeout)], Result, Left),
    assertion(same(stopped(old), Left)).
test(killing_it_is_forced, [forall(member(Op, [graceful_stop(api, []), force_stop_service(api, 1, [])])),
                            Result == force_stopped]) :-
    stops(Op, running(old), [kills(_)], Result, Left),
    assertion(same(stopped(old), Left)).
test(a_plain_stop_is_a_stop, [forall(member(Trouble, [[], [kills(_)]])), Result == stopped]) :-
    stops(stop_service(api, []), running(old), Trouble, Result, _).
test(a_failing_hook_before_keeps_it_running,
     Result == error(pre_shutdown_hook_failed(error(hook_failed(custom(a), timeout))))) :-
    hook(pre_shutdown, custom(a)),
    stops(graceful_stop(api, []), running(old), [fails(_, pre_shutdown_1:_, timeout)], Result, Left),
    assertion(same(running(old), Left)),
    declare_api([drain_signal('USR1')]).
test(a_service_that_can_not_be_told_to_drain, Result == error(drain_failed(command_failed(1, [])))) :-
    stops(graceful_stop(api, []), running(old), [fails(_, signal, command_failed(1, []))], Result, Left),
    assertion(same(running(old), Left)).
test(a_process_that_does_not_end, [forall(member(Op, [graceful_stop(api, []), stop_service(api, []), force_stop_service(api, 1, [])])),
                                   Result == error(stop_failed(timeout))]) :-
    stops(Op, running(old), [fails(_, stop, timeout)], Result, _).
test(of_a_host_that_can_not_be_reached, Result == error(stop_failed(timeout))) :-
    stops(stop_service(api, []), running(old), [fails(_, observe, timeout)], Result, _).
test(drained, Result == drained) :-
    stops(drain_connections(api, []), running(old), [], Result, Left),
    assertion(same(running(old), Left)).
test(drained_where_nothing_runs, Result == drained) :-
    stops(drain_connections(api, []), stopped(old), [], Result, _).
test(not_drained_in_time, Result == timeout) :-
    stops(drain_connections(api, [timeout(1)]), running(old), [fails(_, drain, timeout)], Result, _).
test(not_told_to_drain, Result == error(command_failed(1, []))) :-
    stops(drain_connections(api, []), running(old), [fails(_, signal, command_failed(1, []))], Result, _).
test(started, Result == started) :-
    stops(start_service(api, []), stopped(old), [], Result, Left),
    assertion(same(running(old), Left)).
test(without_a_release_nothing_starts, Result == error(start_failed(not_deployed))) :-
    stops(start_service(api, []), empty, [], Result, _).
test(a_start_that_fails_leaves_nothing_running, Result == error(start_failed(exited(unknown)))) :-
    stops(start_service(api, []), stopped(old), [fails(_, confirm, exited(unknown))], Result, Left),
    assertion(same(stopped(old), Left)).
test(restarted, Result == started) :-
    stops(restart_service(api, []), running(old), [], Result, Left),
    assertion(same(running(old), Left)).
test(what_does_not_stop_is_not_started, Result == error(stop_failed(timeout))) :-
    stops(restart_service(api, []), running(old), [fails(_, stop, timeout)], Result, _).
test(nothing_to_restart_is_left_alone, Result == error(start_failed(not_deployed))) :-
    stops(restart_service(api, []), empty, [], Result, _).
test(a_restart_that_is_lost_leaves_what_ran_running,
     [ forall(( member(Step, [stop, start, confirm, settle, unlock]), member(Reached, [before, after, end]) )),
       true(Same == yes) ]) :-
    stops(restart_service(api, []), running(old), [cut(_, Step:_, timeout, Reached)], Result, Left),
    ( memberchk(Step, [settle, unlock]) -> Result == started ; Result = error(_), good_result(Result, no) ),
    ( same(running(old), Left) -> Same = yes ; Same = Left ).
test(what_does_not_start_again_is_told, Result-Kind == error(start_failed(not_restored(exited(1), exited(1))))-not_restored) :-
    stops(restart_service(api, []), running(old), [fails(_, start, exited(1))], Result, _),
    result_kind(restart_service, Result, Kind).
test(a_start_or_restart_that_does_not_begin_has_not_started,
     [ forall(( member(Operation, [start_service(api, []), restart_service(api, [])]), member(Step, [lock, intend]) )),
       true(Result == error(start_failed(no_space))) ]) :-
    stops(Operation, running(old), [fails(_, Step:_, no_space)], Result, _).
test(starting_what_runs_does_not_stop_it, Result == error(start_failed(exited(unknown)))) :-
    stops(start_service(api, []), running(old), [fails(_, confirm, exited(unknown))], Result, Left),
    assertion(same(running(old), Left)).

good_result(Result, Good) :- ( good_result(Result) -> Good = yes ; Good = no ).

:- end_tests(stopping).

% A goal that is counted among those that run at the same time.

counted(Goal) :-
    with_mutex(counting, ( flag(running_now, N, N + 1), flag(peak, P, max(P, N + 1)) )),
    sleep(0.01),
    call(Goal),
    flag(running_now, M, M - 1).

:- begin_tests(operations_on_hosts, [cleanup(undeclare_api)]).

on(Hosts) :-
    declare_api([]),
    findall(host_config(H, []), member(H, Hosts), Configs),
    declare_service_hosts(api, Configs).

model_results(Operation0, Script, Result) :-
    Operation0 =.. [Name, S, Options],
    Operation =.. [Name, S, [backend(model([sources(new)|Script]))|Options]],
    perform(Operation, Result).

test(where_all_agree_the_result_is_theirs, Result == deployed) :-
    on([a, b, c]),
    model_results(deploy_with_rollback(api, []), [], Result).
test(where_they_differ_it_is_mixed_in_order_of_declaration,
     Result == mixed([result(c, deployed), result(a, error(deployment_failed(no_space))), result(b, deployed)])) :-
    on([c, a, b]),
    model_results(deploy_with_rollback(api, []), [fails(a, stage, no_space)], Result).
test(deploy_to_all_hosts_is_always_a_list, Result == [result(b, deployed), result(a, deployed)]) :-
    on([b, a]),
    model_results(deploy_to_all_hosts(api, []), [], Result).
test(without_a_host_deploy_to_all_hosts_says_so, Result == [result(localhost, error(no_host_configured))]) :-
    undeclare_api,
    declare_service(api, []),
    deploy_to_all_hosts(api, Result).
test(one_host_may_be_picked, Result == [result(b, deployed)]) :-
    on([a, b]),
    model_results(deploy_to_all_hosts(api, [host(b)]), [fails(a, stage, no_space)], Result).
test(a_plan_has_the_steps_of_every_host, Hosts == [a, b]) :-
    on([a, b]),
    model_results(deployment_plan(api, []), [], Plan),
    findall(H, member(step(stage, H, _, _), Plan), Hosts).
test(the_plan_of_what_needs_nothing_is_only_to_look, Ids == [observe, scan]) :-
    declare_api([]),
    from(running(new), Script),
    perform(deployment_plan(api, [backend(model(Script))]), Plan),
    step_ids(Plan, Ids).
test(without_hosts_of_its_own_a_service_is_deployed_to_that_of_its_method, Result == [result('a.example', deployed)]) :-
    declare_api([]),
    model_results(deploy_to_all_hosts(api, []), [], Result).
test(no_more_hosts_at_once_than_allowed, [forall(member(Most, [1, 2])), cleanup(unwrap_predicate(deployment_model:model_effect/2, counted)), true(Peak =< Most)]) :-
    on([a, b, c, d, e]),
    flag(running_now, _, 0), flag(peak, _, 0),
    wrap_predicate(deployment_model:model_effect(_, _), counted, Wrapped, test_operations:counted(Wrapped)),
    model_results(deploy_to_all_hosts(api, [max_parallel(Most)]), [], Results),
    length(Results, N),
    assertion(N == 5),
    flag(peak, Peak, Peak).
test(hosts_are_worked_on_at_the_same_time, [cleanup(unwrap_predicate(deployment_model:model_effect/2, counted)), true(Peak > 1)]) :-
    on([a, b, c, d, e]),
    flag(running_now, _, 0), flag(peak, _, 0),
    wrap_predicate(deployment_model:model_effect(_, _), counted, Wrapped, test_operations:counted(Wrapped)),
    model_results(deploy_to_all_hosts(api, []), [], _),
    flag(peak, Peak, Peak).

test(results_that_leave_nobody_worse_are_good, Bad == []) :-
    findall(R, ( member(R, [ deployed, deployed(no_changes), unchanged, started, stopped, drained, healthy, rolled_back(h), ok,
                             mixed([result(a, deployed), result(b, unchanged)]), [result(a, deployed)] ]),
                 \+ good_result(R) ), Bad).
test(others_are_not, [forall(member(R, [ error(x), rolled_back_after_failure(rolled_back(h)), unhealthy, timeout, [],
                                         mixed([result(a, deployed), result(b, error(x))]), [result(a, error(x))] ])), fail]) :-
    good_result(R).

:- end_tests(operations_on_hosts).

:- begin_tests(operations_refused, [cleanup(undeclare_api)]).

operations([ deploy_service(api, []), deploy_with_hooks(api, []), deploy_with_rollback(api, []), deploy_to_all_hosts(api, []) ]).

test(an_insecure_service_is_not_deployed, Results == [R, R, R, [result('a.example', R)]]) :-
    R = error(security_validation_failed([remote_requires_encryption('a.example')])),
    declare_api([]),
    declare_service(api, [transport(http)]),
    operations(Operations),
    maplist(perform, Operations, Results).
test(one_insecure_host_keeps_all_from_being_deployed, Result == [result(localhost, R), result(b, R)]) :-
    R = error(security_validation_failed([remote_missing_transport(b)])),
    undeclare_api,
    declare_service(api, []),
    declare_deploy_method(api, ssh, []),
    declare_service_hosts(api, [host_config(localhost, []), host_config(b, [])]),
    deploy_to_all_hosts(api, Result).
test(an_insecure_service_can_be_stopped, Result == stopped) :-
    declare_api([]),
    declare_service(api, [transport(http)]),
    model(stop_service(api, []), [], Result, _).
test(an_undeclared_service, [forall(( operations(Os), member(O, [ start_service(api, []), rollback_service(api, []),
                                                                 run_health_check(api, []), graceful_stop(api, []) |Os]) )),
                             error(existence_error(service, api), _)]) :-
    undeclare_api,
    perform(O, _).
test(a_service_without_a_method, error(existence_error(deploy_method, api), _)) :-
    undeclare_api,
    declare_service(api, [host(localhost)]),
    deploy_service(api, _).
test(a_service_without_sources, error(existence_error(service_sources, api), _)) :-
    undeclare_api,
    declare_service(api, []),
    declare_deploy_method(api, local, []),
    perform(deploy_service(api, [backend(model([]))]), _).
test(a_service_without_hosts, error(existence_error(service_host, api), _)) :-
    undeclare_api,
    declare_service(api, []),
    declare_deploy_method(api, ssh, []),
    declare_service_sources(api, [x]),
    deploy_service(api, _).
test(a_host_that_is_not_declared, error(existence_error(service_host, other), _)) :-
    declare_api([]),
    deploy_service(api, [host(other)], _).
test(an_option_nobody_knows, error(domain_error(operation_option, paralel(1)), _)) :-
    declare_api([]),
    deploy_service(api, [paralel(1)], _).
test(an_option_of_the_wrong_type, error(type_error(_, _), _)) :-
    declare_api([]),
    deploy_with_rollback(api, [force(17)], _).
test(a_time_that_is_no_number, error(type_error(number, soon), _)) :-
    declare_api([]),
    force_stop_service(api, soon, _).
test(a_time_below_zero, error(domain_error(seconds, -1), _)) :-
    declare_api([]),
    force_stop_service(api, -1, _).
test(an_operation_nobody_knows, error(domain_error(deployment_operation, explode(api, [])), _)) :-
    perform(explode(api, []), _).
test(an_error_of_one_hosts_rules_is_thrown, error(existence_error(service_sources, api), _)) :-
    undeclare_api,
    declare_service(api, [transport(https)]),
    declare_deploy_method(api, ssh, []),
    declare_service_hosts(api, [host_config(a, []), host_config(b, [])]),
    perform(deploy_service(api, [backend(model([]))]), _).

:- end_tests(operations_refused).
