:- module(deployment_observation,
          [ context/5,                  % +Service, +Host, +Call, +Run, -Context
            observing/3,                % +Context, +Call, -Seen
            record_seen/2               % +Facts, +Context
          ]).

/** <module> What an operation knows of a host before it acts

Context is `context(Service, Host, Target, Dir, Port, Token)`; Target is `target(Method, Host, Options)` with the
declared connection options; Dir holds all services on the host; Token marks this operation's scripts.
*/

:- autoload(library(lists), [member/2]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(declarations, [resolve/5, declared/5, deploy_method_config/3]).
:- use_module(plan, [observe_plan/2, observed/2]).
:- use_module(releases, [hash_of_id/2]).
:- use_module(run, [run/3]).

%!  context(+Service, +Host, +Call, +Run, -Context) is det.

context(Service, Host, Call, Run, context(Service, Host, target(Method, Host, Options), Dir, Port, Token)) :-
    (   deploy_method_config(Service, Method, _) -> true ; Method = local ),
    findall(Option,
            ( member(Name, [user, ssh_port, key_file, agent, known_hosts, host_key, connect_timeout, sudo]),
              declared(Service, Host, Call, Name, Value),
              Option =.. [Name, Value] ),
            Options),
    resolve(Service, Host, Call, remote_dir, Dir),
    resolve(Service, Host, Call, port, Port),
    (   Run == none -> uuid(Token) ; Token = Run ).

%!  observing(+Context, +Call, -Seen) is det.
%
%   Seen is `facts(Service, Host, Call, Observed, none)` or `failed(Reason)`.

observing(Context, Call, Seen) :-
    Context = context(Service, Host, _, _, _, _),
    observe_plan(Host, Plan),
    run(Plan, Context, report(Verdict, Outcomes, _)),
    (   Verdict = failed(_, Reason)
    ->  Seen = failed(Reason)
    ;   Outcomes = [done(_, _, Observed, _)],
        Seen = facts(Service, Host, Call, Observed, none)
    ).

%!  record_seen(+Facts, +Context) is det.
%
%   The ledger learns what is active, and what can be gone back to: whoever did that may have died before recording it.

record_seen(Facts, Context) :-
    findall(Pair, seen(Facts, Pair), Pairs),
    run([step(record, none, try(record(Pairs)), [])], Context, _).

seen(Facts, deployed_hash-Hash) :- observed(current(Id), Facts), hash_of_id(Id, Hash).
seen(Facts, deployed_id-Id) :- observed(current(Id), Facts).
seen(Facts, rollback_hash-Hash) :- observed(backup(Id), Facts), hash_of_id(Id, Hash).
