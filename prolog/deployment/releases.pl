:- module(deployment_releases,
          [ scan_action/3,              % +Service, +Host, -Action
            release_hash_of/3,          % +Service, +SourceHash, -Hash
            release/5,                  % +Service, +Host, +Seals, +SourceHash, -Release
            release_recipe/4,           % +Service, +Host, +Seals, -Recipe
            configuration_text/4,       % +Service, +Host, +Seals, -Text
            needed_files/3,             % +Service, +Host, -Paths
            hash_of_id/2                % +Id, -Hash
          ]).

/** <module> Releases: files and run configuration under one hash

A release is its files and its run configuration.  Its hash covers both.  Where a host's own options change
the run configuration, the release's id on that host is the hash with a digest of those options behind it,
so that `current` always tells what runs there.
*/

:- autoload(library(apply), [maplist/3, foldl/4]).
:- autoload(library(lists), [append/3, member/2]).
:- autoload(library(sha), [sha_hash/3, hash_atom/2]).
:- use_module(declarations, [resolve/5, service_sources/2, source_base/2]).
:- use_module(scripts, [shell_words//1]).
:- use_module(secrets, [seals/3, sealed_environment/3, secrets_file/2]).
:- use_module(units, [unit_text/4, unit_manager/3, supervised_by_systemd/2]).

%!  scan_action(+Service, +Host, -Action) is det.
%
%   @error existence_error(service_sources, Service)

scan_action(Service, Host, scan(Dir, Patterns, Needs)) :-
    (   service_sources(Service, Patterns)
    ->  true
    ;   throw(error(existence_error(service_sources, Service), _))
    ),
    source_base(Service, Dir),
    needed_files(Service, Host, Needs).

%!  needed_files(+Service, +Host, -Paths:list) is det.
%
%   Paths have to be among what is shipped.

needed_files(Service, Host, Paths) :-
    findall(Path, needed(Service, Host, Path), Paths).

%   The entry point is shipped, unless something else is started or a preparation builds it.

needed(Service, Host, Entry) :-
    configured(Service, Host, entry_point, Entry),
    \+ configured(Service, Host, start_command, _),
    \+ configured(Service, Host, prepare_command, _),
    configured(Service, Host, target, Target),
    Target \== rust.

%!  configuration(+Service, +Host, +Seals, -Configuration:list) is det.
%
%   What a release is run with, as Name(Value) in a fixed order.  Host `none` means the service's own
%   options alone.  Of secrets it holds digests, see seals/3.

configuration(Service, Host, Seals, Configuration) :-
    findall(Option,
            ( member(Name, [port, target, entry_point, start_command, prepare_command, env, shared_paths]),
              configured(Service, Host, Name, Value0),
              covered(Name, Value0, Seals, Value),
              Option =.. [Name, Value] ),
            Configuration0),
    (   supervised_by_systemd(Service, Host)
    ->  unit_manager(Service, Host, Manager),
        unit_text(Service, Host, Manager, Unit),
        append(Configuration0, [unit(Unit)], Configuration)
    ;   Configuration = Configuration0
    ).

%!  configuration_text(+Service, +Host, +Seals, -Text:string) is det.
%
%   The configuration as what is hashed.

configuration_text(Service, Host, Seals, Text) :-
    configuration(Service, Host, Seals, Configuration),
    format(string(Text), '~k', [Configuration]).

covered(env, Pairs0, Seals, Pairs) :- !, sealed_environment(Pairs0, Seals, Pairs).
covered(_, Value, _, Value).

configured(Service, Host, Name, Value) :-
    resolve(Service, Host, [], Name, Value).

%!  release_hash_of(+Service, +SourceHash, -Hash:atom) is det.
%
%   @error as seals/3

release_hash_of(Service, SourceHash, Hash) :-
    seals(Service, none, Seals),
    configuration_text(Service, none, Seals, Configuration),
    release_text(SourceHash, Configuration, Text),
    text_digest(Text, Hash).

digest(Term, Hash) :-
    format(string(Text), '~k', [Term]),
    text_digest(Text, Hash).

text_digest(Text, Hash) :-
    sha_hash(Text, Bytes, [algorithm(sha256), encoding(utf8)]),
    hash_atom(Bytes, Hash).

%!  release(+Service, +Host, +Seals, +SourceHash, -Release) is det.
%
%   Release is `release(Id, Hash, Files)`; Files are those that are added to the shipped ones, as
%   `file(Path, Mode, Text)`; Seals are those of seals/3.

release(Service, Host, Seals, SourceHash, release(Id, Hash, Files)) :-
    release_recipe(Service, Host, Seals, recipe(Configuration, Suffix, Files)),
    release_text(SourceHash, Configuration, Text),
    text_digest(Text, Hash),
    atom_concat(Hash, Suffix, Id).

%!  release_recipe(+Service, +Host, +Seals, -Recipe) is det.
%
%   How a release's id follows from the hash of its sources, and the Files that are added to them.  Recipe is
%   `recipe(Configuration, Suffix, Files)`: the hash of a release is that of the text
%   `release(SourceHash,Configuration)`, SourceHash quoted as Prolog does; Suffix is what follows it in the id.

release_recipe(Service, Host, Seals, recipe(Configuration, Suffix, [Start, Port|Files])) :-
    configuration(Service, none, Seals, Common),
    configuration(Service, Host, Seals, Own),
    format(string(Configuration), '~k', [Common]),
    suffix(Own, Common, Suffix),
    start_text(Service, Own, StartText),
    memberchk(port(Number), Own),
    format(string(PortText), '~w~n', [Number]),
    Start = file('.unifyweaver/start', 0o600, StartText),
    Port = file('.unifyweaver/port', 0o600, PortText),
    memberchk(env(Environment), Own),
    secrets_file(Environment, Secrets),
    findall(file('.unifyweaver/unit', 0o600, Text), member(unit(Text), Own), Unit),
    append(Unit, Secrets, Files).

suffix(Common, Common, '') :- !.
suffix(Own, _, Suffix) :-
    digest(Own, Digest),
    sub_atom(Digest, 0, 8, _, Short),
    atom_concat(-, Short, Suffix).

release_text(SourceHash, Configuration, Text) :-
    format(string(Text), 'release(~k,~s)', [SourceHash, Configuration]).

%!  hash_of_id(+Id:atom, -Hash:atom) is det.

hash_of_id(Id, Hash) :-
    sub_atom(Id, Before, 1, _, -),
    !,
    sub_atom(Id, 0, Before, _, Hash).
hash_of_id(Id, Id).

%   A declared start_command is the shell's; every other word is quoted.

start_text(Service, Configuration, Text) :-
    memberchk(port(Port), Configuration),
    memberchk(env(Pairs), Configuration),
    append([ 'SERVICE'-Service, 'PORT'-Port ], Pairs, Variables),
    start_words(Configuration, Words),
    phrase(( exports(Variables), reading(Pairs), "exec ", shell_words(Words), "\n" ), Codes),
    string_codes(Text, Codes).

%   Secrets are in a file beside it.

reading(Pairs) --> { memberchk(_-secret(_), Pairs) }, !, ". ./.unifyweaver/secrets\n".
reading(_) --> [].

exports([]) --> [].
exports([_-secret(_)|Pairs]) --> !, exports(Pairs).
exports([Name-Value|Pairs]) -->
    { format(codes(Codes), '~w=', [Name]) },
    "export ", codes(Codes), shell_words([Value]), "\n",
    exports(Pairs).

codes([]) --> [].
codes([Code|Codes]) --> [Code], codes(Codes).

start_words(Configuration, [sh, '-c', --, Command]) :-
    memberchk(start_command(Command), Configuration),
    !.
start_words(Configuration, Words) :-
    memberchk(port(Port), Configuration),
    memberchk(target(Target), Configuration),
    memberchk(entry_point(Entry), Configuration),
    start_words(Target, Entry, Port, Words).

start_words(python, Entry, Port, [python3, File, '--port', Port]) :- !, file_word(Entry, File).
start_words(node, Entry, Port, [node, File, '--port', Port]) :- !, file_word(Entry, File).
start_words(go, Entry, Port, [Program, '-port', Port]) :- !, atom_concat('./', Entry, Program).
start_words(rust, Entry, Port, [Program, '--port', Port]) :- !, atom_concat('./target/release/', Entry, Program).
start_words(_, Entry, Port, [Program, '--port', Port]) :- atom_concat('./', Entry, Program).

%   An interpreter takes a word that begins with a dash for an option.

file_word(Entry, File) :-
    (   sub_atom(Entry, 0, _, _, -)
    ->  atom_concat('./', Entry, File)
    ;   File = Entry
    ).
