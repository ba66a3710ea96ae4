:- module(deployment_units,
          [ unit_text/4,                % +Service, +Host, +Manager, -Text
            unit_manager/3,             % +Service, +Host, -Manager
            supervised_by_systemd/2     % +Service, +Host
          ]).

/** <module> systemd units

A unit starts the active release in the service's directory, whichever that is; so it changes only with where that
directory is, and as whom the service runs.
*/

:- autoload(library(uid), [getuid/1]).
:- use_module(targets, [declared/5, resolve/5]).
:- use_module(facts, [method_now/4]).

%!  supervised_by_systemd(+Service, +Host) is semidet.
%
%   Host may be `none`: the service's own options alone.

supervised_by_systemd(Service, Host) :-
    resolve(Service, Host, [], supervisor, systemd).

%!  unit_manager(+Service, +Host, -Manager) is det.
%
%   Manager is `system` where the deployment is done by root: with `sudo(true)`, or logged in as root; else `user`.

unit_manager(Service, Host, Manager) :-
    (   by_root(Service, Host)
    ->  Manager = system
    ;   Manager = user
    ).

by_root(Service, Host) :-
    resolve(Service, Host, [], sudo, true),
    !.
by_root(Service, _) :-
    method_now(Service, method(local, _), _, _),
    !,
    getuid(0).
by_root(Service, Host) :-
    resolve(Service, Host, [], user, root).

%!  unit_text(+Service, +Host, +Manager, -Text:string) is det.
%
%   Text of the unit for the Manager `system` or `user`.  A system's unit runs the service as the user that logs in.
%   The service is started again when it fails, and when the host starts.

unit_text(Service, Host, Manager, Text) :-
    directory(Service, Host, Dir),
    manager_lines(Manager, Service, Host, User, Target),
    format(string(Text),
           "[Unit]~nDescription=~w, deployed by unifyweaver_py~nAfter=network.target~n~n\c
            [Service]~nType=exec~n~wWorkingDirectory=~w/current~nExecStart=/bin/sh .unifyweaver/start~n\c
            StandardOutput=append:~w/log/service.log~nRestart=on-failure~nRestartSec=1~n~n\c
            [Install]~nWantedBy=~w~n",
           [Service, User, Dir, Dir, Target]).

manager_lines(user, _, _, "", 'default.target').
manager_lines(system, Service, Host, Line, 'multi-user.target') :-
    (   service_user(Service, Host, User)
    ->  format(string(Line), "User=~w~n", [User])
    ;   Line = ""
    ).

%   On this machine, the service runs as root unless a user is declared.

service_user(Service, Host, User) :-
    method_now(Service, method(local, _), _, _),
    !,
    declared(Service, Host, [], user, User).
service_user(Service, Host, User) :-
    resolve(Service, Host, [], user, User).

%   In a unit, % begins a specifier; %h is the home of the manager's user.

directory(Service, Host, Dir) :-
    resolve(Service, Host, [], remote_dir, Base0),
    atomic_list_concat(Parts, '%', Base0),
    atomic_list_concat(Parts, '%%', Base),
    (   atom_concat('~/', Below, Base)
    ->  format(string(Dir), "%h/~w/~w", [Below, Service])
    ;   format(string(Dir), "~w/~w", [Base, Service])
    ).
