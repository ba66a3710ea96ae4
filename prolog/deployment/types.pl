:- module(deployment_types,
          [ check_value/4,              % +Type, +Option0, +Culprit, -Option
            value/3,                    % +Type, +Value0, -Value
            text_atom/2,                % +Text, -Atom
            service_name/2,             % +Name0, -Name
            host_name/2,                % +Host0, -Host
            closed_type/2               % +Type, -Values
          ]).
:- use_module(library(apply), [maplist/2, maplist/3]).
:- use_module(library(lists), [member/2, select/3, subtract/3]).
:- use_module(nearest, [nearest/3]).

/** <module> Types of option values

A type says which values an option takes and brings them into normal form: text (atom or string) becomes an atom, numbers stay. Text never
holds a NUL character.

  - `text`, `command`, `path`: text that is not empty
  - `one_of(Atoms)`, `boolean`
  - `host`: name or address, of letters, digits and `._:%-`, not starting with a dash
  - `user`: login name, of letters, digits and `._@\$-`, not starting with a dash
  - `identifier`: an atom, as it is
  - `port`: 1 to 65535; `http_status`: 100 to 599; `positive_integer`
  - `seconds` (0 or more) and `positive_seconds`: finite numbers
  - `relative_path`, `relative_paths`: inside a folder, without `..`
  - `remote_dir`: absolute, or `~/…`, without `..`
  - `url_path`: starts with `/`, without spaces and control characters
  - `signal`: its name, as `TERM` or `SIGTERM`; normal form `TERM`
  - `environment`: list of NAME-Value, NAME a shell identifier, Value text, a number, or `secret(Source)`, see seal_secrets/2
  - `header`: header(Name, Value), Name an HTTP token, Value without line ends
  - `release_id`: letters, digits and `._-`, not starting with a dot or a dash
  - `backend`: live, dry or model(Script)
  - `count`: an integer, 0 or more
  - `amount`: a positive integer, or `'N%'` with N from 1 to 100; `batch_sizes`: a list of them, not empty
  - `runtime_socket`: an absolute path, `HOST:PORT`, or either as HAProxy writes it: `unix@PATH`, `ipv4@HOST:PORT`
  - `haproxy_name`: of a backend or server, of letters, digits and `._:-`
*/

%!  check_value(+Type, +Option0, +Culprit, -Option) is det.
%
%   Option is Option0 with its value in the normal form of Type.
%
%   @error instantiation_error: the value holds a variable.
%   @error type_error(Type, Culprit), domain_error(Type, Culprit)

check_value(backend, Option, Culprit, Option) :-
    !,
    arg(1, Option, Value),
    (   nonvar(Value)
    ->  checked(backend, Value, _, Culprit)
    ;   throw(error(instantiation_error, context(_, option(Culprit))))
    ).
check_value(_, Option, Culprit, _) :-
    \+ ground(Option),
    !,
    throw(error(instantiation_error, context(_, option(Culprit)))).
check_value(header, Option0, Culprit, Option) :-
    !,
    checked(header, Option0, Option, Culprit).
check_value(Type, Option0, Culprit, Option) :-
    compound_name_arguments(Option0, Name, [Value0]),
    checked(Type, Value0, Value, Culprit),
    compound_name_arguments(Option, Name, [Value]).

%!  checked(+Type, +Value0, -Value, +Culprit) is det.

checked(Type, Value0, Value, _) :-
    value(Type, Value0, Value1),
    !,
    Value = Value1.
checked(Type, Value, _, Culprit) :-
    right_kind(Type, Value),
    !,
    (   closed_type(Type, Values),
        nearest(Value, Values, Nearest)
    ->  Message = nearest(Nearest)
    ;   true
    ),
    throw(error(domain_error(Type, Culprit), context(_, Message))).
checked(Type, _, _, Culprit) :-
    throw(error(type_error(Type, Culprit), _)).

%!  closed_type(+Type, -Values:list(atom)) is semidet.
%
%   Values are the few words that Type allows.

closed_type(one_of(Values), Values).
closed_type(boolean, [true, false]).
closed_type(backend, [live, dry]).
closed_type(signal, Values) :-
    findall(Name, signal_name(Name), Values).

%!  right_kind(+Type, +Value) is semidet.
%
%   Value is of the kind that values of Type are made of, though it may be none of them.

right_kind(Type, Value) :-
    kind(Type, Kind),
    !,
    of_kind(Kind, Value).
right_kind(_, Value) :-
    text_atom(Value, _).

%!  kind(+Type, -Kind) is semidet.

kind(port, integer).
kind(http_status, integer).
kind(positive_integer, integer).
kind(count, integer).
kind(amount, amount).
kind(batch_sizes, list).
kind(seconds, number).
kind(positive_seconds, number).
kind(environment, list).
kind(relative_paths, list).
kind(header, header).
kind(identifier, identifier).

%!  of_kind(+Kind, +Value) is semidet.

of_kind(integer, Value) :- integer(Value).
of_kind(number, Value) :- number(Value).
of_kind(list, Value) :- is_list(Value).
of_kind(amount, Value) :- integer(Value).
of_kind(amount, Value) :- text_atom(Value, _).
of_kind(header, header(_, _)).

%!  plain_path(+Path, -Plain:atom) is semidet.
%
%   Path without empty and `.` parts; something is left.

plain_path(Path, Plain) :-
    atomic_list_concat(Parts0, /, Path),
    subtract(Parts0, ['', '.'], Parts),
    Parts = [First|_],
    First \== '.unifyweaver',
    atomic_list_concat(Parts, /, Plain).

%!  within(+Path, +Folder) is semidet.
%
%   Path is Folder or below it: one path can't be a link and hold another.

within(Folder, Folder) :- !.
within(Path, Folder) :-
    atom_concat(Folder, /, Below),
    sub_atom(Path, 0, _, _, Below).

%!  value(+Type, +Value0, -Value) is semidet.
%
%   Value0 is of Type, and Value is its normal form.

value(text, Value0, Value) :-
    filled_atom(Value0, Value).
value(command, Value0, Value) :-
    filled_atom(Value0, Value).
value(path, Value0, Value) :-
    filled_atom(Value0, Value).
value(identifier, Value, Value) :-
    atom(Value).
value(one_of(Values), Value0, Value) :-
    text_atom(Value0, Value),
    memberchk(Value, Values).
value(boolean, Value0, Value) :-
    value(one_of([true, false]), Value0, Value).
value(host, Value0, Value) :-
    host_name(Value0, Value).
value(user, Value0, Value) :-
    restricted_atom(Value0, `._@\\$-`, `-`, Value).
value(release_id, Value0, Value) :-
    restricted_atom(Value0, `._-`, `.-`, Value).
value(port, Value, Value) :-
    integer(Value), Value >= 1, Value =< 65535.
value(http_status, Value, Value) :-
    integer(Value), Value >= 100, Value =< 599.
value(count, Value, Value) :-
    integer(Value), Value >= 0.
value(amount, Value, Value) :-
    integer(Value), Value > 0.
value(amount, Value0, Value) :-
    text_atom(Value0, Value),
    atom_concat(Digits, '%', Value),
    atom_number(Digits, Percent),
    integer(Percent),
    between(1, 100, Percent).
value(batch_sizes, Sizes0, Sizes) :-
    is_list(Sizes0),
    Sizes0 \== [],
    maplist(value(amount), Sizes0, Sizes).
value(positive_integer, Value, Value) :-
    integer(Value), Value >= 1.
value(seconds, Value, Value) :-
    finite(Value), Value >= 0.
value(positive_seconds, Value, Value) :-
    finite(Value), Value > 0.
value(relative_path, Value0, Value) :-
    filled_atom(Value0, Value),
    relative_path(Value).
value(relative_paths, Values0, Values) :-
    is_list(Values0),
    maplist(value(relative_path), Values0, Written),
    maplist(plain_path, Written, Values),
    \+ ( select(One, Values, Others), member(Other, Others), within(Other, One) ).
value(remote_dir, Value0, Value) :-
    filled_atom(Value0, Value),
    remote_dir(Value).
value(url_path, Value0, Value) :-
    filled_atom(Value0, Value),
    url_path(Value).
value(signal, Value0, Value) :-
    text_atom(Value0, Name0),
    signal(Name0, Value).
value(environment, Pairs0, Pairs) :-
    is_list(Pairs0),
    maplist(environment_pair, Pairs0, Pairs),
    unique_keys(Pairs).
value(header, header(Name0, Value0), header(Name, Value)) :-
    restricted_atom(Name0, `!#$%&'*+-.^_\`|~`, [], Name),
    value_text(Value0, Value),
    \+ has_control(Value),
    \+ beyond_latin_1(Value).
value(backend, Value0, Value) :-
    backend(Value0, Value).
value(runtime_socket, Value0, Value) :-
    text_atom(Value0, Value),
    runtime_socket(Value).
value(haproxy_name, Value0, Value) :-
    restricted_atom(Value0, `._:-`, [], Value).

%!  runtime_socket(+Text) is semidet.

runtime_socket(Text) :-
    member(Prefix, ['unix@', '']),
    atom_concat(Prefix, Path, Text),
    sub_atom(Path, 0, _, _, /),
    !.
runtime_socket(Text) :-
    member(Prefix, ['ipv4@', 'ipv6@', '']),
    atom_concat(Prefix, Place, Text),
    sub_atom(Place, Before, 1, After, :),
    Before > 0,
    sub_atom(Place, _, After, 0, Digits),
    \+ sub_atom(Digits, _, _, _, :),
    atom_number(Digits, Port),
    value(port, Port, _),
    !.

%!  backend(+Value0, -Value) is semidet.

backend(model(Script), model(Script)) :- !.
backend(Value0, Value) :-
    value(one_of([live, dry]), Value0, Value).

%!  finite(+Value) is semidet.

finite(Value) :-
    integer(Value),
    !.
finite(Value) :-
    rational(Value),
    !.
finite(Value) :-
    float(Value),
    float_class(Value, Class),
    memberchk(Class, [zero, subnormal, normal]).

%!  text_atom(+Text, -Atom) is semidet.
%
%   Text is an atom or a string without NUL characters, and Atom the atom of that text.

text_atom(Text, Atom) :-
    (   atom(Text), Text \== []
    ->  Atom = Text
    ;   string(Text)
    ->  atom_string(Atom, Text)
    ),
    \+ sub_atom(Atom, _, _, _, '\000\').

%!  filled_atom(+Text, -Atom) is semidet.
%
%   As text_atom/2, for text that is not empty.

filled_atom(Text, Atom) :-
    text_atom(Text, Atom),
    Atom \== ''.

%!  value_text(+Value, -Atom) is semidet.
%
%   As text_atom/2, for text or a number.

value_text(Number, Atom) :-
    number(Number),
    !,
    atom_number(Atom, Number).
value_text(Text, Atom) :-
    text_atom(Text, Atom).

%!  restricted_atom(+Text, +Others:list(integer), +NotFirst:list(integer), -Atom) is semidet.
%
%   Atom is that of Text, which is not empty, holds ASCII letters, digits and the codes in Others only, and does not start with one in
%   NotFirst.

restricted_atom(Text, Others, NotFirst, Atom) :-
    text_atom(Text, Atom),
    atom_codes(Atom, Codes),
    Codes = [First|_],
    \+ memberchk(First, NotFirst),
    all_allowed(Codes, Others).

%!  all_allowed(+Codes, +Others) is semidet.

all_allowed([], _).
all_allowed([Code|Codes], Others) :-
    allowed(Code, Others),
    !,
    all_allowed(Codes, Others).

%!  allowed(+Code, +Others) is semidet.

allowed(Code, _) :- Code >= 0'a, Code =< 0'z, !.
allowed(Code, _) :- Code >= 0'0, Code =< 0'9, !.
allowed(Code, _) :- Code >= 0'A, Code =< 0'Z, !.
allowed(Code, Others) :- memberchk(Code, Others).

%!  service_name(+Name0, -Name:atom) is det.
%
%   Name is Name0 as an atom. It names a folder on the target, so it holds letters, digits and `._-` only, at most 100, and does not start
%   with a dot or a dash.
%
%   @error type_error(service_name, Name0), domain_error(service_name, Name0)

service_name(Name0, _) :-
    var(Name0),
    !,
    throw(error(instantiation_error, _)).
service_name(Name0, Name) :-
    restricted_atom(Name0, `._-`, `.-`, Name),
    atom_length(Name, Length),
    Length =< 100,
    !.
service_name(Name, _) :-
    throw_mismatch(service_name, Name).

%!  host_name(+Host0, -Host:atom) is semidet.
%
%   Host is Host0 as an atom, a host's name or address.

host_name(Host0, Host) :-
    restricted_atom(Host0, `.-_:%`, `-`, Host),
    atom_length(Host, Length),
    Length =< 255.

%!  throw_mismatch(+Type, +Culprit) is erroneous.

throw_mismatch(Type, Culprit) :-
    text_atom(Culprit, _),
    !,
    throw(error(domain_error(Type, Culprit), _)).
throw_mismatch(Type, Culprit) :-
    throw(error(type_error(Type, Culprit), _)).

%!  relative_path(+Path) is semidet.

relative_path(Path) :-
    \+ sub_atom(Path, 0, _, _, /),
    no_parent(Path),
    Path \== '.'.

%!  remote_dir(+Path) is semidet.

remote_dir(Path) :-
    (   sub_atom(Path, 0, _, _, /)
    ;   sub_atom(Path, 0, _, _, '~/')
    ),
    !,
    no_parent(Path),
    \+ has_control(Path).

%!  no_parent(+Path) is semidet.
%
%   No component of Path is `..`.

no_parent(Path) :-
    (   sub_atom(Path, _, _, _, '..')
    ->  split_string(Path, "/", "", Parts),
        \+ memberchk("..", Parts)
    ;   true
    ).

%!  url_path(+Path) is semidet.

url_path(Path) :-
    sub_atom(Path, 0, _, _, /),
    \+ has_control(Path),
    \+ sub_atom(Path, _, _, _, ' ').

%!  has_control(+Atom) is semidet.
%
%   Atom holds a control character.

has_control(Atom) :-
    atom_codes(Atom, Codes),
    member(Code, Codes),
    ( Code < 32 ; Code =:= 127 ),
    !.

%!  beyond_latin_1(+Atom) is semidet.
%
%   Atom holds a character that a header has no byte for.

beyond_latin_1(Atom) :-
    atom_codes(Atom, Codes),
    member(Code, Codes),
    Code > 255,
    !.

%!  signal(+Name0, -Name) is semidet.
%
%   Name is the signal Name0 in capitals, without the prefix SIG.

signal(Name0, Name) :-
    upcase_atom(Name0, Upper),
    (   atom_concat('SIG', Name, Upper)
    ->  true
    ;   Name = Upper
    ),
    signal_name(Name),
    !.

%!  signal_name(?Name) is nondet.
%
%   Name is a signal that a process can answer: neither KILL nor STOP.

signal_name('HUP').
signal_name('INT').
signal_name('QUIT').
signal_name('TERM').
signal_name('USR1').
signal_name('USR2').
signal_name('WINCH').
signal_name('CONT').
signal_name('ALRM').
signal_name('PIPE').
signal_name('TSTP').
signal_name('TTIN').
signal_name('TTOU').
signal_name('URG').
signal_name('IO').
signal_name('VTALRM').
signal_name('PROF').

%!  environment_pair(+Pair0, -Pair) is semidet.

environment_pair(Name0-Value0, Name-Value) :-
    text_atom(Name0, Name),
    shell_identifier(Name),
    environment_value(Value0, Value).

%!  shell_identifier(+Name:atom) is semidet.

shell_identifier(Name) :-
    atom_codes(Name, [First|Codes]),
    \+ ( First >= 0'0, First =< 0'9 ),
    all_allowed([First|Codes], `_`).

%!  environment_value(+Value0, -Value) is semidet.

environment_value(secret(Source0), secret(Source)) :-
    !,
    compound(Source0),
    compound_name_arguments(Source0, Kind, [Text]),
    memberchk(Kind, [env, command, sealed]),
    filled_atom(Text, Atom),
    ( Kind == env -> shell_identifier(Atom) ; true ),
    compound_name_arguments(Source, Kind, [Atom]).
environment_value(Value0, Value) :-
    value_text(Value0, Value).

%!  unique_keys(+Pairs) is semidet.

unique_keys(Pairs) :-
    length(Pairs, Length),
    sort(1, @<, Pairs, Unique),
    length(Unique, Length).
