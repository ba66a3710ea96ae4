:- module(deployment_nearest,
          [ nearest/3                   % +Name, +Candidates, -Nearest
          ]).
:- use_module(library(apply), [foldl/4]).

/** <module> The known name that a misspelled one was probably meant to be
*/

%!  nearest(+Name, +Candidates:list(atom), -Nearest:atom) is semidet.
%
%   Nearest is the candidate with the smallest edit distance to Name (an insertion, a deletion, a
%   replacement or a swap of two neighbours counts one; letter case is ignored). Fails when none is
%   close: about one edit in three characters is still close.

nearest(Name, Candidates, Nearest) :-
    atomic(Name),
    folded_codes(Name, Codes),
    length(Codes, Length),
    Limit is max(1, (Length + 1) // 3),
    foldl(nearer(Codes, Length), Candidates, none-(Limit + 1), Best-_),
    Best \== none,
    Nearest = Best.

%!  nearer(+Codes, +Length, +Candidate, +Best0, -Best) is det.
%
%   Best is whichever of Candidate and Best0 (`Name-Distance`) is nearer to Codes.

nearer(Codes, Length, Candidate, Best0-Bound, Best) :-
    folded_codes(Candidate, Other),
    length(Other, OtherLength),
    abs(OtherLength - Length) < Bound,
    edit_distance(Codes, Other, Distance),
    Distance < Bound,
    !,
    Best = Candidate-Distance,
    Best0 = _.
nearer(_, _, _, Best, Best).

%!  folded_codes(+Text, -Codes:list(integer)) is det.
%
%   Codes are those of Text in lower case.

folded_codes(Text, Codes) :-
    string_lower(Text, Lower),
    string_codes(Lower, Codes).

%!  edit_distance(+Codes1, +Codes2, -Distance:integer) is det.
%
%   Distance is the optimal string alignment distance, computed row by row.

edit_distance(Codes1, Codes2, Distance) :-
    length(Codes2, Length),
    numlist(0, Length, Row),
    rows(Codes1, none, 1, Codes2, none, Row, Distance).

%!  rows(+Codes1, +Previous, +Index, +Codes2, +RowBefore, +Row, -Distance) is det.
%
%   Previous is the code before those of Codes1; RowBefore the row above Row.

rows([], _, _, _, _, Row, Distance) :-
    last_of(Row, Distance).
rows([Code|Codes], Previous, Index, Codes2, Before, Row, Distance) :-
    swap_row(Before, Swaps),
    Row = [Corner|Above],
    cells(Codes2, none, Code, Previous, Swaps, Corner, Above, Index, Cells),
    Next is Index + 1,
    rows(Codes, Code, Next, Codes2, Row, [Index|Cells], Distance).

%!  swap_row(+RowBefore, -Swaps) is det.
%
%   Swaps are the costs from which a swap that ends in each cell starts.

swap_row(none, none).
swap_row([Cost|Costs], [none, Cost|Costs]).

%!  cells(+Codes2, +Before2, +Code, +Before1, +Swaps, +Corner, +Above, +Left, -Cells) is det.
%
%   Cells are the costs of one row from its second on.

cells([], _, _, _, _, _, _, _, []).
cells([Code2|Codes2], Before2, Code, Before1, Swaps, Corner, [Up|Above], Left, [Cell|Cells]) :-
    (   Code2 =:= Code
    ->  Replace = Corner
    ;   Replace is Corner + 1
    ),
    Cell0 is min(Replace, min(Up, Left) + 1),
    swapped(Swaps, Code, Before1, Code2, Before2, Cell0, Cell, Swaps1),
    cells(Codes2, Code2, Code, Before1, Swaps1, Up, Above, Cell, Cells).

%!  swapped(+Swaps, +Code1, +Before1, +Code2, +Before2, +Cost0, -Cost, -RestOfSwaps) is det.
%
%   Cost is Cost0, or less when the last two codes of both are each other's swap.

swapped([Swap|Swaps], Code, Before, Before, Code, Cost0, Cost, Swaps) :-
    integer(Swap),
    !,
    Cost is min(Cost0, Swap + 1).
swapped([_|Swaps], _, _, _, _, Cost, Cost, Swaps) :- !.
swapped(none, _, _, _, _, Cost, Cost, none).

%!  last_of(+List, -Last) is det.

last_of([Last], Last) :- !.
last_of([_|Rest], Last) :-
    last_of(Rest, Last).
