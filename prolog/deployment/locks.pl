:- module(deployment_locks,
          [ unless_locked/6,            % +Facts, +Context, +Call, :Act, :Again, -Result
            leased_run/4,               % +Plan, +Facts, +Context, -Report
            leased_plan/3,              % +Plan, +Facts, -Leased
            lock_refusal/2              % +Report, -Result
          ]).

/** <module> One operation at a time on a service's host

A lease is a folder on the host, taken by rename in the script that makes an operation's first change, and given back in
that of its last one: it costs no exec of its own.  It holds as long as a script of the operation runs there, and for
some seconds after, until the next.  A script without it changes nothing.  Whose controller has ended on this machine,
and whose lease has run out, is dispossessed: what its script still does is ended first.
*/

:- autoload(library(lists), [append/3, member/2, memberchk/2, nth1/3]).
:- autoload(library(readutil), [read_file_to_string/3]).
:- autoload(library(socket), [gethostname/1]).
:- autoload(library(uri), [uri_encoded/3]).
:- use_module(declarations, [resolve/5]).
:- use_module(effects, [effect/2]).
:- use_module(options, [lookup/3, default_option/3]).
:- use_module(plan, [observed/2]).
:- use_module(run, [run/3]).
:- use_module(scripts, [remote_action/1]).

:- dynamic at_work/1.         % Token of an operation of this process

:- meta_predicate unless_locked(+, +, +, 1, 2, -).

%!  unless_locked(+Facts, +Context, +Call, :Act, :Again, -Result) is det.
%
%   Result is that of `call(Act, Result)` where nobody else holds the lock, by Facts, and error(locked(Owner, Since,
%   Purpose)) where somebody does, after `lock_wait` seconds of Call.  `call(Again, Call, Result)` begins anew, with
%   what is on the host by then.  Since is in seconds since the epoch.

unless_locked(Facts, Context, Call, Act, Again, Result) :-
    (   observed_lock(Facts, Lock)
    ->  locked(Lock, Context, Call, Again, Result)
    ;   call(Act, Result0),
        (   Result0 == error(changed_meanwhile)
        ->  call(Again, Call, Result)
        ;   Result0 = error(locked(_, _, _))
        ->  waited(Result0, Call, Again, Result)
        ;   Result = Result0
        )
    ).

observed_lock(Facts, Lock) :-
    Lock = lock(_, _, _, _, _, _, _, _),
    observed(Lock, Facts),
    !.

locked(Lock, Context, Call, Again, Result) :-
    Lock = lock(Token, State, Machine, Pid, Born, Owner, Since, Purpose),
    (   ( State == expired ; ended(Token, Machine, Pid, Born) )
    ->  Context = context(_, Host, _, _, _, _),
        run([step(take_over, Host, take_over(Token), [])], Context, report(Verdict, _, _)),
        (   Verdict = failed(_, Reason)
        ->  Result = error(Reason)
        ;   call(Again, Call, Result)
        )
    ;   locked_by(Owner, Since, Purpose, Refusal),
        waited(error(Refusal), Call, Again, Result)
    ).

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
%   Report is of a leased plan that did not get its lease, or found another release active than it was made for.

lock_refusal(report(failed(step(lock, _, _, _), Reason0), _, _), error(Reason)) :-
    refusal(Reason0, Reason).

refusal(changed_meanwhile, changed_meanwhile).
refusal(held(Owner, Since, Purpose), Reason) :- locked_by(Owner, Since, Purpose, Reason).

%!  leased_run(+Plan, +Facts, +Context, -Report) is det.
%
%   As run/3, with the lease around it.

leased_run(Plan0, Facts, Context0, Report) :-
    leased_plan(Plan0, Facts, Plan),
    Context0 = context(Service, Host, Target, Dir, Port, Token),
    controller(Controller),
    Context = context(Service, Host, Target, Dir, Port, leased(Token, Controller)),
    setup_call_cleanup(assertz(at_work(Token), Reference), run(Plan, Context, Report), erase(Reference)).

%!  leased_plan(+Plan, +Facts, -Leased) is det.
%
%   Leased is Plan with the lease taken before its first and given back behind its last step on the target.

leased_plan(Plan, Facts, Leased) :-
    (   append(Before, [Last|After], Plan),
        on_target(Last),
        \+ ( member(Later, After), on_target(Later) )
    ->  Facts = facts(Service, Host, Call, _, _),
        lease_seconds(Service, Host, Call, Seconds),
        active(Facts, Current),
        Lock = step(lock, Host, lock(Seconds, Current), [unlock]),
        Unlock = step(unlock, Host, try(unlock), []),
        append([Lock|Before], [Last, Unlock|After], Leased)
    ;   Leased = Plan
    ).

on_target(step(_, _, Action0, _)) :-
    (   Action0 = try(Action) -> true ; Action = Action0 ),
    remote_action(Action).

%   What a new release may take to become healthy comes between two scripts.

lease_seconds(Service, Host, Call, Seconds) :-
    (   lookup(lease, [Call], Lease) -> true ; default_option(operation, lease, Lease) ),
    resolve(Service, Host, Call, healthy_deadline, Deadline),
    Seconds is ceiling(Lease + Deadline).

active(Facts, Current) :-
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
    owner(Owner0),
    uri_encoded(segment, Owner0, Owner),
    effect(now, Now),
    Since is integer(Now),
    atomic_list_concat([Machine, Pid, Born, Owner, Since, deployment], ' ', Words).

owner(Owner) :-
    ( member(Name, ['LOGNAME', 'USER']), getenv(Name, User) -> true ; User = unknown ),
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
