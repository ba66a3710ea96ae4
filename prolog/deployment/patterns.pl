:- module(deployment_patterns,
          [ pattern_regex//2            % +Role, +Pattern
          ]).

/** <module> Source patterns as regular expressions

A script has to choose the same files as the library.  A pattern becomes an extended regular expression over the whole
relative path, in bytes, as a word of bash.  Names may hold several bytes a character: the variables HIGH (the bytes of
longer characters, as a range) and LONGER (a longer character) of deploy.bash say so.
*/

:- autoload(library(apply), [exclude/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2, numlist/3, subtract/3]).
:- use_module(scripts, [double_quoted//1]).

%!  pattern_regex(+Role, +Pattern:atom)// is det.
%
%   Role is `include` or `exclude`: what is excluded takes along all that is below it; an included pattern without
%   wildcards may be a folder, and takes along what does not begin with a dot.
%
%   @error domain_error(script_pattern, Pattern): `[!…]` with a character beyond ASCII

pattern_regex(Role, Pattern) -->
    { split_string(Pattern, "/", "", Parts0),
      exclude([Part]>>memberchk(Part, ["", "."]), Parts0, Parts),
      phrase(path(Parts, Role, Pattern), Pieces) },
    word(Pieces).

path([], exclude, _) --> !, never.
path([], include, _) --> !, below_visible.
path(Parts, Role, Pattern) -->
    parts(Parts, Pattern),
    tail(Role, Pattern).

tail(exclude, _) --> [text("(/.*)?")].
tail(include, Pattern) -->
    (   { sub_atom(Pattern, _, 1, _, Wildcard), memberchk(Wildcard, [*, ?, '[']) }
    ->  []
    ;   [text("(/[^./][^/]*)*")]
    ).

below_visible --> [text("[^./][^/]*(/[^./][^/]*)*")].

parts(["**"], _) --> !, below_visible.
parts(["**"|Parts], Pattern) -->
    !,
    [text("([^./][^/]*/)*")],
    parts(Parts, Pattern).
parts([Part], Pattern) -->
    !,
    component(Part, Pattern).
parts([Part|Parts], Pattern) -->
    component(Part, Pattern),
    [text("/")],
    parts(Parts, Pattern).

component(Part, Pattern) -->
    { string_codes(Part, Codes),
      phrase(tokens(Tokens), Codes),
      (   Codes = [0'.|_] -> Allowed = [] ; Allowed = [0'.] ) },
    name(Tokens, Allowed, Pattern).

%   name(+Tokens, +NotFirst, +Pattern)//: NotFirst holds a dot at the beginning of a name, where a wildcard can't
%   match it.

name([], _, _) --> [].
name([star], [0'.], _) --> !, [text("[^./][^/]*")].
name([star|Tokens], [0'.], Pattern) -->
    !,
    [text("([^./][^/]*")],
    name(Tokens, [], Pattern),
    [text("|")],
    name(Tokens, [0'.], Pattern),
    [text(")")].
name([Token|Tokens], NotFirst, Pattern) -->
    token(Token, NotFirst, Pattern),
    name(Tokens, [], Pattern).

token(star, _, _) --> [text("[^/]*")].
token(literal(0'.), [0'.], _) --> !, never.
token(literal(Code), _, _) --> literal(Code).
token(none_of(Codes), NotFirst, Pattern) -->
    { (   member(Code, Codes), Code > 127
      ->  throw(error(domain_error(script_pattern, Pattern), _))
      ;   append(Codes, NotFirst, Excluded0),
          subtract(Excluded0, [0'/, 0'], 0'-], Excluded),
          (   memberchk(0'], Codes) -> First = "]" ; First = "" ),
          (   memberchk(0'-, Codes) -> Last = "-" ; Last = "" ),
          format(string(Before), "([^~w~s/", [First, Excluded]),
          format(string(After), "~w]|", [Last]) ) },
    [text(Before), variable('HIGH'), text(After), variable('LONGER'), text(")")].
token(one_of(Codes0), NotFirst, _) -->
    { append([0'/], NotFirst, Not),
      subtract(Codes0, Not, Codes) },
    (   { Codes == [] }
    ->  never
    ;   [text("(")], alternatives(Codes), [text(")")]
    ).

alternatives([Code]) --> !, literal(Code).
alternatives([Code|Codes]) --> literal(Code), [text("|")], alternatives(Codes).

%   No path holds two slashes in a row.

never --> [text("//")].

literal(Code) -->
    { (   memberchk(Code, `.[](){}*+?^$|\\`)
      ->  string_codes(Text, [0'\\, Code])
      ;   string_codes(Text, [Code])
      ) },
    [text(Text)].

%   tokens(-Tokens)//: of one component, as fnmatch reads it.

tokens([star|Tokens]) --> "*", !, stars, tokens(Tokens).
tokens([none_of([])|Tokens]) --> "?", !, tokens(Tokens).
tokens([Token|Tokens]) --> "[", set(Token), !, tokens(Tokens).
tokens([literal(Code)|Tokens]) --> [Code], !, tokens(Tokens).
tokens([]) --> [].

stars --> "*", !, stars.
stars --> [].

set(none_of(Codes)) --> ( "!" ; "^" ), !, members(first, Codes).
set(one_of(Codes)) --> members(first, Codes).

members(later, []) --> "]", !.
members(_, Codes) -->
    [From], "-", [To],
    { To \== 0'] },
    !,
    { (   From =< To -> numlist(From, To, Range) ; Range = [] ) },
    members(later, Rest),
    { append(Range, Rest, Codes) }.
members(_, [Code|Codes]) --> [Code], members(later, Codes).

word([]) --> [].
word([text(Text)|Pieces]) -->
    { joined(Pieces, Rest, Texts),
      atomic_list_concat([Text|Texts], Joined) },
    double_quoted(Joined),
    word(Rest).
word([variable(Name)|Pieces]) -->
    { format(codes(Codes), "\"$~w\"", [Name]) },
    codes(Codes),
    word(Pieces).

joined([text(Text)|Pieces], Rest, [Text|Texts]) :-
    !,
    joined(Pieces, Rest, Texts).
joined(Rest, Rest, []).

codes([]) --> [].
codes([Code|Codes]) --> [Code], codes(Codes).
