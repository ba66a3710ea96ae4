:- module(deployment_balancing,
          [ declare_load_balancer/2,    % +Service, +Balancer
            load_balancer_config/2,     % ?Service, ?Balancer
            balancer_survey/3,          % +Service, +Host, -Steps
            balancer_seconds/3,         % +Service, +Call, -Seconds
            taken_out//2,               % +Seconds, +Facts
            brought_back//1,            % +Facts
            brought_back//2             % +Seconds, +Facts
          ]).
:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(declarations, [resolve/5]).
:- use_module(facts, [balancer_now/4, declare/3]).
:- use_module(options, [check_options/3, default_option/3, lookup/3]).
:- use_module(types, [service_name/2]).

/** <module> The load balancer in front of a service

HAProxy is told over its runtime socket to give a host no more requests before the host's service is stopped, and to give it requests again
when the new one is healthy. What is observed of it is the fact `balanced(Server, State)`: Server stands for the host, and State is

  - `ready`: it gets requests, as far as its administrator is concerned
  - `ours`: an operation of this library took it out, and did not bring it back: it was stopped, or was left so by one that was killed
  - `drain` or `maint`: somebody else took it out. It stays so, and is not waited for.

A step's action is `balance(Balancer, Server, Change)`, see deployment_balancers.
*/

%!  declare_load_balancer(+Service, +Balancer) is det.
%
%   Balancer, `haproxy(Options)`, distributes the requests to the hosts of Service. The scope `load_balancer` of option_row/5 lists the
%   options; both are needed.
%
%   @error type_error(load_balancer, Balancer), existence_error(load_balancer_option, Name), domain_error(service_name, Service), and those of
%     check_options/3

declare_load_balancer(Service0, Balancer0) :-
    service_name(Service0, Service),
    checked_balancer(Balancer0, Balancer),
    declare(balancer, Service, Balancer).

checked_balancer(Balancer, _) :-
    var(Balancer),
    !,
    throw(error(instantiation_error, _)).
checked_balancer(haproxy(Options0), haproxy(Options)) :-
    !,
    check_options(load_balancer, Options0, Options),
    (   member(Name, [socket, backend]),
        \+ lookup(Name, [Options], _)
    ->  throw(error(existence_error(load_balancer_option, Name), _))
    ;   true
    ).
checked_balancer(Balancer, _) :-
    throw(error(type_error(load_balancer, Balancer), _)).

:- multifile deployment_declarations:declaration/1.

deployment_declarations:declaration(declare_load_balancer/2).

%!  load_balancer_config(?Service, ?Balancer) is nondet.

load_balancer_config(Service, Balancer) :-
    balancer_now(Service, Balancer, _, _).

%!  balancer_survey(+Service, +Host, -Steps:list) is det.
%
%   The step that finds the server of Host; none without a load balancer.

balancer_survey(Service, Host, Steps) :-
    (   load_balancer_config(Service, Balancer)
    ->  Steps = [step(balancer, Host, balance(Balancer, Host, look), [])]
    ;   Steps = []
    ).

%!  balancer_seconds(+Service, +Call, -Seconds:number) is det.
%
%   How long an operation may wait for the load balancer between two scripts on the target, beside the time to become healthy.

balancer_seconds(Service, Call, Seconds) :-
    (   \+ load_balancer_config(Service, _)
    ->  Seconds = 0
    ;   lookup(drain_timeout, [Call], Seconds)
    ->  true
    ;   default_option(graceful_stop, drain_timeout, Seconds)
    ).

%!  taken_out(+Seconds, +Facts)// is det.
%
%   The steps by which the host gets no more requests, and has none when they are over or Seconds are. Undone, it gets requests again, unless
%   nothing ran there.

taken_out(Seconds, Facts) -->
    { managed(Facts, Balancer, Server, _), !,
      Facts = facts(_, Host, _, Observed, _),
      (   \+ memberchk(running(_), Observed)
      ->  Undo = []
      ;   bringing_back(Facts, Balancer, Server, Action),
          Undo = [Action]
      ) },
    [ step(balancer_drain, Host, balance(Balancer, Server, drain), Undo),
      step(balancer_await, Host, balance(Balancer, Server, await(Seconds)), []) ].
taken_out(_, _) --> [].

%!  brought_back(+Facts)// is det.
%
%   The step by which the host gets requests again; none where somebody else took it out.

brought_back(Facts) -->
    { bringing_back(Facts, Action), ! },
    ready(Action, [], Facts).
brought_back(_) --> [].

%!  brought_back(+Seconds, +Facts)// is det.
%
%   As brought_back//1; undone, for what runs there is to be stopped, it is taken out as taken_out//2 does.

brought_back(Seconds, Facts) -->
    { bringing_back(Facts, Action), !,
      Action = balance(Balancer, Server, _) },
    ready(Action, [balance(Balancer, Server, drain), balance(Balancer, Server, await(Seconds))], Facts).
brought_back(_, _) --> [].

ready(Action, Undo, facts(_, Host, _, _, _)) --> [ step(balancer_ready, Host, Action, Undo) ].

bringing_back(Facts, Action) :-
    managed(Facts, Balancer, Server, _),
    bringing_back(Facts, Balancer, Server, Action).

managed(facts(Service, _, _, Observed, _), Balancer, Server, State) :-
    memberchk(balanced(Server, State), Observed),
    memberchk(State, [ready, ours]),
    load_balancer_config(Service, Balancer).

bringing_back(facts(Service, Host, _, _, _), Balancer, Server, balance(Balancer, Server, ready(Deadline))) :-
    resolve(Service, Host, [], healthy_deadline, Deadline).
