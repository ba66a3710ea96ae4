:- module(deployment_scripts,
          [ script_text/3,              % +Context, +Steps, -Text
            step_outcomes/4,            % +Steps, +Ending, +Lines, -Outcomes
            remote_action/1,            % +Action
            seconds_for/2,              % +Action, -Seconds
            target_functions/1,         % -Text
            target_settings//1,         % +Context
            step_lines//1,              % +Steps
            shell_words//1,             % +Words
            double_quoted//1,           % +Text
            here_document//3,           % +Command, +Rest, +Lines
            without_comments/2          % +Text, -Code
          ]).

/** <module> Steps as one POSIX sh script

Steps that follow one another on a host without needing the controller become one script: the functions of
`target.sh`, `systemd.sh`, `intent.sh` and `watchdog.sh`, a few assignments, and a line a step.  What the script reports is read back into one outcome a
step.  This is the only module that writes shell words.
*/

:- autoload(library(apply), [maplist/3, foldl/4, include/3]).
:- autoload(library(lists), [append/3, member/2, reverse/2]).
:- autoload(library(readutil), [read_file_to_string/3]).

%!  remote_words(+Action, -Words, -Seconds) is semidet.
%
%   The table of what can be done on a target: the function of `target.sh` with its arguments, and how many
%   seconds it may take at most.  Text that is a command for the target's shell is a single word here too.

remote_words(observe,           [observe],               30).
remote_words(survey,            [survey],                60).
remote_words(stage(Id, _, S),   [stage, Id],             S).
remote_words(verify(Id, S),     [verify, Id],            S).
remote_words(discard(Id),       [discard, Id],           60).
remote_words(share(Id, Paths),  [share, Id|Paths],       30).
remote_words(prepare(Id, C, T), [prepare, Id, T, C],     S) :- S is T + 5.
remote_words(command(C, T),     [run_command, T, C],     S) :- S is T + 5.
remote_words(signal(Name),      [signal, Name],          5).
remote_words(drain(T),          [drain, Whole],          S) :- Whole is ceiling(T), S is T + 5.
remote_words(stop(T),           [stop, Whole],           S) :- Whole is ceiling(T), S is T + 20.
remote_words(link(current, Id), [link, current, Id],     15).
remote_words(link(backup, Id),  [link, '.backup', Id],   15).
remote_words(start(Id, T),      [start, Id, Whole],      S) :- Whole is ceiling(T), S is T + 15.
remote_words(confirm(Id),       [confirm, Id],           15).
remote_words(commit(Id),        [commit, Id],            15).
remote_words(mark_bad(Id),      [mark_bad, Id],          15).
remote_words(prune(Keep),       [prune, Keep],           60).
remote_words(log_tail,          [log_tail],              15).
remote_words(intend(W, B, R, G, Wanted), [intend, W, B, R, G, Wanted], 15).
remote_words(settle,            [settle],                15).
remote_words(arm(T, D),         [arm, Whole, Start],     15) :- Whole is ceiling(T), Start is ceiling(D).
remote_words(disarm(T),         [disarm, Whole],         S) :- Whole is ceiling(T), S is T + 5.
remote_words(lock(T, Id, Back), [lock, T, Id, Back],     15).
remote_words(regain(T),         [regain, Whole],         S) :- Whole is ceiling(T), S is T + 15.
remote_words(unlock,            [unlock],                15).
remote_words(keep,              [keep],                  15).
remote_words(take_over(Of, How), [take_over, Of, How],   30).
remote_words(hook(Event, _, A), [hook, Event|Words],     S) :- remote_words(A, Words, S).

%!  remote_action(+Action) is semidet.
%
%   True when Action is performed on the target, by a script.

remote_action(Action) :-
    remote_words(Action, _, _),
    !.

%!  seconds_for(+Action, -Seconds:number) is det.
%
%   The time limit of a remote action.

seconds_for(Action, Seconds) :-
    remote_words(Action, _, Seconds),
    !.

%!  script_text(+Context, +Steps, -Text:string) is det.
%
%   Text of the script that performs Steps, a list of `do(Id, Mode, Action)`.  Mode is `must`, or `may`
%   for a step whose failure does not end the script.  Context is
%   `context(Service, Host, Target, Dir, Port, Token)`; a Dir `~/…` is below the user's home there.  Token is
%   `leased(Token, Controller)` where the operation has a lease, or takes it.

script_text(context(Service, Host, _, Dir, Port, Token), Steps, Text) :-
    prelude(_, Prelude),
    phrase(( target_settings(context(Service, Host, none, Dir, Port, Token)), watching(Steps), step_lines(Steps) ), Codes),
    string_codes(Body, Codes),
    string_concat(Prelude, Body, Text).

%   The watchdog of a script is the script itself, run again.

watching(Steps) -->
    { member(do(_, _, arm(_, _)), Steps), ! },
    "[ \"${1-}\" != watch ] || { watch \"$2\" \"$3\"; exit; }\n".
watching(_) --> [].

%!  target_settings(+Context)// is det.
%
%   The assignments that the functions of target.sh need.

target_settings(context(Service, Host, _, Dir, Port, Token)) -->
    assignment(service, Service),
    assignment(host, Host),
    assignment(service_port, Port),
    operation(Token),
    directory(Dir, Service).

operation(leased(Token, Controller)) --> !, assignment(token, Token), assignment(controller, Controller).
operation(Token) --> assignment(token, Token).

assignment(Name, Value) -->
    { atom_codes(Name, Codes) },
    codes(Codes), "=", shell_word(Value), "\n".

directory(Dir, Service) -->
    { sub_atom(Dir, 0, 2, _, '~/'), !,
      sub_atom(Dir, 2, _, 0, Below),
      atomic_list_concat([Below, /, Service], Path) },
    "dir=$HOME/", shell_word(Path), "\n".
directory(Dir, Service) -->
    { atomic_list_concat([Dir, /, Service], Path) },
    "dir=", shell_word(Path), "\n".

%!  step_lines(+Steps)// is det.
%
%   A line for each of Steps, `do(Id, Mode, Action)`.

step_lines([]) --> [].
step_lines([do(Id, Mode, Action)|Steps]) -->
    { remote_words(Action, Words, _), !,
      mode_word(Mode, Function) },
    shell_words([Function, Id|Words]), "\n",
    step_lines(Steps).

mode_word(must, step).
mode_word(may, attempt).

%!  shell_words(+Words:list)// is det.
%
%   Words as the shell reads them back: each one word, whatever it holds.

shell_words([Word]) -->
    !,
    shell_word(Word).
shell_words([Word|Words]) -->
    shell_word(Word), " ",
    shell_words(Words).

shell_word(Word) -->
    { format(codes(Codes), '~w', [Word]) },
    "'", quoted(Codes), "'".

%!  double_quoted(+Text)// is det.
%
%   Text as one word between double quotes, as people write assignments.

double_quoted(Text) -->
    { format(codes(Codes), '~w', [Text]) },
    "\"", escaped(Codes), "\"".

escaped([]) --> [].
escaped([Code|Codes]) -->
    ( { memberchk(Code, `\\"$\``) } -> "\\" ; [] ),
    [Code],
    escaped(Codes).

%!  here_document(+Command, +Rest, +Lines:codes)// is det.
%
%   Command, of bash, with Lines as its standard input, exactly; Rest follows it on its line.  Lines end with a line
%   end.

here_document(Command, Rest, Lines) -->
    { end_of(Lines, 'HERE', End) },
    text(Command), " <<'", text(End), "'", text(Rest), "\n", codes(Lines), text(End), "\n".

%   A word with which no line of the document begins.

end_of(Lines, End0, End) :-
    string_codes(Text, Lines),
    split_string(Text, "\n", "", Split),
    atom_string(End0, Line),
    (   member(Begun, Split), sub_string(Begun, 0, _, _, Line)
    ->  atom_concat(End0, '_', End1),
        end_of(Lines, End1, End)
    ;   End = End0
    ).

text(Text) -->
    { format(codes(Codes), '~w', [Text]) },
    codes(Codes).

codes([]) --> [].
codes([Code|Codes]) --> [Code], codes(Codes).

quoted([]) --> [].
quoted([0''|Codes]) --> !, "'\\''", quoted(Codes).
quoted([Code|Codes]) --> [Code], quoted(Codes).

%!  target_functions(-Text:string) is det.
%
%   The functions of target.sh, systemd.sh, intent.sh and watchdog.sh, without comments and empty lines.

target_functions(Text) :-
    prelude(Text, _).

%   prelude(-Text, -Bare): read when this file is compiled, see the end; Bare is without what only people need.

read_prelude(prelude(Code, Bare)) :-
    prolog_load_context(directory, Here),
    findall(Text,
            ( member(Name, ['target.sh', 'systemd.sh', 'intent.sh', 'watchdog.sh']),
              atomic_list_concat([Here, Name], /, File),
              read_file_to_string(File, Text, [encoding(utf8)]) ),
            Texts),
    atomic_list_concat(Texts, All),
    without_comments(All, Code),
    split_string(Code, "\n", " ", Lines),
    atomic_list_concat(Lines, '\n', Atom),
    atom_string(Atom, Bare).

%!  without_comments(+Text:string, -Code:string) is det.
%
%   Code are the lines of Text that are neither empty nor comments.

without_comments(Text, Code) :-
    split_string(Text, "\n", "", Lines0),
    include(code_line, Lines0, Lines),
    atomic_list_concat(Lines, '\n', Short),
    string_concat(Short, "\n", Code).

code_line(Line) :-
    split_string(Line, "", " \t", [Bare]),
    Bare \== "",
    \+ sub_string(Bare, 0, 1, _, "#").

term_expansion(prelude, Fact) :- read_prelude(Fact).

prelude.

%!  step_outcomes(+Steps, +Ending, +Lines, -Outcomes) is det.
%
%   Outcomes has one `outcome(Id, Result, Notes, Begin, End)` for each of Steps (see script_text/3).
%   Result is `ok`, `failed(Reason)`, `unknown(Reason)` where the connection was lost before the step's
%   report came (a script goes on after that), or `not_run` when an earlier step failed.  Begin and End are
%   seconds since the target started, or `none`.  Ending says how the script ended:
%   `done(ExitStatus, LastErrorLines)` or `cut(Reason)`.  Where a script that ended has reported nothing at all, no
%   sh has begun it: the reason's lines say so, and then what was said instead.

step_outcomes(Steps, Ending0, Lines, Outcomes) :-
    foldl(read_report, Lines, [], Reversed),
    reverse(Reversed, Reports),
    (   Reports == [], Ending0 = done(Status, Errors)
    ->  append(["the login did not run sh"|Lines], Errors, Said),
        Ending = done(Status, Said)
    ;   Ending = Ending0
    ),
    outcomes(Steps, Reports, Ending, Outcomes).

read_report(Line, Reports, [report(Id, Word, Rest, Time)|Reports]) :-
    first_word(Line, Uptime, Rest0),
    number_string(Time, Uptime),
    first_word(Rest0, Word0, Rest1),
    first_word(Rest1, Id0, Rest),
    !,
    atom_string(Word, Word0),
    atom_string(Id, Id0).
read_report(_, Reports, Reports).

first_word(String, Word, Rest) :-
    sub_string(String, Before, 1, After, " "),
    !,
    sub_string(String, 0, Before, _, Word),
    sub_string(String, _, After, 0, Rest).
first_word(String, String, "").

outcomes([], _, _, []).
outcomes([do(Id, Mode, _)|Steps], Reports, Ending, [Outcome|Outcomes]) :-
    step_outcome(Id, Reports, Ending, Outcome),
    Outcome = outcome(_, Result, _, _, _),
    (   Mode == must, Result = failed(_)
    ->  outcomes(Steps, Reports, over, Outcomes)
    ;   outcomes(Steps, Reports, Ending, Outcomes)
    ).

%   Behind a step that had to succeed and failed, nothing was run.  Behind any other, a step without a report has
%   failed itself: it is never taken for done.

step_outcome(Id, Reports, Ending, outcome(Id, Result, Notes, Begin, End)) :-
    time_of(Id, begin, Reports, Begin),
    time_of(Id, end, Reports, End),
    findall(Note, ( member(Report, Reports), note(Id, Report, Note) ), Notes),
    step_result(Id, Reports, Ending, Result).

time_of(Id, Word, Reports, Time) :-
    member(report(Id, Word, _, Time), Reports),
    !.
time_of(_, _, _, none).

note(Id, report(Id, log, Text, _), log(Text)).
note(Id, report(Id, line, Text, _), line(Text)).
note(Id, report(Id, got, Text, _), Note) :-
    split_string(Text, " ", "", [Name|Values]),
    maplist([String, Atom]>>atom_string(Atom, String), [Name|Values], Words),
    Note =.. Words.

step_result(Id, Reports, _, Result) :-
    member(report(Id, end, Text, _), Reports),
    !,
    first_word(Text, Word, Rest),
    (   Word == "ok"
    ->  Result = ok
    ;   failure(Id, Reports, Rest, Reason),
        Result = failed(Reason)
    ).
step_result(_, _, cut(Reason), unknown(Reason)) :- !.
step_result(_, _, over, not_run) :- !.
step_result(_, _, done(Status, Lines), failed(command_failed(Status, Lines))).

%   The reason as a term, from the words in which target.sh gives it.

failure(Id, Reports, Text, Reason) :-
    first_word(Text, Word, Rest),
    (   reason(Word, Rest, Reason0)
    ->  Reason = Reason0
    ;   Word == "command_failed"
    ->  number_or(Rest, 1, Code),
        lines_of(Id, Reports, Lines),
        Reason = command_failed(Code, Lines)
    ;   Reason = command_failed(1, [Text])
    ).

reason("no_space", _, no_space).
reason("timeout", _, timeout).
reason("lock_lost", _, lock_lost).
reason("not_regained", _, not_regained).
reason("changed_meanwhile", _, changed_meanwhile).
reason("not_confirmed_in_time", _, not_confirmed_in_time).
reason("held", Text, held(Machine, Pid, Born, Owner, Since, Purpose)) :-
    split_string(Text, " ", "", Words),
    maplist([Word, Atom]>>atom_string(Atom, Word), Words, [Machine, Pid, Born, Owner, Since, Purpose]).
reason("skipped", _, skipped).
reason("in_use", _, in_use).
reason("base_unusable", _, base_unusable).
reason("no_systemd", _, no_systemd).
reason("not_deployed", _, not_deployed).
reason("verification_failed", File, verification_failed(Atom)) :- atom_string(Atom, File).
reason("already_running", Release, already_running(Atom)) :- atom_string(Atom, Release).
reason("port_in_use", Port, port_in_use(Number)) :- number_or(Port, 0, Number).
reason("not_listening", Port, not_listening(Number)) :- number_or(Port, 0, Number).
reason("exited", Code, exited(Number)) :- number_or(Code, unknown, Number).

number_or(Text, _, Number) :-
    number_string(Number, Text),
    !.
number_or(_, Default, Default).

lines_of(Id, Reports, Lines) :-
    findall(Text, member(report(Id, line, Text, _), Reports), Lines).
