:- module(declared,
          [ declared/2,                 % -Text, -Content
            missing/2,                  % +File, -Term
            ran/0
          ]).
:- use_module(library(aggregate), [aggregate_all/3]).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(lists), [append/3, member/2]).

/** <module> What has become of declaration files, for tests
*/

%!  declared(-Text:string, -Content:string) is det.
%
%   Text tells all that is declared, by whom and in which order; the rules that files have; and how they are read. Content is the same, but for what
%   changes when the same is declared again: which declaration is the later one.

declared(Text, Content) :-
    findall(Fact, fact(Fact), Facts),
    findall(Predicate-Rule, rule(Predicate, Rule), Rules0),
    keysort(Rules0, Rules),
    aggregate_all(count, deployment_loader:file_clause(_, _, _), Count),
    findall(op(Priority, Type, Name), current_op(Priority, Type, deployment_user:Name), Operators),
    msort(Operators, Sorted),
    deployment_user:findall(Flag=Value,
                            ( member(Flag, [double_quotes, back_quotes, character_escapes]),
                              current_prolog_flag(Flag, Value) ),
                            Flags),
    findall(Head, ( current_predicate(_, deployment_user:Head), predicate_property(deployment_user:Head, dynamic) ), Heads0),
    msort(Heads0, Heads),
    maplist(without_sequence, Facts, Unordered),
    msort(Unordered, Contents),
    written(all(Facts, Heads, Rules, Count, Sorted, Flags), Text),
    written(all(Contents, Rules, Count, Sorted, Flags), Content).

written(Term, Text) :-
    \+ \+ ( numbervars(Term, 0, _),
            format(string(Written), '~q', [Term]),
            nb_setval(declared, Written) ),
    nb_getval(declared, Text).

fact(Fact) :-
    member(Name/Arity,
           [ service_now/4, method_now/4, sources_now/4, hosts_now/4, superseded/5, hook/5, host_entry/3, host_name_in/3, loaded_by/2 ]),
    functor(Fact, Name, Arity),
    call(deployment_facts:Fact).

without_sequence(Fact0, Fact) :-
    Fact0 =.. [Name|Arguments0],
    (   append(Arguments1, [Sequence], Arguments0),
        integer(Sequence)
    ->  Fact =.. [Name|Arguments1]
    ;   Fact = Fact0
    ).

rule(Name/Arity, rule(Head, Body, File, Line)) :-
    current_predicate(_, deployment_user:Head),
    \+ predicate_property(deployment_user:Head, imported_from(_)),
    predicate_property(deployment_user:Head, dynamic),
    functor(Head, Name, Arity),
    clause(deployment_user:Head, Body, Reference),
    (   deployment_loader:file_clause(File, Line, Reference)
    ->  true
    ;   File = none,
        Line = 0
    ).

%!  missing(+File, -Term) is semidet.
%
%   Term, which File has, did not become what it says.

missing(File, Term) :-
    set_module(declared_syntax:base(system)),
    setup_call_cleanup(
        open(File, read, In, [encoding(utf8)]),
        missing_in(In, File, Term),
        close(In)).

missing_in(In, File, Term) :-
    read_term(In, Read, [module(declared_syntax), term_position(Position)]),
    Read \== end_of_file,
    stream_position_data(line_count, Position, Line),
    (   applied(Read, File, Line)
    ->  missing_in(In, File, Term)
    ;   Term = Read
    ).

applied((:- Directive), File, _) :-
    !,
    functor(Directive, Name, _),
    (   kind(Name, Kind)
    ->  arg(1, Directive, Service0),
        atom_string(Service, Service0),
        once(declared_by(Kind, Service, File))
    ;   memberchk(Name, [use_module, dynamic, discontiguous, encoding])
    ).
applied(_, File, Line) :-
    deployment_loader:file_clause(File, Line, _),
    !.

kind(declare_service, service_now).
kind(declare_deploy_method, method_now).
kind(declare_service_sources, sources_now).
kind(declare_service_hosts, hosts_now).
kind(declare_lifecycle_hook, hook).

declared_by(hook, Service, File) :-
    !,
    deployment_facts:hook(Service, _, _, File, _).
declared_by(Kind, Service, File) :-
    Fact =.. [Kind, Service, _, File, _],
    call(deployment_facts:Fact).

%!  ran is semidet.
%
%   A goal ran that a file had where none may run.

ran :-
    flag(ran_away, Runs, 0),
    Runs \== 0.
ran :-
    current_predicate(_:ran_away/_).
