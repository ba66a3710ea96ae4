:- module(test_plan, []).
:- use_module(library(deployment/plan)).
:- use_module(library(deployment/releases), [hash_of_id/2]).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [append/3, member/2, memberchk/2, reverse/2]).
:- use_module(library(plunit)).
:- use_module(modelled).

planned(Flavour, State, Plan) :-
    planned(Flavour, State, [], Plan).

planned(Flavour, State, Call, Plan) :-
    planning_facts(State, Call, Facts),
    deploy_plan(Flavour, Facts, Plan).

rollback_planned(State, To, Plan) :-
    planning_facts(State, [], Facts),
    id(To, Id),
    rollback_plan(Id, Facts, Plan).

stop_planned(Manner, State, Plan) :-
    planning_facts(State, [], Facts),
    stop_plan(Manner, Facts, Plan).

% The undoing of a plan that failed in its last step: names of actions in order, a link with what it names.

undoing(Plan, Names) :-
    reverse(Plan, Reversed),
    findall(Name, ( member(step(_, _, _, Undo), Reversed), member(Action, Undo), named(Action, Name) ), Names).

named(link(Link, Id), link(Link, Sources)) :- !, ( id(Sources0, Id, Known), Known == true -> Sources = Sources0 ; Sources = Id ).
named(start(Id, _), start(Sources)) :- !, id(Sources, Id, _).
named(confirm(Id), confirm(Sources)) :- !, id(Sources, Id, _).
named(commit(Id), commit(Sources)) :- !, id(Sources, Id, _).
named(discard(Id), discard(Sources)) :- !, id(Sources, Id, _).
named(hook(Event, _, _), hook(Event)) :- !.
named(if_unhealthy(Action), if_unhealthy(Name)) :- !, named(Action, Name).
named(mark_bad(Id), mark_bad(Sources)) :- !, id(Sources, Id, _).
named(Action, Name) :- functor(Action, Name, _).

id(Sources, Id, true) :-
    member(Sources, [new, old, older]),
    id(Sources, Id),
    !.

hooked(Options) :-
    declare_api(Options),
    forall(member(Event, [ pre_deploy, post_deploy, pre_shutdown, post_shutdown, on_health_failure, pre_rollback,
                           post_rollback ]),
           declare_lifecycle_hook(api, Event, custom(Event))).

% On what the release is built that is staged where this was observed beside the running one.

staged_on(Seen, Base) :-
    planning_facts(running(old), [], facts(S, H, C, Observed0, Release)),
    append(Seen, Observed0, Observed),
    deploy_plan(deploy_with_rollback, facts(S, H, C, Observed, Release), Plan),
    memberchk(step(stage, _, stage(_, release(_, _, _, _, Base), _), _), Plan).

:- begin_tests(plan_order, [cleanup(undeclare_api)]).

test(of_a_plain_first_deployment, Ids == [stage, switch, start, confirm, commit, prune, record]) :-
    declare_api([]),
    planned(deploy_service, empty, Plan),
    step_ids(Plan, Ids).
test(of_a_plain_deployment,
     Ids == [stage, keep, drain, stop, switch, start, confirm, commit, prune, record]) :-
    hooked([]),
    planned(deploy_service, running(old), Plan),
    step_ids(Plan, Ids).
test(of_a_deployment_with_hooks,
     Ids == [ stage, keep, pre_shutdown_1, drain, stop, post_shutdown_1, switch, start, confirm, post_deploy_1, commit,
              prune, record ]) :-
    hooked([]),
    planned(deploy_with_hooks, running(old), Plan),
    step_ids(Plan, Ids).
test(of_a_deployment_with_rollback,
     Ids == [ stage, keep, pre_shutdown_1, drain, stop, post_shutdown_1, switch, start, health, confirm, post_deploy_1,
              commit, prune, record ]) :-
    hooked([]),
    planned(deploy_with_rollback, running(old), Plan),
    step_ids(Plan, Ids).
test(everything_declared_has_its_place,
     Ids == [ stage, share, prepare, keep, pre_shutdown_1, tell, drain, stop, post_shutdown_1, switch, start, health, confirm,
              post_deploy_1, commit, prune, record ]) :-
    hooked([shared_paths([data]), prepare_command(make), drain_signal('USR1')]),
    planned(deploy_with_rollback, running(old), Plan),
    step_ids(Plan, Ids).
test(a_stopped_service_is_neither_drained_nor_stopped, Ids == [stage, keep, switch, start, health, confirm, commit, prune, record]) :-
    hooked([]),
    declare_service(api, [transport(https)]),
    planned(deploy_with_rollback, stopped(old), Plan0),
    findall(S, ( member(S, Plan0), \+ S = step(_, _, try(hook(_, _, _)), _) ), Plan),
    step_ids(Plan, Ids).
test(the_active_release_that_is_stopped_is_only_started, Ids == [start, health, confirm, commit, prune, record]) :-
    declare_api([]),
    planned(deploy_with_rollback, stopped(new), Plan),
    step_ids(Plan, Ids).
test(the_rollback_point_that_is_there_is_recorded_whatever_was_active, [forall(member(State, [stopped(new, old), running(old, older)]))]) :-
    planning_facts(State, [], Facts),
    deploy_plan(deploy_with_rollback, Facts, Plan),
    id(old, Old),
    hash_of_id(Old, Hash),
    memberchk(step(record, _, try(record(Pairs)), []), Plan),
    assertion(memberchk(rollback_hash-Hash, Pairs)).
test(the_active_release_is_restarted_when_forced, Ids == [drain, stop, start, health, confirm, commit, prune, record]) :-
    declare_api([]),
    planned(deploy_with_rollback, running(new), [force(true)], Plan),
    step_ids(Plan, Ids).
test(the_rollback_point_is_verified_and_not_shipped_again,
     Ids == [verify, keep, drain, stop, switch, start, health, confirm, commit, prune, record]) :-
    declare_api([prepare_command(make)]),
    planned(deploy_with_rollback, running(old, new), Plan),
    step_ids(Plan, Ids).
test(a_kept_release_that_was_active_is_verified_and_not_shipped_again, Id == verify) :-
    declare_api([prepare_command(make)]),
    planning_facts(running(old), [], facts(S, H, C, Observed, release(New, Hash, Files))),
    deploy_plan(deploy_with_rollback,
                facts(S, H, C, [release(New), history(New)|Observed], release(New, Hash, Files)),
                [step(Id, _, _, _)|_]).
test(a_release_that_was_never_active_is_shipped_again, Id == stage) :-
    declare_api([]),
    planning_facts(running(old), [], facts(S, H, C, Observed, release(New, Hash, Files))),
    deploy_plan(deploy_with_rollback, facts(S, H, C, [release(New)|Observed], release(New, Hash, Files)),
                [step(Id, _, _, _)|_]).
test(the_rollback_point_is_shipped_again_when_forced, Id == stage) :-
    declare_api([]),
    planned(deploy_with_rollback, running(old, new), [force(true)], [step(Id, _, _, _)|_]).
test(without_an_observed_manifest_everything_is_shipped, Base == none) :-
    declare_api([]),
    staged_on([], Base).
test(what_is_unchanged_is_copied_from_the_release_whose_manifest_was_observed, Base == base(r1, d1, copy, t1)) :-
    declare_api([]),
    staged_on([manifest(r1, d1, t1)], Base).
test(what_is_unchanged_is_linked_where_that_is_declared, Base == base(r1, d1, link, t1)) :-
    declare_api([]),
    declare_deploy_method(api, ssh, [link_unchanged(true)]),
    staged_on([manifest(r1, d1, t1)], Base).
test(a_preparation_may_write_and_gets_copies, Base == base(r1, d1, copy, t1)) :-
    declare_api([prepare_command(make)]),
    declare_deploy_method(api, ssh, [link_unchanged(true)]),
    staged_on([manifest(r1, d1, t1)], Base).
test(of_a_rollback,
     Ids == [ pre_rollback_1, pre_shutdown_1, drain, stop, post_shutdown_1, switch, keep, start, health, confirm, commit,
              post_rollback_1, record ]) :-
    hooked([]),
    rollback_planned(running(old, older), older, Plan),
    step_ids(Plan, Ids).
test(of_a_stop, Ids == [pre_shutdown_1, stop, post_shutdown_1]) :-
    hooked([]),
    stop_planned(stop, running(old), Plan),
    step_ids(Plan, Ids).
test(of_a_graceful_stop, Ids == [pre_shutdown_1, tell, drain, stop, post_shutdown_1]) :-
    hooked([drain_signal('USR1')]),
    stop_planned(graceful(30, 60), running(old), Plan),
    step_ids(Plan, Ids).
test(of_a_forced_stop, Plan == [step(stop, 'a.example', stop(5), [])]) :-
    hooked([]),
    stop_planned(force(5), running(old), Plan).
test(of_a_start, Ids == [start, confirm]) :-
    declare_api([]),
    planning_facts(stopped(old), [], Facts),
    start_plan(Facts, Plan),
    step_ids(Plan, Ids).
test(without_a_release_nothing_is_started, Plan == []) :-
    declare_api([]),
    planning_facts(empty, [], Facts),
    start_plan(Facts, Plan).
test(what_does_not_run_is_not_drained, Plan == []) :-
    declare_api([drain_signal('USR1')]),
    planning_facts(stopped(old), [], Facts),
    drain_plan(30, Facts, Plan).
test(pre_deploy_hooks_come_after_the_look_and_before_the_scan, Ids == [observe, pre_deploy_1, scan]) :-
    hooked([]),
    survey_plan(deploy_with_rollback, api, 'a.example', Plan),
    step_ids(Plan, Ids).
test(a_plain_deployment_runs_no_hooks_in_its_survey, Ids == [observe, scan]) :-
    hooked([]),
    survey_plan(deploy_service, api, 'a.example', Plan),
    step_ids(Plan, Ids).
test(the_rollback_point_is_the_active_release) :-
    declare_api([]),
    planned(deploy_with_rollback, running(old, older), Plan),
    id(old, Old), id(older, Older),
    memberchk(step(keep, _, link(backup, To), [link(backup, Back)]), Plan),
    assertion(To-Back == Old-Older).
test(a_plain_deployment_asks_nobody, fail) :-
    declare_api([]),
    planned(deploy_service, running(old), Plan),
    member(step(_, _, probe(_, _, _), _), Plan).
test(an_old_release_is_asked_at_its_own_port, Url == 'https://a.example:7001/health') :-
    declare_api([]),
    planning_facts(running(old), [], facts(S, H, C, Observed, R)),
    id(old, Old),
    deploy_plan(deploy_with_rollback, facts(S, H, C, [port(Old, '7001')|Observed], R), Plan),
    memberchk(step(stop, _, _, Undo), Plan),
    memberchk(probe(_, request(_, Url, _), _), Undo).

:- end_tests(plan_order).

:- begin_tests(plan_undo, [cleanup(undeclare_api)]).

test(of_a_first_deployment, Names == [if_unhealthy(mark_bad(new)), log_tail, stop, link(current, none), discard(new)]) :-
    declare_api([]),
    planned(deploy_with_rollback, empty, Plan),
    undoing(Plan, Names).
test(of_a_deployment,
     Names == [ commit(old), if_unhealthy(mark_bad(new)), log_tail, stop, link(current, old), start(old), probe,
                confirm(old), link(backup, none), discard(new) ]) :-
    declare_api([]),
    planned(deploy_with_rollback, running(old), Plan),
    undoing(Plan, Names).
test(of_a_deployment_without_a_check,
     Names == [ commit(old), log_tail, stop, link(current, old), start(old), confirm(old), link(backup, older),
                discard(new) ]) :-
    hooked([]),
    planned(deploy_service, running(old, older), Plan),
    undoing(Plan, Names).
test(of_a_deployment_with_hooks_and_check,
     Names == [ commit(old), if_unhealthy(mark_bad(new)), log_tail, hook(on_health_failure), hook(pre_rollback), stop,
                link(current, old), start(old), probe, confirm(old), hook(post_rollback), link(backup, older),
                discard(new) ]) :-
    hooked([]),
    planned(deploy_with_rollback, running(old, older), Plan),
    undoing(Plan, Names).
test(what_did_not_run_is_not_started, fail) :-
    declare_api([]),
    planned(deploy_with_rollback, stopped(old, older), Plan),
    undoing(Plan, Names),
    member(start(_), Names).
test(of_the_rollback_point_deployed_again_keeps_it, fail) :-
    declare_api([]),
    planned(deploy_with_rollback, running(old, new), [force(true)], Plan),
    undoing(Plan, Names),
    member(discard(_), Names).
test(of_a_rollback,
     Names == [ commit(old), log_tail, hook(on_health_failure), stop, link(backup, older), link(current, old), start(old),
                probe, confirm(old), hook(post_rollback) ]) :-
    hooked([]),
    rollback_planned(running(old, older), older, Plan),
    undoing(Plan, Names).
test(stopping_is_not_undone, [forall(member(Manner, [stop, graceful(1, 2), force(1)])), Names == []]) :-
    hooked([]),
    stop_planned(Manner, running(old), Plan),
    undoing(Plan, Names).
test(a_start_that_fails_leaves_nothing_running, Names == [log_tail, stop]) :-
    declare_api([]),
    planning_facts(stopped(old), [], Facts),
    start_plan(Facts, Plan),
    undoing(Plan, Names).

:- end_tests(plan_undo).

:- begin_tests(plan_tolerance, [cleanup(undeclare_api)]).

mode(Flavour, Event, Hook, Mode) :-
    declare_api([]),
    declare_lifecycle_hook(api, Event, Hook),
    planned(Flavour, running(old), Plan),
    atom_concat(Event, '_1', Id),
    memberchk(step(Id, _, Action, _), Plan),
    ( Action = try(_) -> Mode = may_fail ; Mode = must_succeed ).

test(a_custom_hook_after_the_deployment_may_fail, [forall(member(F, [deploy_with_hooks, deploy_with_rollback])), Mode == may_fail]) :-
    mode(F, post_deploy, custom(x), Mode).
test(a_health_check_after_a_deployment_with_rollback_must_succeed, Mode == must_succeed) :-
    mode(deploy_with_rollback, post_deploy, health_check, Mode).
test(a_health_check_that_runs_once_must_succeed_too, Mode == must_succeed) :-
    mode(deploy_with_rollback, post_deploy, run_once(health_check), Mode).
test(a_health_check_after_a_deployment_with_hooks_may_fail, Mode == may_fail) :-
    mode(deploy_with_hooks, post_deploy, health_check, Mode).
test(a_hook_before_the_shutdown_must_succeed, Mode == must_succeed) :-
    mode(deploy_with_rollback, pre_shutdown, custom(x), Mode).
test(a_hook_after_the_shutdown_may_fail, Mode == may_fail) :-
    mode(deploy_with_rollback, post_shutdown, custom(x), Mode).
test(on_the_way_back_every_hook_may_fail, [forall(member(E, [pre_rollback, pre_shutdown, post_shutdown, post_rollback])), fail]) :-
    hooked([]),
    rollback_planned(running(old, older), older, Plan),
    member(step(_, _, hook(E, _, _), _), Plan).

:- end_tests(plan_tolerance).
