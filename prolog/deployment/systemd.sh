# Functions of target.sh for services under systemd.
#
# run/unit says that a unit of ours is installed: for the system when root does the work, else for the user. A release
# that is to run under systemd holds its unit.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # target.sh assigns some, and reads some

installed() { [ -e "$dir/run/unit" ]; }

unit_name() { printf 'unifyweaver-%s.service' "$service"; }

manager() { # ARGUMENT…: of systemctl
    if [ "$(id -u)" -eq 0 ]; then
        systemctl "$@" 3>&-
    else
        XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} systemctl --user "$@" 3>&-
    fi
}

unit_folder() {
    if [ "$(id -u)" -eq 0 ]; then printf /etc/systemd/system; else printf %s "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"; fi
}

systemd_runs() {
    case $(manager is-system-running 2>/dev/null) in '' | offline | unknown) return 1 ;; esac
}

# A release with a unit is only taken where it can be started.
startable() { # FOLDER
    [ ! -f "$1/.unifyweaver/unit" ] || systemd_runs || because no_systemd
}

# What systemd knows of the unit: sets pid, control_group, state, code.
unit_state() {
    pid=
    control_group=
    state=
    code=
    properties=$(manager show -p MainPID -p ControlGroup -p SubState -p ExecMainStatus "$(unit_name)" 2>/dev/null) || return 1
    while IFS='=' read -r name value; do
        case $name in
        MainPID) pid=${value#0} ;;
        ControlGroup) control_group=$value ;;
        SubState) state=$value ;;
        ExecMainStatus) code=$value ;;
        esac
    done <<EOF_PROPERTIES
$properties
EOF_PROPERTIES
}

# As process; a process that systemd started again by itself is of the active release.
unit_process() {
    unit_state || return 1
    [ -n "$pid" ] || return 1
    { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    born=${20}
    release_at current && active=$named
    if [ -r "$dir/run/process" ]; then
        read -r started started_born _ started_release _ <"$dir/run/process"
        if [ "$started $started_born" = "$pid $born" ]; then active=$started_release; fi
    fi
    port=
    [ ! -r "$dir/releases/$active/.unifyweaver/port" ] || read -r port <"$dir/releases/$active/.unifyweaver/port"
    lives "$pid" "$born"
}

in_control_group() { # sets alive
    for file in /proc/[0-9]*/cgroup; do
        id=${file#/proc/}
        id=${id%/cgroup}
        while IFS=: read -r _ _ group; do
            case $group in
            "$control_group" | "$control_group"/*)
                { read -r stat <"/proc/$id/stat"; } 2>/dev/null || continue
                case ${stat##*) } in [ZX]*) ;; *) alive="$alive $id" ;; esac
                break
                ;;
            esac
        done <"$file"
    done 2>/dev/null
}

launch_unit() { # RELEASE, which is the active one
    release_at current
    [ "$named" = "$1" ] || because not_deployed || return 1
    systemd_runs || because no_systemd || return 1
    install_unit "$release/.unifyweaver/unit" || return 1
    manager reset-failed "$(unit_name)" >/dev/null 2>&1 # there may be nothing to reset
    tool manager start "$(unit_name)" || return 1
    # shellcheck disable=SC2034  # nobody to wait for
    launched=
}

install_unit() { # FILE
    unit=$(unit_folder)/$(unit_name)
    user=$(sed -n 's/^User=//p' "$1")
    [ -z "$user" ] || { tool chown -R -- "$user" "$dir/shared" &&
        tool find "$release" -type f ! -perm -004 -exec chown -- "$user" {} +; } || return 1
    if ! cmp -s -- "$1" "$unit"; then
        tool mkdir -p -- "${unit%/*}" && tool cp -- "$1" "$unit.new" && tool mv -T -- "$unit.new" "$unit" || return 1
        tool manager daemon-reload || return 1
    fi
    { : >"$dir/run/unit"; } 2>/dev/null || because no_space || return 1
    tool manager enable "$(unit_name)" || return 1
    # A user's services end with the last session, and begin with the first, unless the user lingers.
    [ "$(id -u)" -eq 0 ] || tool loginctl enable-linger
}

# A release without a unit, or none, becomes active.
remove_unit() {
    installed || return 0
    unit=$(unit_folder)/$(unit_name)
    tool manager disable --now "$(unit_name)" && tool rm -f -- "$unit" && tool manager daemon-reload || return 1
    tool rm -f -- "$dir/run/unit"
    control_group=
}

# What launch_unit started is on its way. Otherwise it has ended, with the exit code $code.
unit_starts() {
    unit_state
    case $state in dead | failed | auto-restart | '') return 1 ;; esac
}
