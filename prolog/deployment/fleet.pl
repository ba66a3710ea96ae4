:- module(deployment_fleet,
          [ on_hosts/4,                 % +Hosts, +Most, :Task, -Answers
            answer_results/3,           % +Hosts, +Answers, -Results
            answer_events/2,            % +Answers, -Events
            in_time_order/2             % +Events0, -Events
          ]).

/** <module> Hosts in parallel

An answer is `answer(Result, Events, Left)`: Left is what a modelled run has left, see modelled_left/1, or `none`.
*/

:- autoload(library(apply), [maplist/3, maplist/4]).
:- autoload(library(lists), [append/2, member/2]).
:- autoload(library(pairs), [pairs_values/2, map_list_to_pairs/3]).
:- autoload(library(thread), [concurrent/3]).
:- use_module(effects, [backend_setting/3, with_backend/3, in_phase/2]).

:- meta_predicate on_hosts(+, +, 2, -).

%!  on_hosts(+Hosts:list, +Most:integer, :Task, -Answers:list) is det.
%
%   Calls `call(Task, Host, Answer)` for each of Hosts, or of whatever tells one, in threads with this one's effects, Most at the same time, begun in their
%   order.  An error in one host's rules must not end the others half-way: the first is thrown when all are done.

on_hosts([], _, _, []) :- !.
on_hosts([Host], _, Task, [Answer]) :-
    !,
    caught(Task, Host, Caught),
    answered(Caught, Answer).
on_hosts(Hosts, Most, Task, Answers) :-
    backend_setting(Backend, Run, Phase),
    maplist(goal(setting(Backend, Run, Phase), Task), Hosts, Goals, Caughts),
    length(Hosts, N),
    Threads is min(N, Most),
    concurrent(Threads, Goals, []),
    maplist(answered, Caughts, Answers).

goal(Setting, Task, Host, deployment_fleet:in_thread(Setting, Task, Host, Caught), Caught).

in_thread(setting(Backend, Run, Phase), Task, Host, Caught) :-
    with_backend(Backend, Run, in_phase(Phase, caught(Task, Host, Caught))).

caught(Task, Host, Caught) :-
    (   catch(call(Task, Host, Answer), Error, true)
    ->  ( nonvar(Error) -> Caught = thrown(Error) ; Caught = Answer )
    ;   Caught = thrown(error(system_error(failed(Task, Host)), _))
    ).

answered(thrown(Error), _) :- !, throw(Error).
answered(Answer, Answer).

%!  answer_results(+Hosts, +Answers, -Results:list) is det.
%
%   Results are `result(Host, Result)`.

answer_results(Hosts, Answers, Results) :-
    maplist(answer_result, Hosts, Answers, Results).

answer_result(Host, answer(Result, _, _), result(Host, Result)).

%!  answer_events(+Answers, -Events:list) is det.

answer_events(Answers, Events) :-
    findall(Of, member(answer(_, Of, _), Answers), Lists),
    append(Lists, Events).

%!  in_time_order(+Events0:list, -Events:list) is det.

in_time_order(Events0, Events) :-
    map_list_to_pairs(arg(1), Events0, Pairs),
    keysort(Pairs, Sorted),
    pairs_values(Sorted, Events).
