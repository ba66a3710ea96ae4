:- module(deployment_script_heads,
          [ title//2,                   % +Format, +Arguments
            head//2,                    % +Service, +Host
            health_head//4,             % +Service, +Host, +Retries, +Timeout
            settings//2,                % +Service, +Host
            variables//1,               % +Pairs
            array//2,                   % +Name, +Values
            double_quoted_words//1,     % +Words
            plain/2,                    % +Number0, -Number
            formatted//2                % +Format, +Arguments
          ]).

/** <module> The beginning of a script: the variables that say for whom it is, and how its target is reached */

:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(declarations, [resolve/5, declared/5, deploy_method_config/3]).
:- use_module(health, [route/3]).
:- use_module(options, [default_option/3]).
:- use_module(scripts, [double_quoted//1]).
:- use_module(security, [is_local_host/1]).

%!  title(+Format, +Arguments)// is det.
%
%   The first lines; Format and Arguments say what the script does.

title(Format, Arguments) -->
    "#!/usr/bin/env bash\n# ",
    formatted(Format, Arguments),
    ".\n# Made by unifyweaver_py from what was declared: declare and make it again rather than edit it.\n\
set -euo pipefail\n\n".

%!  head(+Service, +Host)// is det.
%
%   SERVICE, HOST, USER, REMOTE_DIR and PORT.

head(Service, Host) -->
    { resolve(Service, Host, [], user, User),
      resolve(Service, Host, [], remote_dir, Dir),
      resolve(Service, Host, [], port, Port) },
    variables(['SERVICE'-Service, 'HOST'-Host, 'USER'-User]),
    home_directive(Dir),
    variables(['REMOTE_DIR'-Dir, 'PORT'-Port]),
    "\n".

%!  health_head(+Service, +Host, +Retries, +Timeout)// is det.
%
%   All that a health check needs to know; Timeout are the seconds of one try.

health_head(Service, Host, Retries, Timeout) -->
    { resolve(Service, Host, [], port, Port),
      resolve(Service, Host, [], health_endpoint, Endpoint),
      default_option(health_check, delay, Delay),
      plain(Timeout, Seconds),
      protocol(Service, Host, Protocol),
      address(Service, Host, Address),
      route(Service, Host, Route),
      ( Route == ssh -> Tools = [curl, ssh] ; Tools = [curl] ) },
    variables(['SERVICE'-Service, 'HOST'-Host, 'PORT'-Port, 'ENDPOINT'-Endpoint, 'TIMEOUT'-Seconds, 'RETRIES'-Retries,
               'PROTOCOL'-Protocol]),
    "\n",
    variables(['ADDRESS'-Address, 'DELAY'-Delay]),
    array('TOOLS', Tools),
    through_ssh(Route, Service, Host),
    "\n".

through_ssh(direct, _, _) --> [].
through_ssh(ssh, Service, Host) -->
    { resolve(Service, Host, [], user, User) },
    variables(['USER'-User]),
    ssh_options(Service, Host).

%!  variables(+Pairs)// is det.
%
%   NAME="value" for each Name-Value.

variables([]) --> [].
variables([Name-Value|Pairs]) -->
    formatted("~w=", [Name]),
    double_quoted(Value),
    "\n",
    variables(Pairs).

%!  array(+Name, +Values:list)// is det.

array(Name, Values) -->
    formatted("~w=(", [Name]),
    double_quoted_words(Values),
    ")\n".

%!  double_quoted_words(+Words:list)// is det.

double_quoted_words([]) --> [].
double_quoted_words([Word]) --> !, double_quoted(Word).
double_quoted_words([Word|Words]) --> double_quoted(Word), " ", double_quoted_words(Words).

home_directive(Dir) -->
    { sub_atom(Dir, 0, _, _, '~/') },
    !,
    "# shellcheck disable=SC2088  # the home that the user has on the target is meant\n".
home_directive(_) --> [].

%!  settings(+Service, +Host)// is det.
%
%   What the functions need to know beside the head.

settings(Service, Host) -->
    { resolve(Service, Host, [], health_endpoint, Endpoint),
      resolve(Service, Host, [], healthy_deadline, Deadline0),
      Deadline is ceiling(Deadline0),
      default_option(graceful_stop, drain_timeout, Drain),
      default_option(graceful_stop, force_after, Force),
      protocol(Service, Host, Protocol),
      address(Service, Host, Address),
      deploy_method_config(Service, Method, _),
      ( Method == ssh -> Tools = [ssh, curl] ; Tools = [curl] ) },
    variables(['PROTOCOL'-Protocol, 'ADDRESS'-Address, 'ENDPOINT'-Endpoint, 'HEALTHY_DEADLINE'-Deadline,
               'DRAIN_TIMEOUT'-Drain, 'FORCE_AFTER'-Force]),
    array('TOOLS', Tools),
    as_root(Service, Host),
    ssh_options(Method, Service, Host),
    "\n".

as_root(Service, Host) -->
    { (   resolve(Service, Host, [], sudo, true) -> Prefix = 'sudo -n ' ; Prefix = '' ) },
    variables(['AS_ROOT'-Prefix]).

ssh_options(local, _, _) --> [].
ssh_options(ssh, Service, Host) --> ssh_options(Service, Host).

ssh_options(Service, Host) -->
    { findall(Word, ( ssh_option(Service, Host, Words), member(Word, Words) ), All) },
    array('SSH_OPTIONS', All).

%   ssh_option(+Service, +Host, -Words) is nondet.

ssh_option(_, _, ['-o', 'BatchMode=yes', '-o', 'ServerAliveInterval=15']).
ssh_option(Service, Host, ['-p', Port]) :- declared(Service, Host, [], ssh_port, Port).
ssh_option(Service, Host, ['-o', Option]) :-
    resolve(Service, Host, [], connect_timeout, Seconds0),
    Seconds is ceiling(Seconds0),
    atom_concat('ConnectTimeout=', Seconds, Option).
ssh_option(Service, Host, ['-o', Option]) :-
    resolve(Service, Host, [], host_key, Policy),
    (   Policy == strict -> Word = yes ; Word = 'accept-new' ),
    atom_concat('StrictHostKeyChecking=', Word, Option).
ssh_option(Service, Host, ['-o', Option]) :-
    declared(Service, Host, [], known_hosts, File),
    ssh_value(File, Value),
    atom_concat('UserKnownHostsFile=', Value, Option).
ssh_option(Service, Host, ['-o', Option, '-o', 'IdentitiesOnly=yes']) :-
    declared(Service, Host, [], key_file, File),
    ssh_value(File, Value),
    atom_concat('IdentityFile=', Value, Option).
ssh_option(Service, Host, ['-o', 'IdentityAgent=none']) :- resolve(Service, Host, [], agent, false).

%   A path as a value of ssh's options: quoted, and % doubled, which begins a token there.  For ${ it has no such escape.

ssh_value(Path, _) :-
    sub_atom(Path, _, _, _, '${'),
    !,
    throw(error(domain_error(ssh_path, Path), _)).
ssh_value(Path, Value) :-
    atom_codes(Path, Codes),
    phrase(ssh_codes(Codes), Escaped),
    format(atom(Value), '"~s"', [Escaped]).

ssh_codes([]) --> [].
ssh_codes([0'%|Codes]) --> !, "%%", ssh_codes(Codes).
ssh_codes([Code|Codes]) -->
    { memberchk(Code, `"\\`) },
    !,
    [0'\\, Code],
    ssh_codes(Codes).
ssh_codes([Code|Codes]) --> [Code], ssh_codes(Codes).

%   A remote host is asked over https, or through SSH.

protocol(Service, Host, https) :-
    route(Service, Host, Route),
    Route == direct,
    (   resolve(Service, Host, [], transport, https)
    ;   \+ is_local_host(Host)
    ),
    !.
protocol(_, _, http).

address(Service, Host, Address) :-
    (   resolve(Service, Host, [], address, Name)
    ->  true
    ;   route(Service, Host, ssh)
    ->  Name = '127.0.0.1'
    ;   Name = Host
    ),
    (   sub_atom(Name, _, _, _, :)
    ->  format(atom(Address), '[~w]', [Name])
    ;   Address = Name
    ).

%!  plain(+Number0, -Number) is det.
%
%   Number is Number0 as programs read it: an integer or a float.

plain(Number, Number) :- integer(Number), !.
plain(Number0, Number) :- Number is float(Number0).

%!  formatted(+Format, +Arguments)// is det.

formatted(Format, Arguments) -->
    { format(codes(Codes), Format, Arguments) },
    codes(Codes).

codes([]) --> [].
codes([Code|Codes]) --> [Code], codes(Codes).
