# Functions that run on a target. A script is: this text, the assignments `service=… dir=… token=…`,
# and one `step` or `attempt` line a step. POSIX sh, coreutils, tar, awk and setsid; Linux's /proc.
#
# Reports go to standard output, one line each: UPTIME WORD STEP DETAIL…
#   begin, end ok|failed REASON…   of a step          got KEY VALUE…    what a step found
#   log TEXT     a line of the service's log           line TEXT         a line of a hook's output
# shellcheck shell=sh
# shellcheck disable=SC2154  # service, dir and token are assigned by the script

trap '' PIPE # a lost connection must not end the script between two steps
job='' # a command that runs under `timeout`, which has a process group of its own and passes TERM on
trap '[ -z "$job" ] || kill -s TERM "$job"; exit 143' TERM
claimed='' failed_events=''
umask 022
exec 3>&1 1>&2

say() {
    read -r uptime _ </proc/uptime
    printf '%s %s\n' "$uptime" "$*" >&3
}

got() { say got "$step" "$@"; }

# centiseconds since boot, without a fork
clock() {
    read -r uptime _ </proc/uptime
    now=${uptime%.*}${uptime#*.}
    now=${now#"${now%%[!0]*}"}
    now=${now:-0}
}

# Perform a step; the script ends at the first that fails.
step() {
    attempt "$@" || exit 1
}

# Perform a step whose failure does not end the script.
attempt() {
    step=$1
    shift
    say begin "$step"
    reason=
    claim "$1" && "$@"
    code=$?
    if [ "$code" -eq 0 ]; then
        say end "$step" ok
    else
        say end "$step" failed "${reason:-command_failed $code}"
    fi
    return "$code"
}

# because REASON…: fail with a reason
because() {
    reason=$*
    return 1
}

lines() { # KIND: report standard input, a line each
    while IFS= read -r text || [ -n "$text" ]; do
        say "$1" "$step" "$text"
    done
}

# The end of a file: 20 lines, and 64 kB at most.
end_of() {
    tail -c 65536 "$1" | tail -n 20
}

log_tail() {
    if [ -f "$dir/log/service.log" ]; then
        end_of "$dir/log/service.log" | lines log
    fi
}

# Run a tool of ours; a full disk is told from other failures.
tool() {
    complaint=$(LC_ALL=C "$@" 2>&1 >/dev/null </dev/null) && return 0
    code=$?
    blame "$complaint"
}

blame() { # TEXT of a failed tool; its exit code in $code
    printf '%s\n' "$1" | tail -n 20 | lines line
    case $1 in
    *'No space left on device'* | *'Disk quota exceeded'*) reason=no_space ;;
    *) reason="command_failed $code" ;;
    esac
    return 1
}

# ---- processes -------------------------------------------------------------------------------------

# lives PID BORN: a process with that pid and start time (in clock ticks since boot) runs and is no zombie
lives() {
    stat=
    { while IFS= read -r part || [ -n "$part" ]; do stat="$stat $part"; done <"/proc/$1/stat"; } 2>/dev/null
    [ -n "$stat" ] || return 1
    # shellcheck disable=SC2086  # the fields after the command name are words
    set -- "$2" ${stat##*) }
    [ "$2" != Z ] && [ "$2" != X ] && [ "${21}" = "$1" ]
}

# The process this library started, if it runs: sets pid, born, boot, active (its release), port.
process() {
    pid=
    [ -r "$dir/run/process" ] || return 1
    read -r pid born boot active port <"$dir/run/process" || return 1
    read -r this_boot </proc/sys/kernel/random/boot_id
    [ "$boot" = "$this_boot" ] && lives "$pid" "$born"
}

# Pids of the live members of process group $1. In `status`, unlike `stat`, a process can't forge lines by its name.
members() {
    cat /proc/[0-9]*/status 2>/dev/null |
        awk -v group="$1" '
            $1 == "State:" { state = $2 }
            $1 == "Pid:" { id = $2 }
            $1 == "NSpgid:" && $2 == group && state != "Z" && state != "X" { print id }'
}

# Inodes of the sockets that listen on port $1.
listeners() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }'
}

# owns GROUP PORT: the group listens on the port, and nobody else does.
# Returns 1 when nobody listens yet, 2 when somebody else does.
owns() {
    sockets=$(listeners "$2")
    [ -n "$sockets" ] || return 1
    held=$(for member in $(members "$1"); do ls -l "/proc/$member/fd" 2>/dev/null; done)
    for socket in $sockets; do
        case $held in
        *"socket:[$socket]"*) ;;
        *) return 2 ;;
        esac
    done
}

# Established connections to port $1.
connections() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '$4 == "01" && substr($2, length($2) - 4) == port { n++ } END { print n + 0 }'
}

# ---- the service's directory -----------------------------------------------------------------------

release_of() { # LINK: the release it names, or nothing
    [ -d "$dir/$1/.unifyweaver" ] || return 0
    target=$(readlink "$dir/$1")
    printf '%s' "${target##*/}"
}

link() { # LINK RELEASE|none: replaced by rename, so that it names one whole release at any instant
    if [ "$2" = none ]; then
        tool rm -f -- "$dir/$1"
        return
    fi
    [ -d "$dir/releases/$2/.unifyweaver" ] || because not_deployed || return 1
    tool rm -f -- "$dir/$1.new.$$" &&
        tool ln -s "releases/$2" "$dir/$1.new.$$" &&
        tool mv -T -- "$dir/$1.new.$$" "$dir/$1"
}

# ---- steps -----------------------------------------------------------------------------------------

observe() {
    for name in current backup; do
        case $name in current) release=$(release_of current) ;; *) release=$(release_of .backup) ;; esac
        [ -z "$release" ] || got "$name" "$release"
    done
    for release in "$dir"/releases/*/.unifyweaver; do
        [ -d "$release" ] || continue
        release=${release%/.unifyweaver}
        got release "${release##*/}"
        [ ! -r "$release/.unifyweaver/port" ] || { read -r port <"$release/.unifyweaver/port" && got port "${release##*/}" "$port"; }
    done
    [ ! -r "$dir/run/history" ] || while read -r release; do got history "$release"; done <"$dir/run/history"
    if process; then got running "$active"; fi
    return 0
}

# Before its first change, a script ends what a lost connection may have left running of the same operation.
claim() { # FUNCTION about to run
    case $1 in observe | log_tail) return 0 ;; esac
    [ -z "$claimed" ] || return 0
    claimed=yes
    tool mkdir -p -m 700 -- "$dir/run" || return 1
    if [ -r "$dir/run/script" ]; then
        read -r script_pid script_born script_token <"$dir/run/script"
        if [ "$script_token" = "$token" ] && [ "$script_pid" != $$ ]; then end_script; fi
    fi
    read -r stat <"/proc/$$/stat"
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    { printf '%s %s %s\n' $$ "${20}" "$token" >"$dir/run/script"; } 2>/dev/null
    return 0 # a full disk must not stop what makes room
}

end_script() {
    lives "$script_pid" "$script_born" || return 0
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    target=$script_pid
    [ "$3" != "$script_pid" ] || target=-$script_pid
    kill -s TERM -- "$target"
    clock
    end=$((now + 200))
    while lives "$script_pid" "$script_born"; do
        clock
        [ "$now" -lt "$end" ] || kill -s KILL -- "$target"
        sleep 0.05
    done
}

# The release arrives as a tar stream on standard input; it gets its name only when it is verified.
stage() { # RELEASE
    partial=$dir/releases/.partial-$1-$$
    tool mkdir -p -- "$dir/releases" "$dir/shared" && tool mkdir -p -m 700 -- "$dir/log" || return 1
    for old in "$dir"/releases/.partial-*; do
        [ ! -d "$old" ] || tool rm -rf -- "$old" || return 1
    done
    tool mkdir -- "$partial" || return 1
    complaint=$(LC_ALL=C tar -xof - -C "$partial" 2>&1 >/dev/null)
    code=$?
    if [ "$code" -ne 0 ]; then
        rm -rf -- "$partial"
        blame "$complaint"
        return 1
    fi
    if ! check "$partial"; then
        rm -rf -- "$partial"
        return 1
    fi
    [ ! -d "$dir/releases/$1" ] || tool rm -rf -- "$dir/releases/$1" || return 1
    tool mv -T -- "$partial" "$dir/releases/$1"
}

check() { # FOLDER: every file has the SHA-256 of the manifest
    manifest=.unifyweaver/manifest
    [ -s "$1/$manifest" ] || because verification_failed "$manifest" || return 1
    report=$(cd "$1" && LC_ALL=C sha256sum -c "$manifest" 2>&1) && return 0
    bad=$(printf '%s\n' "$report" | grep -v ': OK$' | head -n 1)
    because verification_failed "${bad%: FAILED*}"
}

verify() { check "$dir/releases/$1"; }

discard() { # RELEASE, unless it is still in use
    case $1 in "$(release_of current)" | "$(release_of .backup)") because in_use || return 1 ;; esac
    tool rm -rf -- "$dir/releases/$1"
}

share() { # RELEASE PATH…: what survives releases is linked from shared/
    release=$dir/releases/$1
    shift
    for path; do
        path=${path%/}
        parent=
        case $path in */*) parent=${path%/*} ;; esac
        [ -e "$dir/shared/$path" ] || tool mkdir -p -- "$dir/shared/$path" || return 1
        tool mkdir -p -- "$release/$parent" &&
            tool rm -rf -- "$release/$path" &&
            tool ln -s -- "$dir/shared/$path" "$release/$path" || return 1
    done
}

prepare() { # RELEASE SECONDS COMMAND
    command_in "$dir/releases/$1" prepare "$1" "$2" "$3"
}

hook() { # EVENT FUNCTION ARGUMENT…: after a failure the event's further hooks are skipped
    event=$1
    shift
    case " $failed_events " in *" $event "*) because skipped || return 1 ;; esac
    "$@" && return 0
    failed_events="$failed_events $event"
    return 1
}

run_command() { # SECONDS COMMAND
    folder=$dir
    [ ! -d "$dir/current" ] || folder=$dir/current
    command_in "$folder" "$event" "$(release_of current)" "$1" "$2"
}

# Its output goes to a file, so that what it leaves running does not hold the connection open.
command_in() { # FOLDER EVENT RELEASE SECONDS COMMAND
    tool mkdir -p -m 700 -- "$dir/run" || return 1
    output=$dir/run/output
    (
        trap - PIPE
        cd -P "$1" || exit
        SERVICE=$service HOST=$host PORT=$service_port RELEASE=$3 EVENT=$2
        export SERVICE HOST PORT RELEASE EVENT
        exec timeout -k 2 "$4" sh -c "$5"
    ) </dev/null >"$output" 2>&1 3>&- &
    job=$!
    wait "$job"
    code=$?
    job=''
    end_of "$output" | lines line
    case $code in
    0) ;;
    124 | 137) because timeout ;;
    *) because "command_failed $code" ;;
    esac
}

signal() { # NAME
    process || return 0
    kill -s "$1" -- "-$pid"
}

# Wait until nobody is connected to the running process's port.
drain() { # SECONDS at most
    open=0
    process || return 0
    clock
    end=$((now + $1 * 100))
    while open=$(connections "$port") && [ "$open" -gt 0 ]; do
        clock
        [ "$now" -lt "$end" ] || because timeout || break
        sleep 0.1
    done
    got connections "$open"
    [ "$open" -eq 0 ]
}

# TERM to the process group, KILL to what is left of it after SECONDS.
stop() { # SECONDS
    if ! process; then
        tool rm -f -- "$dir/run/process"
        return
    fi
    kill -s TERM -- "-$pid"
    if ! gone "$1"; then
        kill -s KILL -- "-$pid"
        gone 10 || because timeout || return 1
        got killed
    fi
    tool rm -f -- "$dir/run/process"
}

gone() { # SECONDS: the whole group has ended within that time
    clock
    end=$((now + $1 * 100))
    while lives "$pid" "$born" || [ -n "$(members "$pid")" ]; do
        clock
        [ "$now" -lt "$end" ] || return 1
        sleep 0.02
    done
}

# Start a release's process in a session of its own and wait until it owns its port.
start() { # RELEASE SECONDS
    release=$dir/releases/$1
    [ -d "$release/.unifyweaver" ] || because not_deployed || return 1
    if process; then
        [ "$active" != "$1" ] || return 0
        because already_running "$active"
        return 1
    fi
    read -r port <"$release/.unifyweaver/port"
    [ -z "$(listeners "$port")" ] || because port_in_use "$port" || return 1
    tool mkdir -p -m 700 -- "$dir/run" "$dir/log" && tool rm -f -- "$dir/run/process" || return 1
    launch "$1" || because no_space || return 1
    await_listening "$1" "$2" && return 0
    log_tail
    return 1
}

# The new session's leader records itself (pid, start time, boot) before it becomes the service.
launch() { # RELEASE
    (
        trap - PIPE
        cd "$release" || exit
        # shellcheck disable=SC2016  # expanded by the new shell
        exec setsid sh -c '
            read -r stat <"/proc/$$/stat"
            read -r boot </proc/sys/kernel/random/boot_id
            dir=$1 release=$2 port=$3
            set -- ${stat##*) }
            printf "%s %s %s %s %s\n" $$ "${20}" "$boot" "$release" "$port" >"$dir/run/process.new" &&
                mv -T "$dir/run/process.new" "$dir/run/process" &&
                exec sh .unifyweaver/start
        ' launch "$dir" "$1" "$port"
    ) </dev/null >>"$dir/log/service.log" 2>&1 3>&- &
    launched=$!
}

await_listening() { # RELEASE SECONDS
    clock
    end=$((now + $2 * 100))
    while :; do
        clock
        if process; then
            owns "$pid" "$port"
            case $? in
            0) return 0 ;;
            2) [ "$now" -lt "$end" ] || because port_in_use "$port" || return 1 ;;
            *) [ "$now" -lt "$end" ] || because not_listening "$port" || return 1 ;;
            esac
        elif ! kill -0 "$launched" 2>/dev/null; then
            wait "$launched"
            because exited $?
            return 1
        elif [ "$now" -ge "$end" ]; then
            because timeout
            return 1
        fi
        sleep 0.03
    done
}

# The process that answered is the release's own: it still runs and owns its port.
confirm() { # RELEASE
    process || because exited || { log_tail; return 1; }
    [ "$active" = "$1" ] || because already_running "$active" || return 1
    owns "$pid" "$port" || because not_listening "$port"
}

# The releases that were active and confirmed, oldest first; going back to one takes the later ones off.
commit() { # RELEASE
    {
        [ ! -r "$dir/run/history" ] || while read -r release; do
            [ "$release" != "$1" ] || break
            printf '%s\n' "$release"
        done <"$dir/run/history"
        printf '%s\n' "$1"
    } | tail -n 50 >"$dir/run/history.new" || because no_space || return 1
    tool mv -T -- "$dir/run/history.new" "$dir/run/history"
    tool rm -f -- "$dir/run/script"
}

# Keep the newest N releases, and always the active one and the rollback point.
prune() { # N
    current=$(release_of current)
    backup=$(release_of .backup)
    kept=0
    # shellcheck disable=SC2012  # the names are our own: hexadecimal and dashes
    for release in $(cd "$dir/releases" && ls -1t); do
        kept=$((kept + 1))
        if [ "$kept" -gt "$1" ] && [ "$release" != "$current" ] && [ "$release" != "$backup" ]; then
            tool rm -rf -- "$dir/releases/$release" || return 1
            got pruned "$release"
        fi
    done
}
