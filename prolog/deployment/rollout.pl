:- module(deployment_rollout,
          [ declare_rollout/2,          % +Service, +Options
            rollout_config/2,           % ?Service, ?Options
            rollout_settings/2,         % +Service, -Settings
            rollout_batches/4,          % +Service, +Hosts, -Batches, -Shared
            host_deadline/4,            % +Service, +Host, +Settings, -Option
            amount_of/3                 % +Amount, +Of, -Number
          ]).

/** <module> Rollouts: in which batches a fleet is deployed, and what its failures mean

Settings is `settings(Options)`: what was declared, and the defaults for the rest.
*/

:- autoload(library(apply), [maplist/3]).
:- autoload(library(lists), [append/3, member/2, nth1/3, sum_list/2]).
:- autoload(library(pairs), [pairs_values/2]).
:- autoload(library(random), [random_permutation/2]).
:- use_module(declarations, [declared/5]).
:- use_module(facts, [rollout_now/4, declare/3]).
:- use_module(nearest, [nearest/3]).
:- use_module(options, [check_options/3, option_row/5, lookup/3, default_option/3]).
:- use_module(spread, [spread_out/3]).
:- use_module(types, [service_name/2]).

:- multifile deployment_declarations:declaration/1.

deployment_declarations:declaration(declare_rollout/2).

%!  declare_rollout(+Service, +Options:list) is det.
%
%   Service is deployed to its hosts as the scope `rollout` of option_row/5 says, by deploy_to_all_hosts/2.  Replaces.
%
%   @error domain_error(service_name, Service), domain_error(host_option, Name),
%          domain_error(more_than_min_healthy_time, confirm_within(Seconds)), and those of check_options/3

declare_rollout(Service0, Options0) :-
    service_name(Service0, Service),
    check_options(rollout, Options0, Options),
    (   lookup(spread, [Options], Name)
    ->  check_host_option(Name)
    ;   true
    ),
    check_confirmation(Options),
    declare(rollout, Service, Options).

%   A release is confirmed when it has been healthy for so long.

check_confirmation(Options) :-
    (   lookup(confirm_within, [Options], Within),
        lookup(min_healthy_time, [Options], Lasting),
        Within =< Lasting
    ->  throw(error(domain_error(more_than_min_healthy_time, confirm_within(Within)), _))
    ;   true
    ).

check_host_option(Name) :-
    (   option_row(host, Name, _, _, _)
    ->  true
    ;   findall(Known, option_row(host, Known, _, _, _), Names),
        ( nearest(Name, Names, Nearest) -> Hint = nearest(Nearest) ; true ),
        throw(error(domain_error(host_option, Name), context(_, Hint)))
    ).

%!  rollout_config(?Service, ?Options:list) is nondet.

rollout_config(Service, Options) :-
    rollout_now(Service, Options, _, _).

%!  rollout_settings(+Service, -Settings) is semidet.
%
%   Fails when no rollout of Service is declared.

rollout_settings(Service, settings(Options)) :-
    rollout_now(Service, Declared, _, _),
    findall(Option,
            ( option_row(rollout, Name, _, Default, _),
              ( lookup(Name, [Declared], Value) -> true ; Default = default(Value) ),
              Option =.. [Name, Value] ),
            Options).

%!  amount_of(+Amount, +Of:integer, -Number:integer) is det.
%
%   Amount hosts, or percent of Of hosts, rounded down; at least one.

amount_of(Amount, Of, Number) :-
    (   integer(Amount)
    ->  Number = Amount
    ;   atom_concat(Digits, '%', Amount),
        atom_number(Digits, Percent),
        Number is max(1, Of * Percent // 100)
    ).

%!  host_deadline(+Service, +Host, +Settings, -Option) is det.
%
%   The option `healthy_deadline` that holds on Host: the rollout's own, where it was declared, else that of host, method or
%   service, else the default of rollouts.

host_deadline(Service, Host, settings(Options), healthy_deadline(Seconds)) :-
    (   rollout_now(Service, Declared, _, _),
        lookup(healthy_deadline, [Declared], Seconds)
    ->  true
    ;   declared(Service, Host, [], healthy_deadline, Seconds)
    ->  true
    ;   lookup(healthy_deadline, [Options], Seconds)
    ->  true
    ;   default_option(rollout, healthy_deadline, Seconds)
    ).

%!  rollout_batches(+Service, +Hosts:list, -Batches:list(list), -Shared:list) is det.
%
%   Hosts, in the declared order, as the batches of Service's rollout.  Shared has `shared(N, Value, Hosts)` for each of batch N's values of
%   the option `spread` that several of its Hosts have.
%
%   @error existence_error(procedure, rollout_order/3): the order is that of a rule that does not exist

rollout_batches(Service, Hosts0, Batches, Shared) :-
    rollout_settings(Service, settings(Options)),
    lookup(order, [Options], Order),
    ordered(Order, Service, Hosts0, Hosts),
    lookup(batches, [Options], Amounts),
    length(Hosts, Count),
    sizes(Amounts, Count, Count, Sizes),
    places(Service, Options, Hosts, Placed),
    spread_out(Placed, Sizes, PlacedBatches),
    maplist(pairs_values, PlacedBatches, Batches),
    findall(shared(N, Value, Several),
            ( nth1(N, PlacedBatches, Batch), shared(Batch, Value, Several) ),
            Shared).

ordered(declared, _, Hosts, Hosts).
ordered(random, _, Hosts0, Hosts) :- random_permutation(Hosts0, Hosts).
ordered(rule, Service, Hosts0, Hosts) :-
    (   current_predicate(deployment_user:rollout_order/3)
    ->  true
    ;   throw(error(existence_error(procedure, rollout_order/3), context(_, Service)))
    ),
    maplist(ranked(rollout_order, Service), Hosts0, Ranked),
    sort(1, @=<, Ranked, Sorted),
    pairs_values(Sorted, Hosts).

%   A host without a key comes after those that have one.

ranked(Rule, Service, Host, Rank-Host) :-
    Goal =.. [Rule, Service, Host, Key],
    (   call_with_inference_limit(once(deployment_user:Goal), 1_000_000, Outcome)
    ->  (   Outcome == inference_limit_exceeded
        ->  throw(error(resource_error(inferences), context(Rule/3, Host)))
        ;   Rank = key(Key)
        )
    ;   Rank = keyless(none)
    ).

%!  sizes(+Amounts:list, +Of:integer, +Left:integer, -Sizes:list) is det.
%
%   The sizes of the batches of Of hosts: as long as hosts are Left, the last of Amounts is taken again.

sizes(_, _, 0, []) :- !.
sizes([Amount|Amounts0], Of, Left0, [Size|Sizes]) :-
    amount_of(Amount, Of, Size0),
    Size is min(Size0, Left0),
    Left is Left0 - Size,
    ( Amounts0 == [] -> Amounts = [Amount] ; Amounts = Amounts0 ),
    sizes(Amounts, Of, Left, Sizes).

%   A host without the option shares it with nobody.

places(Service, Options, Hosts, Placed) :-
    (   lookup(spread, [Options], Name)
    ->  findall(Place-Host, ( member(Host, Hosts), place(Service, Host, Name, Place) ), Placed)
    ;   findall(nowhere(Host)-Host, member(Host, Hosts), Placed)
    ).

place(Service, Host, Name, Place) :-
    (   declared(Service, Host, [], Name, Value)
    ->  Place = at(Value)
    ;   Place = nowhere(Host)
    ).

shared(Batch, Value, Hosts) :-
    findall(At, member(at(At)-_, Batch), Values0),
    sort(Values0, Values),
    member(Value, Values),
    findall(Host, member(at(Value)-Host, Batch), Hosts),
    Hosts = [_,_|_].
