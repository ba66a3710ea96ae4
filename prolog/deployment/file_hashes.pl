:- module(deployment_file_hashes,
          [ note_file/1,                % +File
            file_hash/2                 % +File, -Hash
          ]).

/** <module> The hashes of the files of declarations, as they were when they were loaded */

:- autoload(library(readutil), [read_file_to_codes/3]).
:- autoload(library(sha), [sha_hash/3, hash_atom/2]).

:- dynamic noted/2.           % File, Hash

%!  note_file(+File) is det.
%
%   File has been loaded.

note_file(File) :-
    (   hashed(File, Hash)
    ->  with_mutex(deployment_file_hashes,
                   ( retractall(noted(File, _)), assertz(noted(File, Hash)) ))
    ;   true
    ).

%!  file_hash(+File, -Hash:atom) is semidet.
%
%   SHA-256, hexadecimal, of File when it was loaded; of a file that Prolog consulted, as it is now.

file_hash(File, Hash) :-
    noted(File, Known),
    !,
    Hash = Known.
file_hash(File, Hash) :-
    hashed(File, Hash).

hashed(File, Hash) :-
    catch(read_file_to_codes(File, Bytes, [type(binary)]), error(_, _), fail),
    sha_hash(Bytes, Digest, [algorithm(sha256), encoding(octet)]),
    hash_atom(Digest, Hash).
