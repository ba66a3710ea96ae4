:- module(modelled,
          [ declare_api/1,              % +Options
            undeclare_api/0,
            id/2,                       % +Sources, -Id
            host/2,                     % +State, -Facts
            planning_facts/3,           % +State, +Call, -Facts
            undo_events/3,              % +Plan, +Ids, -Events
            model/4,                    % +Operation, +Script, -Result, -Facts
            model/5,                    % +Operation, +Script, -Result, -Facts, -Events
            steps/2,                    % +Events, -Ids
            step_ids/2,                 % +Plan, -Ids
            whole/1                     % +Facts
          ]).

/** <module> The service `api` on one modelled host, `a.example`
*/

:- use_module(library(deployment_glue)).
:- use_module(library(deployment/model), [modelled_host/2]).
:- use_module(library(deployment/operations), [perform/4]).
:- use_module(library(deployment/releases), [release/5]).
:- use_module(library(lists), [append/3, member/2, memberchk/2, nth1/3]).

%!  declare_api(+Options:list) is det.
%
%   Options are the service's, beside its encrypted transport.

declare_api(Options) :-
    undeclare_api,
    declare_service(api, [transport(https)|Options]),
    declare_deploy_method(api, ssh, [host('a.example')]),
    declare_service_sources(api, ['*.py']).

undeclare_api :-
    undeclare_service(api).

%!  id(+Sources:atom, -Id:atom) is det.
%
%   Id is that of the release of `api` whose files hash to Sources.

id(Sources, Id) :-
    release(api, 'a.example', [], Sources, release(Id, _, _)).

%!  host(+State, -Facts:list) is det.
%
%   Facts of a host in State: `empty`, `running(Sources)` or `stopped(Sources)` where nothing came before, or
%   `running(Sources, Before)`, `stopped(Sources, Before)`, Before being the active release before and the rollback point.

host(empty, []).
host(running(S), [current(I), release(I), running(I), history(I)]) :-
    id(S, I).
host(stopped(S), [current(I), release(I), history(I)]) :-
    id(S, I).
host(running(S, B), [running(I)|Facts]) :-
    id(S, I),
    host(stopped(S, B), Facts).
host(stopped(S, B), [backup(J), current(I), release(J), release(I), history(J), history(I)]) :-
    id(S, I),
    id(B, J).

%!  model(+Operation, +Script, -Result, -Facts) is det.
%!  model(+Operation, +Script, -Result, -Facts, -Events) is det.
%
%   Operation is performed as Script has it; Facts are what that left on the host, but for the marks of bad releases
%   and what an operation was about to do.

model(Operation, Script, Result, Facts) :-
    model(Operation, Script, Result, Facts, _).

model(Operation0, Script, Result, Facts, Events) :-
    compound_name_arity(Operation0, Name, Arity),
    Before is Arity - 1,
    findall(Argument, ( between(1, Before, N), arg(N, Operation0, Argument) ), First),
    arg(Arity, Operation0, Options),
    append(First, [[backend(model(Script))|Options]], Arguments),
    Operation =.. [Name|Arguments],
    perform(none, Operation, Result, Events),
    modelled_host('a.example', Found),
    findall(Fact, ( member(Fact, Found), Fact \= bad(_), Fact \= intent(_, _, _, _, _, _) ), Facts).

%!  steps(+Events, -Ids:list) is det.
%
%   Ids are those of the steps that were begun, in order.

steps(Events, Ids) :-
    findall(Id, ( member(event(_, _, Id, _, _, _), Events), Id \== result ), Ids).

%!  step_ids(+Plan, -Ids:list) is det.

step_ids(Plan, Ids) :-
    findall(Id, member(step(Id, _, _, _), Plan), Ids).

%!  planning_facts(+State, +Call:list, -Facts) is det.
%
%   Facts are what deploy_plan/3 is given when `new` is to be deployed to a host in State.

planning_facts(State, Call, facts(api, 'a.example', Call, [sources(new, 1, 1)|Observed], Release)) :-
    host(State, Observed),
    release(api, 'a.example', [], new, Release).

%!  undo_events(+Plan, +Ids:list, -Events:list) is det.
%
%   Events are those of the hooks among Ids, steps that undid Plan, in order.

undo_events(Plan, Ids, Events) :-
    findall(Event,
            ( member(Id, Ids),
              member(step(Of, _, _, Undo), Plan),
              nth1(N, Undo, hook(Event, _, _)),
              atomic_list_concat([undo, Of, N], '_', Id) ),
            Events).

%!  whole(+Facts) is semidet.
%
%   The active release and the rollback point are there, and what runs is the active release.

whole(Facts) :-
    forall(( member(current(Id), Facts) ; member(backup(Id), Facts) ), memberchk(release(Id), Facts)),
    forall(member(running(Id), Facts), memberchk(current(Id), Facts)).
