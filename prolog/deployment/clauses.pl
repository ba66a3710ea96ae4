:- module(deployment_clauses,
          [ judge_terms/3,              % +Terms, -Items, -Problems
            pure_goal/1                 % ?PredicateIndicator
          ]).
:- use_module(library(apply), [maplist/2]).
:- use_module(library(lists), [member/2]).
:- use_module(declarations, [declaration/1]).
:- use_module(nearest, [nearest/3]).

/** <module> What a file that is loaded as data may hold

Directives that declare, and facts and rules of its own. A rule may use the file's own predicates, the queries of library(deployment_glue) and a
list of pure predicates: none that reads or writes files, starts processes, changes the database, or calls a goal that is not written there.
*/

:- multifile
    pure_goal/1.

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
    Own =.. [own|Sorted].

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
    functor(Head, Name, Arity).
defines(Head, Name, Arity) :-
    callable(Head),
    functor(Head, Name, Arity).

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
    (   ground(Directive)
    ->  true
    ;   refuse(unbound_directive(Name/Arity))
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
    compound(Own),
    functor(Own, _, Count),
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
    Own =.. [_|Defined],
    findall(Known, ( member(Known/_, Defined) ; pure_goal(Known/_) ; query(Known/_) ), Names),
    (   nearest(Name, Names, Nearest),
        Nearest \== Name
    ->  refuse(forbidden_goal(Name/Arity, Nearest))
    ;   refuse(forbidden_goal(Name/Arity, none))
    ).

%!  subgoals(+Goal, -Goals:list) is semidet.
%
%   Goal is a control structure, or calls goals that are its arguments: Goals.

subgoals((A, B), [A, B]).
subgoals((A ; B), [A, B]).
subgoals((A -> B), [A, B]).
subgoals((A *-> B), [A, B]).
subgoals(\+ A, [A]).
subgoals(once(A), [A]).
subgoals(ignore(A), [A]).
subgoals(forall(A, B), [A, B]).
subgoals(findall(_, A, _), [A]).
subgoals(findall(_, A, _, _), [A]).
subgoals(findnsols(_, _, A, _), [A]).
subgoals(aggregate_all(Specification, A, _), [A]) :-
    nonvar(Specification).
subgoals(bagof(_, A0, _), [A]) :-
    without_carets(A0, A).
subgoals(setof(_, A0, _), [A]) :-
    without_carets(A0, A).

%!  without_carets(+Goal0, -Goal) is det.
%
%   Goal is Goal0 without the `Variable^` before it.

without_carets(Goal, Goal) :-
    var(Goal),
    !.
without_carets(_ ^ Goal0, Goal) :-
    !,
    without_carets(Goal0, Goal).
without_carets(Goal, Goal).

%!  query(?PredicateIndicator) is nondet.
%
%   The queries of library(deployment_glue) that look at nothing but what is declared and recorded.

query(service_config/2).
query(deploy_method_config/3).
query(service_sources/2).
query(service_hosts/2).
query(service_host/3).
query(lifecycle_hooks/2).
query(deployed_hash/2).
query(deployed_hash/3).
query(rollback_hash/2).
query(rollback_hash/3).
query(validate_security/2).
query(requires_encryption/1).
query(is_local_service/1).

%!  pure_goal(?PredicateIndicator) is nondet.
%
%   Multifile. A predicate of Prolog or one of its libraries that a rule may use: it has no effect but to bind its arguments, and calls no goal
%   that is an argument.

pure_goal(true/0).
pure_goal(fail/0).
pure_goal(false/0).
pure_goal(!/0).
pure_goal((=)/2).
pure_goal((\=)/2).
pure_goal((==)/2).
pure_goal((\==)/2).
pure_goal((=@=)/2).
pure_goal((\=@=)/2).
pure_goal((@<)/2).
pure_goal((@>)/2).
pure_goal((@=<)/2).
pure_goal((@>=)/2).
pure_goal(compare/3).
pure_goal((is)/2).
pure_goal((=:=)/2).
pure_goal((=\=)/2).
pure_goal((<)/2).
pure_goal((>)/2).
pure_goal((=<)/2).
pure_goal((>=)/2).
pure_goal(succ/2).
pure_goal(plus/3).
pure_goal(between/3).
pure_goal(var/1).
pure_goal(nonvar/1).
pure_goal(ground/1).
pure_goal(atom/1).
pure_goal(atomic/1).
pure_goal(string/1).
pure_goal(number/1).
pure_goal(integer/1).
pure_goal(float/1).
pure_goal(rational/1).
pure_goal(compound/1).
pure_goal(callable/1).
pure_goal(is_list/1).
pure_goal(functor/3).
pure_goal(arg/3).
pure_goal((=..)/2).
pure_goal(copy_term/2).
pure_goal(length/2).
pure_goal(msort/2).
pure_goal(sort/2).
pure_goal(sort/4).
pure_goal(keysort/2).
pure_goal(atom_length/2).
pure_goal(atom_concat/3).
pure_goal(atom_codes/2).
pure_goal(atom_chars/2).
pure_goal(atom_number/2).
pure_goal(atom_string/2).
pure_goal(atomic_list_concat/2).
pure_goal(atomic_list_concat/3).
pure_goal(char_code/2).
pure_goal(char_type/2).
pure_goal(code_type/2).
pure_goal(downcase_atom/2).
pure_goal(upcase_atom/2).
pure_goal(number_codes/2).
pure_goal(number_string/2).
pure_goal(split_string/4).
pure_goal(string_chars/2).
pure_goal(string_codes/2).
pure_goal(string_concat/3).
pure_goal(string_length/2).
pure_goal(string_lower/2).
pure_goal(string_upper/2).
pure_goal(sub_atom/5).
pure_goal(sub_atom_icasechk/3).
pure_goal(sub_string/5).
pure_goal(append/2).
pure_goal(append/3).
pure_goal(delete/3).
pure_goal(flatten/2).
pure_goal(intersection/3).
pure_goal(last/2).
pure_goal(list_to_set/2).
pure_goal(max_list/2).
pure_goal(max_member/2).
pure_goal(member/2).
pure_goal(memberchk/2).
pure_goal(min_list/2).
pure_goal(min_member/2).
pure_goal(nth0/3).
pure_goal(nth1/3).
pure_goal(numlist/3).
pure_goal(permutation/2).
pure_goal(reverse/2).
pure_goal(select/3).
pure_goal(selectchk/3).
pure_goal(subtract/3).
pure_goal(sum_list/2).
pure_goal(sumlist/2).
pure_goal(union/3).
pure_goal(pairs_keys/2).
pure_goal(pairs_keys_values/3).
pure_goal(pairs_values/2).
