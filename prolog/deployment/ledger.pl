:- module(deployment_ledger,
          [ compute_source_hash/2,      % +Service, -Hash
            release_hash/2,             % +Service, -Hash
            check_for_changes/2,        % +Service, -Changes
            check_for_changes/3,        % +Service, +Host, -Changes
            deployed_hash/2,            % ?Service, ?Hash
            deployed_hash/3,            % ?Service, ?Host, ?Hash
            store_deployed_hash/2,      % +Service, +Hash
            rollback_hash/2,            % ?Service, ?Hash
            rollback_hash/3,            % ?Service, ?Host, ?Hash
            store_rollback_hash/2       % +Service, +Hash
          ]).

/** <module> Hashes: of what would be deployed, and of what was last seen on the hosts

The ledger is history and the last observation: what decides is on the target.
*/

:- autoload(library(apply), [maplist/2]).
:- autoload(library(error), [must_be/2]).
:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(declarations, [require_service/1, service_targets/2]).
:- use_module(secrets, [seals/3]).
:- use_module(releases, [scan_action/3, release_hash_of/3, release/5]).
:- use_module(run, [ask/2]).
:- use_module(observation, [context/5]).

%!  compute_source_hash(+Service, -Hash:atom) is det.
%
%   SHA-256, hexadecimal, over the files that would be shipped.
%
%   @error existence_error(service_sources, Service), or domain_error(service_sources, Reason) where they
%          can't be shipped

compute_source_hash(Service, Hash) :-
    require_service(Service),
    scan_action(Service, none, scan(Dir, Patterns, _)),
    ask(scan(Dir, Patterns, []), Outcome),
    (   Outcome = sources(Hash, _, _)
    ->  true
    ;   Outcome = failed(Reason),
        throw(error(domain_error(service_sources, Reason), context(_, Service)))
    ).

%!  release_hash(+Service, -Hash:atom) is det.
%
%   SHA-256, hexadecimal, over the files and the service's run configuration.
%
%   @error as compute_source_hash/2

release_hash(Service, Hash) :-
    compute_source_hash(Service, Sources),
    release_hash_of(Service, Sources, Hash).

%!  check_for_changes(+Service, +Host, -Changes) is det.
%
%   Between what was last seen on Host and what would be deployed now: `never_deployed`, `no_changes` or
%   `changed(Old, New)`; the hashes are the same when only the host's own options differ.
%
%   @error existence_error(service_host, Host), and as compute_source_hash/2

check_for_changes(Service, Host, Changes) :-
    compute_source_hash(Service, Sources),
    service_targets(Service, Hosts),
    (   memberchk(Host, Hosts)
    ->  changes_on(Service, Sources, Host, Changes)
    ;   throw(error(existence_error(service_host, Host), context(_, Service)))
    ).

changes_on(Service, Sources, Host, Changes) :-
    seals(Service, Host, Seals),
    release(Service, Host, Seals, Sources, release(NewId, New, _)),
    host_changes(Service, Host, New, NewId, Changes).

host_changes(Service, Host, New, NewId, Changes) :-
    last_seen(Service, Host, deployed_hash, Old),
    (   Old == none
    ->  Changes = never_deployed
    ;   Old == New,
        last_seen(Service, Host, deployed_id, OldId),
        memberchk(OldId, [none, NewId])
    ->  Changes = no_changes
    ;   Changes = changed(Old, New)
    ).

%!  check_for_changes(+Service, -Changes) is det.
%
%   Over all hosts: `no_changes` only when none needs anything, `never_deployed` when none has anything.
%   In `changed(Old, New)`, Old is the first host's that differs, or `none` where only hosts differ that have nothing.

check_for_changes(Service, Changes) :-
    compute_source_hash(Service, Sources),
    release_hash_of(Service, Sources, New),
    service_targets(Service, Hosts),
    (   Hosts == []
    ->  host_changes(Service, *, New, New, Changes)
    ;   findall(Each, ( member(Host, Hosts), changes_on(Service, Sources, Host, Each) ), All),
        overall(All, New, Changes)
    ).

overall(All, _, never_deployed) :-
    maplist(==(never_deployed), All),
    !.
overall(All, _, changed(Old, New)) :-
    memberchk(changed(Old, New), All),
    !.
overall(All, New, changed(none, New)) :-
    memberchk(never_deployed, All),
    !.
overall(_, _, no_changes).

%!  deployed_hash(?Service, ?Hash) is nondet.
%
%   The hash on which all hosts agree.

deployed_hash(Service, Hash) :- agreed(Service, deployed_hash, Hash).

%!  deployed_hash(?Service, ?Host, ?Hash) is nondet.

deployed_hash(Service, Host, Hash) :- known(Service, Host, deployed_hash, Hash).

%!  store_deployed_hash(+Service, +Hash) is det.
%
%   For all hosts.

store_deployed_hash(Service, Hash) :- store(Service, deployed_hash, Hash).

%!  rollback_hash(?Service, ?Hash) is nondet.
%
%   The hash on which all hosts agree.

rollback_hash(Service, Hash) :- agreed(Service, rollback_hash, Hash).

%!  rollback_hash(?Service, ?Host, ?Hash) is nondet.

rollback_hash(Service, Host, Hash) :- known(Service, Host, rollback_hash, Hash).

%!  store_rollback_hash(+Service, +Hash) is det.
%
%   For all hosts.

store_rollback_hash(Service, Hash) :- store(Service, rollback_hash, Hash).

%   What is stored for all hosts is kept under the host `*`; it answers for those of which nothing else is known.

store(Service, Key, Hash) :-
    must_be(atom, Service),
    must_be(atomic, Hash),
    forall(member(Known, [Key, deployed_id]), ask(ledger(forget(Service, Known)), _)),
    ask(ledger(put(Service, *, '', Key, Hash)), Outcome),
    (   Outcome = failed(ledger_failed(File, Why))
    ->  throw(error(permission_error(modify, ledger, File), context(_, Why)))
    ;   true
    ).

known(Service, Host, Key, Hash) :-
    ledger_service(Service, Key),
    known_host(Service, Host),
    last_seen(Service, Host, Key, Seen),
    Seen \== none,
    Hash = Seen.

agreed(Service, Key, Hash) :-
    ledger_service(Service, Key),
    findall(Seen, ( known_host(Service, Host), last_seen(Service, Host, Key, Seen) ), All),
    sort(All, [Agreed]),
    Agreed \== none,
    Hash = Agreed.

ledger_service(Service, _) :-
    atom(Service),
    !.
ledger_service(Service, Key) :-
    ask(ledger(all(Key)), rows(Rows)),
    findall(S, member(row(S, _, _, _), Rows), Services0),
    sort(Services0, Services),
    member(Service, Services).

known_host(Service, Host) :-
    service_targets(Service, Hosts),
    (   Hosts == []
    ->  Host = *
    ;   member(Host, Hosts)
    ).

last_seen(Service, Host, Key, Seen) :-
    ask(ledger(get(Service, Key)), rows(Rows)),
    (   member(row(Host, Dir, Value), Rows), its_directory(Service, Host, Dir)
    ->  Seen = Value
    ;   memberchk(row(*, _, Value), Rows)
    ->  Seen = Value
    ;   Seen = none
    ).

its_directory(_, *, _) :- !.
its_directory(Service, Host, Dir) :-
    context(Service, Host, [], none, context(_, _, _, Dir, _, _)).
