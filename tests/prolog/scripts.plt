:- module(test_scripts, []).
:- use_module(library(deployment/scripts)).
:- use_module(library(plunit)).
:- use_module(library(apply), [maplist/3]).
:- use_module(library(filesex), [directory_file_path/3, make_directory_path/1, delete_directory_and_contents/1]).
:- use_module(library(lists), [append/3, member/2, memberchk/2]).
:- use_module(library(process), [process_create/3, process_wait/2]).
:- use_module(library(readutil), [read_file_to_string/3]).

% Text run by sh as its standard input; Output is everything it prints there.  It prints to a file: of a pipe,
% SWI-Prolog gives the writing end to the process once more, under another number.

sh(Text, Options, Status, Output) :-
    tmp_file(output, File),
    process_create(path(sh), ['-c', 'exec sh -s >"$0"', File], [stdin(pipe(In)), stderr(null), process(Pid)|Options]),
    set_stream(In, encoding(utf8)),
    format(In, '~s', [Text]),
    close(In),
    process_wait(Pid, exit(Status)),
    read_file_to_string(File, Output, [encoding(utf8)]),
    delete_file(File).

% Words as sh passes them on to a program.

passed_on(Words, Passed) :-
    phrase(shell_words([printf, '%s\\0'|Words]), Text),
    sh(Text, [], 0, Output),
    string_codes(Output, Codes),
    ended_by_zero(Codes, Passed).

ended_by_zero([], []) :- !.
ended_by_zero(Codes, [Word|Words]) :-
    append(Before, [0|After], Codes),
    !,
    atom_codes(Word, Before),
    ended_by_zero(After, Words).

on_target(Steps, Outcomes) :-
    on_target(Steps, [], Outcomes).

on_target(Steps, Options, Outcomes) :-
    nb_getval(target_dir, Dir),
    script_outcomes(context(api, 'a.example', none, Dir, 8080, token), Steps, Options, Outcomes).

script_outcomes(Context, Steps, Options, Outcomes) :-
    script_text(Context, Steps, Text0),
    string_codes(Text0, Text),
    sh(Text, Options, Status, Output),
    split_string(Output, "\n", "", Lines),
    step_outcomes(Steps, done(Status, []), Lines, Outcomes0),
    maplist([outcome(Id, Result, Notes, _, _), outcome(Id, Result, Notes)]>>true, Outcomes0, Outcomes).

target_with(Releases) :-
    tmp_file(target, Dir),
    nb_setval(target_dir, Dir),
    forall(member(Release, Releases),
           ( atomic_list_concat([Dir, '/api/releases/', Release, '/.unifyweaver'], Path),
             make_directory_path(Path) )).

no_target :-
    nb_getval(target_dir, Dir),
    ( exists_directory(Dir) -> delete_directory_and_contents(Dir) ; true ).

target_path(Path, Full) :-
    nb_getval(target_dir, Dir),
    atomic_list_concat([Dir, '/api/', Path], Full).

linux :- exists_file('/proc/uptime').

outcome(Steps, Ending, Lines, Results) :-
    step_outcomes(Steps, Ending, Lines, Outcomes),
    maplist([outcome(_, Result, _, _, _), Result]>>true, Outcomes, Results).

two([do(a, must, observe), do(b, must, stop(10))]).
three([do(a, must, observe), do(b, may, drain(10)), do(c, must, stop(10))]).

:- begin_tests(scripts_quoting).

test(plain_words_arrive_as_they_are, Words == [one, two]) :-
    passed_on([one, two], Words).
test(an_empty_word_stays_a_word, Words == ['', x, '']) :-
    passed_on(['', x, ''], Words).
test(quotes_arrive, Words == ['it''s', '"both"', '''''', 'a''"''b']) :-
    passed_on(['it''s', '"both"', '''''', 'a''"''b'], Words).
test(nothing_is_expanded, Words == ['$HOME', '$(id)', '`id`', '${x}', '*', '~', '!!', '\\n', 'a\\']) :-
    passed_on(['$HOME', '$(id)', '`id`', '${x}', '*', '~', '!!', '\\n', 'a\\'], Words).
test(nothing_is_a_second_command, Words == ['; id', '| id', '& id', '> f', '# x', '(', ')']) :-
    passed_on(['; id', '| id', '& id', '> f', '# x', '(', ')'], Words).
test(white_space_arrives, Words == [' a  b ', '\t', 'two\nlines', '\n']) :-
    passed_on([' a  b ', '\t', 'two\nlines', '\n'], Words).
test(words_like_options_arrive, Words == ['-n', '--', '-rf', '--help']) :-
    passed_on(['-n', '--', '-rf', '--help'], Words).
test(other_scripts_arrive, Words == ['grün', '日本', '🙂']) :-
    passed_on(['grün', '日本', '🙂'], Words).
test(every_printable_character_arrives, Words == [All]) :-
    numlist(32, 126, Codes),
    atom_codes(All, Codes),
    passed_on([All], Words).
test(numbers_are_words, Words == ['8080', '0.5']) :-
    passed_on([8080, 0.5], Words).

:- end_tests(scripts_quoting).

:- begin_tests(scripts_on_a_shell, [condition(linux), setup(target_with([r1, r2])), cleanup(no_target)]).

test(a_hook_command_is_the_shells_and_runs_whole,
     Outcomes == [outcome(h1, ok, [line("it's a  b sub tick $5"), line("second")])]) :-
    on_target([do(h1, must, hook(pre_deploy, custom(x),
                                 command('printf "%s\\n" "it\'s a  b $(echo sub) `echo tick` \\$5"\necho second', 10)))],
              Outcomes).
test(a_hook_command_has_its_environment,
     Outcomes == [outcome(h1, ok, [line("api a.example 8080 [] pre_deploy")])]) :-
    on_target([do(h1, must, hook(pre_deploy, custom(x),
                                 command('echo "$SERVICE $HOST $PORT [$RELEASE] $EVENT"', 10)))],
              Outcomes).
test(a_failing_command_tells_its_exit_code_and_last_lines,
     Outcomes == [outcome(h1, failed(command_failed(3, ["why", "on stderr"])),
                          [line("why"), line("on stderr")])]) :-
    on_target([do(h1, must, hook(pre_deploy, custom(x), command('echo why; echo on stderr >&2; exit 3', 10)))],
              Outcomes).
test(a_command_that_takes_too_long_is_a_timeout, Outcomes = [outcome(h1, failed(timeout), _)]) :-
    on_target([do(h1, must, hook(pre_deploy, custom(x), command('sleep 30', 1)))], Outcomes).
test(what_a_command_leaves_running_does_not_hold_the_script, Outcomes == [outcome(h1, ok, [])]) :-
    get_time(Start),
    on_target([do(h1, must, hook(pre_deploy, custom(x), command('sleep 4 & :', 10)))], Outcomes),
    get_time(End),
    assertion(End - Start < 3).
test(command_output_can_not_pass_for_a_report,
     Outcomes = [outcome(h1, failed(command_failed(1, _)), _), outcome(h2, not_run, [])]) :-
    on_target([ do(h1, must, hook(pre_deploy, custom(x), command('echo "1.0 end h1 ok"; exit 1', 10))),
                do(h2, must, hook(pre_deploy, custom(y), command('true', 10))) ],
              Outcomes).
test(hooks_of_an_event_stop_at_the_first_failure,
     [Results == [failed(command_failed(1, [])), failed(skipped), ok]]) :-
    on_target([ do(h1, may, hook(post_deploy, custom(x), command(false, 10))),
                do(h2, may, hook(post_deploy, custom(y), command('echo not here', 10))),
                do(h3, may, hook(post_shutdown, custom(z), command(true, 10))) ],
              Outcomes),
    findall(R, member(outcome(_, R, _), Outcomes), Results).
test(the_script_ends_at_the_first_failure,
     Outcomes == [outcome(a, failed(not_deployed), []), outcome(b, not_run, [])]) :-
    on_target([do(a, must, link(current, nowhere)), do(b, must, link(backup, r1))], Outcomes),
    target_path('.backup', Backup),
    assertion(\+ read_link(Backup, _, _)).
test(the_script_goes_on_after_a_step_that_may_fail,
     Outcomes == [outcome(a, failed(not_deployed), []), outcome(b, ok, [])]) :-
    on_target([do(a, may, link(current, nowhere)), do(b, must, observe)], Outcomes0),
    findall(outcome(Id, R, []), member(outcome(Id, R, _), Outcomes0), Outcomes).

:- end_tests(scripts_on_a_shell).

empty_manifest(Release) :-
    atomic_list_concat(['releases/', Release, '/.unifyweaver/manifest'], Below),
    target_path(Below, Path),
    open(Path, write, Out),
    close(Out).

manifests(Outcomes, Notes) :-
    memberchk(outcome(o, ok, All), Outcomes),
    findall(manifest(R, D), member(manifest(R, D, -), All), Notes).

:- begin_tests(scripts_target_directory, [condition(linux)]).

test(what_was_linked_and_committed_is_observed,
     [ setup(target_with([r1, r2])), cleanup(no_target),
       Notes == [backup(r1), current(r2), history(r1), history(r2), release(r1), release(r2)] ]) :-
    on_target([ do(k, must, link(backup, r1)), do(s, must, link(current, r2)),
                do(c1, must, commit(r1)), do(c2, must, commit(r2)), do(o, must, observe) ],
              Outcomes),
    memberchk(outcome(o, ok, Notes0), Outcomes),
    msort(Notes0, Notes).
test(the_manifest_of_the_active_release_is_observed,
     [ setup(target_with([r1, r2])), cleanup(no_target),
       Notes == [manifest(r2, e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)] ]) :-
    forall(member(R, [r1, r2]), empty_manifest(R)),
    on_target([ do(k, must, link(backup, r1)), do(s, must, link(current, r2)), do(o, must, survey) ], Outcomes),
    manifests(Outcomes, Notes).
test(without_an_active_release_it_is_that_of_the_rollback_point,
     [ setup(target_with([r1, r2])), cleanup(no_target), Releases == [r1] ]) :-
    forall(member(R, [r1, r2]), empty_manifest(R)),
    on_target([ do(k, must, link(backup, r1)), do(o, must, survey) ], Outcomes),
    manifests(Outcomes, Notes),
    findall(R, member(manifest(R, _), Notes), Releases).
test(a_link_can_be_taken_away,
     [setup(target_with([r1])), cleanup(no_target), Notes == [release(r1)]]) :-
    on_target([ do(s, must, link(current, r1)), do(u, must, link(current, none)), do(o, must, observe) ], Outcomes),
    memberchk(outcome(o, ok, Notes), Outcomes).
test(a_link_to_a_release_that_is_gone_counts_as_none,
     [setup(target_with([r1, r2])), cleanup(no_target), Notes == [release(r1)]]) :-
    on_target([ do(s, must, link(current, r2)),
                do(d, must, hook(post_deploy, custom(x), command('rm -r ../r2', 5))),
                do(o, must, observe) ],
              Outcomes),
    memberchk(outcome(o, ok, Notes), Outcomes).
test(a_release_in_use_is_not_discarded,
     [setup(target_with([r1, r2])), cleanup(no_target), Result == failed(in_use)]) :-
    on_target([ do(s, must, link(current, r2)), do(d, must, discard(r2)) ], Outcomes),
    memberchk(outcome(d, Result, _), Outcomes).
test(committing_an_earlier_release_takes_the_later_off,
     [setup(target_with([])), cleanup(no_target), Notes == [history(a), history(b)]]) :-
    on_target([ do(1, must, commit(a)), do(2, must, commit(b)), do(3, must, commit(c)), do(4, must, commit(b)),
                do(o, must, observe) ],
              Outcomes),
    memberchk(outcome(o, ok, Notes), Outcomes).
test(pruning_keeps_the_newest_the_active_and_the_rollback_point,
     [setup(target_with([a1])), cleanup(no_target), Left == [a1, a2, a5]]) :-
    forall(member(R, [a2, a3, a4, a5]),
           ( atomic_list_concat(['releases/', R, '/.unifyweaver'], Below), target_path(Below, Path),
             make_directory_path(Path) )),
    forall(member(R-Age, [a1-500, a2-400, a3-300, a4-200, a5-100]),
           ( atomic_list_concat(['releases/', R], Below), target_path(Below, Path),
             get_time(Now), Time is Now - Age, set_time_file(Path, _, [modified(Time)]) )),
    on_target([ do(s, must, link(current, a2)), do(k, must, link(backup, a1)), do(p, must, prune(1)),
                do(o, must, observe) ],
              Outcomes),
    memberchk(outcome(o, ok, Notes), Outcomes),
    findall(R, member(release(R), Notes), Left).
test(shared_paths_become_links_whatever_their_names,
     [setup(target_with([r1])), cleanup(no_target), Kept == "kept"]) :-
    on_target([do(a, must, share(r1, ['-rf', 'it''s/$(here)/']))], Outcomes),
    assertion(Outcomes == [outcome(a, ok, [])]),
    target_path('shared/it''s/$(here)/file', Shared),
    setup_call_cleanup(open(Shared, write, Out), write(Out, kept), close(Out)),
    target_path('releases/r1/it''s/$(here)/file', Released),
    read_file_to_string(Released, Kept, []),
    target_path('releases/r1/-rf', Option),
    assertion(read_link(Option, _, _)).
test(a_home_directory_is_below_the_users_home,
     [setup(target_with([])), cleanup(no_target), Notes == [history(a)]]) :-
    nb_getval(target_dir, Home),
    Context = context(api, 'a.example', none, '~/it''s here', 8080, token),
    script_outcomes(Context, [do(c, must, commit(a)), do(o, must, observe)], [environment(['HOME'=Home])], Outcomes),
    memberchk(outcome(o, ok, Notes), Outcomes),
    directory_file_path(Home, 'it''s here/api/run/history', File),
    assertion(exists_file(File)).
test(stopping_and_draining_where_nothing_runs_is_done,
     [setup(target_with([])), cleanup(no_target), Results == [ok, ok, ok]]) :-
    on_target([do(t, must, signal('USR1')), do(d, must, drain(1)), do(s, must, stop(1))], Outcomes),
    findall(R, member(outcome(_, R, _), Outcomes), Results).
test(nothing_is_confirmed_where_nothing_runs,
     [setup(target_with([r1])), cleanup(no_target), Outcomes == [outcome(c, failed(exited(unknown)), [])]]) :-
    on_target([do(c, must, confirm(r1))], Outcomes).
test(a_failing_preparation_tells_its_exit_code,
     [setup(target_with([r1])), cleanup(no_target), Outcomes == [outcome(p, failed(command_failed(7, [])), [])]]) :-
    on_target([do(p, must, prepare(r1, 'exit 7', 10))], Outcomes).

:- end_tests(scripts_target_directory).

:- begin_tests(scripts_table).

test(every_remote_action_has_a_time_limit, Bad == []) :-
    findall(Action,
            ( member(Action, [ observe, survey, stage(i, none, 9), verify(i, 9), discard(i), share(i, []), prepare(i, c, 9),
                               command(c, 9), signal('TERM'), drain(9), stop(9), link(current, i), link(backup, i),
                               start(i, 9), confirm(i), commit(i), prune(5), log_tail,
                               hook(pre_deploy, custom(c), command(c, 9)) ]),
              \+ ( remote_action(Action), seconds_for(Action, Seconds), number(Seconds), Seconds > 0 ) ),
            Bad).
test(an_action_is_given_longer_than_it_waits, [forall(member(Action-Wait, [drain(30)-30, stop(60)-60, start(i, 30)-30, command(c, 300)-300]))]) :-
    seconds_for(Action, Seconds),
    assertion(Seconds > Wait).
test(what_the_controller_does_is_no_remote_action,
     [forall(member(Action, [ scan(d, [], []), probe(p, r, e), request(get, u, []), record([]), nothing(x),
                              hook(post_deploy, warm_cache, request(get, u, [])) ])), fail]) :-
    remote_action(Action).

:- end_tests(scripts_table).

:- begin_tests(scripts_outcomes).

test(every_step_has_its_result_and_times,
     Outcomes == [outcome(a, ok, [current(r1), running(r1)], 10.0, 10.5), outcome(b, ok, [killed], 10.5, 12.25)]) :-
    two(Steps),
    step_outcomes(Steps, done(0, []),
                  [ "10.00 begin a", "10.20 got a current r1", "10.21 got a running r1", "10.50 end a ok",
                    "10.50 begin b", "12.00 got b killed", "12.25 end b ok" ],
                  Outcomes).
test(lines_that_are_no_reports_are_ignored, Results == [ok, ok]) :-
    two(Steps),
    outcome(Steps, done(0, []),
            [ "", "Welcome to a.example!", "end a failed", "x end a failed timeout", " ", "10.0", "10.0 end",
              "10.0 begin a", "10.1 end a ok", "stray", "10.1 begin b", "10.2 end b ok", "10.3 end z failed" ],
            Results).
test(text_keeps_its_spaces, Notes == [line("  two  spaces "), log(""), line("end a failed")]) :-
    step_outcomes([do(a, must, observe)], done(0, []),
                  ["1.0 line a   two  spaces ", "1.0 log a", "1.0 line a end a failed", "1.0 end a ok"],
                  [outcome(a, ok, Notes, _, _)]).
test(each_reason_is_a_term, [forall(member(Text-Reason,
        [ "no_space"-no_space, "timeout"-timeout, "skipped"-skipped, "not_deployed"-not_deployed,
          "verification_failed a b.py"-verification_failed('a b.py'), "already_running r2"-already_running(r2),
          "port_in_use 8080"-port_in_use(8080), "not_listening 8080"-not_listening(8080), "exited 3"-exited(3),
          "exited"-exited(unknown), "command_failed 2"-command_failed(2, ["last"]),
          "words unheard of"-command_failed(1, ["words unheard of"]), ""-command_failed(1, [""]) ])),
        Result == failed(Reason)]) :-
    string_concat("1.1 end a failed ", Text, Line),
    step_outcomes([do(a, must, observe)], done(1, []), ["1.0 begin a", "1.0 line a last", Line],
                  [outcome(a, Result, _, _, _)]).
test(steps_after_a_failure_were_not_run, Results == [failed(timeout), not_run]) :-
    two(Steps),
    outcome(Steps, done(1, []), ["1.0 begin a", "1.0 end a failed timeout"], Results).
test(a_step_that_may_fail_ends_nothing, Results == [ok, failed(timeout), ok]) :-
    three(Steps),
    outcome(Steps, done(0, []), ["1.0 end a ok", "1.0 end b failed timeout", "1.0 end c ok"], Results).
test(a_cut_leaves_what_was_not_reported_unknown, Results == [ok, unknown(timeout), unknown(timeout)]) :-
    three(Steps),
    outcome(Steps, cut(timeout), ["1.0 begin a", "1.0 end a ok", "1.0 begin b"], Results).
test(a_cut_before_anything_leaves_all_unknown, Results == [unknown(cancelled), unknown(cancelled)]) :-
    two(Steps),
    outcome(Steps, cut(cancelled), [], Results).
test(a_cut_in_the_middle_of_a_report_is_no_report, Results == [ok, unknown(timeout)]) :-
    two(Steps),
    outcome(Steps, cut(timeout), ["1.0 end a ok", "1.0 end"], Results).
test(a_cut_after_a_failure_leaves_the_rest_not_run, Results == [failed(no_space), not_run]) :-
    two(Steps),
    outcome(Steps, cut(timeout), ["1.0 end a failed no_space"], Results).
test(where_nothing_is_reported_no_shell_began_the_script,
     [forall(member(Lines-Errors-Said, [[]-["sh: not found"]-["sh: not found"], ["no account"]-[]-["no account"], []-[]-[]])),
      Results == [failed(command_failed(127, ["the login did not run sh"|Said])), not_run]]) :-
    two(Steps),
    outcome(Steps, done(127, Errors), Lines, Results).
test(a_script_that_ends_within_a_step_failed_in_it, Results == [ok, failed(command_failed(137, []))]) :-
    two(Steps),
    outcome(Steps, done(137, []), ["1.0 begin a", "1.0 end a ok", "1.0 begin b"], Results).
test(a_script_that_ends_between_two_steps_failed_in_the_next, Results == [ok, failed(command_failed(137, []))]) :-
    two(Steps),
    outcome(Steps, done(137, []), ["1.0 begin a", "1.0 end a ok"], Results).
test(what_has_no_report_behind_a_step_that_may_fail_failed,
     Results == [ok, failed(timeout), failed(command_failed(0, []))]) :-
    three(Steps),
    outcome(Steps, done(0, []), ["1.0 begin a", "1.0 end a ok", "1.0 begin b", "1.0 end b failed timeout"], Results).

:- end_tests(scripts_outcomes).
