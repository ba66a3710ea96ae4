:- module(test_health, []).
:- use_module(library(deployment/health)).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [append/3, memberchk/2, nth0/3, numlist/3]).
:- use_module(library(plunit)).
:- use_module(modelled).

% course(+Policy, +Judgements, -Verdict, -Pauses): Judgements in turn, the last for ever, with no time but the pauses.

course(Policy, Judgements, Verdict, Pauses) :-
    first_tally(Policy, Tally),
    course(Judgements, Policy, Tally, 0, Verdict, Pauses).

course([Judgement|More], Policy, Tally, Elapsed, Final, Pauses) :-
    verdict(Policy, Tally, Judgement, Elapsed, Verdict),
    (   Verdict = again(Pause, Next)
    ->  Pauses = [Pause|Rest],
        Later is Elapsed + Pause,
        ( More == [] -> Judgements = [Judgement] ; Judgements = More ),
        course(Judgements, Policy, Next, Later, Final, Rest)
    ;   Pauses = [],
        Final = Verdict
    ).

deploying(policy(deadline(30), growing(0.05, 1), 3, 1)).

prefix(N, List, Prefix) :-
    length(Prefix, N),
    append(Prefix, _, List).

asked(Kind, Call, Policy, Request, Expect) :-
    health_probe(api, 'a.example', Kind, Call, probe(Policy, Request, Expect)).

:- begin_tests(health_verdict).

test(a_right_answer_is_healthy_at_once, Verdict-Pauses == healthy-[]) :-
    deploying(Policy),
    course(Policy, [right], Verdict, Pauses).
test(refused_means_not_yet_until_the_deadline, Verdict == unhealthy(connection_refused)) :-
    deploying(Policy),
    course(Policy, [not_yet(connection_refused)], Verdict, Pauses),
    sum_list(Pauses, Waited),
    assertion(Waited =< 30),
    assertion(Waited > 29).
test(pauses_double_from_50_ms_to_a_second, First == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1]) :-
    deploying(Policy),
    course(Policy, [not_yet(connection_refused)], _, Pauses),
    prefix(7, Pauses, First).
test(refused_then_right_is_healthy, Verdict-N == healthy-4) :-
    deploying(Policy),
    N0 = [not_yet(r), not_yet(r), not_yet(r), not_yet(r)],
    append(N0, [right], Judgements),
    course(Policy, Judgements, Verdict, Pauses),
    length(Pauses, N).
test(three_wrong_answers_in_a_row_are_unhealthy, Verdict-N == unhealthy(status(503))-2) :-
    deploying(Policy),
    course(Policy, [wrong(status(500)), wrong(status(502)), wrong(status(503)), right], Verdict, Pauses),
    length(Pauses, N).
test(two_wrong_answers_are_not_enough, Verdict == healthy) :-
    deploying(Policy),
    course(Policy, [wrong(status(500)), wrong(status(500)), right], Verdict, _).
test(wrong_answers_count_in_a_row_only, Verdict == healthy) :-
    deploying(Policy),
    course(Policy, [wrong(a), wrong(a), not_yet(r), wrong(a), wrong(a), right], Verdict, _).
test(a_cancelled_check_ends_whatever_came_before, Verdict-N == cancelled-1) :-
    deploying(Policy),
    course(Policy, [wrong(a), cancelled], Verdict, Pauses),
    length(Pauses, N).
test(a_right_answer_after_the_deadline_still_counts, Verdict == healthy) :-
    deploying(Policy),
    first_tally(Policy, Tally),
    verdict(Policy, Tally, right, 31, Verdict).
test(no_pause_leads_beyond_the_deadline, Verdict == unhealthy(r)) :-
    first_tally(policy(deadline(10), every(2), any, 1), Tally),
    verdict(policy(deadline(10), every(2), any, 1), Tally, not_yet(r), 8.5, Verdict).
test(attempts_are_counted, Verdict-Pauses == unhealthy(status(500))-[2, 2]) :-
    course(policy(attempts(3), every(2), any, 1), [wrong(status(500))], Verdict, Pauses).
test(of_attempts_any_number_may_be_wrong, Verdict-Pauses == healthy-[2, 2, 2, 2]) :-
    course(policy(attempts(5), every(2), any, 1), [wrong(a), wrong(a), wrong(a), wrong(a), right], Verdict, Pauses).
test(several_successes_must_come_in_a_row, Verdict-N == healthy-5) :-
    course(policy(attempts(9), every(1), any, 3), [right, right, wrong(a), right, right, right], Verdict, Pauses),
    length(Pauses, N).
test(too_few_successes_are_unhealthy, Verdict == unhealthy(too_few_successes)) :-
    course(policy(attempts(3), every(1), any, 2), [right, wrong(a), right], Verdict, _).

:- end_tests(health_verdict).

:- begin_tests(health_judgement).

test(the_expected_status_is_right, J == right) :-
    judge(expect(200, none), answer(200, [], ""), J).
test(another_status_is_wrong, J == wrong(status(503))) :-
    judge(expect(200, none), answer(503, [], ""), J).
test(the_expected_status_need_not_be_200, J == right) :-
    judge(expect(204, none), answer(204, [], ""), J).
test(a_redirect_is_wrong_and_tells_where_to, J == wrong(redirect(301, "/login"))) :-
    judge(expect(200, none), answer(301, ["server"-"x", "location"-"/login"], ""), J).
test(the_expected_text_is_part_of_the_body, J == right) :-
    judge(expect(200, ok), answer(200, [], "all ok"), J).
test(a_body_without_the_expected_text_is_wrong, J == wrong(body_without(ok))) :-
    judge(expect(200, ok), answer(200, [], "all right"), J).
test(a_refused_connection_is_not_yet, J == not_yet(connection_refused)) :-
    judge(expect(200, none), failed(connection_refused), J).
test(other_failures_are_wrong, [forall(member(R, [timeout, unreachable(dns), host_key_mismatch])), J == wrong(R)]) :-
    judge(expect(200, none), failed(R), J).
test(cancelled_is_no_answer, J == cancelled) :-
    judge(expect(200, none), failed(cancelled), J).
test(what_is_assumed_is_right, J == right) :-
    judge(expect(200, ok), assumed, J).

:- end_tests(health_judgement).

:- begin_tests(health_request, [cleanup(undeclare_api)]).

test(a_deployment_asks_the_health_endpoint,
     asked(P, R, E) == asked(policy(deadline(30), growing(0.05, 1), 3, 1),
                             request(get, 'https://a.example:8080/health', [timeout(5), via(direct)]),
                             expect(200, none))) :-
    declare_api([]),
    asked(deploy, [], P, R, E).
test(a_deployments_deadline_is_declared, Deadline == 7) :-
    declare_api([healthy_deadline(7)]),
    asked(deploy, [], policy(deadline(Deadline), _, _, _), _, _).
test(run_health_check_has_its_defaults, Policy == policy(attempts(3), every(2), any, 1)) :-
    declare_api([]),
    asked(check, [], Policy, _, _).
test(run_health_check_takes_options,
     asked(P, R, E) == asked(policy(attempts(9), every(0.1), any, 2),
                             request(get, 'https://a.example:8080/ready',
                                     [timeout(1), via(direct), header('X-A', b), header('X-C', d), ca_file('/ca.pem')]),
                             expect(204, up))) :-
    declare_api([health_endpoint('/other')]),
    asked(check, [ retries(9), delay(0.1), timeout(1), endpoint('/ready'), expect_status(204), expect_body(up),
                   header('X-A', b), header('X-C', d), ca_file('/ca.pem'), successes(2) ], P, R, E).
test(wait_for_healthy_has_its_defaults_and_a_timeout_a_probe,
     Policy-Timeout == policy(deadline(60), every(2), any, 1)-5) :-
    declare_api([]),
    asked(wait, [], Policy, request(_, _, [timeout(Timeout)|_]), _).
test(the_timeout_of_wait_for_healthy_is_its_deadline, Policy-Timeout == policy(deadline(9), every(1), any, 1)-5) :-
    declare_api([]),
    asked(wait, [timeout(9), interval(1)], Policy, request(_, _, [timeout(Timeout)|_]), _).
test(the_endpoint_is_the_declared_one, Url == 'https://a.example:9000/up') :-
    declare_api([health_endpoint('/up'), port(9000)]),
    asked(check, [], _, request(_, Url, _), _).
test(a_host_has_its_own_port, Url == 'https://a.example:9001/health') :-
    declare_api([port(9000)]),
    declare_service_hosts(api, [host_config('a.example', [port(9001)])]),
    asked(check, [], _, request(_, Url, _), _).
test(over_ssh_the_loopback_of_the_target_is_asked, Url-Via == 'http://127.0.0.1:8080/health'-ssh) :-
    declare_api([]),
    declare_service(api, [transport(ssh)]),
    asked(deploy, [], _, request(_, Url, Options), _),
    memberchk(via(Via), Options).
test(a_declared_address_is_asked, Url == 'https://10.0.0.7:8080/health') :-
    declare_api([address('10.0.0.7')]),
    asked(deploy, [], _, request(_, Url, _), _).
test(an_ipv6_address_is_in_brackets, Url == 'https://[fd00::7]:8080/health') :-
    declare_api([address('fd00::7')]),
    asked(deploy, [], _, request(_, Url, _), _).
test(a_local_service_is_asked_directly, Url-Via == 'http://localhost:8080/health'-direct) :-
    declare_api([]),
    declare_service(api, [transport(ssh)]),
    declare_deploy_method(api, local, []),
    health_probe(api, localhost, deploy, [], probe(_, request(_, Url, Options), _)),
    memberchk(via(Via), Options).

:- end_tests(health_request).

:- begin_tests(health_in_time, [setup(declare_api([])), cleanup(undeclare_api)]).

test(run_health_check_is_healthy_at_the_first_right_answer, Result == healthy) :-
    model(run_health_check(api, []), [answers(_, [500, 500, 200])], Result, _).
test(run_health_check_gives_up_after_its_attempts, Result == unhealthy) :-
    model(run_health_check(api, [retries(2)]), [answers(_, [500, 500, 200])], Result, _).
test(wait_for_healthy_waits_for_a_service_that_comes_up, Result == healthy) :-
    length(Refused, 20),
    maplist(=(failed(connection_refused)), Refused),
    append(Refused, [200], Answers),
    model(wait_for_healthy(api, []), [answers(_, Answers)], Result, _).
test(wait_for_healthy_has_a_deadline, Result == unhealthy) :-
    length(Refused, 32),
    maplist(=(failed(connection_refused)), Refused),
    append(Refused, [200], Answers),
    model(wait_for_healthy(api, []), [answers(_, Answers)], Result, _).
test(every_probe_is_noted_in_the_events, Notes == [probe(Url, 500), probe(Url, connection_refused), probe(Url, 200)]) :-
    Url = 'https://a.example:8080/health',
    model(run_health_check(api, []), [answers(_, [500, failed(connection_refused), 200])], _, _, Events),
    memberchk(event(_, 'a.example', health, ok, _, Notes), Events).
test(a_cancelled_check_is_not_healthy, Result == unhealthy) :-
    model(run_health_check(api, []), [answers(_, [failed(cancelled), 200])], Result, _).
test(a_service_that_runs_and_does_not_answer_is_unhealthy, Status == unhealthy) :-
    host(running(old), Facts),
    model(service_status(api, health, []), [host(_, Facts), answers(_, [500])], Status, _).
test(a_service_that_does_not_run_is_stopped_and_not_asked, Status == stopped) :-
    host(stopped(old), Facts),
    model(service_status(api, health, []), [host(_, Facts)], Status, _).
test(a_running_process_is_running_whatever_it_answers, Status == running) :-
    host(running(old), Facts),
    model(service_status(api, process, []), [host(_, Facts), answers(_, [500])], Status, _).
test(a_host_that_can_not_be_reached_is_unreachable, Status == unreachable(timeout)) :-
    model(service_status(api, process, []), [fails(_, observe, timeout)], Status, _).

:- end_tests(health_in_time).
