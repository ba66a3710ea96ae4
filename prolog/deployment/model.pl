:- module(deployment_model,
          [ start_model/1,              % +Script
            model_effect/2,             % +Effect, -Outcome
            modelled_host/2,            % +Host, -Facts
            modelled_lease/1,           % +Host
            modelled_left/1,            % -Left
            gather_model/2,             % +Script, +Lefts
            goes_on/3                   % +Script0, +Left, -Script
          ]).

/** <module> Modelled hosts

Each effect changes a modelled host; what happens comes from a script given by the caller, a list of

  - `host(Host, Facts)`: how Host is at first: `current(Id)`, `backup(Id)`, `release(Id)`, `history(Id)`,
    `running(Id)`, `port(Id, Text)`; by default there is nothing on it
  - `fails(Host, Action, Reason)`: that action fails there; Action is its name, or `Id:Name` for one step
  - `cut(Host, Action, Reason)`: the connection is lost in that action, after it took effect
  - `cut(Host, Action, Reason, Reached)`: likewise, and Reached tells how far the target went without being
    heard: `before` the action, `after` it, or to the `end` of the script
  - `kills(Host)`: what runs there ends only when it is killed
  - `cut_once(Host, Action, Reason, Reached)`: likewise, the first time only
  - `answers(Host, Answers)`: the answers to health probes in turn, each a status or `failed(Reason)`; the
    last stays; 200 by default
  - `server(Name, Address, Port, State)`: a server of the load balancer, of which State, `ready`, `drain` or `maint`, is
    true at first; `sessions(Name, Counts)`: its sessions each time it is asked, the last stays, none by default;
    `says(Name, Statuses)` likewise what it says of it once it is ready, `UP` by default
  - `balancer_fails(Request, Reason)`: it answers `balancer(Reason)` to Request, see effect `balance`
  - `sources(Hash)`: the hash of the files to ship
  - `ledger(Entries)`: `entry(Key, Host, Dir, Value)` each, what the ledger tells; nothing by default
  - `at(Seconds)`: the time at which the run begins, 0 by default; sleeping lets it pass

Host may be unbound: every host.  A run is deterministic.
*/

:- autoload(library(lists), [append/3, max_list/2, member/2, memberchk/2, selectchk/3, subtract/3]).
:- autoload(library(option), [option/3]).
:- use_module(balanced_model, [modelled_balance/5]).

%!  start_model(+Script) is det.

start_model(Script) :-
    option(at(Time), Script, 0),
    copy_term(Script, Own),
    b_setval(deployment_model, model(Own, [], Time)).

%!  modelled_host(+Host, -Facts:list) is det.
%
%   What the run of this thread, last started by start_model/1, has left on Host: Facts as in `host/2` of the script, sorted
%   but for the order of `history/1`.

modelled_host(Host, Facts) :-
    b_getval(deployment_model, model(Script, States, _)),
    state(Host, Script, States, State),
    findall(Fact, ( member(Fact, State), Fact \= history(_), \+ hidden(Fact) ), Unordered),
    findall(history(Id), member(history(Id), State), History),
    sort(Unordered, Sorted),
    append(Sorted, History, Facts).

%!  modelled_lease(+Host) is semidet.
%
%   The run of this thread has not given its lease of Host back.

modelled_lease(Host) :-
    b_getval(deployment_model, model(Script, States, _)),
    state(Host, Script, States, State),
    memberchk(leased, State).

%!  modelled_left(-Left) is det.
%
%   Left is `left(States, Time)`: what this thread's run has left, its own bookkeeping included, and when.

modelled_left(left(States, Time)) :-
    b_getval(deployment_model, model(_, States, Time)).

%!  gather_model(+Script, +Lefts:list) is det.
%
%   This thread's model has all that is left by runs of Script on other threads.

gather_model(Script, Lefts) :-
    findall(Left, ( member(left(States0, _), Lefts), member(Left, States0) ), States),
    findall(Time, member(left(_, Time), Lefts), Times),
    option(at(Start), Script, 0),
    max_list([Start|Times], Latest),
    copy_term(Script, Own),
    b_setval(deployment_model, model(Own, States, Latest)).

%!  goes_on(+Script0:list, +Left, -Script:list) is det.
%
%   A run of Script begins where one of Script0 left what it changed.

goes_on(Script0, left(States, Time), [at(Time)|Script]) :-
    findall(Begins, ( member(Name-State, States), begins(Name, State, Begins) ), First),
    append(First, Script0, Script).

begins('load balancer', State, balancer(State)) :- !.
begins(Host, State, host(Host, State)).

%!  model_effect(+Effect, -Outcome) is det.

model_effect(remote(context(_, Host, _, _, _, Token), Steps), Outcomes) :-
    remote(Steps, Host, Token, Outcomes).
model_effect(probe(target(_, Host, _), _), Answer) :-
    b_getval(deployment_model, model(Script, States, Time)),
    once(( scripted(Script, answers(Host, Answers)) ; Answers = [200] )),
    state(Host, Script, States, State),
    findall(A, member(asked(A), State), Asked),
    length(Asked, N),
    nth_or_last(N, Answers, Status),
    keep_state(Host, [asked(Status)|State], Time),
    (   Status = failed(_)
    ->  Answer = Status
    ;   Answer = answer(Status, [], "")
    ).
model_effect(balance(_, Request), Answer) :-
    b_getval(deployment_model, model(Script, States, Time)),
    (   memberchk('load balancer'-State, States)
    ->  true
    ;   option(balancer(State), Script, [])
    ),
    (   scripted(Script, balancer_fails(Request, Reason))
    ->  Answer = failed(balancer(Reason))
    ;   modelled_balance(Request, Script, State, Answer, State1),
        keep_state('load balancer', State1, Time)
    ).
model_effect(scan(_, _, _), sources(Hash, 1, 1)) :-
    b_getval(deployment_model, model(Script, _, _)),
    option(sources(Hash), Script, modelled).
model_effect(seal(_), sealed(unknown)).
model_effect(secrets(Secrets), sealed(Seals)) :-
    findall(seal(Name, Source, Source), member(Name-Source, Secrets), Seals).
model_effect(ledger(get(_, Key)), rows(Rows)) :-
    b_getval(deployment_model, model(Script, _, _)),
    option(ledger(Entries), Script, []),
    !,
    findall(row(Host, Dir, Value), member(entry(Key, Host, Dir, Value), Entries), Rows).
model_effect(ledger(Request), Outcome) :-
    Request = all(_),
    !,
    Outcome = rows([]).
model_effect(ledger(_), done).
model_effect(emit(_), done).
model_effect(reconnect(_), done).
model_effect(now, Time) :-
    b_getval(deployment_model, model(_, _, Time)).
model_effect(sleep(Seconds), done) :-
    b_getval(deployment_model, model(Script, States, Time0)),
    Time is Time0 + Seconds,
    b_setval(deployment_model, model(Script, States, Time)).

%   A variable in the script stands for every host, each time anew.

scripted(Script, Event) :-
    member(Event0, Script),
    copy_term(Event0, Event).

nth_or_last(0, [Answer|_], Answer) :- !.
nth_or_last(_, [Answer], Answer) :- !.
nth_or_last(N, [_|Answers], Answer) :-
    M is N - 1,
    nth_or_last(M, Answers, Answer).

state(Host, _, States, State) :-
    memberchk(Host-State0, States),
    !,
    State = State0.
state(Host, Script, _, State) :-
    scripted(Script, host(Host, State0)),
    !,
    State = State0.
state(_, _, _, []).

keep_state(Host, State, Time) :-
    b_getval(deployment_model, model(Script, States0, _)),
    (   selectchk(Host-_, States0, States) -> true ; States = States0 ),
    b_setval(deployment_model, model(Script, [Host-State|States], Time)).

remote([], _, _, []).
remote([do(Id, Mode, Action)|Steps], Host, Token, [outcome(Id, Result, Notes, Time, Time)|Outcomes]) :-
    b_getval(deployment_model, model(Script, States, Time)),
    state(Host, Script, States, State0),
    (   without_lease(Token, Action, State0)
    ->  State1 = State0, Result0 = failed(lock_lost), Notes0 = []
    ;   happens(Script, Host, Id, Action, State0, State1, Result0, Notes0)
    ),
    (   interrupted(Script, Host, Id, Action, State0, Reason, Reached)
    ->  Result = unknown(Reason), Notes = [],
        ( Reached == before -> State = State0 ; State = State1 ),
        keep_state(Host, [lost(Id)|State], Time),
        ( Reached == end -> after(Result0, Mode, Steps, Host, Token, _) ; true ),
        none_heard(Steps, Result, Outcomes)
    ;   Result = Result0, Notes = Notes0,
        keep_state(Host, State1, Time),
        after(Result, Mode, Steps, Host, Token, Outcomes)
    ).

after(ok, _, Steps, Host, Token, Outcomes) :- !, remote(Steps, Host, Token, Outcomes).
after(failed(_), may, Steps, Host, Token, Outcomes) :- !, remote(Steps, Host, Token, Outcomes).
after(failed(_), must, Steps, _, _, Outcomes) :- none_heard(Steps, not_run, Outcomes).

%   An operation that takes a lease changes nothing without it.

without_lease(leased(_, _), Action, State) :-
    \+ memberchk(leased, State),
    functor(Action, Name, _),
    \+ memberchk(Name, [observe, survey, log_tail, lock, keep, regain, unlock, take_over, disarm]).

none_heard(Steps, Result, Outcomes) :-
    findall(outcome(Id, Result, [], none, none), member(do(Id, _, _), Steps), Outcomes).

interrupted(Script, Host, Id, Action, State, Reason, Reached) :-
    (   scripted(Script, cut(Host, Named, Reason, Reached))
    ;   scripted(Script, cut(Host, Named, Reason)), Reached = after
    ;   scripted(Script, cut_once(Host, Named, Reason, Reached)), \+ memberchk(lost(Id), State)
    ),
    named(Named, Id, Action),
    !.

%   happens(+Script, +Host, +Id, +Action, +State0, -State, -Result, -Notes) is det.

happens(Script, Host, Id, Action, State, State, failed(Reason), []) :-
    scripted(Script, fails(Host, Named, Reason)),
    named(Named, Id, Action),
    !.
happens(Script, Host, _, stop(Seconds), State0, State, ok, [killed]) :-
    scripted(Script, kills(Host)),
    memberchk(running(_), State0),
    becomes(stop(Seconds), State0, State, _),
    !.
happens(_, _, _, Action, State0, State, ok, Notes) :-
    becomes(Action, State0, State, Notes),
    !.
happens(_, _, _, Action, State, State, failed(Reason), []) :-
    refusal(Action, State, Reason).

%   Why the real action would fail where becomes/4 does.

refusal(start(Id, _), State, already_running(Other)) :-
    memberchk(release(Id), State),
    memberchk(running(Other), State),
    !.
refusal(confirm(_), State, already_running(Other)) :-
    memberchk(running(Other), State),
    !.
refusal(confirm(_), _, exited(unknown)) :- !.
refusal(discard(_), _, in_use) :- !.
refusal(lock(_, _, _), State, held(Machine, Pid, Born, Owner, Since, Purpose)) :-
    memberchk(lock(_, _, Machine, Pid, Born, Owner, Since, Purpose), State),
    !.
refusal(lock(_, _, _), _, changed_meanwhile) :- !.
refusal(keep, _, lock_lost) :- !.
refusal(regain(_), _, not_regained) :- !.
refusal(_, _, not_deployed).

named(Id:Name, Id, Action) :- !, action_name(Action, Name).
named(Name, _, Action) :- action_name(Action, Name).

action_name(survey, observe) :- !.
action_name(hook(_, _, Action), Name) :- !, functor(Action, Name, _).
action_name(Action, Name) :- functor(Action, Name, _).

%   What the script's own bookkeeping keeps with a host's state.

hidden(asked(_)).
hidden(leased).
hidden(given_back).
hidden(lost(_)).

%   becomes(+Action, +State0, -State, -Notes) is semidet: fails where the real action would.

becomes(mark_bad(Id), State0, [bad(Id)|State], []) :- subtract(State0, [bad(Id)], State).
becomes(lock(_, Id, Backup), State0, [leased|State], []) :-
    \+ memberchk(lock(_, _, _, _, _, _, _, _), State0),
    still(current, Id, State0),
    still(backup, Backup, State0),
    subtract(State0, [leased, given_back], State).
becomes(keep, State, State, []) :- memberchk(leased, State).
becomes(regain(_), State0, [leased|State], []) :-
    once(( member(Had, [leased, given_back]), memberchk(Had, State0) )),
    subtract(State0, [leased, given_back], State).
becomes(intend(Was, Backup, Ran, Goal, Wanted), State0, [intent(modelled, Was, Backup, Ran, Goal, Wanted)|State], []) :-
    without(intent, State0, State).
becomes(settle, State0, State, []) :-
    (   memberchk(intent(_, Was, Backup, Ran, Goal, Wanted), State0),
        \+ settled(intent(Was, Backup, Ran, Goal, Wanted), State0)
    ->  State = State0
    ;   without(intent, State0, State)
    ).
becomes(arm(_, _), State, State, []).
becomes(disarm(_), State, State, []).
becomes(unlock, State0, State, []) :-
    (   memberchk(leased, State0)
    ->  subtract(State0, [leased], Others),
        State = [given_back|Others]
    ;   State = State0
    ).
becomes(take_over(Token, _), State0, State, []) :- subtract(State0, [lock(Token, _, _, _, _, _, _, _)], State).
becomes(survey, State0, State, Notes) :- becomes(observe, State0, State, Notes).
becomes(observe, State, State, Notes) :-
    findall(Fact, ( member(Fact, State), \+ hidden(Fact) ), Notes).
becomes(stage(Id, _, _), State0, [release(Id)|State], []) :- subtract(State0, [release(Id)], State).
becomes(verify(Id, _), State, State, []) :- memberchk(release(Id), State).
becomes(discard(Id), State0, State, []) :-
    \+ memberchk(current(Id), State0),
    \+ memberchk(backup(Id), State0),
    subtract(State0, [release(Id)], State).
becomes(link(Name, none), State0, State, []) :-
    !,
    without(Name, State0, State).
becomes(link(Name, Id), State0, [Fact|State], []) :-
    memberchk(release(Id), State0),
    without(Name, State0, State),
    Fact =.. [Name, Id].
becomes(stop(_), State0, State, []) :- without(running, State0, State).
becomes(start(Id, _), State0, [running(Id)|State], []) :-
    memberchk(release(Id), State0),
    \+ ( member(running(Other), State0), Other \== Id ),
    without(running, State0, State).
becomes(confirm(Id), State, State, []) :- memberchk(running(Id), State).
becomes(commit(Id), State0, State, []) :-
    findall(H, member(history(H), State0), History0),
    (   append(Before, [Id|_], History0) -> true ; Before = History0 ),
    without(history, State0, Others),
    subtract(Others, [bad(Id)], State1),
    append(Before, [Id], History),
    findall(history(H), member(H, History), Facts),
    append(State1, Facts, State).
becomes(drain(_), State, State, [connections('0')]).
becomes(share(_, _), State, State, []).
becomes(prepare(_, _, _), State, State, []).
becomes(command(_, _), State, State, []).
becomes(signal(_), State, State, []).
becomes(prune(_), State, State, []).
becomes(log_tail, State, State, []).
becomes(hook(_, _, Action), State0, State, Notes) :- becomes(Action, State0, State, Notes).

still(_, any, _) :- !.
still(Name, Id, State) :-
    Fact =.. [Name, Found],
    ( memberchk(Fact, State) -> Found = Id ; Id == none ).

without(Name, State0, State) :-
    findall(Fact, ( member(Fact, State0), \+ functor(Fact, Name, _) ), State).

%   What is there is what was before, or what was to be.

settled(intent(Was, Backup, Ran, _, _), State) :-
    now(current, State, Was),
    now(backup, State, Backup),
    now(running, State, Ran),
    !.
settled(intent(_, _, _, _, stopped), State) :- !, now(running, State, none).
settled(intent(Goal, _, _, Goal, running), State) :- !, memberchk(running(Goal), State).
settled(intent(_, _, _, Goal, running), State) :-
    memberchk(current(Goal), State),
    findall(Id, member(history(Id), State), History),
    append(_, [Goal], History),
    !.

now(Name, State, Id) :-
    Fact =.. [Name, Found],
    (   memberchk(Fact, State) -> Id = Found ; Id = none ).
