:- module(test_run, []).
:- use_module(library(deployment/run)).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/effects), [with_backend/3, effect/2, effect_row/2]).
:- use_module(library(deployment/model), [modelled_host/2]).
:- use_module(library(deployment/plan), [deploy_plan/3, rollback_plan/3, stop_plan/3]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(lists), [append/3, member/2, memberchk/2, subtract/3]).
:- use_module(library(plunit)).
:- use_module(modelled).

runs(Plan, Script, Verdict, Outcomes, Undone) :-
    with_backend(model(Script), none,
                 run(Plan, context(api, h, target(ssh, h, []), '/d', 1, t), report(Verdict0, Outcomes0, Undone0))),
    ( Verdict0 = failed(step(Id, _, _, _), Reason) -> Verdict = failed(Id, Reason) ; Verdict = Verdict0 ),
    maplist(brief, Outcomes0, Outcomes),
    maplist(brief, Undone0, Undone).

brief(done(step(Id, _, _, _), Result, _, _), Id-Result).

s(Id, Action, Undo, step(Id, h, Action, Undo)).

plan([Stage, Keep, Probe, Prune]) :-
    s(stage, stage(b, none, 1), [discard(b)], Stage),
    s(keep, link(backup, b), [link(backup, none), log_tail], Keep),
    s(ask, request(get, u, []), [signal('USR1')], Probe),
    s(prune, try(prune(3)), [], Prune).

:- begin_tests(run).

test(a_plan_is_done_in_its_order, V-O-U == completed-[stage-ok, keep-ok, ask-ok, prune-ok]-[]) :-
    plan(Plan),
    runs(Plan, [], V, O, U).
test(a_failure_ends_it_and_undoes_what_was_begun_the_latest_first,
     V-O-U == failed(ask, status(500))-[stage-ok, keep-ok, ask-failed(status(500))]
              -[undo_ask_1-ok, undo_keep_1-ok, undo_keep_2-ok, undo_stage_1-ok]) :-
    plan(Plan),
    runs(Plan, [answers(_, [500])], V, O, U).
test(what_was_not_begun_is_not_undone, U == [undo_stage_1-ok]) :-
    plan(Plan),
    runs(Plan, [fails(_, stage, no_space)], failed(stage, no_space), [stage-failed(no_space)], U).
test(an_unknown_outcome_is_undone, U == [undo_keep_1-ok, undo_keep_2-ok, undo_stage_1-ok]) :-
    plan(Plan),
    runs(Plan, [cut(_, keep:_, timeout)], failed(keep, timeout), _, U).
test(what_may_fail_ends_nothing, V == completed) :-
    plan(Plan),
    runs(Plan, [fails(_, prune, timeout)], V, O, _),
    assertion(memberchk(prune-failed(timeout), O)).
test(an_unknown_outcome_of_what_may_fail_ends_nothing, V == completed) :-
    plan(Plan),
    runs(Plan, [cut(_, prune, timeout)], V, O, _),
    assertion(memberchk(prune-unknown(timeout), O)).
test(undoing_goes_on_after_a_failure,
     U == [undo_ask_1-ok, undo_keep_1-failed(no_space), undo_keep_2-ok, undo_stage_1-failed(in_use)]) :-
    plan(Plan),
    runs(Plan, [answers(_, [500]), fails(_, undo_keep_1:_, no_space)], _, _, U).
test(what_undoing_did_not_come_to_has_failed,
     U == [undo_ask_1-unknown(timeout), undo_ask_2-failed(timeout), undo_stage_1-failed(timeout)]) :-
    plan([Stage|_]),
    s(ask, request(get, u, []), [signal('USR1'), request(get, v, [])], Ask),
    runs([Stage, Ask], [answers(_, [500]), cut(_, undo_ask_1:_, timeout)], _, _, U).
test(what_sets_a_state_is_undone_again_when_it_was_lost, U == [undo_two_1-ok, undo_one_1-ok]) :-
    s(one, link(backup, none), [link(backup, none)], One),
    s(two, drain(1), [signal('USR1')], Two),
    runs([One, Two], [fails(_, drain, timeout), cut_once(_, undo_two_1:_, timeout, after)], _, _, U).
test(hooks_of_an_event_stop_at_the_first_failure, O == [a-ok, b-failed(status(500)), d-ok]) :-
    s(a, try(hook(post_deploy, custom(x), command(x, 1))), [], A),
    s(b, try(hook(post_deploy, warm_cache, request(get, u, []))), [], B),
    s(c, try(hook(post_deploy, custom(x), command(x, 1))), [], C),
    s(d, try(hook(post_shutdown, custom(x), command(x, 1))), [], D),
    runs([A, B, C, D], [answers(_, [500])], completed, O, _).
test(every_step_is_an_event_with_its_time_and_result,
     Events == [event(5, h, one, ok, 0, []), event(5, h, two, failed(timeout), 0, [])]) :-
    s(one, link(backup, none), [], One),
    s(two, drain(1), [], Two),
    with_backend(model([at(5), fails(_, drain, timeout)]), none,
                 collect_events(run([One, Two], context(api, h, target(ssh, h, []), '/d', 1, t), _), Events)).

:- end_tests(run).

:- begin_tests(effects).

context(context(api, h, target(ssh, h, []), '/d', 1, t)).

dry(Effect, Outcome) :-
    with_backend(dry, none, effect(Effect, Outcome)).

test(every_effect_is_documented, Names == [balance, emit, ledger, now, probe, reconnect, remote, scan, seal, secrets, sleep]) :-
    findall(Name, ( effect_row(Effect, Text), string(Text), functor(Effect, Name, _) ), Names0),
    sort(Names0, Names).
test(a_dry_run_changes_nothing_and_says_so,
     Outcomes == [outcome(a, ok, [planned], none, none), outcome(b, ok, [planned], none, none)]) :-
    context(Context),
    dry(remote(Context, [do(a, must, link(current, x)), do(b, may, stop(1))]), Outcomes).
test(a_dry_run_assumes_what_it_can_not_ask, Outcome == assumed) :-
    dry(probe(target(ssh, h, []), request(get, u, [])), Outcome).
test(a_dry_run_does_not_wait, Outcome == done) :-
    get_time(Start),
    dry(sleep(5), Outcome),
    get_time(End),
    assertion(End - Start < 1).
test(a_dry_run_records_nothing, Rows == rows([])) :-
    dry(ledger(put(dry_service, h, '', deployed_hash, x)), done),
    dry(ledger(get(dry_service, deployed_hash)), Rows).
test(the_world_needs_the_package, [ condition(\+ predicate_property(deployment_effects:live_scan(_, _, _, _, _), foreign)),
                                    error(existence_error(deployment_effect, scan), _) ]) :-
    effect(scan('/', [], []), _).
test(the_backend_of_before_is_back, Backends == [assumed, answer(200, [], "")]) :-
    Probe = probe(target(ssh, h, []), request(get, u, [])),
    with_backend(model([]), none, ( with_backend(dry, none, effect(Probe, A)), effect(Probe, B) )),
    Backends = [A, B].
test(where_nothing_could_be_begun_the_first_step_that_had_to_succeed_failed,
     Results == [failed(timeout), failed(timeout), not_run, not_run]) :-
    Steps = [do(a, may, drain(1)), do(b, must, stop(1)), do(c, may, drain(1)), do(d, must, stop(1))],
    deployment_effects:remote_outcomes(failed(timeout), Steps, Outcomes),
    findall(R, member(outcome(_, R, _, _, _), Outcomes), Results).

:- end_tests(effects).

/*  Whatever step fails, or is lost with its outcome unknown: every operation, every state of a host, every step.  */

hooked_api :-
    declare_api([drain_signal('USR1'), shared_paths([data]), prepare_command(make), keep_releases(5)]),
    forall(member(Event, [ pre_deploy, post_deploy, pre_shutdown, post_shutdown, on_health_failure, pre_rollback,
                           post_rollback ]),
           declare_lifecycle_hook(api, Event, custom(Event))),
    declare_lifecycle_hook(api, post_deploy, health_check),
    declare_lifecycle_hook(api, pre_rollback, health_check).

state(State, Facts) :-
    member(State, [ empty, running(old), stopped(old), running(old, older), stopped(old, older), stopped(new),
                    running(new), running(old, new), stopped(new, old) ]),
    host(State, Facts).
state(three, [current(C), backup(B), running(C), release(A), release(B), release(C), history(A), history(B), history(C)]) :-
    maplist(id, [new, older, old], [A, B, C]).

changing(Flavour, Force, State, Facts, Operation, Plan) :-
    state(State, Facts),
    member(Flavour, [deploy_service, deploy_with_hooks, deploy_with_rollback]),
    member(Force, [false, true]),
    ( State = running(new) -> Force == true ; true ),
    planning_facts_of(Facts, [force(Force)], Known),
    deploy_plan(Flavour, Known, Plan),
    Operation =.. [Flavour, api, [force(Force)]].
changing(rollback, none, State, Facts, rollback_service(api, []), Plan) :-
    state(State, Facts),
    memberchk(backup(To), Facts),
    planning_facts_of(Facts, [], Known),
    rollback_plan(To, Known, Plan).

planning_facts_of(Facts, Call, facts(S, H, Call, [sources(new, 1, 1)|Facts], Release)) :-
    planning_facts(empty, Call, facts(S, H, _, _, Release)).

case(Case, Facts, Operation, [host(_, Facts), sources(new)|Trouble]) :-
    changing(Flavour, Force, State, Facts, Operation, Plan),
    step_ids(Plan, Ids),
    member(Id, [observe|Ids]),
    trouble(Id, Plan, Trouble),
    Case = case(Flavour, Force, State, Trouble).

trouble(Id, _, [cut('a.example', Id:_, timeout, Reached)]) :-
    member(Reached, [before, after, end]).
trouble(Id, Plan, [fails('a.example', Id:_, no_space)]) :-
    \+ memberchk(step(Id, _, try(_), _), Plan).
trouble(health, Plan, [answers(_, [500, 500, 500, 200])]) :-
    memberchk(step(health, _, _, _), Plan).

remote_only(Id, Plan) :-
    ( Id == observe ; member(step(Id, _, Action, _), Plan), \+ controllers(Action) ),
    !.

controllers(try(Action)) :- controllers(Action).
controllers(hook(_, _, Action)) :- controllers(Action).
controllers(probe(_, _, _)).
controllers(record(_)).

% Only what is compared: a first deployment may leave a release in the history that is no longer there.

decisive(Facts, Decisive) :-
    findall(Fact, ( member(Fact, Facts), \+ Fact = release(_), \+ gone(Fact, Facts) ), Decisive0),
    sort(Decisive0, Sorted),
    findall(history(Id), member(history(Id), Facts), History0),
    findall(H, ( member(H, History0), \+ gone(H, Facts) ), History),
    Decisive = Sorted/History.

gone(history(Id), Facts) :- \+ memberchk(release(Id), Facts).

good(deployed). good(deployed(_)). good(deployed_with_warnings(_)). good(rolled_back(_)).

:- begin_tests(run_exhaustively, [setup(hooked_api), cleanup(undeclare_api)]).

test(there_are_cases_enough, true(N > 1000)) :-
    aggregate_all(count, case(_, _, _, _), N).
test(whatever_is_lost_or_fails_the_host_is_whole, Broken == []) :-
    findall(Case-Result-Left,
            ( case(Case, _, Operation, Script),
              model(Operation, Script, Result, Left),
              \+ whole(Left) ),
            Broken).
test(what_did_not_succeed_is_as_before, Broken == []) :-
    findall(Case-Result-Before/After,
            ( case(Case, Facts, Operation, Script),
              model(Operation, Script, Result, Left),
              \+ good(Result),
              \+ Case = case(_, true, three, _),
              decisive(Facts, Before), decisive(Left, After),
              Before \== After ),
            Broken).
test(an_earlier_release_shipped_again_by_force_is_all_a_failure_takes, Broken == []) :-
    id(new, New),
    findall(Case-Result-Before/After,
            ( case(Case, Facts, Operation, Script),
              Case = case(_, true, three, _),
              model(Operation, Script, Result, Left),
              \+ good(Result),
              subtract(Facts, [history(New)], Facts1), subtract(Left, [history(New)], Left1),
              decisive(Facts1, Before), decisive(Left1, After),
              Before \== After ),
            Broken).
test(what_is_lost_is_no_success, Wrong == []) :-
    findall(Case-Result,
            ( case(Case, _, Operation, Script),
              Case = case(F, Force, S, [cut(_, Id:_, _, _)]),
              changing(F, Force, S, _, Operation, Plan),
              remote_only(Id, Plan),
              \+ memberchk(step(Id, _, try(_), _), Plan),
              model(Operation, Script, Result, _),
              good(Result) ),
            Wrong).
test(what_fails_is_no_success, Wrong == []) :-
    findall(Case-Result,
            ( case(Case, _, Operation, Script),
              Case = case(F, Force, S, [fails(_, Id:_, _)]),
              changing(F, Force, S, _, Operation, Plan),
              remote_only(Id, Plan),
              model(Operation, Script, Result, _),
              good(Result) ),
            Wrong).
test(nothing_lost_succeeds, Wrong == []) :-
    findall(F-Force-State-Result,
            ( changing(F, Force, State, Facts, Operation, _),
              model(Operation, [host(_, Facts), sources(new)], Result, Left),
              \+ ( good(Result), whole(Left), member(running(_), Left) ) ),
            Wrong).

restored(rolled_back_after_failure(rolled_back(_))).
restored(rolled_back_after_failure(error(no_rollback_available))).
restored(error(Failed)) :- Failed =.. [_, Reason], Reason \= not_restored(_, _).

% Lost again while it is undone: the host is whole as far as the undoing came, and the result says so.

lost_again(Case, Result, Facts, Left) :-
    lost_again(cut, Case, Result, Facts, Left).

lost_again(Cut, Case, Result, Facts, Left) :-
    changing(Flavour, false, State, Facts, Operation, Plan),
    memberchk(step(health, _, _, _), Plan),
    Trouble = answers(_, [500, 500, 500, 200]),
    Script0 = [host(_, Facts), sources(new), Trouble],
    model(Operation, Script0, _, _, Events),
    steps(Events, Ids),
    member(Id, Ids),
    sub_atom(Id, 0, _, _, undo_),
    member(Reached, [before, after, end]),
    Lost =.. [Cut, 'a.example', Id:_, timeout, Reached],
    model(Operation, [Lost|Script0], Result, Left),
    Case = case(Flavour, State, Id, Reached).

test(lost_again_while_undone_the_host_is_whole, Broken == []) :-
    findall(Case-Result-Left, ( lost_again(Case, Result, _, Left), \+ whole(Left) ), Broken).
test(lost_again_while_undone_is_not_called_restored_unless_it_is, Wrong == []) :-
    findall(Case-Result-Before/After,
            ( lost_again(Case, Result, Facts, Left),
              \+ Result = rolled_back_after_failure(error(rollback_failed(_))),
              \+ Result = error(rollback_failed(not_restored(_, _))),
              \+ Result = error(deployment_failed(not_restored(_, _))),
              decisive(Facts, Before), decisive(Left, After),
              Before \== After ),
            Wrong).
test(lost_once_while_undone_it_is_restored, Broken == []) :-
    findall(Case-Result-Before/After,
            ( lost_again(cut_once, Case, Result, Facts, Left),
              decisive(Facts, Before), decisive(Left, After),
              \+ ( restored(Result), Before == After ) ),
            Broken).
test(a_stop_that_is_lost_leaves_all_but_the_process, Broken == []) :-
    findall(Manner-State-Trouble-Left,
            ( state(State, Facts),
              member(Manner-Operation, [ stop-stop_service(api, []), graceful(30, 60)-graceful_stop(api, []),
                                         force(5)-force_stop_service(api, 5, []) ]),
              planning_facts_of(Facts, [], Known),
              stop_plan(Manner, Known, Plan),
              step_ids(Plan, Ids),
              member(Id, [observe|Ids]),
              trouble(Id, Plan, Trouble),
              model(Operation, [host(_, Facts)|Trouble], _, Left),
              \+ ( whole(Left),
                   subtract(Facts, [running(_)], Rest0), subtract(Left, [running(_)], Rest1),
                   msort(Rest0, R), msort(Rest1, R) ) ),
            Broken).

:- end_tests(run_exhaustively).
