# Functions of target.sh for what an operation is about to do, and for the way back.
#
# run/intent, of fixed length, is replaced in place: TOKEN WAS BACKUP RAN GOAL WANTED. It is written before an operation's
# first change of what runs: WAS was active, BACKUP the rollback point, and RAN ran; GOAL is to be active, and to be
# `running` or `stopped`, or `back` once undoing has begun. Releases, or none. It is cleared at the operation's end, and when
# it is wholly undone.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # target.sh assigns some, and reads some

intended() { # sets intent_of, was, was_backup, ran, goal, wanted; fails where nothing is under way
    wanted=''
    { read -r intent_of was was_backup ran goal wanted <"$dir/run/intent"; } 2>/dev/null
    case $wanted in running | stopped | back) ;; *) return 1 ;; esac
}

# On a full disk something can still be stopped.
intend() { # WAS BACKUP RAN GOAL running|stopped|back
    note_intent "$token" "$@" || [ "$5" = stopped ] || because no_space
}

note_intent() { # the record, or nothing
    { printf '%-511s\n' "$*" 1<>"$dir/run/intent"; } 2>/dev/null
}

# Clears the intent where what is on the host is what was to be, or what was before.
settle() {
    intended || return 0
    found
    if as_before || as_intended; then note_intent; fi
}

found() { # sets current, backup (releases, or none) and runs (a release, none, or - where its leader has ended)
    release_at current && current=${named:-none}
    release_at .backup && backup=${named:-none}
    runs=none
    if process; then runs=$active; elif left_behind; then runs=-; fi
}

as_before() {
    [ -d "$dir/releases/$was_backup" ] || was_backup=none # it was pruned
    [ "$current $backup $runs" = "$was $was_backup $ran" ]
}

# A release that was confirmed is the last of the history.
as_intended() {
    if [ "$wanted" = back ]; then
        as_before
    elif [ "$wanted" = stopped ]; then
        [ "$runs" = none ]
    elif [ "$goal" = "$was" ]; then
        [ "$runs" = "$goal" ]
    else
        last_of history
        [ "$current" = "$goal" ] && [ "$last" = "$goal" ]
    fi
}

intent_told() {
    ! intended || got intent "$intent_of" "$was" "$was_backup" "$ran" "$goal" "$wanted"
}
