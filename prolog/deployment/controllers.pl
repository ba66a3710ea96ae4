:- module(deployment_controllers,
          [ controller/2,               % +Purpose, -Words
            by_hand/2,                  % +Purpose, -Words
            this_controller/4,          % -Machine, -Pid, -Born, -Owner
            has_ended/3,                % +Machine, +Pid, +Born
            controller_state/4          % +Machine, +Pid, +Born, -State
          ]).

/** <module> Who is at work: the process that holds a lock, as hosts are told of it

Words are `MACHINE PID BORN OWNER SINCE PURPOSE`, each without spaces.  A machine is a kernel since its start and a
numbering of processes, or `-` where nothing tells it; Born is when the process was started there.
*/

:- autoload(library(lists), [append/3, member/2, memberchk/2, nth1/3]).
:- autoload(library(readutil), [read_file_to_string/3]).
:- autoload(library(socket), [gethostname/1]).
:- autoload(library(uid), [getuid/1, user_info/2, user_data/3]).
:- autoload(library(uri), [uri_encoded/3]).
:- use_module(effects, [effect/2]).

%!  controller(+Purpose, -Words:atom) is det.
%
%   This process.

controller(Purpose, Words) :-
    this_process(Machine, Pid, Born),
    words(Machine, Pid, Born, Purpose, Words).

%!  this_controller(-Machine:atom, -Pid:integer, -Born:integer, -Owner:atom) is det.
%
%   Owner is `USER@HOST`.

this_controller(Machine, Pid, Born, Owner) :-
    this_process(Machine, Pid, Born),
    owner(Owner).

this_process(Machine, Pid, Born) :-
    (   own_machine(Machine) -> true ; Machine = - ),
    current_prolog_flag(pid, Pid),
    (   born(Pid, Born) -> true ; Born = 0 ).

%!  by_hand(+Purpose, -Words:atom) is det.
%
%   Its user, whichever process it will be.

by_hand(Purpose, Words) :-
    words(-, 0, 0, Purpose, Words).

words(Machine, Pid, Born, Purpose0, Words) :-
    owner(Owner0),
    uri_encoded(segment, Owner0, Owner),
    uri_encoded(segment, Purpose0, Purpose),
    effect(now, Now),
    Since is truncate(Now),
    atomic_list_concat([Machine, Pid, Born, Owner, Since, Purpose], ' ', Words).

owner(Owner) :-
    (   member(Name, ['LOGNAME', 'USER']),
        catch(getenv(Name, User), error(_, _), fail)
    ->  true
    ;   catch(( getuid(Uid), user_info(Uid, Info), user_data(name, Info, User) ), error(_, _), fail)
    ->  true
    ;   User = unknown
    ),
    gethostname(Host),
    atomic_list_concat([User, @, Host], Owner).

own_machine(Machine) :-
    catch(( read_file_to_string('/proc/sys/kernel/random/boot_id', Text, []),
            read_link('/proc/self/ns/pid', Space, _) ),
          error(_, _), fail),
    normalize_space(atom(Boot), Text),
    atomic_list_concat([Boot, /, Space], Machine).

%!  controller_state(+Machine:atom, +Pid:atom, +Born:atom, -State) is semidet.
%
%   State is `this` process, another that `lives`, or one that has `ended`.  Of another machine nothing is known.

controller_state(Machine, Pid0, Born0, State) :-
    own_machine(Machine),
    atom_number(Pid0, Pid),
    (   born(Pid, Born),
        atom_number(Born0, Born)
    ->  ( current_prolog_flag(pid, Pid) -> State = this ; State = lives )
    ;   State = ended
    ).

%!  has_ended(+Machine:atom, +Pid:integer, +Born:integer) is semidet.
%
%   A process that used a file which is only used on this machine has ended: it is gone, or the machine was started anew
%   since then.

has_ended(Machine, Pid, Born) :-
    own_machine(Own),
    (   Machine == Own
    ->  \+ born(Pid, Born)
    ;   atomic_list_concat([Then, _], /, Machine),
        atomic_list_concat([Now, _], /, Own),
        Then \== Now
    ).

%   born(+Pid, -Ticks) is semidet: when a process that lives was started, as its stat tells behind the name.

born(Pid, Ticks) :-
    atomic_list_concat(['/proc/', Pid, '/stat'], File),
    catch(read_file_to_string(File, Text, []), error(_, _), fail),
    split_string(Text, ")", "", Parts),
    append(_, [Fields], Parts),
    split_string(Fields, " ", " \n", [State|Words]),
    \+ memberchk(State, ["Z", "X"]),
    nth1(19, Words, Word),
    number_string(Ticks, Word).
