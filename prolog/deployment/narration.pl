:- module(deployment_narration,
          [ step_text/2,                % +Step, -Text
            result_text/2,              % +Result, -Text
            advice/2                    % +Result, -Text
          ]).

/** <module> Plans and results in words, for who watches a deployment

What a step does, what a result means and what to do about it, one line each.
*/

:- autoload(library(lists), [last/2, member/2]).

%!  step_text(+Step, -Text:string) is det.
%
%   Text is what `step(Id, Host, Action, Undo)` does.

step_text(step(_, _, Action, _), Text) :-
    said(action(Action), Text).

said(Body, Text) :-
    phrase(Body, Parts),
    with_output_to(string(Text), format_parts(Parts)).

format_parts([]).
format_parts([Format-Arguments|Parts]) :-
    format(Format, Arguments),
    format_parts(Parts).

action(try(Action)) --> !, action(Action), [ ' (whose failure stops nothing)'-[] ].
action(hook(Event, _, Action)) --> !, [ '~w hook: '-[Event] ], action(Action).
action(stage(Id, Release, _)) --> !, [ 'send release ~w'-[Id] ], base(Release).
action(failed(Reason)) --> !, [ 'not possible: '-[] ], reason(Reason).
action(Action) --> { simple(Action, Format, Arguments) }, !, [ Format-Arguments ].
action(Action) --> [ '~q'-[Action] ].

base(release(_, _, _, _, base(Id, _, copy, _))) --> !, [ ', copying what is unchanged from release ~w'-[Id] ].
base(release(_, _, _, _, base(Id, _, link, _))) --> !, [ ', linking what is unchanged from release ~w'-[Id] ].
base(_) --> [].

simple(observe, 'look at what is there', []).
simple(survey, 'look at what is there', []).
simple(scan(Dir, _, _), 'hash the files of ~w', [Dir]).
simple(secrets(Secrets), 'fetch the secrets ~w', [List]) :-
    findall(Name, member(Name-_, Secrets), Names),
    atomic_list_concat(Names, ', ', List).
simple(verify(Id, _), 'verify release ~w, which is there already', [Id]).
simple(share(_, Paths), 'link ~w into the shared folder', [List]) :- atomic_list_concat(Paths, ', ', List).
simple(prepare(_, Command, _), 'run ~q in the staged release', [Command]).
simple(link(backup, none), 'have no rollback point', []).
simple(link(backup, Id), 'keep release ~w as the rollback point', [Id]).
simple(link(current, none), 'leave no release active', []).
simple(link(current, Id), 'switch to release ~w', [Id]).
simple(drain(Seconds), 'wait until nobody is connected, ~w s at most', [Seconds]).
simple(stop(Seconds), 'stop the process: TERM, and KILL after ~w s', [Seconds]).
simple(start(Id, Seconds), 'start release ~w, which has ~w s to listen', [Id, Seconds]).
simple(probe(_, request(_, Url, _), expect(Status, _)), 'ask ~w, which has to answer ~w', [Url, Status]).
simple(request(Method, Url, _), 'request ~w by ~w', [Url, Name]) :- upcase_atom(Method, Name).
simple(signal(Name), 'send ~w to the process', [Name]).
simple(command(Command, _), 'run ~q', [Command]).
simple(nothing(Option), 'nothing, for no ~w is declared', [Option]).
simple(confirm(Id), 'see that the process of release ~w owns the port', [Id]).
simple(commit(Id), 'enter release ~w in the history', [Id]).
simple(mark_bad(Id), 'mark release ~w as bad', [Id]).
simple(prune(Keep), 'remove all releases but the newest ~w, the active one and the rollback point', [Keep]).
simple(balance(_, Host, look), 'find ~w in the load balancer', [Host]).
simple(balance(_, Server, drain), 'have the load balancer give no more requests to ~w', [Server]).
simple(balance(_, Server, await(Seconds)), 'wait until the load balancer has no session on ~w, ~w s at most', [Server, Seconds]).
simple(balance(_, Server, ready(Seconds)), 'have the load balancer give requests to ~w again, and wait until it does, ~w s at most',
       [Server, Seconds]).
simple(record(_), 'note in the ledger what was seen', []).
simple(discard(Id), 'remove release ~w', [Id]).
simple(lock(_, _, _), 'take the lock', []).
simple(regain(_), 'take the lock again, where a script that was lost has given it back', []).
simple(unlock, 'give the lock back', []).
simple(intend(_, _, _, _, back), 'note that it is undone', []) :- !.
simple(intend(_, _, _, _, _), 'write down what was there, and what is to be', []).
simple(arm(Seconds, _), 'have the host go back by itself, unless it is told otherwise within ~w s', [Seconds]).
simple(reconnect, 'connect anew', []).
simple(disarm(_), 'tell the host to stay with its release', []).
simple(settle, 'clear what was written down, where it is done or undone', []).
simple(take_over(_, _), 'end what a deployment left that ended itself, and take its lock', []).
simple(log_tail, 'read the end of the log', []).

%!  result_text(+Result, -Text:string) is det.
%
%   Text is what Result, of an operation on one host, means.

result_text(Result, Text) :-
    said(result(Result), Text).

result(recorded(none)) --> !, [ 'nothing is active'-[] ].
result(recorded(Hash)) --> !, [ 'release ~w is active'-[Hash] ].
result(rolled_back(Hash)) --> !, [ 'went back to release ~w'-[Hash] ].
result(nothing_to_recover) --> !, [ 'nothing was left half done'-[] ].
result(completed(none)) --> !, [ 'finished; no release is active'-[] ].
result(completed(Hash)) --> !, [ 'finished with release ~w'-[Hash] ].
result(undone(none)) --> !, [ 'undone; nothing was active before, and nothing is now'-[] ].
result(undone(Hash)) --> !, [ 'undone: release ~w is active as before'-[Hash] ].
result(deployed(changed(_, New))) --> !, [ 'deployed release ~w'-[New] ].
result(deployed(no_changes)) --> !, [ 'deployed again, without changes'-[] ].
result(deployed(never_deployed)) --> !, [ 'deployed for the first time'-[] ].
result(deployed_with_warnings(error(Warning))) --> !, [ 'deployed, but '-[] ], reason(Warning).
result(rolled_back_after_failure(rolled_back(Hash))) --> !, [ 'failed, and went back to release ~w'-[Hash] ].
result(rolled_back_after_failure(error(no_rollback_available))) -->
    !,
    [ 'failed; nothing was active before, and nothing is now'-[] ].
result(rolled_back_after_failure(error(rollback_failed(Why)))) --> !, [ 'failed, and NOT restored: '-[] ], reason(Why).
result(rolled_back_with_fleet) --> !, [ 'deployed, and taken back, for other hosts failed'-[] ].
result(skipped(max_failures)) --> !, [ 'not begun, for other hosts failed'-[] ].
result(skipped(max_unavailable)) --> !, [ 'not begun, for too many hosts are without their service'-[] ].
result(skipped(cancelled)) --> !, [ 'not begun, for it was cancelled'-[] ].
result(error(Reason)) --> !, reason(Reason).
result(unreachable(Reason)) --> !, [ 'unreachable: '-[] ], reason(Reason).
result(failed(Reason)) --> !, reason(Reason).
result(unknown(Reason)) --> !, [ 'not known: '-[] ], reason(Reason).
result(Result) --> [ '~q'-[Result] ].

reason(deployment_failed(Reason)) --> !, [ 'not deployed: '-[] ], reason(Reason).
reason(rollback_failed(Reason)) --> !, [ 'not rolled back: '-[] ], reason(Reason).
reason(recovery_failed(Reason)) --> !, [ 'not recovered: '-[] ], reason(Reason).
reason(start_failed(Reason)) --> !, [ 'not started: '-[] ], reason(Reason).
reason(stop_failed(Reason)) --> !, [ 'not stopped: '-[] ], reason(Reason).
reason(drain_failed(Reason)) --> !, [ 'not drained: '-[] ], reason(Reason).
reason(pre_deploy_failed(error(Reason))) --> !, [ 'not deployed: '-[] ], reason(Reason).
reason(pre_shutdown_hook_failed(error(Reason))) --> !, reason(Reason).
reason(hook_failed(Action, Reason)) --> !, [ 'the hook ~q failed: '-[Action] ], reason(Reason).
reason(not_restored(Reason, Why)) --> !, reason(Reason), [ ', and NOT restored: '-[] ], reason(Why).
reason(unhealthy(Why)) --> !, [ 'unhealthy: '-[] ], reason(Why).
reason(security_validation_failed(Errors)) --> !, [ 'refused: '-[] ], reasons(Errors).
reason(command_failed(Code, Lines)) -->
    { last(Lines, Line) },
    !,
    [ 'a command ended with ~w: ~w'-[Code, Line] ].
reason(Reason) --> { plain(Reason, Format, Arguments) }, !, [ Format-Arguments ].
reason(Reason) --> [ '~q'-[Reason] ].

reasons([Reason]) --> !, reason(Reason).
reasons([Reason|Reasons]) --> reason(Reason), [ '; '-[] ], reasons(Reasons).

plain(timeout, 'it took too long', []).
plain(connection_refused, 'the connection was refused', []).
plain(unreachable(Why), 'the host cannot be reached (~w)', [Why]).
plain(authentication_failed, 'the host refused the login', []).
plain(host_key_mismatch, 'the host has another key than known_hosts tells, or one that is not known', []).
plain(no_space, 'the host\'s disk is full', []).
plain(command_failed(Code, _), 'a command ended with ~w', [Code]).
plain(verification_failed(File), '~w did not arrive as it was hashed', [File]).
plain(locked(Owner, Since, Purpose), '~w holds the lock since ~w: ~w', [Owner, Time, Purpose]) :-
    format_time(atom(Time), '%FT%T%:z', Since).
plain(known_bad_release(Hash), 'release ~w failed its health check before', [Hash]).
plain(changed_meanwhile, 'another release became active meanwhile', []).
plain(not_confirmed_in_time, 'it was not confirmed in time, and the host went back by itself', []).
plain(lock_lost, 'somebody else took the lock', []).
plain(not_regained, 'the lock is not this operation\'s any more, and what it has done is left', []).
plain(cancelled, 'it was cancelled', []).
plain(no_rollout_to_resume, 'no rollout was left before it had come to all hosts', []).
plain(release_changed(Old, New), 'the rollout was of release ~w, and this would be ~w', [Old, New]).
plain(no_rollback_available, 'there is no release to go back to', []).
plain(status(Status), 'it answered ~w', [Status]).
plain(redirect(Status, Location), 'it answered ~w, a redirection to ~w', [Status, Location]).
plain(body_without(Text), 'its answer does not contain ~q', [Text]).
plain(too_few_successes, 'too few healthy answers in a row', []).
plain(exited(unknown), 'the process has ended', []).
plain(exited(Code), 'the process ended with ~w', [Code]).
plain(not_listening(Port), 'the process does not listen on port ~w', [Port]).
plain(port_in_use(Port), 'another process listens on port ~w', [Port]).
plain(already_running(Release), 'release ~w runs there', [Release]).
plain(not_deployed, 'nothing is deployed there', []).
plain(balancer(unavailable(Why)), 'the load balancer cannot be asked: ~w', [Why]).
plain(balancer(refused(Why)), 'the load balancer refused: ~w', [Why]).
plain(balancer(no_backend(Name)), 'the load balancer has no backend ~w', [Name]).
plain(balancer(no_server(Host)), 'no server of the load balancer is that of ~w', [Host]).
plain(balancer(several_servers(Host, Names)), 'several servers of the load balancer may be that of ~w: ~w', [Host, List]) :-
    atomic_list_concat(Names, ', ', List).
plain(balancer(not_up(Server, Status)), 'the load balancer says of ~w: ~w', [Server, Status]).
plain(balancer(kept_out(Server)), 'the load balancer gives no requests to ~w, where nothing healthy runs', [Server]).
plain(no_systemd, 'no systemd runs there', []).
plain(remote_requires_encryption(Host), '~w is remote, and the transport is http', [Host]).
plain(remote_missing_transport(Host), '~w is remote, and no transport is declared', [Host]).
plain(no_match(Pattern), 'the source pattern ~q matches nothing', [Pattern]).
plain(no_sources, 'the sources are empty', []).
plain(outside_source_dir(Path), 'the source ~q lies outside the source folder', [Path]).
plain(link_leads_outside(Path), 'the link ~q leads outside the source folder', [Path]).
plain(not_among_sources(Path), '~q is started, and is not among the sources', [Path]).
plain(reserved_path(Path), '~q is a name that this library uses', [Path]).
plain(source_dir_not_found(Dir), 'there is no source folder ~w', [Dir]).
plain(unreadable(Path, Why), '~q cannot be read: ~w', [Path, Why]).
plain(secret_unavailable(Name, Why), 'the secret ~w cannot be had: ~w', [Name, Text]) :- secret_reason(Why, Text).
plain(ledger_failed(File, Why), 'the ledger ~w cannot be written: ~w', [File, Why]).
plain(unsupported_file(Path), '~q is neither file, folder nor link', [Path]).

secret_reason(not_set(Variable), Text) :- !, format(atom(Text), '~w is not set here', [Variable]).
secret_reason(command_failed(Code), Text) :- !, format(atom(Text), 'its command ended with ~w', [Code]).
secret_reason(cancelled, 'it was cancelled') :- !.
secret_reason(timeout, 'its command took too long') :- !.
secret_reason(too_long, 'its value is longer than 64 kB') :- !.
secret_reason(nul_character, 'its value holds a NUL character') :- !.
secret_reason(key_unusable(File, Why), Text) :- !, format(atom(Text), 'the key ~w cannot be used: ~w', [File, Why]).
secret_reason(_, 'its value is not known here').

%!  advice(+Result, -Text:atom) is semidet.
%
%   Text is what to do about Result; the most pressing of its reasons decides.  A first deployment that failed is not its
%   own reason.

advice(rolled_back_after_failure(error(no_rollback_available)), _) :-
    !,
    fail.
advice(Result, 'let the user have sh there: as the login shell, and as a command') :-
    sub_term(command_failed(_, ["the login did not run sh"|_]), Result),
    !.
advice(Result, Text) :-
    counsel(Reason, Text),
    sub_term(Reason, Result),
    !.
advice(Result, Text) :-
    sub_term(command_failed(Code, Lines), Result),
    lacking(Code, Lines, Text),
    !.

sub_term(Sub, Term) :-
    subsumes_term(Sub, Term),
    Sub = Term.
sub_term(Sub, Term) :-
    compound(Term),
    arg(_, Term, Argument),
    sub_term(Sub, Argument).

counsel(not_restored(_, _), Text) :- by_hand(Text).
counsel(rolled_back_after_failure(error(rollback_failed(_))), Text) :- by_hand(Text).
counsel(security_validation_failed(_), 'declare transport(https), or transport(ssh) for a service behind its own host').
counsel(host_key_mismatch, 'compare its key with the host\'s own; add it to known_hosts, or declare host_key(accept_new)').
counsel(authentication_failed, 'check user and key_file, and the authorized_keys of that user on the host').
counsel(no_space, 'make room on the host, or keep fewer releases with keep_releases').
counsel(verification_failed(_), 'let nothing change the files while they are sent, and run it again').
counsel(no_match(_), Text) :- sources(Text).
counsel(no_sources, Text) :- sources(Text).
counsel(outside_source_dir(_), Text) :- sources(Text).
counsel(link_leads_outside(_), Text) :- sources(Text).
counsel(not_among_sources(_), 'name it in declare_service_sources/2, or correct entry_point').
counsel(source_dir_not_found(_), 'correct source_dir; it is relative to the file that declares the service').
counsel(reserved_path(_), 'rename it, or exclude it from the sources with \\+').
counsel(unreadable(_, _), 'make it readable, or exclude it from the sources with \\+').
counsel(unsupported_file(_), 'exclude it from the sources with \\+').
counsel(port_in_use(_), 'stop what listens there, or declare another port').
counsel(no_rollback_available, 'deploy a good release, or name one that is kept with --to').
counsel(release_changed(_, _), 'deploy, which begins a rollout of the new release on all hosts').
counsel(known_bad_release(_), 'change what was wrong; or, if it was not in the release, deploy it with --force').
counsel(locked(_, _, _), 'wait until it is done, with --lock-wait; what was locked by hand, unlock_service gives back').
counsel(not_deployed, 'deploy it first').
counsel(exited(127), 'install on the host what the service is started with, or correct target or start_command').
counsel(exited(_), Text) :- log(Text).
counsel(not_listening(_), Text) :- log(Text).
counsel(unhealthy(_), Text) :- log(Text).
counsel(hook_failed(_, _), 'correct the hook, or what it needs on the host').
counsel(balancer(no_server(_)), Text) :- server_name(Text).
counsel(balancer(several_servers(_, _)), Text) :- server_name(Text).
counsel(balancer(no_backend(_)), 'correct backend in declare_load_balancer/2').
counsel(balancer(refused(_)), 'give the runtime socket the level admin').
counsel(balancer(unavailable(_)), 'see that HAProxy runs, and that socket in declare_load_balancer/2 is its runtime socket').
counsel(balancer(not_up(_, _)), 'look at HAProxy\'s own check of that server').
counsel(unreachable(_), Text) :- reach(Text).
counsel(connection_refused, Text) :- reach(Text).
counsel(timeout, Text) :- reach(Text).

%!  lacking(+Code, +Lines, -Text) is semidet.
%
%   What a command lacked that ended with Code and these last Lines.

lacking(_, Lines, 'let the user write there, or declare another user or remote_dir') :-
    member(Line, Lines),
    member(Words, ["Permission denied", "Read-only file system"]),
    sub_string(Line, _, _, _, Words).
lacking(127, _, 'install on the host what was not found').

by_hand('look at the host now; then deploy or roll back again, which begins with what is found there').
server_name('name its server with balancer_server(Name), of the host').
sources('correct declare_service_sources/2').
log('read the service\'s log on the host: log/service.log in its folder').
reach('see that ssh gets there from here with the same user and ssh_port, and run it again').
