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
            service_host/3,             % ?Service, ?Host, ?Options
            resolve/5,                  % +Service, +Host, +Call, +Name, -Value
            declared/5,                 % +Service, +Host, +Call, +Name, -Value
            service_targets/2,          % +Service, -Hosts
            source_base/2,              % +Service, -Dir
            require_service/1,          % +Service
            declaration/1,              % ?PredicateIndicator
            undeclared/1,               % +Service
            lifecycle_event/1,          % ?Event
            hook_action/1,              % ?Action
            with_origin/3,              % +Origin, ?Dir, :Goal
            forget_origin/1,            % +Origin
            in_one_change/1,            % :Goal
            origin_declarations/2,      % +Origin, -Declarations
            restore_declarations/2      % +Origin, +Declarations
          ]).
:- use_module(library(apply), [maplist/2, maplist/3, maplist/4, foldl/4]).
:- use_module(library(error), [must_be/2]).
:- use_module(library(lists), [append/3, member/2, subtract/3]).
:- use_module(library(prolog_source), []).
:- use_module(nearest, [nearest/3]).
:- use_module(options, [check_options/3, default_option/3, lookup/3]).
:- use_module(types, [service_name/2, host_name/2, text_atom/2]).

/** <module> Declared facts

What is declared about services, and the queries on it. This is the only module that holds declarations.

Every declaration has an *origin*: the file it comes from, or `user` for one made by a call. Of two declarations of the same thing the later
wins; the earlier one counts again when the origin of the later one forgets it. Within one origin, a declaration replaces the one before it.
Hooks add up, in order of declaration; the same hook declared again is the same hook, and keeps its place.

A file that is consulted in plain `swipl` is the origin of what its directives declare. When it is loaded again, its first declaration forgets
those of the load before.

Changes are serialised and atomic: another thread sees a change whole or not at all.
*/

:- meta_predicate
    with_origin(+, ?, 0),
    in_one_change(0).

:- dynamic
    service_now/4,              % Service, service(Options, Dir), Origin, Sequence
    method_now/4,               % Service, method(Method, Options), Origin, Sequence
    sources_now/4,              % Service, sources(Patterns, Dir), Origin, Sequence
    hosts_now/4,                % Service, Hosts, Origin, Sequence
    superseded/5,               % Kind, Service, Value, Origin, Sequence
    hook/5,                     % Service, Event, Action, Origin, Sequence
    host_entry/3,               % Service, Host, Options: the elements of hosts_now/4
    host_name_in/3,             % Host, Kind, Service: host/1 in service_now/4 or method_now/4
    loaded_by/2.                % Origin, Stream of its last load

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

%!  fact(?Kind, ?Service, ?Value, ?Origin, ?Sequence, ?Fact) is nondet.
%
%   Fact is how the current declaration of Kind is stored.

fact(service, Service, Value, Origin, Sequence, service_now(Service, Value, Origin, Sequence)).
fact(method, Service, Value, Origin, Sequence, method_now(Service, Value, Origin, Sequence)).
fact(sources, Service, Value, Origin, Sequence, sources_now(Service, Value, Origin, Sequence)).
fact(hosts, Service, Value, Origin, Sequence, hosts_now(Service, Value, Origin, Sequence)).

		 /*******************************
		 *           SERVICES           *
		 *******************************/

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
    service_now(Service, service(Options, _), _, _).

%!  undeclare_service(+Service) is det.
%
%   Remove Service and every declaration about it, whatever its origin. Nothing happens when there is none.

undeclare_service(Service0) :-
    (   text_atom(Service0, Service)
    ->  true
    ;   must_be(atom, Service0)
    ),
    in_one_change(remove_service(Service)).

%!  remove_service(+Service) is det.

remove_service(Service) :-
    forall(fact(Kind, Service, Value, _, _, Fact),
           forall(retract(Fact), unindex(Kind, Service, Value))),
    retractall(superseded(_, Service, _, _, _)),
    retractall(hook(Service, _, _, _, _)),
    forall(undeclared(Service), true).

		 /*******************************
		 *        DEPLOY METHOD         *
		 *******************************/

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

		 /*******************************
		 *           SOURCES            *
		 *******************************/

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

%!  source_base(+Service, -Dir:atom) is semidet.
%
%   Dir is the absolute path of the folder that Service's source patterns are relative to: its `source_dir`, itself relative to the folder of
%   the file that declares the service, or else the folder of the file that declares the sources. For what no file declares, the working
%   folder at that time. Fails when Service has neither.

source_base(Service, Dir) :-
    service_now(Service, service(Options, Base), _, _),
    lookup(source_dir, [Options], SourceDir),
    !,
    below(Base, SourceDir, Dir).
source_base(Service, Dir) :-
    sources_now(Service, sources(_, Dir), _, _),
    !.

%!  below(+Base, +Path, -Absolute) is det.
%
%   Absolute is Path, seen from the folder Base; `~/` is the user's home.

below(_, Path, Absolute) :-
    atom_concat('~/', Rest, Path),
    getenv('HOME', Home),
    !,
    absolute_file_name(Rest, Absolute, [relative_to(Home)]).
below(Base, Path, Absolute) :-
    absolute_file_name(Path, Absolute, [relative_to(Base)]).

		 /*******************************
		 *            HOOKS             *
		 *******************************/

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
    in_one_change(add_hook(Service, Event, Action)).

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
    (   callable(Action),
        functor(Action, Misspelled, _),
        nearest(Misspelled, Names, Nearest),
        Nearest \== Misspelled
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(domain_error(hook_action, Action), context(_, Message))).

%!  add_hook(+Service, +Event, +Action) is det.

add_hook(Service, Event, Action) :-
    current_origin(Origin),
    (   hook(Service, Event, Action, Origin, _)
    ->  true
    ;   next_sequence(Sequence),
        assertz(hook(Service, Event, Action, Origin, Sequence))
    ).

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
    findall(Name, service_now(Name, _, _, _), Declared),
    findall(Name, hook(Name, _, _, _, _), Hooked),
    append(Declared, Hooked, Names),
    first_of_each(Names, Unique),
    member(Service, Unique),
    hooks_of(Service, Hooks).

%!  hooks_of(+Service, -Hooks:list) is det.

hooks_of(Service, Hooks) :-
    findall(hook(Event, Action), hook(Service, Event, Action, _, _), All),
    first_of_each(All, Hooks).

%!  first_of_each(+List, -Set:list) is det.
%
%   Set are the distinct elements of List, in order of first occurrence.

first_of_each(List, Set) :-
    number_elements(List, 1, Pairs),
    sort(1, @<, Pairs, ByElement),
    sort(2, @<, ByElement, ByPlace),
    findall(Element, member(at(Element, _), ByPlace), Set).

%!  number_elements(+List, +From, -Numbered) is det.

number_elements([], _, []).
number_elements([Element|Elements], Place, [at(Element, Place)|Numbered]) :-
    Next is Place + 1,
    number_elements(Elements, Next, Numbered).

		 /*******************************
		 *            HOSTS             *
		 *******************************/

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

%!  service_host(?Service, ?Host, ?Options:list) is nondet.
%
%   Service is deployed to Host, one of service_targets/2. Options are the options that hold there: the host's own, then those of the
%   deploy method and of the service that those before do not give. Defaults are not among them, nor is `host/1`.

service_host(Service, Host, Options) :-
    nonvar(Service),
    !,
    target(Service, Host),
    options_at(Service, Host, Options).
service_host(Service, Host, Options) :-
    nonvar(Host),
    !,
    findall(Name, possible_service(Host, Name), Names0),
    first_of_each(Names0, Names),
    member(Service, Names),
    target(Service, Host),
    options_at(Service, Host, Options).
service_host(Service, Host, Options) :-
    findall(Name, known_service(Name), Names0),
    first_of_each(Names0, Names),
    member(Service, Names),
    target(Service, Host),
    options_at(Service, Host, Options).

%!  possible_service(+Host, -Service) is nondet.
%
%   Service may have Host among its targets; no other service has.

possible_service(Host, Service) :-
    host_entry(Service, Host, _).
possible_service(Host, Service) :-
    host_name_in(Host, _, Service).
possible_service(localhost, Service) :-
    method_now(Service, method(local, _), _, _).

%!  known_service(-Service) is nondet.
%
%   Something that gives targets is declared about Service; solutions may repeat.

known_service(Service) :-
    service_now(Service, _, _, _).
known_service(Service) :-
    hosts_now(Service, _, _, _).
known_service(Service) :-
    method_now(Service, _, _, _).

%!  target(+Service, ?Host) is nondet.
%
%   Host is one of Service's targets.

target(Service, Host) :-
    nonvar(Host),
    host_entry(Service, Host, _),
    !.
target(Service, Host) :-
    \+ ( nonvar(Host), host_entry(Service, _, _) ),
    service_targets(Service, Hosts),
    (   nonvar(Host)
    ->  memberchk(Host, Hosts)
    ;   member(Host, Hosts)
    ).

%!  options_at(+Service, +Host, -Options:list) is det.

options_at(Service, Host, Options) :-
    option_lists(Service, Host, Lists),
    foldl(add_options, Lists, [], Options).

%!  add_options(+More, +Options0, -Options) is det.
%
%   Options are Options0 and those of More whose names are new, but for host/1.

add_options(More, Options0, Options) :-
    findall(Option,
            ( member(Option, More),
              functor(Option, Name, Arity),
              Name \== host,
              functor(Given, Name, Arity),
              \+ memberchk(Given, Options0) ),
            New),
    append(Options0, New, Options).

%!  service_targets(+Service, -Hosts:list(atom)) is det.
%
%   Hosts are those that Service is deployed to: its declared hosts in order, else the host of its deploy method, else that of the service,
%   else localhost when the method is `local`, else none.

service_targets(Service, Hosts) :-
    hosts_now(Service, Configs, _, _),
    Configs \== [],
    !,
    findall(Host, member(host_config(Host, _), Configs), Hosts).
service_targets(Service, [Host]) :-
    method_now(Service, method(_, Options), _, _),
    lookup(host, [Options], Host),
    !.
service_targets(Service, [Host]) :-
    service_now(Service, service(Options, _), _, _),
    lookup(host, [Options], Host),
    !.
service_targets(Service, [localhost]) :-
    method_now(Service, method(local, _), _, _),
    !.
service_targets(_, []).

		 /*******************************
		 *           LOOK-UP            *
		 *******************************/

%!  declared(+Service, +Host, +Call:list, +Name, -Value) is semidet.
%
%   Value is the option Name in the first that gives it of Call (the options of a call), the Host's own options, those of the deploy method
%   and those of the service.

declared(Service, Host, Call, Name, Value) :-
    option_lists(Service, Host, Lists),
    lookup(Name, [Call|Lists], Value).

%!  resolve(+Service, +Host, +Call:list, +Name, -Value) is semidet.
%
%   As declared/5, else Value is the default. The default of `remote_dir` for the method `local` is `services` in the user's data folder.

resolve(Service, Host, Call, Name, Value) :-
    (   declared(Service, Host, Call, Name, Value0)
    ->  true
    ;   default_at(Name, Service, Value0)
    ),
    Value = Value0.

%!  default_at(+Name, +Service, -Value) is semidet.

default_at(remote_dir, Service, Dir) :-
    method_now(Service, method(local, _), _, _),
    !,
    user_data_folder(Folder),
    atom_concat(Folder, '/unifyweaver/services', Dir).
default_at(Name, _, Value) :-
    default_option(service, Name, Value),
    !.
default_at(Name, _, Value) :-
    default_option(method, Name, Value).

%!  user_data_folder(-Folder:atom) is det.

user_data_folder(Folder) :-
    getenv('XDG_DATA_HOME', Folder),
    sub_atom(Folder, 0, _, _, /),
    !.
user_data_folder('~/Library/Application Support') :-
    current_prolog_flag(apple, true),
    !.
user_data_folder('~/.local/share').

%!  option_lists(+Service, +Host, -Lists:list(list)) is det.
%
%   Lists are the options of the host, of the deploy method and of the service.

option_lists(Service, Host, [OfHost, OfMethod, OfService]) :-
    (   host_entry(Service, Host, OfHost) -> true ; OfHost = [] ),
    (   method_now(Service, method(_, OfMethod), _, _) -> true ; OfMethod = [] ),
    (   service_now(Service, service(OfService, _), _, _) -> true ; OfService = [] ).

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

		 /*******************************
		 *     ORIGINS AND CHANGES      *
		 *******************************/

%!  in_one_change(:Goal) is semidet.
%
%   Run Goal once, as the only one that changes declarations. When it fails or throws, nothing has changed.

in_one_change(Goal) :-
    with_mutex(deployment_declarations, transaction(Goal)).

%!  declare(+Kind, +Service, +Value) is det.
%
%   Value becomes the current declaration of Kind about Service.

declare(Kind, Service, Value) :-
    in_one_change(declare_now(Kind, Service, Value)).

%!  declare_now(+Kind, +Service, +Value) is det.

declare_now(Kind, Service, Value) :-
    current_origin(Origin),
    next_sequence(Sequence),
    retractall(superseded(Kind, Service, _, Origin, _)),
    supersede(Kind, Service, Origin),
    make_current(Kind, Service, Value, Origin, Sequence).

%!  supersede(+Kind, +Service, +Origin) is det.
%
%   There is no current declaration of Kind about Service any more; one of another origin than Origin is kept for when Origin forgets.

supersede(Kind, Service, Origin) :-
    fact(Kind, Service, Value, Earlier, Sequence, Fact),
    retract(Fact),
    !,
    unindex(Kind, Service, Value),
    (   Earlier == Origin
    ->  true
    ;   assertz(superseded(Kind, Service, Value, Earlier, Sequence))
    ).
supersede(_, _, _).

%!  make_current(+Kind, +Service, +Value, +Origin, +Sequence) is det.

make_current(Kind, Service, Value, Origin, Sequence) :-
    fact(Kind, Service, Value, Origin, Sequence, Fact),
    assertz(Fact),
    index(Kind, Service, Value).

%!  index(+Kind, +Service, +Value) is det.
%
%   Keep host_entry/3 and host_name_in/3 in step with a new current declaration.

index(hosts, Service, Hosts) :-
    !,
    forall(member(host_config(Host, Options), Hosts),
           assertz(host_entry(Service, Host, Options))).
index(Kind, Service, Value) :-
    (   named_host(Value, Host)
    ->  assertz(host_name_in(Host, Kind, Service))
    ;   true
    ).

%!  unindex(+Kind, +Service, +Value) is det.
%
%   The reverse of index/3.

unindex(hosts, Service, _) :-
    !,
    retractall(host_entry(Service, _, _)).
unindex(Kind, Service, Value) :-
    (   named_host(Value, Host)
    ->  retractall(host_name_in(Host, Kind, Service))
    ;   true
    ).

%!  named_host(+Value, -Host) is semidet.
%
%   Value, of a service or a deploy method, names Host.

named_host(service(Options, _), Host) :-
    lookup(host, [Options], Host).
named_host(method(_, Options), Host) :-
    lookup(host, [Options], Host).

%!  next_sequence(-Sequence:integer) is det.

next_sequence(Sequence) :-
    flag(deployment_declarations, Sequence, Sequence + 1).

%!  with_origin(+Origin, ?Dir, :Goal) is semidet.
%
%   Run Goal once; what it declares has that origin, and sources are relative to the folder Dir. When Dir is unbound: to that of the file being
%   loaded, else the working folder.

with_origin(Origin, Dir, Goal) :-
    origin_now(Outer),
    setup_call_cleanup(
        nb_setval(deployment_origin, origin(Origin, Dir)),
        once(Goal),
        nb_setval(deployment_origin, Outer)).

%!  origin_now(-Origin) is det.
%
%   Origin is the innermost `origin(Name, Dir)` of with_origin/3 in this thread, or `none`.

origin_now(Origin) :-
    (   nb_current(deployment_origin, Origin0)
    ->  Origin = Origin0
    ;   Origin = none
    ).

%!  current_origin(-Origin) is det.

current_origin(Origin) :-
    origin_now(Now),
    (   Now = origin(Origin, _)
    ->  true
    ;   prolog_load_context(source, Origin)
    ->  prolog_load_context(stream, Stream),
        started_loading(Origin, Stream)
    ;   Origin = user
    ).

%!  started_loading(+File, +Stream) is det.
%
%   Note that File is being loaded from Stream; when that is a new load, forget what the one before declared. (A file that File includes is read
%   from another stream, while that of File is still open.)

started_loading(File, Stream) :-
    loaded_by(File, Known),
    (   Known == Stream
    ;   is_stream(Known)
    ),
    !.
started_loading(File, Stream) :-
    retractall(loaded_by(File, _)),
    forget(File),
    assertz(loaded_by(File, Stream)).

%!  declaring_dir(-Dir:atom) is det.
%
%   Dir is the folder that what is declared now is relative to.

declaring_dir(Dir) :-
    origin_now(origin(_, Dir0)),
    nonvar(Dir0),
    !,
    absolute_file_name(Dir0, Dir).
declaring_dir(Dir) :-
    prolog_load_context(directory, Dir0),
    !,
    Dir = Dir0.
declaring_dir(Dir) :-
    working_directory(Dir0, Dir0),
    absolute_file_name(Dir0, Dir1),
    without_slash(Dir1, Dir).

%!  without_slash(+Dir0, -Dir) is det.

without_slash(Dir0, Dir) :-
    (   Dir0 \== (/),
        atom_concat(Dir1, /, Dir0)
    ->  Dir = Dir1
    ;   Dir = Dir0
    ).

%!  forget_origin(+Origin) is det.
%
%   Remove all that Origin declared. What it had superseded counts again.

forget_origin(Origin) :-
    in_one_change(forget(Origin)).

%!  forget(+Origin) is det.

forget(Origin) :-
    retractall(superseded(_, _, _, Origin, _)),
    retractall(hook(_, _, _, Origin, _)),
    forall(fact(Kind, Service, Value, Origin, _, Fact),
           forall(retract(Fact),
                  ( unindex(Kind, Service, Value),
                    reinstate(Kind, Service) ))).

%!  reinstate(+Kind, +Service) is det.
%
%   The latest superseded declaration of Kind about Service becomes current again.

reinstate(Kind, Service) :-
    findall(Sequence-then(Value, Origin), superseded(Kind, Service, Value, Origin, Sequence), Earlier),
    sort(1, @>=, Earlier, [Sequence-then(Value, Origin)|_]),
    !,
    retractall(superseded(Kind, Service, _, Origin, Sequence)),
    make_current(Kind, Service, Value, Origin, Sequence).
reinstate(_, _).

%!  origin_declarations(+Origin, -Declarations:list) is det.
%
%   Declarations is all that Origin declares, for restore_declarations/2.

origin_declarations(Origin, Declarations) :-
    findall(declared(Kind, Service, Value, Sequence),
            (   fact(Kind, Service, Value, Origin, Sequence, Fact), call(Fact)
            ;   superseded(Kind, Service, Value, Origin, Sequence)
            ),
            Declared),
    findall(hook(Service, Event, Action, Sequence), hook(Service, Event, Action, Origin, Sequence), Hooks),
    append(Declared, Hooks, Declarations).

%!  restore_declarations(+Origin, +Declarations:list) is det.
%
%   Origin declares exactly Declarations, with the precedence they had.

restore_declarations(Origin, Declarations) :-
    in_one_change(( forget(Origin),
                    maplist(restore(Origin), Declarations) )).

%!  restore(+Origin, +Declaration) is det.

restore(Origin, hook(Service, Event, Action, Sequence)) :-
    assertz(hook(Service, Event, Action, Origin, Sequence)).
restore(Origin, declared(Kind, Service, Value, Sequence)) :-
    fact(Kind, Service, Current, Other, Newer, Fact),
    call(Fact),
    !,
    (   Newer > Sequence
    ->  assertz(superseded(Kind, Service, Value, Origin, Sequence))
    ;   retract(Fact),
        unindex(Kind, Service, Current),
        assertz(superseded(Kind, Service, Current, Other, Newer)),
        make_current(Kind, Service, Value, Origin, Sequence)
    ).
restore(Origin, declared(Kind, Service, Value, Sequence)) :-
    make_current(Kind, Service, Value, Origin, Sequence).
