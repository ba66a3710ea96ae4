:- module(deployment_rolling,
          [ roll_out/5,                 % +Rollout, :Deploy, :GoBack, +Most, -Answers
            progress_of/2,              % +Service, -Progress
            not_reached/2,              % +Progress, -Hosts
            on_new_release/1,           % ?Status
            went/3                      % +Host, +Answer, -Way
          ]).

/** <module> Performing a rollout: batch after batch, and all the way back where it says so

Rollout is `rollout(Service, Hosts, Settings, Batches, Progress)`, see rollout.pl.  How far it came is in the ledger before each
batch, for who goes on with it: Progress is a list of `phase(forward)` or `phase(back)`, the `release(Hash)` of the first host that got it, and
`host(Host, Status, Way)`.  Status is the result there, or `waiting`; Way tells how it came to the new release: from another that it
`kept`, from none, being `new`, or `not` at all.  An answer is as in fleet.pl.
*/

:- autoload(library(aggregate), [aggregate_all/3]).
:- autoload(library(apply), [maplist/3, foldl/5]).
:- autoload(library(assoc), [list_to_assoc/2, get_assoc/3, put_assoc/4, gen_assoc/3]).
:- autoload(library(lists), [append/3, member/2, memberchk/2]).
:- autoload(library(uuid), [uuid/1]).
:- use_module(effects, [effect/2]).
:- use_module(fleet, [on_hosts/4]).
:- use_module(ledger, [deployed_hash/3]).
:- use_module(options, [lookup/3]).
:- use_module(rollout, [amount_of/3]).
:- use_module(run, [note_event/4, ask/2]).

:- meta_predicate roll_out(+, 2, 3, +, -).

:- dynamic failed_host/2.       % Id, Host

%!  roll_out(+Rollout, :Deploy, :GoBack, +Most:integer, -Answers:list) is det.
%
%   `call(Deploy, Host, Answer)` deploys to one host, `call(GoBack, Answer0, Host, Answer)` undoes what Answer0 tells.  Most hosts at
%   the same time.  Answers are those of the Rollout's hosts, in its order.  `skipped(Reason)` is the result of a host whose turn did
%   not come: Reason is `max_failures`, `max_unavailable` or `cancelled`.

roll_out(Rollout, Deploy, GoBack, Most, Answers) :-
    Rollout = rollout(Service, Hosts, Settings, Batches, Progress),
    uuid(Id),
    progress_of(Service, Earlier),
    findall(Host-answer(Status, [], Way),
            ( member(host(Host, Status0, Way), Progress), memberchk(Host, Hosts), over(Progress, Status0, Status) ),
            Over),
    list_to_assoc(Over, Before),
    setup_call_cleanup(failed_before(Id, Settings, Before),
                       in_batches(Batches, 1, rolling(Id, Rollout, Deploy, Most), Before, Done0),
                       retractall(failed_host(Id, _))),
    (   refused(Done0)
    ->  Done = Done0
    ;   ( memberchk(phase(back), Progress) ; must_go_back(Settings, Done0) )
    ->  keep_progress(Service, back, Earlier, Hosts, Done0),
        all_back(Service, Earlier, Done0, Settings, Hosts, GoBack, Most, Done),
        still_back(Hosts, Done0, Done, Left),
        keep_progress(Service, back, Earlier, Hosts, Left)
    ;   Done = Done0,
        keep_progress(Service, forward, Earlier, Hosts, Done)
    ),
    maplist(answer_in(Done), Hosts, Answers).

%   Of a rollout that goes back, no host is to come to its turn any more.

over(Progress, waiting, skipped(max_failures)) :- memberchk(phase(back), Progress), !.
over(Progress, Status, Status) :- ( memberchk(phase(back), Progress) -> true ; \+ open_status(Status) ).

%   What could not go back has to yet: it keeps the status it had.

still_back(Hosts, Done0, Done, Left) :-
    findall(Host-Answer,
            ( member(Host, Hosts),
              get_assoc(Host, Done, Answer1),
              ( Answer1 = answer(error(_), _, _) -> get_assoc(Host, Done0, Answer) ; Answer = Answer1 ) ),
            Pairs),
    list_to_assoc(Pairs, Left).

%   What had failed before is to take the whole fleet back, unless it was to stop there: then who goes on with it knows.

failed_before(Id, settings(Options), Before) :-
    (   lookup(on_failure, [Options], rollback_all)
    ->  forall(( gen_assoc(Host, Before, answer(Result, _, _)), is_failure(Result) ),
               assertz(failed_host(Id, Host)))
    ;   true
    ).

answer_in(Done, Host, Answer) :- get_assoc(Host, Done, Answer).

%   in_batches(+Batches, +N, +Rolling, +Done0, -Done): Done is an assoc of hosts and their answers.

in_batches([], _, _, Done, Done).
in_batches([Batch|Batches], N, Rolling, Done0, Done) :-
    Rolling = rolling(_, rollout(Service, Hosts, _, _, Progress), _, _),
    (   N =:= 1, Progress == [], progress_of(Service, [_|_])
    ->  true
    ;   refused(Done0)
    ->  true
    ;   keep_progress(Service, forward, Progress, Hosts, Done0)
    ),
    pause(N, Rolling),
    batch_answers(Batch, N, Rolling, Done0, Answers),
    foldl(put_answer, Batch, Answers, Done0, Done1),
    M is N + 1,
    in_batches(Batches, M, Rolling, Done1, Done).

%   Somebody else is at work, and nothing was begun: how far the rollout came is theirs to tell.

refused(Done) :-
    once(gen_assoc(_, Done, answer(error(locked(_, _, _)), _, _))),
    \+ ( gen_assoc(_, Done, answer(Result, [_|_], _)), begun(Result) ).

begun(Result) :- Result \= error(_), Result \== unchanged.

put_answer(Host, Answer, Done0, Done) :- put_assoc(Host, Done0, Answer, Done).

batch_answers(Batch, N, rolling(Rollout, rollout(_, Hosts, Settings, _, _), Deploy, Most), Done, Answers) :-
    width(Settings, Hosts, Done, Most, Width),
    (   no_turn(Rollout, Settings, Width, Reason)
    ->  maplist(skipped(Reason), Batch, Answers)
    ;   atomic_list_concat([batch, N], '_', Id),
        note_event(*, Id, ok, [hosts(Batch)]),
        on_hosts(Batch, Width, in_turn(Rollout, Settings, Deploy), Answers)
    ).

skipped(Reason, _, answer(skipped(Reason), [], none)).

in_turn(Id, Settings, Deploy, Host, Answer) :-
    (   no_turn(Id, Settings, 1, Reason)
    ->  skipped(Reason, Host, Answer)
    ;   call(Deploy, Host, Answer),
        arg(1, Answer, Result),
        ( on_new_release(Result) -> true ; assertz(failed_host(Id, Host)) )
    ).

%   Why no further host is begun.

no_turn(_, _, _, cancelled) :-
    effect(sleep(0), cancelled),
    !.
no_turn(_, _, Width, max_unavailable) :-
    Width =< 0,
    !.
no_turn(Id, settings(Options), _, max_failures) :-
    \+ lookup(on_failure, [Options], continue),
    lookup(max_failures, [Options], Most),
    aggregate_all(count, failed_host(Id, _), Failures),
    Failures > Most.

pause(1, _) :- !.
pause(_, rolling(Id, rollout(_, _, Settings, _, _), _, _)) :-
    no_turn(Id, Settings, 1, _),
    !.
pause(_, rolling(_, rollout(_, _, settings(Options), _, _), _, _)) :-
    lookup(pause_between, [Options], Seconds),
    effect(sleep(Seconds), _).

%   What is not worked on at the same time: hosts that were left without their service count too.

width(settings(Options), Hosts, Done, Most, Width) :-
    length(Hosts, Count),
    lookup(max_unavailable, [Options], Amount),
    amount_of(Amount, Count, Allowed),
    aggregate_all(count, ( gen_assoc(_, Done, answer(Result, _, _)), left_without(Result) ), Lost),
    Width is min(Most, Allowed - Lost).

left_without(rolled_back_after_failure(error(rollback_failed(_)))).
left_without(error(deployment_failed(not_restored(_, _)))).

%!  on_new_release(?Status) is nondet.

on_new_release(deployed).
on_new_release(deployed_with_warnings(_)).
on_new_release(unchanged).

must_go_back(settings(Options), Done) :-
    lookup(on_failure, [Options], rollback_all),
    lookup(max_failures, [Options], Most),
    aggregate_all(count, ( gen_assoc(_, Done, answer(Result, _, _)), is_failure(Result) ), Failures),
    Failures > Most.

is_failure(skipped(cancelled)) :- !.
is_failure(Result) :-
    \+ on_new_release(Result),
    Result \= skipped(_).

%   Hosts that were on the new release before keep their answer.

all_back(Service, Earlier, Done0, Settings, Hosts, GoBack, Most, Done) :-
    findall(back(Host, Answer, Events),
            ( gen_assoc(Host, Done0, answer(Result, Events, Left)),
              on_new_release(Result),
              to_undo(Service, Host, answer(Result, Events, Left), Earlier, Answer) ),
            Deployed),
    findall(Host, member(back(Host, _, _), Deployed), Back),
    width(Settings, Hosts, Done0, Most, Width0),
    Width is max(1, Width0),
    note_event(*, rollback_all, ok, [hosts(Back)]),
    on_hosts(Deployed, Width, back(GoBack), Answers),
    foldl(put_answer, Back, Answers, Done0, Done).

back(GoBack, back(Host, Answer0, Events0), answer(Result, Events, Left)) :-
    call(GoBack, Answer0, Host, answer(Result, Events1, Left)),
    append(Events0, Events1, Events).

%   to_undo(+Service, +Host, +Answer0, +Earlier, -Answer): Answer tells how Host came to the new release: now, or in an earlier rollout of it
%   that did not come to its end.

to_undo(_, Host, Answer, _, Answer) :-
    went(Host, Answer, _),
    !.
to_undo(Service, Host, answer(Result, _, _), Earlier, answer(Result, [], Way)) :-
    memberchk(host(Host, _, Way), Earlier),
    Way \== not,
    memberchk(release(Hash), Earlier),
    deployed_hash(Service, Host, Hash).

% ---- how far it came ---------------------------------------------------------------------------------------

%   keep_progress(+Service, +Phase, +Earlier, +Hosts, +Done): in the ledger, or nothing where nobody is left.

keep_progress(Service, Phase, Earlier, Hosts, Done) :-
    findall(host(Host, Status, Way),
            ( member(Host, Hosts), host_progress(Service, Host, Done, Earlier, Status, Way) ),
            Each),
    findall(release(Hash), rolled_release(Service, Each, Earlier, Hash), Release),
    append([phase(Phase)|Release], Each, Progress0),
    ( not_reached(Progress0, []) -> Progress = [] ; Progress = Progress0 ),
    format(atom(Text), '~q', [Progress]),
    ask(ledger(put(Service, *, '', rollout, Text)), _).

rolled_release(_, _, Earlier, Hash) :-
    memberchk(phase(back), Earlier),
    memberchk(release(Hash), Earlier),
    !.
rolled_release(Service, Each, _, Hash) :-
    member(host(Host, Status, _), Each),
    on_new_release(Status),
    deployed_hash(Service, Host, Hash),
    !.

host_progress(Service, Host, Done, Earlier, Status, Way) :-
    get_assoc(Host, Done, Answer),
    !,
    arg(1, Answer, Status),
    (   on_new_release(Status),
        to_undo(Service, Host, Answer, Earlier, Undone),
        went(Host, Undone, Way0)
    ->  Way = Way0
    ;   Way = not
    ).
host_progress(_, _, _, _, waiting, not).

%!  went(+Host, +Answer, -Way) is semidet.

went(_, answer(_, [], Way), Way) :-
    memberchk(Way, [kept, new]),
    !.
went(Host, answer(_, Events, _), kept) :-
    memberchk(event(_, Host, keep, ok, _, _), Events),
    !.
went(Host, answer(_, Events, _), new) :-
    memberchk(event(_, Host, switch, ok, _, _), Events),
    !.
went(Host, answer(_, Events, _), Way) :-        % what a killed controller had begun was finished
    memberchk(event(_, Host, recovery, completed(_), _, _), Events),
    (   member(event(_, Host, observe, ok, _, Notes), Events),
        memberchk(backup(_), Notes)
    ->  Way = kept
    ;   Way = new
    ).

%!  progress_of(+Service, -Progress:list) is det.
%
%   That of the last rollout of Service that did not reach all hosts, or `[]`.

progress_of(Service, Progress) :-
    ask(ledger(get(Service, rollout)), rows(Rows)),
    (   memberchk(row(*, _, Text), Rows)
    ->  term_to_atom(Progress, Text)
    ;   Progress = []
    ).

%!  not_reached(+Progress, -Hosts:list) is det.
%
%   The hosts that a rollout did not come to, or could not begin with, in order; of one that goes back, those that have to yet.

not_reached(Progress, Hosts) :-
    memberchk(phase(back), Progress),
    !,
    findall(Host, ( member(host(Host, Status, Way), Progress), on_new_release(Status), Way \== not ), Hosts).
not_reached(Progress, Hosts) :-
    findall(Host, ( member(host(Host, Status, _), Progress), open_status(Status) ), Hosts).

open_status(waiting).
open_status(skipped(_)).
open_status(error(_)).
