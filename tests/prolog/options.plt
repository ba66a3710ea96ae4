:- use_module(library(deployment/nearest)).
:- use_module(library(deployment/options)).
:- use_module(library(deployment/types)).
:- use_module(library(lists), [member/2]).
:- use_module(library(plunit)).

% normal(+Scope, +Option, -Normal): what one option becomes.

normal(Scope, Option, Normal) :-
    check_options(Scope, [Option], [Normal]).

% refused(+Scope, +Options, -Formal, -Nearest): what check_options/3 throws.

refused(Scope, Options, Formal, Nearest) :-
    catch(check_options(Scope, Options, _), error(Formal, Context), true),
    nonvar(Formal),
    (   Context = context(_, Message), nonvar(Message), Message = nearest(Name)
    ->  Nearest = Name
    ;   Nearest = none
    ).

:- begin_tests(option_table).

test(each_option_has_one_row_in_a_scope, Twice == []) :-
    findall(Scope-Name, option_row(Scope, Name, _, _, _), All),
    msort(All, Sorted),
    findall(Row, nextto_equal(Row, Sorted), Twice).
test(every_default_is_a_value_of_its_type_in_normal_form, Wrong == []) :-
    findall(Scope-Name,
            ( option_row(Scope, Name, Type, default(Value), _),
              \+ ( value(Type, Value, Normal), Normal == Value ) ),
            Wrong).
test(every_row_is_documented, Bare == []) :-
    findall(Scope-Name, ( option_row(Scope, Name, _, _, Doc), string_length(Doc, N), N < 5 ), Bare).
test(every_scope_has_options, Empty == []) :-
    findall(Scope, ( option_scope(Scope), \+ option_row(Scope, _, _, _, _) ), Empty).
test(the_contract_defaults_of_a_service, Defaults == [8080, python, 'server.py', persistent, '/health', 5, 30]) :-
    findall(Value, ( member(Name, [port, target, entry_point, lifecycle, health_endpoint, keep_releases, healthy_deadline]),
                     default_option(service, Name, Value) ), Defaults).
test(the_contract_defaults_of_a_method,
     Defaults == [deploy, true, '/opt/unifyweaver/services', 22, strict, false, process, 10, 300, false]) :-
    findall(Value, ( member(Name, [user, agent, remote_dir, ssh_port, host_key, sudo, supervisor, connect_timeout,
                                   command_timeout, link_unchanged]),
                     default_option(method, Name, Value) ), Defaults).
test(the_contract_defaults_of_the_calls, Defaults == [30, 60, 30, 3, 2, 5, 200, 1, 60, 2]) :-
    findall(Value, ( member(Scope-Name, [graceful_stop-drain_timeout, graceful_stop-force_after, drain-timeout,
                                         health_check-retries, health_check-delay, health_check-timeout,
                                         health_check-expect_status, health_check-successes, wait-timeout,
                                         wait-interval]),
                     default_option(Scope, Name, Value) ), Defaults).
test(a_port_is_the_services_and_not_the_methods, fail) :-
    option_row(method, port, _, _, _).
test(a_host_has_the_options_of_service_and_method_but_no_name_and_no_sources, Left == [host, source_dir]) :-
    findall(Name, ( member(Scope, [service, method]), option_row(Scope, Name, _, _, _),
                    \+ option_row(host, Name, _, _, _) ), Left0),
    sort(Left0, Left).
test(no_default_for_a_transport, fail) :-
    default_option(service, transport, _).

nextto_equal(Row, [Row, Row|_]).
nextto_equal(Row, [_|Rows]) :-
    nextto_equal(Row, Rows).

:- end_tests(option_table).

:- begin_tests(option_values).

test(strings_become_atoms, Option == host('a.example')) :-
    normal(service, host("a.example"), Option).
test(numbers_stay, Options == [port(80), idle_timeout(0.5)]) :-
    check_options(service, [port(80), idle_timeout(0.5)], Options).
test(order_is_kept, Options == [port(1), host(a), target(go)]) :-
    check_options(service, [port(1), host(a), target("go")], Options).
test(environment_values_become_text, Option == env(['A'-'1', b_2-'x y', 'C'-''])) :-
    normal(service, env(["A"-1, b_2-"x y", 'C'-""]), Option).
test(a_header_may_be_repeated, Options == [header('A', b), header('A', c)]) :-
    check_options(health_check, [header("A", "b"), header("A", "c")], Options).
test(a_model_script_may_hold_variables, Option = backend(model(_))) :-
    normal(operation, backend(model(_)), Option).
test(a_command_keeps_every_character, Option == start_command('a "$(x)" `y` \'z\'\n')) :-
    normal(service, start_command("a \"$(x)\" `y` 'z'\n"), Option).
test(a_signal_loses_its_prefix, [forall(member(Name, ['SIGUSR1', 'USR1', usr1, "sigusr1"])), Option == drain_signal('USR1')]) :-
    normal(service, drain_signal(Name), Option).
test(good_values, [forall(good(Scope, Option)), true]) :-
    normal(Scope, Option, _).
test(values_out_of_range, [forall(bad(Scope, Option, Type)), Formal-N == domain_error(Type, Option)-none]) :-
    refused(Scope, [Option], Formal, N).
test(values_of_the_wrong_type, [forall(wrong(Scope, Option, Type)), Formal == type_error(Type, Option)]) :-
    refused(Scope, [Option], Formal, _).
test(unbound_values, [forall(member(Option, [port(_), host(_), env([_]), env(['A'-_|_]), header(a, _)])),
                      Formal == instantiation_error]) :-
    ( functor(Option, header, _) -> Scope = health_check ; Scope = service ),
    refused(Scope, [Option], Formal, _).

good(service, port(1)).
good(service, port(65535)).
good(service, host('::1')).
good(service, host('fe80::1%eth0')).
good(service, host(under_score)).
good(service, env([])).
good(service, shared_paths([data, 'a/b'])).
good(service, entry_point('-x.py')).
good(service, entry_point('a..b/c')).
good(service, health_endpoint('/h?x=1')).
good(method, remote_dir('~/services')).
good(method, remote_dir('/srv/a "b" $c')).
good(method, key_file('~/.ssh/id')).
good(rollback, to(abc123)).
good(wait, timeout(0)).

bad(service, port(0), port).
bad(service, port(65536), port).
bad(service, port(-1), port).
bad(service, host(''), host).
bad(service, host('a b'), host).
bad(service, host('-oProxyCommand=x'), host).
bad(service, host('a\nb'), host).
bad(service, host('u@h'), host).
bad(service, host('$(x)'), host).
bad(method, user('-x'), user).
bad(method, user('a b'), user).
bad(service, entry_point('/etc/passwd'), relative_path).
bad(service, entry_point('../x'), relative_path).
bad(service, entry_point('a/../b'), relative_path).
bad(service, shared_paths(['../x']), relative_paths).
bad(service, health_endpoint(health), url_path).
bad(service, health_endpoint('/a b'), url_path).
bad(service, health_endpoint('/a\r\nX: y'), url_path).
bad(service, start_command(''), command).
bad(service, env(['1A'-x]), environment).
bad(service, env(['A B'-x]), environment).
bad(service, env(['A'-x, 'A'-y]), environment).
bad(service, env(['A'-f(x)]), environment).
bad(service, keep_releases(0), positive_integer).
bad(service, healthy_deadline(0), positive_seconds).
bad(service, idle_timeout(-1), seconds).
bad(method, remote_dir('srv/x'), remote_dir).
bad(method, remote_dir('/srv/../etc'), remote_dir).
bad(method, remote_dir('/srv\nx'), remote_dir).
bad(method, ssh_port(0), port).
bad(health_check, expect_status(99), http_status).
bad(health_check, header('A', 'b\r\nC: d'), header).
bad(health_check, header('A B', c), header).
bad(health_check, header('A', '€'), header).
bad(rollback, to('../x'), release_id).

wrong(service, port(abc), port).
wrong(service, port("80"), port).
wrong(service, port(80.0), port).
wrong(service, host(1), host).
wrong(service, host([]), host).
wrong(service, transport(3), one_of([http, https, ssh])).
wrong(service, drain_signal(15), signal).
wrong(service, env(a), environment).
wrong(service, shared_paths(a), relative_paths).
wrong(service, idle_timeout(inf), seconds).
wrong(service, start_command(f(x)), command).
wrong(service, start_command('a\000\b'), command).
wrong(method, sudo(1), boolean).
wrong(operation, force(1), boolean).

test(an_infinite_time_is_refused, Formal == domain_error(seconds, idle_timeout(Inf))) :-
    Inf is inf,
    refused(service, [idle_timeout(Inf)], Formal, _).

:- end_tests(option_values).

:- begin_tests(options_refused).

test(an_unknown_option_names_the_nearest, Formal-Nearest == domain_error(service_option, prot(80))-port) :-
    refused(service, [prot(80)], Formal, Nearest).
test(the_scope_is_in_the_error, Formal-Nearest == domain_error(drain_option, tiemout(1))-timeout) :-
    refused(drain, [tiemout(1)], Formal, Nearest).
test(nothing_is_near_to_something_else, Formal-Nearest == domain_error(method_option, xyzzy(1))-none) :-
    refused(method, [xyzzy(1)], Formal, Nearest).
test(a_misspelled_word_names_the_nearest,
     Formal-Nearest == domain_error(one_of([python, go, rust, node, executable]), target(pyton))-python) :-
    refused(service, [target(pyton)], Formal, Nearest).
test(an_option_of_another_scope_is_unknown, Formal == domain_error(service_option, ssh_port(22))) :-
    refused(service, [ssh_port(22)], Formal, _).
test(twice_the_same, Formal == domain_error(unique_option, port(2))) :-
    refused(service, [port(1), host(a), port(2)], Formal, _).
test(not_name_value, [forall(member(Option, [port, 80, "port", port(1, 2), []])), Formal == type_error(option, Option)]) :-
    refused(service, [Option], Formal, _).
test(a_variable, Formal == instantiation_error) :-
    refused(service, [_], Formal, _).
test(not_a_list, Formal == type_error(list, port(80))) :-
    refused(service, port(80), Formal, _).
test(an_unknown_scope, Formal == domain_error(option_scope, nosuch)) :-
    refused(nosuch, [], Formal, _).

:- end_tests(options_refused).

:- begin_tests(option_lookup).

test(the_first_list_wins, Value == 1) :-
    lookup(port, [[host(a)], [port(1)], [port(2)]], Value).
test(none_has_it, fail) :-
    lookup(port, [[host(a)], []], _).
test(it_is_deterministic, Value == 1) :-
    lookup(port, [[port(1), port(2)], [port(3)]], Value).

:- end_tests(option_lookup).

:- begin_tests(nearest).

test(typos, [forall(member(Typo-Meant, [prot-port, prt-port, poort-port, 'PORT'-port, pore-port])), Name == Meant]) :-
    nearest(Typo, [host, target, port], Name).
test(a_swap_counts_one, Name == abcd) :-
    nearest(abdc, [abcd, abxx], Name).
test(the_closest_of_several, Name == pre_deploy) :-
    nearest(pre_deplyo, [post_deploy, pre_deploy, pre_rollback], Name).
test(too_far, fail) :-
    nearest(zzz, [port, host], _).
test(no_candidates, fail) :-
    nearest(port, [], _).

:- end_tests(nearest).
