:- module(deployment_security,
          [ validate_security/2,        % +Service, -Errors
            requires_encryption/1,      % +Service
            is_local_service/1,         % +Service
            is_local_host/1             % +Host
          ]).
:- use_module(library(lists), [member/2]).
:- use_module(declarations,
              [ deploy_method_config/3,
                require_service/1,
                resolve/5,
                service_config/2,
                service_hosts/2
              ]).
:- use_module(options, [lookup/3]).

/** <module> Which transports a service may use

A host is local when it is `localhost`, an address in 127.0.0.0/8, or `::1`. Every other host is remote, and what runs there must be reached
over https or ssh. Judged is every host that is named for a service: by the service, by its deploy method, and by each host_config/2.
*/

%!  validate_security(+Service, -Errors:list) is det.
%
%   Errors are `remote_requires_encryption(Host)` for every remote host with the transport http, and `remote_missing_transport(Host)` for every
%   one without a transport, in order and each once.
%
%   @error existence_error(service, Service)

validate_security(Service, Errors) :-
    require_service(Service),
    named_hosts(Service, Hosts),
    findall(Error, ( member(Host, Hosts), insecure(Service, Host, Error) ), Errors).

%!  insecure(+Service, +Host, -Error) is semidet.

insecure(Service, Host, Error) :-
    \+ is_local_host(Host),
    (   resolve(Service, Host, [], transport, Transport)
    ->  Transport == http,
        Error = remote_requires_encryption(Host)
    ;   Error = remote_missing_transport(Host)
    ).

%!  requires_encryption(+Service) is semidet.
%
%   Service has a remote host.
%
%   @error existence_error(service, Service)

requires_encryption(Service) :-
    \+ is_local_service(Service).

%!  is_local_service(+Service) is semidet.
%
%   Every host of Service is local; also when it has none.
%
%   @error existence_error(service, Service)

is_local_service(Service) :-
    require_service(Service),
    named_hosts(Service, Hosts),
    \+ ( member(Host, Hosts), \+ is_local_host(Host) ).

%!  named_hosts(+Service, -Hosts:list(atom)) is det.
%
%   Hosts are the host of the service, that of its deploy method, and its declared hosts, each once.

named_hosts(Service, Hosts) :-
    findall(Host, named_host(Service, Host), Named),
    distinct_names(Named, Hosts).

%!  named_host(+Service, -Host) is nondet.

named_host(Service, Host) :-
    service_config(Service, Options),
    lookup(host, [Options], Host).
named_host(Service, Host) :-
    deploy_method_config(Service, _, Options),
    lookup(host, [Options], Host).
named_host(Service, Host) :-
    service_hosts(Service, Hosts),
    member(host_config(Host, _), Hosts).

%!  distinct_names(+Names0, -Names) is det.
%
%   Names are Names0 without the later ones of equal names. Only the first two may be equal to others: those of a list of hosts differ.

distinct_names([First|Names0], [First|Names]) :-
    !,
    exclude_name(Names0, First, Names1),
    (   Names1 = [Second|Names2]
    ->  exclude_name(Names2, Second, Names3),
        Names = [Second|Names3]
    ;   Names = []
    ).
distinct_names([], []).

%!  exclude_name(+Names0, +Name, -Names) is det.

exclude_name([], _, []).
exclude_name([Name|Names0], Other, Names) :-
    (   Name == Other
    ->  Names = Names1
    ;   Names = [Name|Names1]
    ),
    exclude_name(Names0, Other, Names1).

%!  is_local_host(+Host) is semidet.
%
%   Host (an atom or a string) is this machine by name or address.

is_local_host(Host) :-
    string_lower(Host, Lower),
    local_name(Lower),
    !.

%!  local_name(+Host:string) is semidet.

local_name("localhost").
local_name("::1").
local_name(Host) :-
    split_string(Host, ".", "", ["127"|Parts]),
    length(Parts, 3),
    \+ ( member(Part, Parts), \+ octet(Part) ).

%!  octet(+Text:string) is semidet.
%
%   Text is a decimal number from 0 to 255.

octet(Text) :-
    string_length(Text, Length),
    Length >= 1,
    Length =< 3,
    string_codes(Text, Codes),
    \+ ( member(Code, Codes), \+ ( Code >= 0'0, Code =< 0'9 ) ),
    number_codes(Number, Codes),
    Number =< 255.
