:- module(test_recovering, []).
:- use_module(library(deployment/effects), [with_backend/3]).
:- use_module(library(deployment/locks), [leased_plan/4]).
:- use_module(library(deployment/model), [modelled_host/2]).
:- use_module(library(deployment/observation), [context/5]).
:- use_module(library(deployment/operations), [perform/4, result_kind/3]).
:- use_module(library(deployment/plan), [deploy_plan/3, rollback_plan/3, stop_plan/3, start_plan/2, restart_plan/2]).
:- use_module(library(deployment/releases), [hash_of_id/2]).
:- use_module(library(deployment/run), [run/3]).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [append/3, member/2, memberchk/2, nth1/3, reverse/2]).
:- use_module(library(plunit)).
:- use_module(modelled).

% The steps of an operation on a host in this state.

operation(deploy, State, Plan) :-
    planning_facts(State, [], Facts),
    deploy_plan(deploy_with_rollback, Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).
operation(rollback, State, Plan) :-
    seen(State, Facts),
    id(older, To),
    rollback_plan(To, Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).
operation(stop, State, Plan) :-
    seen(State, Facts),
    stop_plan(stop, Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).
operation(start, State, Plan) :-
    seen(State, Facts),
    start_plan(Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).

operation(restart, State, Plan) :-
    seen(State, Facts),
    restart_plan(Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).

seen(State, facts(api, 'a.example', [], Observed, none)) :-
    host(State, Observed).

% Each operation with a state in which it has something to do, and what may become of it.

begun(deploy, empty, [new, none]).
begun(deploy, running(old), [new, old]).
begun(deploy, running(old, older), [new, old]).
begun(deploy, stopped(old, older), [new, old]).
begun(rollback, running(old, older), [older, old]).
begun(rollback, stopped(old, older), [older, old]).
begun(stop, running(old, older), [old]).
begun(start, stopped(old, older), [old]).
begun(restart, running(old, older), [old]).

% What a controller leaves that is killed when it has performed so many steps.

killed_after(Done, Operation, State, Left) :-
    operation(Operation, State, Plan),
    append(Prefix, _, Plan),
    length(Prefix, Done),
    host(State, Facts),
    context(api, 'a.example', [], none, Context),
    with_backend(model([host(_, Facts)]), none,
                 ( run(Prefix, Context, report(completed, _, _)), modelled_host('a.example', Left) )).

% Likewise, when it was undoing what it had done, and had undone so many of its actions.

killed_undoing(Done, Undone, Operation, State, Left) :-
    operation(Operation, State, Plan),
    append(Prefix, _, Plan),
    length(Prefix, Done),
    reverse(Prefix, Reversed),
    findall(step(undo, 'a.example', try(Action), []),
            ( member(step(_, _, _, Undo), Reversed), member(Action, Undo), Action \= if_unhealthy(_) ),
            Undoing),
    append(Begun, _, Undoing),
    length(Begun, Undone),
    host(State, Facts),
    context(api, 'a.example', [], none, Context),
    with_backend(model([host(_, Facts)]), none,
                 ( run(Prefix, Context, report(completed, _, _)),
                   forall(member(Step, Begun), run([Step], Context, _)),
                   modelled_host('a.example', Left) )).

recovers(Left, Script, Result, Facts) :-
    perform(none, recover(api, [backend(model([host(_, Left)|Script]))]), [result(_, Result)], _),
    modelled_host('a.example', Facts).

% One of these releases is active, whole, its predecessor the rollback point; it runs where it should.

settled(Operation, State, Sources, Facts) :-
    whole(Facts),
    \+ member(intent(_, _, _, _, _, _), Facts),
    (   Sources == none
    ->  \+ member(current(_), Facts), \+ member(running(_), Facts)
    ;   id(Sources, Id),
        memberchk(current(Id), Facts),
        (   runs(Operation, State, Sources) -> memberchk(running(Id), Facts) ; \+ member(running(_), Facts) ),
        \+ memberchk(backup(Id), Facts)
    ).

runs(deploy, _, new).
runs(deploy, State, old) :- functor(State, running, _).
runs(rollback, _, older).
runs(rollback, State, old) :- functor(State, running, _).
runs(restart, _, old).
runs(start, _, old) :- \+ nb_getval(recovered, undone(_)).

:- begin_tests(recovering, [setup(declare_api([])), cleanup(undeclare_api)]).

test(wherever_a_controller_is_killed_the_host_is_whole_afterwards,
     [forall(( begun(Operation, State, Allowed), operation(Operation, State, Plan), length(Plan, Length), between(0, Length, Done) )),
      true(Whole == yes)]) :-
    killed_after(Done, Operation, State, Left),
    recovers(Left, [], Result, Facts0),
    nb_setval(recovered, Result),
    told(Result, Facts0),
    ( untouched(State, Result, Left) ; member(Sources, Allowed), settled(Operation, State, Sources, Facts0) ),
    !,
    Whole = yes.

test(wherever_it_is_killed_while_it_undoes_too,
     [forall(( member(Operation-Last, [deploy-confirm, rollback-confirm]), before(Last, Operation, Most), between(3, Most, Done) )),
      true(Broken == [])]) :-
    State = running(old, older),
    once(begun(Operation, State, Allowed)),
    findall(Undone-Result-Facts,
            ( killed_undoing(Done, Undone, Operation, State, Left),
              recovers(Left, [], Result, Facts),
              nb_setval(recovered, Result),
              \+ ( told(Result, Facts), member(Sources, Allowed), settled(Operation, State, Sources, Facts) ) ),
            Broken).

before(Step, Operation, Number) :-
    operation(Operation, running(old, older), Plan),
    nth1(Number, Plan, step(Step, _, _, _)),
    !.

told(nothing_to_recover, _).
told(completed(Hash), Facts) :- active(Facts, Hash).
told(undone(Hash), Facts) :- active(Facts, Hash).

active(Facts, Hash) :-
    (   memberchk(current(Id), Facts) -> hash_of_id(Id, Hash) ; Hash = none ).

%   It was killed before it began, or after it ended.

untouched(State, nothing_to_recover, Left) :-
    host(State, Before),
    msort(Before, Sorted), msort(Left, Sorted).

test(what_was_begun_is_known, [forall(member(Step, [keep, stop, switch, start])), true(Known == yes)]) :-
    left_after(Step, deploy, running(old, older), Left),
    id(old, Old), id(older, Older), id(new, New),
    ( memberchk(intent(_, Old, Older, Old, New, running), Left) -> Known = yes ; Known = no ).
test(what_runs_and_is_healthy_is_finished, Result == completed(Hash)) :-
    left_after(start, deploy, running(old, older), Left),
    release_of(new, Hash),
    recovers(Left, [], Result, Facts),
    assertion(settled(deploy, running(old, older), new, Facts)).
test(what_can_not_be_finished_is_undone, Result == undone(Hash)) :-
    left_after(start, deploy, running(old, older), Left),
    release_of(old, Hash),
    recovers(Left, [fails(_, commit:_, no_space)], Result, Facts),
    assertion(settled(deploy, running(old, older), old, Facts)),
    id(older, Older),
    assertion(memberchk(backup(Older), Facts)).
test(what_is_finished_and_can_not_be_cleared_stays, Result == error(recovery_failed(timeout))) :-
    left_after(start, deploy, running(old, older), Left),
    recovers(Left, [cut(_, settle, timeout, before)], Result, Facts),
    id(new, New),
    assertion(( memberchk(current(New), Facts), memberchk(running(New), Facts) )).
test(a_finish_that_is_lost_undoes_nothing,
     [ forall(( member(Step, [lock, confirm, commit]), member(Reached, [before, after, end]) )), true(Running == yes) ]) :-
    left_after(start, deploy, running(old, older), Left),
    recovers(Left, [cut(_, Step, timeout, Reached)], error(recovery_failed(timeout)), Facts),
    id(new, New),
    ( memberchk(running(New), Facts) -> Running = yes ; Running = Facts ),
    recovers(Facts, [], Result, Facts1),
    assertion(memberchk(Result, [completed(_), nothing_to_recover])),
    assertion(settled(deploy, running(old, older), new, Facts1)).
test(what_is_undone_is_on_record_though_the_lost_script_had_cleared_it, Result == undone(Hash)) :-
    host(running(old, older), Facts),
    model(deploy_with_rollback(api, []),
          [host(_, Facts), sources(new), cut(_, confirm:_, timeout, end), cut(_, undo_start_2:_, timeout, after)], _, _),
    modelled_host('a.example', Left),
    id(old, Old), id(older, Older), id(new, New),
    assertion(memberchk(intent(_, Old, Older, Old, New, back), Left)),
    recovers(Left, [], Result, Facts1),
    release_of(old, Hash),
    assertion(settled(deploy, running(old, older), old, Facts1)).
test(a_finish_that_fails_is_told_with_what_undid_it) :-
    left_after(start, deploy, running(old, older), Left),
    perform(none, recover(api, [backend(model([host(_, Left), answers(_, [500, 500, 500, 200])]))]), [result(_, undone(_))], Events),
    assertion(member(event(_, _, health, failed(unhealthy(_)), _, _), Events)).
test(where_nothing_was_nothing_is, Result == undone(none)) :-
    left_after(switch, deploy, empty, Left),
    recovers(Left, [], Result, Facts),
    assertion(settled(deploy, empty, none, Facts)).
test(a_restart_is_finished_or_undone, Running == yes) :-
    left_after(stop, restart, running(old, older), Left),
    recovers(Left, [], _, Facts),
    ( settled(restart, running(old, older), old, Facts) -> Running = yes ; Running = Facts ).
test(a_stop_is_finished, Result == completed(Hash)) :-
    left_after(intend, stop, running(old, older), Left),
    release_of(old, Hash),
    recovers(Left, [], Result, Facts),
    assertion(\+ member(running(_), Facts)).
test(what_can_not_be_restored_is_told, Result-Kind == error(recovery_failed(exited(1)))-not_restored) :-
    left_after(stop, deploy, running(old), Left),
    recovers(Left, [fails(_, start, exited(1))], Result, Facts),
    assertion(member(intent(_, _, _, _, _, _), Facts)),
    result_kind(recover, [result(h, Result)], Kind).
test(nothing_unfinished, Result == nothing_to_recover) :-
    host(running(old, older), Facts),
    recovers(Facts, [], Result, _).
test(what_somebody_else_made_active_since_stays, Result == nothing_to_recover) :-
    host(running(old, older), Facts),
    id(new, New),
    recovers([intent(t, gone, none, gone, New, running)|Facts], [], Result, _).
test(what_is_seen_of_a_release_never_confirmed_is_enough, Result == completed(Hash)) :-
    host(stopped(old, older), [backup(_), current(Old)|Facts]),
    id(new, New),
    release_of(new, Hash),
    recovers([backup(Old), current(New), release(New), running(New)|Facts], [], Result, _).
test(a_living_holder_is_left_alone, Result == error(locked(alice, 1700000000, deployment))) :-
    left_after(stop, deploy, running(old), Left),
    Lock = lock(other, held, 'another/pid:[1]', '1', '1', alice, '1700000000', deployment),
    recovers([Lock|Left], [], Result, _).
test(what_is_over_is_taken_over, Result == undone(Hash)) :-
    left_after(stop, deploy, running(old), Left),
    release_of(old, Hash),
    Lock = lock(other, expired, 'another/pid:[1]', '1', '1', alice, '1700000000', deployment),
    recovers([Lock|Left], [], Result, _).
test(deploying_again_recovers_first, Result == deployed) :-
    left_after(stop, deploy, running(old, older), Left),
    model(deploy_with_rollback(api, []), [host(_, Left), sources(newest)], Result, Facts, Events),
    assertion(memberchk(event(_, _, recovery, undone(_), _, _), Events)),
    id(newest, Newest), id(old, Old),
    assertion(( memberchk(running(Newest), Facts), memberchk(backup(Old), Facts), whole(Facts) )).
test(a_bad_release_is_refused_and_what_ran_runs, Result == error(known_bad_release(Hash))) :-
    left_after(stop, deploy, running(old, older), Left),
    id(new, New), id(old, Old),
    release_of(new, Hash),
    model(deploy_with_rollback(api, []), [host(_, [bad(New)|Left]), sources(new)], Result, Facts),
    assertion(memberchk(running(Old), Facts)).
test(what_can_not_be_recovered_is_what_failure_goes_back_to,
     Result == rolled_back_after_failure(error(rollback_failed(exited(1))))) :-
    left_after(switch, deploy, running(old, older), Left),
    model(deploy_with_rollback(api, []), [host(_, Left), fails(_, start, exited(1)), sources(newest)], Result, Facts),
    id(old, Old), id(older, Older),
    assertion(( memberchk(current(Old), Facts), memberchk(backup(Older), Facts) )),
    modelled_host('a.example', All),
    assertion(memberchk(intent(_, Old, Older, Old, _, _), All)).
test(an_operation_that_is_done_or_undone_leaves_no_intent,
     [forall(member(Script, [[], [fails(_, start:_, exited(1))], [fails(_, stop:_, timeout)], [fails(_, commit:_, no_space)]])),
      true(Intents == [])]) :-
    host(running(old, older), Facts),
    model(deploy_with_rollback(api, []), [host(_, Facts), sources(new)|Script], _, _),
    modelled_host('a.example', Left),
    findall(I, ( member(I, Left), functor(I, intent, _) ), Intents).

left_after(Step, Operation, State, Left) :-
    operation(Operation, State, Plan),
    append(Before, [step(Step, _, _, _)|_], Plan),
    length([_|Before], Done),
    killed_after(Done, Operation, State, Left),
    !.

release_of(Sources, Hash) :-
    id(Sources, Id),
    hash_of_id(Id, Hash).

:- end_tests(recovering).

:- begin_tests(confirming, [setup(declare_api([])), cleanup(undeclare_api)]).

test(the_watchdog_is_armed_before_the_switch_and_disarmed_over_a_new_connection,
     Ids == [ lock, stage, intend, keep, drain, stop, arm, switch, start, reconnect, health, confirm, disarm, commit, prune, settle,
              unlock, record ]) :-
    planning_facts(running(old), [confirm_within(60)], Facts),
    deploy_plan(deploy_with_rollback, Facts, Bare),
    leased_plan(own, Bare, Facts, Plan),
    step_ids(Plan, Ids).
test(a_plain_deployment_is_confirmed_over_a_new_connection_too,
     Ids == [stage, keep, drain, stop, arm, switch, start, reconnect, confirm, disarm, commit, prune, record]) :-
    planning_facts(running(old), [confirm_within(60)], Facts),
    deploy_plan(deploy_service, Facts, Plan),
    step_ids(Plan, Ids).
test(the_lease_lasts_as_long_as_the_watchdog_waits, Seconds == 120) :-
    planning_facts(running(old), [confirm_within(60)], Facts),
    leased_plan(own, [step(stop, h, stop(1), [])], Facts, [step(lock, _, lock(Seconds, _, _), _)|_]).
test(confirmed_in_time, Result == deployed) :-
    host(running(old), Facts),
    model(deploy_with_rollback(api, [confirm_within(60)]), [host(_, Facts), sources(new)], Result, _).
test(who_comes_too_late_is_told, [forall(member(Step, [health, confirm, disarm])),
                                  true(Result-Kind == error(deployment_failed(not_confirmed_in_time))-failed)]) :-
    host(running(old), Facts),
    too_late(Step, Script),
    model(deploy_with_rollback(api, [confirm_within(60)]), [host(_, Facts), sources(new)|Script], Result, _),
    result_kind(deploy_with_rollback, Result, Kind).
test(a_failure_in_time_is_undone_and_the_watchdog_last, Steps == [start, link, disarm, settle, unlock]) :-
    host(running(old), Facts),
    model(deploy_with_rollback(api, [confirm_within(60)]), [host(_, Facts), sources(new), fails(_, start:_, exited(1))],
          rolled_back_after_failure(rolled_back(_)), _, Events),
    planning_facts(running(old), [confirm_within(60)], Planning),
    deploy_plan(deploy_with_rollback, Planning, Bare),
    leased_plan(own, Bare, Planning, Plan),
    findall(Name,
            ( member(event(_, _, Id, ok, _, _), Events),
              member(step(Of, _, _, Undo), Plan),
              nth1(N, Undo, Action),
              atomic_list_concat([undo, Of, N], '_', Id),
              functor(Action, Name, _),
              memberchk(Name, [start, link, disarm, settle, unlock]) ),
            [link|Steps]).

too_late(health, [answers(_, [failed(connection_refused)]), fails(_, disarm, not_confirmed_in_time), fails(_, stop, lock_lost)]).
too_late(confirm, [fails(_, confirm, lock_lost), fails(_, disarm, not_confirmed_in_time)]).
too_late(disarm, [fails(_, disarm, not_confirmed_in_time)]).

:- end_tests(confirming).
