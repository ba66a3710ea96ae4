:- module(test_generate, []).
:- use_module(library(deployment_glue)).
:- use_module(library(deployment/patterns)).
:- use_module(library(deployment/releases)).
:- use_module(library(deployment/scripts)).
:- use_module(library(deployment/units)).
:- use_module(library(plunit)).
:- use_module(library(sha)).

quoted(Text, Quoted) :-
    phrase(double_quoted(Text), Codes),
    atom_codes(Quoted, Codes).

regex(Role, Pattern, Regex) :-
    phrase(pattern_regex(Role, Pattern), Codes),
    atom_codes(Regex, Codes).

declared :-
    declare_service(web, [host('a.example'), transport(ssh), env(['A'-b])]),
    declare_deploy_method(web, ssh, [user(root)]).

undeclared :-
    undeclare_service(web).

:- begin_tests(generate_words).

test(plain, Word == '"two words"') :- quoted('two words', Word).
test(special, Word == '"\\$(a) \\`b\\` \\"c\\" \\\\ \'d\'"') :- quoted('$(a) `b` "c" \\ \'d\'', Word).
test(number, Word == '"8080"') :- quoted(8080, Word).

test(document_ends_with_a_word_that_begins_no_line, Text == "cat <<'HERE__' || exit\nHERE\nHERE_ too\nHERE__\n") :-
    phrase(here_document("cat", " || exit", `HERE\nHERE_ too\n`), Codes),
    string_codes(Text, Codes).

:- end_tests(generate_words).

:- begin_tests(generate_patterns).

test(file, Regex == '"lib/a\\\\.py(/[^./][^/]*)*"') :- regex(include, 'lib/a.py', Regex).
test(excluded_takes_what_is_below, Regex == '"lib(/.*)?"') :- regex(exclude, lib, Regex).
test(star, Regex == '"[^./][^/]*"') :- regex(include, *, Regex).
test(set_without_a_leading_dot, Regex == '"(a)x"') :- regex(include, '[.a]x', Regex).
test(beyond_ascii, [throws(error(domain_error(script_pattern, 'a[!é]'), _))]) :- regex(include, 'a[!é]', _).

:- end_tests(generate_patterns).

:- begin_tests(generate_scripts, [setup(declared), cleanup(undeclared)]).

test(of_an_unknown_service, [throws(error(existence_error(service, nobody), _))]) :-
    generate_deploy_script(nobody, [], _).
test(unknown_option, [throws(error(domain_error(script_option, prot(1)), context(_, nearest(port))))]) :-
    generate_deploy_script(web, [prot(1)], _).
test(options_count_as_the_hosts_own_and_leave_nothing_behind) :-
    generate_deploy_script(web, [port(9000), host('b.example')], Script),
    once(sub_atom(Script, _, _, _, '\nHOST="b.example"\n')),
    once(sub_atom(Script, _, _, _, '\nPORT="9000"\n')),
    once(sub_atom(Script, _, _, _, '--port\'\\\'\' \'\\\'\'9000')),
    \+ service_hosts(web, _).
test(rollback_script_goes_back_to_the_rollback_point) :-
    generate_rollback_script(web, [host('b.example')], Script),
    once(sub_atom(Script, _, _, _, '\nHOST="b.example"\n')),
    once(sub_atom(Script, _, _, _, '\nroll_service_back\n')).
test(unit_is_of_the_service) :-
    generate_systemd_unit(web, [port(9000)], Unit),
    once(sub_atom(Unit, _, _, _, '\n[Service]\n')),
    once(sub_atom(Unit, _, _, _, '/web/current')).
test(in_the_words_people_know) :-
    generate_ssh_deploy(web, [], Script),
    forall(member(Words, ['Draining connections', 'health check', 'Rolling back']),
           once(sub_atom(Script, _, _, _, Words))).
test(ssh_whatever_is_declared) :-
    declare_deploy_method(web, local, []),
    generate_ssh_deploy(web, [], Script),
    declare_deploy_method(web, ssh, [user(root)]),
    once(sub_atom(Script, _, _, _, 'SSH_OPTIONS=')).
test(without_a_method, [throws(error(existence_error(deploy_method, bare), _)), cleanup(undeclare_service(bare))]) :-
    declare_service(bare, []),
    generate_deploy_script(bare, [], _).
test(health_is_asked_through_ssh_over_http, true) :-
    generate_health_check_script(web, [], Script),
    once(sub_atom(Script, _, _, _, '\nPROTOCOL="http"\n')),
    once(sub_atom(Script, _, _, _, '--unix-socket')).
test(health_of_a_remote_host_is_asked_over_https, true) :-
    generate_health_check_script(web, [transport(https)], Script),
    once(sub_atom(Script, _, _, _, '\nPROTOCOL="https"\n')),
    \+ sub_atom(Script, _, _, _, '--unix-socket').

:- end_tests(generate_scripts).

:- begin_tests(generate_releases, [setup(declared), cleanup(undeclared)]).

% What a script does to name a release, with a source hash that begins with a digit, and one with a letter.

test(recipe_gives_the_id, [forall(member(Sources-Quoted, ['1a'-"'1a'", a1-"a1"])), true(Named == Id)]) :-
    release(web, 'a.example', [], Sources, release(Id, _, _)),
    release_recipe(web, 'a.example', [], recipe(Configuration, Suffix, _)),
    format(string(Text), "release(~s,~s)", [Quoted, Configuration]),
    sha_hash(Text, Bytes, [algorithm(sha256), encoding(utf8)]),
    hash_atom(Bytes, Hash),
    atom_concat(Hash, Suffix, Named).

:- end_tests(generate_releases).

:- begin_tests(generate_units, [cleanup(undeclared)]).

manager(Method, Options, Manager) :-
    declare_service(web, []),
    declare_deploy_method(web, Method, Options),
    unit_manager(web, localhost, Manager).

test(root_logs_in, Manager == system) :- manager(ssh, [user(root)], Manager).
test(another_logs_in, Manager == user) :- manager(ssh, [user(me)], Manager).
test(with_sudo, Manager == system) :- manager(ssh, [user(me), sudo(true)], Manager).

line(Method, Options, Manager, Line) :-
    manager(Method, Options, _),
    unit_text(web, localhost, Manager, Text),
    split_string(Text, "\n", "", Lines),
    member(Line, Lines).

test(runs_as_who_logs_in) :- once(line(ssh, [user(me)], system, "User=me")).
test(of_a_user_says_none, [fail]) :-
    line(ssh, [user(me)], user, Line),
    sub_string(Line, 0, _, _, "User=").
test(percent_is_no_specifier) :-
    once(line(ssh, [remote_dir('/srv/100%h')], system, "WorkingDirectory=/srv/100%%h/web/current")).
test(home) :- once(line(ssh, [remote_dir('~/srv')], user, "WorkingDirectory=%h/srv/web/current")).
test(begins_with_the_host) :- once(line(ssh, [], system, "WantedBy=multi-user.target")).
test(begins_with_the_user) :- once(line(ssh, [], user, "WantedBy=default.target")).

test(unit_is_part_of_the_release) :-
    declare_service(web, []),
    declare_deploy_method(web, ssh, [user(root)]),
    release(web, localhost, [], s, release(Plain, _, _)),
    declare_deploy_method(web, ssh, [user(root), supervisor(systemd)]),
    release(web, localhost, [], s, release(Systemd, _, Files)),
    Plain \== Systemd,
    unit_text(web, localhost, system, Unit),
    memberchk(file('.unifyweaver/unit', 0o600, Unit), Files).

:- end_tests(generate_units).
