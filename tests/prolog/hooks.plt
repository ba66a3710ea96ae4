:- module(test_hooks, []).
:- use_module(library(deployment/hooks)).
:- use_module(library(deployment/plan), [deploy_plan/3, rollback_plan/3]).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [member/2, memberchk/2]).
:- use_module(library(plunit)).
:- use_module(modelled).

declare_hooked(Options, Hooks) :-
    declare_api(Options),
    forall(member(hook(Event, Action), Hooks), declare_lifecycle_hook(api, Event, Action)).

actions(Options, Hook, Actions) :-
    declare_hooked(Options, [hook(pre_deploy, Hook)]),
    hook_actions(api, 'a.example', pre_deploy, Actions).

% Every event has a hook of its own.

all_events([ hook(pre_deploy, custom(a)), hook(post_deploy, custom(b)), hook(pre_shutdown, custom(c)),
             hook(post_shutdown, custom(d)), hook(on_health_failure, custom(e)), hook(pre_rollback, custom(f)),
             hook(post_rollback, custom(g)) ]).

% Hooks that ran, in order: what their events' step ids tell, forward or undone.

hooks_run(Operation, Script, Hooks) :-
    model(Operation, Script, _, _, Events),
    steps(Events, Ids),
    findall(Id, ( member(Id, Ids), member(E, [pre_deploy, post_deploy, pre_shutdown, post_shutdown, pre_rollback,
                                             post_rollback, on_health_failure]),
                  sub_atom(Id, 0, _, _, E) ),
            Hooks).

:- begin_tests(hooks_actions, [cleanup(undeclare_api)]).

test(a_custom_hook_is_a_command_with_the_command_timeout,
     Actions == [hook(pre_deploy, custom('make x'), command('make x', 300))]) :-
    actions([], custom('make x'), Actions).
test(a_drain_hook_tells_the_service_and_waits,
     Actions == [hook(pre_deploy, drain_connections, signal('USR1')), hook(pre_deploy, drain_connections, drain(30))]) :-
    actions([drain_signal('USR1')], drain_connections, Actions).
test(a_drain_hook_posts_to_the_drain_endpoint,
     Actions = [hook(_, _, request(post, 'https://a.example:8080/drain', _)), hook(_, _, drain(30))]) :-
    actions([drain_endpoint('/drain'), drain_signal('USR1')], drain_connections, Actions).
test(a_drain_hook_only_waits_when_nothing_is_declared, Actions == [hook(pre_deploy, drain_connections, drain(30))]) :-
    actions([], drain_connections, Actions).
test(a_health_check_hook_probes, Actions = [hook(_, health_check, probe(policy(attempts(3), every(2), any, 1), _, _))]) :-
    actions([], health_check, Actions).
test(save_state_runs_the_declared_command, Actions == [hook(pre_deploy, save_state, command(dump, 300))]) :-
    actions([save_state_command(dump)], save_state, Actions).
test(save_state_with_nothing_declared_does_nothing,
     Actions == [hook(pre_deploy, save_state, nothing(save_state_command))]) :-
    actions([], save_state, Actions).
test(warm_cache_requests_the_declared_endpoint,
     Actions = [hook(_, warm_cache, request(get, 'https://a.example:8080/warm', _))]) :-
    actions([warmup_endpoint('/warm')], warm_cache, Actions).
test(warm_cache_with_nothing_declared_does_nothing, Actions == [hook(pre_deploy, warm_cache, nothing(warmup_endpoint))]) :-
    actions([], warm_cache, Actions).
test(a_hook_that_runs_once_is_for_the_first_host, Counts == [1, 0]) :-
    declare_hooked([], [hook(pre_deploy, run_once(custom(x)))]),
    declare_service_hosts(api, [host_config('a.example', []), host_config('b.example', [])]),
    findall(N, ( member(H, ['a.example', 'b.example']), hook_actions(api, H, pre_deploy, As), length(As, N) ), Counts).
test(hooks_come_in_order_of_declaration, Commands == [a, b, c]) :-
    declare_hooked([], [ hook(pre_deploy, custom(a)), hook(post_deploy, custom(x)), hook(pre_deploy, custom(b)),
                         hook(pre_deploy, custom(c)) ]),
    hook_actions(api, 'a.example', pre_deploy, Actions),
    findall(C, member(hook(_, custom(C), _), Actions), Commands).
test(an_event_without_hooks_has_no_actions, Actions == []) :-
    declare_api([]),
    hook_actions(api, 'a.example', post_rollback, Actions).

:- end_tests(hooks_actions).

:- begin_tests(hooks_execute, [cleanup(undeclare_api)]).

execute(Event, Script, Result, Steps) :-
    model(execute_hooks(api, Event, []), Script, Result, _, Events),
    steps(Events, Steps).

test(without_hooks_it_is_ok, Result-Steps == ok-[]) :-
    declare_api([]),
    execute(pre_deploy, [], Result, Steps).
test(all_hooks_of_the_event_run, Result-Steps == ok-[pre_deploy_1, pre_deploy_2]) :-
    declare_hooked([], [hook(pre_deploy, custom(a)), hook(post_deploy, custom(x)), hook(pre_deploy, custom(b))]),
    execute(pre_deploy, [], Result, Steps).
test(it_stops_at_the_first_failure_on_the_target,
     Result-Steps == error(hook_failed(custom(b), command_failed(1, [])))-[pre_deploy_1, pre_deploy_2]) :-
    declare_hooked([], [hook(pre_deploy, custom(a)), hook(pre_deploy, custom(b)), hook(pre_deploy, custom(c))]),
    execute(pre_deploy, [fails(_, pre_deploy_2:_, command_failed(1, []))], Result, Steps).
test(it_stops_at_the_first_failure_of_the_controller,
     Result-Steps == error(hook_failed(health_check, unhealthy(status(500))))-[post_deploy_1, post_deploy_2]) :-
    declare_hooked([], [hook(post_deploy, custom(a)), hook(post_deploy, health_check), hook(post_deploy, custom(c))]),
    execute(post_deploy, [answers(_, [500])], Result, Steps).
test(a_warm_up_that_is_not_answered_fails, Result == error(hook_failed(warm_cache, status(404)))) :-
    declare_hooked([warmup_endpoint('/warm')], [hook(post_deploy, warm_cache)]),
    execute(post_deploy, [answers(_, [404])], Result, _).
test(a_warm_up_that_is_refused_fails, Result == error(hook_failed(warm_cache, connection_refused))) :-
    declare_hooked([warmup_endpoint('/warm')], [hook(post_deploy, warm_cache)]),
    execute(post_deploy, [answers(_, [failed(connection_refused)])], Result, _).
test(what_is_not_declared_is_noted_and_ok, Result-Notes == ok-[nothing_declared(save_state_command)]) :-
    declare_hooked([], [hook(pre_shutdown, save_state)]),
    model(execute_hooks(api, pre_shutdown, []), [], Result, _, Events),
    memberchk(event(_, _, pre_shutdown_1, ok, _, Notes), Events).
test(a_failing_save_state_fails, Result == error(hook_failed(save_state, command_failed(2, [])))) :-
    declare_hooked([save_state_command(dump)], [hook(pre_shutdown, save_state)]),
    execute(pre_shutdown, [fails(_, command, command_failed(2, []))], Result, _).
test(a_drain_that_times_out_fails, Result == error(hook_failed(drain_connections, timeout))) :-
    declare_hooked([], [hook(pre_shutdown, drain_connections)]),
    execute(pre_shutdown, [fails(_, drain, timeout)], Result, _).
test(a_hook_that_runs_once_names_itself_when_it_fails, Result == error(hook_failed(run_once(custom(a)), timeout))) :-
    declare_hooked([], [hook(pre_deploy, run_once(custom(a)))]),
    execute(pre_deploy, [fails(_, command, timeout)], Result, _).
test(an_unknown_event_is_an_error, error(domain_error(lifecycle_event, before_lunch), _)) :-
    declare_api([]),
    execute_hooks(api, before_lunch, _).

:- end_tests(hooks_execute).

:- begin_tests(hooks_run_once_each, [cleanup(undeclare_api)]).

setup(State, [host(_, Facts), sources(new)]) :-
    all_events(Hooks),
    declare_hooked([], Hooks),
    host(State, Facts).

test(of_a_first_deployment, Hooks == [pre_deploy_1, post_deploy_1]) :-
    setup(empty, Script),
    hooks_run(deploy_with_hooks(api, []), Script, Hooks).
test(of_a_deployment, [forall(member(Flavour, [deploy_with_hooks, deploy_with_rollback])),
                       Hooks == [pre_deploy_1, pre_shutdown_1, post_shutdown_1, post_deploy_1]]) :-
    setup(running(old), Script),
    Operation =.. [Flavour, api, []],
    hooks_run(Operation, Script, Hooks).
test(of_a_plain_deployment_none, Hooks == []) :-
    setup(running(old), Script),
    hooks_run(deploy_service(api, []), Script, Hooks).
test(of_an_unchanged_one, Hooks == [pre_deploy_1]) :-
    setup(running(new), Script),
    hooks_run(deploy_with_rollback(api, []), Script, Hooks).
test(of_a_graceful_stop, Hooks == [pre_shutdown_1, post_shutdown_1]) :-
    setup(running(old), Script),
    hooks_run(graceful_stop(api, []), Script, Hooks).
test(of_a_stop, Hooks == [pre_shutdown_1, post_shutdown_1]) :-
    setup(running(old), Script),
    hooks_run(stop_service(api, []), Script, Hooks).
test(of_a_forced_stop_none, Hooks == []) :-
    setup(running(old), Script),
    hooks_run(force_stop_service(api, 5, []), Script, Hooks).
test(of_a_rollback, Hooks == [pre_rollback_1, pre_shutdown_1, post_shutdown_1, post_rollback_1]) :-
    setup(running(old, older), Script),
    hooks_run(rollback_service(api, []), Script, Hooks).
test(of_an_unhealthy_deployment, Undone == [on_health_failure, pre_rollback, post_rollback]) :-
    setup(running(old), Script),
    planning_facts(running(old), [], Facts),
    deploy_plan(deploy_with_rollback, Facts, Plan),
    undone(deploy_with_rollback(api, []), Plan, [answers(_, [500, 500, 500, 200])|Script], Undone).
test(of_an_unhealthy_first_deployment, Undone == [on_health_failure]) :-
    setup(empty, Script),
    planning_facts(empty, [], Facts),
    deploy_plan(deploy_with_rollback, Facts, Plan),
    undone(deploy_with_rollback(api, []), Plan, [answers(_, [500])|Script], Undone).
test(of_an_unhealthy_rollback, Undone == [on_health_failure, post_rollback]) :-
    setup(running(old, older), Script),
    planning_facts(running(old, older), [], Facts),
    id(older, Older),
    rollback_plan(Older, Facts, Plan),
    undone(rollback_service(api, []), Plan, [answers(_, [500, 500, 500, 200])|Script], Undone).

undone(Operation, Plan, Script, Events) :-
    model(Operation, Script, _, _, Noted),
    steps(Noted, Ids),
    undo_events(Plan, Ids, Events).

:- end_tests(hooks_run_once_each).
