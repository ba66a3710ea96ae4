:- module(deployment_fleet,
          [ on_hosts/4,                 % +Hosts, +Most, :Task, -Answers
            answer_results/3,           % +Hosts, +Answers, -Results
            answer_events/2,            % +Answers, -Events
            in_time_order/2             % +Events0, -Events
          ]).

/** <module> Hosts in parallel

An answer is `answer(Result, Events, Left)`: Left is what a modelled host is like, `left(Facts, Time)`, or `none`.
*/

:- autoload(library(apply), [maplist/3, maplist/4]).
:- autoload(library(lists), [append/2, member/2]).
:- autoload(library(pairs), [pairs_values/2, map_list_to_pairs/3]).
:- autoload(library(thread), [concurrent/3]).

:- meta_predicate on_hosts(+, +, 2, -).

%!  on_hosts(+Hosts:list, +Most:integer, :Task, -Answers:list) is det.
%
%   Calls `call(Task, Host, Answer)` for each of Hosts, in threads, Most at the same time, begun in their order.  An error in one
%   host's rules must not end the others half-way: the first is thrown when all are done.

on_hosts(Hosts, Most, Task, Answers) :-
    maplist(goal(Task), Hosts, Goals, Caught),
    in_parallel(Most, Goals),
    maplist(answered, Caught, Answers).

goal(Task, Host, deployment_fleet:caught(Task, Host, Caught), Caught).

caught(Task, Host, Caught) :-
    (   catch(call(Task, Host, Answer), Error, true)
    ->  ( nonvar(Error) -> Caught = thrown(Error) ; Caught = Answer )
    ;   Caught = thrown(error(system_error(failed(Task, Host)), _))
    ).

in_parallel(_, []) :- !.
in_parallel(_, [Goal]) :- !, call(Goal).
in_parallel(Most, Goals) :-
    length(Goals, N),
    Threads is min(N, Most),
    concurrent(Threads, Goals, []).

answered(thrown(Error), _) :- !, throw(Error).
answered(Answer, Answer).

%!  answer_results(+Hosts, +Answers, -Results:list) is det.
%
%   Results are `result(Host, Result)`.

answer_results(Hosts, Answers, Results) :-
    maplist([Host, answer(Result, _, _), result(Host, Result)]>>true, Hosts, Answers, Results).

%!  answer_events(+Answers, -Events:list) is det.

answer_events(Answers, Events) :-
    findall(Of, member(answer(_, Of, _), Answers), Lists),
    append(Lists, Events).

%!  in_time_order(+Events0:list, -Events:list) is det.

in_time_order(Events0, Events) :-
    map_list_to_pairs(arg(1), Events0, Pairs),
    keysort(Pairs, Sorted),
    pairs_values(Sorted, Events).
