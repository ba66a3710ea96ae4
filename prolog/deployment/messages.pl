:- module(deployment_messages,
          [ type_text/2                 % +Type, -Text
          ]).
:- autoload(library(lists), [member/2]).
:- use_module(declarations, [lifecycle_event/1, declaration/1]).
:- use_module(narration, [result_text/2, advice/2]).
:- use_module(options, [option_scope/1, option_row/5]).
:- use_module(sealing, [seal_secrets/2]).

/** <module> Human text for the terms of the library

Errors of use are ISO terms; here is how they read. The context of an error may be `context(_, nearest(Name))`: the known name that was probably
meant.
*/

:- multifile
    prolog:message//1,
    prolog:error_message//1.

prolog:message(error(Formal, context(_, Hint))) -->
    { nonvar(Hint), Hint = nearest(Name) },
    text(Formal),
    !,
    [ '; did you mean ~q?'-[Name] ].
prolog:message(error(domain_error(port_of_its_own, port(Port)), context(_, Shared))) -->
    { nonvar(Shared), Shared = shared(Service, Service, Host) },
    !,
    [ 'The service ~q has port ~w on ~w under another name of it too; declare that host once'-[Service, Port, Host] ].
prolog:message(error(domain_error(port_of_its_own, port(Port)), context(_, Shared))) -->
    { nonvar(Shared), Shared = shared(Service, Other, Host) },
    !,
    [ 'The services ~q and ~q both have port ~w on ~w; give one of them another port'-
      [Service, Other, Port, Host] ].
prolog:message(error(domain_error(service_sources, Reason), context(_, Service))) -->
    { atom(Service),
      result_text(failed(Reason), Text) },
    !,
    [ 'The files of ~q cannot be hashed: ~s'-[Service, Text] ],
    what_to_do(Reason).
prolog:message(error(Formal, Context)) -->
    { nonvar(Formal), bare(Context) },
    text(Formal),
    !.

%   Prolog shows the directive that failed in a file that is consulted.

prolog:message(goal_failed(Context, Module:Goal)) -->
    { functor(Goal, Name, Arity),
      declaration(Name/Arity),
      !,
      seal_secrets(Goal, Sealed) },
    [ 'Goal (~w) failed: ~p'-[Context, Module:Sealed] ].

prolog:error_message(Formal) -->
    { nonvar(Formal) },
    text(Formal).

prolog:message(error(domain_error(service_secrets, Reason), context(_, Service))) -->
    { atom(Service),
      result_text(failed(Reason), Text) },
    !,
    [ 'The release of ~q cannot be named: ~s'-[Service, Text] ].

what_to_do(Reason) -->
    { advice(Reason, Text) },
    !,
    [ '; ~w'-[Text] ].
what_to_do(_) --> [].

%!  bare(+Context) is semidet.
%
%   Context says nothing that would have to be printed.

bare(Context) :-
    var(Context),
    !.
bare(context(Predicate, Message)) :-
    var(Predicate),
    var(Message).

%!  text(+Formal)// is semidet.
%
%   The lines that explain the formal term of an error.

text(declarations_refused(File, Problems)) -->
    problems(Problems, File).
text(existence_error(service, Service)) -->
    [ 'There is no service ~q'-[Service] ].
text(existence_error(deploy_method, Service)) -->
    [ 'The service ~q has no deploy method; declare one with declare_deploy_method/3'-[Service] ].
text(existence_error(service_sources, Service)) -->
    [ 'The service ~q has no sources; declare them with declare_service_sources/2'-[Service] ].
text(existence_error(service_host, Host)) -->
    [ 'There is no host ~q to act on'-[Host] ].
text(existence_error(load_balancer_option, Name)) -->
    [ 'A load balancer needs the option ~q'-[Name] ].
text(existence_error(deployment_run, Run)) -->
    [ 'The ledger knows no run ~q'-[Run] ].
text(existence_error(deployment_effect, Effect)) -->
    [ 'The effect ~q acts outside Prolog: it needs the Python package unifyweaver_py'-[Effect] ].
text(domain_error(unique_option, Option)) -->
    [ 'An option is given twice: ~q'-[Option] ].
text(domain_error(unique_host, Host)) -->
    [ 'The host ~q is listed twice'-[Host] ].
text(domain_error(service_name, Name)) -->
    [ 'No name for a service: ~q (letters, digits and ._- only, not starting with a dot or a dash, at most 100)'-[Name] ].
text(type_error(option, Option)) -->
    [ 'An option is written Name(Value), and not ~q'-[Option] ].
text(type_error(host_config, Config)) -->
    [ 'A host is written host_config(Host, Options), and not ~q'-[Config] ].
text(domain_error(Domain, Option)) -->
    { atom(Domain),
      atom_concat(Scope, '_option', Domain),
      option_scope(Scope) },
    !,
    [ 'There is no ~w option ~q'-[Scope, Option] ],
    known_elsewhere(Scope, Option).
text(domain_error(Domain, Word)) -->
    { closed(Domain, Kind, Words) },
    !,
    [ 'There is no ~w ~q (there are ~w)'-[Kind, Word, Words] ].
text(domain_error(one_of(Words), Option)) -->
    !,
    { atomic_list_concat(Words, ', ', Known) },
    [ 'A value that is not allowed: ~q (allowed: ~w)'-[Option, Known] ].
text(domain_error(Type, Culprit)) -->
    { description(Type, Description) },
    [ 'A value that is not allowed: ~q (needed: ~w)'-[Culprit, Description] ].
text(type_error(one_of(Words), Option)) -->
    !,
    { atomic_list_concat(Words, ', ', Known) },
    [ 'A value of the wrong type: ~q (allowed: ~w)'-[Option, Known] ].
text(type_error(Type, Culprit)) -->
    { description(Type, Description) },
    [ 'A value of the wrong type: ~q (needed: ~w)'-[Culprit, Description] ].

%!  known_elsewhere(+Scope, +Option)// is det.
%
%   Where Option, unknown in Scope, belongs.

known_elsewhere(Scope, Option) -->
    { ( compound(Option) -> compound_name_arity(Option, Name, _) ; Name = Option ),
      member(Other-Where, [service-'the service', method-'the deploy method']),
      Other \== Scope,
      option_row(Other, Name, _, _, _) },
    !,
    [ '; it is one of ~w'-[Where] ].
known_elsewhere(_, _) --> [].

%!  closed(+Domain, -Kind, -Words:atom) is semidet.
%
%   Domain holds few words.

closed(lifecycle_event, event, Words) :-
    findall(Event, lifecycle_event(Event), Events),
    atomic_list_concat(Events, ', ', Words).
closed(hook_action, 'hook action',
       'drain_connections, health_check, save_state, warm_cache, custom(Command), run_once(Action)').
closed(deploy_method, 'deploy method', 'ssh, local').

%!  type_text(+Type, -Text:atom) is det.
%
%   Text says what values an option of Type takes, see types.pl.

type_text(one_of(Words), Text) :-
    !,
    atomic_list_concat(Words, ', ', Text).
type_text(Type, Text) :-
    description(Type, Text).

%!  description(+Type, -Text:atom) is semidet.
%
%   Text says what Type allows. Fails for types that only Prolog itself knows.

description(host, 'a host name or address').
description(user, 'a login name').
description(port, 'a port number from 1 to 65535').
description(http_status, 'an HTTP status from 100 to 599').
description(positive_integer, 'a whole number from 1').
description(count, 'a whole number, 0 or more').
description(amount, 'a whole number from 1, or a percentage as ''25%''').
description(batch_sizes, 'a list of whole numbers from 1 and percentages as ''25%''').
description(host_option, 'the name of an option of hosts').
description(more_than_min_healthy_time, 'more seconds than min_healthy_time').
description(seconds, 'a number of seconds, 0 or more').
description(positive_seconds, 'a number of seconds, more than 0').
description(text, 'text, not empty').
description(command, 'a command as text, not empty').
description(path, 'a path as text, not empty').
description(identifier, 'an atom').
description(boolean, 'true or false').
description(relative_path, 'a relative path without ..').
description(relative_paths, 'a list of relative paths without ..').
description(source_pattern, 'a relative path without .., with * ? [...] ** as wildcards, or \\+ before one').
description(remote_dir, 'an absolute path, or one starting with ~/, without ..').
description(url_path, 'the path of a URL, starting with /, without spaces').
description(signal, 'the name of a signal, as TERM').
description(environment, 'a list of NAME-Value, each name once, of letters, digits and _').
description(header, 'header(Name, Value), in Latin-1, without line ends').
description(release_id, 'the hash of a release').
description(backend, 'live, dry, or model(Script)').
description(runtime_socket, 'an absolute path, or HOST:PORT').
description(haproxy_name, 'letters, digits and ._:-').
description(load_balancer, 'haproxy([socket(Socket), backend(Name)])').
description(script_pattern, 'a pattern without [!…] of characters beyond ASCII, which a script cannot follow').
description(script_secret, 'a secret of env(NAME) or command(C): a script cannot hold a value').
description(ssh_path, 'a path without ${, in place of which ssh puts a variable').
description(service_name, 'text').
description(lifecycle_event, 'the name of an event').
description(deploy_method, 'ssh or local').

%!  problems(+Problems, +File)// is det.
%
%   One line a problem.

problems([], File) -->
    [ '~w: refused'-[File] ].
problems([Problem], File) -->
    !,
    problem(Problem, File).
problems([Problem|Problems], File) -->
    problem(Problem, File),
    [ nl ],
    problems(Problems, File).

%!  problem(+Problem, +File)// is det.

problem(problem(Line, Column, Reason), File) -->
    [ '~w:~d:~d: '-[File, Line, Column] ],
    reason(Reason).

%!  reason(+Reason)// is det.
%
%   Why a term of a file was refused; see load_declarations/1 and judge_terms/3.

reason(error(Formal, Context)) -->
    !,
    '$messages':translate_message(error(Formal, Context)).
reason(syntax_error(Message)) -->
    !,
    '$messages':translate_message(error(syntax_error(Message), _)).
reason(message(Text)) -->
    !,
    [ '~s'-[Codes] ],
    { string_codes(Text, Codes) }.
reason(Reason) -->
    { why(Reason, Format, Arguments) },
    !,
    [ Format-Arguments ].
reason(Reason) -->
    [ '~p'-[Reason] ].

%!  why(+Reason, -Format, -Arguments) is semidet.

why(invalid_utf8, 'the text is not valid UTF-8', []).
why(nul_character, 'the text holds a NUL character', []).
why(quasi_quotation, 'quasi-quotations are not allowed', []).
why(end_of_file, 'end_of_file would hide what follows', []).
why(too_large(What, Limit), Format, [Limit]) :-
    excess(What, Format).
why(empty, 'the file holds no term', []).
why(too_many(problems, Limit), 'there are more than ~D problems', [Limit]).
why(forbidden_directive(Indicator), 'the directive ~q is not allowed: only declarations are', [Indicator]).
why(unknown_directive(Indicator, Name), 'there is no declaration ~q; did you mean ~q?', [Indicator, Name]).
why(unbound_directive(Indicator), 'the declaration ~q holds a variable', [Indicator]).
why(not_a_directive, 'only declarations are allowed as directives', []).
why(needs_directive(Indicator), 'a declaration is a directive: write :- before ~q', [Indicator]).
why(reserved(Indicator, system), '~q is a predicate of Prolog and cannot be defined', [Indicator]).
why(reserved(Indicator, hook), '~q is a hook of Prolog and cannot be defined', [Indicator]).
why(reserved(Indicator, library), '~q is a predicate of the library and cannot be defined', [Indicator]).
why(qualified, 'module qualification is not allowed', []).
why(unbound_goal, 'a goal must be written out, not a variable', []).
why(not_a_clause, 'this is neither a directive nor a fact or rule', []).
why(empty_parentheses(Name), 'write ~q without the empty parentheses', [Name]).
why(list_with_arguments, 'the empty list takes no arguments: write [] without parentheses', []).
why(grammar_rule, 'grammar rules are not allowed', []).
why(forbidden_goal(Indicator, none), '~q is neither defined in this file nor allowed in a rule', [Indicator]).
why(forbidden_goal(Indicator, Name), '~q is neither defined in this file nor allowed in a rule; did you mean ~q?',
    [Indicator, Name]) :-
    Name \== none.

%!  excess(+What, -Format) is semidet.

excess(bytes, 'the file is larger than ~D bytes').
excess(lines, 'the file has more than ~D lines').
excess(line_bytes, 'the line is longer than ~D bytes').
excess(number_digits, 'a number has more than ~D digits').
excess(split_numbers, '~D numbers or more are split by white space').
excess(depth, 'the term nests more than ~D levels deep').
