:- module(deployment_nesting,
          [ nests_deeper/2              % +Text, +Limit
          ]).

/** <module> How deep the brackets of a term's text nest

Prolog's reader recurses in C for every open bracket. Inside another program it does not notice the end of the C stack, and that program crashes;
so the depth has to be known before a term is read.
*/

%!  nests_deeper(+Text, +Limit:integer) is semidet.
%
%   Text, of one term and without comments, has a place inside more than Limit brackets. With quasi-quotations, whose quotes mean nothing, it is
%   enough that there are more than Limit brackets.

nests_deeper(Text, Limit) :-
    split_string(Text, "([{", "", Parts),
    length(Parts, Count),
    Count - 1 > Limit,
    (   sub_atom(Text, _, _, _, '{|')
    ->  true
    ;   atom_codes(Text, Codes),
        deeper(Codes, other, 0, Limit)
    ).

%!  deeper(+Codes, +Before, +Depth, +Limit) is semidet.
%
%   Somewhere in Codes, which are outside quotes, the depth gets over Limit. Before is what the token before Codes is: `zero` (just a 0),
%   `number`, `word`, or `other`.

deeper(_, _, Depth, Limit) :-
    Depth > Limit,
    !.
deeper([Code|Codes], Before, Depth, Limit) :-
    step(Code, Before, Codes, Rest, After, Depth, Depth1),
    deeper(Rest, After, Depth1, Limit).

%!  step(+Code, +Before, +Codes, -Rest, -After, +Depth0, -Depth) is det.
%
%   Take Code, or the quoted text or character that it begins.

step(0'(, _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 + 1.
step(0'[, _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 + 1.
step(0'{, _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 + 1.
step(0'), _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 - 1.
step(0'], _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 - 1.
step(0'}, _, Codes, Codes, other, Depth0, Depth) :- !, Depth is Depth0 - 1.
step(0'', zero, Codes, Rest, other, Depth, Depth) :- !, after_character(Codes, Rest).
step(0'', number, Codes, Codes, number, Depth, Depth) :- !.
step(0'', _, Codes, Rest, other, Depth, Depth) :- !, after_quoted(Codes, 0'', Rest).
step(0'", _, Codes, Rest, other, Depth, Depth) :- !, after_quoted(Codes, 0'", Rest).
step(0'`, _, Codes, Rest, other, Depth, Depth) :- !, after_quoted(Codes, 0'`, Rest).
step(Code, Before, Codes, Codes, After, Depth, Depth) :- token(Code, Before, After).

%!  token(+Code, +Before, -After) is det.
%
%   What the token is, up to and with Code.

token(0'0, other, zero) :- !.
token(Code, other, number) :- Code >= 0'0, Code =< 0'9, !.
token(Code, other, word) :- code_type(Code, csym), !.
token(Code, zero, number) :- code_type(Code, csym), !.
token(Code, Before, Before) :- Before \== zero, code_type(Code, csym), !.
token(_, _, other).

%!  after_quoted(+Codes, +Quote, -Rest) is det.
%
%   Rest follows the Quote that ends Codes; that a doubled quote does not end them makes no difference.

after_quoted([], _, []).
after_quoted([Code|Codes], Quote, Rest) :-
    (   Code =:= Quote
    ->  Rest = Codes
    ;   Code =:= 0'\\,
        Codes = [_|Codes1]
    ->  after_quoted(Codes1, Quote, Rest)
    ;   after_quoted(Codes, Quote, Rest)
    ).

%!  after_character(+Codes, -Rest) is det.
%
%   Rest follows the character that Codes begin with, as it is written after `0'`.

after_character([0'\\, _|Rest], Rest) :- !.
after_character([0'', 0''|Rest], Rest) :- !.
after_character([_|Rest], Rest) :- !.
after_character([], []).
