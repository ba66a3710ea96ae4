:- module(deployment_engine,
          [ parse_goal/4,               % +Text, +Module, -Names, -Template
            chunk/3,                    % :Goal, +Row, -Chunk
            few/3,                      % :Goal, +Row, -Chunk
            describe/4,                 % +Error, -Message, -File, -Line
            interrupt/1,                % +Thread
            load/2,                     % +File, -Problems
            compile/2,                  % +File, -Problems
            open_library/3,             % +Folder, +Module, -Problems
            guard_halt/0,
            begin_ending/0,
            finish/0,
            hexadecimal/2,              % +Rational, -Text
            quotient/3,                 % +Over, +Under, -Rational
            assemble/3                  % +Parts, +Bits, -Integer
          ]).
:- use_module(library(prolog_wrap), [wrap_predicate/4]).
:- use_module(library(apply), [convlist/3, maplist/3]).
:- use_module(library(yall), [(>>)/4]).
:- use_module(nesting, [nests_deeper/2]).
:- use_module(places, [clause_place/3, of_user/1, with_place/3]).

/** <module> Prolog's half of the boundary to Python

Helper predicates of `unifyweaver_py/_engine.py`. Nothing here knows of deployments.
*/

:- meta_predicate
    chunk(0, +, -),
    few(0, +, -).

%!  parse_goal(+Text, +Module, -Names, -Template) is det.
%
%   Read a goal with the operators and flags of Module. Template is
%   `goal(Goal, Module:Goal, Row, Variable...)`, with a variable for each of Names, the named
%   variables of Text in the order of their appearance; the arguments of `row(...)` are those whose
%   name does not start with `_`.
%
%   @error syntax_error(_) if Text is not exactly one term.
%   @error resource_error(depth) if its brackets nest too deep to be read.

parse_goal(Text, Module, Names, Template) :-
    check_depth(Text),
    term_string(Goal, Text, [module(Module), variable_names(Bindings)]),
    single_term(Text, Module),
    maplist([Name=_, Name]>>true, Bindings, Names),
    maplist([_=Variable, Variable]>>true, Bindings, Variables),
    convlist([Name=Variable, Variable]>>(\+ sub_atom(Name, 0, _, _, '_')), Bindings, Wanted),
    compound_name_arguments(Row, row, Wanted),
    Template =.. [goal, Goal, Module:Goal, Row|Variables].

%!  check_depth(+Text) is det.
%
%   The reader has enough C stack for the term that Text begins with, with some left to whoever called.

check_depth(Text) :-
    depth_limit(Limit),
    (   string_length(Text, Length),
        Length > Limit,
        without_comments(Text, Bare),
        nests_deeper(Bare, Limit)
    ->  format(string(Message), 'the text nests more than ~D levels deep', [Limit]),
        throw(error(resource_error(depth), context(_, Message)))
    ;   true
    ).

depth_limit(5_000).

%!  without_comments(+Text, -Bare:atom) is semidet.
%
%   Bare is the term that Text begins with. An error in it is left to the reader, which finds it before it recurses.

without_comments(Text, Bare) :-
    string_concat(Text, "\n.", Ended),
    setup_call_cleanup(
        open_string(Ended, In),
        catch('$raw_read'(In, Bare), error(syntax_error(_), _), fail),
        close(In)).

%!  single_term(+Text, +Module) is det.
%
%   Text, which begins with a term, ends with it too: Text and a full stop on a line of its own, after a last comment, may leave nothing but that.

single_term(Text, Module) :-
    string_concat(Text, "\n.", Ended),
    setup_call_cleanup(
        open_string(Ended, In),
        ( read_term(In, _, [module(Module)]),
          read_string(In, _, Rest)
        ),
        close(In)),
    (   split_string(Rest, "", " \t\r\n.", [""])
    ->  true
    ;   throw(error(syntax_error(end_of_file_expected), string(Text, 0)))
    ).

%!  chunk(:Goal, +Row, -Chunk) is nondet.
%
%   Chunk is `rows(Rows)`, the next solutions of Goal as instances of the compound Row, or `one` if Row is now the
%   only one; on backtracking the following ones. The first chunk has 8 rows, the later ones more, up to 1024.
%   Where each column of many rows is of one simple type it is `flat(Columns, Rows, Length)`: a
%   column is `atoms(Text)`, `integers(Text)` or `strings(Text)`, its values separated by NUL. One
%   that does not have Length values held a NUL: then Rows are to be read.

chunk(Goal, Row, Chunk) :-
    Limit = count(8),
    findnsols(Limit, Row, Goal, Rows),
    arg(1, Limit, Count),
    Next is min(1024, Count*8),
    nb_setarg(1, Limit, Next),
    (   Rows = [Row]
    ->  Chunk = one
    ;   Count > 8,
        functor(Row, _, Width),
        Width > 0,
        length(Rows, Length),
        columns(1, Width, Rows, Columns)
    ->  Chunk = flat(Columns, Rows, Length)
    ;   Chunk = rows(Rows)
    ).

%!  few(:Goal, +Row, -Chunk) is nondet.
%
%   As chunk/3 for a Goal that looks up facts, which does no harm and may be done again. For any other Goal, which is
%   not called, Chunk is `rules`, or `unknown` where there is nothing to call as yet.

few(Goal, Row, Chunk) :-
    (   predicate_property(Goal, number_of_rules(0)),
        \+ predicate_property(Goal, thread_local)
    ->  chunk(Goal, Row, Chunk)
    ;   predicate_property(Goal, defined)
    ->  Chunk = rules
    ;   Chunk = unknown
    ).

columns(Index, Width, _, []) :-
    Index > Width,
    !.
columns(Index, Width, Rows, [Column|Columns]) :-
    values(Rows, Index, Values),
    Values = [Value|_],
    column_type(Value, Type, Column, Text),
    of_type(Type, Values),
    atomic_list_concat(Values, '\000\', Text),
    Next is Index+1,
    columns(Next, Width, Rows, Columns).

column_type(Value, atom, atoms(Text), Text) :-
    atom(Value),
    !.
column_type(Value, integer, integers(Text), Text) :-
    integer(Value),
    !.
column_type(Value, string, strings(Text), Text) :-
    string(Value).

values([], _, []).
values([Row|Rows], Index, [Value|Values]) :-
    arg(Index, Row, Value),
    values(Rows, Index, Values).

of_type(atom, Values) :-
    atoms(Values).
of_type(integer, Values) :-
    integers(Values).
of_type(string, Values) :-
    strings(Values).

atoms([]).
atoms([Value|Values]) :-
    atom(Value),
    Value \== [],
    atoms(Values).

integers([]).
integers([Value|Values]) :-
    integer(Value),
    integers(Values).

strings([]).
strings([Value|Values]) :-
    string(Value),
    strings(Values).

%!  describe(+Error, -Message, -File, -Line) is det.
%
%   Message is the text that Prolog prints for Error, the one last raised on this engine. File and
%   Line (`''` and 0 if unknown) tell where the clause begins that raised it.

describe(Error, Message, File, Line) :-
    (   nb_current(deployment_raised, File-Line)
    ->  true
    ;   File = '', Line = 0
    ),
    nb_setval(deployment_raised, ''-0),
    completed(Error, Whole),
    phrase('$messages':translate_message(Whole), Lines),
    with_output_to(string(Message), print_message_lines(current_output, '', Lines)).

%   The message of a full stack divides by its depth, which is missing where C code filled it.

completed(error(resource_error(Resource), Context0), error(resource_error(Resource), Context)) :-
    is_dict(Context0),
    \+ get_dict(depth, Context0, _),
    !,
    put_dict(depth, Context0, 1, Context).
completed(Error, Error).

:- multifile user:prolog_exception_hook/4, prolog:prolog_exception_hook/5.
:- dynamic user:prolog_exception_hook/4, prolog:prolog_exception_hook/5.

user:prolog_exception_hook(Error, Error, Frame, 'C') :-
    deployment_engine:note_origin(Frame),
    fail.
prolog:prolog_exception_hook(Error, Error, Frame, 'C', _) :-
    deployment_engine:note_origin(Frame),
    fail.

%!  note_origin(+Frame) is det.
%
%   Remember for describe/4 which clause an error comes from that nobody catches: the nearest one, among the first
%   1000 frames, that is part neither of Prolog nor of this library. Whoever wrote that one can do something about it.

note_origin(Frame) :-
    (   origin(1000, Frame, File, Line)
    ->  true
    ;   File = '', Line = 0
    ),
    nb_setval(deployment_raised, File-Line).

origin(Depth, Frame, File, Line) :-
    (   prolog_frame_attribute(Frame, clause, Clause),
        clause_place(Clause, File, Line)
    ->  true
    ;   Depth > 0,
        prolog_frame_attribute(Frame, parent, Parent),
        Next is Depth-1,
        origin(Next, Parent, File, Line)
    ).

%!  interrupt(+Thread) is det.
%
%   Let Thread, a thread or engine identifier, unwind what it runs.

interrupt(Thread) :-
    thread_signal(Thread, abort).

:- thread_local problem/4.
:- thread_local collecting/0.
:- dynamic ending/0.

:- multifile user:message_hook/3.
:- dynamic user:message_hook/3.

user:message_hook(Term, Kind, Lines) :-
    deployment_engine:collecting,
    deployment_engine:collect(Kind, Term, Lines).

user:message_hook(_, _, _) :-
    deployment_engine:ending.

collect(Kind, Term, Lines) :-
    memberchk(Kind, [error, warning]),
    place(Term, File, Line),
    with_output_to(string(Text), print_message_lines(current_output, '', Lines)),
    assertz(problem(Kind, File, Line, Text)).

place(error(_, Context), File, Line) :-
    nonvar(Context),
    (   Context = file(File, Line, _, _)
    ;   Context = stream(_, Line, _, _),
        source_location(File, _)
    ),
    !.
place(_, File, Line) :-
    source_location(File, Line),
    !.
place(_, '', 0).

%!  load(+File, -Problems) is det.
%
%   Load a Prolog file into `user`. Problems lists what Prolog would have printed, as
%   `problem(Kind, File, Line, Text)`.

load(File, Problems) :-
    collecting_problems(user:load_files(File, [silent(true)]), Problems).

%!  compile(+File, -Problems) is det.
%
%   Compile a Prolog file with all that it loads into the `.qlf` beside it, which loads it too. Problems is as for
%   load/2.

compile(File, Problems) :-
    collecting_problems(user:qcompile(File, [include(user)]), Problems).

:- meta_predicate collecting_problems(0, -).

collecting_problems(Goal, Problems) :-
    retractall(problem(_, _, _, _)),
    setup_call_cleanup(
        asserta(collecting, Clause),
        catch(Goal, error(Formal, Context), print_message(error, error(Formal, Context))),
        erase(Clause)),
    findall(problem(Kind, Where, Line, Text), retract(problem(Kind, Where, Line, Text)), Problems).

%!  open_library(+Folder, +Module, -Problems) is det.
%
%   Make the files in Folder known as library(Name), and import library(deployment_glue) into
%   Module, where it exists. Problems is as for load/2.

open_library(Folder, Module, Problems) :-
    (   user:file_search_path(library, Folder)
    ->  true
    ;   asserta(user:file_search_path(library, Folder))
    ),
    set_module(Module:base(user)),
    (   exists_source(library(deployment_glue))
    ->  collecting_problems(@(use_module(library(deployment_glue)), Module), Problems)
    ;   Problems = []
    ).

%!  begin_ending is det.
%
%   Print nothing from now on: threads that are stopped because the process ends would complain.

begin_ending :-
    (   ending
    ->  true
    ;   assertz(ending)
    ).

%!  finish is semidet.
%
%   Write what is still buffered. True if no thread that Prolog code created is running, so that
%   Prolog can be ended in order.

finish :-
    flush_output(user_output),
    flush_output(user_error),
    \+ ( thread_property(Thread, status(running)),
         \+ memberchk(Thread, [main, gc]),
         \+ is_engine(Thread)
       ).

%!  hexadecimal(+Rational, -Text) is det.
%
%   Text is the number in base 16; the two parts of a fraction are separated by `/`.

hexadecimal(Integer, Text) :-
    integer(Integer),
    !,
    format(string(Text), '~16r', [Integer]).
hexadecimal(Rational, Text) :-
    rational(Rational, Over, Under),
    format(string(Text), '~16r/~16r', [Over, Under]).

%!  quotient(+Over, +Under, -Rational) is det.

quotient(Over, Under, Rational) :-
    Rational is Over rdiv Under.

%!  assemble(+Parts:list(nonneg), +Bits, -Integer) is det.
%
%   The integer whose digits are Parts, the lowest first, of so many bits each; negative if Bits is. Neighbours are
%   joined first: one after the other would take quadratic time.

assemble(Parts, Bits, Integer) :-
    Width is abs(Bits),
    joined(Parts, Width, Size),
    Integer is sign(Bits)*Size.

joined([Integer], _, Integer) :-
    !.
joined(Parts, Bits, Integer) :-
    neighbours(Parts, Bits, Wider),
    Twice is 2*Bits,
    joined(Wider, Twice, Integer).

neighbours([Low, High|Parts], Bits, [Part|Wider]) :-
    !,
    Part is High<<Bits \/ Low,
    neighbours(Parts, Bits, Wider).
neighbours(Rest, _, Rest).

%!  guard_halt is det.
%
%   Make `halt` an error: it would end the Python process, from whatever thread. For Python's use
%   only, for a Prolog of its own must be able to end.

guard_halt :-
    wrap_predicate(system:halt(_), deployment_engine, _,
                   throw(error(permission_error(halt, process, python),
                               context(system:halt/1, 'Prolog runs inside Python')))).

%   The rules of the user's files are kept on the stack while they raise; last, for it works from here on.

:- multifile system:term_expansion/2.
:- dynamic system:term_expansion/2.

system:term_expansion(Clause, Kept) :-
    prolog_load_context(source, File),
    deployment_engine:of_user(File),
    prolog_load_context(module, Module),
    deployment_engine:with_place(Clause, Module, Kept).
