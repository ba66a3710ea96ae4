# Functions of a script that works on a target, with the functions of target.sh there.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154  # the head of the script assigns some, other functions read some

# Everything of ours that is temporary. Its name is short, for a socket's may have a hundred bytes.
make_workplace() {
    work=$(mktemp -d /tmp/unifyweaver.XXXXXX)
    token=script-$$-$RANDOM
    undo=()
    current='' backup='' running='' kept='' history='' ports=''
    folder='' new='' reused=''
    trap 'finish $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# What has begun and was not completed is undone, however the script ends.
finish() { # EXIT CODE
    local code=$1
    trap - EXIT
    trap '' INT TERM HUP
    if ((${#undo[@]})); then
        code=1
        roll_back || code=3
    fi
    disconnect
    rm -rf -- "$work"
    exit "$code"
}

undo_with() { # FUNCTION ARGUMENT...: before what is to be undone already
    undo=("$*" ${undo[@]+"${undo[@]}"})
}

completed() { undo=(); }

# Undoing goes as far as it can.
roll_back() {
    local action code=0
    announce 'Rolling back'
    for action in "${undo[@]}"; do
        # shellcheck disable=SC2086  # names and releases, without spaces
        $action || { complain "Not undone: $action"; code=1; }
    done
    if ((code)); then complain "$SERVICE on $HOST is not as it was"; fi
    return "$code"
}

# The steps on standard input, done on the target as one script. What it finds is noted.
target() {
    local code=0 step word detail
    { echo '{'; target_functions; target_settings; printf 'token=%s\n' "$token"; cat; echo 'exit 0; }'; } >"$work/steps"
    on_target <"$work/steps" >"$work/report" || code=$?
    while read -r _ word step detail; do
        case $word in
        got) note_found "${detail%% *}" "${detail#* }" ;;
        log | line) complain "  | $detail" ;;
        end) [ "$detail" = ok ] || complain "  $step: $detail" ;;
        esac
    done <"$work/report"
    ((code == 0))
}

# shellcheck disable=SC2034  # some are only for a deployment
note_found() { # NAME VALUE
    case $1 in
    current) current=$2 ;;
    backup) backup=$2 ;;
    running) running=$2 ;;
    release) kept+="$2 " ;;
    history) history+="$2 " ;;
    port) ports+="$2 " ;;
    folder) folder=$2 ;;
    id) new=$2 ;;
    reused) reused=yes ;;
    connections) complain "  $2 connections are open" ;;
    killed) complain '  it had to be killed' ;;
    esac
}

observe() {
    current='' backup='' running='' kept='' history='' ports=''
    target <<<'step observe observe'
}

# What a release on the target listens on.
port_of() { # RELEASE
    local release port
    # shellcheck disable=SC2086  # pairs of words
    set -- "$1" $ports
    while (($# > 2)); do
        release=$2 port=$3
        if [ "$release" = "$1" ]; then printf %s "$port"; return; fi
        set -- "$1" "${@:4}"
    done
    printf %s "$PORT"
}

# Nobody listens yet. Through SSH that is an answer without a byte.
not_yet() {
    case $trouble in
    7) return 0 ;;
    52 | 55 | 56) [ -n "${through[*]-}" ] ;;
    *) return 1 ;;
    esac
}

# Healthy before the shell is END seconds old. Three wrong answers in a row are enough to be unhealthy.
healthy_before() { # URL END
    local pauses=(0.05 0.1 0.2 0.4 0.8) pause=1 asked=0 wrong=0
    while :; do
        request GET "$1" 5
        if [ "$trouble $status" = '0 200' ]; then return 0; fi
        if not_yet; then wrong=0; else wrong=$((wrong + 1)); fi
        if ((wrong == 3 || SECONDS >= $2)); then
            complain "Unhealthy: $(what_was_wrong)"
            return 1
        fi
        sleep "${pauses[asked]:-$pause}"
        asked=$((asked + 1))
    done
}

# The health check of a release, before the shell is so many seconds old. Only the release's own process counts.
check_health() { # RELEASE END
    announce 'Running health check...'
    reach "$(port_of "$1")" || return 1
    healthy_before "$(service_url "$(port_of "$1")" "$ENDPOINT")" "$2" || return 1
    target <<<"step confirm confirm $1"
}

start_release() { # RELEASE
    local end=$((SECONDS + HEALTHY_DEADLINE))
    announce "Starting release $1"
    target <<<"step start start $1 $HEALTHY_DEADLINE" || return 1
    check_health "$1" "$end"
}

start_again() { # RELEASE
    start_release "$1" || return 1
    hooks_post_rollback || complain 'A post_rollback hook failed'
}

link_to() { # LINK RELEASE|none
    target <<<"step link link $1 $2"
}

stop_failed_start() { # RELEASE to go back to, if any
    target <<<'attempt log_tail log_tail' || complain 'Its log could not be read'
    hooks_on_health_failure || complain 'An on_health_failure hook failed'
    if [ -n "${1-}" ]; then hooks_pre_rollback || complain 'A pre_rollback hook failed'; fi
    target <<<'step stop stop 10'
}

stop_running() {
    [ -n "$running" ] || return 0
    hooks_pre_shutdown || { complain 'A pre_shutdown hook failed'; return 1; }
    announce 'Draining connections...'
    tell_to_drain || complain 'It could not be told to drain'
    undo_with start_again "$running"
    target <<<"attempt drain drain $DRAIN_TIMEOUT
step stop stop $FORCE_AFTER" || return 1
    hooks_post_shutdown || complain 'A post_shutdown hook failed'
}

commit() { # RELEASE: from now on it counts among those that were active
    local release later='' last='' found=''
    for release in $history; do
        last=$release
        [ -z "$found" ] || later+=" $release"
        if [ "$release" = "$1" ]; then found=yes; fi
    done
    [ -n "$found" ] || later=$last
    undo_with commit_again "$later"
    target <<<"step commit commit $1"
}

commit_again() { # RELEASE...
    local release
    for release; do target <<<"step commit commit $release" || return 1; done
}
