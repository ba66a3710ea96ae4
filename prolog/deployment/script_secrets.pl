:- module(deployment_script_secrets,
          [ script_recipe/3,            % +Service, +Host, -Recipe
            secrets//2                  % +Service, +Host
          ]).

/** <module> Scripts for services with secrets

A script holds where a secret comes from and fetches it when it runs.  Where the library puts the digest of a value, the
script has a mark, `unsealed_NUMBER`, until it can make the digest itself (see `secrets.bash`).  A value that was
declared literally can't be in a script.
*/

:- autoload(library(lists), [member/2, nth0/3]).
:- use_module(releases, [release_recipe/4, configuration_text/4]).
:- use_module(script_heads, [array//2]).
:- use_module(scripts, [here_document//3]).
:- use_module(secrets, [secrets_of/3]).

%!  script_recipe(+Service, +Host, -Recipe) is det.
%
%   As release_recipe/4, without the file of the secrets, and with marks for what depends on them.
%
%   @error domain_error(script_secret, Name): the secret Name was declared literally

script_recipe(Service, Host, recipe(Configuration, Suffix, Files)) :-
    marks(Service, Host, Marks),
    release_recipe(Service, Host, Marks, recipe(Configuration, Suffix0, All)),
    findall(file(Path, Mode, Text), ( member(file(Path, Mode, Text), All), Text \= secrets(_) ), Files),
    (   Marks == []
    ->  Suffix = Suffix0
    ;   Suffix = unsealed_suffix
    ).

marks(Service, Host, Marks) :-
    secrets_of(Service, Host, Secrets),
    findall(seal(Name, Source, Mark),
            ( nth0(Number, Secrets, Name-Source),
              fetched(Name, Source),
              format(atom(Mark), 'unsealed_~|~`0t~d~4+', [Number]) ),
            Marks).

fetched(Name, sealed(_)) :-
    !,
    throw(error(domain_error(script_secret, Name), _)).
fetched(_, _).

%!  secrets(+Service, +Host)// is det.
%
%   What the functions of `secrets.bash` need; nothing where there are no secrets.

secrets(Service, Host) -->
    { marks(Service, Host, Marks) },
    secrets(Marks, Service, Host).

secrets([], _, _) --> [].
secrets(Marks, Service, Host) -->
    { Marks = [_|_],
      findall(Word, ( member(seal(Name, Source, _), Marks), Source =.. Words, member(Word, [Name|Words]) ), Secrets),
      release_recipe(Service, Host, Marks, recipe(_, _, Files)),
      findall(Word, ( member(file(_, _, secrets(Pairs)), Files), member(Name-Mark, Pairs),
                      nth0(Number, Marks, seal(_, _, Mark)), member(Word, [Name, Number]) ),
              Exports) },
    array('SECRETS', Secrets),
    array('EXPORTS', Exports),
    configuration(own, Service, Host, Marks),
    configuration(common, Service, none, Marks).

configuration(Whose, Service, Host, Marks) -->
    { configuration_text(Service, Host, Marks, Text),
      format(codes(Head), '~w_configuration() {\n', [Whose]),
      format(codes(Lines), '~s\n', [Text]) },
    codes(Head),
    here_document("    cat", "", Lines),
    "}\n\n".

codes([]) --> [].
codes([Code|Codes]) --> [Code], codes(Codes).
