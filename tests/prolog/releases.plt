:- module(test_releases, []).
:- use_module(library(deployment/releases)).
:- use_module(library(deployment_glue)).
:- use_module(library(lists), [member/2, memberchk/2]).
:- use_module(library(plunit)).
:- use_module(library(process), [process_create/3, process_wait/2]).
:- use_module(library(readutil), [read_stream_to_codes/2]).
:- use_module(modelled).

hash_with(Options, Sources, Hash) :-
    declare_api(Options),
    release_hash_of(api, Sources, Hash).

start_file(Options, Text) :-
    declare_api(Options),
    release(api, 'a.example', [], s, release(_, _, Files)),
    memberchk(file('.unifyweaver/start', _, Text), Files).

% What the start file, run by sh, hands to a program in place of the one it names (the last line's first word).

started_with(Options, Environment, Printed) :-
    start_file(Options, Text),
    split_string(Text, "\n", "", Lines),
    append(Exports, [Exec, ""], Lines),
    !,
    string_concat("exec ", Words, Exec),
    string_concat("printf '[%s]' ", Words, Print),
    findall(Line, ( member(Name, Environment), format(string(Line), "printf '[%s]' \"$~w\"", [Name]) ), Show),
    append([Exports, [Print], Show], All),
    atomics_to_string_lines(All, Script),
    process_create(path(sh), ['-s'], [stdin(pipe(In)), stdout(pipe(Out))]),
    set_stream(In, encoding(utf8)), set_stream(Out, encoding(utf8)),
    write(In, Script), close(In),
    read_stream_to_codes(Out, Codes), close(Out),
    string_codes(Printed, Codes).

atomics_to_string_lines(Lines, Text) :-
    atomic_list_concat(Lines, '\n', Atom),
    atom_string(Atom, Text).

:- begin_tests(releases_hash, [cleanup(undeclare_api)]).

test(a_release_hash_is_a_sha_256, Length == 64) :-
    hash_with([], s, Hash),
    atom_length(Hash, Length).
test(the_same_files_and_options_are_the_same_release) :-
    hash_with([], s, A),
    hash_with([], s, B),
    assertion(A == B).
test(other_files_are_another_release) :-
    hash_with([], s, A),
    hash_with([], t, B),
    assertion(A \== B).
test(what_it_is_run_with_is_part_of_a_release,
     [forall(member(Option, [ port(9), target(node), entry_point('a.py'), start_command(x), prepare_command(x),
                              env(['A'-b]), shared_paths([data]) ]))]) :-
    hash_with([], s, A),
    hash_with([Option], s, B),
    assertion(A \== B).
test(what_it_is_not_run_with_is_no_part_of_it,
     [forall(member(Option, [ health_endpoint('/x'), keep_releases(2), healthy_deadline(3), warmup_endpoint('/w'),
                              lifecycle(transient), drain_signal('TERM'), save_state_command(x) ]))]) :-
    hash_with([], s, A),
    hash_with([Option], s, B),
    assertion(A == B).
test(a_default_written_down_is_no_change) :-
    hash_with([], s, A),
    hash_with([port(8080), target(python), entry_point('server.py'), env([])], s, B),
    assertion(A == B).
test(the_order_of_options_is_no_change) :-
    hash_with([port(9), env(['A'-b]), target(go)], s, A),
    hash_with([target(go), port(9), env(['A'-b])], s, B),
    assertion(A == B).
test(values_that_look_alike_are_different_releases) :-
    hash_with([env(['A'-'1', 'B'-'2'])], s, A),
    hash_with([env(['A'-'1,B-2'])], s, B),
    assertion(A \== B).
test(a_change_of_the_port_is_a_change, [Result == deployed(changed(Old, New))]) :-
    declare_api([port(8080)]),
    host(running(s), Facts),
    id(s, Old),
    declare_api([port(8081)]),
    id(s, New),
    model(deploy_service(api, []), [host(_, Facts), sources(s)], Result, _).

:- end_tests(releases_hash).

:- begin_tests(releases_id, [cleanup(undeclare_api)]).

ids([release(Id1, Hash1, _), release(Id2, Hash2, _)], [Id1, Id2], [Hash1, Hash2]).

on_hosts(Options, Ids, Hashes) :-
    declare_api([port(8080)]),
    declare_service_hosts(api, [host_config('a.example', []), host_config('b.example', Options)]),
    findall(R, ( member(H, ['a.example', 'b.example']), release(api, H, [], s, R) ), Releases),
    ids(Releases, Ids, Hashes).

test(without_options_of_its_own_a_hosts_release_is_named_by_its_hash, Id == Hash) :-
    on_hosts([], [_, Id], [_, Hash]).
test(a_hosts_own_options_change_the_id_and_not_the_hash) :-
    on_hosts([port(9)], [A, B], [HashA, HashB]),
    assertion(A \== B),
    assertion(HashA == HashB).
test(a_hosts_other_options_change_neither, [A, Hash] == [B, HashB]) :-
    on_hosts([keep_releases(2), user(other), ssh_port(23)], [A, B], [Hash, HashB]).
test(a_hosts_option_equal_to_the_services_changes_nothing, A == B) :-
    on_hosts([port(8080)], [A, B], _).
test(different_options_are_different_ids) :-
    on_hosts([port(9)], [_, A], _),
    on_hosts([port(10)], [_, B], _),
    assertion(A \== B).
test(an_id_leads_back_to_its_hash, Back == Hash) :-
    on_hosts([port(9)], [_, Id], [_, Hash]),
    hash_of_id(Id, Back).
test(a_changed_host_option_is_deployed) :-
    on_hosts([port(9)], [_, _], _),
    release(api, 'b.example', [], s, release(Id, _, _)),
    Facts = [current(Id), release(Id), running(Id), history(Id)],
    model(deploy_with_rollback(api, [host('b.example')]), [host(_, Facts), sources(s)], Same, _),
    assertion(Same == unchanged),
    on_hosts([port(10)], _, _),
    model(deploy_with_rollback(api, [host('b.example')]), [host(_, Facts), sources(s)], Changed, _),
    assertion(Changed == deployed).

:- end_tests(releases_id).

:- begin_tests(releases_start, [condition(exists_file('/bin/sh')), cleanup(undeclare_api)]).

test(each_target_has_its_start_command,
     [forall(member(Target-Printed,
                    [ python-"[python3][main][--port][8080]", node-"[node][main][--port][8080]",
                      go-"[./main][-port][8080]", rust-"[./target/release/main][--port][8080]",
                      executable-"[./main][--port][8080]" ])),
      Printed0 == Printed]) :-
    started_with([target(Target), entry_point(main)], [], Printed0).
test(an_entry_point_is_one_word_whatever_it_is_called, Printed == "[python3][it's $(a) b.py][--port][8080]") :-
    started_with([entry_point('it''s $(a) b.py')], [], Printed).
test(the_environment_is_set_as_it_is_written, Printed == "[python3][server.py][--port][9][api][9][it's $HOME `x`][]") :-
    started_with([port(9), env(['A'-'it''s $HOME `x`', 'B'-''])], ['SERVICE', 'PORT', 'A', 'B'], Printed).
test(a_declared_start_command_is_the_shells, Printed == "[sh][-c][--][exec run --port \"$PORT\"; echo 'x']") :-
    started_with([start_command('exec run --port "$PORT"; echo ''x''')], [], Printed).
test(the_port_is_written_into_the_release, Text == "9\n") :-
    declare_api([port(9)]),
    release(api, 'a.example', [], s, release(_, _, Files)),
    memberchk(file('.unifyweaver/port', 0o600, Text), Files).

:- end_tests(releases_start).

:- begin_tests(releases_secrets, [cleanup(undeclare_api)]).

secrets(Seals, Release) :-
    declare_api([env(['A'-x, 'B'-secret(env('V')), 'C'-secret(command(c))])]),
    release(api, 'a.example', Seals, s, Release).

seal_with(B, C, [seal('B', env('V'), B), seal('C', command(c), C)]).

test(another_value_is_another_release) :-
    seal_with(s1, s2, Seals1), secrets(Seals1, release(Id1, Hash1, _)),
    seal_with(s1, s3, Seals2), secrets(Seals2, release(Id2, Hash2, _)),
    assertion(( Id1 == Hash1, Id2 == Hash2, Hash1 \== Hash2 )).
test(values_are_in_a_file_of_their_own, Secrets == secrets(['B'-s1, 'C'-s2])) :-
    seal_with(s1, s2, Seals),
    secrets(Seals, release(_, _, Files)),
    memberchk(file('.unifyweaver/secrets', 0o600, Secrets), Files).
test(the_start_reads_that_file) :-
    seal_with(s1, s2, Seals),
    secrets(Seals, release(_, _, Files)),
    memberchk(file('.unifyweaver/start', _, Text), Files),
    assertion(sub_string(Text, _, _, _, "export A='x'\n. ./.unifyweaver/secrets\nexec ")),
    assertion(\+ sub_string(Text, _, _, _, "s1")).
test(without_secrets_there_is_no_such_file, fail) :-
    declare_api([env(['A'-x])]),
    release(api, 'a.example', [], s, release(_, _, Files)),
    memberchk(file('.unifyweaver/secrets', _, _), Files).
test(a_modelled_deployment_needs_no_values, Result == deployed) :-
    declare_api([env(['B'-secret(env('NO_SUCH_VARIABLE'))])]),
    deploy_with_rollback(api, [backend(model([]))], Result).
test(what_a_secret_may_be,
     [forall(member(Source, [env('A B'), env(''), command(''), env(1), f(x), [], sealed("")])),
      throws(error(_, _))]) :-
    declare_api([env(['B'-secret(Source)])]).

:- end_tests(releases_secrets).

:- begin_tests(releases_scan, [cleanup(undeclare_api)]).

needs(Options, Needs) :-
    declare_api(Options),
    scan_action(api, 'a.example', scan(_, ['*.py'], Needs)).

test(the_entry_point_must_be_among_the_sources, Needs == ['main.py']) :-
    needs([entry_point('main.py')], Needs).
test(what_is_built_or_started_otherwise_need_not_be_shipped,
     [forall(member(Option, [start_command(x), prepare_command(make), target(rust)])), Needs == []]) :-
    needs([Option], Needs).
test(files_are_relative_to_the_source_folder, Dir == '/srv/api') :-
    declare_api([source_dir('/srv/api')]),
    scan_action(api, 'a.example', scan(Dir, _, _)).
test(without_sources_there_is_nothing_to_ship, error(existence_error(service_sources, api), _)) :-
    undeclare_api,
    declare_service(api, []),
    scan_action(api, 'a.example', _).

:- end_tests(releases_scan).
