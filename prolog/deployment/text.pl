:- module(deployment_text,
          [ file_text/2,                % +File, -Text
            limit/2,                    % ?What, ?Limit
            code_at/3,                  % +Char, +Text, -Code
            place/4,                    % +Text, +Char, -Line, -Column
            line_start/3                % +Text, +Char, -Start
          ]).
:- use_module(library(lists), [append/3, member/2]).

/** <module> The text of a file that nobody vouches for

What could block or exhaust Prolog's reader is refused before it reads: text that is not UTF-8, NUL characters, very long numbers, and very large
files. Characters of a text are counted from 0, lines and columns from 1.
*/

%!  limit(?What, ?Limit:integer) is nondet.
%
%   What a file may hold at most.

limit(bytes, 33_554_432).
limit(lines, 1_000_000).
limit(line_bytes, 4_194_304).
limit(number_digits, 4_000).
limit(split_numbers, 50).
limit(depth, 500).
limit(problems, 100).

%!  file_text(+File, -Text:string) is det.
%
%   Text is what File holds.
%
%   @throws refused(Line, Column, Reason)
%   @error those of open/4

file_text(File, Text) :-
    setup_call_cleanup(
        open(File, read, Stream, [type(binary)]),
        read_bytes(Stream, Bytes),
        close(Stream)),
    checked_text(Bytes, Text).

%!  read_bytes(+Stream, -Bytes:string) is det.
%
%   Bytes are those of Stream, or the first of them when there are more than are allowed.

read_bytes(Stream, Bytes) :-
    limit(bytes, Limit),
    More is Limit + 1,
    read_string(Stream, More, Bytes).

%!  checked_text(+Bytes:string, -Text:string) is det.
%
%   Text is what Bytes encode.
%
%   @throws refused(Line, Column, Reason)

checked_text(Bytes, Text) :-
    check_size(Bytes),
    check_nul(Bytes),
    setup_call_cleanup(
        open_null_stream(Gauge),
        ( set_stream(Gauge, encoding(utf8)),
          decoded(Bytes, Gauge, Text0) ),
        close(Gauge)),
    without_mark(Text0, Text),
    check_split_numbers(Text).

%!  check_size(+Bytes) is det.

check_size(Bytes) :-
    string_length(Bytes, Length),
    limit(bytes, Limit),
    (   Length > Limit
    ->  throw(refused(1, 1, too_large(bytes, Limit)))
    ;   true
    ).

%!  check_nul(+Bytes) is det.
%
%   Bytes hold no NUL, which read_string/5 would take for the end of a line.

check_nul(Bytes) :-
    (   sub_string(Bytes, At, 1, _, "\000\")
    ->  place(Bytes, At, Line, Column),
        throw(refused(Line, Column, nul_character))
    ;   true
    ).

%!  without_mark(+Text0, -Text) is det.
%
%   Text is Text0 without a byte order mark.

without_mark(Text0, Text) :-
    (   string_concat("\uFEFF", Rest, Text0)
    ->  Text = Rest
    ;   Text = Text0
    ).

%!  decoded(+Bytes, +Gauge, -Text) is det.
%
%   Check each line of Bytes. Gauge is a stream whose byte count tells whether a string is ASCII only; then it is its own text.

decoded(Bytes, Gauge, Text) :-
    setup_call_cleanup(
        open_string(Bytes, In),
        lines(In, 1, Gauge, Lines),
        close(In)),
    (   ascii(Gauge, Bytes)
    ->  Text = Bytes
    ;   atomics_to_string(Lines, Text)
    ).

%!  atomics_to_string(+Lines, -Text) is det.

atomics_to_string(Lines, Text) :-
    with_output_to(string(Text), forall(member(Line, Lines), write(Line))).

%!  ascii(+Gauge, +Text) is semidet.
%
%   Text holds ASCII characters only.

ascii(Gauge, Text) :-
    byte_count(Gauge, Before),
    write(Gauge, Text),
    byte_count(Gauge, After),
    string_length(Text, Length),
    After - Before =:= Length.

%!  lines(+In, +Line, +Gauge, -Lines:list) is det.
%
%   Lines are those of In from number Line on, each followed by "\n" as an element of its own when it is in the file.

lines(In, Line, Gauge, Lines) :-
    limit(lines, Limit),
    (   Line > Limit
    ->  throw(refused(Line, 1, too_large(lines, Limit)))
    ;   true
    ),
    read_string(In, "\n", "", End, Bytes),
    check_line(Bytes, Line, Gauge, Text),
    (   End =:= -1
    ->  Lines = [Text]
    ;   Lines = [Text, "\n"|Rest],
        Next is Line + 1,
        lines(In, Next, Gauge, Rest)
    ).

%!  check_line(+Bytes, +Line, +Gauge, -Text) is det.

check_line(Bytes, Line, Gauge, Text) :-
    check_numbers(Bytes, Line),
    (   ascii(Gauge, Bytes)
    ->  Text = Bytes
    ;   string_codes(Bytes, Codes),
        utf8(Codes, 1, Line, Decoded),
        string_codes(Text, Decoded)
    ).

%!  utf8(+Bytes:list, +Column, +Line, -Codes:list) is det.
%
%   Codes are the characters that Bytes encode in strict UTF-8: none longer than needed, no surrogates, none beyond U+10FFFF.

utf8([], _, _, []).
utf8([Byte|Bytes], Column, Line, [Code|Codes]) :-
    (   Byte < 0x80
    ->  Code = Byte,
        Rest = Bytes
    ;   lead(Byte, Bits, Count, Least),
        continued(Count, Bytes, Bits, Code, Rest),
        Code >= Least,
        \+ between(0xD800, 0xDFFF, Code),
        Code =< 0x10FFFF
    ->  true
    ;   throw(refused(Line, Column, invalid_utf8))
    ),
    Next is Column + 1,
    utf8(Rest, Next, Line, Codes).

%!  lead(+Byte, -Bits, -Count, -Least) is semidet.
%
%   Byte begins a character of at least code Least, with its first Bits, that Count more bytes continue.

lead(Byte, Bits, 1, 0x80) :- Byte /\ 0xE0 =:= 0xC0, !, Bits is Byte /\ 0x1F.
lead(Byte, Bits, 2, 0x800) :- Byte /\ 0xF0 =:= 0xE0, !, Bits is Byte /\ 0x0F.
lead(Byte, Bits, 3, 0x10000) :- Byte /\ 0xF8 =:= 0xF0, Bits is Byte /\ 0x07.

%!  continued(+Count, +Bytes, +Bits, -Code, -Rest) is semidet.

continued(0, Rest, Code, Code, Rest) :- !.
continued(Count, [Byte|Bytes], Bits, Code, Rest) :-
    Byte /\ 0xC0 =:= 0x80,
    More is Bits << 6 \/ (Byte /\ 0x3F),
    Less is Count - 1,
    continued(Less, Bytes, More, Code, Rest).

%!  check_numbers(+Bytes, +Line) is det.
%
%   No number in the line Bytes has too many digits: to convert them takes quadratic time, and cannot be interrupted. A word is what no
%   character separates that never is part of a number.

check_numbers(Bytes, Line) :-
    string_length(Bytes, Length),
    limit(number_digits, Limit),
    Length > Limit,
    !,
    limit(line_bytes, LineLimit),
    (   Length > LineLimit
    ->  throw(refused(Line, 1, too_large(line_bytes, LineLimit)))
    ;   true
    ),
    split_string(Bytes, "!\"#$%&()*+,-./:;<=>?@[\\]^`{|}~", "", Words),
    forall(( member(Word, Words), string_length(Word, Letters), Letters > Limit ),
           check_word(Word, Line, Limit)).
check_numbers(_, _).

%!  check_word(+Word, +Line, +Limit) is det.

check_word(Word, Line, Limit) :-
    string_codes(Word, Codes),
    (   long_number(Codes, 0, Limit)
    ->  throw(refused(Line, 1, too_large(number_digits, Limit)))
    ;   true
    ).

%!  long_number(+Codes, +Run, +Limit) is semidet.
%
%   Codes, after Run characters of what may be a number, hold one of more than Limit characters.

long_number(_, Run, Limit) :-
    Run > Limit,
    !.
long_number([Code|Codes], Run, Limit) :-
    (   continues_number(Code, Run)
    ->  More is Run + 1
    ;   More = 0
    ),
    long_number(Codes, More, Limit).

%!  continues_number(+Code, +Run) is semidet.
%
%   Code may be part of a number of which there are Run characters before it.

continues_number(Code, _) :- Code >= 0'0, Code =< 0'9, !.
continues_number(_, 0) :- !, fail.
continues_number(Code, _) :- memberchk(Code, [0'_, 0'', 0' ]), !.
continues_number(Code, _) :- code_type(Code, alpha).

%!  check_split_numbers(+Text) is det.
%
%   Few numbers in Text go on after an underscore and white space or a comment, which hides their length from
%   check_numbers/2.

check_split_numbers(Text) :-
    limit(split_numbers, Limit),
    findnsols(Limit, At, split_number(Text, At), Places),
    !,
    (   length(Places, Limit)
    ->  append(_, [Last], Places),
        place(Text, Last, Line, Column),
        throw(refused(Line, Column, too_large(split_numbers, Limit)))
    ;   true
    ).

%!  split_number(+Text, -At:integer) is nondet.
%
%   The character of Text at At is an underscore at the end of a word that starts with a digit.

split_number(Text, At) :-
    sub_string(Text, At, 1, _, "_"),
    After is At + 1,
    \+ ( code_at(After, Text, Next), word_code(Next) ),
    word_start(Text, At, Start),
    code_at(Start, Text, First),
    First >= 0'0,
    First =< 0'9.

%!  code_at(+Char:integer, +Text, -Code:integer) is semidet.
%
%   Code is the character Char of Text, counted from 0. (get_string_code/3 takes time proportional to the length of Text.)

code_at(Char, Text, Code) :-
    sub_string(Text, Char, 1, _, One),
    string_code(1, One, Code).

%!  word_start(+Text, +At, -Start:integer) is semidet.
%
%   Start is the first character of the word that ends with character At of Text. Looks back no further than 100.

word_start(Text, At, Start) :-
    Least is max(0, At - 100),
    word_start(Text, At, Least, Start).

%!  word_start(+Text, +At, +Least, -Start) is semidet.

word_start(Text, At, Least, Start) :-
    At >= Least,
    code_at(At, Text, Code),
    word_code(Code),
    Before is At - 1,
    (   word_start(Text, Before, Least, Start)
    ->  true
    ;   Start = At
    ).

%!  word_code(+Code) is semidet.

word_code(Code) :-
    code_type(Code, csym).

%!  place(+Text, +Char, -Line, -Column) is det.
%
%   Where the character Char of Text is, counted from 0.

place(Text, Char, Line, Column) :-
    sub_string(Text, 0, Char, _, Before),
    split_string(Before, "\n", "", Lines),
    length(Lines, Line),
    line_start(Text, Char, Start),
    Column is Char - Start + 1.

%!  line_start(+Text, +Char, -Start) is det.
%
%   Start is the first character of the line of Text that character Char is in.

line_start(Text, Char, Start) :-
    (   Char > 0,
        Before is Char - 1,
        code_at(Before, Text, Code),
        Code =\= 0'\n
    ->  line_start(Text, Before, Start)
    ;   Start = Char
    ).
