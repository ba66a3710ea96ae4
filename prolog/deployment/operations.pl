:- module(deployment_operations,
          [ perform/4,                  % +Run, +Operation, -Result, -Events
            perform/2                   % +Operation, -Result
          ]).
:- reexport(results, [good_result/1, result_kind/3, worst_kind/2]).

/** <module> Operations: on every host of a service, in parallel, each with its own outcome

An operation is a term named like its predicate, without the result and with its options:
`deploy_with_rollback(Service, Options)`.
*/

:- autoload(library(apply), [maplist/3]).
:- autoload(library(error), [must_be/2, domain_error/2]).
:- autoload(library(lists), [append/3, member/2, memberchk/2]).
:- use_module(declarations, [require_service/1, service_targets/2, service_host/3, deploy_method_config/3, lifecycle_event/1, resolve/5]).
:- use_module(deploying, [deploy/4, rollback/3, withdraw/4, planning/3]).
:- use_module(effects, [with_backend/3, in_phase/2]).
:- use_module(fleet, [on_hosts/4, answer_results/3, answer_events/2, in_time_order/2]).
:- use_module(gate, [with_gate/3]).
:- use_module(journal, [in_run/5]).
:- use_module(ledger, [release_hash/2]).
:- use_module(locks, [freezing/3, thawing/3, lock_state/3]).
:- use_module(model, [modelled_left/1, gather_model/2, goes_on/3]).
:- use_module(nearest, [nearest/3]).
:- use_module(options, [check_options/3, lookup/3, default_option/3]).
:- use_module(rebuilding, [rebuilding/3]).
:- use_module(recovering, [recovering/3]).
:- use_module(rolling, [roll_out/5, progress_of/2, not_reached/2, went/3]).
:- use_module(rollout, [rollout_settings/2, rollout_batches/4, host_deadline/4]).
:- use_module(run, [collect_events/2, note_event/4]).
:- use_module(running, [stopping/4, starting/4, draining/4, hooking/3, checking/4, status/4, host_status/3]).
:- use_module(security, [validate_security/2, is_local_host/1]).
:- use_module(observation, [context/5, run_token/2]).

%!  operation(?Operation, ?Service, ?Options, ?Scope, ?Needs) is nondet.
%
%   The table of operations: the scope of their options, and whether they need a deploy `method`, that the service is
%   `secure`, that no other service has its `port`, and the `gate` of the fleet before their first change.

operation(deploy_service(S, O),        S, O, operation,     [method, secure, port, gate]).
operation(deploy_with_hooks(S, O),     S, O, operation,     [method, secure, port, gate]).
operation(deploy_with_rollback(S, O),  S, O, operation,     [method, secure, port, gate]).
operation(deploy_to_all_hosts(S, O),   S, O, operation,     [method, secure, port, gate]).
operation(resume_rollout(S, O),        S, O, operation,     [method, secure, port, gate]).
operation(fleet_status(S, O),          S, O, operation,     [method]).
operation(rollback_service(S, O),      S, O, rollback,      [method, gate]).
operation(deployment_plan(S, O),       S, O, plan,          [method, port]).
operation(recover(S, O),               S, O, operation,     [method]).
operation(start_service(S, O),         S, O, operation,     [method]).
operation(stop_service(S, O),          S, O, operation,     [method]).
operation(restart_service(S, O),       S, O, operation,     [method]).
operation(lock_service(S, O),          S, O, lock,          [method]).
operation(unlock_service(S, O),        S, O, operation,     [method]).
operation(lock_status(S, O),           S, O, operation,     [method]).
operation(rebuild_ledger(S, O),        S, O, operation,     [method]).
operation(graceful_stop(S, O),         S, O, graceful_stop, [method]).
operation(drain_connections(S, O),     S, O, drain,         [method]).
operation(force_stop_service(S, _, O), S, O, operation,     [method]).
operation(execute_hooks(S, _, O),      S, O, operation,     [method]).
operation(service_status(S, _, O),     S, O, operation,     [method]).
operation(run_health_check(S, O),      S, O, health_check,  []).
operation(wait_for_healthy(S, O),      S, O, wait,          []).

%   act(+Operation, +Context, +Options, -Result) is det: what it does on one host.

act(deploy_to_all_hosts(_, _), Context, Options, Result) :-
    deploy(deploy_with_rollback, Context, Options, Result).
act(resume_rollout(_, _), Context, Options, Result) :-
    deploy(deploy_with_rollback, Context, Options, Result).
act(fleet_status(_, _), Context, Options, Row) :-
    host_status(Context, Options, Row).
act(deploy_service(_, _), Context, Options, Result) :-
    deploy(deploy_service, Context, Options, Result).
act(deploy_with_hooks(_, _), Context, Options, Result) :-
    deploy(deploy_with_hooks, Context, Options, Result).
act(deploy_with_rollback(_, _), Context, Options, Result) :-
    deploy(deploy_with_rollback, Context, Options, Result).
act(rollback_service(_, _), Context, Options, Result) :-
    rollback(Context, Options, Result).
act(with_fleet(Way), Context, Options, Result) :-
    withdraw(Way, Context, Options, Result).
act(deployment_plan(_, _), Context, Options, Steps) :-
    planning(Context, Options, Steps).
act(recover(_, _), Context, Options, Result) :-
    recovering(Context, Options, Result).
act(start_service(_, _), Context, Options, Result) :-
    starting(start, Context, Options, Result).
act(stop_service(_, _), Context, Options, Result) :-
    stopping(stop, Context, Options, Result).
act(restart_service(_, _), Context, Options, Result) :-
    starting(restart, Context, Options, Result).
act(lock_service(_, _), Context, Options, Result) :-
    freezing(Context, Options, Result).
act(unlock_service(_, _), Context, Options, Result) :-
    thawing(Context, Options, Result).
act(lock_status(_, _), Context, Options, Result) :-
    lock_state(Context, Options, Result).
act(rebuild_ledger(_, _), Context, Options, Result) :-
    rebuilding(Context, Options, Result).
act(graceful_stop(_, _), Context, Options, Result) :-
    value(graceful_stop, drain_timeout, Options, Drain),
    value(graceful_stop, force_after, Options, Force),
    stopping(graceful(Drain, Force), Context, Options, Result).
act(drain_connections(_, _), Context, Options, Result) :-
    value(drain, timeout, Options, Timeout),
    draining(Timeout, Context, Options, Result).
act(force_stop_service(_, Timeout, _), Context, Options, Result) :-
    stopping(force(Timeout), Context, Options, Result).
act(execute_hooks(_, Event, _), Context, _, Result) :-
    hooking(Event, Context, Result).
act(service_status(_, Depth, _), Context, Options, Result) :-
    status(Depth, Context, Options, Result).
act(run_health_check(_, _), Context, Options, Result) :-
    checking(check, Context, Options, Result).
act(wait_for_healthy(_, _), Context, Options, Result) :-
    checking(wait, Context, Options, Result).

value(_, Name, Options, Value) :-
    lookup(Name, [Options], Value),
    !.
value(Scope, Name, _, Value) :-
    default_option(Scope, Name, Value).

%!  perform(+Operation, -Result) is det.

perform(Operation, Result) :-
    perform(none, Operation, Result, _).

%!  perform(+Run, +Operation, -Result, -Events:list) is det.
%
%   Run is the atom by which Python knows this run, or `none`.  Events are in order of time, see
%   collect_events/2.  A signal to this thread waits until the operation is over: what is under way is
%   cancelled by its effects, and undone.
%
%   @error existence_error(service, Service), existence_error(deploy_method, Service),
%          existence_error(service_host, Service), domain_error(_, Option), domain_error(lifecycle_event, Event),
%          type_error(number, Seconds), domain_error(seconds, Seconds), domain_error(port_of_its_own, port(Port))

perform(Run, Operation, Result, Events) :-
    operation(Operation, Service, Options0, Scope, Needs),
    !,
    require_service(Service),
    check_arguments(Operation),
    check_options(Scope, Options0, Options),
    (   nobody(Operation, Service, Result)
    ->  Events = []
    ;   require(Needs, Service),
        operation_hosts(Operation, Service, Options, Hosts),
        check_ports(Needs, Service, Hosts),
        (   insecure(Needs, Service, Refusal)
        ->  maplist(result_of(Refusal), Hosts, Results), Events = [],
            combined(Operation, Results, Result)
        ;   Told = run(Operation, Service, Hosts),
            sig_atomic(in_run(Run, Told, operate(Told, Options), Result, Events)),
            signals_handled
        )
    ).
perform(_, Operation, _, _) :-
    domain_error(deployment_operation, Operation).

%   What waited for sig_atomic/1 to end comes with the next call.

signals_handled.

operate(run(Operation, Service, Hosts), Options, Run, Result, Events) :-
    perform_on(Hosts, Run, Operation, Service, Options, Results, Events),
    combined(Operation, Results, Result).

check_arguments(execute_hooks(_, Event, _)) :-
    !,
    must_be(atom, Event),
    (   lifecycle_event(Event)
    ->  true
    ;   findall(Known, lifecycle_event(Known), Events),
        ( nearest(Event, Events, Nearest) -> Hint = nearest(Nearest) ; true ),
        throw(error(domain_error(lifecycle_event, Event), context(_, Hint)))
    ).
check_arguments(force_stop_service(_, Seconds, _)) :-
    !,
    must_be(number, Seconds),
    (   Seconds >= 0
    ->  true
    ;   domain_error(seconds, Seconds)
    ).
check_arguments(_).

%   nobody(+Operation, +Service, -Result) is semidet: there is no host to begin with.

nobody(deploy_to_all_hosts(_, _), Service, [result(localhost, error(no_host_configured))]) :-
    service_targets(Service, []).
nobody(resume_rollout(_, _), Service, error(Reason)) :-
    progress_of(Service, Progress),
    not_resumed(Progress, Service, Reason).

%   Why a rollout can't be gone on with.  What is shipped has to be what its first hosts got.

not_resumed(Progress, _, no_rollout_to_resume) :-
    not_reached(Progress, []),
    !.
not_resumed(Progress, Service, release_changed(Old, New)) :-
    \+ memberchk(phase(back), Progress),
    memberchk(release(Old), Progress),
    release_hash(Service, New),
    Old \== New.

require(Needs, Service) :-
    (   memberchk(method, Needs), \+ deploy_method_config(Service, _, _)
    ->  throw(error(existence_error(deploy_method, Service), _))
    ;   true
    ).

%   Two services that are declared on one port of one host can't both run there, nor one twice under two names of this machine: whoever listens on a port has to be
%   the service's own process, at whatever address.

check_ports(Needs, Service, Hosts) :-
    (   memberchk(port, Needs),
        member(Host, Hosts),
        same_port(Service, Host, Other, Port)
    ->  throw(error(domain_error(port_of_its_own, port(Port)), context(_, shared(Service, Other, Host))))
    ;   true
    ).

same_port(Service, Host, Other, Port) :-
    resolve(Service, Host, [], port, Port),
    same_host(Host, Name),
    service_host(Other, Name, _),
    (   Other \== Service
    ->  true
    ;   Name \== Host,
        ssh_port(Service, Host, Reached),
        ssh_port(Service, Name, Reached)
    ),
    resolve(Other, Name, [], port, Port).

ssh_port(Service, Host, Port) :-
    ( resolve(Service, Host, [], ssh_port, Port0) -> Port = Port0 ; Port = none ).

%   This machine has several names.

same_host(Host, Host).
same_host(Host, Name) :-
    is_local_host(Host),
    member(Name, [localhost, '127.0.0.1', '::1']),
    Name \== Host.

%   Security is judged over the whole service, before anything is done.

insecure(Needs, Service, error(security_validation_failed(Errors))) :-
    memberchk(secure, Needs),
    validate_security(Service, Errors),
    Errors \== [].

result_of(Result, Host, result(Host, Result)).

%!  operation_hosts(+Operation, +Service, +Options, -Hosts:list) is det.
%
%   @error existence_error(service_host, HostOrService)

operation_hosts(resume_rollout(_, _), Service, _, Hosts) :-
    !,
    progress_of(Service, Progress),
    service_targets(Service, Targets),
    findall(Host, ( member(Host, Targets), memberchk(host(Host, _, _), Progress) ), Hosts).
operation_hosts(Operation, Service, Options, Hosts) :-
    service_targets(Service, Targets),
    (   Targets == [], functor(Operation, Name, _), memberchk(Name, [run_health_check, wait_for_healthy])
    ->  All = [localhost]
    ;   All = Targets
    ),
    (   lookup(host, [Options], Host)
    ->  (   memberchk(Host, All) -> Hosts = [Host] ; throw(error(existence_error(service_host, Host), _)) )
    ;   All == []
    ->  throw(error(existence_error(service_host, Service), _))
    ;   Hosts = All
    ).

combined(Operation, Results, Results) :-
    functor(Operation, Name, _),
    memberchk(Name, [deploy_to_all_hosts, resume_rollout, recover, rebuild_ledger]),
    !.
combined(fleet_status(_, _), Results, Rows) :-
    !,
    findall(Row, member(result(_, Row), Results), Rows).
combined(deployment_plan(_, _), Results, Plan) :-
    !,
    findall(Step, ( member(result(_, Steps), Results), member(Step, Steps) ), Plan).
combined(_, Results, Result) :-
    findall(R, member(result(_, R), Results), All),
    sort(All, Distinct),
    (   Distinct = [Result]
    ->  true
    ;   Result = mixed(Results)
    ).

% ---- hosts in parallel -----------------------------------------------------------------------------

%   perform_on(+Hosts, +Run, +Operation, +Service, +Options, -Results, -Events)

perform_on(Hosts, Run, Operation, Service, Options, Results, Events) :-
    backend(Operation, Options, Backend),
    run_token(Run, Token),
    with_backend(Backend, Run,
                 collect_events(behind_gate(Operation, Hosts, Token, Run, Service, Options, Answers), Own)),
    answer_results(Hosts, Answers, Results),
    answer_events(Answers, Others),
    append(Own, Others, All),
    in_time_order(All, Events),
    keep_modelled(Backend, Answers).

behind_gate(Operation, Hosts, Token, Run, Service, Options, Answers) :-
    operation(Operation, _, _, _, Needs),
    Task = on_host(Operation, Token, Run, Service, Options),
    (   memberchk(gate, Needs)
    ->  with_gate(Token, fleet(Service, Hosts, Options, Run),
                  on_each(Operation, Hosts, Service, Options, Task, Answers))
    ;   on_each(Operation, Hosts, Service, Options, Task, Answers)
    ).

on_each(Operation, Hosts, Service, Options, Task, Answers) :-
    value(operation, max_parallel, Options, Most),
    (   rollout_of(Operation, Service, Options, Settings)
    ->  ( Operation = resume_rollout(_, _) -> progress_of(Service, Progress) ; Progress = [] ),
        still_to_do(Hosts, Progress, Left),
        rollout_batches(Service, Left, Batches, Shared),
        forall(member(Share, Shared), note_event(*, spread, ok, [Share])),
        roll_out(rollout(Service, Hosts, Settings, Batches, Progress), rolled(Task, Settings), back_with_fleet(Task), Most, Answers)
    ;   on_hosts(Hosts, Most, Task, Answers)
    ).

still_to_do(Hosts, [], Hosts) :- !.
still_to_do(_, Progress, []) :- memberchk(phase(back), Progress), !.
still_to_do(Hosts0, Progress, Hosts) :-
    not_reached(Progress, Open),
    findall(Host, ( member(Host, Hosts0), memberchk(Host, Open) ), Hosts).

rollout_of(resume_rollout(_, _), Service, _, Settings) :-
    rollout_settings(Service, Settings).
rollout_of(deploy_to_all_hosts(_, _), Service, Options, Settings) :-
    \+ lookup(host, [Options], _),
    rollout_settings(Service, Settings).

%   A host's turn in a rollout, with the rollout's demands on its health.

rolled(on_host(Operation, Token, Run, Service, Options), Settings, Host, Answer) :-
    host_deadline(Service, Host, Settings, Deadline),
    Settings = settings(All),
    findall(Option, ( member(Option, All), functor(Option, Name, 1), memberchk(Name, [min_healthy_time, confirm_within]) ), Demands),
    append(Options, [Deadline|Demands], Call),
    on_host(Operation, Token, Run, Service, Call, Host, Answer).

%   What a host has become is undone though the operation may have been cancelled.

back_with_fleet(on_host(_, Token, Run, Service, Options), Answer0, Host, Answer) :-
    Answer0 = answer(Result0, Events, Left),
    (   went(Host, Answer0, Way0)
    ->  ( Events == [] -> Way = resumed(Way0) ; Way = Way0 ),
        left_options(Left, Options, Since),
        in_phase(undo, on_host(with_fleet(Way), Token, Run, Service, Since, Host, Answer))
    ;   Answer = answer(Result0, [], Left)
    ).

left_options(Left, Options, [backend(model(Script))|Options]) :-
    lookup(backend, [Options], model(Script0)),
    !,
    goes_on(Script0, Left, Script).
left_options(_, Options, Options).

on_host(Operation, Token, Run, Service, Options, Host, answer(Result, Events, Left)) :-
    backend(Operation, Options, Backend),
    with_backend(Backend, Run, collect_events(act_on(Host, Service, Operation, Token, Options, Result), Events)),
    (   Backend = model(_)
    ->  modelled_left(Left)
    ;   Left = none
    ).

%   Planning only looks.

backend(deployment_plan(_, _), Options, Backend) :-
    \+ lookup(backend, [Options], model(_)),
    !,
    Backend = dry.
backend(_, Options, Backend) :-
    value(operation, backend, Options, Backend).

act_on(Host, Service, Operation, Token, Options, Result) :-
    context(Service, Host, Options, Token, Context),
    act(Operation, Context, Options, Result),
    note_event(Host, result, Result, []).

%   What was modelled on other threads can be asked in this one, as modelled_host/2 does.

keep_modelled(model(Script), Answers) :-
    !,
    findall(Left, member(answer(_, _, Left), Answers), Lefts),
    gather_model(Script, Lefts).
keep_modelled(_, _).
