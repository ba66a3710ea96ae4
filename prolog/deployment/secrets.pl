:- module(deployment_secrets,
          [ secrets_of/3,               % +Service, +Host, -Secrets
            seals/3,                    % +Service, +Host, -Seals
            sealed_environment/3,       % +Pairs0, +Seals, -Pairs
            secrets_file/2              % +Pairs, -Files
          ]).

/** <module> Values of the environment that nobody is shown

A secret is declared as `NAME-secret(Value)`, `NAME-secret(env(Variable))` or `NAME-secret(command(Command))`.  No rule
ever sees a value: a literal one is handed to the effects as it is declared, before anything else looks at the options, and
`secret(sealed(Token))` stands for it, Token being random.  So no error, fact, plan or event can show it.

What a release's hash covers is a digest of each value, keyed with a key that the user keeps (mode 0600, see
`unifyweaver_py/effects/secret_sources.py`).  A value that changes makes another release, which can be rolled back; and as
nobody can compute the digest who has not the key, it does not tell a value that could be guessed.  A plain digest
would.  Users with different keys find each other's releases changed and deploy once more than needed, never less;
who deploys the same services shares the key.

The values travel in the release, in the file `.unifyweaver/secrets` of mode 0600, that `.unifyweaver/start` reads.
*/

:- autoload(library(apply), [maplist/3]).
:- autoload(library(lists), [member/2, memberchk/2]).
:- use_module(effects, [effect/2]).
:- use_module(targets, [resolve/5]).

%!  secrets_of(+Service, +Host, -Secrets:list) is det.
%
%   Secrets are the `Name-Source` of the service and of the host, each once; none for most.

secrets_of(Service, Host, Secrets) :-
    findall(Name-Source,
            ( member(Where, [none, Host]),
              resolve(Service, Where, [], env, Pairs),
              member(Name-secret(Source), Pairs) ),
            All),
    sort(All, Secrets).

%!  seals(+Service, +Host, -Seals:list) is det.
%
%   Seals are the `seal(Name, Source, Digest)` of the secrets, whose values are fetched for that.
%
%   @error domain_error(service_secrets, Reason)

seals(Service, Host, Seals) :-
    secrets_of(Service, Host, Secrets),
    (   Secrets == []
    ->  Seals = []
    ;   effect(secrets(Secrets), Outcome),
        seals_of(Outcome, Service, Seals)
    ).

seals_of(sealed(Seals), _, Seals).
seals_of(failed(Reason), Service, _) :-
    throw(error(domain_error(service_secrets, Reason), context(_, Service))).

%!  sealed_environment(+Pairs0:list, +Seals:list, -Pairs:list) is det.
%
%   Pairs are Pairs0 with `secret(Digest)` for each secret.

sealed_environment(Pairs0, Seals, Pairs) :-
    maplist(sealed_pair(Seals), Pairs0, Pairs).

sealed_pair(Seals, Name-secret(Source), Pair) :-
    !,
    memberchk(seal(Name, Source, Digest), Seals),
    Pair = Name-secret(Digest).
sealed_pair(_, Pair, Pair).

%!  secrets_file(+Environment:list, -Files:list) is det.
%
%   The file of a release with the values of a sealed Environment: its text is `secrets(Pairs)`, `Name-Digest` each, in
%   whose place the effect that sends it puts the values.  No file where there is no secret.

secrets_file(Environment, Files) :-
    findall(Name-Digest, member(Name-secret(Digest), Environment), Pairs),
    (   Pairs == []
    ->  Files = []
    ;   Files = [file('.unifyweaver/secrets', 0o600, secrets(Pairs))]
    ).
