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
trap '[ -z "$job" ] || { kill -s TERM "$job"; wait "$job"; }; exit 143' TERM
claimed='' failed_events='' lease='' this_boot='' own_born=''
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

# Once a script: this boot, and the start time of this shell.
itself() {
    [ -z "$own_born" ] || return 0
    read -r this_boot </proc/sys/kernel/random/boot_id
    read -r stat <"/proc/$$/stat"
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    own_born=${20}
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
    holds "$1" && claim "$1" && "$@"
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

# A log of more than log_limit bytes becomes service.log.1, of which three are kept. It is copied and emptied: who writes
# it goes on in the same file, and what is written in between is lost. A full disk leaves it as it is.
log_limit=10485760
rotate() {
    log=$dir/log/service.log
    [ -f "$log" ] && [ "$(wc -c <"$log")" -gt "$log_limit" ] || return 0
    if cp -- "$log" "$log.new" 2>/dev/null; then
        : >"$log"
        [ ! -f "$log.2" ] || mv -f -- "$log.2" "$log.3"
        [ ! -f "$log.1" ] || mv -f -- "$log.1" "$log.2"
        mv -f -- "$log.new" "$log.1"
    else
        rm -f -- "$log.new"
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

# The process this library started, if it runs: sets pid, born, boot, active (its release), port, mark.
process() {
    pid=
    control_group=
    if installed; then unit_process; return; fi
    recorded && lives "$pid" "$born"
}

recorded() {
    [ -r "$dir/run/process" ] && read -r pid born boot active port mark <"$dir/run/process" || return 1
    itself
    [ "$boot" = "$this_boot" ]
}

# Its leader has ended, and left processes behind in its group: those that have its mark in their environment.
left_behind() {
    ! installed && recorded && [ -n "$mark" ] || return 1
    members "$pid"
    for member in $alive; do
        if tr '\0' '\n' <"/proc/$member/environ" | grep -qxF "UNIFYWEAVER_RUN=$mark"; then return 0; fi
    done 2>/dev/null
    return 1
}

# Replaces the record without needing space for it, once it has been there.
record() { # PID BORN BOOT RELEASE PORT MARK, or nothing
    printf '%-255s\n' "$*" 1<>"$dir/run/process"
}

# Every command, and every function in $( ), costs a process: what the shell can see by itself it does not ask for, and
# functions set variables.

# Sets alive, the pids of the service's live processes: the members of its control group, where it has one, or of process
# group $1. In `status`, unlike `stat`, a process can't forge lines by its name.
members() {
    alive=
    if [ -n "$control_group" ]; then in_control_group; return; fi
    # shellcheck disable=SC2013  # names without spaces
    for file in $(grep -lsE "^NSpgid:[[:space:]]+$1([[:space:]]|\$)" /proc/[0-9]*/status); do
        while read -r key value _; do
            if [ "$key" = State: ]; then
                case $value in [ZX]) ;; *) file=${file%/status} alive="$alive ${file#/proc/}" ;; esac
                break
            fi
        done <"$file"
    done 2>/dev/null
}

# Sets sockets, the inodes of the sockets in that state at the port.
sockets_of() { # STATE PORT
    tables=/proc/net/tcp
    [ ! -r /proc/net/tcp6 ] || tables="$tables /proc/net/tcp6"
    # shellcheck disable=SC2086  # one or two files
    sockets=$(awk -v state="$1" -v number="$2" '
        BEGIN { port = sprintf(":%04X", number) }
        $4 == state && substr($2, length($2) - 4) == port { print $10 }' $tables)
}

listeners() { sockets_of 0A "$1"; } # PORT

# The process is alone and has no socket: seen without a look at all of the machine's.
silent() { # PID
    for file in "/proc/$1/task"/*/children; do
        children=unknown
        { read -r children <"$file"; } 2>/dev/null
        [ -z "$children" ] || return 1
    done
    for file in "/proc/$1/fd"/*; do [ ! -S "$file" ] || return 1; done
}

# owns GROUP PORT: the group listens on the port, and nobody else does.
# Returns 1 when nobody listens yet, 2 when somebody else does.
owns() {
    listeners "$2"
    [ -n "$sockets" ] || return 1
    members "$1"
    [ -n "$alive" ] || return 2
    set --
    for member in $alive; do set -- "$@" "/proc/$member/fd"; done
    held=$(ls -l "$@" 2>/dev/null)
    for socket in $sockets; do
        case $held in
        *"socket:[$socket]"*) ;;
        *) return 2 ;;
        esac
    done
}

# Sets open, how many established connections there are to the port.
connections() { # PORT
    sockets_of 01 "$1"
    # shellcheck disable=SC2086  # numbers
    set -- $sockets
    open=$#
}

# ---- the service's directory -----------------------------------------------------------------------

release_at() { # LINK: sets named, the release it names, or nothing
    named=''
    [ -d "$dir/$1/.unifyweaver" ] || return 0
    cd -P -- "$dir/$1" && named=${PWD##*/}
    cd /
}

folders() { # PATH…: are there, for their user alone
    for each; do [ -d "$each" ] || tool mkdir -p -m 700 -- "$each" || return 1; done
}

clear_away() { # PATH…
    for each; do { [ ! -e "$each" ] && [ ! -L "$each" ]; } || tool rm -rf -- "$each" || return 1; done
}

last_of() { # LIST: sets last, the last line of a file of run/, or nothing
    last=''
    [ ! -r "$dir/run/$1" ] || while read -r each; do last=$each; done <"$dir/run/$1"
}

in_use() { # RELEASE: is active, or the rollback point
    for each in current .backup; do
        release_at "$each"
        [ "$named" != "$1" ] || return 0
    done
    return 1
}

link() { # LINK RELEASE|none: replaced by rename, so that it names one whole release at any instant
    [ "$1" != .backup ] || [ -d "$dir/releases/$2" ] || set -- "$1" none # it was pruned
    if [ "$2" = none ]; then
        [ "$1" != current ] || remove_unit || return 1
        tool rm -f -- "$dir/$1"
        return
    fi
    [ -d "$dir/releases/$2/.unifyweaver" ] || because not_deployed || return 1
    clear_away "$dir/$1.new.$$" &&
        tool ln -s "releases/$2" "$dir/$1.new.$$" &&
        tool mv -T -- "$dir/$1.new.$$" "$dir/$1" && return 0
    rm -f -- "$dir/$1.new.$$"
    return 1
}

# A release loses its name before its files: what has one is whole. The next deployment removes what is left of it.
remove() { # RELEASE
    [ -d "$dir/releases/$1" ] || return 0
    tool mv -T -- "$dir/releases/$1" "$dir/releases/.partial-$1-removed-$$" &&
        tool rm -rf -- "$dir/releases/.partial-$1-removed-$$"
}

# ---- steps -----------------------------------------------------------------------------------------

observe() {
    looked
    [ -z "$pid" ] || since
}

looked() {
    lock_told # what comes behind it is of whoever had it, or of nobody
    for name in current backup; do
        case $name in current) release_at current ;; *) release_at .backup ;; esac
        [ -z "$named" ] || got "$name" "$named"
    done
    for release in "$dir"/releases/*/.unifyweaver; do
        [ -d "$release" ] || continue
        release=${release%/.unifyweaver}
        got release "${release##*/}"
        [ ! -r "$release/.unifyweaver/port" ] || { read -r port <"$release/.unifyweaver/port" && got port "${release##*/}" "$port"; }
    done
    [ ! -r "$dir/run/history" ] || while read -r release; do got history "$release"; done <"$dir/run/history"
    [ ! -r "$dir/run/bad" ] || while read -r release; do got bad "$release"; done <"$dir/run/bad"
    intent_told
    if process; then got running "$active"; elif left_behind; then got running none; fi
    return 0
}

since() { # when the process was started
    started_at=$(awk '$1 == "btime" { print $2 }' /proc/stat)
    got since "$((started_at + born / 100))"
}

# What a deployment has to know beside that.
survey() {
    looked
    base_at current || base_at .backup || return 0
}

# Tells the manifest of the release that LINK names, where a new one can be built on that, and what was touched there.
base_at() { # LINK
    release_at "$1"
    release=$named
    manifest=$dir/releases/$release/.unifyweaver/manifest
    [ -n "$release" ] && [ -r "$manifest" ] || return 1
    for need in find xargs comm od; do command -v "$need" >/dev/null || return 1; done
    touched=
    cd "$dir/releases/$release" || return 1
    first=$(find . -path ./.unifyweaver -prune -o \( -newer .unifyweaver/manifest -o -type f ! -perm 644 ! -perm 755 ! -perm 600 ! -perm 700 \) -print -quit)
    [ -z "$first" ] || touched=$(touched)
    cd /
    [ "${#touched}" -le 200000 ] || return 1
    digest "$manifest"
    got manifest "$release" "$sum" "${touched:--}"
}

# What of the manifest of the release in this folder was changed, moved or removed after it was staged: in hexadecimal, a
# NUL after each. In $( ).
touched() {
    LC_ALL=C
    export LC_ALL
    untouched | sort -z | {
        awk "$plain$entry"'{ key = entry($0) } path !~ /^\.unifyweaver\// { printf "%s%c", key, 0 }' .unifyweaver/manifest |
            sort -z | comm -z -13 /dev/fd/4 -
    } 4<&0 | od -An -v -tx1 | tr -d ' \n'
}

# In a release's folder: kind and path (and target) of what was not touched after it was staged, a NUL after each.
untouched() {
    find . -path ./.unifyweaver -prune -o -newer .unifyweaver/manifest -o -type l -printf 'l%P//%l\0' -o \
        -type f \( -perm 644 -printf 'f%P\0' -o -perm 755 -printf 'x%P\0' -o \
        -perm 600 -printf 'p%P\0' -o -perm 700 -printf 'q%P\0' \)
}

digest() { # FILE: sets sum
    sum=$(sha256sum <"$1")
    sum=${sum%% *}
}

# Before its first change, a script ends what a lost connection may have left running of the same operation.
claim() { # FUNCTION about to run
    case $1 in observe | survey | log_tail | lock | keep | regain | unlock | take_over | disarm) return 0 ;; esac
    [ -z "$claimed" ] || return 0
    claimed=yes
    folders "$dir/run" || return 1
    [ -n "${controller-}" ] || rotate # else who took the lock has
    if [ -r "$dir/run/script" ]; then
        read -r script_pid script_born script_token <"$dir/run/script"
        if [ "$script_token" = "$token" ] && [ "$script_pid" != $$ ]; then end_script; fi
    fi
    itself
    { printf '%s %s %s\n' $$ "$own_born" "$token" >"$dir/run/script"; } 2>/dev/null
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
    end=$((now + 300))
    while lives "$script_pid" "$script_born"; do
        clock
        [ "$now" -lt "$end" ] || kill -s KILL -- "$target"
        sleep 0.05
    done
}

# ---- the lock: a folder that is taken and given back by rename ----------------------------------------------
#
# `who` tells the controller (see locks.pl); `holder`, of fixed length, is replaced in place:
# TOKEN SCRIPT_PID BORN BOOT EXPIRY LEASE, times in centiseconds since boot. Who took it by hand has - for the last two.
# After a crash, either file may be empty.

holder() { # FOLDER: sets held_by (- of an empty record), holder_pid, holder_born, holder_boot, expiry, lease
    held_by=
    { read -r held_by holder_pid holder_born holder_boot expiry lease <"$1/holder"; } 2>/dev/null
    case $expiry-$lease in ---) ;; -* | *- | *[!0-9-]*) expiry=0 lease=0 holder_boot= ;; esac
    case $held_by in '' | */*) held_by=- ;; esac
}

who() { # prints the words of the lock's controller
    since='' purpose='' more=''
    { read -r machine begun_by begun_at owner since purpose more <"$dir/run/lock/who"; } 2>/dev/null
    case $since in '' | *[!0-9]*) purpose='' ;; esac
    if [ -z "$purpose" ] || [ -n "$more" ]; then
        printf '%s' '- 0 0 - 0 -'
    else
        printf '%s' "$machine $begun_by $begun_at $owner $since $purpose"
    fi
}

# The machine was started since, or the lease is over, or of a clock that is no more, and no script runs.
expired() {
    [ "$expiry" != - ] || return 1
    itself
    [ "$holder_boot" = "$this_boot" ] || return 0
    clock
    if [ "$now" -le "$expiry" ] && [ "$expiry" -le $((now + lease * 100)) ]; then return 1; fi
    ! lives "$holder_pid" "$holder_born"
}

# A pid is of one boot only.
end_holder() {
    itself
    [ "$holder_boot" = "$this_boot" ] || return 0
    script_pid=$holder_pid script_born=$holder_born
    end_script
}

# Before each change of an operation that has a lease; it is renewed. What is written is the record that was open before
# the lock was found to be our own: never another's, if it is taken over meanwhile. Whoever takes over looks for a script
# in the record behind the rename, and we for the lock behind the record: one of the two sees the other.
holds() { # FUNCTION about to run
    case $1 in observe | survey | log_tail | lock | keep | regain | unlock | take_over | disarm) return 0 ;; esac
    [ -n "${controller-}" ] || return 0
    held || because "${reason:-lock_lost}"
}

held() { { renew 2>&5; } 5>&2 2>/dev/null 4<>"$dir/run/lock/holder"; }

renew() {
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ] || return 1
    [ "$holder_pid" = $$ ] || { may_end_holder && end_holder; } || return 1
    hold >&4 || because no_space || return 1
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ]
}

hold() { # prints the record
    clock
    itself
    expiry=-
    [ "$lease" = - ] || expiry=$((now + lease * 100))
    printf '%-199s\n' "$token $$ $own_born $this_boot $expiry $lease"
}

# The lease begins anew, unless a script of the operation is at work: that renews it itself.
keep() {
    { kept 2>&5; } 5>&2 2>/dev/null 4<>"$dir/run/lock/holder" || because "${reason:-lock_lost}"
}

kept() {
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ] || return 1
    ! lives "$holder_pid" "$holder_born" || return 0
    hold >&4 || because no_space || return 1
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ]
}

lock() { # LEASE|- ACTIVE BACKUP: releases or none, which have to be that still, or any
    lease=$1
    own=$dir/run/lock.$token
    folders "$dir/run" && clear_away "$own" "$dir/run/over.$token" || return 1
    mv -T -- "$dir/run/spare" "$own" 2>/dev/null || tool mkdir -m 700 -- "$own" || return 1
    { printf '%-511s\n' "$controller" 1<>"$own/who" && hold 1<>"$own/holder"; } 2>/dev/null || { rm -rf -- "$own"; because no_space || return 1; }
    taken=yes
    if ! mv -T -- "$own" "$dir/run/lock" 2>/dev/null; then
        taken=
        unname "$own"
        spare "$own"
        holder "$dir/run/lock"
        [ "$held_by" = "$token" ] || because held "$(who)" || return 1
    fi
    for each in "$dir"/run/over.*; do [ ! -d "$each" ] || unname "$each"; done
    clear_away "$dir"/run/watch.* || return 1
    rotate
    release_at current && active=$named
    release_at .backup && backup=$named
    [ "$2" = any ] || [ "${active:-none} ${backup:-none}" = "$2 $3" ] && return 0
    [ -z "$taken" ] || { unlock && unname "$dir/run/spare"; } # nothing was begun, and nothing is to be undone
    because changed_meanwhile
}

unlock() {
    may_end_holder || return 1
    holder "$dir/run/lock"
    [ "$held_by" = "$token" ] || return 0
    vacate "$token" && clear_away "$dir/run/spare" && spare "$dir/run/over.$token" && clear_away "$dir"/run/over.*
}

# What was a lock is kept for the next, that on a full disk something can still be stopped or made room. It names who had
# the lock last.
spare() { # FOLDER
    mv -T -- "$1" "$dir/run/spare" 2>/dev/null || tool rm -rf -- "$1"
}

unname() { printf '%-199s\n' - 1<>"$1/holder"; } # FOLDER of somebody who does not have the lock, or has it no more

# The lock of an operation that is to be undone. A script goes on to its end when its connection is lost, and gives the lock
# back: it is taken again, unless somebody else had it since.
regain() { # SECONDS that a watchdog may take to go back
    in_time "$1" || because not_confirmed_in_time || return 1
    while ! held; do
        [ -z "$reason" ] || return 1
        taken_again || because not_regained || return 1
    done
}

# From where a script puts it that gives it back, wherever that was ended.
taken_again() {
    own=$dir/run/lock.$token
    clear_away "$own" || return 1
    for each in "over.$token" spare; do
        holder "$dir/run/$each"
        { [ "$held_by" = "$token" ] && mv -T -- "$dir/run/$each" "$own" 2>/dev/null; } || continue
        holder "$own" # somebody else's, if that changed meanwhile
        if [ "$held_by" = "$token" ]; then
            ! mv -T -- "$own" "$dir/run/lock" 2>/dev/null || return 0
            unname "$own"
        fi
        spare "$own"
    done
    return 1
}

# Of a holder whose controller has `ended`, or whose lease has `expired` and was not renewed meanwhile: its script ends first.
take_over() { # TOKEN ended|expired
    holder "$dir/run/lock"
    [ "$held_by" = "$1" ] || return 0
    [ "$2" = ended ] || expired || return 0
    end_holder
    [ "$1" != - ] || clear_away "$dir/run/over.-" || return 1
    vacate "$1" && end_holder
}

# The lock that was TOKEN's gets a name that one folder can have: who comes later finds it taken, and can't rename the next
# holder's instead. It stays until another gives the lock back. Sets the holder anew, to none where nobody lost a lock.
vacate() { # TOKEN
    complaint=$(LC_ALL=C mv -T -- "$dir/run/lock" "$dir/run/over.$1" 2>&1)
    code=$?
    if [ "$code" -ne 0 ]; then
        holder "$dir/run/lock"
        holder_boot=
        [ "$held_by" != "$1" ] || [ ! -d "$dir/run/lock" ] || blame "$complaint"
        return
    fi
    holder "$dir/run/over.$1"
    [ "$held_by" != "$1" ] && mv -T -- "$dir/run/over.$1" "$dir/run/lock" 2>/dev/null || return 0
    holder_boot=
}

lock_told() {
    [ -d "$dir/run/lock" ] || return 0
    holder "$dir/run/lock"
    state=held
    ! expired || state=expired
    who=$(who)
    [ ! -d "$dir/run/lock" ] || got lock "$held_by" "$state" "$who"
}

# The release arrives as a tar stream on standard input; it gets its name only when it is verified.
stage() { # RELEASE
    partial=$dir/releases/.partial-$1-$$
    empty_partial || return 1
    if ! { unpack "$partial" && age "$partial" && assemble "$partial" && startable "$partial"; }; then
        rm -rf -- "$partial"
        return 1
    fi
    remove "$1" && tool mv -T -- "$partial" "$dir/releases/$1"
}

empty_partial() {
    { [ -d "$dir/releases" ] && [ -d "$dir/shared" ]; } || tool mkdir -p -- "$dir/releases" "$dir/shared" || return 1
    folders "$dir/log" || return 1
    for old in "$dir"/releases/.partial-*; do
        [ ! -d "$old" ] || tool rm -rf -- "$old" || return 1
    done
    tool mkdir -- "$partial"
}

unpack() { # FOLDER
    complaint=$(LC_ALL=C tar -xof - -C "$1" 2>&1 >/dev/null)
    code=$?
    [ "$code" -eq 0 ] || blame "$complaint"
}

# Whatever is newer than a release's manifest was changed after it was staged.
age() { # FOLDER
    command -v find >/dev/null || return 0
    stamp=$1/.unifyweaver/manifest
    [ -e "$stamp" ] || stamp=$1/.unifyweaver/difference
    tool touch -d '2 seconds ago' -- "$stamp" &&
        tool find "$1" -newer "$stamp" -exec touch -h -r "$stamp" -- {} +
}

# Of a release that arrives as the difference to another, what arrived is verified and the rest is reused.
assemble() { # FOLDER
    if [ ! -e "$1/.unifyweaver/difference" ]; then
        check "$1" .unifyweaver/manifest
        return
    fi
    sed -n '2,$s/^+//p' "$1/.unifyweaver/difference" >"$1/.unifyweaver/work-sent" || because no_space || return 1
    check "$1" .unifyweaver/work-sent || return 1
    complaint=$(reuse "$1" 2>&1)
    code=$?
    if [ "$code" -ne 0 ]; then
        blame "$complaint"
        [ "$reason" = no_space ] || reason=base_unusable
        return 1
    fi
    tool rm -f -- "$1"/.unifyweaver/work-* "$1/.unifyweaver/difference"
}

# Copied or linked is what the difference keeps of the base release's manifest. Of the base, whatever changed after it was
# staged is not used: that is looked for meanwhile. In $( ).
reuse() { # FOLDER
    LC_ALL=C
    export LC_ALL
    read -r base base_digest how wanted files bytes <"$1/.unifyweaver/difference"
    base=$dir/releases/$base
    work=$1/.unifyweaver/work-
    cd "$base" || return 1
    { untouched >"${work}found" && exec sort -z "${work}found" >"${work}usable"; } &
    usable=$!
    digest .unifyweaver/manifest && [ "$sum" = "$base_digest" ] && # only then are its paths known
        work=$work manifest=$base/.unifyweaver/manifest to=$1/.unifyweaver/manifest awk "$plain$entry$rebuild" "$1/.unifyweaver/difference" &&
        transfer "$1"
    code=$?
    wait "$usable" && [ "$code" -eq 0 ] || return 1
    comm -z -13 "${work}usable" "${work}needed" >"${work}missing" || return 1
    if [ -s "${work}missing" ]; then
        head -c 500 "${work}missing" | tr '\0' '\n' | sed 's/^./changed since it was staged: /'
        return 1
    fi
}

each_copied() { # OPTION… of cp
    xargs -0 -n 1000 -P 4 cp -P --parents "$@" -t "$folder" -- <"${work}paths"
}

transfer() { # FOLDER, which has its new manifest: gets what is listed
    folder=$1
    { digest "$folder/.unifyweaver/manifest" && [ "$sum" = "$wanted" ] && exec sort -z "${work}kept" >"${work}needed"; } &
    needed=$!
    { [ ! -s "${work}folders" ] || { cd "$folder" && xargs -0 mkdir -p -- <"${work}folders" && cd "$base"; }; } &&
        if [ "$how" = link ]; then
            each_copied -l
        else # not every cp can share what it copies
            each_copied --preserve=mode,timestamps --reflink=auto || each_copied --preserve=mode,timestamps
        fi
    code=$?
    wait "$needed" && [ "$code" -eq 0 ] || return 1
    stamp=$folder/.unifyweaver/difference
    cd "$folder" &&
        xargs -0 touch -r "$stamp" -- . .unifyweaver/manifest <"${work}folders" || return 1
    if [ "$how" != link ]; then # a link is the file itself, a copy may be short
        counted=$(find . -path ./.unifyweaver -prune -o -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d %.0f", NR, sum }')
        [ "$counted" = "$files $bytes" ] || { echo "expected $files files of $bytes bytes, not $counted"; return 1; }
    fi
}

# Text as it was before it was escaped in a manifest.
# shellcheck disable=SC2016  # expanded by awk
plain='
function plain(text,   out, c) {
    while (match(text, /\\./)) {
        c = substr(text, RSTART + 1, 1)
        out = out substr(text, 1, RSTART - 1) (c == "n" ? "\n" : c == "r" ? "\r" : c == "t" ? "\t" : c)
        text = substr(text, RSTART + 2)
    }
    return out text
}
'

# The kind and path (and target) that a line of a manifest tells; the path alone is in path.
# shellcheck disable=SC2016  # expanded by awk
entry='
function entry(line,   tab, marked, private) {
    if (line ~ /^#link /) {
        tab = index(line, "\t")
        path = plain(substr(line, 7, tab - 7))
        return "l" path "//" plain(substr(line, tab + 1))
    }
    marked = line ~ /^\\/
    path = marked ? plain(substr(line, 68)) : substr(line, 67)
    private = sub(/^\.\//, "", path) && !sub(/^\.\//, "", path)
    return substr("fxpq", 1 + (substr(line, 66 + marked, 1) == "*") + 2 * private, 1) path
}
'

# Makes the new manifest from that of the base, and lists what is kept: kind and path, the paths alone, and their folders.
# shellcheck disable=SC2016  # expanded by awk
rebuild='
function base_line() { if ((getline line < base) <= 0) { failed = 1; exit } }
function keep(line) {
    printf "%s%c", entry(line), 0 >kept
    printf "%s%c", path, 0 >paths
    while (sub(/\/[^\/]*$/, "", path) && !(path in made)) { made[path]; printf "%s%c", path, 0 >folders }
}
BEGIN {
    base = ENVIRON["manifest"]; work = ENVIRON["work"]; manifest = ENVIRON["to"]
    kept = work "kept"; paths = work "paths"; folders = work "folders"
    printf "" >folders
}
NR == 1 { next }
/^\+/ { print substr($0, 2) >manifest; next }
/^=/ { for (n = substr($0, 2) + 0; n > 0; n--) { base_line(); print line >manifest; keep(line) } next }
/^-/ { for (n = substr($0, 2) + 0; n > 0; n--) base_line(); next }
END { exit failed }
'

check() { # FOLDER LIST: every file has the SHA-256 of the list
    [ -s "$1/$2" ] || because verification_failed "$2" || return 1
    report=$(cd "$1" && LC_ALL=C sums "$2" 2>&1) && return 0
    bad=$(printf '%s\n' "$report" | LC_ALL=C grep ': FAILED' | head -n 1)
    [ -n "$bad" ] || bad=$(printf '%s\n' "$report" | head -n 1)
    because verification_failed "${bad%: FAILED*}"
}

# In $( ): its last command takes the place of the shell.
sums() { # LIST: of a long one, parts are checked at the same time
    if [ "$(wc -l <"$1")" -gt 500 ] && command -v xargs >/dev/null; then
        grep -v '^#' "$1" | tr '\n' '\0' |
            xargs -0 -n 1000 -P 4 sh -c 'printf "%s\n" "$@" | sha256sum -c --quiet' sums
    else
        exec sha256sum -c --quiet "$1"
    fi
}

verify() { check "$dir/releases/$1" .unifyweaver/manifest; }

discard() { # RELEASE, unless it is still in use
    ! in_use "$1" || because in_use || return 1
    remove "$1"
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
    release_at current
    command_in "$folder" "$event" "$named" "$1" "$2"
}

# Its output goes to a file, so that what it leaves running does not hold the connection open.
command_in() { # FOLDER EVENT RELEASE SECONDS COMMAND
    folders "$dir/run" || return 1
    output=$dir/run/output
    (
        trap - PIPE
        cd -P "$1" || exit
        SERVICE=$service HOST=$host PORT=$service_port RELEASE=$3 EVENT=$2
        export SERVICE HOST PORT RELEASE EVENT
        exec timeout -k 2 "$4" sh -c -- "$5"
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
    while connections "$port" && [ "$open" -gt 0 ]; do
        clock
        [ "$now" -lt "$end" ] || because timeout || break
        sleep 0.1
    done
    got connections "$open"
    [ "$open" -eq 0 ]
}

# TERM to the process group, KILL to what is left of it after SECONDS.
stop() { # SECONDS
    if process || left_behind; then
        terminate TERM
        if ! gone "$1"; then
            terminate KILL
            gone 10 || because timeout || return 1
            got killed
        fi
    fi
    ! installed || tool manager stop "$(unit_name)" || return 1
    [ ! -e "$dir/run/process" ] || record
}

terminate() { # SIGNAL
    if ! installed; then
        kill -s "$1" -- "-$pid"
    elif [ "$1" = TERM ]; then
        manager stop --no-block "$(unit_name)"
    else
        manager kill -s "$1" "$(unit_name)"
    fi
}

gone() { # SECONDS: the whole group has ended within that time
    clock
    begun=$now
    while lives "$pid" "$born" || { members "$pid" && [ -n "$alive" ]; }; do
        clock
        [ $((now - begun)) -lt $(($1 * 100)) ] || return 1
        nap
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
    ! left_behind || because already_running none || return 1
    read -r port <"$release/.unifyweaver/port"
    vacant "$port" || because port_in_use "$port" || return 1
    folders "$dir/run" "$dir/log" || return 1
    record 2>/dev/null || because no_space || return 1
    if [ -f "$release/.unifyweaver/unit" ]; then
        launch_unit "$1" || return 1
    else
        remove_unit && launch "$1" || return 1
    fi
    if await_listening "$1" "$2"; then
        installed || return 0
        record "$pid" "$born" "$boot" "$1" "$port" || because no_space
        return
    fi
    log_tail
    return 1
}

# Nobody listens on the port, or soon nobody does: threads of what was stopped may outlive its leader for a moment.
vacant() { # PORT
    clock
    begun=$now
    while listeners "$1" && [ -n "$sockets" ]; do
        clock
        [ $((now - begun)) -lt 200 ] || return 1
        nap
    done
}

# The new session's leader records itself (pid, start time, boot) before it becomes the service.
launch() { # RELEASE
    read -r mark </proc/sys/kernel/random/uuid
    (
        trap - PIPE
        cd "$release" || exit
        # shellcheck disable=SC2016  # expanded by the new shell
        exec setsid sh -c '
            read -r stat <"/proc/$$/stat"
            read -r boot </proc/sys/kernel/random/boot_id
            dir=$1 release=$2 port=$3 UNIFYWEAVER_RUN=$4
            export UNIFYWEAVER_RUN
            set -- ${stat##*) }
            printf "%-255s\n" "$$ ${20} $boot $release $port $UNIFYWEAVER_RUN" 1<>"$dir/run/process" &&
                exec sh .unifyweaver/start
        ' launch "$dir" "$1" "$port" "$mark"
    ) </dev/null >>"$dir/log/service.log" 2>&1 3>&- &
    launched=$!
}

await_listening() { # RELEASE SECONDS
    clock
    begun=$now
    end=$((now + $2 * 100))
    while :; do
        clock
        if ! process; then
            starts || because exited "$code" || return 1
            [ "$now" -lt "$end" ] || because timeout || return 1
        elif [ $((now - begun)) -lt 100 ] && silent "$pid"; then
            : # for a second at most: then it is looked at whatever listens
        else
            owns "$pid" "$port"
            case $? in
            0) return 0 ;;
            2) [ "$now" -lt "$end" ] || because port_in_use "$port" || return 1 ;;
            *) [ "$now" -lt "$end" ] || because not_listening "$port" || return 1 ;;
            esac
        fi
        nap
    done
}

# Before another look at what began at $begun: what is over soon is noticed soon, and what takes long is looked at less.
nap() {
    case $((now - begun)) in
    ?) sleep 0.02 ;;
    1?) sleep 0.03 ;;
    ??) sleep 0.08 ;;
    *) sleep 0.2 ;;
    esac
}

# What was launched is on its way. Otherwise it has ended, with the exit code $code.
starts() {
    if installed; then unit_starts; return; fi
    kill -0 "$launched" 2>/dev/null && return 0
    wait "$launched"
    code=$?
    return 1
}

# The process that answered is the release's own: it still runs and owns its port.
confirm() { # RELEASE
    process || because exited || { log_tail; return 1; }
    [ "$active" = "$1" ] || because already_running "$active" || return 1
    owns "$pid" "$port" || because not_listening "$port"
}

# The releases that were active and confirmed, oldest first; going back to one takes the later ones off.
commit() { # RELEASE
    [ ! -e "$dir/run/script" ] || printf '' >"$dir/run/script"
    bad_list "$1" || return 1
    last_of history
    [ "$last" != "$1" ] || return 0
    committed=$1
    set --
    [ ! -r "$dir/run/history" ] || while read -r release && [ "$release" != "$committed" ]; do
        set -- "$@" "$release"
    done <"$dir/run/history"
    [ $# -lt 50 ] || shift $(($# - 49))
    printf '%s\n' "$@" "$committed" >"$dir/run/history.new" || because no_space || return 1
    tool mv -T -- "$dir/run/history.new" "$dir/run/history"
}

# Releases whose health check failed, until one is confirmed all the same.
mark_bad() { # RELEASE
    bad_list "$1" "$1"
}

bad_list() { # RELEASE to take off, and to add if it is given again
    [ -n "${2-}" ] || { [ -s "$dir/run/bad" ] && grep -qxF -- "$1" "$dir/run/bad"; } || return 0
    {
        [ ! -r "$dir/run/bad" ] || grep -vxF -- "$1" "$dir/run/bad"
        [ -z "${2-}" ] || printf '%s\n' "$2"
    } | tail -n 50 >"$dir/run/bad.new" || because no_space || return 1
    tool mv -T -- "$dir/run/bad.new" "$dir/run/bad"
}

# Keep the newest N releases, and always the active one and the rollback point.
prune() { # N
    release_at current && current=$named
    release_at .backup && backup=$named
    kept=0
    # shellcheck disable=SC2012  # the names are our own: hexadecimal and dashes
    cd "$dir/releases" 2>/dev/null || return 0
    releases=$(ls -1t)
    cd /
    for release in $releases; do
        case $release in *[!0-9a-f-]*) continue ;; esac
        kept=$((kept + 1))
        if [ "$kept" -gt "$1" ] && [ "$release" != "$current" ] && [ "$release" != "$backup" ]; then
            remove "$release" || return 1
            got pruned "$release"
        fi
    done
}
