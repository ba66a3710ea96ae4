:- module(deployment_reader,
          [ read_terms/3,               % +File, -Terms, -Problems
            library_file/2              % +File, -Path
          ]).
:- use_module(library(error), [existence_error/2, must_be/2, permission_error/3]).
:- use_module(library(lists), [reverse/2]).
:- use_module(nesting, [nests_deeper/2]).
:- use_module(text, [file_text/2, limit/2, code_at/3, place/4, line_start/3]).
:- use_module(types, [text_atom/2]).

/** <module> Reading the terms of a file that nobody vouches for

Nothing of the file is run: no term or goal expansion, no directive, no quasi-quotation, and no operators but the standard ones. text.pl refuses
before what the reader could not bear. Places are `Line` and `Column`, both from 1.
*/

%!  library_file(+File, -Path:atom) is det.
%
%   Path is the absolute path of File (text), with the extension `.pl` when only that exists.
%
%   @error type_error(text, File), existence_error(source_sink, File), permission_error(open, source_sink, File): not readable, or no
%     regular file

library_file(File, Path) :-
    must_be(nonvar, File),
    (   text_atom(File, Name)
    ->  true
    ;   must_be(text, File),
        text_to_string(File, Name)
    ),
    absolute_file_name(Name, Path0, [extensions(['', pl]), access(exist), file_errors(fail), solutions(first)]),
    !,
    (   exists_file(Path0),
        access_file(Path0, read)
    ->  Path = Path0
    ;   permission_error(open, source_sink, Path0)
    ).
library_file(File, _) :-
    exists_directory(File),
    !,
    permission_error(open, source_sink, File).
library_file(File, _) :-
    existence_error(source_sink, File).

%!  read_terms(+File, -Terms:list, -Problems:list) is det.
%
%   Terms are `term(Line, Column, Term)` for each term of File that can be read, in order. Problems are `problem(Line, Column, Reason)` for
%   what cannot.

read_terms(File, Terms, Problems) :-
    catch(file_text(File, Text), refused(Line, Column, Reason), true),
    (   nonvar(Reason)
    ->  Terms = [],
        Problems = [problem(Line, Column, Reason)]
    ;   terms(File, Text, Terms, Problems)
    ).

%!  terms(+File, +Text, -Terms, -Problems) is det.

terms(File, Text, Terms, Problems) :-
    syntax_module(Module),
    setup_call_cleanup(
        ( open_string(Text, In),
          open_string(Text, Ahead) ),
        ( set_stream(In, file_name(File)),
          read_all(source(In, Ahead, Module, Text, line(1, 0)), [], Terms, Problems0) ),
        ( close(In),
          close(Ahead) )),
    (   Terms == [],
        Problems0 == []
    ->  Problems = [problem(1, 1, empty)]
    ;   Problems = Problems0
    ).

%!  syntax_module(-Module) is det.
%
%   Module has the operators and flags of the system, whatever the user did to theirs.

syntax_module(Module) :-
    Module = deployment_syntax,
    set_module(Module:base(system)).

%!  read_all(+Source, +Found, -Terms, -Problems) is det.
%
%   Source is `source(Stream, Ahead, Module, Text, Line)`: Ahead is a second stream of the same text, from which the text of each term is
%   read before the term. See column/4 for Line. Found are the problems so far, last first.

read_all(_, Found, [], Problems) :-
    limit(problems, Limit),
    length(Found, Limit),
    !,
    Found = [problem(Line, Column, _)|_],
    reverse([problem(Line, Column, too_many(problems, Limit))|Found], Problems).
read_all(Source, Found, Terms, Problems) :-
    arg(1, Source, In),
    character_count(In, Start),
    catch(read_one(Source, Read), error(Formal, Context), true),
    (   nonvar(Formal)
    ->  reason(Formal, Reason),
        whereabouts(Context, Source, Start, Line, Column),
        read_all(Source, [problem(Line, Column, Reason)|Found], Terms, Problems)
    ;   at_end(Read, Source)
    ->  Terms = [],
        reverse(Found, Problems)
    ;   Read = read(_, Char, Line, _),
        column(Source, Line, Char, Column),
        judge_term(Read, Line, Column, Found, Found1, Terms, Rest),
        read_all(Source, Found1, Rest, Problems)
    ).

%!  read_one(+Source, -Read) is det.
%
%   Read is `read(Term, Character, Line, QuasiQuotations)` for the next term.
%
%   @error resource_error(depth): it nests too deeply to be read

read_one(source(In, Ahead, Module, _, _), Read) :-
    (   too_deep(Ahead)
    ->  '$raw_read'(In, _),
        throw(error(resource_error(depth), _))
    ;   read_term_of(In, Module, Read)
    ).

%!  too_deep(+Ahead) is semidet.
%
%   The next term of Ahead nests too deeply; it has been skipped in any case. An error in its text is left to read_term/3.

too_deep(Ahead) :-
    catch('$raw_read'(Ahead, Text), error(syntax_error(_), _), fail),
    limit(depth, Limit),
    nests_deeper(Text, Limit).

%!  read_term_of(+In, +Module, -Read) is det.

read_term_of(In, Module, read(Term, Char, Line, Quotations)) :-
    read_term(In, Term,
              [ module(Module),
                syntax_errors(error),
                term_position(Position),
                quasi_quotations(Quotations),
                double_quotes(string),
                back_quotes(codes),
                dotlists(false),
                var_prefix(false),
                cycles(false)
              ]),
    stream_position_data(char_count, Position, Char),
    stream_position_data(line_count, Position, Line).

%!  at_end(+Read, +Source) is semidet.
%
%   Read is the end of the text, and not the term `end_of_file`.

at_end(read(Term, Char, _, _), source(_, _, _, Text, _)) :-
    Term == end_of_file,
    \+ ( Char >= 0, sub_string(Text, Char, _, _, "end_of_file") ).

%!  judge_term(+Read, +Line, +Column, +Found0, -Found, -Terms, -Rest) is det.
%
%   Terms is a list of the term and Rest, or just Rest and a problem more in Found.

judge_term(read(_, _, _, [_|_]), Line, Column, Found, [problem(Line, Column, quasi_quotation)|Found], Rest, Rest) :-
    !.
judge_term(read(Term, _, _, _), Line, Column, Found, [problem(Line, Column, end_of_file)|Found], Rest, Rest) :-
    Term == end_of_file,
    !.
judge_term(read(Term, _, _, _), Line, Column, Found, Found, [term(Line, Column, Term)|Rest], Rest) :-
    limit(depth, Depth),
    shallow(Term, Depth),
    !.
judge_term(_, Line, Column, Found, [problem(Line, Column, too_large(depth, Depth))|Found], Rest, Rest) :-
    limit(depth, Depth).

%!  shallow(+Term, +Depth) is semidet.
%
%   Term nests at most Depth levels deep; a list counts as one.

shallow(Term, Depth) :-
    (   \+ compound(Term)
    ->  true
    ;   Depth > 0,
        Less is Depth - 1,
        (   Term = [Head|Tail]
        ->  shallow(Head, Less),
            shallow(Tail, Depth)
        ;   compound_name_arity(Term, _, Arity),
            shallow_arguments(Arity, Term, Less)
        )
    ).

%!  shallow_arguments(+Count, +Term, +Depth) is semidet.

shallow_arguments(0, _, _) :- !.
shallow_arguments(Count, Term, Depth) :-
    arg(Count, Term, Argument),
    shallow(Argument, Depth),
    Less is Count - 1,
    shallow_arguments(Less, Term, Depth).

%!  reason(+Formal, -Reason) is det.
%
%   Reason says why the reader gave up with the error Formal.

reason(syntax_error(Message), syntax_error(Message)) :- !.
reason(resource_error(_), too_large(depth, Limit)) :-
    !,
    limit(depth, Limit).
reason(Formal, error(Formal)).

%!  whereabouts(+Context, +Source, +Start, -Line, -Column) is det.
%
%   The place of an error with Context; when that does not tell, of the first character at or after Start that is not blank.

whereabouts(Context, Source, _, Line, Column) :-
    compound(Context),
    compound_name_arguments(Context, Name, [_, Line, _, Char]),
    memberchk(Name, [file, stream]),
    integer(Line),
    Line >= 1,
    !,
    column(Source, Line, Char, Column).
whereabouts(_, source(_, _, _, Text, _), Start, Line, Column) :-
    after_blanks(Text, Start, Char),
    place(Text, Char, Line, Column).

%!  after_blanks(+Text, +Start, -Char) is det.

after_blanks(Text, Start, Char) :-
    (   code_at(Start, Text, Code),
        code_type(Code, space)
    ->  Next is Start + 1,
        after_blanks(Text, Next, Char)
    ;   Char = Start
    ).

%!  column(+Source, +Line, +Char, -Column:integer) is det.
%
%   Column is that of character Char, which is in Line. The last argument of Source is `line(Line, Start)`, the last line that was asked for and
%   its first character; it is updated, so that many terms in one long line take linear time.

column(Source, Line, Char, Column) :-
    Source = source(_, _, _, Text, Known),
    (   Known = line(Line, Start)
    ->  true
    ;   line_start(Text, Char, Start),
        nb_setarg(1, Known, Line),
        nb_setarg(2, Known, Start)
    ),
    Column is Char - Start + 1.
