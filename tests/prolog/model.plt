:- module(test_model, []).
:- use_module(library(deployment/model)).
:- use_module(library(apply), [maplist/2]).
:- use_module(library(lists), [member/2]).
:- use_module(library(plunit)).

acts(Script, Steps, Results, Facts) :-
    start_model(Script),
    model_effect(remote(context(api, h, none, '/d', 1, t), Steps), Outcomes),
    findall(R, member(outcome(_, R, _, _, _), Outcomes), Results),
    modelled_host(h, Facts).

asks(Script, N, Answers) :-
    start_model(Script),
    length(Answers, N),
    maplist(asked, Answers).

asked(Answer) :-
    model_effect(probe(target(ssh, h, []), request(get, u, [])), Answer0),
    (   Answer0 = answer(Status, _, _)
    ->  Answer = Status
    ;   Answer = Answer0
    ).

deployment([do(stage, must, stage(b, none, 1)), do(switch, must, link(current, b)), do(start, must, start(b, 1))]).

active(a, [current(a), release(a), running(a), history(a)]).

:- begin_tests(model).

test(at_first_there_is_nothing, Facts == []) :-
    acts([], [do(o, must, observe)], [ok], Facts).
test(a_host_is_as_the_script_has_it, Facts == [current(a), release(a), running(a), history(a)]) :-
    active(a, Host),
    acts([host(h, Host)], [do(o, must, observe)], [ok], Facts).
test(actions_change_it, Facts == [current(b), release(b), running(b)]) :-
    deployment(Steps),
    acts([], Steps, [ok, ok, ok], Facts).
test(only_a_release_that_is_there_is_linked_and_started, Results-Facts == [failed(not_deployed), failed(not_deployed)]-[]) :-
    acts([], [do(l, may, link(current, b)), do(s, may, start(b, 1))], Results, Facts).
test(nothing_starts_beside_what_runs, Results == [ok, failed(already_running(a))]) :-
    active(a, Host),
    acts([host(h, Host)], [do(t, must, stage(b, none, 1)), do(s, must, start(b, 1))], Results, _).
test(starting_what_runs_is_done, Results == [ok]) :-
    active(a, Host),
    acts([host(h, Host)], [do(s, must, start(a, 1))], Results, _).
test(what_fails_changes_nothing_and_ends_the_script, Results-Facts == [ok, failed(no_space), not_run]-[release(b)]) :-
    deployment(Steps),
    acts([fails(h, link, no_space)], Steps, Results, Facts).
test(a_failure_may_be_that_of_one_step, Results == [ok, failed(no_space)]) :-
    acts([fails(h, two:stop, no_space)], [do(one, must, stop(1)), do(two, must, stop(1))], Results, _).
test(a_failure_may_be_that_of_one_host, Results == [ok]) :-
    acts([fails(other, stop, no_space)], [do(one, must, stop(1))], Results, _).
test(after_a_cut_nothing_is_known, Results == [ok, unknown(timeout), unknown(timeout)]) :-
    deployment(Steps),
    acts([cut(h, link, timeout)], Steps, Results, _).
test(a_cut_reaches_as_far_as_the_script_has_it,
     [forall(member(Reached-Facts0, [ before-[release(b)], after-[current(b), release(b)],
                                      end-[current(b), release(b), running(b)] ])),
      Facts == Facts0]) :-
    deployment(Steps),
    acts([cut(h, link, timeout, Reached)], Steps, _, Facts).
test(a_cut_is_after_the_action_when_nothing_is_said, Facts == [current(b), release(b)]) :-
    deployment(Steps),
    acts([cut(_, link, timeout)], Steps, _, Facts).
test(committing_an_earlier_release_takes_the_later_off, Facts == [history(a), history(b)]) :-
    acts([host(h, [history(a), history(b), history(c)])], [do(c, must, commit(b))], _, Facts).
test(answers_come_in_turn_and_the_last_stays, Answers == [500, failed(timeout), 200, 200]) :-
    asks([answers(_, [500, failed(timeout), 200])], 4, Answers).
test(without_answers_all_is_well, Answers == [200, 200]) :-
    asks([], 2, Answers).
test(time_passes_only_in_sleep, Times == [10, 12.5]) :-
    start_model([at(10)]),
    model_effect(now, T1),
    model_effect(sleep(2.5), done),
    model_effect(now, T2),
    Times = [T1, T2].

:- end_tests(model).
