:- module(deployment_spread,
          [ spread_out/3                % +Placed, +Sizes, -Batches
          ]).

/** <module> Batches in which no two share a place

Hosts of one place are kept apart wherever batches of the given sizes allow it, and otherwise stay as they come, as far as
that is so.  Whether it is possible is asked as Ryser does of a matrix of zeros and ones with given sums (H. J. Ryser, Combinatorial
Mathematics, 1963): it is when each batch, the largest first, can take a host of each of those places that have most left.
*/

:- autoload(library(apply), [exclude/3, maplist/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2, selectchk/3]).
:- autoload(library(pairs), [pairs_keys/2]).

%!  spread_out(+Placed:list, +Sizes:list(integer), -Batches:list(list)) is det.
%
%   Placed are `Place-Host` in order, Sizes sum up to their number; Batches hold them.

spread_out(Placed, Sizes, Batches) :-
    pairs_keys(Placed, Places),
    length(Places, Count),
    sort(Places, Distinct),
    (   length(Distinct, Count)
    ->  in_order(Sizes, Placed, Batches)
    ;   apart(Sizes, Placed, Batches)
    ).

in_order([], [], []).
in_order([Size|Sizes], Placed, [Batch|Batches]) :-
    length(Batch, Size),
    append(Batch, Rest, Placed),
    in_order(Sizes, Rest, Batches).

apart([], [], []).
apart([Size|Sizes], Placed, [Batch|Batches]) :-
    counts(Placed, Counts),
    (   chosen(Counts, Size, Sizes, Counts, [], Places)
    ->  true
    ;   evenly(Size, Counts, Places)
    ),
    taken(Places, Placed, Unordered, Rest),
    as_they_come(Placed, Unordered, Batch),
    apart(Sizes, Rest, Batches).

%   counts(+Placed, -Counts): Counts are `Place-Count`, in order of first occurrence.

counts([], []).
counts([Place-_|Placed], [Place-Count|Counts]) :-
    exclude([Other-_]>>(Other == Place), Placed, Others),
    length(Placed, All),
    length(Others, Left),
    Count is All - Left + 1,
    counts(Others, Counts).

%!  chosen(+Candidates, +Size, +Later, +Counts, +Chosen0, -Chosen) is semidet.
%
%   Size distinct places, the first possible ones, such that batches of the sizes Later can be made of the rest.  Fails where
%   there are none.

chosen(_, Size, Later, Counts, Chosen, Chosen) :-
    length(Chosen, Size),
    !,
    possible(Chosen, 0, Counts, Later).
chosen([Place-_|Candidates], Size, Later, Counts, Chosen0, Chosen) :-
    length(Chosen0, Have),
    Open is Size - Have - 1,
    (   possible([Place|Chosen0], Open, Counts, Later)
    ->  chosen(Candidates, Size, Later, Counts, [Place|Chosen0], Chosen)
    ;   chosen(Candidates, Size, Later, Counts, Chosen0, Chosen)
    ).

%   With one host of each of these Places and of Open others.

possible(Places, Open, Counts, Later) :-
    maplist(one_less(Places), Counts, Marked),
    findall(N, member(taken(N), Marked), Taken),
    findall(N, member(free(N), Marked), Free0),
    sort(0, @>=, Free0, Free),
    take(Open, Free, Left),
    append(Taken, Left, All),
    sort(0, @>=, Later, Sizes),
    feasible(Sizes, All).

one_less(Places, Place-Count, Marked) :-
    (   memberchk(Place, Places)
    ->  Fewer is Count - 1,
        Marked = taken(Fewer)
    ;   Marked = free(Count)
    ).

feasible([], _).
feasible([Size|Sizes], Counts0) :-
    sort(0, @>=, Counts0, Counts1),
    take(Size, Counts1, Counts),
    feasible(Sizes, Counts).

%   take(+N, +Counts0, -Counts) is semidet: one off each of the first N, which are positive.

take(0, Counts, Counts) :- !.
take(N, [Count0|Counts0], [Count|Counts]) :-
    Count0 > 0,
    Count is Count0 - 1,
    M is N - 1,
    take(M, Counts0, Counts).

%   Where sharing can't be avoided: of the places least in the batch so far, one that has most left.

evenly(Size, Counts, Places) :-
    findall(used(0, Left, Place), ( member(Place-Count, Counts), Left is -Count ), Uses),
    evenly_used(Size, Uses, Places).

evenly_used(0, _, []) :- !.
evenly_used(Size, Uses0, [Place|Places]) :-
    sort(0, @=<, Uses0, [used(Here0, Left0, Place)|Others]),
    Here is Here0 + 1,
    Left is Left0 + 1,
    Fewer is Size - 1,
    (   Left =:= 0
    ->  evenly_used(Fewer, Others, Places)
    ;   evenly_used(Fewer, [used(Here, Left, Place)|Others], Places)
    ).

taken([], Placed, [], Placed).
taken([Place|Places], Placed0, [Place-Host|Taken], Placed) :-
    selectchk(Place-Host, Placed0, Placed1),
    taken(Places, Placed1, Taken, Placed).

as_they_come(Placed, Batch0, Batch) :-
    findall(Pair, ( member(Pair, Placed), memberchk(Pair, Batch0) ), Batch).
