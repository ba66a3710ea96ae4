:- module(deployment_script_hooks,
          [ hooks//2                    % +Service, +Host
          ]).

/** <module> The hooks of a script: a bash function an event */

:- autoload(library(lists), [memberchk/2]).
:- use_module(declarations, [lifecycle_event/1]).
:- use_module(hooks, [hook_actions/4, tell_actions/3]).
:- use_module(script_heads, [double_quoted_words//1, formatted//2, plain/2]).
:- use_module(scripts, [step_lines//1, double_quoted//1, here_document//3]).

%!  hooks(+Service, +Host)// is det.
%
%   A function `hooks_EVENT` each, which fails at the first of its hooks that fails, and `tell_to_drain`.

hooks(Service, Host) -->
    { findall(Event, lifecycle_event(Event), Events),
      tell_actions(Service, Host, Tell) },
    event_functions(Events, Service, Host),
    "tell_to_drain() {\n",
    actions(Tell, tell, 1),
    "}\n\n".

event_functions([], _, _) --> [].
event_functions([Event|Events], Service, Host) -->
    { hook_actions(Service, Host, Event, Actions) },
    formatted("hooks_~w() {\n", [Event]),
    actions(Actions, Event, 1),
    "}\n\n",
    event_functions(Events, Service, Host).

actions([], _, 1) --> !, "    :\n".
actions([], _, _) --> [].
actions([Action|Actions], Event, N) -->
    { N1 is N + 1 },
    action(Action, Event, N),
    actions(Actions, Event, N1).

action(hook(Event, Declared, Action), Event, N) -->
    !,
    { words(Declared, Action, Words),
      failure(Event, Action, Failure) },
    "    announce ", double_quoted(Words), "\n",
    performed(Action, hook(Event, Declared, Action), Event, N, Failure).
action(Action, Event, N) -->
    performed(Action, Action, Event, N, "|| return 1").

performed(nothing(Option), _, _, _, _) -->
    !,
    { format(atom(Words), 'Nothing to do: there is no ~w', [Option]) },
    "    announce ", double_quoted(Words), "\n".
performed(request(Method, Url, Options), _, _, _, Failure) -->
    !,
    { upcase_atom(Method, Verb), seconds(Options, Seconds) },
    "    { reach \"$PORT\" && request ", double_quoted_words([Verb, Url, Seconds]),
    " && [[ $trouble$status = 02?? ]]; } ", formatted("~w\n", [Failure]).
performed(probe(policy(attempts(Tries), every(Pause), _, _), request(_, Url, Options), _), _, _, _, Failure) -->
    !,
    { seconds(Options, Seconds) },
    "    { reach \"$PORT\" && healthy_in_tries ", double_quoted_words([Url, Tries, Pause, Seconds]),
    "; } ", formatted("~w\n", [Failure]).
performed(_, Action, Event, N, Failure) -->
    { atomic_list_concat([Event, N], '_', Id),
      phrase(step_lines([do(Id, must, Action)]), Lines),
      string_concat(" ", Failure, Rest) },
    here_document("    target", Rest, Lines).

seconds(Options, Seconds) :-
    memberchk(timeout(Seconds0), Options),
    plain(Seconds0, Seconds).

%   After a deployment, a failing health check is a failure of the deployment; another hook is only told.

failure(post_deploy, Action, "|| { complain 'A post_deploy hook failed'; return 0; }") :-
    Action \= probe(_, _, _),
    !.
failure(_, _, "|| return 1").

words(run_once(Declared), Action, Words) :- !, words(Declared, Action, Words).
words(drain_connections, drain(_), 'Draining connections...') :- !.
words(drain_connections, _, 'Asking the service to accept no more connections...').
words(health_check, _, 'Running health check...').
words(save_state, _, 'Saving state...').
words(warm_cache, _, 'Warming cache...').
words(custom(_), _, 'Running custom hook...').
