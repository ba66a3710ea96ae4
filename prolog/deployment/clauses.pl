:- module(deployment_clauses,
          [ judge_terms/3               % +Terms, -Items, -Problems
          ]).
:- use_module(library(apply), [maplist/2]).
:- use_module(library(lists), [append/3, member/2]).
:- autoload(library(occurs), [sub_term/2]).
:- use_module(declarations, [declaration/1]).
:- use_module(nearest, [nearest/3]).
:- use_module(goals, [pure_goal/1, query/1, subgoals/2]).

/** <module> What a file that is loaded as data may hold

Directives that declare, and facts and rules of its own. A rule may use the file's own predicates, the queries of library(deployment_glue) and a
list of pure predicates: none that reads or writes files, starts processes, changes the database, or calls a goal that is not written there.
*/

%!  judge_terms(+Terms:list, -Items:list, -Problems:list) is det.
%
%   Terms are `term(Line, Column, Term)`. Items are what they stand for, `item(Line, Column, Item)` in the same order:
%
%     - `declare(Goal)`: a call of a declaration/1
%     - `dynamic(PredicateIndicator)`: a predicate of the file that may have no clauses
%     - `clause(Clause)`: a fact or rule of the file
%
%   Problems are `problem(Line, Column, Reason)` for terms that may not be there. Reasons:
%
%     - `forbidden_directive(PI)`, `unknown_directive(PI, Nearest)`, `unbound_directive(PI)`, `not_a_directive`
%     - `needs_directive(PI)`: a declaration without `:-`
%     - `reserved(PI, system|hook|library)`: a clause for a predicate that is not the file's
%     - `qualified`, `unbound_goal`, `not_a_clause`, `grammar_rule`, `forbidden_goal(PI, Nearest)`
%     - `empty_parentheses(Name)`: `Name()`; `list_with_arguments`: `[](Argument, …)`
%
%   Nearest is a known name or `none`.

judge_terms(Terms, Items, Problems) :-
    own_predicates(Terms, Own),
    judge_terms(Terms, Own, Items, Problems).

%!  judge_terms(+Terms, +Own, -Items, -Problems) is det.

judge_terms([], _, [], []).
judge_terms([term(Line, Column, Term)|Terms], Own, Items, Problems) :-
    catch(judge(Term, Own, Found, []), refused(Reason), true),
    (   nonvar(Reason)
    ->  Problems = [problem(Line, Column, Reason)|Problems1],
        Items = Items1
    ;   Problems = Problems1,
        placed(Found, Line, Column, Items, Items1)
    ),
    judge_terms(Terms, Own, Items1, Problems1).

%!  placed(+Found, +Line, +Column, -Items, ?Rest) is det.

placed([], _, _, Items, Items).
placed([Item|Found], Line, Column, [item(Line, Column, Item)|Items], Rest) :-
    placed(Found, Line, Column, Items, Rest).

%!  refuse(+Reason) is erroneous.

refuse(Reason) :-
    throw(refused(Reason)).

%!  own_predicates(+Terms, -Own) is det.
%
%   Own is a term whose arguments are the `Name/Arity` of the predicates that the file defines, sorted.

own_predicates(Terms, Own) :-
    findall(Name/Arity, own_predicate(Terms, Name, Arity), All),
    sort(All, Sorted),
    compound_name_arguments(Own, own, Sorted).

%!  own_predicate(+Terms, -Name, -Arity) is nondet.

own_predicate(Terms, Name, Arity) :-
    member(term(_, _, Term), Terms),
    defines(Term, Name, Arity).

%!  defines(+Term, -Name, -Arity) is nondet.

defines(Term, _, _) :-
    var(Term),
    !,
    fail.
defines((:- Directive), Name, Arity) :-
    !,
    nonvar(Directive),
    Directive = dynamic(Specification),
    indicators(Specification, Indicators),
    member(Name/Arity, Indicators).
defines((Head :- _), Name, Arity) :-
    !,
    callable(Head),
    \+ empty_parentheses(Head, _),
    functor(Head, Name, Arity).
defines(Head, Name, Arity) :-
    callable(Head),
    \+ empty_parentheses(Head, _),
    functor(Head, Name, Arity).

%!  empty_parentheses(+Term, -Name) is semidet.
%
%   Term is `Name()`, which no predicate has for a head.

empty_parentheses(Term, Name) :-
    compound(Term),
    compound_name_arity(Term, Name, 0).

%!  list_with_arguments(+Term) is semidet.
%
%   Term is `[](Argument, …)`: no value of any option, and none in Python.

list_with_arguments(Term) :-
    compound(Term),
    compound_name_arity(Term, Name, _),
    Name == [].

%!  judge(+Term, +Own, -Items, ?Rest) is det.
%
%   @throws refused(Reason)

judge(Term, _, _, _) :-
    var(Term),
    !,
    refuse(not_a_clause).
judge((:- Directive), _, Items, Rest) :-
    !,
    judge_directive(Directive, Items, Rest).
judge((?- _), _, _, _) :-
    !,
    refuse(not_a_directive).
judge((_ --> _), _, _, _) :-
    !,
    refuse(grammar_rule).
judge((Head :- Body), Own, [clause((Head :- Body))|Rest], Rest) :-
    !,
    judge_head(Head),
    judge_body(Body, Own).
judge(Fact, _, [clause(Fact)|Rest], Rest) :-
    judge_head(Fact).

%!  judge_directive(+Directive, -Items, ?Rest) is det.

judge_directive(Directive, _, _) :-
    empty_parentheses(Directive, Name),
    !,
    refuse(empty_parentheses(Name)).
judge_directive(Directive, _, _) :-
    \+ callable(Directive),
    !,
    refuse(not_a_directive).
judge_directive(_:_, _, _) :-
    !,
    refuse(qualified).
judge_directive(Directive, Items, Items) :-
    harmless(Directive),
    !.
judge_directive(dynamic(Specification), Items, Rest) :-
    !,
    (   indicators(Specification, Indicators)
    ->  maplist(judge_indicator, Indicators),
        dynamics(Indicators, Items, Rest)
    ;   refuse(forbidden_directive((dynamic)/1))
    ).
judge_directive(Directive, [declare(Directive)|Rest], Rest) :-
    functor(Directive, Name, Arity),
    declaration(Name/Arity),
    !,
    (   \+ ground(Directive)
    ->  refuse(unbound_directive(Name/Arity))
    ;   sub_term(Term, Directive),
        list_with_arguments(Term)
    ->  refuse(list_with_arguments)
    ;   true
    ).
judge_directive(Directive, _, _) :-
    functor(Directive, Name, Arity),
    findall(Known, declaration(Known/_), Names),
    (   nearest(Name, Names, Nearest)
    ->  refuse(unknown_directive(Name/Arity, Nearest))
    ;   refuse(forbidden_directive(Name/Arity))
    ).

%!  harmless(+Directive) is semidet.
%
%   Directive tells something about the file to plain Prolog, that needs not be told here.

harmless(use_module(Library)) :-
    known_library(Library).
harmless(use_module(Library, Imports)) :-
    known_library(Library),
    ground(Imports),
    is_list(Imports).
harmless(discontiguous(Specification)) :-
    indicators(Specification, _).
harmless(encoding(Encoding)) :-
    Encoding == utf8.

%!  known_library(+Library) is semidet.
%
%   Library is this one, or one whose predicates pure_goal/1 lists.

known_library(Library) :-
    ground(Library),
    Library = library(Name),
    memberchk(Name, [deployment_glue, lists, apply, aggregate, pairs, error]).

%!  indicators(+Specification, -Indicators:list) is semidet.
%
%   Indicators are the `Name/Arity` in a comma-separated sequence or list.

indicators(Specification, Indicators) :-
    ground(Specification),
    phrase(indicators(Specification), Indicators).

indicators((Left, Right)) --> !, indicators(Left), indicators(Right).
indicators([]) --> !, [].
indicators([Head|Tail]) --> !, indicators(Head), indicators(Tail).
indicators(Name/Arity) --> { atom(Name), integer(Arity), Arity >= 0, Arity =< 64 }, [Name/Arity].

%!  dynamics(+Indicators, -Items, ?Rest) is det.

dynamics([], Items, Items).
dynamics([Indicator|Indicators], [dynamic(Indicator)|Items], Rest) :-
    dynamics(Indicators, Items, Rest).

%!  judge_indicator(+PredicateIndicator) is det.

judge_indicator(Name/Arity) :-
    functor(Head, Name, Arity),
    judge_head(Head).

%!  judge_head(+Head) is det.
%
%   Head is one that a file may have clauses for.

judge_head(Head) :-
    empty_parentheses(Head, Name),
    !,
    refuse(empty_parentheses(Name)).
judge_head(Head) :-
    \+ callable(Head),
    !,
    refuse(not_a_clause).
judge_head(Head) :-
    is_dict(Head),
    !,
    refuse(not_a_clause).
judge_head(_:_) :-
    !,
    refuse(qualified).
judge_head(Head) :-
    functor(Head, Name, Arity),
    (   declaration(Name/Arity)
    ->  refuse(needs_directive(Name/Arity))
    ;   reserved(Name, Arity, Owner)
    ->  refuse(reserved(Name/Arity, Owner))
    ;   true
    ).

%!  reserved(+Name, +Arity, -Owner) is semidet.
%
%   The predicate Name/Arity is not for files to define: it is the system's, a hook that the system calls, or a library's.

reserved(Name, _, hook) :-
    hook_name(Name),
    !.
reserved(Name, Arity, library) :-
    pure_goal(Name/Arity),
    \+ built_in(Name, Arity),
    !.
reserved(Name, Arity, system) :-
    built_in(Name, Arity),
    !.
reserved(Name, _, system) :-
    sub_atom(Name, 0, _, _, $),
    !.
reserved(Name, _, system) :-
    memberchk(Name, [(:), (','), (;), (->), (*->), (:-), (-->), (=>), ('|'), (\+), {}, []]),
    !.
reserved(Name, Arity, library) :-
    current_module(deployment_glue),
    module_property(deployment_glue, exports(Exports)),
    memberchk(Name/Arity, Exports).

%!  built_in(+Name, +Arity) is semidet.
%
%   Name/Arity is a predicate of the system. (predicate_property/2 alone would load the library that has such a predicate.)

built_in(Name, Arity) :-
    current_predicate(system:Name/Arity),
    functor(Head, Name, Arity),
    predicate_property(system:Head, built_in),
    !.

%!  hook_name(?Name) is nondet.
%
%   Prolog looks for a predicate Name in the module of a file, or in `user`, when it reads, loads, prints or asks.

hook_name(term_expansion).
hook_name(goal_expansion).
hook_name(portray).
hook_name(exception).
hook_name(message_hook).
hook_name(message_property).
hook_name(message_prefix).
hook_name(thread_message_hook).
hook_name(prolog_load_file).
hook_name(prolog_file_type).
hook_name(prolog_event_hook).
hook_name(file_search_path).
hook_name(library_directory).
hook_name(expand_query).
hook_name(expand_answer).
hook_name(attr_unify_hook).
hook_name(attr_portray_hook).
hook_name(attribute_goals).
hook_name(unknown_predicate_hook).
hook_name(prolog_exception_hook).

%!  judge_body(+Body, +Own) is det.
%
%   Body calls nothing but what is allowed. Own are the file's own predicates.

judge_body(Body, _) :-
    empty_parentheses(Body, Name),
    !,
    refuse(empty_parentheses(Name)).
judge_body(Body, _) :-
    \+ callable(Body),
    !,
    refuse(unbound_goal).
judge_body(Body, _) :-
    is_dict(Body),
    !,
    refuse(unbound_goal).
judge_body(_:_, _) :-
    !,
    refuse(qualified).
judge_body(Body, Own) :-
    subgoals(Body, Goals),
    !,
    judge_goals(Goals, Own).
judge_body(Goal, Own) :-
    functor(Goal, Name, Arity),
    (   pure_goal(Name/Arity)
    ->  true
    ;   query(Name/Arity)
    ->  true
    ;   own(Own, Name/Arity)
    ->  true
    ;   forbidden(Name/Arity, Own)
    ).

%!  judge_goals(+Goals, +Own) is det.

judge_goals([], _).
judge_goals([Goal|Goals], Own) :-
    judge_body(Goal, Own),
    judge_goals(Goals, Own).

%!  own(+Own, +PredicateIndicator) is semidet.
%
%   Binary search in the sorted arguments of Own.

own(Own, Indicator) :-
    compound_name_arity(Own, _, Count),
    own(1, Count, Own, Indicator).

%!  own(+From, +To, +Own, +PredicateIndicator) is semidet.

own(From, To, Own, Indicator) :-
    From =< To,
    Middle is (From + To) // 2,
    arg(Middle, Own, Found),
    compare(Order, Indicator, Found),
    own(Order, From, Middle, To, Own, Indicator).

%!  own(+Order, +From, +Middle, +To, +Own, +PredicateIndicator) is semidet.

own(=, _, _, _, _, _).
own(<, From, Middle, _, Own, Indicator) :-
    To is Middle - 1,
    own(From, To, Own, Indicator).
own(>, _, Middle, To, Own, Indicator) :-
    From is Middle + 1,
    own(From, To, Own, Indicator).

%!  forbidden(+PredicateIndicator, +Own) is erroneous.

forbidden(Name/Arity, Own) :-
    known_names(Own, Names),
    (   nearest(Name, Names, Nearest),
        Nearest \== Name
    ->  refuse(forbidden_goal(Name/Arity, Nearest))
    ;   refuse(forbidden_goal(Name/Arity, none))
    ).

%!  known_names(+Own, -Names:list) is det.
%
%   Names are those of the predicates that a rule may use, but for Own when they are too many to compare.

known_names(Own, Names) :-
    findall(Known, ( pure_goal(Known/_) ; query(Known/_) ), Public),
    compound_name_arguments(Own, _, Defined),
    (   length(Defined, Count),
        Count =< 200
    ->  findall(Known, member(Known/_, Defined), Private),
        append(Private, Public, Names)
    ;   Names = Public
    ).
