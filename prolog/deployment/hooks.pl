:- module(deployment_hooks,
          [ hook_actions/4,             % +Service, +Host, +Event, -Actions
            tell_actions/3,             % +Service, +Host, -Actions
            tolerated/1                 % +Event
          ]).

/** <module> Lifecycle hooks as actions of a plan

A hook is an action `hook(Event, Declared, Action)`: Declared is the action as declared, Action what is done.
*/

:- autoload(library(apply), [maplist/3]).
:- autoload(library(lists), [append/2, member/2]).
:- use_module(declarations, [lifecycle_hooks/2, resolve/5, service_targets/2]).
:- use_module(health, [health_probe/5, request_url/5, route/3]).
:- use_module(options, [default_option/3]).

%!  hook_actions(+Service, +Host, +Event, -Actions:list) is det.
%
%   What the hooks of Event do on Host, in order of declaration.

hook_actions(Service, Host, Event, Actions) :-
    (   lifecycle_hooks(Service, Hooks)
    ->  findall(Declared, member(hook(Event, Declared), Hooks), Events)
    ;   Events = []
    ),
    maplist(hook_steps(Service, Host, Event), Events, Nested),
    append(Nested, Actions).

hook_steps(Service, Host, Event, Declared, Steps) :-
    actions(Declared, Service, Host, Actions),
    findall(hook(Event, Declared, Action), member(Action, Actions), Steps).

actions(run_once(Action), Service, Host, Actions) :-
    (   service_targets(Service, [Host|_])
    ->  actions(Action, Service, Host, Actions)
    ;   Actions = []
    ).
actions(drain_connections, Service, Host, Actions) :-
    default_option(drain, timeout, Timeout),
    tell_actions(Service, Host, Tell),
    append([Tell, [drain(Timeout)]], Actions).
actions(health_check, Service, Host, [Probe]) :-
    health_probe(Service, Host, check, [], Probe).
actions(save_state, Service, Host, [Action]) :-
    command_or_nothing(Service, Host, save_state_command, Action).
actions(warm_cache, Service, Host, [Action]) :-
    (   resolve(Service, Host, [], warmup_endpoint, Endpoint)
    ->  request_action(Service, Host, get, Endpoint, Action)
    ;   Action = nothing(warmup_endpoint)
    ).
actions(custom(Command), Service, Host, [command(Command, Seconds)]) :-
    resolve(Service, Host, [], command_timeout, Seconds).

command_or_nothing(Service, Host, Option, command(Command, Seconds)) :-
    resolve(Service, Host, [], Option, Command),
    !,
    resolve(Service, Host, [], command_timeout, Seconds).
command_or_nothing(_, _, Option, nothing(Option)).

%!  tell_actions(+Service, +Host, -Actions:list) is det.
%
%   How the service is told to accept no more connections: by its `drain_endpoint` (a POST), else by its
%   `drain_signal`, else not at all.

tell_actions(Service, Host, [Action]) :-
    resolve(Service, Host, [], drain_endpoint, Endpoint),
    !,
    request_action(Service, Host, post, Endpoint, Action).
tell_actions(Service, Host, [signal(Signal)]) :-
    resolve(Service, Host, [], drain_signal, Signal),
    !.
tell_actions(_, _, []).

request_action(Service, Host, Method, Endpoint, request(Method, Url, [timeout(Timeout), via(Route)])) :-
    request_url(Service, Host, [], Endpoint, Url),
    route(Service, Host, Route),
    default_option(health_check, timeout, Timeout).

%!  tolerated(+Event) is semidet.
%
%   A failing hook of Event is reported and stops nothing.  (After a deployment, a failing health check is
%   no mere hook: see deployment_plan.)

tolerated(post_deploy).
tolerated(post_shutdown).
tolerated(on_health_failure).
tolerated(pre_rollback).
tolerated(post_rollback).
