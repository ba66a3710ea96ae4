:- module(deployment_loader,
          [ load_declarations/1,        % +File
            load_trusted/1,             % +File
            file_service/2              % +File, -Service
          ]).
:- use_module(library(apply), [partition/4]).
:- use_module(library(lists), [append/3, member/2]).
:- use_module(clauses, [judge_terms/3]).
:- use_module(declarations,
              [ forget_origin/1,
                in_one_change/1,
                origin_declarations/2,
                restore_declarations/2,
                with_origin/3
              ]).
:- use_module(facts, [service_now/4]).
:- use_module(file_hashes, [note_file/1]).
:- use_module(places, [with_place/3]).
:- use_module(reader, [read_terms/3, library_file/2]).

/** <module> Loading declarations from files

load_declarations/1 reads a file as data: it runs nothing of it, and takes it whole or not at all. load_trusted/1 consults a file as plain Prolog
does. In both, the file is the origin of what it declares, so that loading it again replaces that, and its own facts and rules become predicates
of the module `deployment_user`, in which queries are asked.
*/

:- dynamic
    file_clause/3.              % File, Line, Reference: of a clause that load_declarations/1 added

:- thread_local
    collecting/1,               % File: load_trusted/1 is running in this thread
    collected/3.                % Line, Column, Reason

%!  load_declarations(+File) is det.
%
%   Load File (text; the extension `.pl` may be left out) as data. What it declared before is replaced; its facts and rules are added to those
%   that other files have for the same predicates. clauses.pl tells what a file may hold.
%
%   @error existence_error(source_sink, File), permission_error(open, source_sink, File)
%   @error declarations_refused(File, Problems): nothing has changed. Problems are all that is wrong in File, in order, at most about 100:
%     `problem(Line, Column, Reason)`. Reason is one of those of judge_terms/3, `syntax_error(Message)`, `too_large(What, Limit)`,
%     `too_many(problems, Limit)`, `invalid_utf8`, `nul_character`, `quasi_quotation`, `end_of_file`, `empty`, or `error(Formal, Context)`, which
%     a declaration threw.

load_declarations(File) :-
    library_file(File, Path),
    file_directory_name(Path, Dir),
    read_terms(Path, Terms, Unreadable),
    judge_terms(Terms, Items, Forbidden),
    append(Unreadable, Forbidden, Problems),
    prepare_module,
    in_one_change(replace(Path, Dir, Items, Problems)),
    note_file(Path).

%!  replace(+Path, +Dir, +Items, +Problems) is det.
%
%   Let Items be what Path holds, unless there are Problems or applying them finds some. Clauses come last: a predicate that got one remains known
%   when the change is taken back.

replace(Path, Dir, Items, Problems) :-
    forget_origin(Path),
    drop_clauses(Path),
    partition(declares, Items, Declarations, Own),
    with_origin(Path, Dir, apply_items(Declarations, Path, Problems1, Problems)),
    accept(Problems1, Path),
    apply_items(Own, Path, Problems2, []),
    accept(Problems2, Path).

%!  declares(+Item) is semidet.

declares(item(_, _, declare(_))).

%!  accept(+Problems, +Path) is det.
%
%   @error declarations_refused(Path, Problems): there are some

accept([], _) :- !.
accept(Problems, Path) :-
    refuse(Path, Problems).

%!  refuse(+Path, +Problems) is erroneous.
%
%   At most 100 of Problems are told.

refuse(Path, Problems) :-
    sort(Problems, Sorted),
    (   length(Told, 100),
        append(Told, [problem(Line, Column, _)|_], Sorted)
    ->  append(Told, [problem(Line, Column, too_many(problems, 100))], Final)
    ;   Final = Sorted
    ),
    throw(error(declarations_refused(Path, Final), _)).

%!  drop_clauses(+Path) is det.
%
%   Remove the clauses that Path had added.

drop_clauses(Path) :-
    forall(retract(file_clause(Path, _, Reference)),
           catch(erase(Reference), error(existence_error(_, _), _), true)).

%!  apply_items(+Items, +Path, -Problems, ?Rest) is det.
%
%   Problems are those of Items, followed by Rest.

apply_items([], _, Problems, Problems).
apply_items([item(Line, Column, Item)|Items], Path, Problems, Rest) :-
    catch(apply_item(Item, Path, Line), error(Formal, Context), true),
    (   nonvar(Formal)
    ->  Problems = [problem(Line, Column, error(Formal, Context))|Problems1]
    ;   Problems = Problems1
    ),
    apply_items(Items, Path, Problems1, Rest).

%!  apply_item(+Item, +Path, +Line) is det.

apply_item(declare(Goal), _, _) :-
    functor(Goal, Name, Arity),
    declaring_module(Name/Arity, Module),
    once(Module:Goal).
apply_item(dynamic(Indicator), _, _) :-
    dynamic(deployment_user:Indicator).
apply_item(clause(Clause), Path, Line) :-
    (   with_place(Clause, deployment_user, Kept)
    ->  true
    ;   Kept = Clause
    ),
    assertz(deployment_user:Kept, Reference),
    assertz(file_clause(Path, Line, Reference)).

deployment_places:place(Reference, File, Line) :-
    file_clause(File, Line, Reference).

%!  declaring_module(+PredicateIndicator, -Module) is det.
%
%   Module has the declaring predicate.

declaring_module(Name/Arity, Module) :-
    functor(Head, Name, Arity),
    member(Module, [deployment_declarations, deployment_glue]),
    predicate_property(Module:Head, defined),
    !.

%!  prepare_module is det.
%
%   Let the rules of files see what they may use.

prepare_module :-
    set_module(deployment_user:base(user)),
    (   import_module(deployment_user, deployment_glue)
    ->  true
    ;   current_module(deployment_glue)
    ->  add_import_module(deployment_user, deployment_glue, end)
    ;   add_import_module(deployment_user, deployment_declarations, end)
    ).

%!  load_trusted(+File) is det.
%
%   Consult File into the module `deployment_user`: its directives are run. What it declared before is replaced; when anything in it is wrong, it
%   is as if it had declared nothing, and what it declared before remains. (What else its directives did, and its clauses, cannot be taken back.)
%
%   @error existence_error(source_sink, File), permission_error(open, source_sink, File)
%   @error declarations_refused(File, Problems): Prolog printed errors or warnings. Problems are `problem(Line, Column, message(Text))`, with
%     Column 1 where Prolog tells none.

load_trusted(File) :-
    library_file(File, Path),
    prepare_module,
    origin_declarations(Path, Before),
    catch(consult_whole(Path), Error,
          ( restore_declarations(Path, Before),
            throw(Error) )),
    note_file(Path).

%!  consult_whole(+Path) is det.
%
%   @error declarations_refused(Path, Problems)

consult_whole(Path) :-
    in_one_change(( forget_origin(Path), drop_clauses(Path) )),
    setup_call_cleanup(
        asserta(collecting(Path), Reference),
        with_origin(Path, _, load_files(deployment_user:Path, [if(true), silent(true)])),
        erase(Reference)),
    findall(problem(Line, Column, Reason), retract(collected(Line, Column, Reason)), Problems),
    (   Problems == []
    ->  true
    ;   refuse(Path, Problems)
    ).

%!  file_service(+File, -Service) is nondet.
%
%   The current declaration of Service is that of File, which was loaded.  Solutions are in order of declaration.
%
%   @error as load_declarations/1 where File is not there

file_service(File, Service) :-
    library_file(File, Path),
    findall(Sequence-Name, service_now(Name, _, Path, Sequence), Unordered),
    keysort(Unordered, Ordered),
    member(_-Service, Ordered).

%!  collect(+Message, +Kind, +Lines) is semidet.
%
%   Keep what would be printed while load_trusted/1 loads. That a directive failed is not told when its error was.

collect(Message, Kind, Lines) :-
    memberchk(Kind, [error, warning]),
    collecting(Path),
    !,
    message_place(Message, Path, Line, Column),
    (   Message = goal_failed(_, _),
        collected(Line, _, _)
    ->  true
    ;   message_to_text(Message, Lines, Text),
        assertz(collected(Line, Column, message(Text)))
    ).

%!  message_place(+Message, +Path, -Line, -Column) is det.

message_place(error(_, Context), Path, Line, Column) :-
    compound(Context),
    Context = file(Path, Line, LinePosition, _),
    !,
    Column is LinePosition + 1.
message_place(_, _, Line, 1) :-
    source_location(_, Line),
    !.
message_place(_, _, 1, 1).

%!  message_to_text(+Message, +Lines, -Text:string) is det.
%
%   Text is that of Lines; of a syntax error without its place, which its message repeats.

message_to_text(Message, Lines0, Text) :-
    (   Message = error(syntax_error(What), _)
    ->  '$messages':translate_message(error(syntax_error(What), _), Lines, [])
    ;   Lines = Lines0
    ),
    with_output_to(string(Text0), print_message_lines(current_output, '', Lines)),
    split_string(Text0, "", " \n", [Text]).

:- multifile
    user:message_hook/3.
:- dynamic
    user:message_hook/3.

user:message_hook(Message, Kind, Lines) :-
    deployment_loader:collect(Message, Kind, Lines).
