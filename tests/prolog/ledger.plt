:- module(test_ledger, []).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/effects), [with_backend/3, effect/2]).
:- use_module(library(deployment/releases), [release_hash_of/3]).
:- use_module(library(lists), [member/2]).
:- use_module(library(plunit)).

% The ledger of plain swipl, in memory: ledgered and other are the services.

fresh :-
    forget,
    declare_service(ledgered, []),
    declare_deploy_method(ledgered, ssh, [remote_dir('/srv')]),
    declare_service_sources(ledgered, ['*.py']),
    declare_service_hosts(ledgered, [host_config(a, []), host_config(b, [])]).

forget :-
    forall(( member(S, [ledgered, other]), member(K, [deployed_hash, rollback_hash]) ),
           effect(ledger(forget(S, K)), _)),
    undeclare_service(ledgered),
    undeclare_service(other).

observed(Host, Key, Hash) :-
    effect(ledger(put(ledgered, Host, '/srv', Key, Hash)), done).

% The files to ship hash to s.

with_sources(Goal) :-
    with_backend(model([sources(s)]), none, Goal).

in_memory :-
    \+ predicate_property(deployment_effects:live_ledger(_, _, _), foreign).

:- begin_tests(ledger, [condition(in_memory), setup(fresh), cleanup(forget)]).

test(at_first_nothing_is_known, [setup(fresh), fail]) :-
    deployed_hash(ledgered, _).
test(what_is_stored_is_for_all_hosts, [setup(fresh), all(H-Hash == [a-h1, b-h1])]) :-
    store_deployed_hash(ledgered, h1),
    deployed_hash(ledgered, H, Hash).
test(what_is_stored_is_what_all_hosts_agree_on, [setup(fresh), all(Hash == [h1])]) :-
    store_deployed_hash(ledgered, h1),
    deployed_hash(ledgered, Hash).
test(stored_again_it_is_replaced, [setup(fresh), all(Hash == [h2])]) :-
    store_deployed_hash(ledgered, h1),
    store_deployed_hash(ledgered, h2),
    deployed_hash(ledgered, Hash).
test(hosts_that_differ_do_not_agree, [setup(fresh), fail]) :-
    observed(a, deployed_hash, h1),
    observed(b, deployed_hash, h2),
    deployed_hash(ledgered, _).
test(one_host_does_not_speak_for_the_other, [setup(fresh), fail]) :-
    observed(a, deployed_hash, h1),
    deployed_hash(ledgered, _).
test(each_host_has_its_own, [setup(fresh), all(H-Hash == [a-h1, b-h2])]) :-
    observed(a, deployed_hash, h1),
    observed(b, deployed_hash, h2),
    deployed_hash(ledgered, H, Hash).
test(what_was_seen_on_a_host_goes_before_what_was_stored_for_all, [setup(fresh), all(H-Hash == [a-seen, b-stored])]) :-
    store_deployed_hash(ledgered, stored),
    observed(a, deployed_hash, seen),
    deployed_hash(ledgered, H, Hash).
test(storing_for_all_replaces_what_was_seen, [setup(fresh), all(H-Hash == [a-stored, b-stored])]) :-
    observed(a, deployed_hash, seen),
    store_deployed_hash(ledgered, stored),
    deployed_hash(ledgered, H, Hash).
test(another_remote_dir_is_another_place, [setup(fresh), fail]) :-
    effect(ledger(put(ledgered, a, '/elsewhere', deployed_hash, h1)), done),
    deployed_hash(ledgered, a, _).
test(rollback_hashes_are_kept_apart, [setup(fresh), all(D-R == [h1-h2])]) :-
    store_deployed_hash(ledgered, h1),
    store_rollback_hash(ledgered, h2),
    deployed_hash(ledgered, D),
    rollback_hash(ledgered, R).
test(the_service_may_be_asked_for, [setup(fresh), true(Services == [ledgered, other])]) :-
    declare_service(other, []),
    store_deployed_hash(ledgered, h1),
    store_deployed_hash(other, h1),
    findall(S, ( deployed_hash(S, h1), member(S, [ledgered, other]) ), Services0),
    sort(Services0, Services).
test(a_service_without_a_host_has_its_hash_too, [setup(fresh), all(Hash == [h1])]) :-
    declare_service(other, []),
    store_deployed_hash(other, h1),
    deployed_hash(other, Hash).
test(a_service_declared_later_has_its_hash, [setup(fresh), all(Hash == [h1])]) :-
    store_deployed_hash(other, h1),
    declare_service(other, []),
    deployed_hash(other, Hash).
test(a_hash_is_stored_for_a_named_service, [setup(fresh), error(instantiation_error, _)]) :-
    store_deployed_hash(_, h1).
test(queries_of_an_unknown_service_have_no_answer, [setup(fresh), fail]) :-
    deployed_hash(nobody, _, _).

:- end_tests(ledger).

:- begin_tests(ledger_changes, [condition(in_memory), setup(fresh), cleanup(forget)]).

% check_for_changes/2 and /3 on what the memory has seen, with sources from the model.

changes(Seen, Changes) :-
    fresh,
    release_hash_of(ledgered, s, New),
    with_memory([New|Seen], check_for_changes(ledgered, Changes)).

with_memory([New|Seen], Goal) :-
    findall(row(H, '/srv', V), ( member(H-V0, Seen), ( V0 == new -> V = New ; V = V0 ) ), Rows),
    setup_call_cleanup(
        prolog_wrap:wrap_predicate(deployment_model:model_effect(Effect, Outcome), remembered, Wrapped,
                                   (   Effect = ledger(get(ledgered, deployed_hash))
                                   ->  Outcome = rows(Rows)
                                   ;   call(Wrapped)
                                   )),
        with_sources(Goal),
        prolog_wrap:unwrap_predicate(deployment_model:model_effect/2, remembered)).

new(New) :- release_hash_of(ledgered, s, New).

test(nothing_was_ever_deployed, Changes == never_deployed) :-
    changes([], Changes).
test(no_host_needs_anything, Changes == no_changes) :-
    changes([a-new, b-new], Changes).
test(all_hosts_have_something_else, Changes == changed(old, New)) :-
    changes([a-old, b-old], Changes),
    new(New).
test(one_host_has_something_else, Changes == changed(old, New)) :-
    changes([a-new, b-old], Changes),
    new(New).
test(one_host_has_nothing, Changes == changed(none, New)) :-
    changes([a-new], Changes),
    new(New).
test(each_host_is_told_by_itself, Changes == [a-no_changes, b-changed(old, New), c-never_deployed]) :-
    fresh,
    declare_service_hosts(ledgered, [host_config(a, []), host_config(b, []), host_config(c, [])]),
    new(New),
    with_memory([New, a-new, b-old],
                findall(H-C, ( member(H, [a, b, c]), check_for_changes(ledgered, H, C) ), Changes)).
test(a_release_hash_covers_files_and_configuration, Hash == New) :-
    fresh,
    new(New),
    with_sources(release_hash(ledgered, Hash)).
test(a_source_hash_is_that_of_the_files, Hash == s) :-
    fresh,
    with_sources(compute_source_hash(ledgered, Hash)).
test(an_undeclared_service, [forall(member(G, [compute_source_hash(nobody, _), release_hash(nobody, _), check_for_changes(nobody, _)])),
                             error(existence_error(service, nobody), _)]) :-
    call(G).
test(a_service_without_sources, error(existence_error(service_sources, other), _)) :-
    declare_service(other, []),
    compute_source_hash(other, _).

:- end_tests(ledger_changes).
