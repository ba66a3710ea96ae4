# Functions of target.sh for a host that goes back by itself where nobody confirms the new release in time.
#
# run/watch.TOKEN is the text of the script that armed the watchdog, which runs it again in a session of its own and waits.
# One rename decides: of who confirms, or of the watchdog, to run/watch.TOKEN.undoing, which becomes run/watch.TOKEN.undone. Who
# takes the lock removes them all.
# shellcheck shell=sh
# shellcheck disable=SC2154  # target.sh assigns some; script is assigned by what evaluates it

arm() { # SECONDS START_SECONDS
    armed=$dir/run/watch.$token
    if ! { (umask 077 && printf '%s\n' "$script" >"$armed.new") && mv -T -- "$armed.new" "$armed"; } 2>/dev/null; then
        rm -f -- "$armed.new"
        because no_space
        return
    fi
    clock
    (
        trap - PIPE
        exec setsid sh "$armed" watch $((now + $1 * 100)) "$2"
    ) </dev/null >/dev/null 2>&1 3>&- &
}

# What the watchdog does: where its file is gone or renamed, somebody else decides.
watch() { # END START_SECONDS
    watching=$dir/run/watch.$token
    while clock && [ "$now" -lt "$1" ]; do
        [ -e "$watching" ] || return 0
        sleep 0.2
    done
    mv -T -- "$watching" "$watching.undoing" 2>/dev/null || return 0
    go_back "$2"
    attempt watch settle
    attempt watch unlock
    mv -T -- "$watching.undoing" "$watching.undone" && : >"$watching.undone"
}

go_back() { # START_SECONDS
    intended && attempt watch was_found || return 0
    attempt watch stop 10 && attempt watch link current "$was" && attempt watch link .backup "$was_backup" || return 0
    [ "$ran" = none ] || attempt watch start "$ran" "$1"
}

was_found() { # fails where everything is as before
    found
    ! as_before
}

# Who has confirmed keeps the watchdog from going back, or is told that it came too late, when the host has gone back.
disarm() { # SECONDS that may take
    armed=$dir/run/watch.$token
    if mv -T -- "$armed" "$armed.confirmed" 2>/dev/null; then
        tool rm -f -- "$armed.confirmed"
        return
    fi
    in_time "$1" || because not_confirmed_in_time || return 1
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ] || because lock_lost
}

# The host has not gone back by itself. One that is about to is waited for.
in_time() { # SECONDS at most
    clock
    end=$((now + $1 * 100))
    while [ -e "$dir/run/watch.$token.undoing" ] && clock && [ "$now" -lt "$end" ]; do sleep 0.1; done
    [ ! -e "$dir/run/watch.$token.undoing" ] && [ ! -e "$dir/run/watch.$token.undone" ]
}

# A watchdog that has begun is not ended by a script of its own operation.
may_end_holder() {
    [ -n "${watching-}" ] || [ ! -e "$dir/run/watch.$token.undoing" ] || because not_confirmed_in_time
}
