:- module(deployment_balanced_model,
          [ modelled_balance/5,         % +Request, +Script, +State0, -Answer, -State
            modelled_server/2           % +Name, -Admin
          ]).

/** <module> A modelled load balancer

Its state, kept with those of the modelled hosts, holds `set(Server, State)` for what it was told, and `looked` for each time it was polled.
*/

:- autoload(library(lists), [last/2, member/2, memberchk/2, nth1/3, subtract/3]).

%!  modelled_balance(+Request, +Script, +State0, -Answer, -State) is det.
%
%   Request is that of the effect `balance`. The servers are those of the script.

modelled_balance(set(_, Name, Admin), _, State0, done, [set(Name, Admin)|State]) :-
    subtract(State0, [set(Name, _)], State).
modelled_balance(look(_), Script, State, servers(Servers), State) :-
    findall(Server, modelled_row(Script, State, Server), Servers).
modelled_balance(poll(Backend), Script, State, Answer, [looked|State]) :-
    modelled_balance(look(Backend), Script, [looked|State], Answer, _).

modelled_row(Script, State, server(Name, [Address], Port, Admin, Status, Sessions)) :-
    member(server(Name, Address, Port, Admin0), Script),
    ( memberchk(set(Name, Admin), State) -> true ; Admin = Admin0 ),
    findall(looked, member(looked, State), Looks),
    length(Looks, N),
    ( memberchk(sessions(Name, Counts), Script) -> nth_or_last(N, Counts, Sessions) ; Sessions = 0 ),
    ( memberchk(says(Name, Statuses), Script) -> nth_or_last(N, Statuses, Said) ; Said = 'UP' ),
    ( Admin == ready -> Status = Said ; upcase_atom(Admin, Status) ).

nth_or_last(N, Answers, Answer) :-
    (   nth1(N, Answers, Answer0)
    ->  Answer = Answer0
    ;   last(Answers, Answer)
    ).

%!  modelled_server(+Name, -Admin) is semidet.
%
%   What the run of this thread has told the load balancer last of the server Name: `ready`, `drain` or `maint`.

modelled_server(Name, Admin) :-
    b_getval(deployment_model, model(_, States, _)),
    memberchk('load balancer'-State, States),
    memberchk(set(Name, Admin), State).
