:- module(deployment_script_texts,
          [ deploy_text/3,              % +Service, +Host, -Script
            rollback_text/3,            % +Service, +Host, -Script
            health_text/4               % +Service, +Host, +Tries, -Script
          ]).

/** <module> The text of scripts

A script is a head of variables, settings, the functions of `target.sh` and `receive.sh` for the target, one function
an event for the hooks, and the bash functions of the files beside this one, the last of which begins to act.
*/

:- autoload(library(apply), [maplist/3, include/3]).
:- autoload(library(lists), [member/2, memberchk/2]).
:- autoload(library(readutil), [read_file_to_string/3]).
:- use_module(declarations, [resolve/5, deploy_method_config/3, service_sources/2]).
:- use_module(health, [route/3]).
:- use_module(patterns, [pattern_regex//2]).
:- use_module(releases, [needed_files/3]).
:- use_module(script_secrets, [script_recipe/3, secrets//2]).
:- use_module(script_heads, [title//2, head//2, health_head//4, settings//2, variables//1, array//2, formatted//2]).
:- use_module(script_hooks, [hooks//2]).
:- use_module(scripts, [target_functions/1, target_settings//1, shell_words//1, here_document//3, without_comments/2]).

%!  deploy_text(+Service, +Host, -Script:atom) is det.

deploy_text(Service, Host, Script) :-
    text(( title("Deploys the service ~w to ~w; the folder to ship is the argument", [Service, Host]),
           head(Service, Host), settings(Service, Host), sources(Service, Host), on_target(Service, Host, receiving),
           hooks(Service, Host), adopting(Service, Host), acting(Service, Host, 'deploy.bash') ),
         Script).

%!  rollback_text(+Service, +Host, -Script:atom) is det.

rollback_text(Service, Host, Script) :-
    text(( title("Rolls the service ~w on ~w back to the release that .backup names", [Service, Host]),
           head(Service, Host), settings(Service, Host), on_target(Service, Host, alone), hooks(Service, Host),
           acting(Service, Host, 'rollback.bash') ),
         Script).

%!  health_text(+Service, +Host, +Tries, -Script:atom) is det.
%
%   Tries is `tries(Number, Seconds)`, so many seconds each.

health_text(Service, Host, tries(Retries, Timeout), Script) :-
    text(( title("Asks the service ~w on ~w whether it is healthy: exits with 0 if it is, 2 if not", [Service, Host]),
           health_head(Service, Host, Retries, Timeout), asking(Service, Host), file('health.bash') ),
         Script).

:- meta_predicate text(//, -).

text(Body, Script) :-
    phrase(Body, Codes),
    atom_codes(Script, Codes).

% ---- sources ---------------------------------------------------------------------------------------

sources(Service, Host) -->
    { (   service_sources(Service, Patterns) -> true ; Patterns = ['**'] ),
      include([Pattern]>>atom(Pattern), Patterns, Included),
      findall(Pattern, member(\+ Pattern, Patterns), Excluded),
      needed_files(Service, Host, Needed0),
      maplist(normal_path, Needed0, Needed),
      resolve(Service, Host, [], keep_releases, Keep) },
    variables(['KEEP_RELEASES'-Keep]),
    array('PATTERNS', Included),
    array('NEEDS', Needed),
    "source_patterns() { # as regular expressions\n    INCLUDE=(",
    regexes(Included, include),
    ")\n    EXCLUDE=(",
    regexes(Excluded, exclude),
    ")\n}\n\n".

regexes([], _) --> [].
regexes([Pattern], Role) --> !, pattern_regex(Role, Pattern).
regexes([Pattern|Patterns], Role) --> pattern_regex(Role, Pattern), " ", regexes(Patterns, Role).

normal_path(Path0, Path) :-
    split_string(Path0, "/", "", Parts0),
    include([Part]>>( Part \== "", Part \== "." ), Parts0, Parts),
    atomic_list_concat(Parts, /, Path).

% ---- what is done on the target --------------------------------------------------------------------

on_target(Service, Host, Functions) -->
    { target_functions(Base),
      (   Functions == receiving
      ->  file_text('receive.sh', Text0),
          without_comments(Text0, Text),
          string_concat(Base, Text, All)
      ;   All = Base
      ),
      string_codes(All, Lines),
      context(Service, Host, Context),
      phrase(target_settings(Context), Settings) },
    "# The functions that do the work there.\ntarget_functions() {\n",
    here_document("    cat", "", Lines),
    "}\n\ntarget_settings() {\n",
    here_document("    cat", "", Settings),
    "}\n\n".

context(Service, Host, context(Service, Host, none, Dir, Port, '')) :-
    resolve(Service, Host, [], remote_dir, Dir),
    resolve(Service, Host, [], port, Port).

%   The lines after the release has arrived: it gets its name, and is prepared.

adopting(Service, Host) -->
    { script_recipe(Service, Host, recipe(Configuration, Suffix, Files)),
      findall(Word, ( member(file(Path, _, Text), Files), member(Word, [Path, Text]) ), Words),
      phrase(adopt_lines(Service, Host, [Suffix, Configuration|Words]), Lines),
      ( Suffix == unsealed_suffix -> Command = "    unsealed" ; Command = "    cat" ) },
    "adopt_steps() {\n",
    here_document(Command, "", Lines),
    "}\n\n",
    fetching(Suffix, Service, Host).

fetching(unsealed_suffix, Service, Host) --> !, secrets(Service, Host), file('secrets.bash').
fetching(_, _, _) --> [].

adopt_lines(Service, Host, Words) -->
    "step adopt adopt \"$token\" ", shell_words(Words), "\n",
    { resolve(Service, Host, [], shared_paths, Paths) },
    (   { Paths == [] }
    ->  []
    ;   "[ -n \"$reused\" ] || step share share \"$id\" ", shell_words(Paths), "\n"
    ),
    (   { resolve(Service, Host, [], prepare_command, Command) }
    ->  { resolve(Service, Host, [], command_timeout, Seconds) },
        "[ -n \"$reused\" ] || step prepare prepare \"$id\" ", shell_words([Seconds, Command]), "\n"
    ;   []
    ).

% ---- the functions ---------------------------------------------------------------------------------

acting(Service, Host, Last) -->
    { deploy_method_config(Service, Method, _),
      atom_concat(Method, '.bash', Reaching) },
    (   { Method == ssh } -> file('connection.bash') ; [] ),
    file(Reaching),
    file_of_route(Service, Host),
    file('ask.bash'),
    file('remote.bash'),
    file(Last).

asking(Service, Host) -->
    { route(Service, Host, Route) },
    (   { Route == ssh } -> file('connection.bash') ; [] ),
    file_of_route(Service, Host),
    file('ask.bash').

file_of_route(Service, Host) -->
    { route(Service, Host, Route),
      ( Route == ssh -> File = 'forward.bash' ; File = 'direct.bash' ) },
    file(File).

%   Without the first lines, which are for who reads the file.

file(Name) -->
    { file_text(Name, Text),
      once(sub_string(Text, _, _, After, "\n\n")),
      sub_string(Text, _, After, 0, Body) },
    formatted("~w\n", [Body]).

%   file_text(?Name, ?Text): the texts are read when this file is compiled.

term_expansion(file_texts(Names), Facts) :-
    prolog_load_context(directory, Here),
    findall(file_text(Name, Text),
            ( member(Name, Names),
              atomic_list_concat([Here, /, Name], File),
              read_file_to_string(File, Text, [encoding(utf8)]) ),
            Facts).

file_texts(['receive.sh', 'connection.bash', 'ssh.bash', 'local.bash', 'forward.bash', 'direct.bash', 'ask.bash',
            'remote.bash', 'secrets.bash', 'deploy.bash', 'rollback.bash', 'health.bash']).
