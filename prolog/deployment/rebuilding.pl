:- module(deployment_rebuilding,
          [ rebuilding/3                % +Context, +Call, -Result
          ]).

/** <module> The ledger's last observation of a host, made anew from the host */

:- use_module(observation, [observing/3]).
:- use_module(plan, [observed/2]).
:- use_module(releases, [hash_of_id/2]).
:- use_module(run, [run/3]).

%!  rebuilding(+Context, +Call, -Result) is det.
%
%   Result is `recorded(Hash)`, that of the active release or `none`, or error(Reason).

rebuilding(Context, Call, Result) :-
    observing(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(Reason)
    ;   active(Seen, current, Id, Hash),
        active(Seen, backup, _, Backup),
        Pairs = [deployed_hash-Hash, deployed_id-Id, rollback_hash-Backup],
        Context = context(_, Host, _, _, _, _),
        run([step(record, Host, try(record(Pairs)), [])], Context, report(_, [done(_, Outcome, _, _)], _)),
        ( Outcome = failed(Reason) -> Result = error(Reason) ; Result = recorded(Hash) )
    ).

active(Facts, Name, Id, Hash) :-
    Fact =.. [Name, Known],
    (   observed(Fact, Facts)
    ->  Id = Known,
        hash_of_id(Id, Hash)
    ;   Id = none, Hash = none
    ).
