:- module(deployment_targets,
          [ service_host/3,             % ?Service, ?Host, ?Options
            service_targets/2,          % +Service, -Hosts
            declared/5,                 % +Service, +Host, +Call, +Name, -Value
            resolve/5,                  % +Service, +Host, +Call, +Name, -Value
            source_base/2,              % +Service, -Dir
            first_of_each/2             % +List, -Set
          ]).
:- use_module(library(apply), [foldl/4]).
:- use_module(library(lists), [append/3, member/2]).
:- use_module(facts, [service_now/4, method_now/4, sources_now/4, hosts_now/4, host_entry/3, host_name_in/3]).
:- use_module(options, [default_option/3, lookup/3]).

/** <module> Where a service is deployed, and which options hold there
*/

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
    targets_of(Service, Found),
    Hosts = Found.

%!  targets_of(+Service, -Hosts:list(atom)) is det.
%
%   Hosts must be unbound.

targets_of(Service, Hosts) :-
    hosts_now(Service, Configs, _, _),
    Configs \== [],
    !,
    findall(Host, member(host_config(Host, _), Configs), Hosts).
targets_of(Service, [Host]) :-
    method_now(Service, method(_, Options), _, _),
    lookup(host, [Options], Host),
    !.
targets_of(Service, [Host]) :-
    service_now(Service, service(Options, _), _, _),
    lookup(host, [Options], Host),
    !.
targets_of(Service, [localhost]) :-
    method_now(Service, method(local, _), _, _),
    !.
targets_of(_, []).

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

below(Base, Path, Absolute) :-
    (   is_absolute_file_name(Path)
    ->  Full = Path
    ;   atom_concat('~/', Rest, Path),
        getenv('HOME', Home)
    ->  atomic_list_concat([Home, Rest], /, Full)
    ;   atomic_list_concat([Base, Path], /, Full)
    ),
    absolute_file_name(Full, Absolute).

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
