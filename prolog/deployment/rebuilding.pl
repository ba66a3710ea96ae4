:- module(deployment_rebuilding,
          [ rebuilding/3                % +Context, +Call, -Result
          ]).

/** <module> The ledger's last observation of a host, made anew from the host */

:- use_module(observation, [observing/3, record_seen/4]).
:- use_module(plan, [observed/2]).
:- use_module(releases, [hash_of_id/2]).

%!  rebuilding(+Context, +Call, -Result) is det.
%
%   Result is `recorded(Hash)`, that of the active release or `none`, or error(Reason).

rebuilding(Context, Call, Result) :-
    observing(Context, Call, Seen),
    (   Seen = failed(Reason)
    ->  Result = error(Reason)
    ;   record_seen(Seen, Context, may, Outcome),
        ( observed(current(Id), Seen) -> hash_of_id(Id, Hash) ; Hash = none ),
        ( Outcome = failed(Reason) -> Result = error(Reason) ; Result = recorded(Hash) )
    ).
