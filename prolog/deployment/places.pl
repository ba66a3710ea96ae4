:- module(deployment_places,
          [ of_user/1,                  % +File
            clause_place/3,             % +Clause, -File, -Line
            with_place/3                % +Clause, +Module, -Kept
          ]).

/** <module> Where a rule stands that raises

A rule's frame is gone when its last goal runs, and with it the knowledge of where an error comes from.  The rules of
a user's files keep theirs where the last goal is a builtin that calls nothing back, for which nothing is lost.
*/

:- dynamic own_folder/1.     % Prefix of the paths of this library

:- prolog_load_context(directory, Deployment),
   file_directory_name(Deployment, Folder),
   atom_concat(Folder, '/', Own),
   retractall(own_folder(_)),
   assertz(own_folder(Own)).

%!  of_user(+File) is semidet.
%
%   File is part neither of Prolog nor of this library.

of_user(File) :-
    \+ ( of_others(Folder),
         sub_atom(File, 0, _, _, Folder) ).

of_others(Home) :-
    current_prolog_flag(home, Home).
of_others(Own) :-
    own_folder(Own).

%!  clause_place(+Clause, -File, -Line) is semidet.
%
%   Where a clause of the user's begins, by its reference.

clause_place(Clause, File, Line) :-
    clause_property(Clause, file(File)),
    !,
    of_user(File),
    clause_property(Clause, line_count(Line)).
clause_place(Clause, File, Line) :-
    place(Clause, File, Line),
    !.

%!  place(+Clause, -File, -Line) is semidet.
%
%   Hook: where a clause was read that Prolog did not load by itself.

:- multifile place/3.
:- dynamic place/3.

%!  with_place(+Clause, +Module, -Kept) is semidet.
%
%   Kept is the rule Clause of Module with `true` after each last goal that may raise and calls nothing back.  False
%   when there is none.

with_place((Head :- Body0), Module, (Head :- Body)) :-
    kept(Body0, Module, Body),
    Body0 \== Body.

kept(Goal, _, Goal) :-
    var(Goal),
    !.
kept((A, B0), Module, (A, B)) :-
    !,
    kept(B0, Module, B).
kept((A0 ; B0), Module, (A ; B)) :-
    !,
    kept(A0, Module, A),
    kept(B0, Module, B).
kept((A -> B0), Module, (A -> B)) :-
    !,
    kept(B0, Module, B).
kept((A *-> B0), Module, (A *-> B)) :-
    !,
    kept(B0, Module, B).
kept(Goal, Module, (Goal, true)) :-
    raises(Module:Goal),
    !.
kept(Goal, _, Goal).

%   A predicate of Prolog's or of this library, or one in C or Python.  Rules of the user's own may go on for ever.

raises(Module:Goal) :-
    callable(Goal),
    \+ compiled(Goal),
    (   predicate_property(system:Goal, defined)
    ->  true
    ;   predicate_property(Module:Goal, autoload(_))
    ->  true
    ;   predicate_property(Module:Goal, foreign)
    ->  true
    ;   predicate_property(Module:Goal, file(File)),
        \+ of_user(File)
    ),
    \+ ( predicate_property(Module:Goal, meta_predicate(Head)),
         arg(_, Head, Mode),
         calls(Mode) ).

%   What the compiler knows by itself.

compiled(true).
compiled(fail).
compiled(false).
compiled(!).
compiled(_=_).
compiled(_==_).
compiled(_\==_).
compiled(var(_)).
compiled(nonvar(_)).

calls(Mode) :- integer(Mode).
calls(^).
calls(//).
