:- module(test_journal, []).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/journal), [is_run/1]).
:- use_module(library(deployment/releases), [hash_of_id/2]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(lists), [append/3, member/2, memberchk/2]).
:- use_module(library(plunit)).
:- use_module(library(prolog_wrap)).
:- use_module(modelled).

% What a run on the modelled host asks of the ledger and does there, in order: intent(Steps, Release), did(Steps), events(Steps).

:- dynamic done/1.

journaled(Operation, Script, Answer, Result, Events, Done) :-
    retractall(done(_)),
    setup_call_cleanup(
        wrap_predicate(deployment_model:model_effect(Effect, Outcome), journal, Wrapped,
                       test_journal:answered(Effect, Answer, Wrapped, Outcome)),
        model(Operation, Script, Result, _, Events),
        unwrap_predicate(deployment_model:model_effect/2, journal)),
    findall(One, done(One), Done).

answered(Effect, Answer, Wrapped, Outcome) :-
    (   noted(Effect, One)
    ->  assertz(done(One))
    ;   true
    ),
    (   Effect = ledger(Request), functor(Request, Name, _), memberchk(Name, [intent, events])
    ->  Outcome = Answer
    ;   call(Wrapped)
    ).

noted(ledger(intent(_, 'a.example', _, Steps, Release, _)), intent(Steps, Release)).
noted(ledger(events(_, 'a.example', Events)), events(Steps)) :- ids(Events, Steps).
noted(remote(_, Steps), did(Ids)) :- findall(Id, member(do(Id, _, _), Steps), Ids).
noted(probe(_, _), did([probe])).

ids(Events, Ids) :- findall(Id, member(event(_, _, Id, _, _, _), Events), Ids).

% Each script that changes something has the intent of its steps before it, and their events behind it.

framed([]).
framed([did(Steps)|Done]) :- looking(Steps), framed(Done).
framed([intent(Steps, _), did(Steps), events(Told)|Done]) :- append(Told, _, Steps), framed(Done).

looking(Steps) :- forall(member(Step, Steps), memberchk(Step, [observe, probe])).

:- begin_tests(journal, [setup(declare_api([])), cleanup(undeclare_api)]).

test(each_script_that_changes_something_is_between_its_intent_and_its_events, true(Result == deployed)) :-
    host(running(s1), Facts),
    journaled(deploy_with_rollback(api, []), [sources(s2), host(_, Facts)], done, Result, _, Done),
    framed(Done),
    findall(Steps, member(intent(Steps, _), Done), Intents),
    length(Intents, 3).
test(it_is_so_while_undoing, true(Result = rolled_back_after_failure(_))) :-
    host(running(s1), Facts),
    journaled(deploy_with_rollback(api, []), [sources(s2), host(_, Facts), answers(_, [500])], done, Result, _, Done),
    framed(Done),
    memberchk(intent([regain, turn_back, undo_health_1|_], none), Done).
test(it_is_so_when_a_step_fails, true(Result = error(_))) :-
    journaled(deploy_with_rollback(api, []), [fails(_, verify, broken), fails(_, stage, no_space)], done, Result, _, Done),
    framed(Done).
test(intent_tells_the_release_that_it_makes_active, true(Releases == [none, Hash, none])) :-
    host(running(s1), Facts),
    id(s2, Id),
    hash_of_id(Id, Hash),
    journaled(deploy_with_rollback(api, []), [sources(s2), host(_, Facts)], done, deployed, _, Done),
    findall(Release, member(intent(_, Release), Done), Releases).
test(what_only_looks_intends_nothing, true(Done == [did([observe]), did([probe])])) :-
    host(running(s1), Facts),
    journaled(service_status(api, health, []), [host(_, Facts)], done, running, _, Done).
test(release_that_is_active_is_told, true(Done == [did([observe]), intent([record], Hash), events([record])])) :-
    host(running(s1), Facts),
    id(s1, Id),
    hash_of_id(Id, Hash),
    journaled(deploy_with_rollback(api, []), [sources(s1), host(_, Facts)], done, unchanged, _, Done).
test(ledger_that_cannot_be_written_is_told_once_and_stops_nothing,
     true(Result-Told == deployed-[failed(ledger_failed(file, full))])) :-
    Failure = failed(ledger_failed(file, full)),
    journaled(deploy_with_rollback(api, []), [], Failure, Result, Events, Done),
    findall(Outcome, member(event(_, _, journal, Outcome, _, _), Events), Told),
    findall(Intent, ( member(Intent, Done), functor(Intent, intent, _) ), [_]).
test(what_acts_for_real_is_a_run, true(Runs == [deploy_service, lock_service, force_stop_service])) :-
    Asked = [ deploy_service(s, []), deploy_service(s, [backend(dry)]), stop_service(s, [backend(model([]))]),
              lock_service(s, [host(h)]), lock_status(s, []), force_stop_service(s, 1, [backend(live)]),
              deployment_plan(s, []), service_status(s, health, []), run_health_check(s, []), rebuild_ledger(s, []) ],
    findall(Name, ( member(Operation, Asked), is_run(Operation), functor(Operation, Name, _) ), Runs).

:- end_tests(journal).

% What is recorded of a host.

rebuilt(Facts, Script, Status, Recorded) :-
    retractall(done(_)),
    setup_call_cleanup(
        wrap_predicate(deployment_model:model_effect(Effect, _), rebuilding, Wrapped,
                       ( ( Effect = ledger(put(_, _, _, Key, Value)) -> assertz(test_journal:done(Key-Value)) ; true ),
                         call(Wrapped) )),
        model(rebuild_ledger(api, []), [host(_, Facts)|Script], [result(_, Status)], _),
        unwrap_predicate(deployment_model:model_effect/2, rebuilding)),
    findall(Pair, done(Pair), Recorded).

:- begin_tests(rebuilding, [setup(declare_api([])), cleanup(undeclare_api)]).

test(what_is_active_and_what_to_go_back_to, true(Status-Recorded == recorded(Hash)-Expected)) :-
    host(running(s2, s1), Facts),
    maplist(id, [s1, s2], [Old, New]),
    maplist(hash_of_id, [Old, New], [Before, Hash]),
    Expected = [deployed_hash-Hash, deployed_id-New, rollback_hash-Before],
    rebuilt(Facts, [], Status, Recorded).
test(nothing_is_recorded_as_none, true(Status-Recorded == recorded(none)-Expected)) :-
    Expected = [deployed_hash-none, deployed_id-none, rollback_hash-none],
    rebuilt([], [], Status, Recorded).
test(what_is_not_seen_is_not_recorded, true(Status-Recorded == error(unreachable(x))-[])) :-
    rebuilt([], [fails(_, observe, unreachable(x))], Status, Recorded).

:- end_tests(rebuilding).
