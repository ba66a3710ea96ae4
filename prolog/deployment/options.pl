:- module(deployment_options,
          [ option_row/5,               % ?Scope, ?Name, ?Type, ?Default, ?Doc
            option_scope/1,             % ?Scope
            option_group/5,             % ?Group, ?Name, ?Type, ?Default, ?Doc
            check_options/3,            % +Scope, +Options0, -Options
            lookup/3,                   % +Name, +OptionLists, -Value
            default_option/3            % +Scope, +Name, -Value
          ]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(error), [must_be/2]).
:- use_module(library(lists), [member/2]).
:- use_module(nearest, [nearest/3]).
:- use_module(sealing, [seal_secrets/2]).
:- use_module(types, [check_value/4]).

/** <module> The option table, and what reads it

One row says everything about an option in a scope: its type, its default and what it means. Validation, look-up, defaults and the generated
reference read the table. Types are explained in types.pl.

Scopes: `service` (declare_service/2), `method` (declare_deploy_method/3), `host` (host_config/2: whatever a service or a method may say, but
for the host's name and the source folder), and one for the options of each family of predicates that act.
*/

%!  option_row(?Scope, ?Name, ?Type, ?Default, ?Doc) is nondet.
%
%   In Scope, Name/1 (header: Name/2) is an option whose value has Type. Default is `default(Value)` or `none`, Doc one line of text.

option_row(Scope, Name, Type, Default, Doc) :-
    scope_group(Scope, Group),
    row(Group, Name, Type, Default, Doc),
    \+ left_out(Scope, Group, Name).

%!  option_group(?Group, ?Name, ?Type, ?Default, ?Doc) is nondet.
%
%   As option_row/5, each row once: by the Group of rows that one or more scopes have.

option_group(Group, Name, Type, Default, Doc) :-
    row(Group, Name, Type, Default, Doc).

%!  option_scope(?Scope) is nondet.
%
%   Scope is one that check_options/3 knows.

option_scope(Scope) :-
    distinct_scope(Scope).

%!  distinct_scope(?Scope) is nondet.

distinct_scope(service).
distinct_scope(method).
distinct_scope(host).
distinct_scope(rollout).
distinct_scope(operation).
distinct_scope(plan).
distinct_scope(rollback).
distinct_scope(graceful_stop).
distinct_scope(lock).
distinct_scope(drain).
distinct_scope(health_check).
distinct_scope(wait).
distinct_scope(history).
distinct_scope(script).
distinct_scope(health_script).
distinct_scope(load_balancer).

%!  scope_group(?Scope, ?Group) is nondet.
%
%   The rows of Group are options in Scope.

scope_group(service, service).
scope_group(method, method).
scope_group(host, service).
scope_group(host, method).
scope_group(host, place).
scope_group(rollout, rollout).
scope_group(rollout, confirm).
scope_group(operation, call).
scope_group(operation, force).
scope_group(operation, confirm).
scope_group(plan, call).
scope_group(plan, force).
scope_group(plan, confirm).
scope_group(rollback, call).
scope_group(lock, call).
scope_group(lock, lock).
scope_group(rollback, to).
scope_group(graceful_stop, call).
scope_group(graceful_stop, graceful_stop).
scope_group(drain, call).
scope_group(drain, drain).
scope_group(health_check, call).
scope_group(health_check, probe).
scope_group(health_check, attempts).
scope_group(wait, call).
scope_group(wait, probe).
scope_group(wait, deadline).
scope_group(history, history).
scope_group(script, service).
scope_group(script, method).
scope_group(health_script, service).
scope_group(health_script, method).
scope_group(health_script, health_script).
scope_group(load_balancer, load_balancer).

%!  left_out(+Scope, +Group, +Name) is semidet.
%
%   The row Name of Group is no option in Scope: a host does not rename itself, and has the release of its service; one row for the host is
%   enough for a script.

left_out(host, _, host).
left_out(host, _, source_dir).
left_out(script, method, host).
left_out(health_script, method, host).

%!  row(?Group, ?Name, ?Type, ?Default, ?Doc) is nondet.

row(service, host, host, none,
    "Host the service runs on, unless its deploy method or declare_service_hosts/2 names others").
row(service, port, port, default(8080),
    "TCP port the service listens on").
row(service, target, one_of([python, go, rust, node, executable]), default(python),
    "What the entry point is; decides the start command").
row(service, entry_point, relative_path, default('server.py'),
    "File that is started, relative to the release").
row(service, source_dir, path, none,
    "Folder the source patterns are relative to; itself relative to the declaring file").
row(service, lifecycle, one_of([persistent, transient, on_demand, pipeline_bound]), default(persistent),
    "Stored, and read by nothing").
row(service, transport, one_of([http, https, ssh]), none,
    "How the service is reached and checked; ssh: through the connection that deploys it").
row(service, idle_timeout, seconds, none,
    "Seconds; stored, and read by nothing").
row(service, max_lifetime, seconds, none,
    "Seconds; stored, and read by nothing").
row(service, env, environment, default([]),
    "Environment of the service's process, as a list of NAME-Value; secret(Value), secret(env(NAME)) and secret(command(C)) are shown nowhere").
row(service, start_command, command, none,
    "Command that starts the service instead of the one its target implies").
row(service, prepare_command, command, none,
    "Command run in the staged release before the switch; its failure ends the deployment").
row(service, save_state_command, command, none,
    "Command of the save_state hook, run in the active release").
row(service, shared_paths, relative_paths, default([]),
    "Files and folders of every release that are links into the service's shared folder").
row(service, health_endpoint, url_path, default('/health'),
    "Path that answers when the service is healthy").
row(service, drain_endpoint, url_path, none,
    "Path that tells the service to accept no more connections").
row(service, drain_signal, signal, none,
    "Signal that tells the service to accept no more connections").
row(service, warmup_endpoint, url_path, none,
    "Path that the warm_cache hook requests").
row(service, keep_releases, positive_integer, default(5),
    "Releases kept on a host, the active one and the rollback point included").
row(service, healthy_deadline, positive_seconds, default(30),
    "Seconds within which a new release must become healthy").
row(service, address, host, none,
    "Address the service listens on, when that is not its host's name").
row(service, balancer_server, haproxy_name, none,
    "Server of the load balancer's backend that stands for the host, when its name or address does not tell").

row(method, host, host, none,
    "Host that is deployed to, unless declare_service_hosts/2 names others").
row(method, user, user, default(deploy),
    "User that logs in").
row(method, agent, boolean, default(true),
    "Whether keys of the SSH agent are tried").
row(method, key_file, path, none,
    "Private key that is tried").
row(method, remote_dir, remote_dir, default('/opt/unifyweaver/services'),
    "Folder of all services on the host; for the method local, services in the user's data folder").
row(method, ssh_port, port, default(22),
    "TCP port of the SSH server").
row(method, known_hosts, path, none,
    "File of known host keys, instead of the user's").
row(method, host_key, one_of([strict, accept_new]), default(strict),
    "Whether a host whose key is not known is refused, or its key recorded").
row(method, sudo, boolean, default(false),
    "Whether commands that need it run under sudo").
row(method, supervisor, one_of([process, systemd]), default(process),
    "What keeps the service's process: the library's own supervisor, or systemd (root's with sudo or as root, else the user's)").
row(method, connect_timeout, positive_seconds, default(10),
    "Seconds to connect and log in").
row(method, command_timeout, positive_seconds, default(300),
    "Seconds one remote script may take").
row(method, link_unchanged, boolean, default(false),
    "Whether unchanged files are hard links (without a prepare_command): its service must never write into a release").

row(place, zone, text, none,
    "Zone the host is in, for the spread of a rollout").
row(place, rack, text, none,
    "Rack the host is in, for the spread of a rollout").

row(rollout, batches, batch_sizes, default(['100%']),
    "Sizes of the batches, in hosts or percent of all; the last is repeated until all hosts had their turn").
row(rollout, max_unavailable, amount, default('100%'),
    "Hosts, or percent of all, that are worked on or were left without their service at the same time").
row(rollout, min_healthy_time, seconds, default(0),
    "Seconds in a row for which a new release must be healthy").
row(rollout, healthy_deadline, positive_seconds, default(60),
    "Seconds within which it must have been so, unless service or host declare others").
row(rollout, max_failures, count, default(0),
    "Hosts that may fail before on_failure is done").
row(rollout, pause_between, seconds, default(0),
    "Seconds between two batches").
row(rollout, order, one_of([declared, random, rule]), default(declared),
    "Order of the hosts; rule: by the key in rollout_order(Service, Host, Key), a rule of yours").
row(rollout, spread, identifier, none,
    "Option of the hosts, as zone: those that share its value are in one batch only where it cannot be avoided").
row(rollout, on_failure, one_of([stop, continue, rollback_all]), default(rollback_all),
    "After more failures: skip the rest, go on, or skip the rest and take all hosts back").

row(call, backend, backend, default(live),
    "What performs the plan: live, dry, or model(Script)").
row(call, host, host, none,
    "The one host to act on").
row(call, max_parallel, positive_integer, default(30),
    "Hosts that are worked on at the same time").
row(call, lock_wait, seconds, default(0),
    "Seconds to wait while another operation holds the lock of a host").
row(call, lease, positive_seconds, default(30),
    "Seconds, beside those a new release has to become healthy, that the lock outlasts a script whose controller is gone").

row(force, force, boolean, default(false),
    "Whether to deploy although nothing changed").

row(confirm, confirm_within, positive_seconds, none,
    "Seconds within which a deployment has to confirm its release over a new connection, else the host goes back by itself").

row(to, to, release_id, none,
    "Hash of the release to restore, instead of the rollback point").

row(lock, reason, text, default('by hand'),
    "Why the lock is taken, for who finds it taken").

row(graceful_stop, drain_timeout, seconds, default(30),
    "Seconds to wait for open connections to end").
row(graceful_stop, force_after, seconds, default(60),
    "Seconds after which a process that still runs is killed").

row(drain, timeout, seconds, default(30),
    "Seconds to wait for open connections to end").

row(probe, endpoint, url_path, none,
    "Path to request; the service's health_endpoint when not given").
row(probe, expect_status, http_status, default(200),
    "HTTP status of a healthy answer").
row(probe, expect_body, text, none,
    "Text that the body of a healthy answer contains").
row(probe, header, header, none,
    "header(Name, Value): a header of the request; may be given several times").
row(probe, ca_file, path, none,
    "File of certificates that are trusted, instead of the system's").
row(probe, successes, positive_integer, default(1),
    "Healthy answers in a row that make the service healthy").

row(attempts, retries, positive_integer, default(3),
    "Probes before the service counts as unhealthy").
row(attempts, delay, seconds, default(2),
    "Seconds between two probes").
row(attempts, timeout, positive_seconds, default(5),
    "Seconds one probe may take").

row(deadline, timeout, seconds, default(60),
    "Seconds within which the service must become healthy").
row(deadline, interval, seconds, default(2),
    "Seconds between two probes").

row(load_balancer, socket, runtime_socket, none,
    "HAProxy's runtime socket, of the level admin: a path, or HOST:PORT, without TLS").
row(load_balancer, backend, haproxy_name, none,
    "The backend whose servers are the service's hosts").
row(history, limit, positive_integer, default(100),
    "Runs that are given at most, the newest first").
row(history, since, seconds, none,
    "Seconds since the epoch: only runs that began then or later").
row(history, host, host, none,
    "Only runs on this host").
row(history, operation, identifier, none,
    "Only runs of the operation of this name").
row(history, unfinished, boolean, default(false),
    "Whether only runs are given whose end is not recorded").

row(health_script, timeout, positive_seconds, default(5),
    "Seconds one probe may take").
row(health_script, retries, positive_integer, default(3),
    "Probes before the service counts as unhealthy").

%!  default_option(+Scope, +Name, -Value) is semidet.
%
%   Value is the default of option Name in Scope. Fails when it has none.

default_option(Scope, Name, Value) :-
    option_row(Scope, Name, _, default(Value0), _),
    !,
    Value = Value0.

%!  lookup(+Name, +OptionLists:list(list), -Value) is semidet.
%
%   Value is that of Name/1 in the first of OptionLists that has it.

lookup(Name, OptionLists, Value) :-
    functor(Option, Name, 1),
    member(Options, OptionLists),
    memberchk(Option, Options),
    !,
    arg(1, Option, Value).

%!  check_options(+Scope, +Options0:list, -Options:list) is det.
%
%   Options are Options0 with their values in normal form (text as atoms), in the same order.
%
%   @error domain_error(option_scope, Scope)
%   @error domain_error(Scope_option, Option), where Scope_option is for example `service_option`: there is no such option. The context is
%     `context(_, nearest(Name))` when an option Name has a similar name.
%   @error domain_error(unique_option, Option): given before in the same list.
%   @error type_error(option, Option): not of the form Name(Value).
%   @error type_error(Type, Option), domain_error(Type, Option): a value that is none of Type, or not allowed in it.

check_options(Scope, Options0, Options) :-
    check_scope(Scope),
    seal_secrets(Options0, Sealed),
    must_be(list, Sealed),
    maplist(check_option(Scope), Sealed, Options),
    check_unique(Options).

%!  check_scope(+Scope) is det.

check_scope(Scope) :-
    distinct_scope(Scope),
    !.
check_scope(Scope) :-
    throw(error(domain_error(option_scope, Scope), _)).

%!  check_option(+Scope, +Option0, -Option) is det.

check_option(_, Option, _) :-
    var(Option),
    !,
    throw(error(instantiation_error, _)).
check_option(Scope, Option0, Option) :-
    compound(Option0),
    compound_name_arity(Option0, Name, Arity),
    option_row(Scope, Name, Type, _, _),
    !,
    check_arity(Type, Arity, Option0),
    check_value(Type, Option0, Option0, Option).
check_option(Scope, Option, _) :-
    compound(Option),
    !,
    unknown_option(Scope, Option).
check_option(_, Option, _) :-
    throw(error(type_error(option, Option), _)).

%!  check_arity(+Type, +Arity, +Option) is det.

check_arity(header, 2, _) :- !.
check_arity(Type, 1, _) :-
    Type \== header,
    !.
check_arity(_, _, Option) :-
    throw(error(type_error(option, Option), _)).

%!  unknown_option(+Scope, +Option) is erroneous.

unknown_option(Scope, Option) :-
    atom_concat(Scope, '_option', Domain),
    compound_name_arity(Option, Name, _),
    findall(Known, option_row(Scope, Known, _, _, _), Names),
    (   nearest(Name, Names, Nearest)
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(domain_error(Domain, Option), context(_, Message))).

%!  check_unique(+Options) is det.

check_unique(Options) :-
    check_unique(Options, []).

%!  check_unique(+Options, +Seen) is det.
%
%   No option of Options but header/2 occurs twice, or among the names Seen.

check_unique([], _).
check_unique([Option|Options], Seen) :-
    compound_name_arity(Option, Name, Arity),
    (   Arity =:= 2
    ->  check_unique(Options, Seen)
    ;   memberchk(Name, Seen)
    ->  throw(error(domain_error(unique_option, Option), _))
    ;   check_unique(Options, [Name|Seen])
    ).
