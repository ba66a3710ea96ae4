:- encoding(utf8).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/declarations)).
:- use_module(library(lists), [member/2, numlist/3]).
:- use_module(library(plunit)).
:- use_module(library(thread), [concurrent_forall/3]).

forget :-
    forall(service_config(Service, _), undeclare_service(Service)),
    forall(deploy_method_config(Service, _, _), undeclare_service(Service)),
    forall(lifecycle_hooks(Service, _), undeclare_service(Service)),
    forall(service_hosts(Service, _), undeclare_service(Service)).

% from(+Origin, :Goal): Goal declares, as if in the file Origin.

:- meta_predicate from(+, 0).

from(Origin, Goal) :-
    with_origin(Origin, '/srv/src', Goal).

% deterministic(:Goal): Goal succeeds and leaves no choice point.

:- meta_predicate deterministic(0).

deterministic(Goal) :-
    call_cleanup(Goal, Done = true),
    (   Done == true
    ->  true
    ;   !, fail
    ).

:- begin_tests(services, [setup(forget), cleanup(forget)]).

test(a_service_has_its_options_in_normal_form, Options == [host('a.example'), port(80)]) :-
    declare_service("api", [host("a.example"), port(80)]),
    service_config(api, Options).
test(declaring_again_replaces, All == [[port(2)]]) :-
    declare_service(api, [port(1)]),
    declare_service(api, [port(2)]),
    findall(Options, service_config(api, Options), All).
test(services_are_enumerated_in_order, All == [api-[], web-[port(1)]]) :-
    forget,
    declare_service(api, []),
    declare_service(web, [port(1)]),
    findall(Service-Options, service_config(Service, Options), All).
test(asking_by_options, Services == [web]) :-
    forget,
    declare_service(api, [port(1)]),
    declare_service(web, [port(2)]),
    findall(Service, service_config(Service, [port(2)]), Services).
test(what_is_not_declared_has_no_answer, fail) :-
    service_config(nosuch, _).
test(names, [forall(member(Name, ['', '.', '..', '-x', 'a/b', 'a b', 'a\nb', 'é', '$x'])), error(domain_error(service_name, Name), _)]) :-
    declare_service(Name, []).
test(names_of_the_wrong_type, [forall(member(Name, [1, f(x), []])), error(type_error(service_name, Name), _)]) :-
    declare_service(Name, []).
test(no_name, error(instantiation_error, _)) :-
    declare_service(_, []).
test(a_refused_declaration_changes_nothing, Options == [port(1)]) :-
    declare_service(api, [port(1)]),
    catch(declare_service(api, [port(0)]), error(domain_error(_, _), _), true),
    service_config(api, Options).
test(an_unknown_service_is_an_error_that_names_the_nearest, Nearest == api_service) :-
    declare_service(api_service, []),
    catch(require_service(api_servce), error(existence_error(service, api_servce), context(_, nearest(Nearest))), true).

:- end_tests(services).

:- begin_tests(undeclare, [setup(forget), cleanup(forget)]).

test(everything_about_it_goes, Left == []) :-
    declare_service(api, [host(a)]),
    declare_deploy_method(api, ssh, [host(b)]),
    declare_service_sources(api, [x]),
    declare_lifecycle_hook(api, pre_deploy, save_state),
    declare_service_hosts(api, [host_config(c, [])]),
    undeclare_service(api),
    findall(Goal, ( member(Goal, [service_config(api, _), deploy_method_config(api, _, _), service_sources(api, _),
                                  lifecycle_hooks(api, _), service_hosts(api, _), service_host(api, _, _),
                                  service_host(_, a, _), service_host(_, c, _), source_base(api, _)]),
                    call(Goal) ), Left).
test(what_another_origin_declared_goes_too, fail) :-
    from(f, declare_service(api, [port(1)])),
    declare_service(api, [port(2)]),
    undeclare_service(api),
    forget_origin(user),
    service_config(api, _).
test(others_stay, Services == [web]) :-
    forget,
    declare_service(api, []),
    declare_service(web, []),
    undeclare_service("api"),
    findall(Service, service_config(Service, _), Services).
test(nothing_to_undeclare) :-
    undeclare_service(nosuch).

:- end_tests(undeclare).

:- begin_tests(methods_and_sources, [setup(forget), cleanup(forget)]).

test(one_method_a_service, Methods == [local-[]]) :-
    declare_deploy_method(api, ssh, [user(root)]),
    declare_deploy_method(api, "local", []),
    findall(Method-Options, deploy_method_config(api, Method, Options), Methods).
test(an_unknown_method_names_the_nearest, Nearest == local) :-
    catch(declare_deploy_method(api, loacl, []), error(domain_error(deploy_method, loacl), context(_, nearest(Nearest))), true).
test(patterns, Patterns == ['**/*.py', \+ 'x/**', 'a b']) :-
    declare_service_sources(api, ["**/*.py", \+ "x/**", 'a b']),
    service_sources(api, Patterns).
test(patterns_that_lead_out, [forall(member(Pattern, ['/etc/passwd', '../x', 'a/../../b', ''])),
                              error(domain_error(source_pattern, Pattern), _)]) :-
    declare_service_sources(api, [Pattern]).
test(excluded_patterns_are_checked_too, error(domain_error(source_pattern, '../x'), _)) :-
    declare_service_sources(api, [\+ '../x']).
test(no_patterns, [forall(member(Pattern, [1, f(x), \+ \+ x])), error(type_error(source_pattern, _), _)]) :-
    declare_service_sources(api, [Pattern]).
test(sources_are_relative_to_the_declaring_folder, Dir == '/srv/src') :-
    from(f, declare_service_sources(based, [x])),
    source_base(based, Dir).
test(sources_are_relative_to_the_working_folder_otherwise, Dir/x == File) :-
    declare_service_sources(here, [x]),
    source_base(here, Dir),
    absolute_file_name(x, Absolute),
    file_directory_name(Absolute, Folder),
    File = Folder/x.
test(a_source_dir_is_relative_to_the_file_of_the_service, [forall(member(Given-Dir, ['../app'-'/srv/app', app-'/srv/src/app', '/x'-'/x'])),
                                                           Base == Dir]) :-
    from(f, declare_service(placed, [source_dir(Given)])),
    with_origin(g, '/elsewhere', declare_service_sources(placed, [x])),
    source_base(placed, Base).
test(no_sources_no_base, fail) :-
    declare_service(bare, []),
    source_base(bare, _).

:- end_tests(methods_and_sources).

:- begin_tests(hooks_declared, [setup(forget), cleanup(forget)]).

test(in_order_of_declaration, Hooks == [hook(post_deploy, health_check), hook(pre_deploy, custom('make x')), hook(pre_deploy, run_once(custom(m)))]) :-
    declare_lifecycle_hook(api, post_deploy, health_check),
    declare_lifecycle_hook(api, pre_deploy, custom("make x")),
    declare_lifecycle_hook(api, "pre_deploy", run_once(custom(m))),
    lifecycle_hooks(api, Hooks).
test(the_same_hook_twice_is_one_hook, Hooks == [hook(pre_deploy, save_state), hook(pre_deploy, warm_cache)]) :-
    declare_lifecycle_hook(twice, pre_deploy, save_state),
    declare_lifecycle_hook(twice, pre_deploy, warm_cache),
    declare_lifecycle_hook(twice, pre_deploy, save_state),
    from(f, declare_lifecycle_hook(twice, pre_deploy, save_state)),
    lifecycle_hooks(twice, Hooks).
test(it_stays_while_one_origin_declares_it, Hooks == [hook(pre_deploy, save_state)]) :-
    declare_lifecycle_hook(shared, pre_deploy, save_state),
    from(f, declare_lifecycle_hook(shared, pre_deploy, save_state)),
    forget_origin(f),
    lifecycle_hooks(shared, Hooks).
test(a_declared_service_without_hooks, Hooks == []) :-
    declare_service(calm, []),
    lifecycle_hooks(calm, Hooks).
test(an_undeclared_service_without_hooks, fail) :-
    lifecycle_hooks(nosuch, _).
test(enumerates, All == [calm-[], early-[hook(pre_deploy, save_state)]]) :-
    forget,
    declare_lifecycle_hook(early, pre_deploy, save_state),
    declare_service(calm, []),
    findall(Service-Hooks, lifecycle_hooks(Service, Hooks), All).
test(every_event_and_action) :-
    forall(( lifecycle_event(Event), member(Action, [drain_connections, health_check, save_state, warm_cache, custom(x)]) ),
           declare_lifecycle_hook(all, Event, Action)).
test(an_unknown_event_names_the_nearest, Nearest == pre_deploy) :-
    catch(declare_lifecycle_hook(api, pre_deplyo, save_state),
          error(domain_error(lifecycle_event, pre_deplyo), context(_, nearest(Nearest))), true).
test(an_unknown_action_names_the_nearest, Nearest == health_check) :-
    catch(declare_lifecycle_hook(api, pre_deploy, heath_check),
          error(domain_error(hook_action, heath_check), context(_, nearest(Nearest))), true).
test(no_actions, [forall(member(Action, [custom(''), custom(1), custom(f(x)), custom, run_once(run_once(save_state)), 7, run_once(x)])),
                  error(domain_error(hook_action, _), _)]) :-
    declare_lifecycle_hook(api, pre_deploy, Action).
test(unbound_actions, [forall(member(Action, [_, custom(_), run_once(_)])), error(instantiation_error, _)]) :-
    declare_lifecycle_hook(api, pre_deploy, Action).

:- end_tests(hooks_declared).

:- begin_tests(hosts_declared, [setup(forget), cleanup(forget)]).

test(in_order_and_in_normal_form, Hosts == [host_config('b.example', [user(root)]), host_config('a.example', [])]) :-
    declare_service_hosts(api, [host_config("b.example", [user("root")]), host_config('a.example', [])]),
    service_hosts(api, Hosts).
test(asked_backwards, Services == [web]) :-
    declare_service_hosts(web, [host_config('w.example', [])]),
    findall(Service, service_hosts(Service, [host_config('w.example', [])]), Services).
test(twice_the_same_host, error(domain_error(unique_host, 'A.example'), _)) :-
    declare_service_hosts(api, [host_config('a.example', []), host_config('b.example', []), host_config('A.example', [])]).
test(no_host_configs, [forall(member(Host, ['a.example', host_config(a), host_config(a, [], [])])), error(type_error(host_config, Host), _)]) :-
    declare_service_hosts(api, [Host]).
test(bad_host_names, [forall(member(Host, ['', 'a b', '-x', 'a;b'])), error(domain_error(host, Host), _)]) :-
    declare_service_hosts(api, [host_config(Host, [])]).
test(bad_host_options, error(domain_error(host_option, prot(1)), context(_, nearest(port)))) :-
    declare_service_hosts(api, [host_config(a, [prot(1)])]).
test(not_a_list, error(type_error(list, a), _)) :-
    declare_service_hosts(api, a).

:- end_tests(hosts_declared).

declare_resolved :-
    forget,
    declare_service(api, [host(s), port(1), health_endpoint('/s')]),
    declare_deploy_method(api, ssh, [host(m), user(mu), ssh_port(23)]),
    declare_service_hosts(api, [host_config(a, [port(2), user(au)]), host_config(b, [])]).

:- begin_tests(resolving, [setup(declare_resolved), cleanup(forget)]).

test(the_call_comes_first, Value == 9) :-
    resolve(api, a, [port(9)], port, Value).
test(then_the_host, Values == [2, au]) :-
    findall(Value, ( member(Name, [port, user]), resolve(api, a, [], Name, Value) ), Values).
test(then_the_method, Values == [mu, 23]) :-
    findall(Value, ( member(Name, [user, ssh_port]), resolve(api, b, [], Name, Value) ), Values).
test(then_the_service, Values == [1, '/s']) :-
    findall(Value, ( member(Name, [port, health_endpoint]), resolve(api, b, [], Name, Value) ), Values).
test(then_the_default, Values == [python, strict, 30]) :-
    findall(Value, ( member(Name, [target, host_key, healthy_deadline]), resolve(api, b, [], Name, Value) ), Values).
test(what_has_no_default, fail) :-
    resolve(api, b, [], transport, _).
test(declared_leaves_defaults_out, fail) :-
    declared(api, b, [], target, _).
test(the_folder_of_local_services_is_the_users, Dir == '/data/unifyweaver/services') :-
    declare_deploy_method(homely, local, []),
    setup_call_cleanup(setenv('XDG_DATA_HOME', '/data'),
                       resolve(homely, localhost, [], remote_dir, Dir),
                       unsetenv('XDG_DATA_HOME')).
test(the_folder_of_remote_services, Dir == '/opt/unifyweaver/services') :-
    resolve(api, a, [], remote_dir, Dir).
test(one_solution_a_host, All == [a-[port(2), user(au), ssh_port(23), health_endpoint('/s')],
                                  b-[user(mu), ssh_port(23), port(1), health_endpoint('/s')]]) :-
    findall(Host-Options, service_host(api, Host, Options), All).
test(hosts_asked_backwards, Services == [api]) :-
    findall(Service, service_host(Service, b, _), Services).
test(another_host, fail) :-
    service_host(api, m, _).

:- end_tests(resolving).

% target_case(+Service, +Method, +Hosts, -Targets)

target_case([host(s)], ssh-[host(m)], [host_config(b, []), host_config(a, [])], [b, a]).
target_case([host(s)], ssh-[host(m)], [], [m]).
target_case([host(s)], ssh-[], [], [s]).
target_case([host(s)], local-[], [], [s]).
target_case([], local-[], [], [localhost]).
target_case([], ssh-[], [], []).

:- begin_tests(targets, [setup(forget), cleanup(forget)]).

test(targets, [forall(target_case(Options, Method-MethodOptions, Hosts, Expected)), Targets-Found == Expected-Expected]) :-
    forget,
    declare_service(api, Options),
    declare_deploy_method(api, Method, MethodOptions),
    declare_service_hosts(api, Hosts),
    service_targets(api, Targets),
    findall(Host, service_host(_, Host, _), Found),
    forall(member(Host, Expected), service_host(api, Host, _)),
    forall(member(Host, Expected), deterministic(service_host(_, Host, _))).

:- end_tests(targets).

:- begin_tests(origins, [setup(forget), cleanup(forget)]).

test(the_later_declaration_wins, Options == [port(2)]) :-
    from(f, declare_service(api, [port(1)])),
    from(g, declare_service(api, [port(2)])),
    service_config(api, Options).
test(the_earlier_counts_again, Options == [port(1)]) :-
    from(f, declare_service(back, [port(1)])),
    from(g, declare_service(back, [port(2)])),
    forget_origin(g),
    service_config(back, Options).
test(forgetting_what_was_superseded, Options == [port(2)]) :-
    from(f, declare_service(front, [port(1)])),
    from(g, declare_service(front, [port(2)])),
    forget_origin(f),
    service_config(front, Options).
test(of_three_the_latest_left, Options == [port(2)]) :-
    forall(nth(I, [f, g, h]), ( I = N-O, from(O, declare_service(three, [port(N)])) )),
    forget_origin(h),
    service_config(three, Options).
test(hosts_follow, Hosts-Found == [host_config(a, [])]-[a]) :-
    from(f, declare_service_hosts(hosted, [host_config(a, [])])),
    from(g, declare_service_hosts(hosted, [host_config(b, [])])),
    forget_origin(g),
    service_hosts(hosted, Hosts),
    findall(Host, service_host(hosted, Host, _), Found).
test(only_that_origin_is_forgotten, Services == [two]) :-
    forget,
    from(f, declare_service(one, [])),
    from(g, declare_service(two, [])),
    forget_origin(f),
    findall(Service, service_config(Service, _), Services).
test(what_is_restored_keeps_its_rank, Options-Left == [port(2)]-[port(1)]) :-
    forget,
    from(f, declare_service(api, [port(1)])),
    from(g, declare_service(api, [port(2)])),
    origin_declarations(f, Declarations),
    forget_origin(f),
    restore_declarations(f, Declarations),
    service_config(api, Options),
    forget_origin(g),
    service_config(api, Left).
test(what_is_restored_wins_where_it_won, Options-Left == [port(2)]-[port(1)]) :-
    forget,
    from(f, declare_service(api, [port(1)])),
    from(g, declare_service(api, [port(2)])),
    origin_declarations(g, Declarations),
    forget_origin(g),
    restore_declarations(g, Declarations),
    service_config(api, Options),
    forget_origin(g),
    service_config(api, Left).
test(a_change_that_throws_is_none, Services == [before]) :-
    forget,
    declare_service(before, []),
    catch(in_one_change(( undeclare_service(before), declare_service(after, []), throw(stop) )), stop, true),
    findall(Service, service_config(Service, _), Services).
test(the_origin_ends_with_the_goal, fail) :-
    forget,
    catch(from(f, throw(stop)), stop, true),
    declare_service(api, []),
    forget_origin(user),
    service_config(api, _).

nth(N-Origin, Origins) :-
    nth_from(Origins, 1, N, Origin).

nth_from([Origin|_], N, N, Origin).
nth_from([_|Origins], N0, N, Origin) :-
    N1 is N0 + 1,
    nth_from(Origins, N1, N, Origin).

:- end_tests(origins).

:- begin_tests(consulted, [setup(forget), cleanup(forget)]).

% A file that plain Prolog consults, with Text.

consulted(File, Text) :-
    setup_call_cleanup(open(File, write, Out), write(Out, Text), close(Out)),
    load_files(user:File, [if(true), silent(true)]).

test(a_file_that_is_loaded_again_replaces_its_declarations, All == [b-[port(2)]]) :-
    tmp_file_stream(File, Stream, [extension(pl)]),
    close(Stream),
    consulted(File, ":- declare_service(a, []).\n:- declare_service(b, []).\n"),
    consulted(File, ":- declare_service(b, [port(2)]).\n"),
    findall(Service-Options, service_config(Service, Options), All).
test(its_folder_is_that_of_its_sources, Dir == Folder) :-
    tmp_file_stream(File, Stream, [extension(pl)]),
    close(Stream),
    consulted(File, ":- declare_service_sources(c, [x]).\n"),
    source_base(c, Dir),
    file_directory_name(File, Folder).
test(what_it_includes_is_part_of_it, Services == [d, e, f]) :-
    forget,
    tmp_file_stream(Included, Stream1, [extension(pl)]),
    format(Stream1, ":- declare_service(e, []).~n", []),
    close(Stream1),
    tmp_file_stream(File, Stream, [extension(pl)]),
    close(Stream),
    format(string(Text), ":- declare_service(d, []).~n:- include(~q).~n:- declare_service(f, []).~n", [Included]),
    consulted(File, Text),
    findall(Service, service_config(Service, _), Services).

:- end_tests(consulted).

declare_fleet(Services) :-
    forget,
    numlist(1, Services, Numbers),
    forall(member(N, Numbers),
           ( atom_concat(s, N, Service),
             findall(host_config(Host, []), ( between(1, 20, I), atomic_list_concat([h, N, -, I], Host) ), Hosts),
             declare_service(Service, [port(8000)]),
             declare_service_hosts(Service, Hosts) )).

% inferences(:Goal, -Count): of the second call, when indexes are there.

:- meta_predicate inferences(0, -).

inferences(Goal, Count) :-
    once(Goal),
    statistics(inferences, Before),
    once(Goal),
    statistics(inferences, After),
    Count is After - Before.

fleet_question(service_config(s7, _)).
fleet_question(service_hosts(s7, _)).
fleet_question(service_host(s7, 'h7-3', _)).
fleet_question(service_host(_, 'h7-3', _)).
fleet_question(deploy_method_config(s7, _, _)).
fleet_question(lifecycle_hooks(s7, _)).
fleet_question(resolve(s7, 'h7-3', [], port, _)).

:- begin_tests(fleets, [cleanup(forget)]).

test(queries_leave_no_choice_point, Left == []) :-
    declare_fleet(30),
    declare_deploy_method(s7, ssh, []),
    declare_service_sources(s7, [x]),
    findall(Goal, ( fleet_question(Goal), \+ deterministic(Goal) ), Left).
test(queries_take_no_longer_with_more_services, Small == Large) :-
    declare_fleet(20),
    declare_deploy_method(s7, ssh, []),
    findall(N, ( fleet_question(Goal), inferences(Goal, N) ), Small),
    declare_fleet(400),
    declare_deploy_method(s7, ssh, []),
    findall(N, ( fleet_question(Goal), inferences(Goal, N) ), Large).
test(threads_that_declare_at_once_lose_nothing, Count == 800) :-
    forget,
    concurrent_forall(between(1, 8, T),
                      forall(between(1, 100, N), ( atomic_list_concat([t, T, '-', N], S), declare_service(S, []) )),
                      [threads(8)]),
    findall(S, service_config(S, _), Services),
    length(Services, Count).
test(threads_that_declare_the_same_leave_one, Count == 1) :-
    forget,
    concurrent_forall(between(1, 8, T),
                      forall(between(1, 100, _), declare_service(contended, [port(T)])),
                      [threads(8)]),
    findall(O, service_config(contended, O), All),
    length(All, Count).

:- end_tests(fleets).
