:- encoding(utf8).
:- use_module(library(deployment/declarations)).
:- use_module(library(deployment/loader)).
:- use_module(library(deployment_glue)).
:- use_module(library(filesex), [directory_file_path/3, delete_directory_and_contents/1]).
:- use_module(library(lists), [append/3, last/2, member/2]).
:- use_module(library(plunit)).
:- use_module(library(readutil), [read_file_to_string/3]).

:- dynamic ran/0, folder/1.

% ran/0 is what hostile files try to make true.

begin :-
    tmp_file(loader, Folder),
    make_directory(Folder),
    assertz(folder(Folder)).

end :-
    forall(retract(folder(Folder)), delete_directory_and_contents(Folder)),
    forget.

forget :-
    forall(service_config(Service, _), undeclare_service(Service)).

% path(+Name, -File): File is in the folder of these tests.

path(Name, File) :-
    folder(Folder),
    directory_file_path(Folder, Name, File).

% written(+Name, +Content, -File): Content is text, bytes(Codes), around(Before, Count, Text, After) with Text Count times, or
% nested(Count, Open, Close).

written(Name, Content, File) :-
    path(Name, File),
    setup_call_cleanup(open(File, write, Out, [type(binary)]), write_content(Content, Out), close(Out)).

write_content(bytes(Codes), Out) :-
    !,
    forall(member(Code, Codes), put_byte(Out, Code)).
write_content(around(Before, Count, Text, After), Out) :-
    !,
    set_stream(Out, encoding(utf8)),
    write(Out, Before),
    forall(between(1, Count, _), write(Out, Text)),
    write(Out, After).
write_content(nested(Count, Open, Close), Out) :-
    !,
    write_content(around("a(", Count, Open, x), Out),
    write_content(around("", Count, Close, ")."), Out).
write_content(Text, Out) :-
    set_stream(Out, encoding(utf8)),
    write(Out, Text).

% loaded(+Text): as file s.pl.

loaded(Text) :-
    written('s.pl', Text, File),
    load_declarations(File).

% problems(+Content, -Problems): what is wrong in Content, [] when it was loaded.

problems(Content, Problems) :-
    written('s.pl', Content, File),
    catch(( load_declarations(File), Problems = [] ),
          error(declarations_refused(File, Problems), _),
          true).

trusted_problems(Content, Problems) :-
    written('t.pl', Content, File),
    catch(( load_trusted(File), Problems = [] ),
          error(declarations_refused(File, Problems), _),
          true).

% answers(+Template, +Goal, -All): of Goal in the module of queries.

answers(Template, Goal, All) :-
    findall(Template, deployment_user:Goal, All).

:- begin_tests(load_declarations, [setup(begin), cleanup(end)]).

test(everything_that_can_be_declared, Seen == [[port(80)], ssh-[], ['*.py'], [hook(pre_deploy, custom(make))], [host_config(h, [])]]) :-
    loaded(":- use_module(library(deployment_glue)).
            :- encoding(utf8).
            :- declare_lifecycle_hook(api, pre_deploy, custom('make')).
            :- declare_service_hosts(api, [host_config('h', [])]).
            :- declare_service_sources(api, [\"*.py\"]).
            :- declare_deploy_method(api, ssh, []).
            :- declare_service(api, [port(80)])."),
    service_config(api, Options),
    deploy_method_config(api, Method, MethodOptions),
    service_sources(api, Patterns),
    lifecycle_hooks(api, Hooks),
    service_hosts(api, Hosts),
    Seen = [Options, Method-MethodOptions, Patterns, Hooks, Hosts].
test(sources_are_relative_to_the_file, Base == Folder) :-
    loaded(":- declare_service_sources(api, [x])."),
    source_base(api, Base),
    folder(Folder).
test(the_extension_may_be_left_out, Options == [port(7)]) :-
    written('short.pl', ":- declare_service(short, [port(7)]).", _),
    path(short, Name),
    atom_string(Name, Text),
    load_declarations(Text),
    service_config(short, Options).
test(a_byte_order_mark_and_other_letters, Options == [start_command('grüße €')]) :-
    written('u.pl', "\uFEFF:- declare_service(u, [start_command('grüße €')]).", File),
    load_declarations(File),
    service_config(u, Options).
test(loading_again_replaces, Services == [b]) :-
    forget,
    loaded(":- declare_service(a, []). :- declare_service(b, [])."),
    loaded(":- declare_service(b, [])."),
    findall(Service, service_config(Service, _), Services).
test(another_file_is_left_alone, Services == [a, c]) :-
    forget,
    loaded(":- declare_service(a, [])."),
    written('other.pl', ":- declare_service(b, []).", Other),
    load_declarations(Other),
    written('other.pl', ":- declare_service(c, []).", Other),
    load_declarations(Other),
    findall(Service, service_config(Service, _), Services).
test(facts_and_rules_can_be_asked, Zones == [b]) :-
    loaded("zone(a, 1). zone(b, 2). large(Z) :- zone(Z, N), N > 1, \\+ member(Z, [q])."),
    answers(Z, large(Z), Zones).
test(rules_see_what_is_declared, Names == [y]) :-
    loaded(":- declare_service(x, [port(1)]). :- declare_service(y, [port(2)]).
            high(S) :- service_config(S, Options), member(port(P), Options), P > 1."),
    answers(S, high(S), Names).
test(rules_with_control_and_aggregation, Seen == [[1, 2], 2, 3, yes]) :-
    loaded("n(1). n(2).
            q(Ns) :- findall(N, n(N), Ns).
            c(C) :- aggregate_all(count, n(_), C).
            s(S) :- q(Ns), sum_list(Ns, S).
            t(X) :- ( forall(n(N), N > 0) -> X = yes ; X = no ), !."),
    answers(X, ( q(X) ; c(X) ; s(X) ; t(X) ), Seen).
test(rules_are_replaced_and_not_added_to, Xs == [2]) :-
    loaded("only(1)."),
    loaded("only(2)."),
    answers(X, only(X), Xs).
test(rules_of_two_files_add_up, Xs == [1, 2]) :-
    loaded("both(1)."),
    written('other.pl', "both(2).", Other),
    load_declarations(Other),
    answers(X, both(X), Xs).
test(a_predicate_without_clauses, Xs == []) :-
    loaded(":- dynamic none/1, nobody/2. some(X) :- none(X)."),
    answers(X, some(X), Xs).
test(as_deep_as_allowed, Depth == 499) :-
    loaded(nested(499, "f(", ")")),
    answers(X, a(X), [Term]),
    depth(Term, Depth).
test(quoted_brackets_do_not_nest, Length == 3000) :-
    loaded(around("a([", 2999, "'((([{', ", "0'(]).")),
    answers(X, a(X), [List]),
    length(List, Length).
test(a_list_may_be_long, Length == 100_001) :-
    loaded(around("a([", 100_000, "f(0), ", "x]).")),
    answers(X, a(X), [List]),
    length(List, Length).
test(operators_of_the_user_do_not_matter, Problems = [problem(1, _, syntax_error(operator_expected))]) :-
    setup_call_cleanup(op(700, xfx, user:(===>)),
                       problems("a(x ===> y).", Problems),
                       op(0, xfx, user:(===>))).
test(flags_of_the_user_do_not_matter, Xs == ["text"]) :-
    setup_call_cleanup(set_prolog_flag(user:double_quotes, codes),
                       loaded("quoted(\"text\")."),
                       set_prolog_flag(user:double_quotes, string)),
    answers(X, quoted(X), Xs).

depth(x, 0) :- !.
depth(f(Term), Depth) :-
    depth(Term, Less),
    Depth is Less + 1.

:- end_tests(load_declarations).

:- begin_tests(load_refused, [setup(begin), cleanup(end)]).

test(all_problems_with_their_places, Problems =@= [problem(1, 1, error(domain_error(service_option, prot(80)), context(_, nearest(port)))),
                                                  problem(2, 4, syntax_error(operator_expected)),
                                                  problem(3, 3, forbidden_directive(shell/1)),
                                                  problem(3, 22, unknown_directive(declare_servce/2, declare_service))]) :-
    problems(":- declare_service(a, [prot(80)]).\nb(X Y).\n\t\t:- shell('x').     :- declare_servce(a, []).\n", Problems).
test(nothing_of_a_refused_file_is_applied, Services-Xs == [old]-[1]) :-
    forget,
    loaded(":- declare_service(old, []). kept(1)."),
    problems(":- declare_service(new, []). kept(2). :- declare_service(x, [port(0)]).", [_]),
    findall(Service, service_config(Service, _), Services),
    answers(X, kept(X), Xs).
test(nothing_is_applied_where_the_text_cannot_be_read, Services == [old]) :-
    forget,
    loaded(":- declare_service(old, [])."),
    problems(":- declare_service(new, []).\nb(.\n", [_|_]),
    findall(Service, service_config(Service, _), Services).
test(what_it_had_superseded_stays_superseded, Options == [port(1)]) :-
    forget,
    declare_service(api, [port(9)]),
    loaded(":- declare_service(api, [port(1)])."),
    problems(":- shell(x).", [_]),
    service_config(api, Options).
test(a_host_twice, Problems = [problem(1, 1, error(domain_error(unique_host, h), _))]) :-
    problems(":- declare_service_hosts(a, [host_config(h, []), host_config(h, [])]).", Problems).
test(many_problems_are_cut_short, Length-Reason == 101-too_many(problems, 100)) :-
    problems(around("", 5000, "a b. ", ""), Problems),
    length(Problems, Length),
    last(Problems, problem(_, _, Reason)).
test(many_refused_declarations_are_cut_short, Length-Reason == 101-too_many(problems, 100)) :-
    problems(around("", 500, ":- declare_service(a, [b]).\n", ""), Problems),
    length(Problems, Length),
    last(Problems, problem(_, _, Reason)).
test(columns_count_characters, Problems == [problem(2, 11, forbidden_directive(halt/0))]) :-
    problems("a('é').\n\tb('é€'). :- halt.", Problems).
test(a_typo_in_a_goal_names_the_nearest, Problems == [problem(2, 1, forbidden_goal(zne/1, zone))]) :-
    problems("zone(a).\nf(X) :- zne(X).", Problems).
test(a_missing_file, error(existence_error(source_sink, '/nosuch/file.pl'), _)) :-
    load_declarations('/nosuch/file.pl').
test(a_folder, error(permission_error(open, source_sink, _), _)) :-
    folder(Folder),
    load_declarations(Folder).
test(a_device_without_end, error(permission_error(open, source_sink, '/dev/zero'), _)) :-
    load_declarations('/dev/zero').
test(no_text, error(type_error(text, f(x)), _)) :-
    load_declarations(f(x)).
test(a_deadline_for_many_terms_in_one_long_line, true(Time < 5)) :-
    statistics(cputime, Before),
    loaded(around("", 60_000, "long_line(some_argument, another_argument). ", "")),
    statistics(cputime, After),
    Time is After - Before.

:- end_tests(load_refused).

% hostile(?Name, ?Content, ?Reason): Content must be refused, for a Reason like this one.

hostile(halt, ":- halt.", forbidden_directive(halt/0)).
hostile(shell, ":- shell('true').", forbidden_directive(shell/1)).
hostile(assert, ":- assertz(user:ran).", forbidden_directive(assertz/1)).
hostile(initialization, ":- initialization(assertz(user:ran)).", forbidden_directive((initialization)/1)).
hostile(initialization_main, ":- initialization(main, main). main :- true.", forbidden_directive((initialization)/2)).
hostile(query, "?- assertz(user:ran).", not_a_directive).
hostile(conjunction, ":- declare_service(a, []), assertz(user:ran).", forbidden_directive((',')/2)).
hostile(disjunction, ":- ( assertz(user:ran) ; true ).", forbidden_directive((;)/2)).
hostile(negation, ":- \\+ assertz(user:ran).", forbidden_directive((\+)/1)).
hostile(if_then_else, ":- true -> assertz(user:ran).", forbidden_directive((->)/2)).
hostile(call, ":- call(assertz, user:ran).", forbidden_directive(call/2)).
hostile(qualified, ":- user:assertz(ran).", qualified).
hostile(qualified_declaration, ":- deployment_glue:declare_service(a, []).", qualified).
hostile(twice_qualified, ":- lists:(user:assertz(ran)).", qualified).
hostile(variable_directive, ":- X.", not_a_directive).
hostile(number_directive, ":- 3.", not_a_directive).
hostile(string_directive, ":- \"declare_service(a, [])\".", not_a_directive).
hostile(conditional, ":- if(assertz(user:ran)).\n:- endif.", forbidden_directive(if/1)).
hostile(else, ":- else.", forbidden_directive(else/0)).
hostile(term_expansion, "term_expansion(a, b) :- true.", reserved(term_expansion/2, hook)).
hostile(term_expansion_4, "term_expansion(A, B, A, B).", reserved(term_expansion/4, hook)).
hostile(goal_expansion, "goal_expansion(a, b).", reserved(goal_expansion/2, hook)).
hostile(user_expansion, "user:term_expansion(a, b).", qualified).
hostile(system_expansion, "system:term_expansion(_, _) :- true.", qualified).
hostile(portray, "portray(_) :- true.", reserved(portray/1, hook)).
hostile(message_hook, "message_hook(_, _, _) :- true.", reserved(message_hook/3, hook)).
hostile(exception_hook, "prolog_exception_hook(_, _, _, _) :- true.", reserved(prolog_exception_hook/4, hook)).
hostile(search_path, "file_search_path(library, '/tmp').", reserved(file_search_path/2, hook)).
hostile(quasi_quotation, "a({|string(X)||text {X}|}).", quasi_quotation).
hostile(quasi_quotation_of_a_library, ":- use_module(library(strings)).\na({|string||x|}).", quasi_quotation).
hostile(qualified_head, "user:fact(1).", qualified).
hostile(qualified_rule, "lists:append(_, _, _) :- true.", qualified).
hostile(qualified_clause, "user:(a :- true).", qualified).
hostile(qualified_goal, "a :- user:shell(x).", qualified).
hostile(qualified_variable, "a(X) :- user:X.", qualified).
hostile(variable_goal, "a(X) :- X.", unbound_goal).
hostile(call_1, "a(X) :- call(X).", forbidden_goal(call/1, _)).
hostile(call_n, "a :- call(shell, x).", forbidden_goal(call/2, _)).
hostile(apply, "a :- apply(shell, [x]).", forbidden_goal(apply/2, _)).
hostile(maplist, "a :- maplist(shell, [x]).", forbidden_goal(maplist/2, _)).
hostile(foldl, "a(X) :- foldl(X, [], 1, _).", forbidden_goal(foldl/4, _)).
hostile(hidden_in_findall, "a(L) :- findall(X, shell(X), L).", forbidden_goal(shell/1, _)).
hostile(hidden_in_forall, "a :- forall(true, shell(x)).", forbidden_goal(shell/1, _)).
hostile(hidden_in_negation, "a :- \\+ \\+ shell(x).", forbidden_goal(shell/1, _)).
hostile(hidden_in_setof, "a(L) :- setof(X, Y^shell(Y), L).", forbidden_goal(shell/1, _)).
hostile(hidden_in_aggregate, "a(N) :- aggregate_all(count, shell(x), N).", forbidden_goal(shell/1, _)).
hostile(unbound_in_findall, "a(G) :- findall(x, G, _).", unbound_goal).
hostile(unbound_in_setof, "a(G) :- setof(X, Y^G, _).", unbound_goal).
hostile(built_goal, "a :- G =.. [shell, x], G.", unbound_goal).
hostile(catch, "a :- catch(shell(x), _, true).", forbidden_goal(catch/3, _)).
hostile(format, "a :- format(\"~@\", [shell(x)]).", forbidden_goal(format/2, _)).
hostile(reading_text, "a(T) :- term_to_atom(T, 'x').", forbidden_goal(term_to_atom/2, _)).
hostile(assertion, "a :- assertz(b).", forbidden_goal(assertz/1, _)).
hostile(global_variable, "a :- nb_setval(k, v).", forbidden_goal(nb_setval/2, _)).
hostile(open, "a :- open('/etc/passwd', read, _).", forbidden_goal(open/3, _)).
hostile(consult_goal, "a :- consult(x).", forbidden_goal(consult/1, _)).
hostile(thread, "a :- thread_create(true, _).", forbidden_goal(thread_create/2, _)).
hostile(act, "a :- deploy_service(api, _).", forbidden_goal(deploy_service/2, _)).
hostile(declare_in_a_rule, "a :- declare_service(x, []).", forbidden_goal(declare_service/2, _)).
hostile(operator, ":- op(700, xfx, =>>).", forbidden_directive(op/3)).
hostile(operator_and_use, ":- op(200, xfy, ===).\na(b === c).", syntax_error(operator_expected)).
hostile(flag, ":- set_prolog_flag(double_quotes, codes).", forbidden_directive(set_prolog_flag/2)).
hostile(module, ":- module(lists, [append/3]).", forbidden_directive((module)/2)).
hostile(include, ":- include('/etc/passwd').", forbidden_directive(include/1)).
hostile(consult, ":- consult(user).", forbidden_directive(consult/1)).
hostile(list_consult, ":- ['/etc/passwd'].", forbidden_directive('[|]'/2)).
hostile(ensure_loaded, ":- ensure_loaded(library(socket)).", forbidden_directive(ensure_loaded/1)).
hostile(load_files, ":- load_files(x, []).", forbidden_directive(load_files/2)).
hostile(other_library, ":- use_module(library(process)).", forbidden_directive(use_module/1)).
hostile(library_by_path, ":- use_module('/tmp/x').", forbidden_directive(use_module/1)).
hostile(library_with_a_variable, ":- use_module(library(X)).", forbidden_directive(use_module/1)).
hostile(imports_with_a_variable, ":- use_module(library(lists), X).", forbidden_directive(use_module/2)).
hostile(reexport, ":- reexport(library(process)).", forbidden_directive(reexport/1)).
hostile(foreign, ":- use_foreign_library(foreign(x)).", forbidden_directive(use_foreign_library/1)).
hostile(foreign_load, ":- load_foreign_library('/tmp/x.so').", forbidden_directive(load_foreign_library/1)).
hostile(table, ":- table a/1.\na(1).", forbidden_directive((table)/1)).
hostile(multifile, ":- multifile user:portray/1.", forbidden_directive((multifile)/1)).
hostile(dynamic_elsewhere, ":- dynamic user:foo/1.", forbidden_directive((dynamic)/1)).
hostile(dynamic_system, ":- dynamic append/3.", reserved(append/3, library)).
hostile(dynamic_hook, ":- dynamic term_expansion/2.", reserved(term_expansion/2, hook)).
hostile(undeclare, ":- undeclare_service(api).", unknown_directive(undeclare_service/1, declare_service)).
hostile(grammar, "a --> { shell(x) }.", grammar_rule).
hostile(single_sided, "a(X), X == 1 => true.", reserved((=>)/2, system)).
hostile(redefined_system, "atom(_) :- true.", reserved(atom/1, system)).
hostile(redefined_control, "(_, _).", reserved((',')/2, system)).
hostile(redefined_library, "member(_, _).", reserved(member/2, library)).
hostile(redefined_query, "service_hosts(_, _).", reserved(service_hosts/2, library)).
hostile(redefined_act, "deploy_service(_, deployed).", reserved(deploy_service/2, library)).
hostile(hidden_predicate, "'$load_context_module'(_, _, _).", reserved('$load_context_module'/3, system)).
hostile(declaration_as_fact, "declare_service(a, []).", needs_directive(declare_service/2)).
hostile(declaration_as_rule, "declare_service(_, _) :- true.", needs_directive(declare_service/2)).
hostile(unbound_declaration, ":- declare_service(X, []).", unbound_directive(declare_service/2)).
hostile(unbound_option, ":- declare_service(a, [port(_)]).", unbound_directive(declare_service/2)).
hostile(list_with_no_argument, ":- declare_service_hosts(a, []()).", list_with_arguments).
hostile(list_with_an_argument, ":- declare_service(a, [port([](b))]).", list_with_arguments).
hostile(goal_as_option, ":- declare_service(a, [shell(x)]).", error(domain_error(service_option, shell(x)), _)).
hostile(arity, ":- declare_service(a).", unknown_directive(declare_service/1, declare_service)).
hostile(variable_clause, "X.", not_a_clause).
hostile(number_clause, "42.", not_a_clause).
hostile(string_clause, "\"text\".", not_a_clause).
hostile(variable_head, "X :- true.", not_a_clause).
hostile(dict_clause, "_{a: 1}.", not_a_clause).
hostile(end_of_file, "a(1).\nend_of_file.\n:- shell(x).", end_of_file).
hostile(end_of_file_then_rubbish, "end_of_file. \001\\002\ ( [", end_of_file).
hostile(no_end, "a(1", syntax_error(_)).
hostile(no_full_stop, "a(1)", syntax_error(_)).
hostile(open_quote, "a('text", syntax_error(_)).
hostile(open_comment, "a(1). /* text", syntax_error(_)).
hostile(unbalanced, "a([1)).", syntax_error(_)).
hostile(bad_escape, "a('\\q').", syntax_error(_)).
hostile(float_overflow, "a(1.0e999999).", syntax_error(_)).
hostile(empty, "", empty).
hostile(only_comments, "% nothing\n/* here */\n", empty).
hostile(only_blanks, "  \n\t\n", empty).
hostile(shebang, "#!/bin/sh\n", syntax_error(_)).
hostile(nul, bytes([0'a, 0'(, 0'', 0, 0'', 0'), 0'.]), nul_character).
hostile(binary, bytes([0x7f, 0'E, 0'L, 0'F, 2, 1, 1, 0, 0, 0]), nul_character).
hostile(latin1, bytes([0'a, 0'(, 0'', 0xe9, 0'', 0'), 0'.]), invalid_utf8).
hostile(overlong, bytes([0'a, 0'(, 0'', 0xc0, 0xaf, 0'', 0'), 0'.]), invalid_utf8).
hostile(overlong_3, bytes([0'', 0xe0, 0x80, 0xaf, 0'', 0'.]), invalid_utf8).
hostile(surrogate, bytes([0'', 0xed, 0xa0, 0x80, 0'', 0'.]), invalid_utf8).
hostile(beyond_unicode, bytes([0'', 0xf4, 0x90, 0x80, 0x80, 0'', 0'.]), invalid_utf8).
hostile(five_bytes, bytes([0'', 0xf8, 0x88, 0x80, 0x80, 0x80, 0'', 0'.]), invalid_utf8).
hostile(cut_character, bytes([0'a, 0'., 0x20, 0xe2, 0x82]), invalid_utf8).
hostile(utf16, bytes([0xff, 0xfe, 0'a, 0, 0'., 0]), nul_character).
hostile(a_million_digits, around("a(", 1_000_000, "7", ")."), too_large(number_digits, _)).
hostile(a_million_digits_in_groups, around("a(7", 300_000, "_777", ")."), too_large(number_digits, _)).
hostile(a_million_digits_in_words, around("a(7", 300_000, " 777", ")."), too_large(number_digits, _)).
hostile(a_million_digits_in_lines, around("a(7", 300_000, "_\n777", ")."), too_large(split_numbers, _)).
hostile(a_million_digits_between_comments, around("a(7", 300_000, "_ /* */\n777", ")."), too_large(split_numbers, _)).
hostile(a_million_letters_of_a_number, around("a(36'z", 1_000_000, "z", ")."), too_large(number_digits, _)).
hostile(a_million_hexadecimal_digits, around("a(0x", 1_000_000, "f", ")."), too_large(number_digits, _)).
hostile(deep_compounds, around("a(", 1_000_000, "f(", "x"), _).
hostile(deep_lists, around("a(", 200_000, "[", "x"), _).
hostile(deep_braces, around("a(", 1_000_000, "{", "x"), _).
hostile(deep_parentheses, around("a", 1_000_000, "(", "x"), _).
hostile(deep_closed_compounds, nested(1_000_000, "f(", ")"), too_large(depth, _)).
hostile(deep_closed_lists, nested(1_000_000, "[", "]"), too_large(depth, _)).
hostile(deep_between_quotes, nested(20_000, "f(')))]', \"}\", 0'), 0''', 0'\\n, 16'ff, ", ")"), too_large(depth, _)).
hostile(deep_after_a_quasi_quotation, around("a({|x||'|}, ", 100_000, "f(", "x"), _).
hostile(deep_closed_after_a_quasi_quotation, nested(100_000, "f({|x||'\"|}, ", ")"), too_large(depth, _)).
hostile(deep_with_comments, nested(100_000, "f( % )\n /* )) */ ", ")"), too_large(depth, _)).
hostile(deeper_than_allowed, nested(500, "f(", ")"), too_large(depth, _)).
hostile(deep_prefix, around("a(", 100_000, "- ", "x)."), too_large(depth, _)).
hostile(deep_right, around("a(", 100_000, "x:", "x)."), too_large(depth, _)).
hostile(deep_left, around("a(x", 100_000, "-x", ")."), too_large(depth, _)).
hostile(deep_body, around("a :- ", 100_000, "\\+ ", "true."), too_large(depth, _)).
hostile(a_large_file, around("", 5_000_000, "a(b).\n\n", ""), too_large(bytes, _)).
hostile(many_lines, around("a.", 1_000_001, "\n", ""), too_large(lines, _)).
hostile(a_long_line, around("", 700_000, "a(bc). ", ""), too_large(line_bytes, _)).

:- begin_tests(hostile, [setup(begin), cleanup(end)]).

test(there_are_many, true(Count >= 60)) :-
    findall(Name, hostile(Name, _, _), Names),
    sort(Names, Distinct),
    length(Distinct, Count).
test(refused, [forall(hostile(_, Content, Reason))]) :-
    problems(Content, Problems),
    Problems = [_|_],
    assertion(member(problem(_, _, Reason), Problems)),
    forall(member(problem(Line, Column, _), Problems),
           assertion(( integer(Line), Line >= 1, integer(Column), Column >= 1 ))).
test(beside_good_declarations_nothing_is_applied, [forall(( hostile(_, Content, Reason), string(Content), Reason \== empty )), Services == []]) :-
    forget,
    string_concat(":- declare_service(good, []).\n", Content, Text),
    problems(Text, [_|_]),
    findall(Service, service_config(Service, _), Services).
test(none_ran_anything, fail) :-
    ran.

:- end_tests(hostile).

:- begin_tests(load_trusted, [setup(begin), cleanup(end)]).

test(directives_run_and_rules_can_be_asked, Ports-Xs == [[port(3)]]-[1, 2]) :-
    trusted_problems(":- use_module(library(lists)).
                      port(P) :- sum_list([1, 2], P).
                      :- port(P), declare_service(tr, [port(P)]).
                      trusted(1).
                      trusted(2).", []),
    findall(Options, service_config(tr, Options), Ports),
    answers(X, trusted(X), Xs).
test(loading_again_replaces, Services == [two]) :-
    forget,
    trusted_problems(":- declare_service(one, []).", []),
    trusted_problems(":- declare_service(two, []).", []),
    findall(Service, service_config(Service, _), Services).
test(sources_are_relative_to_the_file, Base == Folder) :-
    trusted_problems(":- declare_service_sources(based, [x]).", []),
    source_base(based, Base),
    folder(Folder).
test(all_problems_are_told, Lines == [2, 3, 4, 5]) :-
    trusted_problems(":- declare_service(ok, []).
:- declare_service(bad, [prt(2)]).
single(X) :- true.
broken(.
:- fail.
", Problems),
    findall(Line, member(problem(Line, _, message(_)), Problems), Lines).
test(a_failed_load_leaves_what_was, Services == [before]) :-
    forget,
    trusted_problems(":- declare_service(before, []).", []),
    trusted_problems(":- declare_service(after, []).\n:- fail.\n", [_]),
    findall(Service, service_config(Service, _), Services).
test(a_file_that_was_loaded_as_data, Xs-Services == [2]-[b]) :-
    forget,
    written('t.pl', ":- declare_service(a, []). changed(1).", File),
    load_declarations(File),
    trusted_problems(":- declare_service(b, []).\nchanged(2).\n", []),
    answers(X, changed(X), Xs),
    findall(Service, service_config(Service, _), Services).
test(a_missing_file, error(existence_error(source_sink, '/nosuch/file'), _)) :-
    load_trusted('/nosuch/file').

:- end_tests(load_trusted).

% said(:Goal, -Text): the text of the error that Goal throws.

:- meta_predicate said(0, -).

said(Goal, Text) :-
    catch(( Goal, fail ), Error, true),
    message_to_codes_of(Error, Text).

message_to_codes_of(Error, Text) :-
    '$messages':translate_message(Error, Lines, []),
    with_output_to(string(Text), print_message_lines(current_output, '', Lines)).

contains(Text, Part) :-
    once(sub_string(Text, _, _, _, Part)).

:- begin_tests(messages, [setup(begin), cleanup(end)]).

test(a_refused_file_tells_each_problem_in_a_line) :-
    written('m.pl', ":- declare_service(a, [prot(80)]).\nb :- shell(ls).\n", File),
    said(load_declarations(File), Text),
    format(string(Expected), "~w:1:1: There is no service option prot(80); did you mean port?~n~w:2:1: shell/1 is neither", [File, File]),
    assertion(contains(Text, Expected)).
test(every_reason_has_a_text) :-
    forall(( hostile(_, Content, _), string(Content) ),
           ( problems(Content, Problems),
             forall(member(Problem, Problems),
                    ( message_to_codes_of(error(declarations_refused(f, [Problem]), _), Text),
                      assertion(\+ contains(Text, "Unknown message")),
                      assertion(( split_string(Text, " ", "", Words), length(Words, N), N > 2 )) )) )).
test(errors_of_use, [forall(member(Goal-Part, [ declare_service(a, [target(pyton)])-"did you mean python?",
                                                declare_service(a, [port(0)])-"1 to 65535",
                                                declare_service('../a', [])-"'../a'",
                                                declare_deploy_method(a, shs, [])-"ssh, local",
                                                declare_lifecycle_hook(a, pre_deplyo, save_state)-"did you mean pre_deploy?",
                                                require_service(nosuch)-"no service nosuch",
                                                declare_service_hosts(a, [b])-"host_config(Host, Options)",
                                                throw(error(existence_error(deployment_effect, probe), _))-"unifyweaver_py" ]))]) :-
    said(Goal, Text),
    assertion(contains(Text, Part)).

:- end_tests(messages).
