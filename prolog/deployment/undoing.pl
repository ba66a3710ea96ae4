:- module(deployment_undoing,
          [ undo_steps/2,               % +Reversed, -Steps
            left_undone/4               % +Verdict, +Steps, +Begun, -Left
          ]).

/** <module> The way back of an operation that failed

Each step says how it is undone; see deployment_plan.  What was done is a list of `done(Step, Result, Notes, Seconds)`, see run/3.
*/

:- autoload(library(lists), [append/3, last/2, member/2, memberchk/2]).

%!  undo_steps(+Reversed, -Steps) is det.
%
%   Steps undo what was done, Reversed, newest first.  What sets a state, unlike a hook, can be done `again` when the
%   connection was lost over it: their fourth argument says so.  When it stays unknown, undoing ends: what comes next builds on it.

undo_steps(Reversed, Steps) :-
    undoing_steps(Reversed, Undoing),
    findall(Step, undone_first(Reversed, Undoing, Step), First),
    append(First, Undoing, Steps).

%   Who has no lock touches nothing.  What is undone is not finished by who finds it.

undone_first(Reversed, _, step(regain, Host, try(regain(Seconds)), again)) :-
    Reversed = [_, _|_],
    last(Reversed, done(step(_, Host, lock(_, _, _), _), Result, _, _)),
    Result \= failed(_),
    (   member(done(step(intend, _, _, Undo), _, _, _), Reversed), memberchk(disarm(Seconds0), Undo)
    ->  Seconds = Seconds0
    ;   Seconds = 0
    ).
undone_first(Reversed, Undoing, step(turn_back, Host, try(intend(Was, Backup, Ran, Goal, back)), again)) :-
    memberchk(done(step(intend, Host, intend(Was, Backup, Ran, Goal, _), _), _, _, _), Reversed),
    once(( member(step(_, _, try(Action), _), Undoing),
           functor(Action, Name, _),
           memberchk(Name, [link, start, stop, commit]) )).

undoing_steps(Reversed, Steps) :-
    findall(step(Id, Host, try(Action), Again),
            ( member(done(step(Of, Host, _, Undo), Result, _, _), Reversed),
              nth_action(Undo, N, Action0),
              undone(Action0, Result, Action1),
              ( without_service(Action1, Reversed, Action) -> true ; Action = Action1 ),
              atomic_list_concat([undo, Of, N], '_', Id),
              ( Action = hook(_, _, _) -> Again = [] ; Again = again ) ),
            Steps).

undone(if_unhealthy(Action), Result, Action) :- !, Result = failed(unhealthy(_)).
undone(Action, _, Action).

%   What stays stopped, or may, gets no requests.

without_service(balance(Balancer, Server, ready(_)), Reversed, balance(Balancer, Server, kept_out)) :-
    member(done(step(stop, _, _, []), Result, _, _), Reversed),
    Result \= failed(_),
    !.

nth_action(Actions, N, Action) :-
    append(Before, [Action|_], Actions),
    length(Before, N0),
    N is N0 + 1.

%!  left_undone(+Verdict, +Steps, +Begun, -Left) is det.
%
%   When undoing ends early, what of Steps it did not come to has failed for the same reason.

left_undone(completed, _, _, []).
left_undone(failed(_, Reason), Steps, Begun, Left) :-
    findall(done(Step, failed(Reason), [], 0),
            ( member(Step, Steps), \+ memberchk(done(Step, _, _, _), Begun) ),
            Left).
