:- module(deployment_intents,
          [ intended_plan/3,            % +Plan, +Facts, -Intended
            pending/2,                  % +Facts, -Intent
            settled/2                   % +Seen, -Observed
          ]).

/** <module> What an operation is about to do, written on the host

Before its first change of what is active or runs, an operation writes on the host what was there and what is to be; when
it is done or wholly undone, that is cleared.  Who comes later and finds it, and the operation over, knows what failure
goes back to.  It rides in scripts that run anyway.
*/

:- autoload(library(apply), [maplist/3, exclude/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2, subtract/3]).
:- use_module(plan, [observed/2, earlier/3, disarm_action/2]).
:- use_module(run, [working_step/1, acting_step/1]).

%!  intended_plan(+Plan, +Facts, -Intended) is det.
%
%   Intended is Plan with the intent written before its first acting step and cleared behind its last on the target.  A
%   plan that settles by itself is left as it is.

intended_plan(Plan, _, Plan) :-
    member(step(_, _, settle, _), Plan),
    !.
intended_plan(Plan, Facts, Intended) :-
    append(Before, [First|Rest0], Plan),
    acting_step(First),
    append(Steps, [Last|After], [First|Rest0]),
    working_step(Last),
    \+ ( member(Later, After), working_step(Later) ),
    !,
    Facts = facts(_, Host, _, _, _),
    intent(Plan, Facts, Intend),
    undoing(Plan, Facts, Undo),
    append(Steps, [Last, step(settle, Host, try(settle), [])|After], Rest),
    append(Before, [step(intend, Host, Intend, Undo)|Rest], Intended).
intended_plan(Plan, _, Plan).

%   A host that would go back by itself is kept from that last.

undoing(Plan, Facts, [Disarm, settle]) :-
    member(step(_, _, arm(_, _), _), Plan),
    !,
    disarm_action(Facts, Disarm).
undoing(_, _, [settle]).

%   What an earlier operation was to go back to, and did not come to, is still what was before.

intent(Plan, Facts, intend(Was, Backup, Ran, Goal, Wanted)) :-
    (   pending(Facts, intent(Was, Backup, Ran, _, _))
    ->  true
    ;   fact(current, Facts, Was),
        fact(backup, Facts, Backup),
        ran(Facts, Was, Ran)
    ),
    (   member(step(_, _, start(Id, _), _), Plan)
    ->  Goal = Id, Wanted = running
    ;   fact(current, Facts, Goal), Wanted = stopped
    ).

fact(Name, Facts, Id) :-
    Fact =.. [Name, Found],
    (   observed(Fact, Facts) -> Id = Found ; Id = none ).

%   Where only processes without their leader run, the active release is what should.

ran(Facts, Was, Ran) :-
    fact(running, Facts, Running),
    (   Running == none, observed(running(none), Facts) -> Ran = Was ; Ran = Running ).

%!  pending(+Facts, -Intent) is semidet.
%
%   Intent is `intent(Was, Backup, Ran, Goal, Wanted)` of an operation that did not come to its end, see `intent` in
%   deployment_plan.  Where somebody else made a third release active since, there is none.  A release that is
%   active, was never confirmed and has no intent is one that was to run.

pending(Facts, intent(Was, Backup, Ran, Goal, Wanted)) :-
    observed(intent(_, Was, Backup, Ran, Goal, Wanted), Facts),
    !,
    (   observed(found(Current, _), Facts) -> true ; fact(current, Facts, Current) ),
    memberchk(Current, [Was, Goal]).
pending(Facts, intent(Was, Backup, Was, Goal, running)) :-
    Facts = facts(_, _, _, Seen, _),
    unconfirmed(Seen, Goal, Was),
    (   Was == none
    ->  fact(backup, Facts, Backup)
    ;   earlier(Was, Facts, Backup)
    ).

unconfirmed(Seen, New, Old) :-
    memberchk(current(New), Seen),
    \+ memberchk(history(New), Seen),
    (   memberchk(backup(Backup), Seen),
        Backup \== New,
        memberchk(history(Backup), Seen)
    ->  Old = Backup
    ;   Old = none
    ).

%!  settled(+Seen:list, -Observed:list) is det.
%
%   Observed is what was seen on a host, but for what an operation left that did not come to its end: what was there before
%   still counts, so that it stays what failure goes back to.

settled(Seen, [unfinished(Current), found(Current, Found)|Observed]) :-
    Facts = facts(none, none, [], Seen, none),
    memberchk(intent(_, _, _, _, _, _), Seen),
    pending(Facts, intent(Was, Backup, Ran, _, _)),
    !,
    fact(current, Facts, Current),
    fact(backup, Facts, Found),
    exclude([Fact]>>( functor(Fact, Name, 1), memberchk(Name, [current, backup]) ), Seen, Others),
    findall(Fact, ( member(Name-Id, [current-Was, backup-Backup]), Id \== none, Fact =.. [Name, Id] ), Before),
    as_it_ran(Ran, Others, Running),
    append(Before, Running, Observed).
settled(Seen, [unfinished(New)|Observed]) :-
    unconfirmed(Seen, New, Old),
    !,
    (   Old == none -> subtract(Seen, [current(New)], Before) ; Before = Seen ),
    maplist(as_before(New, Old), Before, Observed).
settled(Seen, Seen).

%   What runs and did not before has to be stopped, and is not started again.

as_it_ran(none, Seen, [ran(none)|Seen]) :- !.
as_it_ran(Ran, Seen, [running(Ran)|Others]) :-
    exclude([Fact]>>functor(Fact, running, 1), Seen, Others).

as_before(New, Old, current(New), current(Old)) :- !.
as_before(New, Old, running(New), running(Old)) :- !.
as_before(_, _, Fact, Fact).
