:- module(deployment_run,
          [ run/3,                      % +Plan, +Context, -Report
            run_both/5,                 % +Plan, +Beside, +Context, -Report, -BesideReport
            working_step/1,             % +Step
            acting_step/1,              % +Step
            ask/2,                      % +Effect, -Answer
            collect_events/2,           % :Goal, -Events
            add_events/1,               % +Events
            note_event/4                % +Host, +Step, +Result, +Notes
          ]).

/** <module> Perform a plan

The only module that performs a plan's effects.  Steps that follow each other on the target go there as one
script.  When a step fails, or its outcome is unknown, what was begun is undone in reverse order (see
deployment_undoing); undoing goes as far as it can.
*/

:- autoload(library(apply), [maplist/3, exclude/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2, reverse/2]).
:- use_module(balancers, [balance/5]).
:- use_module(effects, [effect/2, in_phase/2, with_backend/3, backend_setting/3]).
:- use_module(journal, [journal_apart/1, journal_entry/4]).
:- use_module(health, [first_tally/2, judge/3, verdict/5]).
:- use_module(results, [without_lock/1]).
:- use_module(scripts, [remote_action/1]).
:- use_module(undoing, [undo_steps/2, left_undone/4]).

:- meta_predicate collect_events(0, -).

%!  run(+Plan, +Context, -Report) is det.
%
%   Context is `context(Service, Host, Target, Dir, Port, Token)`.  Report is
%   `report(Verdict, Outcomes, Undone)`: Verdict is `completed` or `failed(Step, Reason)` of the first
%   `step(Id, Host, Action, Undo)` that was not ok.  Outcomes has `done(Step, Result, Notes, Seconds)` for each step that
%   was begun, Undone likewise for the undoing.  Result is `ok`, `failed(Reason)` or `unknown(Reason)`.

run(Plan, Context, report(Verdict, Outcomes, Undone)) :-
    perform(Plan, Context, [], Reversed, Verdict),
    reverse(Reversed, Outcomes),
    (   Verdict == completed
    ->  Undone = []
    ;   undo_steps(Reversed, Steps),
        in_phase(undo, perform(Steps, Context, [], ReversedUndone, UndoVerdict)),
        reverse(ReversedUndone, Begun),
        left_undone(UndoVerdict, Steps, Begun, Left),
        append(Begun, Left, Undone)
    ).

%!  run_both(+Plan, +Beside, +Context, -Report, -BesideReport) is det.
%
%   As run/3 of either, at the same time.  Modelled hosts have no time: there Beside is not begun, and when Plan fails it is
%   not waited for.  BesideReport is then left unbound.

run_both(Plan, Beside, Context, Report, BesideReport) :-
    backend_setting(Backend, Run, Phase),
    Backend == live,
    !,
    setup_call_cleanup(
        message_queue_create(Answers),
        both(Plan, Beside, Context, setting(Run, Phase), Answers, Report, BesideReport),
        message_queue_destroy(Answers)).
run_both(Plan, _, Context, Report, _) :-
    run(Plan, Context, Report).

both(Plan, Beside, Context, setting(Run, Phase), Answers, Report, BesideReport) :-
    thread_create(with_backend(live, Run, in_phase(Phase, beside(Beside, Context, Answers))), _, [detached(true)]),
    run(Plan, Context, Report),
    (   Report = report(completed, _, _)
    ->  thread_get_message(Answers, Answer),
        told(Answer, BesideReport)
    ;   true
    ).

%   Nobody may be waiting any more.

beside(Plan, Context, Answers) :-
    (   catch(collect_events(run(Plan, Context, Report), Events), Error, true)
    ->  ( var(Error) -> Answer = answer(Report, Events) ; Answer = thrown(Error) )
    ;   Answer = thrown(error(system_error(failed(Plan)), _))
    ),
    catch(thread_send_message(Answers, Answer), error(existence_error(_, _), _), true).

told(thrown(Error), _) :- throw(Error).
told(answer(Report, Events), Report) :- add_events(Events).

%!  ask(+Effect, -Answer) is det.
%
%   An effect that only observes.

ask(Effect, Answer) :-
    effect(Effect, Answer).

perform(Plan0, Context, Done0, Done, Verdict) :-
    exclude(pointless(Done0), Plan0, Plan),
    barrier(Plan, Group, Rest),
    (   Group == []
    ->  Done = Done0, Verdict = completed
    ;   Context = context(_, Host, _, _, _, _),
        journal(intent(Group), Context),
        begin_events(Group, Host),
        effect(now, Time),
        perform_group(Group, Context, Done0, Outcomes),
        report_events(Outcomes, Host, Time),
        journal(ended(Group), Context),
        begun(Group, Outcomes, New),
        reverse(New, Newest),
        append(Newest, Done0, Done1),
        (   first_failure(New, Step, Reason)
        ->  Done = Done1, Verdict = failed(Step, Reason)
        ;   perform(Rest, Context, Done1, Done, Verdict)
        )
    ).

%   A hook is left out when an earlier one of its event failed, and the health of what did not start again is not asked for.  What
%   can't be stopped, for its host can't be reached, keeps its requests.

pointless(Done, step(_, _, try(probe(_, _, _)), _)) :-
    member(done(step(_, _, try(start(_, _)), _), Result, _, _), Done),
    !,
    Result \== ok.
pointless(Done, step(_, _, try(balance(_, _, Change)), _)) :-
    ( Change == drain ; Change = await(_) ),
    member(done(step(regain, _, _, _), Result, _, _), Done),
    !,
    Result \== ok.
pointless(Done, step(_, _, Action, _)) :-
    hook_event(Action, Event),
    member(done(step(_, _, Earlier, _), Result, _, _), Done),
    Result \== ok,
    hook_event(Earlier, Event).

hook_event(try(Action), Event) :- hook_event(Action, Event).
hook_event(hook(Event, _, _), Event).

%   The longest run of remote steps, or one step of the controller.  What only stages a release is a script by
%   itself: a connection lost in the middle of a transfer can't have touched the active one.

barrier([], [], []).
barrier([Step|Plan], Group, Rest) :-
    (   remote_step(Step)
    ->  kind(Step, Kind),
        remote_run(Plan, Kind, Steps, Rest),
        Group = [Step|Steps]
    ;   Group = [Step], Rest = Plan
    ).

remote_run([Step|Plan], Kind, [Step|Steps], Rest) :-
    remote_step(Step),
    kind(Step, Kind),
    !,
    remote_run(Plan, Kind, Steps, Rest).
remote_run(Rest, _, [], Rest).

kind(step(_, _, lock(_, _, _), _), _) :- !.  % goes with what follows
kind(step(_, _, Action0, _), Kind) :-
    bare(Action0, Action),
    functor(Action, Name, _),
    (   memberchk(Name, [stage, verify, share, prepare])
    ->  Kind = staging
    ;   Kind = acting
    ).

%!  acting_step(+Step) is semidet.
%
%   True when Step is performed on the target, and may change what is active or runs there.

acting_step(Step) :-
    remote_step(Step),
    kind(Step, acting).

%!  working_step(+Step) is semidet.
%
%   True when Step is performed on the target, or has the load balancer give it requests, or none.

working_step(Step) :- remote_step(Step), !.
working_step(step(_, _, balance(_, _, _), _)).

%   True when Step is performed on the target.

remote_step(step(_, _, Action0, _)) :-
    bare(Action0, Action),
    remote_action(Action).

bare(try(Action), Action) :- !.
bare(Action, Action).

perform_group(Group, Context, Done, Outcomes) :-
    Group = [Step|_],
    remote_step(Step),
    !,
    maplist(script_step, Group, Steps),
    effect(remote(Context, Steps), Outcomes0),
    again(Group, Context, Done, Outcomes0, Outcomes).
perform_group([step(Id, _, Action0, _)], Context, Done, [outcome(Id, Result, Notes, Begin, End)]) :-
    bare(Action0, Action),
    effect(now, Begin),
    controller(Action, Context, Done, Result, Notes),
    effect(now, End).

again(Group, Context, Done, Outcomes0, Outcomes) :-
    findall(Step,
            ( member(Step, Group), Step = step(Id, _, _, again),
              memberchk(outcome(Id, unknown(_), _, _, _), Outcomes0) ),
            Lost),
    (   Lost == []
    ->  Outcomes = Outcomes0
    ;   regaining(Lost, Group, Done, All),
        maplist(script_step, All, Steps),
        effect(remote(Context, Steps), Outcomes1),
        maplist(latest(Outcomes1), Outcomes0, Outcomes)
    ).

%   A script that was lost may have given the lock back this time, too.

regaining(Lost, Group, Done, Steps) :-
    Regain = step(regain, _, _, _),
    (   \+ memberchk(Regain, Lost),
        ( member(Regain, Group) ; member(done(Regain, _, _, _), Done) )
    ->  Steps = [Regain|Lost]
    ;   Steps = Lost
    ).

latest(Newer, outcome(Id, _, _, _, _), Outcome) :-
    Outcome = outcome(Id, Result, _, _, _),
    memberchk(Outcome, Newer),
    Result \== not_run,
    !.
latest(_, Outcome, Outcome).

script_step(step(Id, _, try(Action), _), do(Id, may, Action)) :- !.
script_step(step(Id, _, Action, _), do(Id, must, Action)).

begun(Group, Outcomes, Begun) :-
    findall(done(Step, Result, Notes, Seconds),
            ( member(outcome(Id, Result, Notes, Begin, End), Outcomes),
              Result \== not_run,
              Step = step(Id, _, _, _),
              member(Step, Group),
              lasted(Begin, End, Seconds) ),
            Begun).

lasted(Begin, End, Seconds) :-
    number(Begin), number(End),
    !,
    Seconds is End - Begin.
lasted(_, _, 0).

first_failure(Begun, Step, Reason) :-
    member(done(Step, Result, _, _), Begun),
    Step = step(_, _, Action, Again),
    Result \== ok,
    arg(1, Result, Reason),
    (   Action \= try(_)
    ;   Result = unknown(_), Again == again
    ;   Action = try(regain(_)), without_lock(Reason)
    ),
    !.

%   What the controller does itself.

controller(hook(_, _, Action), Context, Done, Result, Notes) :-
    controller(Action, Context, Done, Result, Notes).
controller(reconnect, context(_, _, Target, _, _, _), _, Result, []) :-
    effect(reconnect(Target), Outcome),
    ( Outcome = failed(_) -> Result = Outcome ; Result = ok ).
controller(nothing(Option), _, _, ok, [nothing_declared(Option)]).
controller(scan(Dir, Patterns, Needs), _, _, Result, Notes) :-
    effect(scan(Dir, Patterns, Needs), Outcome),
    (   Outcome = failed(Reason)
    ->  Result = failed(Reason), Notes = []
    ;   Result = ok, Notes = [Outcome]
    ).
controller(secrets(Secrets), _, _, Result, Notes) :-
    effect(secrets(Secrets), Outcome),
    (   Outcome = sealed(Notes)
    ->  Result = ok
    ;   Outcome = failed(Reason),
        Result = failed(Reason), Notes = []
    ).
controller(request(Method, Url, Options), context(_, _, Target, _, _, _), _, Result, [Note]) :-
    effect(probe(Target, request(Method, Url, Options)), Answer),
    answer_note(Url, Answer, Note),
    (   ( Answer == assumed ; Answer = answer(Status, _, _), Status >= 200, Status < 300 )
    ->  Result = ok
    ;   Answer = answer(Status, _, _)
    ->  Result = failed(status(Status))
    ;   Answer = failed(Reason),
        Result = failed(Reason)
    ).
controller(balance(Balancer, Server, Change), Context, Done, Result, Notes) :-
    balance(Change, balanced(Balancer, Server, Context), Done, Result, Notes).
controller(record(Pairs), context(Service, Host, _, Dir, _, _), _, Result, []) :-
    (   member(Key-Value, Pairs),
        effect(ledger(put(Service, Host, Dir, Key, Value)), Outcome),
        Outcome = failed(Reason)
    ->  Result = failed(Reason)
    ;   Result = ok
    ).
controller(probe(Policy, Request, Expect), Context, Done, Result, Notes) :-
    effect(now, Now),
    waited(Done, Waited),
    Since is Now - Waited,
    first_tally(Policy, Tally),
    probing(probe(Policy, Request, Expect), Context, Since, Tally, Reversed, [], Result),
    reverse(Reversed, Notes).

%   A health check's deadline runs from the start of the process.

waited([done(step(_, _, Action, _), _, _, Seconds)|_], Seconds) :-
    bare(Action, start(_, _)),
    !.
waited(_, 0).

probing(Probe, Context, Since, Tally0, Notes, Notes0, Result) :-
    Probe = probe(Policy, Request, Expect),
    Context = context(_, _, Target, _, _, _),
    Request = request(_, Url, _),
    effect(probe(Target, Request), Answer),
    answer_note(Url, Answer, Note),
    judge(Expect, Answer, Judgement),
    effect(now, Now),
    Elapsed is Now - Since,
    verdict(Policy, Tally0, Judgement, Elapsed, Verdict),
    probed(Verdict, Probe, Context, Since, Notes, [Note|Notes0], Result).

probed(healthy, _, _, _, Notes, Notes, ok).
probed(unhealthy(Why), _, _, _, Notes, Notes, failed(unhealthy(Why))).
probed(cancelled, _, _, _, Notes, Notes, failed(cancelled)).
probed(again(Pause, Tally), Probe, Context, Since, Notes, Notes0, Result) :-
    effect(sleep(Pause), Slept),
    (   Slept == done
    ->  probing(Probe, Context, Since, Tally, Notes, Notes0, Result)
    ;   Notes = Notes0, Result = failed(cancelled)
    ).

answer_note(Url, answer(Status, _, _), probe(Url, Status)) :- !.
answer_note(Url, failed(Reason), probe(Url, Reason)) :- !.
answer_note(Url, Other, probe(Url, Other)).

% ---- events ----------------------------------------------------------------------------------------

%!  collect_events(:Goal, -Events) is semidet.
%
%   Events of this thread while Goal runs: `event(Time, Host, Step, Result, Seconds, Notes)`, Time in seconds
%   since the epoch.

collect_events(Goal, Events) :-
    ( nb_current(deployment_events, Outer) -> true ; Outer = none ),
    b_setval(deployment_events, []),
    journal_apart(Goal),
    b_getval(deployment_events, Reversed),
    b_setval(deployment_events, Outer),
    reverse(Reversed, Events).

%!  add_events(+Events:list) is det.
%
%   What was collected elsewhere, in its order.

add_events(Events) :-
    b_getval(deployment_events, Before),
    reverse(Events, Reversed),
    append(Reversed, Before, All),
    b_setval(deployment_events, All).

%!  note_event(+Host, +Step, +Result, +Notes) is det.
%
%   Something that happened in no time.

note_event(Host, Step, Result, Notes) :-
    effect(now, Time),
    note(event(Time, Host, Step, Result, 0, Notes)).

note(Event) :-
    (   nb_current(deployment_events, Events), is_list(Events)
    ->  b_setval(deployment_events, [Event|Events])
    ;   true
    ),
    effect(emit(Event), _).

journal(Entry, Context) :-
    ( nb_current(deployment_events, Noted), is_list(Noted) -> true ; Noted = [] ),
    journal_entry(Entry, Context, Noted, Outcome),
    (   Outcome = failed(Reason)
    ->  arg(2, Context, Host),
        note_event(Host, journal, failed(Reason), [])
    ;   true
    ).

begin_events(Group, Host) :-
    findall(Id, member(step(Id, _, _, _), Group), Ids),
    effect(emit(begin(Host, Ids)), _).

%   Targets tell the time since they started: it is laid over the controller's at the group's beginning.

report_events(Outcomes, Host, Time) :-
    (   member(outcome(_, _, _, First, _), Outcomes), number(First) -> true ; First = 0 ),
    report_each(Outcomes, Host, Time, First).

report_each([], _, _, _).
report_each([outcome(_, not_run, _, _, _)|Outcomes], Host, Time, First) :-
    !,
    report_each(Outcomes, Host, Time, First).
report_each([outcome(Id, Result, Notes, Begin, End)|Outcomes], Host, Time, First) :-
    (   number(Begin) -> At is Time + Begin - First ; At = Time ),
    lasted(Begin, End, Seconds),
    note(event(At, Host, Id, Result, Seconds, Notes)),
    report_each(Outcomes, Host, Time, First).
