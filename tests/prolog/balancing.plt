:- module(test_balancing, []).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/balanced_model), [modelled_server/2]).
:- use_module(library(deployment/declarations), [forget_origin/1, with_origin/3]).
:- use_module(library(deployment/operations), [result_kind/3]).
:- use_module(library(deployment/releases), [hash_of_id/2]).
:- use_module(library(lists), [append/2, last/2, member/2, memberchk/2, subtract/3]).
:- use_module(library(plunit)).
:- use_module(modelled).

haproxy(haproxy([socket('/run/haproxy/admin.sock'), backend(web)])).

declare_balanced(Options) :-
    declare_api(Options),
    haproxy(Balancer),
    declare_load_balancer(api, Balancer).

% performed(+Operation, +State, +Trouble, -Result, -Left, -Events): on the host in State, behind the server s1, unless Trouble has servers.

performed(Operation, State, Trouble, Result, Left, Events) :-
    host(State, Facts),
    (   memberchk(server(_, _, _, _), Trouble)
    ->  Servers = []
    ;   Servers = [server(s1, 'a.example', 8080, ready)]
    ),
    append([Trouble, Servers, [host('a.example', Facts), sources(new)]], Script),
    model(Operation, Script, Result, Left, Events).

deployed(State, Trouble, Result, Left, Ids) :-
    performed(deploy_with_rollback(api, []), State, Trouble, Result, Left, Events),
    steps(Events, Ids).

notes(Id, Events, Notes) :- memberchk(event(_, _, Id, _, _, Notes), Events).

in_order(Some, All) :-
    findall(Id, ( member(Id, All), memberchk(Id, Some) ), Some).

% The service runs, and its server is as an operation left it that was killed.

left_out(Trouble, Result, Hash) :-
    id(old, Id),
    hash_of_id(Id, Hash),
    host(running(old), Facts),
    taken_out(Out),
    append([Trouble, [host(_, Facts)], Out], Script),
    model(recover(api, []), Script, Result, _, _).

taken_out([server(s1, 'a.example', 8080, maint), ledger([entry(taken_out, _, _, "web/s1")])]).

same(State, Left) :- host(State, Facts), msort(Facts, Same), msort(Left, Same).

:- begin_tests(declaring_a_load_balancer, [cleanup(undeclare_api)]).

test(it_is_kept_in_normal_form, Balancer == haproxy([socket('/run/h.sock'), backend(web)])) :-
    declare_load_balancer("api", haproxy([socket("/run/h.sock"), backend("web")])),
    load_balancer_config(api, Balancer).
test(the_later_replaces, All == [haproxy([socket('127.0.0.1:9999'), backend(b)])]) :-
    haproxy(Balancer),
    declare_load_balancer(api, Balancer),
    declare_load_balancer(api, haproxy([socket('127.0.0.1:9999'), backend(b)])),
    findall(Found, load_balancer_config(api, Found), All).
test(that_of_a_file_goes_with_it, fail) :-
    haproxy(Balancer),
    undeclare_api,
    with_origin('/srv/services.pl', '/srv', declare_load_balancer(api, Balancer)),
    forget_origin('/srv/services.pl'),
    load_balancer_config(api, _).
test(it_goes_with_its_service, fail) :-
    declare_balanced([]),
    undeclare_service(api),
    load_balancer_config(api, _).
test(both_options_are_needed, error(existence_error(load_balancer_option, backend))) :-
    declare_load_balancer(api, haproxy([socket('/run/h.sock')])).
test(other_balancers_are_not_known, error(type_error(load_balancer, nginx([])))) :-
    declare_load_balancer(api, nginx([])).
test(a_backend_is_one_word, error(domain_error(haproxy_name, backend('web; disable server web/a')))) :-
    declare_load_balancer(api, haproxy([socket('/run/h.sock'), backend('web; disable server web/a')])).
test(a_socket_is_a_path_or_a_place, [forall(member(Socket, [sock, 'a/b', 'a.example', ':80', 'ipv4@a:0', '']))]) :-
    catch(declare_load_balancer(api, haproxy([socket(Socket), backend(web)])), error(domain_error(Type, _), _), true),
    Type == runtime_socket.
test(a_socket_as_haproxy_writes_it,
     [forall(member(Socket, ['unix@/run/h.sock', 'ipv4@127.0.0.1:9999', 'a.example:9999', 'ipv6@::1:9999', '[::1]:9999']))]) :-
    declare_load_balancer(api, haproxy([socket(Socket), backend(web)])).

:- end_tests(declaring_a_load_balancer).

:- begin_tests(behind_a_load_balancer, [setup(declare_balanced([])), cleanup(undeclare_api)]).

test(no_more_requests_before_anything_is_stopped_and_again_when_healthy, Order == Ids) :-
    deployed(running(old), [], deployed, _, Ids),
    Order = [observe, balancer, scan, lock, stage, balancer_drain, balancer_await, intend, keep, drain, stop, switch, start, health, confirm,
             balancer_ready, commit, prune, settle, unlock, record],
    modelled_server(s1, ready).
test(a_server_that_is_not_there_ends_it_before_anything_is_touched, Ids == [observe, balancer]) :-
    deployed(running(old), [server(s1, 'b.example', 8080, ready)], Result, Left, Ids),
    Result == error(deployment_failed(balancer(no_server('a.example')))),
    same(running(old), Left).
test(another_port_is_another_server, Result == error(deployment_failed(balancer(no_server('a.example'))))) :-
    deployed(running(old), [server(s1, 'a.example', 8081, ready)], Result, _, _).
test(two_servers_of_one_address_are_one_too_many, Reason == several_servers('a.example', [s1, s2])) :-
    deployed(running(old), [server(s1, 'a.example', 8080, ready), server(s2, 'a.example', 8080, ready)], Result, _, _),
    Result = error(deployment_failed(balancer(Reason))).
test(the_host_s_name_comes_before_its_address) :-
    deployed(running(old), [server(s1, 'a.example', 8080, ready), server('a.example', '10.0.0.1', 80, ready)], deployed, _, _),
    modelled_server('a.example', ready),
    \+ modelled_server(s1, _).
test(the_declared_server_comes_first, [setup(declare_balanced([balancer_server(s2)])), cleanup(declare_balanced([]))]) :-
    deployed(running(old), [server(s1, 'a.example', 8080, ready), server(s2, 'a.example', 8080, ready)], deployed, _, _),
    modelled_server(s2, ready),
    \+ modelled_server(s1, _).
test(a_refused_drain_ends_it_with_what_was_there_running, Ids == Order) :-
    deployed(running(old), [balancer_fails(set(_, _, drain), refused(no))], Result, Left, Ids),
    Result == error(deployment_failed(balancer(refused(no)))),
    same(running(old), Left),
    Order = [observe, balancer, scan, lock, stage, balancer_drain, regain, undo_balancer_drain_1, undo_stage_1, undo_lock_1].
test(lost_while_it_is_waited_for_it_is_told_that_nothing_could_be_restored) :-
    deployed(running(old), [balancer_fails(poll(_), unavailable(gone))], Result, Left, Ids),
    Result == rolled_back_after_failure(error(rollback_failed(balancer(unavailable(gone))))),
    same(running(old), Left),
    \+ memberchk(stop, Ids).
test(a_failed_release_leaves_the_former_one_with_its_requests) :-
    id(old, Old),
    deployed(running(old), [answers(_, [500, 500, 500, 200])], Result, Left, Ids),
    Result = rolled_back_after_failure(rolled_back(_)),
    memberchk(running(Old), Left),
    in_order([undo_stop_1, undo_balancer_drain_1], Ids),
    modelled_server(s1, ready).
test(where_nothing_healthy_runs_there_are_no_requests, Admin == maint) :-
    deployed(running(old), [answers(_, [500])], Result, _, Ids),
    Result = rolled_back_after_failure(error(rollback_failed(_))),
    memberchk(undo_balancer_drain_1, Ids),
    modelled_server(s1, Admin).
test(a_server_that_does_not_come_up_fails_the_deployment, Reason == not_up(s1, 'DOWN 1/2')) :-
    performed(deploy_with_rollback(api, []), running(old), [says(s1, ['DOWN 1/2'])], Result, _, Events),
    Result = rolled_back_after_failure(error(rollback_failed(balancer(not_up(s1, _))))),
    memberchk(event(_, _, balancer_ready, failed(balancer(Reason)), Seconds, _), Events),
    Seconds >= 30.
test(a_server_that_comes_up_late_is_waited_for) :-
    performed(deploy_with_rollback(api, []), running(old), [says(s1, ['DOWN', 'DOWN', 'DOWN', 'DOWN', 'DOWN', 'UP 1/3', 'UP'])], deployed, _,
              Events),
    memberchk(event(_, _, balancer_ready, ok, Seconds, _), Events),
    Seconds > 0.35.
test(sessions_are_waited_for_and_none_has_to_be_seen_twice) :-
    performed(deploy_with_rollback(api, []), running(old), [sessions(s1, [2, 0, 1, 0, 0])], deployed, _, Events),
    memberchk(event(_, _, balancer_await, ok, Seconds, []), Events),
    Seconds > 0.35,
    Seconds < 0.45.
test(sessions_that_never_end_are_told_and_the_deployment_goes_on, Notes == [sessions_left(2)]) :-
    performed(deploy_with_rollback(api, []), running(old), [sessions(s1, [2])], deployed, _, Events),
    notes(balancer_await, Events, Notes).
test(what_somebody_else_took_out_stays_out, [forall(member(State, [drain, maint]))]) :-
    deployed(running(old), [server(s1, 'a.example', 8080, State)], deployed, _, Ids),
    \+ memberchk(balancer_drain, Ids),
    \+ memberchk(balancer_ready, Ids),
    \+ modelled_server(s1, _).
test(a_stopped_service_gets_no_requests, Admin == maint) :-
    performed(stop_service(api, []), running(old), [], stopped, _, Events),
    steps(Events, Ids),
    in_order([balancer_await, stop], Ids),
    modelled_server(s1, Admin).
test(a_stop_that_is_lost_leaves_it_without_requests,
     [forall(member(Reached, [before, after, end])), true(Result-Admin == error(stop_failed(not_restored(timeout, balancer(kept_out(s1)))))-maint)]) :-
    performed(stop_service(api, []), running(old), [cut(_, stop, timeout, Reached)], Result, _, _),
    modelled_server(s1, Admin).
test(what_fails_behind_it_is_drained_before_it_is_stopped) :-
    performed(deploy_with_rollback(api, []), running(old), [fails(_, commit:_, no_space)], Result, Left, Events),
    Result = rolled_back_after_failure(rolled_back(_)),
    same(running(old), Left),
    steps(Events, Ids),
    in_order([balancer_ready, undo_balancer_ready_1, undo_balancer_ready_2, undo_start_2, undo_stop_1, undo_balancer_drain_1], Ids),
    modelled_server(s1, ready).
test(what_can_not_be_reached_any_more_and_was_not_touched_gets_its_requests_back, Admin == ready) :-
    performed(deploy_with_rollback(api, []), running(old), [fails(_, intend, unreachable(x)), fails(_, regain, unreachable(x))],
              error(deployment_failed(unreachable(x))), _, _),
    modelled_server(s1, Admin).
test(what_serves_and_can_not_be_reached_keeps_its_requests, [forall(member(Operation-State, [ deploy_with_rollback(api, [])-running(old),
                                                                                            rollback_service(api, [])-running(new, old) ])),
                                                         true(Admin == ready)]) :-
    findall(fails(_, Step:_, unreachable(x)),
            member(Step, [commit, regain, turn_back, undo_start_2, undo_switch_1, undo_stop_1, undo_stop_3]), Unreachable),
    performed(Operation, State, Unreachable, Result, _, _),
    result_kind(deploy_with_rollback, Result, not_restored),
    modelled_server(s1, Admin).
test(a_start_that_the_load_balancer_does_not_see_leaves_no_requests, Result-Admin == error(start_failed(balancer(not_up(s1, 'DOWN'))))-maint) :-
    performed(start_service(api, []), stopped(old), [says(s1, ['DOWN'])], Result, Left, _),
    same(stopped(old), Left),
    modelled_server(s1, Admin).
test(a_first_deployment_that_fails_waits_for_no_server, true(Seconds < 30)) :-
    performed(deploy_with_rollback(api, []), empty, [answers(_, [500]), says(s1, ['DOWN'])],
              rolled_back_after_failure(error(no_rollback_available)), _, Events),
    last(Events, event(Seconds, _, _, _, _, _)).
test(a_host_that_went_back_by_itself_without_requests_is_told, Kind == not_restored) :-
    performed(deploy_with_rollback(api, [confirm_within(60)]), running(old),
              [answers(_, [failed(connection_refused)]), fails(_, disarm, not_confirmed_in_time), fails(_, regain, not_confirmed_in_time)],
              Result, _, _),
    result_kind(deploy_with_rollback, Result, Kind).
test(who_has_not_its_lock_any_more_leaves_the_load_balancer_alone, Admin == maint) :-
    performed(deploy_with_rollback(api, []), running(old), [fails(_, intend, lock_lost), fails(_, regain, not_regained)],
              rolled_back_after_failure(error(rollback_failed(not_regained))), _, _),
    modelled_server(s1, Admin).
test(a_stop_that_fails_gives_it_its_requests_back, Admin == ready) :-
    performed(stop_service(api, []), running(old), [fails(_, stop, timeout)], Result, _, _),
    Result == error(stop_failed(timeout)),
    modelled_server(s1, Admin).
test(a_graceful_stop_waits_as_long_as_it_is_told) :-
    performed(graceful_stop(api, [drain_timeout(3)]), running(old), [sessions(s1, [1])], force_stopped, _, Events),
    memberchk(event(_, _, balancer_await, ok, Seconds, [sessions_left(1)]), Events),
    Seconds >= 3,
    Seconds < 4.
test(a_started_service_gets_requests_once_it_runs) :-
    performed(start_service(api, []), stopped(old), [], started, _, Events),
    steps(Events, Ids),
    in_order([confirm, balancer_ready], Ids),
    modelled_server(s1, ready).
test(a_restart_is_over_when_it_gets_requests_again) :-
    performed(restart_service(api, []), running(old), [], started, _, Events),
    steps(Events, Ids),
    in_order([lock, balancer_drain, balancer_await, intend, stop, start, confirm, balancer_ready, settle, unlock], Ids),
    modelled_server(s1, ready).
test(a_restart_whose_server_does_not_come_up_is_undone, Result == error(start_failed(not_restored(balancer(X), balancer(X))))) :-
    performed(restart_service(api, []), running(old), [says(s1, ['DOWN'])], Result, Left, _),
    X = not_up(s1, 'DOWN'),
    same(running(old), Left).
test(a_hook_that_fails_does_not_hide_that_it_is_left_without_requests,
     [ setup(declare_lifecycle_hook(api, pre_shutdown, custom(false))), cleanup(( haproxy(B), declare_api([]), declare_load_balancer(api, B) )),
       forall(member(Name, [restart_service, stop_service])),
       true(Kind == not_restored) ]) :-
    Operation =.. [Name, api, []],
    performed(Operation, running(old), [fails(_, command, command_failed(1, [])), balancer_fails(set(_, _, ready), refused(no))],
              error(stop_failed(not_restored(pre_shutdown_hook_failed(_), balancer(_)))), _, _),
    result_kind(Name, error(stop_failed(not_restored(a, b))), Kind).
test(recovering_brings_back_what_was_left_without_requests, Result-Admin == [result('a.example', completed(Hash))]-ready) :-
    left_out([], Result, Hash),
    modelled_server(s1, Admin).
test(what_is_unhealthy_is_not_brought_back, Result-Admin == [result('a.example', error(recovery_failed(unhealthy(status(500)))))]-maint) :-
    left_out([answers(_, [500])], Result, _),
    ( modelled_server(s1, Admin) -> true ; Admin = maint ).
test(what_can_not_be_brought_back_is_told,
     Result == [result('a.example', error(recovery_failed(balancer(refused(no)))))]) :-
    left_out([balancer_fails(set(_, _, ready), refused(no))], Result, _).
test(a_load_balancer_that_can_not_be_told_is_no_reason_to_go_back,
     Result == [result('a.example', error(recovery_failed(balancer(refused(no)))))]) :-
    id(new, New), id(old, Old),
    host(running(old), Facts0),
    subtract(Facts0, [current(Old), running(Old)], Facts1),
    append([ [current(New), running(New), release(New), backup(Old), intent(t, Old, none, Old, New, running)], Facts1 ], Facts),
    taken_out(Out),
    model(recover(api, []), [host(_, Facts), balancer_fails(set(_, _, ready), refused(no))|Out], Result, Left, _),
    memberchk(running(New), Left).
test(a_rollback_takes_it_out_and_brings_it_back) :-
    performed(rollback_service(api, []), running(new, old), [], rolled_back(_), _, Events),
    steps(Events, Ids),
    in_order([balancer_drain, balancer_await, stop, start, health, balancer_ready, commit], Ids),
    modelled_server(s1, ready).
test(the_lease_outlasts_the_wait, Lease == 90) :-
    performed(deployment_plan(api, []), running(old), [], Plan, _, _),
    memberchk(step(lock, _, lock(Lease, _, _), _), Plan).

:- end_tests(behind_a_load_balancer).
