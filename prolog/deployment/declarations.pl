:- module(deployment_declarations,
          [ declare_service/2,          % +Service, +Options
            service_config/2,           % ?Service, ?Options
            undeclare_service/1,        % +Service
            declare_deploy_method/3,    % +Service, +Method, +Options
            deploy_method_config/3,     % ?Service, ?Method, ?Options
            declare_service_sources/2,  % +Service, +Patterns
            service_sources/2,          % ?Service, ?Patterns
            declare_lifecycle_hook/3,   % +Service, +Event, +Action
            lifecycle_hooks/2,          % ?Service, ?Hooks
            declare_service_hosts/2,    % +Service, +Hosts
            service_hosts/2,            % ?Service, ?Hosts
            require_service/1,          % +Service
            declaration/1,              % ?PredicateIndicator
            undeclared/1,               % +Service
            lifecycle_event/1,          % ?Event
            hook_action/1               % ?Action
          ]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(error), [must_be/2]).
:- use_module(library(lists), [append/3, member/2]).
:- use_module(nearest, [nearest/3]).
:- use_module(options, [check_options/3]).
:- use_module(types, [service_name/2, host_name/2, text_atom/2]).
:- use_module(facts,
              [ service_now/4,
                method_now/4,
                sources_now/4,
                hosts_now/4,
                hook/5,
                declare/3,
                declare_hook/3,
                remove_service/1,
                declaring_dir/1
              ]).
:- reexport(facts, [with_origin/3, forget_origin/1, in_one_change/1, origin_declarations/2, restore_declarations/2]).
:- reexport(targets, [service_host/3, service_targets/2, declared/5, resolve/5, source_base/2, first_of_each/2]).

/** <module> Declaring services, and asking what is declared

What is declared may come in any order: hosts, hooks or sources may name a service that is declared later. That it exists is checked when it
is used. See facts.pl for what happens when something is declared twice.
*/

:- multifile
    undeclared/1,
    declaration/1.

%!  declaration(?PredicateIndicator) is nondet.
%
%   Multifile. A predicate that declares, and may be a directive of a file that is loaded as data. It is exported by
%   library(deployment_glue) or this module.

declaration(declare_service/2).
declaration(declare_deploy_method/3).
declaration(declare_service_sources/2).
declaration(declare_lifecycle_hook/3).
declaration(declare_service_hosts/2).

%!  undeclared(+Service) is nondet.
%
%   Multifile hook: Service is no longer declared; a module that keeps declarations of its own drops those about it.

%!  declare_service(+Service, +Options:list) is det.
%
%   Declare Service, or replace its declaration. The scope `service` of option_row/5 lists the options.
%
%   @error domain_error(service_name, Service), and those of check_options/3

declare_service(Service0, Options0) :-
    service_name(Service0, Service),
    check_options(service, Options0, Options),
    declaring_dir(Dir),
    declare(service, Service, service(Options, Dir)).

%!  service_config(?Service, ?Options:list) is nondet.
%
%   Service is declared with Options. Enumerates the services in order of declaration.

service_config(Service, Options) :-
    nonvar(Service),
    !,
    service_now(Service, service(Options, _), _, _).
service_config(Service, Options) :-
    findall(Sequence-config(Name, Found), service_now(Name, service(Found, _), _, Sequence), Unordered),
    keysort(Unordered, Ordered),
    member(_-config(Service, Options), Ordered).

%!  undeclare_service(+Service) is det.
%
%   Remove Service and every declaration about it, whatever its origin. Nothing happens when there is none.

undeclare_service(Service0) :-
    (   text_atom(Service0, Service)
    ->  true
    ;   must_be(atom, Service0)
    ),
    in_one_change(( remove_service(Service), forall(undeclared(Service), true) )).

%!  declare_deploy_method(+Service, +Method, +Options:list) is det.
%
%   Service is deployed by Method, `ssh` or `local`. There is one method for a service. The scope `method` of option_row/5 lists the options.
%
%   @error domain_error(deploy_method, Method), domain_error(service_name, Service), and those of check_options/3

declare_deploy_method(Service0, Method0, Options0) :-
    service_name(Service0, Service),
    word(deploy_method, Method0, [ssh, local], Method),
    check_options(method, Options0, Options),
    declare(method, Service, method(Method, Options)).

%!  deploy_method_config(?Service, ?Method, ?Options:list) is nondet.

deploy_method_config(Service, Method, Options) :-
    method_now(Service, method(Method, Options), _, _).

%!  declare_service_sources(+Service, +Patterns:list) is det.
%
%   Patterns name the files that are shipped: paths below the folder of the declaring file (or the service's `source_dir`), in which `*`, `?`,
%   `[…]` and `**` are wildcards. `\+ Pattern` excludes what Pattern matches.
%
%   @error domain_error(source_pattern, Pattern): empty, absolute, or with a component `..`
%   @error type_error(source_pattern, Pattern)

declare_service_sources(Service0, Patterns0) :-
    service_name(Service0, Service),
    must_be(list, Patterns0),
    maplist(source_pattern, Patterns0, Patterns),
    declaring_dir(Dir),
    declare(sources, Service, sources(Patterns, Dir)).

%!  source_pattern(+Pattern0, -Pattern) is det.

source_pattern(Pattern, _) :-
    var(Pattern),
    !,
    throw(error(instantiation_error, _)).
source_pattern(\+ Pattern0, \+ Pattern) :-
    !,
    positive_pattern(Pattern0, Pattern).
source_pattern(Pattern0, Pattern) :-
    positive_pattern(Pattern0, Pattern).

%!  positive_pattern(+Pattern0, -Pattern:atom) is det.

positive_pattern(Pattern0, Pattern) :-
    text_atom(Pattern0, Pattern),
    !,
    (   inside(Pattern)
    ->  true
    ;   throw(error(domain_error(source_pattern, Pattern), _))
    ).
positive_pattern(Pattern, _) :-
    throw(error(type_error(source_pattern, Pattern), _)).

%!  inside(+Pattern) is semidet.
%
%   Pattern does not lead out of the folder it is relative to.

inside(Pattern) :-
    Pattern \== '',
    split_string(Pattern, "/", "", [First|Parts]),
    First \== "",
    \+ memberchk("..", [First|Parts]).

%!  service_sources(?Service, ?Patterns:list) is nondet.

service_sources(Service, Patterns) :-
    sources_now(Service, sources(Patterns, _), _, _).

%!  declare_lifecycle_hook(+Service, +Event, +Action) is det.
%
%   When Event happens to Service on a host, Action is done there. See lifecycle_event/1 and hook_action/1.
%
%   @error domain_error(lifecycle_event, Event), domain_error(hook_action, Action)

declare_lifecycle_hook(Service0, Event0, Action0) :-
    service_name(Service0, Service),
    findall(Known, lifecycle_event(Known), Events),
    word(lifecycle_event, Event0, Events, Event),
    checked_action(Action0, Action),
    declare_hook(Service, Event, Action).

%!  lifecycle_event(?Event) is nondet.

lifecycle_event(pre_deploy).
lifecycle_event(post_deploy).
lifecycle_event(pre_shutdown).
lifecycle_event(post_shutdown).
lifecycle_event(on_health_failure).
lifecycle_event(pre_rollback).
lifecycle_event(post_rollback).

%!  hook_action(?Action) is nondet.
%
%   The actions of hooks: those without arguments, `custom(Command)`, and `run_once(Action)` around one of them that is done on the first
%   host only.

hook_action(drain_connections).
hook_action(health_check).
hook_action(save_state).
hook_action(warm_cache).
hook_action(custom(_)).
hook_action(run_once(_)).

%!  checked_action(+Action0, -Action) is det.

checked_action(Action, _) :-
    \+ ground(Action),
    !,
    throw(error(instantiation_error, _)).
checked_action(run_once(Action0), run_once(Action)) :-
    Action0 \= run_once(_),
    !,
    checked_action(Action0, Action).
checked_action(custom(Command0), custom(Command)) :-
    text_atom(Command0, Command),
    Command \== '',
    !.
checked_action(Action0, Action) :-
    text_atom(Action0, Action),
    hook_action(Action),
    !.
checked_action(Action, _) :-
    findall(Name, ( hook_action(Known), functor(Known, Name, _) ), Names),
    (   action_name(Action, Misspelled),
        nearest(Misspelled, Names, Nearest),
        Nearest \== Misspelled
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(domain_error(hook_action, Action), context(_, Message))).

%!  action_name(+Action, -Name) is semidet.

action_name(Action, Name) :-
    compound(Action),
    !,
    compound_name_arity(Action, Name, _).
action_name(Action, Action) :-
    atom(Action).

%!  lifecycle_hooks(?Service, ?Hooks:list) is nondet.
%
%   Hooks are the `hook(Event, Action)` of Service in order of declaration; none for a declared service without hooks.

lifecycle_hooks(Service, Hooks) :-
    nonvar(Service),
    !,
    hooks_of(Service, Found),
    (   Found == []
    ->  service_now(Service, _, _, _)
    ;   true
    ),
    !,
    Hooks = Found.
lifecycle_hooks(Service, Hooks) :-
    findall(Name, service_config(Name, _), Declared),
    findall(Name, hook(Name, _, _, _, _), Hooked),
    append(Declared, Hooked, Names),
    first_of_each(Names, Unique),
    member(Service, Unique),
    hooks_of(Service, Hooks).

%!  hooks_of(+Service, -Hooks:list) is det.

hooks_of(Service, Hooks) :-
    findall(Sequence-hook(Event, Action), hook(Service, Event, Action, _, Sequence), Unordered),
    keysort(Unordered, Ordered),
    findall(Hook, member(_-Hook, Ordered), All),
    first_of_each(All, Hooks).

%!  declare_service_hosts(+Service, +Hosts:list) is det.
%
%   Service runs on each of Hosts, `host_config(Host, Options)`. The scope `host` of option_row/5 lists the options. An empty list takes an
%   earlier list back.
%
%   @error type_error(host_config, X), domain_error(host, Host)
%   @error domain_error(unique_host, Host): twice in the list (case is ignored)

declare_service_hosts(Service0, Hosts0) :-
    service_name(Service0, Service),
    must_be(list, Hosts0),
    maplist(checked_host, Hosts0, Hosts),
    check_distinct(Hosts),
    declare(hosts, Service, Hosts).

%!  checked_host(+Host0, -Host) is det.

checked_host(Config, _) :-
    var(Config),
    !,
    throw(error(instantiation_error, _)).
checked_host(host_config(Host0, Options0), host_config(Host, Options)) :-
    !,
    checked_host_name(Host0, Host),
    check_options(host, Options0, Options).
checked_host(Config, _) :-
    throw(error(type_error(host_config, Config), _)).

%!  checked_host_name(+Host0, -Host:atom) is det.

checked_host_name(Host0, Host) :-
    host_name(Host0, Host),
    !.
checked_host_name(Host, _) :-
    var(Host),
    !,
    throw(error(instantiation_error, _)).
checked_host_name(Host, _) :-
    (   text_atom(Host, _)
    ->  throw(error(domain_error(host, Host), _))
    ;   throw(error(type_error(host, Host), _))
    ).

%!  check_distinct(+Hosts) is det.

check_distinct(Hosts) :-
    findall(Lower-Host,
            ( member(host_config(Host, _), Hosts), downcase_atom(Host, Lower) ),
            Names),
    sort(1, @=<, Names, Sorted),
    (   append(_, [Name-_, Name-Host|_], Sorted)
    ->  throw(error(domain_error(unique_host, Host), _))
    ;   true
    ).

%!  service_hosts(?Service, ?Hosts:list) is nondet.
%
%   Hosts are the `host_config(Host, Options)` that were declared for Service, in order.

service_hosts(Service, Hosts) :-
    hosts_now(Service, Hosts, _, _).

%!  require_service(+Service) is det.
%
%   @error existence_error(service, Service): not declared. The context is `context(_, nearest(Name))` when a service has a similar name.
%   @error type_error(atom, Service)

require_service(Service) :-
    must_be(atom, Service),
    service_now(Service, _, _, _),
    !.
require_service(Service) :-
    findall(Name, service_now(Name, _, _, _), Names),
    (   nearest(Service, Names, Nearest)
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(existence_error(service, Service), context(_, Message))).

%!  word(+Kind, +Word0, +Words, -Word) is det.
%
%   Word is Word0 as an atom, one of Words.
%
%   @error type_error(Kind, Word0), domain_error(Kind, Word0)

word(_, Word, _, _) :-
    var(Word),
    !,
    throw(error(instantiation_error, _)).
word(Kind, Word0, Words, Word) :-
    (   text_atom(Word0, Word)
    ->  true
    ;   throw(error(type_error(Kind, Word0), _))
    ),
    (   memberchk(Word, Words)
    ->  true
    ;   unknown_word(Kind, Word, Words)
    ).

%!  unknown_word(+Kind, +Word, +Words) is erroneous.

unknown_word(Kind, Word, Words) :-
    (   nearest(Word, Words, Nearest)
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(domain_error(Kind, Word), context(_, Message))).
