:- module(deployment_observation,
          [ context/5,                  % +Service, +Host, +Call, +Run, -Context
            run_token/2,                % +Run, -Token
            observing/3,                % +Context, +Call, -Seen
            observing_balanced/3,       % +Context, +Call, -Seen
            record_seen/4               % +Facts, +Context, +Manner, -Outcome
          ]).

/** <module> What an operation knows of a host before it acts

Context is `context(Service, Host, Target, Dir, Port, Token)`; Target is `target(Method, Host, Options)` with the
declared connection options; Dir holds all services on the host; Token marks this operation's scripts.
*/

:- autoload(library(lists), [append/3, member/2]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(balancing, [balancer_survey/3]).
:- use_module(declarations, [resolve/5, declared/5, deploy_method_config/3]).
:- use_module(plan, [observe_plan/2, observed/2]).
:- use_module(releases, [hash_of_id/2]).
:- use_module(run, [run/3]).

%!  context(+Service, +Host, +Call, +Run, -Context) is det.
%
%   Run is the atom by which Python knows the operation, `none`, or `none(Id)` where only the journal knows it.

context(Service, Host, Call, Run, context(Service, Host, target(Method, Host, Options), Dir, Port, Token)) :-
    (   deploy_method_config(Service, Method, _) -> true ; Method = local ),
    findall(Option,
            ( member(Name, [user, ssh_port, key_file, agent, known_hosts, host_key, connect_timeout, sudo]),
              declared(Service, Host, Call, Name, Value),
              Option =.. [Name, Value] ),
            Options),
    resolve(Service, Host, Call, remote_dir, Dir),
    resolve(Service, Host, Call, port, Port),
    run_token(Run, Token).

%!  run_token(+Run, -Token:atom) is det.
%
%   Token marks the scripts of Run; it is the id of the run in the journal, where it has one.

run_token(none, Token) :- !, uuid(Token).
run_token(none(Id), Id) :- !.
run_token(Run, Run).

%!  observing(+Context, +Call, -Seen) is det.
%
%   Seen is `facts(Service, Host, Call, Observed, none)` or `failed(Reason)`.

observing(Context, Call, Seen) :-
    Context = context(_, Host, _, _, _, _),
    observe_plan(Host, Plan),
    observing(Plan, Context, Call, Seen).

%!  observing_balanced(+Context, +Call, -Seen) is det.
%
%   As observing/3, and of the service's load balancer too.

observing_balanced(Context, Call, Seen) :-
    Context = context(Service, Host, _, _, _, _),
    observe_plan(Host, Observe),
    balancer_survey(Service, Host, Survey),
    append(Observe, Survey, Plan),
    observing(Plan, Context, Call, Seen).

observing(Plan, Context, Call, Seen) :-
    Context = context(Service, Host, _, _, _, _),
    run(Plan, Context, report(Verdict, Outcomes, _)),
    (   Verdict = failed(_, Reason)
    ->  Seen = failed(Reason)
    ;   findall(Fact, ( member(done(_, _, Notes, _), Outcomes), member(Fact, Notes) ), Observed),
        Seen = facts(Service, Host, Call, Observed, none)
    ).

%!  record_seen(+Facts, +Context, +Manner, -Outcome) is det.
%
%   The ledger learns what is active, and what can be gone back to: whoever did that may have died before recording it, or it was
%   lost.  Manner is `must` where that tells a run's release, or `may`.  Outcome is `ok` or `failed(Reason)`.

record_seen(Facts, Context, Manner, Outcome) :-
    seen(Facts, current, Id, Hash),
    seen(Facts, backup, _, Backup),
    Record = record([deployed_hash-Hash, deployed_id-Id, rollback_hash-Backup]),
    ( Manner == may -> Action = try(Record) ; Action = Record ),
    run([step(record, none, Action, [])], Context, report(_, [done(_, Outcome, _, _)], _)).

seen(Facts, Name, Id, Hash) :-
    Fact =.. [Name, Known],
    (   observed(Fact, Facts)
    ->  Id = Known,
        hash_of_id(Id, Hash)
    ;   Id = none, Hash = none
    ).
