:- module(deployment_deploying,
          [ deploy/4,                   % +Flavour, +Context, +Call, -Result
            rollback/3,                 % +Context, +Call, -Result
            withdraw/4,                 % +Way, +Context, +Call, -Result
            planning/3                  % +Context, +Call, -Steps
          ]).

/** <module> Deploying and rolling back on one host, and what is said of it */

:- autoload(library(apply), [exclude/3]).
:- autoload(library(lists), [append/3, last/2, member/2, memberchk/2]).
:- use_module(gate, [leased_run/4]).
:- use_module(intents, [settled/2]).
:- use_module(ledger, [release_hash/2]).
:- use_module(locks, [unless_locked/6, locked_out/5, leased_plan/4, lock_refusal/2]).
:- use_module(options, [lookup/3]).
:- use_module(plan, [survey_plan/4, deploy_plan/3, rollback_plan/3, vacate_plan/2, observed/2, earlier/3]).
:- use_module(recovering, [recovering/3, recovered_first/3]).
:- use_module(releases, [release/5, hash_of_id/2]).
:- use_module(results, [restored/2]).
:- use_module(run, [run/3, run_both/5]).
:- use_module(observation, [observing_balanced/3, record_seen/4]).

%!  deploy(+Flavour, +Context, +Call, -Result) is det.
%
%   Flavour as in deploy_plan/3, Context as in context/5; Result as the predicate of that name gives it.

deploy(Flavour, Context, Call, Result) :-
    deploy(Flavour, Flavour, Context, Call, Result).

%   Hooks that come first are those of the flavour Survey: they are run once, and not where somebody else is seen at work.

deploy(Flavour, Survey, Context, Call, Result) :-
    Context = context(Service, Host, _, _, _, _),
    survey_plan(Survey, Service, Host, [Observe|Plan]),
    (   Plan = [_]      % nothing but the scan
    ->  run_both([Observe], Plan, Context, report(Verdict, Outcomes, _), Scanned)
    ;   run([Observe], Context, report(Verdict, Outcomes, _))
    ),
    (   Verdict = failed(Step, Reason)
    ->  survey_failure(Step, Reason, Result)
    ;   Outcomes = [done(_, _, Seen, _)],
        locked_out(facts(Service, Host, Call, Seen, none), Context, Call, deploy(Flavour, Survey, Context), Result0)
    ->  Result = Result0
    ;   after_recovery(Outcomes, Observe, Context, Call, Whole),
        ( nonvar(Scanned) -> true ; run(Plan, Context, Scanned) ),
        Scanned = report(PlanVerdict, More, _),
        append(Whole, More, All),
        deploy_surveyed(PlanVerdict, All, Flavour, Context, Call, Result)
    ).

%   What an operation left that did not come to its end is finished or undone first.

after_recovery(Outcomes, Observe, Context, Call, Whole) :-
    Outcomes = [done(_, _, Seen, _)],
    (   recovered_first(Seen, Context, Call),
        run([Observe], Context, report(completed, Whole0, _))
    ->  Whole = Whole0
    ;   Whole = Outcomes
    ).

deploy_surveyed(failed(Step, Reason), _, _, _, _, Result) :-
    survey_failure(Step, Reason, Result).
deploy_surveyed(completed, Outcomes, Flavour, Context, Call, Result) :-
    Context = context(Service, Host, _, _, _, _),
    surveyed(Service, Host, Call, Outcomes, Facts),
    unless_locked(Facts, Context, Call, deploy_release(Flavour, Facts, Context), deploy(Flavour, deploy_service, Context),
                  Result).

survey_failure(step(_, _, hook(_, Action, _), _), Reason, error(pre_deploy_failed(Failure))) :-
    !,
    Failure = error(hook_failed(Action, Reason)).
survey_failure(_, Reason, error(deployment_failed(Reason))).

surveyed(Service, Host, Call, Outcomes, facts(Service, Host, Call, Observed, Release)) :-
    findall(Note, ( member(done(step(Id, _, _, _), _, Notes, _), Outcomes),
                    memberchk(Id, [observe, balancer, secrets, scan]),
                    member(Note, Notes) ),
            Seen),
    settled(Seen, Observed),
    memberchk(sources(Sources, _, _), Observed),
    findall(seal(Name, Source, Digest), member(seal(Name, Source, Digest), Observed), Seals),
    release(Service, Host, Seals, Sources, Release).

deploy_release(Flavour, Facts, Context, Result) :-
    (   nothing_to_do(Facts)
    ->  record_seen(Facts, Context, must, _),
        Result = unchanged
    ;   known_bad(Facts, Hash)
    ->  Result = error(known_bad_release(Hash))
    ;   deploy_plan(Flavour, Facts, Plan),
        leased_run(Plan, Facts, Context, Report),
        (   another_way(Report, Facts, Whole)
        ->  deploy_release(Flavour, Whole, Context, Result)
        ;   deploy_result(Flavour, Facts, Report, Result)
        )
    ).

%   What is on the target can't be built on, or is no longer what was shipped, as after a preparation that wrote over
%   it: everything is sent.

another_way(report(failed(Step, Reason), _, _), facts(Service, Host, Call, Observed0, Release), Whole) :-
    reused(Step, Reason),
    exclude([Fact]>>functor(Fact, manifest, 3), Observed0, Observed),
    Whole = facts(Service, Host, [force(true)|Call], Observed, Release).

reused(step(stage, _, _, _), base_unusable).
reused(step(verify, _, _, _), verification_failed(_)).

%   This release is active, was confirmed when it was deployed (a controller may have died before that), and its
%   process runs and gets requests, unless somebody else keeps them from it.

nothing_to_do(Facts) :-
    Facts = facts(_, _, Call, _, release(Id, _, _)),
    observed(current(Id), Facts),
    observed(running(Id), Facts),
    \+ observed(unfinished(_), Facts),
    \+ observed(balanced(_, ours), Facts),
    findall(Confirmed, observed(history(Confirmed), Facts), History),
    last(History, Id),
    \+ lookup(force, [Call], true).

%   Its health check failed, and nothing has changed since.  One that was left active is tried again: what was before
%   has to be restored.

known_bad(facts(_, _, Call, Observed, release(Id, Hash, _)), Hash) :-
    memberchk(bad(Id), Observed),
    \+ memberchk(unfinished(Id), Observed),
    \+ lookup(force, [Call], true).

deploy_result(_, _, Report, Result) :-
    lock_refusal(Report, Result),
    !.
deploy_result(_, _, report(failed(_, _), _, Undone), error(deployment_failed(Reason))) :-
    member(done(step(_, _, try(disarm(_)), _), failed(not_confirmed_in_time), _, _), Undone),
    !,
    (   member(done(step(_, _, try(balance(_, Server, ready(_))), _), failed(_), _, _), Undone)
    ->  Reason = not_restored(not_confirmed_in_time, balancer(kept_out(Server)))
    ;   Reason = not_confirmed_in_time
    ).
deploy_result(deploy_service, Facts, report(completed, _, _), deployed(Changes)) :-
    !,
    observed_changes(Facts, Changes).
deploy_result(_, _, report(completed, Outcomes, _), Result) :-
    !,
    (   member(done(step(_, _, try(hook(_, Action, _)), _), Failure, _, _), Outcomes),
        Failure \== ok
    ->  arg(1, Failure, Reason),
        Result = deployed_with_warnings(error(hook_failed(Action, Reason)))
    ;   Result = deployed
    ).
deploy_result(Flavour, Facts, report(failed(Step, Reason0), Outcomes, Undone), Result) :-
    failure_reason(Step, Reason0, Reason),
    restored(Undone, Restored),
    (   touched(Outcomes, Restored)
    ->  undone_result(Flavour, Facts, Reason, Restored, Result)
    ;   Result = error(deployment_failed(Reason))
    ).

observed_changes(Facts, Changes) :-
    Facts = facts(_, _, _, _, release(Id, New, _)),
    (   observed(current(Id), Facts)
    ->  Changes = no_changes
    ;   observed(current(Old0), Facts)
    ->  hash_of_id(Old0, Old),
        Changes = changed(Old, New)
    ;   Changes = never_deployed
    ).

failure_reason(step(_, _, hook(pre_shutdown, Action, _), _), Reason, pre_shutdown_hook_failed(Failure)) :-
    !,
    Failure = error(hook_failed(Action, Reason)).
failure_reason(step(_, _, hook(_, Action, _), _), Reason, hook_failed(Action, Reason)) :- !.
failure_reason(_, Reason, Reason).

%   The active release was changed, or what ran could not be brought back.

touched(Outcomes, _) :-
    member(done(step(switch, _, _, _), _, _, _), Outcomes),
    !.
touched(Outcomes, failed(_)) :-
    member(done(step(Id, _, _, _), _, _, _), Outcomes),
    memberchk(Id, [balancer_await, stop, start]),
    !.

undone_result(deploy_with_rollback, Facts, _, Restored, rolled_back_after_failure(Back)) :-
    !,
    rollback_outcome(Restored, Facts, Back).
undone_result(_, _, Reason, ok, error(deployment_failed(Reason))) :- !.
undone_result(_, _, Reason, failed(Why), error(deployment_failed(not_restored(Reason, Why)))).

rollback_outcome(failed(Why), _, error(rollback_failed(Why))) :- !.
rollback_outcome(ok, Facts, rolled_back(Hash)) :-
    observed(current(Old), Facts),
    !,
    hash_of_id(Old, Hash).
rollback_outcome(ok, _, error(no_rollback_available)).

%!  rollback(+Context, +Call, -Result) is det.

rollback(Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    rollback(Seen, Context, Call, Result).

rollback(failed(Reason), _, _, error(rollback_failed(Reason))) :- !.
rollback(Facts, Context, Call, Result) :-
    unless_locked(Facts, Context, Call, go_back(Facts, Context, Call), rollback(Context), Result).

go_back(Facts, Context, Call, Result) :-
    (   rollback_target(Call, Facts, To),
        observed(bad(To), Facts)
    ->  hash_of_id(To, Hash),
        Result = error(known_bad_release(Hash))
    ;   rollback_target(Call, Facts, To)
    ->  rollback_plan(To, Facts, Plan),
        leased_run(Plan, Facts, Context, Report),
        (   lock_refusal(Report, Result)
        ->  true
        ;   Report = report(Verdict, _, Undone),
            rollback_result(Verdict, Undone, To, Result)
        )
    ;   Result = error(no_rollback_available)
    ).

rollback_target(Call, Facts, To) :-
    lookup(to, [Call], Hash),
    !,
    findall(Id, ( observed(release(Id), Facts), sub_atom(Id, 0, _, _, Hash) ), Ids),
    Ids = [To],
    \+ observed(current(To), Facts).
rollback_target(_, Facts, To) :-
    observed(backup(Backup), Facts),
    (   observed(current(Backup), Facts)     % a deployment ended by force before it switched
    ->  earlier(Backup, Facts, To),
        To \== none
    ;   To = Backup
    ).

rollback_result(completed, _, To, rolled_back(Hash)) :-
    hash_of_id(To, Hash).
rollback_result(failed(Step, Reason0), Undone, _, error(rollback_failed(Reason))) :-
    failure_reason(Step, Reason0, Reason1),
    restored(Undone, Restored),
    (   Restored = failed(Why)
    ->  Reason = not_restored(Reason1, Why)
    ;   Reason = Reason1
    ).

%!  withdraw(+Way, +Context, +Call, -Result) is det.
%
%   A deployment that succeeded is taken back, for the rest of its fleet did not follow.  Way is `kept` where the rollback point is
%   what was before, or `new` where nothing was: then nothing stays active.  `resumed(Way)` is that of a rollout that was killed: it may have
%   gone back already, and must not go back twice.  Result is `rolled_back_with_fleet` or as in rollback/3.

withdraw(kept, Context, Call, Result) :-
    rollback(Context, Call, Result0),
    ( Result0 = rolled_back(_) -> Result = rolled_back_with_fleet ; Result = Result0 ).
withdraw(new, Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(rollback_failed(Reason))
    ;   unless_locked(Seen, Context, Call, vacate(Seen, Context), withdraw(new, Context), Result)
    ).

withdraw(resumed(Way), Context, Call, Result) :-
    observing_balanced(Context, Call, Seen),
    (   Seen = facts(_, _, _, _, _),
        \+ on_shipped_release(Seen)
    ->  recovering(Context, Call, Recovered),
        gone_back(Recovered, Way, Context, Call, Result)
    ;   withdraw(Way, Context, Call, Result)
    ).

on_shipped_release(Seen) :-
    Seen = facts(Service, _, _, _, _),
    observed(current(Id), Seen),
    release_hash(Service, Hash),
    hash_of_id(Id, Hash).

gone_back(error(Reason), _, _, _, error(Reason)) :- !.
gone_back(undone(_), Way, Context, Call, Result) :- !, withdraw(Way, Context, Call, Result).
gone_back(_, _, _, _, rolled_back_with_fleet).

vacate(Facts, Context, Result) :-
    vacate_plan(Facts, Plan),
    leased_run(Plan, Facts, Context, Report),
    (   lock_refusal(Report, Result)
    ->  true
    ;   Report = report(completed, _, _)
    ->  Result = rolled_back_with_fleet
    ;   Report = report(Verdict, _, Undone),
        rollback_result(Verdict, Undone, none, Result)
    ).

%!  planning(+Context, +Call, -Steps:list) is det.
%
%   The steps that deploy_with_rollback/3 would take on this host, from what is observed there now.  A host that
%   can't be observed has the one step `failed(Reason)`.

planning(Context, Call, Steps) :-
    Context = context(Service, Host, _, _, _, _),
    survey_plan(deploy_service, Service, Host, Bare),
    run(Bare, Context, report(Verdict, Outcomes, _)),
    (   Verdict = failed(step(Id, _, _, _), Reason)
    ->  Steps = [step(Id, Host, failed(Reason), [])]
    ;   surveyed(Service, Host, Call, Outcomes, Facts),
        survey_plan(deploy_with_rollback, Service, Host, Survey),
        remaining(Facts, Plan),
        append(Survey, Plan, Steps)
    ).

remaining(Facts, []) :-
    nothing_to_do(Facts),
    !.
remaining(Facts, [step(stage, Host, failed(known_bad_release(Hash)), [])]) :-
    known_bad(Facts, Hash),
    !,
    Facts = facts(_, Host, _, _, _).
remaining(Facts, Plan) :-
    deploy_plan(deploy_with_rollback, Facts, Bare),
    leased_plan(own, Bare, Facts, Plan).
