:- module(deployment_history,
          [ history/3,                  % ?Service, ?Options, -Runs
            run_events/2,               % +RunId, -Events
            unfinished_runs/2           % ?Service, -Runs
          ]).

/** <module> What was done: the runs of operations, as the ledger has them

A run is `run(Id, Properties)`, Properties a list of

  - `service(Service)`, `operation(Name)`, `call(Operation)`: what was asked for, Operation with its options
  - `by(UserAtHost)`, and the process that did it: `machine(Machine)`, `pid(Pid)`, `born(Ticks)`
  - `file(File)`: whose declaration of the service counted, `user` for that of a call; `file_hash(Hash)`, the SHA-256 of
    the file when it was loaded
  - `hosts(Hosts)`; `release(Hash)`: it was made active, or found to be so; one for each where hosts differed
  - `began(Time)`, and either `ended(Time)` and `result(Result)` or `unfinished`; Result is as the operation gave it,
    `raised(Error)` where it threw

Times are seconds since the epoch.  The ledger keeps the newest 1,000 runs of a service.
*/

:- autoload(library(apply), [include/3, maplist/3]).
:- autoload(library(error), [must_be/2]).
:- autoload(library(lists), [append/2, member/2, memberchk/2]).
:- use_module(controllers, [has_ended/3]).
:- use_module(options, [check_options/3, default_option/3]).
:- use_module(run, [ask/2]).

%!  history(?Service, ?Options, -Runs:list) is det.
%
%   The newest runs of Service, of all services where it is unbound, newest first.  Options, none where they are unbound:
%   `limit(100)`, `since(Time)`, `host(Host)`, `operation(Name)`, `unfinished(true)`.
%
%   @error domain_error(history_option, Option), type_error(_, Option)
%   @error existence_error(deployment_effect, ledger) without the Python package

history(Service, Options0, Runs) :-
    ( var(Options0) -> Options0 = [] ; true ),
    check_options(history, Options0, Options1),
    (   memberchk(limit(_), Options1)
    ->  Options = Options1
    ;   default_option(history, limit, Limit),
        Options = [limit(Limit)|Options1]
    ),
    runs(Service, Options, Runs).

runs(Service, Options, Runs) :-
    (   var(Service)
    ->  Filters = Options
    ;   must_be(atom, Service),
        Filters = [service(Service)|Options]
    ),
    ask(ledger(runs(Filters)), rows(Rows)),
    maplist(run_of, Rows, Runs).

run_of(run(Id, Service, Operation, Began, Ended, Result, Hosts, Releases, About), run(Id, Properties)) :-
    (   Ended == none
    ->  End = [unfinished]
    ;   End = [ended(Ended), result(Result)]
    ),
    findall(release(Hash), member(Hash, Releases), Active),
    append([[service(Service), operation(Operation)|About], [hosts(Hosts)|Active], [began(Began)|End]], Properties).

%!  run_events(+RunId:atom, -Events:list) is det.
%
%   Events are those of the run in order of time, as collect_events/2 gives them, and `intent(Time, Host, Steps)` where
%   Steps were to begin together on Host, and no more is known of them.
%
%   @error existence_error(deployment_run, RunId), and as history/3

run_events(Id, Events) :-
    must_be(atom, Id),
    ask(ledger(runs([id(Id)])), rows(Rows)),
    (   Rows == []
    ->  throw(error(existence_error(deployment_run, Id), _))
    ;   ask(ledger(entries(Id)), rows(Events))
    ).

%!  unfinished_runs(?Service, -Runs:list) is det.
%
%   Runs whose end is not recorded, and whose process has ended, newest first.
%
%   @error as history/3

unfinished_runs(Service, Runs) :-
    runs(Service, [unfinished(true)], All),
    include(left_over, All, Runs).

left_over(run(_, Properties)) :-
    memberchk(machine(Machine), Properties),
    memberchk(pid(Pid), Properties),
    memberchk(born(Born), Properties),
    has_ended(Machine, Pid, Born).
