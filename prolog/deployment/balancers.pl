:- module(deployment_balancers,
          [ balance/5                   % +Change, +Balanced, +Done, -Result, -Notes
          ]).

/** <module> Asking and telling the load balancer

Performs the action `balance(Balancer, Server, Change)` of a plan. Change is

  - `look`: Server is the host's name. Find the server that stands for it; the note is `balanced(Server, State)`
  - `drain`: give it no more requests; those under way go on
  - `await(Seconds)`: wait until it has none, and none waits for it. Then it is in maintenance, in which HAProxy closes what it keeps open
    to it and sends elsewhere even whom a cookie binds. When Seconds are over, the note is `sessions_left(Count)`
  - `ready(Seconds)`: give it requests again, and wait until HAProxy itself says that it does
  - `kept_out`: this would be `ready`, but nothing healthy may run there: it fails

That the library took a server out is noted in the ledger, for HAProxy can't tell who did.
*/

:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(declarations, [resolve/5]).
:- use_module(effects, [effect/2]).

pause(0.1).

%   No session seen once might be one that HAProxy is just giving out.

empty_looks(2).

%!  balance(+Change, +Balanced, +Done, -Result, -Notes:list) is det.
%
%   Balanced is `balanced(Balancer, Server, Context)`; Done what was done before, newest first, as run/3 says. Result is `ok` or
%   `failed(Reason)`.

balance(look, balanced(Balancer, Host, Context), _, Result, Notes) :-
    ask(look, Balancer, Answer),
    (   Answer = servers(Servers)
    ->  Context = context(Service, Host, _, _, _, _),
        found(Service, Host, Servers, Found),
        seen(Found, Balancer, Context, Result, Notes)
    ;   Answer = failed(_), Result = Answer, Notes = []
    ).
balance(drain, Balanced, _, Result, Notes) :-
    note_ours(Balanced, Notes),
    tell(drain, Balanced, Result),
    (   Result == ok
    ->  true
    ;   note_theirs(Balanced, _)
    ).
balance(await(Seconds), Balanced, _, Result, Notes) :-
    effect(now, Now),
    End is Now + Seconds,
    awaiting(End, 0, Balanced, Ending),
    emptied(Ending, Balanced, Result, Notes).
balance(kept_out, balanced(_, Server, _), _, failed(balancer(kept_out(Server))), []).
balance(ready(_), Balanced, Done, Result, Notes) :-
    not_restored(Done),
    !,
    balance(kept_out, Balanced, Done, Result, Notes).
balance(ready(Seconds), Balanced, _, Result, Notes) :-
    tell(ready, Balanced, Told),
    (   Told == ok
    ->  effect(now, Now),
        End is Now + Seconds,
        coming_up(End, Balanced, Result),
        note_theirs(Balanced, Notes)
    ;   Result = Told, Notes = []
    ).

%   On the way back, what ran before could not be started.

not_restored(Done) :-
    member(done(step(_, _, try(Action), _), Result, _, _), Done),
    Result \== ok,
    functor(Action, Name, _),
    memberchk(Name, [start, probe, confirm]),
    !.

% ---- which server, and who took it out -------------------------------------------------------------

%!  found(+Service, +Host, +Servers, -Found) is det.
%
%   Found is the list of the servers that may stand for Host: the one it names, else that of its name, else those of its address and port.

found(Service, Host, Servers, Found) :-
    (   resolve(Service, Host, [], balancer_server, Name)
    ->  named(Name, Servers, Found)
    ;   named(Host, Servers, Found),
        Found \== []
    ->  true
    ;   ( resolve(Service, Host, [], address, Address) -> true ; Address = Host ),
        resolve(Service, Host, [], port, Port),
        findall(Server,
                ( member(Server, Servers), Server = server(_, Addresses, Port, _, _, _), memberchk(Address, Addresses) ),
                Found)
    ).

named(Name, Servers, Found) :-
    findall(Server, ( member(Server, Servers), arg(1, Server, Name) ), Found).

seen([server(Name, _, _, Admin, _, _)], Balancer, Context, ok, [balanced(Name, State)]) :-
    !,
    (   Admin \== ready,
        taken_out_by_us(balanced(Balancer, Name, Context))
    ->  State = ours
    ;   State = Admin
    ).
seen([], _, context(_, Host, _, _, _, _), failed(balancer(no_server(Host))), []) :- !.
seen(Servers, _, context(_, Host, _, _, _, _), failed(balancer(several_servers(Host, Names))), []) :-
    findall(Name, ( member(Server, Servers), arg(1, Server, Name) ), Names).

taken_out_by_us(balanced(Balancer, Server, context(Service, Host, _, Dir, _, _))) :-
    effect(ledger(get(Service, taken_out)), rows(Rows)),
    memberchk(row(Host, Dir, Text), Rows),
    server_path(Balancer, Server, Path),
    atom_string(Path, Text).

%   A ledger that can't be written is told, and stops nothing.

note_ours(Balanced, Notes) :-
    Balanced = balanced(Balancer, Server, _),
    server_path(Balancer, Server, Path),
    note(Path, Balanced, Notes).

note_theirs(Balanced, Notes) :-
    note('', Balanced, Notes).

note(Text, balanced(_, _, context(Service, Host, _, Dir, _, _)), Notes) :-
    effect(ledger(put(Service, Host, Dir, taken_out, Text)), Outcome),
    (   Outcome = failed(Reason)
    ->  Notes = [Reason]
    ;   Notes = []
    ).

server_path(haproxy(Options), Server, Path) :-
    memberchk(backend(Backend), Options),
    atomic_list_concat([Backend, Server], /, Path).

% ---- waiting ---------------------------------------------------------------------------------------

%!  awaiting(+End, +Empty, +Balanced, -Ending) is det.
%
%   Empty times in a row there was no session. Ending is `empty`, `left(Count)` or `failed(Reason)`.

awaiting(End, Empty0, Balanced, Ending) :-
    polled(Balanced, Polled),
    (   Polled = server(_, _, _, _, _, 0)
    ->  Empty is Empty0 + 1
    ;   Empty = 0
    ),
    (   empty_looks(Empty)
    ->  Ending = empty
    ;   Polled == assumed
    ->  Ending = empty
    ;   Polled = failed(_)
    ->  Ending = Polled
    ;   arg(6, Polled, Sessions),
        again(End, Sessions, left(Sessions), awaiting(End, Empty, Balanced), Ending)
    ).

%   An empty server is looked at once more, even when the time is over.

again(End, Sessions, Late, Goal, Ending) :-
    effect(now, Now),
    (   Sessions \== 0, Now >= End
    ->  Ending = Late
    ;   pause(Pause),
        effect(sleep(Pause), Slept),
        (   Slept == done
        ->  call(Goal, Ending)
        ;   Ending = failed(cancelled)
        )
    ).

emptied(empty, Balanced, Result, []) :- tell(maint, Balanced, Result).
emptied(left(Count), Balanced, Result, [sessions_left(Count)]) :- tell(maint, Balanced, Result).
emptied(failed(Reason), _, failed(Reason), []).

%   After maintenance a server is `UP 1/3` until HAProxy's own check has passed, and DOWN at once when it has not.

coming_up(End, Balanced, Result) :-
    polled(Balanced, Polled),
    (   ( Polled == assumed ; Polled = server(_, _, _, ready, Status, _), memberchk(Status, ['UP', 'no check']) )
    ->  Result = ok
    ;   Polled = failed(_)
    ->  Result = Polled
    ;   Polled = server(Name, _, _, _, Status, _),
        again(End, unknown, failed(balancer(not_up(Name, Status))), coming_up(End, Balanced), Result)
    ).

polled(balanced(Balancer, Server, _), Polled) :-
    ask(poll, Balancer, Answer),
    (   Answer = servers(Servers)
    ->  (   named(Server, Servers, [Polled0])
        ->  Polled = Polled0
        ;   Polled = failed(balancer(no_server(Server)))
        )
    ;   Polled = Answer
    ).

ask(Kind, haproxy(Options), Answer) :-
    memberchk(socket(Socket), Options),
    memberchk(backend(Backend), Options),
    Request =.. [Kind, Backend],
    effect(balance(Socket, Request), Answer).

tell(State, balanced(haproxy(Options), Server, _), Result) :-
    memberchk(socket(Socket), Options),
    memberchk(backend(Backend), Options),
    effect(balance(Socket, set(Backend, Server, State)), Answer),
    (   Answer = failed(_)
    ->  Result = Answer
    ;   Result = ok
    ).
