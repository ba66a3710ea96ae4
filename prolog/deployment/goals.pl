:- module(deployment_goals,
          [ pure_goal/1,                % ?PredicateIndicator
            query/1,                    % ?PredicateIndicator
            subgoals/2                  % +Goal, -Goals
          ]).

/** <module> The goals that a rule in a file may call
*/

:- multifile
    pure_goal/1.

%!  subgoals(+Goal, -Goals:list) is semidet.
%
%   Goal is a control structure, or calls goals that are its arguments: Goals.

subgoals((A, B), [A, B]).
subgoals((A ; B), [A, B]).
subgoals((A -> B), [A, B]).
subgoals((A *-> B), [A, B]).
subgoals(\+ A, [A]).
subgoals(once(A), [A]).
subgoals(ignore(A), [A]).
subgoals(forall(A, B), [A, B]).
subgoals(findall(_, A, _), [A]).
subgoals(findall(_, A, _, _), [A]).
subgoals(findnsols(_, _, A, _), [A]).
subgoals(aggregate_all(Specification, A, _), [A]) :-
    nonvar(Specification).
subgoals(bagof(_, A0, _), [A]) :-
    without_carets(A0, A).
subgoals(setof(_, A0, _), [A]) :-
    without_carets(A0, A).

%!  without_carets(+Goal0, -Goal) is det.
%
%   Goal is Goal0 without the `Variable^` before it.

without_carets(Goal, Goal) :-
    var(Goal),
    !.
without_carets(_ ^ Goal0, Goal) :-
    !,
    without_carets(Goal0, Goal).
without_carets(Goal, Goal).

%!  query(?PredicateIndicator) is nondet.
%
%   The queries of library(deployment_glue) that look at nothing but what is declared and recorded.

query(service_config/2).
query(deploy_method_config/3).
query(service_sources/2).
query(service_hosts/2).
query(service_host/3).
query(lifecycle_hooks/2).
query(rollout_config/2).
query(deployed_hash/2).
query(deployed_hash/3).
query(rollback_hash/2).
query(rollback_hash/3).
query(validate_security/2).
query(requires_encryption/1).
query(is_local_service/1).

%!  pure_goal(?PredicateIndicator) is nondet.
%
%   Multifile. A predicate of Prolog or one of its libraries that a rule may use: it has no effect but to bind its arguments, and calls no goal
%   that is an argument.

pure_goal(true/0).
pure_goal(fail/0).
pure_goal(false/0).
pure_goal(!/0).
pure_goal((=)/2).
pure_goal((\=)/2).
pure_goal((==)/2).
pure_goal((\==)/2).
pure_goal((=@=)/2).
pure_goal((\=@=)/2).
pure_goal((@<)/2).
pure_goal((@>)/2).
pure_goal((@=<)/2).
pure_goal((@>=)/2).
pure_goal(compare/3).
pure_goal((is)/2).
pure_goal((=:=)/2).
pure_goal((=\=)/2).
pure_goal((<)/2).
pure_goal((>)/2).
pure_goal((=<)/2).
pure_goal((>=)/2).
pure_goal(succ/2).
pure_goal(plus/3).
pure_goal(between/3).
pure_goal(var/1).
pure_goal(nonvar/1).
pure_goal(ground/1).
pure_goal(atom/1).
pure_goal(atomic/1).
pure_goal(string/1).
pure_goal(number/1).
pure_goal(integer/1).
pure_goal(float/1).
pure_goal(rational/1).
pure_goal(compound/1).
pure_goal(callable/1).
pure_goal(is_list/1).
pure_goal(functor/3).
pure_goal(arg/3).
pure_goal((=..)/2).
pure_goal(copy_term/2).
pure_goal(length/2).
pure_goal(msort/2).
pure_goal(sort/2).
pure_goal(sort/4).
pure_goal(keysort/2).
pure_goal(atom_length/2).
pure_goal(atom_concat/3).
pure_goal(atom_codes/2).
pure_goal(atom_chars/2).
pure_goal(atom_number/2).
pure_goal(atom_string/2).
pure_goal(atomic_list_concat/2).
pure_goal(atomic_list_concat/3).
pure_goal(char_code/2).
pure_goal(char_type/2).
pure_goal(code_type/2).
pure_goal(downcase_atom/2).
pure_goal(upcase_atom/2).
pure_goal(number_codes/2).
pure_goal(number_string/2).
pure_goal(split_string/4).
pure_goal(string_chars/2).
pure_goal(string_codes/2).
pure_goal(string_concat/3).
pure_goal(string_length/2).
pure_goal(string_lower/2).
pure_goal(string_upper/2).
pure_goal(sub_atom/5).
pure_goal(sub_atom_icasechk/3).
pure_goal(sub_string/5).
pure_goal(append/2).
pure_goal(append/3).
pure_goal(delete/3).
pure_goal(flatten/2).
pure_goal(intersection/3).
pure_goal(last/2).
pure_goal(list_to_set/2).
pure_goal(max_list/2).
pure_goal(max_member/2).
pure_goal(member/2).
pure_goal(memberchk/2).
pure_goal(min_list/2).
pure_goal(min_member/2).
pure_goal(nth0/3).
pure_goal(nth1/3).
pure_goal(numlist/3).
pure_goal(permutation/2).
pure_goal(reverse/2).
pure_goal(select/3).
pure_goal(selectchk/3).
pure_goal(subtract/3).
pure_goal(sum_list/2).
pure_goal(sumlist/2).
pure_goal(union/3).
pure_goal(pairs_keys/2).
pure_goal(pairs_keys_values/3).
pure_goal(pairs_values/2).
