:- module(deployment_sealing,
          [ seal_secrets/2              % +Term0, -Term
          ]).

/** <module> Taking secret values out of what is declared

This comes before every check, whose errors would show the value.
*/

:- autoload(library(apply), [maplist/3]).
:- use_module(effects, [effect/2]).

%!  seal_secrets(+Term0, -Term) is det.
%
%   Term is Term0 with `secret(sealed(Token))` for each `secret(Value)`, and `secret(refused)` where Value is neither text,
%   a number nor a source: `env(Variable)`, the environment of who deploys; `command(Command)`, what that prints there
%   without the line ends behind it; `sealed(Token)`.

seal_secrets(Term0, Term) :-
    (   acyclic_term(Term0)
    ->  seal_terms(Term0, Term)
    ;   Term = Term0
    ).

seal_terms(Term, Term) :-
    \+ compound(Term),
    !.
seal_terms(secret(Value), Term) :-
    !,
    sealed(Value, Sealed),
    Term = secret(Sealed).
seal_terms(Term0, Term) :-
    compound_name_arguments(Term0, Name, Arguments0),
    maplist(seal_terms, Arguments0, Arguments),
    compound_name_arguments(Term, Name, Arguments).

%!  sealed(+Value, -Source) is det.

sealed(Value, Value) :-
    var(Value),
    !.
sealed(Value, Source) :-
    atomic(Value),
    Value \== [],
    !,
    format(string(Text), '~w', [Value]),
    effect(seal(Text), Source).
sealed(env(Variable), Source) :-
    atomic(Variable),
    Variable \== [],
    !,
    effect(seal(env(Variable)), _),
    Source = env(Variable).
sealed(Source, Source) :-
    compound_name_arguments(Source, Kind, [_]),
    memberchk(Kind, [env, command, sealed]),
    !.
sealed(_, refused).
