:- module(deployment_locks,
          [ unless_locked/6,            % +Facts, +Context, +Call, :Act, :Again, -Result
            locked_out/5,               % +Facts, +Context, +Call, :Again, -Result
            leased_plan/4,              % +Entry, +Plan, +Facts, -Leased
            lease_seconds/4,            % +Service, +Host, +Call, -Seconds
            with_lease/3,               % +Token, +Context0, -Context
            at_work/2,                  % +Token, :Goal
            lock_refusal/2,             % +Report, -Result
            freezing/3,                 % +Context, +Call, -Result
            thawing/3,                  % +Context, +Call, -Result
            lock_state/3                % +Context, +Call, -State
          ]).

/** <module> One operation at a time on a service's host

A lease is a folder on the host, taken by rename in the script that makes an operation's first change, and given back in
that of its last one: it costs no exec of its own.  It holds as long as a script of the operation runs there, and for
some seconds after, until the next.  A script without it changes nothing.  Whose controller has ended on this machine,
and whose lease has run out, is dispossessed: what its script still does is ended first.

Somebody may take the lock by hand, with a reason: it then holds until it is given back by hand.
*/

:- autoload(library(lists), [append/3, member/2]).
:- autoload(library(uri), [uri_encoded/3]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(balancing, [balancer_seconds/3]).
:- use_module(controllers, [controller/2, by_hand/2, controller_state/4]).
:- use_module(declarations, [resolve/5]).
:- use_module(effects, [effect/2]).
:- use_module(intents, [intended_plan/3]).
:- use_module(observation, [observing/3]).
:- use_module(options, [lookup/3, default_option/3]).
:- use_module(plan, [observed/2]).
:- use_module(run, [run/3, working_step/1]).

:- dynamic at_work/1.         % Token of an operation of this process

:- meta_predicate
    unless_locked(+, +, +, 1, 2, -),
    locked_out(+, +, +, 2, -),
    at_work(+, 0).

%!  unless_locked(+Facts, +Context, +Call, :Act, :Again, -Result) is det.
%
%   Result is that of `call(Act, Result)` where nobody else holds the lock, by Facts, and error(locked(Owner, Since,
%   Purpose)) where somebody does, after `lock_wait` seconds of Call.  `call(Again, Call, Result)` begins anew, with
%   what is on the host by then.  Since is in seconds since the epoch.

unless_locked(Facts, Context, Call, Act, Again, Result) :-
    (   locked_out(Facts, Context, Call, Again, Result0)
    ->  Result = Result0
    ;   call(Act, Result0),
        (   Result0 == error(changed_meanwhile)
        ->  call(Again, Call, Result)
        ;   Result0 = error(locked(_, _, _))
        ->  waited(Result0, Call, Again, Result)
        ;   Result = Result0
        )
    ).

%!  locked_out(+Facts, +Context, +Call, :Again, -Result) is semidet.
%
%   Somebody holds the lock, by Facts: Result is as unless_locked/6 says.

locked_out(Facts, Context, Call, Again, Result) :-
    observed_lock(Facts, Lock),
    \+ own_lock(Lock, Context),
    locked(Lock, Context, Call, Again, Result).

%   That of the gate, on its host.

own_lock(lock(Token, _, _, _, _, _, _, _), context(_, _, _, _, _, Own)) :-
    ( Own = leased(Token0, _) -> Token0 == Token ; Own == Token ).

observed_lock(Facts, Lock) :-
    Lock = lock(_, _, _, _, _, _, _, _),
    observed(Lock, Facts),
    !.

locked(Lock, Context, Call, Again, Result) :-
    Lock = lock(Token, _, _, _, _, Owner, Since, Purpose),
    (   over(Lock, How)
    ->  Context = context(_, Host, _, _, _, _),
        run([step(take_over, Host, take_over(Token, How), [])], Context, report(Verdict, Outcomes, _)),
        (   Verdict = failed(_, Reason)
        ->  Result = error(Reason)
        ;   \+ member(done(_, _, [planned], _), Outcomes),   % a dry run goes on as if it had been done
            call(Again, Call, Result)
        )
    ;   locked_by(Owner, Since, Purpose, Refusal),
        waited(error(Refusal), Call, Again, Result)
    ).

over(lock(Token, _, Machine, Pid, Born, _, _, _), ended) :- ended(Token, Machine, Pid, Born), !.
over(lock(_, expired, _, _, _, _, _, _), expired).

waited(Refusal, Call, Again, Result) :-
    (   lookup(lock_wait, [Call], Seconds),
        Seconds > 0
    ->  Pause is min(1, Seconds),
        Left is Seconds - Pause,
        effect(sleep(Pause), Slept),
        (   Slept == done
        ->  call(Again, [lock_wait(Left)|Call], Result)
        ;   Result = error(cancelled)
        )
    ;   Result = Refusal
    ).

locked_by(Owner0, Since0, Purpose0, locked(Owner, Since, Purpose)) :-
    uri_encoded(segment, Owner, Owner0),
    uri_encoded(segment, Purpose, Purpose0),
    atom_number(Since0, Since).

%!  lock_refusal(+Report, -Result) is semidet.
%
%   Report is of a leased plan that did not get its lease, or found other releases active, or to go back to, than it was made for.
%   The script of a controller that has ended may take the lock late: that is a change too, and who begins anew takes it over.

lock_refusal(report(failed(step(lock, _, _, _), Reason0), _, _), error(Reason)) :-
    refusal(Reason0, Reason).

refusal(changed_meanwhile, changed_meanwhile).
refusal(held(Machine, Pid, Born, _, _, _), changed_meanwhile) :- controller_state(Machine, Pid, Born, ended), !.
refusal(held(_, _, _, Owner, Since, Purpose), Reason) :- locked_by(Owner, Since, Purpose, Reason).
refusal(locked(Owner, Since, Purpose), locked(Owner, Since, Purpose)).

%!  at_work(+Token, :Goal) is semidet.
%
%   Goal is done once, and what it leaves with Token's lock is this operation's as long.

at_work(Token, Goal) :-
    setup_call_cleanup(assertz(at_work(Token), Reference), once(Goal), erase(Reference)).

%!  with_lease(+Token, +Context0, -Context) is det.
%
%   Context has the lease Token of a deployment by this process.

with_lease(Token, Context0, Context) :-
    controller(deployment, Controller),
    with_lease(Token, Controller, Context0, Context).

with_lease(Token, Controller, context(Service, Host, Target, Dir, Port, _),
           context(Service, Host, Target, Dir, Port, leased(Token, Controller))).

%!  freezing(+Context, +Call, -Result) is det.
%
%   Take the lock by hand, for the `reason` of Call.  Result is `locked`, error(locked(Owner, Since, Purpose)) or
%   error(lock_failed(Reason)).

freezing(Context, Call, Result) :-
    observing(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(lock_failed(Reason))
    ;   unless_locked(Seen, Context, Call, freeze(Seen, Context, Call), freezing(Context), Result)
    ).

freeze(Facts, Context0, Call, Result) :-
    (   lookup(reason, [Call], Purpose) -> true ; default_option(lock, reason, Purpose) ),
    by_hand(Purpose, Words),
    uuid(Id),
    atom_concat('by-hand-', Id, Token),
    with_lease(Token, Words, Context0, Context),
    active(Facts, Current, Backup),
    Facts = facts(_, Host, _, _, _),
    run([step(lock, Host, lock(-, Current, Backup), [unlock])], Context, Report),
    (   lock_refusal(Report, Result)
    ->  true
    ;   Report = report(failed(_, Reason), _, _)
    ->  Result = error(lock_failed(Reason))
    ;   Result = locked
    ).

%!  thawing(+Context, +Call, -Result) is det.
%
%   Give back what was taken by hand, or what was left by an operation that has ended.  Result is `unlocked`,
%   error(locked(Owner, Since, Purpose)) where an operation is at work, or error(lock_failed(Reason)).

thawing(Context0, Call, Result) :-
    observing(Context0, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(lock_failed(Reason))
    ;   observed_lock(Seen, lock(Token, _, _, _, _, _, _, _)),
        sub_atom(Token, 0, _, _, 'by-hand-')
    ->  with_lease(Token, '', Context0, Context),
        Context = context(_, Host, _, _, _, _),
        run([step(unlock, Host, unlock, [])], Context, report(Verdict, _, _)),
        (   Verdict = failed(_, Reason)
        ->  Result = error(lock_failed(Reason))
        ;   Result = unlocked
        )
    ;   unless_locked(Seen, Context0, Call, =(unlocked), thawing(Context0), Result)
    ).

%!  lock_state(+Context, +Call, -State) is det.
%
%   State is `unlocked`, `locked(Owner, Since, Purpose)` or `unreachable(Reason)`.

lock_state(Context, Call, State) :-
    observing(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  State = unreachable(Reason)
    ;   observed_lock(Seen, Lock),
        \+ over(Lock, _)
    ->  Lock = lock(_, _, _, _, _, Owner, Since, Purpose),
        locked_by(Owner, Since, Purpose, State)
    ;   State = unlocked
    ).

%!  leased_plan(+Entry, +Plan, +Facts, -Leased) is det.
%
%   Leased is Plan with its intent, and with the lease taken before its first and, where Entry is `own`, given back behind its
%   last step on the target.  That of a `gate` is given back when the whole fleet is done.

leased_plan(gate, Plan0, Facts, [step(lock, Host, lock(Seconds, Current, Backup), [])|Plan]) :-
    Plan0 \== [],
    !,
    intended_plan(Plan0, Facts, Plan),
    Facts = facts(Service, Host, Call, _, _),
    lease_seconds(Service, Host, Call, Seconds),
    active(Facts, Current, Backup).
leased_plan(_, Plan0, Facts, Leased) :-
    intended_plan(Plan0, Facts, Plan),
    (   append(Before, [Last|After], Plan),
        working_step(Last),
        \+ ( member(Later, After), working_step(Later) )
    ->  Facts = facts(Service, Host, Call, _, _),
        lease_seconds(Service, Host, Call, Seconds),
        active(Facts, Current, Backup),
        Lock = step(lock, Host, lock(Seconds, Current, Backup), [unlock]),
        Unlock = step(unlock, Host, try(unlock), []),
        append([Lock|Before], [Last, Unlock|After], Leased)
    ;   Leased = Plan
    ).

%!  lease_seconds(+Service, +Host, +Call, -Seconds:integer) is det.
%
%   What a new release may take to become healthy comes between two scripts.  The shell counts in centiseconds.

lease_seconds(Service, Host, Call, Seconds) :-
    (   lookup(lease, [Call], Lease) -> true ; default_option(operation, lease, Lease) ),
    resolve(Service, Host, Call, healthy_deadline, Deadline),
    ( lookup(min_healthy_time, [Call], Lasting) -> true ; Lasting = 0 ),
    ( lookup(confirm_within, [Call], Confirm) -> true ; Confirm = 0 ),
    balancer_seconds(Service, Call, Balancer),
    Seconds is ceiling(min(Lease + Deadline + Lasting + Confirm + Balancer, 1.0e9)).

active(Facts, Current, Backup) :-
    observed(found(Current, Backup), Facts),
    !.
active(Facts, Current, Backup) :-
    ( observed(backup(Backup), Facts) -> true ; Backup = none ),
    (   observed(unfinished(Id), Facts)
    ->  Current = Id
    ;   observed(current(Id), Facts)
    ->  Current = Id
    ;   Current = none
    ).

%   What this process began and could not give back, because the connection was lost, has ended too.

ended(Token, Machine, Pid, Born) :-
    controller_state(Machine, Pid, Born, State),
    (   State == ended
    ->  true
    ;   State == this,
        \+ at_work(Token)
    ).
