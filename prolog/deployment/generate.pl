:- module(deployment_generate,
          [ generate_deploy_script/3,       % +Service, +Options, -Script
            generate_ssh_deploy/3,          % +Service, +Options, -Script
            generate_rollback_script/3,     % +Service, +Options, -Script
            generate_health_check_script/3, % +Service, +Options, -Script
            generate_systemd_unit/3         % +Service, +Options, -Unit
          ]).

/** <module> Scripts and units that work without this library

A script is for one service on one host, that of the option `host` or else the service's first.  It holds the functions
that the library runs on a target, works on the same directories, and makes releases of the same names: the library
finds `unchanged` what a script deployed, and either can roll back the other's work.  Scripts need bash 3.2, curl, and
ssh and rsync 3 (rsync on the target too, with GNU find, sed and sort).  They take no lock and send files whole.

Options are those of service and deploy method; given here, they count as the host's own.
*/

:- autoload(library(apply), [exclude/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2]).
:- use_module(declarations,
              [ require_service/1, service_targets/2, service_hosts/2, deploy_method_config/3, declare_deploy_method/3,
                declare_service_hosts/2 ]).
:- use_module(options, [check_options/3, lookup/3, default_option/3]).
:- use_module(script_texts, [deploy_text/3, rollback_text/3, health_text/4]).
:- use_module(units, [unit_text/4]).

:- meta_predicate supposing(+, +, +, -, 0).

%!  generate_deploy_script(+Service, +Options, -Script:atom) is det.
%
%   Script, run by bash with the folder to ship as its argument, does what deploy_with_rollback/2 does, with the declared
%   method.  Of the folder it ships what the declared source patterns name; where none are declared, everything that does
%   not begin with a dot.  It exits with 0 when the service is deployed or unchanged, 1 when it failed and everything is
%   as it was, 2 when it was called wrongly, 3 when what was could not be brought back.
%
%   @error existence_error(service, Service), existence_error(deploy_method, Service), domain_error(script_option, Option)
%   @error domain_error(script_pattern, Pattern): the pattern excludes a character beyond ASCII by `[!…]`

generate_deploy_script(Service, Options0, Script) :-
    require_service(Service),
    check_options(script, Options0, Options),
    (   deploy_method_config(Service, Method, _)
    ->  true
    ;   throw(error(existence_error(deploy_method, Service), _))
    ),
    supposing(Service, Method, Options, Host, deploy_text(Service, Host, Script)).

%!  generate_ssh_deploy(+Service, +Options, -Script:atom) is det.
%
%   As generate_deploy_script/3, by SSH whatever method is declared.
%
%   @error existence_error(service, Service), domain_error(script_option, Option)

generate_ssh_deploy(Service, Options0, Script) :-
    require_service(Service),
    check_options(script, Options0, Options),
    supposing(Service, ssh, Options, Host, deploy_text(Service, Host, Script)).

%!  generate_rollback_script(+Service, +Options, -Script:atom) is det.
%
%   Script does what rollback_service/2 does: it makes the release active that `.backup` names, starts it, and checks its
%   health.  Its exit codes are those of generate_deploy_script/3; without a backup it is 1.
%
%   @error existence_error(service, Service), domain_error(script_option, Option)

generate_rollback_script(Service, Options0, Script) :-
    require_service(Service),
    check_options(script, Options0, Options),
    declared_method(Service, Method),
    supposing(Service, Method, Options, Host, rollback_text(Service, Host, Script)).

%!  generate_health_check_script(+Service, +Options, -Script:atom) is det.
%
%   Script exits with 0 when the service answers 200 within `retries(3)` tries of `timeout(5)` seconds at
%   `health_endpoint('/health')`, with 2 otherwise.  A host that is not this machine is asked over https; with
%   `transport(ssh)` through an SSH connection, over http.
%
%   @error existence_error(service, Service), domain_error(health_script_option, Option)

generate_health_check_script(Service, Options0, Script) :-
    require_service(Service),
    check_options(health_script, Options0, Options1),
    exclude([Option]>>( functor(Option, Name, 1), memberchk(Name, [timeout, retries]) ), Options1, Options),
    value(timeout, Options1, Timeout),
    value(retries, Options1, Retries),
    declared_method(Service, Method),
    supposing(Service, Method, Options, Host, health_text(Service, Host, tries(Retries, Timeout), Script)).

value(Name, Options, Value) :-
    lookup(Name, [Options], Value),
    !.
value(Name, _, Value) :-
    default_option(health_script, Name, Value).

declared_method(Service, Method) :-
    (   deploy_method_config(Service, Declared, _)
    ->  Method = Declared
    ;   Method = ssh
    ).

%!  generate_systemd_unit(+Service, +Options, -Unit:atom) is det.
%
%   A system's unit that runs the service's active release as the method's `user`, again after a failure and when the
%   host starts.  It is the one that `supervisor(systemd)` installs as root.
%
%   @error existence_error(service, Service), domain_error(script_option, Option)

generate_systemd_unit(Service, Options0, Unit) :-
    require_service(Service),
    check_options(script, Options0, Options),
    declared_method(Service, Method),
    supposing(Service, Method, Options, Host, unit_text(Service, Host, system, Text)),
    atom_string(Unit, Text).

%!  supposing(+Service, +Method, +Options, -Host, :Goal) is semidet.
%
%   Goal runs once, as if Service were deployed by Method, and Options were declared as Host's own.  Host is bound
%   before that.

supposing(Service, Method, Options, Host, Goal) :-
    script_host(Service, Options, Host),
    exclude([Option]>>( functor(Option, Name, 1), memberchk(Name, [host, source_dir]) ), Options, OfHost),
    configs(Service, Host, OfHost, Configs),
    snapshot(( by_method(Service, Method),
               declare_service_hosts(Service, Configs),
               Goal )).

script_host(_, Options, Host) :-
    lookup(host, [Options], Host),
    !.
script_host(Service, _, Host) :-
    service_targets(Service, Hosts),
    (   Hosts = [Host|_]
    ->  true
    ;   Host = localhost
    ).

by_method(Service, Method) :-
    deploy_method_config(Service, Method, _),
    !.
by_method(Service, Method) :-
    (   deploy_method_config(Service, _, Options) -> true ; Options = [] ),
    declare_deploy_method(Service, Method, Options).

%   The hosts of the service with their options, and Host among them with Options before its own.

configs(Service, Host, Options, Configs) :-
    (   service_hosts(Service, Declared), Declared \== []
    ->  true
    ;   service_targets(Service, Targets),
        findall(host_config(Target, []), member(Target, Targets), Declared)
    ),
    (   append(Before, [host_config(Host, Own0)|After], Declared)
    ->  exclude([Option]>>( functor(Option, Name, 1), functor(Given, Name, 1), memberchk(Given, Options) ), Own0, Own),
        append(Options, Own, All),
        append(Before, [host_config(Host, All)|After], Configs)
    ;   append(Declared, [host_config(Host, Options)], Configs)
    ).
