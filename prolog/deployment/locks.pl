:- module(deployment_locks,
          [ unless_locked/6,            % +Facts, +Context, +Call, :Act, :Again, -Result
            locked_out/5,               % +Facts, +Context, +Call, :Again, -Result
            leased_run/4,               % +Plan, +Facts, +Context, -Report
            leased_plan/3,              % +Plan, +Facts, -Leased
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

:- autoload(library(lists), [append/3, member/2, memberchk/2, nth1/3]).
:- autoload(library(readutil), [read_file_to_string/3]).
:- autoload(library(socket), [gethostname/1]).
:- autoload(library(uri), [uri_encoded/3]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(declarations, [resolve/5]).
:- use_module(effects, [effect/2]).
:- use_module(observation, [observing/3]).
:- use_module(options, [lookup/3, default_option/3]).
:- use_module(plan, [observed/2]).
:- use_module(run, [run/3]).
:- use_module(scripts, [remote_action/1]).

:- dynamic at_work/1.         % Token of an operation of this process

:- meta_predicate
    unless_locked(+, +, +, 1, 2, -),
    locked_out(+, +, +, 2, -).

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
    locked(Lock, Context, Call, Again, Result).

observed_lock(Facts, Lock) :-
    Lock = lock(_, _, _, _, _, _, _, _),
    observed(Lock, Facts),
    !.

locked(Lock, Context, Call, Again, Result) :-
    Lock = lock(Token, _, _, _, _, Owner, Since, Purpose),
    (   over(Lock, How)
    ->  Context = context(_, Host, _, _, _, _),
        run([step(take_over, Host, take_over(Token, How), [])], Context, report(Verdict, _, _)),
        (   Verdict = failed(_, Reason)
        ->  Result = error(Reason)
        ;   call(Again, Call, Result)
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

lock_refusal(report(failed(step(lock, _, _, _), Reason0), _, _), error(Reason)) :-
    refusal(Reason0, Reason).

refusal(changed_meanwhile, changed_meanwhile).
refusal(held(Owner, Since, Purpose), Reason) :- locked_by(Owner, Since, Purpose, Reason).

%!  leased_run(+Plan, +Facts, +Context, -Report) is det.
%
%   As run/3, with the lease around it.

leased_run(Plan0, Facts, Context0, Report) :-
    leased_plan(Plan0, Facts, Plan),
    Context0 = context(_, _, _, _, _, Token),
    controller(Controller),
    with_lease(Token, Controller, Context0, Context),
    setup_call_cleanup(assertz(at_work(Token), Reference), run(Plan, Context, Report), erase(Reference)).

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
    controller_words(-, 0, 0, Purpose, Words),
    uuid(Id),
    atom_concat('by-hand-', Id, Token),
    with_lease(Token, Words, Context0, Context),
    active(Facts, Current, Backup),
    Facts = facts(_, Host, _, _, _),
    run([step(lock, Host, lock(-, Current, Backup), [])], Context, Report),
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

%!  leased_plan(+Plan, +Facts, -Leased) is det.
%
%   Leased is Plan with the lease taken before its first and given back behind its last step on the target.

leased_plan(Plan, Facts, Leased) :-
    (   append(Before, [Last|After], Plan),
        on_target(Last),
        \+ ( member(Later, After), on_target(Later) )
    ->  Facts = facts(Service, Host, Call, _, _),
        lease_seconds(Service, Host, Call, Seconds),
        active(Facts, Current, Backup),
        Lock = step(lock, Host, lock(Seconds, Current, Backup), [unlock]),
        Unlock = step(unlock, Host, try(unlock), []),
        append([Lock|Before], [Last, Unlock|After], Leased)
    ;   Leased = Plan
    ).

on_target(step(_, _, Action0, _)) :-
    (   Action0 = try(Action) -> true ; Action = Action0 ),
    remote_action(Action).

%   What a new release may take to become healthy comes between two scripts.  The shell counts in centiseconds.

lease_seconds(Service, Host, Call, Seconds) :-
    (   lookup(lease, [Call], Lease) -> true ; default_option(operation, lease, Lease) ),
    resolve(Service, Host, Call, healthy_deadline, Deadline),
    Seconds is ceiling(min(Lease + Deadline, 1.0e9)).

active(Facts, Current, Backup) :-
    ( observed(backup(Backup), Facts) -> true ; Backup = none ),
    (   observed(unfinished(Id), Facts)
    ->  Current = Id
    ;   observed(current(Id), Facts)
    ->  Current = Id
    ;   Current = none
    ).

%   controller(-Words) is det: `MACHINE PID BORN OWNER SINCE PURPOSE`, each a word for the shell and for reports.

controller(Words) :-
    (   own_machine(Machine) -> true ; Machine = - ),
    current_prolog_flag(pid, Pid),
    (   born(Pid, Born) -> true ; Born = 0 ),
    controller_words(Machine, Pid, Born, deployment, Words).

controller_words(Machine, Pid, Born, Purpose0, Words) :-
    owner(Owner0),
    uri_encoded(segment, Owner0, Owner),
    uri_encoded(segment, Purpose0, Purpose),
    effect(now, Now),
    Since is truncate(Now),
    atomic_list_concat([Machine, Pid, Born, Owner, Since, Purpose], ' ', Words).

owner(Owner) :-
    ( member(Name, ['LOGNAME', 'USER']), catch(getenv(Name, User), error(_, _), fail) -> true ; User = unknown ),
    gethostname(Host),
    atomic_list_concat([User, @, Host], Owner).

%   The same kernel since its start, and the same numbering of processes.

own_machine(Machine) :-
    catch(( read_file_to_string('/proc/sys/kernel/random/boot_id', Text, []),
            read_link('/proc/self/ns/pid', Space, _) ),
          error(_, _), fail),
    normalize_space(atom(Boot), Text),
    atomic_list_concat([Boot, /, Space], Machine).

%   What this process began and could not give back, because the connection was lost, has ended too.

ended(Token, Machine, Pid0, Born0) :-
    own_machine(Machine),
    atom_number(Pid0, Pid),
    (   born(Pid, Born),
        atom_number(Born0, Born)
    ->  current_prolog_flag(pid, Pid),
        \+ at_work(Token)
    ;   true
    ).

%   born(+Pid, -Ticks) is semidet: when a process that lives was started, as its stat tells behind the name.

born(Pid, Ticks) :-
    atomic_list_concat(['/proc/', Pid, '/stat'], File),
    catch(read_file_to_string(File, Text, []), error(_, _), fail),
    split_string(Text, ")", "", Parts),
    append(_, [Fields], Parts),
    split_string(Fields, " ", " \n", [State|Words]),
    \+ memberchk(State, ["Z", "X"]),
    nth1(19, Words, Word),
    number_string(Ticks, Word).
