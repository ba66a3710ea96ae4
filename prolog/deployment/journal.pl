:- module(deployment_journal,
          [ in_run/5,                   % +Run, +Told, :Goal, -Result, -Events
            is_run/1,                   % +Operation
            journal_apart/1,            % :Goal
            journal_entry/4             % +Entry, +Context, +Noted, -Outcome
          ]).

/** <module> The journal: what an operation is about to do is on the disk before it is done

Every operation that acts is a run: it is in the ledger as begun before its first change, and its result is there before
the caller has it.  So is the intent of each barrier that changes something, before its script is sent, and what became
of it as soon as that is known.  What operations only look at, plan or play on modelled hosts is no run.

A ledger that can't be written stops nothing: the run's events tell it, once a host.
*/

:- autoload(library(lists), [append/3, last/2, member/2, memberchk/2, reverse/2]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(controllers, [this_controller/4]).
:- use_module(effects, [effect/2]).
:- use_module(facts, [service_now/4]).
:- use_module(file_hashes, [file_hash/2]).
:- use_module(options, [lookup/3]).
:- use_module(releases, [hash_of_id/2]).

:- meta_predicate
    in_run(+, +, 3, -, -),
    journal_apart(0).

%!  in_run(+Run, +Told, :Goal, -Result, -Events) is det.
%
%   `call(Goal, Own, Result, Events)`, as the run that Told is of: `run(Operation, Service, Hosts)`.  Own is Run,
%   or `none(Id)` instead of `none`, by which the journal knows what Python does not.  What Goal throws is the run's end
%   too: `raised(Error)`.

in_run(Run, Told, Goal, Result, Events) :-
    (   arg(1, Told, Operation),
        is_run(Operation)
    ->  identified(Run, Own, Id),
        begin_run(Id, Told),
        catch(call(Goal, Own, Result, Events), Error, true),
        end_run(Error, Id, Result, Events)
    ;   call(Goal, Run, Result, Events)
    ).

%!  is_run(+Operation) is semidet.
%
%   Operation, whose last argument are its options, acts for real.

is_run(Operation) :-
    compound_name_arguments(Operation, Name, Arguments),
    \+ only_looks(Name),
    last(Arguments, Options),
    \+ ( lookup(backend, [Options], Backend), Backend \== live ).

only_looks(deployment_plan).
only_looks(lock_status).
only_looks(service_status).
only_looks(fleet_status).
only_looks(run_health_check).
only_looks(wait_for_healthy).
only_looks(rebuild_ledger).

identified(none, none(Id), Id) :-
    !,
    effect(now, Now),
    stamp_date_time(Now, Date, 'UTC'),
    uuid(Random),
    sub_atom(Random, 0, 8, _, Digits),
    format_time(atom(Time), '%Y%m%dT%H%M%SZ', Date),
    atomic_list_concat([Time, Digits], -, Id).
identified(Run, Run, Run).

begin_run(Id, run(Operation, Service, Hosts)) :-
    functor(Operation, Name, _),
    this_controller(Machine, Pid, Born, Owner),
    declared_in(Service, Origin),
    effect(now, Time),
    About = [call(Operation), by(Owner), machine(Machine), pid(Pid), born(Born)|Origin],
    effect(ledger(begin(Id, Service, Name, Time, Hosts, About)), _).

declared_in(Service, [file(Origin)|Hash]) :-
    service_now(Service, _, Origin, _),
    !,
    (   Origin \== user,
        file_hash(Origin, Digits)
    ->  Hash = [file_hash(Digits)]
    ;   Hash = []
    ).
declared_in(_, [file(user)]).

end_run(Error, Id, Result, Events) :-
    effect(now, Time),
    (   var(Error)
    ->  effect(ledger(end(Id, Time, Result, Events)), _)
    ;   ( Error = error(Formal, _) -> true ; Formal = Error ),
        effect(ledger(end(Id, Time, raised(Formal), unknown)), _),
        throw(Error)
    ).

%!  journal_apart(:Goal) is semidet.
%
%   Of the events that this thread notes while Goal runs, none is in the journal before.

journal_apart(Goal) :-
    ( nb_current(deployment_journal, Outer) -> true ; Outer = none ),
    b_setval(deployment_journal, none),
    once(Goal),
    b_setval(deployment_journal, Outer).

%!  journal_entry(+Entry, +Context, +Noted, -Outcome) is det.
%
%   Entry is `intent(Steps)`, for steps of a plan that are about to begin together, or `ended(Steps)`; Noted are all
%   events of the host until now, last first.  Outcome is `done` or failed(ledger_failed(File, Why)), which is told once.

journal_entry(Entry, Context, Noted, Outcome) :-
    arg(1, Entry, Steps),
    changing(Steps),
    whose(Context, Of),
    unwritten(Noted, Of, Events),
    !,
    request(Entry, Of, Events, Request),
    effect(ledger(Request), Outcome),
    length(Noted, Written),
    (   Outcome == done
    ->  b_setval(deployment_journal, written(Of, Written))
    ;   b_setval(deployment_journal, broken(Of))
    ).
journal_entry(_, _, _, done).

request(intent(Steps), Id-Host, Events, intent(Id, Host, Time, Ids, Release, Events)) :-
    effect(now, Time),
    findall(StepId, member(step(StepId, _, _, _), Steps), Ids),
    ( made_active(Steps, Release) -> true ; Release = none ).
request(ended(_), Id-Host, Events, events(Id, Host, Events)).

whose(context(_, Host, _, _, _, Token), Id-Host) :-
    (   Token = leased(Id, _)
    ->  true
    ;   Id = Token
    ).

unwritten(Noted, Of, Events) :-
    \+ nb_current(deployment_journal, broken(Of)),
    (   nb_current(deployment_journal, written(Of, Before))
    ->  true
    ;   Before = 0
    ),
    length(Noted, All),
    New is All - Before,
    length(Reversed, New),
    append(Reversed, _, Noted),
    reverse(Reversed, Events).

%   changing(+Steps) is semidet: one of them does more than to look.  That a host needed nothing is recorded by a step
%   that must be done; it tells the run's release.

changing(Steps) :-
    member(step(_, _, Action, _), Steps),
    \+ observing(Action),
    !.

observing(try(record(_))) :- !.
observing(try(Action)) :- !, observing(Action).
observing(hook(_, _, Action)) :- !, observing(Action).
observing(balance(_, _, look)) :- !.
observing(Action) :-
    functor(Action, Name, _),
    memberchk(Name, [observe, survey, log_tail, confirm, verify, drain, secrets, scan, probe, reconnect, nothing]).

%   What is undone is only tried.

made_active(Steps, Hash) :-
    member(step(_, _, Action, _), Steps),
    active(Action, Hash),
    !.

active(link(current, Id), Hash) :- Id \== none, hash_of_id(Id, Hash).
active(start(Id, _), Hash) :- hash_of_id(Id, Hash).
active(record(Pairs), Hash) :- memberchk(deployed_hash-Hash, Pairs).
