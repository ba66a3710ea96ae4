:- module(test_locks, []).
:- use_module(library(deployment/controllers), [controller/2]).
:- use_module(library(deployment/locks)).
:- use_module(library(deployment/operations)).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [member/2, memberchk/2, nth1/3]).
:- use_module(library(plunit)).
:- use_module(library(deployment/model), [modelled_lease/1]).
:- use_module(modelled).

% A deployment of `new` to a host where `old` runs and Lock is held, with these options.

deploys(Lock, Call, Result, Ids) :-
    host(running(old), Facts),
    model(deploy_with_rollback(api, Call), [host(_, [Lock|Facts]), sources(new)], Result, _, Events),
    steps(Events, Ids).

of_another(State, lock(other, State, 'another/pid:[1]', '1', '1', 'alice%20a@laptop', '1700000000', deployment)).

% A lock of this very process, by a token that no operation has.

of_this_process(Lock) :-
    controller(deployment, Words),
    atomic_list_concat([Machine, Pid, Born, Owner, Since, Purpose], ' ', Words),
    Lock = lock(other, held, Machine, Pid, Born, Owner, Since, Purpose).

:- begin_tests(locks, [setup(declare_api([])), cleanup(undeclare_api)]).

test(who_holds_it_is_told_and_nothing_is_begun,
     Result-Ids == error(locked('alice a@laptop', 1700000000, deployment))-[observe]) :-
    of_another(held, Lock),
    deploys(Lock, [], Result, Ids).
test(what_has_run_out_is_taken_over, Result == deployed) :-
    of_another(expired, Lock),
    deploys(Lock, [], Result, Ids),
    once(nth1(2, Ids, take_over)).
test(what_this_process_could_not_give_back_is_taken_over, Result == deployed) :-
    of_this_process(Lock),
    deploys(Lock, [], Result, _).
test(what_this_process_still_does_is_not, [setup(assertz(deployment_locks:at_work(other))),
                                           cleanup(retract(deployment_locks:at_work(other)))]) :-
    of_this_process(Lock),
    deploys(Lock, [], error(locked(_, _, _)), _).
test(a_process_that_has_ended_is_succeeded, Result == deployed) :-
    of_this_process(lock(Token, State, Machine, Pid, _, Owner, Since, Purpose)),
    deploys(lock(Token, State, Machine, Pid, '1', Owner, Since, Purpose), [], Result, _).
test(who_has_ended_and_took_it_late_is_succeeded, Result == error(changed_meanwhile)) :-
    of_this_process(lock(_, _, Machine, Pid, _, Owner, Since, Purpose)),
    Held = held(Machine, Pid, '1', Owner, Since, Purpose),
    deployment_locks:lock_refusal(report(failed(step(lock, h, lock(30, none, none), []), Held), [], []), Result).
test(waiting_ends, Seen-Result == 3-error(locked('alice a@laptop', 1700000000, deployment))) :-
    of_another(held, Lock),
    deploys(Lock, [lock_wait(1.5)], Result, Ids),
    findall(x, member(observe, Ids), Times),
    length(Times, Seen).
test(hooks_are_not_run_before_it_is_free, [setup(declare_lifecycle_hook(api, pre_deploy, custom("true"))),
                                           cleanup(declare_api([])),
                                           true(Hooked == [])]) :-
    of_another(held, Lock),
    deploys(Lock, [lock_wait(1.5)], error(locked(_, _, _)), Ids),
    findall(Id, ( member(Id, Ids), sub_atom(Id, 0, _, _, pre_deploy) ), Hooked).
test(every_operation_is_refused, [forall(member(Operation, [rollback_service(api, []), stop_service(api, []), start_service(api, []),
                                                            graceful_stop(api, []), force_stop_service(api, 1, []),
                                                            restart_service(api, [])])),
                                  true(Result == error(locked('alice a@laptop', 1700000000, deployment)))]) :-
    of_another(held, Lock),
    host(running(new, old), Facts),
    model(Operation, [host(_, [Lock|Facts]), sources(new)], Result, _, _).
test(the_lease_is_around_all_that_changes_the_host, First-Last == lock-unlock) :-
    Plan0 = [ step(health, h, probe(a, b, c), []), step(stop, h, stop(1), []), step(prune, h, try(prune(2)), []),
              step(record, none, record([]), []) ],
    leased_plan(own, Plan0, facts(api, h, [], [current(x)], none), Plan),
    Plan = [step(First, h, lock(60, x, none), [unlock]), _, step(intend, h, _, [settle]), _, _, step(settle, h, _, []), step(Last, h, try(unlock), []), step(record, _, _, _)].
test(it_is_given_back_whatever_step_fails, [forall(member(Step, [lock, stage, keep, drain, stop, switch, start, confirm, commit,
                                                                 prune])), true(Failed-Leased == yes-no)]) :-
    host(running(old), Facts),
    model(deploy_with_rollback(api, []), [fails(_, Step:_, no_space), host(_, Facts), sources(new)], _, _, Events),
    ( memberchk(event(_, _, Step, failed(no_space), _, _), Events) -> Failed = yes ; Failed = no ),
    ( modelled_lease('a.example') -> Leased = yes ; Leased = no ).
test(what_was_cut_off_keeps_it) :-
    host(running(old), Facts),
    model(deploy_with_rollback(api, []), [cut(_, start, timeout, before), cut(_, unlock, timeout, before), host(_, Facts),
                                          sources(new)], _, _),
    modelled_lease('a.example').
test(what_only_looks_takes_no_lease, Plan == Plan0) :-
    Plan0 = [step(health, h, probe(a, b, c), [])],
    leased_plan(own, Plan0, facts(api, h, [], [], none), Plan).
test(a_lease_lasts_as_long_as_a_release_may_take_beside, Seconds == 45) :-
    declare_service(api, [healthy_deadline(40)]),
    leased_plan(own, [step(stop, h, stop(1), [])], facts(api, h, [lease(5)], [], none), [step(_, _, lock(Seconds, none, none), _)|_]).

test(what_is_taken_by_hand_is_given_back_by_whom_it_may_be, Result == unlocked) :-
    by_hand(Lock),
    asks(unlock_service(api, []), Lock, Result).
test(what_an_operation_holds_is_not_given_back_by_hand, Result == error(locked('alice a@laptop', 1700000000, deployment))) :-
    of_another(held, Lock),
    asks(unlock_service(api, []), Lock, Result).
test(what_has_run_out_is_given_back_by_hand, Result == unlocked) :-
    of_another(expired, Lock),
    asks(unlock_service(api, []), Lock, Result).
test(state, [forall(member(State-Result, [held-locked('alice a@laptop', 1700000000, deployment), expired-unlocked])),
             true(Told == Result)]) :-
    of_another(State, Lock),
    asks(lock_status(api, []), Lock, Told).
test(taken_by_hand_it_is_held, Result == locked('alice a@laptop', 1700000000, 'moving house')) :-
    by_hand(Lock),
    asks(lock_status(api, []), Lock, Result).
test(taken_by_hand_and_lost_it_is_given_back, [forall(member(Reached, [before, after])), true(Result == error(lock_failed(timeout)))]) :-
    host(running(old), Facts),
    model(lock_service(api, []), [host(_, Facts), cut(_, lock, timeout, Reached)], Result, _, _),
    assertion(\+ modelled_lease('a.example')).
test(nobody_takes_what_is_held, Result == error(locked('alice a@laptop', 1700000000, deployment))) :-
    of_another(held, Lock),
    asks(lock_service(api, [reason(moving)]), Lock, Result).

by_hand(lock('by-hand-1', held, -, '0', '0', 'alice%20a@laptop', '1700000000', 'moving%20house')).

asks(Operation, Lock, Result) :-
    host(running(old), Facts),
    model(Operation, [host(_, [Lock|Facts])], Result, _, _).

:- end_tests(locks).
