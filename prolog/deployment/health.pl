:- module(deployment_health,
          [ health_probe/5,             % +Service, +Host, +Kind, +Call, -Action
            request_url/5,              % +Service, +Host, +Call, +Endpoint, -Url
            route/3,                    % +Service, +Host, -Route
            judge/3,                    % +Expect, +Answer, -Judgement
            first_tally/2,              % +Policy, -Tally
            verdict/5                   % +Policy, +Tally0, +Judgement, +Elapsed, -Verdict
          ]).

/** <module> Health: what to ask, what an answer means, when to ask again

A check is an action `probe(Policy, Request, Expect)`.

  - Policy is `policy(Limit, Pause, Wrong, Right)`: Limit is `deadline(Seconds)` or `attempts(N)`; Pause is
    `every(Seconds)` or `growing(From, To)`, doubling; that many Wrong answers in a row (or `any` number)
    mean unhealthy; that many Right ones in a row mean healthy, or, where Right is `for(Seconds)`, nothing but right
    ones for so long.
  - Request is `request(Method, Url, Options)`, see effect `probe`.
  - Expect is `expect(Status, Text)`: Text must be part of the body, unless it is `none`.
*/

:- autoload(library(lists), [member/2]).
:- use_module(declarations, [resolve/5, deploy_method_config/3]).
:- use_module(options, [lookup/3, default_option/3]).

%!  health_probe(+Service, +Host, +Kind, +Call, -Action) is det.
%
%   The check of Kind `deploy`, `check` (run_health_check/3) or `wait` (wait_for_healthy/3), with the
%   options of the call.

health_probe(Service, Host, Kind, Call, probe(Policy, request(get, Url, Options), expect(Status, Text))) :-
    policy(Kind, Service, Host, Call, Policy),
    scope(Kind, Scope),
    (   Kind \== deploy, lookup(endpoint, [Call], Endpoint)
    ->  true
    ;   resolve(Service, Host, Call, health_endpoint, Endpoint)
    ),
    request_url(Service, Host, Call, Endpoint, Url),
    route(Service, Host, Route),
    request_timeout(Kind, Call, Timeout),
    value(Scope, Call, expect_status, Status),
    (   lookup(expect_body, [Call], Text) -> true ; Text = none ),
    findall(Option, request_option(Call, Option), More),
    Options = [timeout(Timeout), via(Route)|More].

%   In wait_for_healthy/3, `timeout` is the deadline of the whole.

request_timeout(wait, _, Timeout) :-
    !,
    default_option(health_check, timeout, Timeout).
request_timeout(_, Call, Timeout) :-
    value(health_check, Call, timeout, Timeout).

scope(wait, wait) :- !.
scope(_, health_check).

request_option(Call, header(Name, Value)) :- member(header(Name, Value), Call).
request_option(Call, ca_file(File)) :- lookup(ca_file, [Call], File).

value(_, Call, Name, Value) :-
    lookup(Name, [Call], Value),
    !.
value(Scope, _, Name, Value) :-
    default_option(Scope, Name, Value).

%   A deployment's process is given until its deadline; refused connections mean "not yet".

policy(deploy, Service, Host, Call, policy(deadline(Deadline), growing(0.05, 1), 3, Right)) :-
    resolve(Service, Host, Call, healthy_deadline, Seconds),
    (   lookup(min_healthy_time, [Call], Lasting),
        Lasting > 0
    ->  Deadline is Seconds + Lasting,
        Right = for(Lasting)
    ;   Deadline = Seconds,
        Right = 1
    ).
policy(check, _, _, Call, policy(attempts(Retries), every(Delay), any, Successes)) :-
    value(health_check, Call, retries, Retries),
    value(health_check, Call, delay, Delay),
    value(health_check, Call, successes, Successes).
policy(wait, _, _, Call, policy(deadline(Timeout), every(Interval), any, Successes)) :-
    value(wait, Call, timeout, Timeout),
    value(wait, Call, interval, Interval),
    value(wait, Call, successes, Successes).

%!  request_url(+Service, +Host, +Call, +Endpoint, -Url:atom) is det.
%
%   Where the service answers: at its `address`, else on the target's loopback when the request goes
%   through SSH, else at the host's own name.

request_url(Service, Host, Call, Endpoint, Url) :-
    scheme(Service, Host, Scheme),
    resolve(Service, Host, Call, port, Port),
    address(Service, Host, Address),
    (   sub_atom(Address, _, _, _, :)
    ->  format(atom(Url), '~w://[~w]:~w~w', [Scheme, Address, Port, Endpoint])
    ;   format(atom(Url), '~w://~w:~w~w', [Scheme, Address, Port, Endpoint])
    ).

scheme(Service, Host, https) :-
    resolve(Service, Host, [], transport, https),
    !.
scheme(_, _, http).

address(Service, Host, Address) :-
    resolve(Service, Host, [], address, Address),
    !.
address(Service, Host, '127.0.0.1') :-
    route(Service, Host, ssh),
    !.
address(_, Host, Host).

%!  route(+Service, +Host, -Route) is det.
%
%   `ssh` when the service's transport is SSH on a remote target, else `direct`.

route(Service, Host, ssh) :-
    resolve(Service, Host, [], transport, ssh),
    deploy_method_config(Service, ssh, _),
    !.
route(_, _, direct).

%!  judge(+Expect, +Answer, -Judgement) is det.
%
%   Judgement is `right`, `wrong(Why)`, `not_yet(Why)` or `cancelled`.

judge(_, assumed, right) :- !.
judge(expect(Status, Text), answer(Status, _, Body), Judgement) :-
    !,
    (   ( Text == none ; sub_string(Body, _, _, _, Text) )
    ->  Judgement = right
    ;   Judgement = wrong(body_without(Text))
    ).
judge(_, answer(Status, Headers, _), wrong(redirect(Status, Location))) :-
    member("location"-Location, Headers),
    !.
judge(_, answer(Status, _, _), wrong(status(Status))) :- !.
judge(_, failed(cancelled), cancelled) :- !.
judge(_, failed(connection_refused), not_yet(connection_refused)) :- !.
judge(_, failed(Reason), wrong(Reason)).

%!  first_tally(+Policy, -Tally) is det.
%
%   Tally is `tally(Asked, WrongInARow, RightInARow, NextPause, RightSince)`.

first_tally(policy(_, Growth, _, _), tally(0, 0, 0, Pause, none)) :-
    arg(1, Growth, Pause).

%!  verdict(+Policy, +Tally0, +Judgement, +Elapsed:number, -Verdict) is det.
%
%   Verdict is `healthy`, `unhealthy(Why)`, `cancelled` or `again(Pause, Tally)`: to be asked again after
%   Pause seconds.

verdict(_, _, cancelled, _, cancelled) :- !.
verdict(Policy, Tally0, Judgement, Elapsed, Verdict) :-
    count(Judgement, Tally0, tally(Asked, Wrong, Right, Pause0, Since0)),
    right_since(Right, Since0, Elapsed, Since),
    Policy = policy(Limit, Growth, MaxWrong, Enough),
    (   enough(Enough, Right, Since, Elapsed)
    ->  Verdict = healthy
    ;   ( Wrong == MaxWrong ; over(Limit, Asked, Elapsed, Pause0) )
    ->  why(Judgement, Why),
        Verdict = unhealthy(Why)
    ;   grown(Growth, Pause0, Pause),
        Verdict = again(Pause0, tally(Asked, Wrong, Right, Pause, Since))
    ).

count(right, tally(A0, _, R0, P, S), tally(A, 0, R, P, S)) :- A is A0 + 1, R is R0 + 1.
count(wrong(_), tally(A0, W0, _, P, S), tally(A, W, 0, P, S)) :- A is A0 + 1, W is W0 + 1.
count(not_yet(_), tally(A0, _, _, P, S), tally(A, 0, 0, P, S)) :- A is A0 + 1.

right_since(0, _, _, none) :- !.
right_since(1, _, Elapsed, Elapsed) :- !.
right_since(_, Since, _, Since).

enough(for(Seconds), Right, Since, Elapsed) :- !, Right > 0, Elapsed - Since >= Seconds.
enough(N, Right, _, _) :- Right >= N.

over(attempts(N), Asked, _, _) :- Asked >= N.
over(deadline(Seconds), _, Elapsed, Pause) :- Elapsed + Pause > Seconds.

why(right, too_few_successes).
why(wrong(Why), Why).
why(not_yet(Why), Why).

grown(every(Pause), _, Pause).
grown(growing(_, Most), Pause0, Pause) :- Pause is min(Most, Pause0 * 2).
