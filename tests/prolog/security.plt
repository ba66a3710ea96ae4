:- use_module(library(deployment_glue)).
:- use_module(library(deployment/security), [is_local_host/1]).
:- use_module(library(lists), [member/2]).
:- use_module(library(plunit)).

% errors(+ServiceOptions, +MethodOptions, +Hosts, -Errors)

errors(OfService, OfMethod, Hosts, Errors) :-
    undeclare_service(secured),
    declare_service(secured, OfService),
    declare_deploy_method(secured, ssh, OfMethod),
    declare_service_hosts(secured, Hosts),
    validate_security(secured, Errors).

forget :-
    undeclare_service(secured).

:- begin_tests(security, [cleanup(forget)]).

test(local_names, [forall(member(Host, [localhost, 'LocalHost', "localhost", '127.0.0.1', '127.255.3.4', '::1']))]) :-
    is_local_host(Host).
test(remote_names, [forall(member(Host, ['a.example', 'localhost.example', '127.0.0.1.example', '127.0.0', '127.0.0.256',
                                         '128.0.0.1', '127.a.0.1', '127..0.1', '::2', '0.0.0.0', '127.0.0.+1'])), fail]) :-
    is_local_host(Host).
test(a_remote_host_over_http, Errors == [remote_requires_encryption('a.example')]) :-
    errors([host('a.example'), transport(http)], [], [], Errors).
test(a_remote_host_without_a_transport, Errors == [remote_missing_transport('a.example')]) :-
    errors([host('a.example')], [], [], Errors).
test(encrypted_transports, [forall(member(Transport, [https, ssh])), Errors == []]) :-
    errors([host('a.example'), transport(Transport)], [host('b.example')], [host_config('c.example', [])], Errors).
test(a_local_service_needs_none, [forall(member(Options, [[], [host("localhost")], [host('127.0.0.2'), transport(http)]])), Errors == []]) :-
    errors(Options, [], [], Errors).
test(the_host_of_the_method_does_not_escape, Errors == [remote_requires_encryption('m.example')]) :-
    errors([host(localhost), transport(http)], [host('m.example')], [], Errors).
test(every_host_is_judged_by_its_own_transport,
     Errors == [remote_requires_encryption('s.example'), remote_requires_encryption('b.example')]) :-
    errors([host('s.example'), transport(http)], [],
           [host_config('a.example', [transport(https)]), host_config('b.example', []), host_config(localhost, [])], Errors).
test(a_host_may_make_itself_insecure, Errors == [remote_requires_encryption('b.example')]) :-
    errors([transport(https)], [], [host_config('a.example', []), host_config('b.example', [transport(http)])], Errors).
test(each_error_once, Errors == [remote_missing_transport('a.example'), remote_missing_transport('b.example')]) :-
    errors([host('a.example')], [host('a.example')], [host_config('b.example', []), host_config('a.example', [])], Errors).
test(encryption_is_required_where_a_host_is_remote) :-
    errors([host(localhost)], [], [host_config('a.example', [transport(ssh)])], _),
    requires_encryption(secured),
    \+ is_local_service(secured).
test(a_service_on_local_hosts_is_local) :-
    errors([host(localhost)], [host('127.0.0.1')], [host_config('::1', [])], _),
    is_local_service(secured),
    \+ requires_encryption(secured).
test(an_unknown_service, [forall(member(Goal, [validate_security(nosuch, _), requires_encryption(nosuch), is_local_service(nosuch)])),
                          error(existence_error(service, nosuch), _)]) :-
    call(Goal).

:- end_tests(security).
