:- module(deployment_facts,
          [ service_now/4,              % ?Service, ?Value, ?Origin, ?Sequence
            method_now/4,               % ?Service, ?Value, ?Origin, ?Sequence
            sources_now/4,              % ?Service, ?Value, ?Origin, ?Sequence
            hosts_now/4,                % ?Service, ?Hosts, ?Origin, ?Sequence
            rollout_now/4,              % ?Service, ?Options, ?Origin, ?Sequence
            balancer_now/4,             % ?Service, ?Balancer, ?Origin, ?Sequence
            hook/5,                     % ?Service, ?Event, ?Action, ?Origin, ?Sequence
            host_entry/3,               % ?Service, ?Host, ?Options
            host_name_in/3,             % ?Host, ?Kind, ?Service
            declare/3,                  % +Kind, +Service, +Value
            declare_hook/3,             % +Service, +Event, +Action
            remove_service/1,           % +Service
            declaring_dir/1,            % -Dir
            with_origin/3,              % +Origin, ?Dir, :Goal
            forget_origin/1,            % +Origin
            in_one_change/1,            % :Goal
            origin_declarations/2,      % +Origin, -Declarations
            restore_declarations/2      % +Origin, +Declarations
          ]).
:- use_module(library(apply), [maplist/2]).
:- use_module(library(lists), [append/3, member/2]).
:- use_module(options, [lookup/3]).

/** <module> The facts that declarations leave behind, and where they come from

Every declaration has an *origin*: the file it comes from, or `user` for one made by a call. Of two declarations of the same thing the later
wins; the earlier one counts again when the origin of the later one forgets it. Within one origin, a declaration replaces the one before it.
Hooks add up, in order of declaration; the same hook declared again by the same origin is the same hook, and keeps its place.

A file that is consulted in plain `swipl` is the origin of what its directives declare. When it is loaded again, its first declaration forgets
those of the load before.

Changes are serialised and atomic: another thread sees a change whole or not at all. What is current is stored apart from what it superseded,
so that a query is one look-up.
*/

:- meta_predicate
    with_origin(+, ?, 0),
    in_one_change(0),
    change(0).

:- dynamic
    service_now/4,              % Service, service(Options, Dir), Origin, Sequence
    method_now/4,               % Service, method(Method, Options), Origin, Sequence
    sources_now/4,              % Service, sources(Patterns, Dir), Origin, Sequence
    hosts_now/4,                % Service, Hosts, Origin, Sequence
    rollout_now/4,              % Service, Options, Origin, Sequence
    balancer_now/4,             % Service, haproxy(Options), Origin, Sequence
    superseded/5,               % Kind, Service, Value, Origin, Sequence
    hook/5,                     % Service, Event, Action, Origin, Sequence
    host_entry/3,               % Service, Host, Options: the elements of hosts_now/4
    host_name_in/3,             % Host, Kind, Service: host/1 in service_now/4 or method_now/4
    loaded_by/2.                % Origin, Stream of its last load

%!  fact(?Kind, ?Service, ?Value, ?Origin, ?Sequence, ?Fact) is nondet.
%
%   Fact is how the current declaration of Kind is stored.

fact(service, Service, Value, Origin, Sequence, service_now(Service, Value, Origin, Sequence)).
fact(method, Service, Value, Origin, Sequence, method_now(Service, Value, Origin, Sequence)).
fact(sources, Service, Value, Origin, Sequence, sources_now(Service, Value, Origin, Sequence)).
fact(hosts, Service, Value, Origin, Sequence, hosts_now(Service, Value, Origin, Sequence)).
fact(rollout, Service, Value, Origin, Sequence, rollout_now(Service, Value, Origin, Sequence)).
fact(balancer, Service, Value, Origin, Sequence, balancer_now(Service, Value, Origin, Sequence)).

%!  in_one_change(:Goal) is semidet.
%
%   Run Goal once, as the only one that changes declarations. When it fails or throws, nothing has changed; within a larger change, that is taken
%   back with the larger one. (What a transaction adds and a nested one removes is there again once a transaction was discarded, up to SWI-Prolog
%   9.0.4 at least.)

in_one_change(Goal) :-
    with_mutex(deployment_declarations, change(Goal)).

%!  change(:Goal) is semidet.

change(Goal) :-
    current_transaction(_),
    !,
    once(Goal).
change(Goal) :-
    transaction(Goal).

%!  declare(+Kind, +Service, +Value) is det.
%
%   Value becomes the current declaration of Kind (service, method, sources, hosts, rollout or balancer) about Service.

declare(Kind, Service, Value) :-
    in_one_change(declare_now(Kind, Service, Value)).

%!  declare_hook(+Service, +Event, +Action) is det.

declare_hook(Service, Event, Action) :-
    in_one_change(add_hook(Service, Event, Action)).

%!  add_hook(+Service, +Event, +Action) is det.

add_hook(Service, Event, Action) :-
    current_origin(Origin),
    (   hook(Service, Event, Action, Origin, _)
    ->  true
    ;   next_sequence(Sequence),
        assertz(hook(Service, Event, Action, Origin, Sequence))
    ).

%!  remove_service(+Service) is det.
%
%   Remove what any origin declares about Service.

remove_service(Service) :-
    forall(fact(Kind, Service, Value, _, _, Fact),
           forall(retract(Fact), unindex(Kind, Service, Value))),
    retractall(superseded(_, Service, _, _, _)),
    retractall(hook(Service, _, _, _, _)).

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
