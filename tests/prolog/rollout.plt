:- use_module(modelled).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/effects), [with_backend/3]).
:- use_module(library(deployment/gate), []).
:- use_module(library(deployment/locks), [with_lease/3]).
:- use_module(library(deployment/model), [modelled_host/2, modelled_lease/1]).
:- use_module(library(deployment/operations), [perform/4, good_result/1, result_kind/3]).
:- use_module(library(deployment/rollout), [rollout_batches/4]).
:- use_module(library(deployment/run), [run/3]).
:- use_module(library(deployment/spread), [spread_out/3]).

fleet(Names) :-
    fleet(Names, []).

fleet(Names, Zones) :-
    declare_api([]),
    findall(host_config(H, Options),
            ( member(H, Names), ( memberchk(H-Zone, Zones) -> Options = [zone(Zone)] ; Options = [] ) ),
            Configs),
    declare_service_hosts(api, Configs).

batches(Options, Batches) :-
    batches(Options, Batches, []).

batches(Options, Batches, Shared) :-
    declare_rollout(api, Options),
    findall(H, service_host(api, H, _), Hosts),
    rollout_batches(api, Hosts, Batches, Shared).

rolled(Options, Script, Statuses) :-
    rolled(Options, Script, Statuses, _).

rolled(Options, Script, Statuses, Events) :-
    declare_rollout(api, Options),
    perform(none, deploy_to_all_hosts(api, [backend(model([sources(new)|Script]))]), Results, Events),
    findall(Status, ( member(result(_, R), Results), short(R, Status) ), Statuses).

short(rolled_back_after_failure(_), failed) :- !.
short(R, R).

:- begin_tests(batches, [cleanup(undeclare_api)]).

test(all_at_once_by_default, B == [[a,b,c,d,e]]) :-
    fleet([a,b,c,d,e]), batches([], B).
test(a_canary_then_quarters, B == [[a],[b,c],[d,e],[f,g],[h]]) :-
    fleet([a,b,c,d,e,f,g,h]), batches([batches([1, '25%'])], B).
test(the_last_size_is_taken_again, B == [[a,b],[c],[d],[e]]) :-
    fleet([a,b,c,d,e]), batches([batches([2, 1])], B).
test(a_percentage_is_at_least_one_host, B == [[a],[b],[c]]) :-
    fleet([a,b,c]), batches([batches(['1%'])], B).
test(random_order_loses_nobody, Sorted == [a,b,c,d]) :-
    fleet([a,b,c,d]), batches([order(random)], [B]), msort(B, Sorted).
test(order_of_a_rule, [ setup(( assertz(deployment_user:rollout_order(api, c, 1)), assertz(deployment_user:rollout_order(api, a, 2)) )),
                        cleanup(abolish(deployment_user:rollout_order/3)),
                        true(B == [[c,a,b,d]]) ]) :-
    fleet([a,b,c,d]), batches([order(rule)], B).
test(a_rule_that_is_missing, error(existence_error(procedure, rollout_order/3))) :-
    fleet([a]), batches([order(rule)], _).
test(zones_are_kept_apart, B == [[a1,b1],[a2,b2]]) :-
    fleet([a1,a2,b1,b2], [a1-a,a2-a,b1-b,b2-b]), batches([batches([2]), spread(zone)], B).
test(the_canary_comes_from_the_zone_that_has_most, B == [[a1],[b1,a2,c1]]) :-
    fleet([b1,a1,a2,c1], [a1-a,a2-a,b1-b,c1-c]), batches([batches([1,3]), spread(zone)], B).
test(racks_are_kept_apart, B == [[a,b],[c]]) :-
    declare_api([]),
    declare_service_hosts(api, [host_config(a, [rack(r1)]), host_config(c, [rack(r1)]), host_config(b, [rack(r2)])]),
    batches([batches([2]), spread(rack)], B).
test(hosts_without_a_zone_share_none, B == [[a1,x],[a2,y]]) :-
    fleet([a1,a2,x,y], [a1-a,a2-a]), batches([batches([2]), spread(zone)], B).
test(what_cannot_be_avoided_is_told, Shared == [shared(1, a, [a1,a2])]) :-
    fleet([a1,a2,b1], [a1-a,a2-a,b1-b]), batches([spread(zone)], [[a1,a2,b1]], Shared).
test(spread_by_something_unknown, error(domain_error(host_option, zones), context(_, nearest(zone)))) :-
    declare_rollout(api, [spread(zones)]).
test(sizes_that_are_none, error(type_error(batch_sizes, batches(3)))) :-
    declare_rollout(api, [batches(3)]).
test(no_sizes, error(domain_error(batch_sizes, batches([])))) :-
    declare_rollout(api, [batches([])]).
test(more_than_all, error(domain_error(amount, max_unavailable('101%')))) :-
    declare_rollout(api, [max_unavailable('101%')]).
test(a_confirmation_that_could_not_come_in_time, error(domain_error(more_than_min_healthy_time, confirm_within(5)))) :-
    declare_rollout(api, [min_healthy_time(5), confirm_within(5)]).
test(undeclared_with_the_service, [fail]) :-
    fleet([a]), declare_rollout(api, []), undeclare_service(api), rollout_config(api, _).

% By counting all ways: batches are apart exactly when that is possible.

test(apart_whenever_possible, [forall(( member(Sizes, [[1,2,3],[3,3],[2,2,2],[1,1,4],[4,2]]), placed(Placed) ))]) :-
    spread_out(Placed, Sizes, Batches),
    findall(S, ( member(B, Batches), length(B, S) ), Sizes0),
    assertion(Sizes0 == Sizes),
    ( possible(Placed, Sizes) -> Expected = apart ; Expected = together ),
    ( maplist(apart, Batches) -> Found = apart ; Found = together ),
    assertion(Expected == Found).

placed([P1-1, P2-2, P3-3, P4-4, P5-5, P6-6]) :-
    member(P1-P2-P3-P4-P5-P6, [a-b-c-d-e-e, a-a-a-b-b-c, a-a-b-b-c-c, c-b-b-a-a-a, a-b-a-b-a-b, a-b-c-a-b-d, a-a-a-a-b-c]).

possible(_, []) :- !.
possible(Placed, [Size|Sizes]) :-
    length(Batch, Size),
    chosen(Batch, Placed, Rest),
    apart(Batch),
    possible(Rest, Sizes),
    !.

chosen([], Rest, Rest).
chosen([X|Xs], Placed, Rest) :-
    append(Before, [X|After], Placed),
    chosen(Xs, After, Later),
    append(Before, Later, Rest).

apart(Batch) :-
    findall(P, member(P-_, Batch), Ps),
    sort(Ps, Distinct),
    same_length(Ps, Distinct).

:- end_tests(batches).

:- begin_tests(rollouts, [cleanup(undeclare_api)]).

running(Host, host(Host, Facts)) :-
    host(running(old), Facts).

test(all_deployed, S == [deployed, deployed, deployed]) :-
    fleet([a,b,c]), rolled([batches([1])], [], S).
test(hosts_that_succeeded_go_back_when_one_fails, S == [rolled_back_with_fleet, failed, skipped(max_failures)]) :-
    fleet([a,b,c]), running(_, Old), rolled([batches([1])], [Old, answers(b, [500])], S),
    host(running(old), Facts),
    forall(member(H, [a,c]), ( modelled_host(H, Left), assertion(active(Left, Facts)) )).
test(what_had_nothing_before_has_nothing_after, Left-S == none-[rolled_back_with_fleet, failed]) :-
    fleet([a,b]), rolled([batches([1])], [answers(b, [500])], S),
    modelled_host(a, Facts),
    ( member(Fact, Facts), ( Fact = current(_) ; Fact = running(_) ) -> Left = Fact ; Left = none ).
test(stop_leaves_what_succeeded, S == [deployed, failed, skipped(max_failures)]) :-
    fleet([a,b,c]), rolled([batches([1]), on_failure(stop)], [answers(b, [500])], S).
test(continue_does_the_rest, S == [deployed, failed, deployed]) :-
    fleet([a,b,c]), rolled([batches([1]), on_failure(continue)], [answers(b, [500])], S).
test(a_failure_that_is_allowed, S == [deployed, failed, deployed]) :-
    fleet([a,b,c]), rolled([batches([1]), max_failures(1)], [answers(b, [500])], S).
test(one_more_than_allowed, S == [failed, failed, skipped(max_failures)]) :-
    fleet([a,b,c]), rolled([batches([1]), max_failures(1)], [answers(_, [500])], S).
test(within_a_batch_no_further_host_is_begun, S == [failed, skipped(max_failures), skipped(max_failures)]) :-
    fleet([a,b,c]), rolled([max_unavailable(1)], [answers(a, [500])], S).
test(what_was_left_without_its_service_counts_as_unavailable, S == [failed, skipped(max_unavailable)]) :-
    fleet([a,b]), running(_, Old),
    rolled([batches([1]), max_unavailable(1), on_failure(continue)], [Old, answers(a, [500]), fails(a, undo_start_3:stop, timeout)], S).
test(unchanged_hosts_stay_when_the_fleet_goes_back, S == [unchanged, rolled_back_with_fleet, failed]) :-
    fleet([a,b,c]), host(running(new), Facts),
    rolled([batches([1])], [host(a, Facts), answers(c, [500])], S).
test(hosts_of_a_rollout_go_back_by_themselves, Armed == [arm, arm]) :-
    fleet([a,b]), rolled([confirm_within(30)], [], [deployed, deployed], Events),
    findall(arm, member(event(_, _, arm, ok, _, _), Events), Armed).
test(healthy_for_a_time_in_a_row, S-T == [deployed]-true) :-
    fleet([a]), rolled([min_healthy_time(10)], [answers(a, [200])], S, Events),
    memberchk(event(_, a, health, ok, Seconds, Notes), Events),
    length(Notes, Probes),
    ( Seconds >= 10, Seconds < 12, Probes > 10 -> T = true ; T = Seconds-Probes ).
test(a_blip_begins_the_row_anew, S-T == [deployed]-true) :-
    fleet([a]), rolled([min_healthy_time(3)], [answers(a, [200,200,200,200,200,200,500,200])], S, Events),
    memberchk(event(_, a, health, ok, Seconds, _), Events),
    ( Seconds > 5 -> T = true ; T = Seconds ).
test(never_healthy_for_long_enough, S == [failed]) :-
    fleet([a]), rolled([min_healthy_time(3), healthy_deadline(4)], [answers(a, [200,200,500,200,200,500,200,200,500,200,200,500,200,200,500,200,200,500,200,200,500])], S).
test(the_pause_is_between_batches, Pause == true) :-
    fleet([a,b]), rolled([batches([1]), pause_between(100)], [], _, Events),
    memberchk(event(Ta, *, batch_1, _, _, _), Events), memberchk(event(Tb, *, batch_2, _, _, _), Events),
    ( Tb - Ta >= 100 -> Pause = true ; Pause = Tb-Ta ).
test(batches_are_told, N == 2) :-
    fleet([a,b]), rolled([batches([1])], [], _, Events),
    aggregate_all(count, member(event(_, *, _, ok, _, [hosts([_])]), Events), N).
test(one_host_by_name_is_no_rollout, R == [result(b, deployed)]) :-
    fleet([a,b]), declare_rollout(api, [batches([1])]),
    perform(none, deploy_to_all_hosts(api, [host(b), backend(model([sources(new)]))]), R, _).
test(two_names_of_this_machine_are_not_two_hosts, error(domain_error(port_of_its_own, port(_)), _)) :-
    fleet([localhost, '127.0.0.1']), rolled([], [], _).
test(kinds, K == [failed, failed, done]) :-
    maplist(result_kind(deploy_to_all_hosts), [rolled_back_with_fleet, skipped(cancelled), deployed], K).
test(a_fleet_that_went_back_is_not_good, [fail]) :-
    good_result([result(a, rolled_back_with_fleet)]).

active(Left, Facts) :-
    forall(( member(F, Facts), ( F = current(_) ; F = running(_) ) ), memberchk(F, Left)).

:- end_tests(rollouts).

:- begin_tests(gate, [cleanup(undeclare_api)]).

lock_of(Who, lock(other, held, '-', '0', '0', Who, '17', deploying)).

test(the_first_host_by_name_is_the_gate, Hosts == [a]) :-
    fleet([c,a,b]), rolled([], [], _, Events),
    findall(H, member(event(_, H, lock_fleet, ok, _, _), Events), Locked),
    findall(H, member(event(_, H, unlock_fleet, ok, _, _), Events), Hosts),
    assertion(Locked == [a]).
test(who_finds_it_taken_does_nothing_anywhere) :-
    lock_of(ann, Lock),
    fleet([a,b,c]), rolled([], [host(a, [Lock])], [First|Rest], Events),
    assertion(First == error(locked(ann, 17, deploying))),
    forall(member(R, Rest), assertion(memberchk(R, [First, skipped(max_failures)]))),
    forall(member(Step, [stage, switch, start]), assertion(\+ member(event(_, _, Step, _, _, _), Events))).
test(a_gate_that_cannot_be_reached_is_passed, S == [error(deployment_failed(unreachable(x))), deployed]) :-
    fleet([a,b]), rolled([on_failure(stop), max_failures(1)], [fails(a, observe, unreachable(x)), fails(a, lock, unreachable(x))], S, Events),
    assertion(memberchk(event(_, b, lock_fleet, ok, _, _), Events)).
test(a_gate_that_was_lost_leaves_no_lock) :-
    with_lease(t, context(api, a, target(ssh, a, []), '/d', 1, t), Context),
    with_backend(model([]), none,
                 ( run([step(lock_fleet, a, lock(1, any, any), [])], Context, report(completed, _, _)),
                   modelled_lease(a),
                   thread_create(true, Keeper),
                   repeat, thread_property(Keeper, status(true)), !,
                   deployment_gate:given_back(lost(a, Context, Keeper)),
                   \+ modelled_lease(a) )).
test(one_host_needs_no_gate, [fail]) :-
    fleet([a]), rolled([], [], _, Events), member(event(_, _, lock_fleet, _, _, _), Events).
test(nothing_to_do_takes_no_lock, [fail]) :-
    fleet([a,b]), host(running(new), Facts), rolled([], [host(_, Facts)], [unchanged, unchanged], Events),
    member(event(_, _, lock_fleet, _, _, _), Events).

:- end_tests(gate).
