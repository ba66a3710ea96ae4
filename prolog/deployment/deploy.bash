# Deploying from a script.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the head of the script assigns some, other functions read some

# One character in UTF-8, for the source patterns: HIGH are all bytes that belong to a longer one.
HIGH=$'\200-\377'
LONGER=$'[\300-\377][\200-\277]*'

RSYNC_OPTIONS=(--links --perms --times --omit-dir-times --no-implied-dirs --whole-file --from0 --secluded-args)

deploy() { # FOLDER
    announce "=== Deploying $SERVICE to $HOST ==="
    observe
    if [ -n "${SECRETS+set}" ]; then fetch_secrets; fi
    hooks_pre_deploy || { complain 'A pre_deploy hook failed'; exit 1; }
    ship "$1"
    if [ "$current" = "$new" ] && [ "$running" = "$new" ]; then
        completed
        announce "Unchanged: release $new is active"
        return
    fi
    replace
    hooks_post_deploy
    commit "$new"
    target <<<"attempt prune prune $KEEP_RELEASES"
    completed
    announce '=== Deployment complete ==='
    announce "Service $SERVICE running on $HOST:$PORT, from $REMOTE_DIR/$SERVICE/releases/$new"
}

ship() { # FOLDER
    local from
    from=$(cd -- "$1" && pwd -P) || exit 1
    select_files "$from"
    announce "Syncing sources..."
    undo_with drop_folder
    target <<<"step receive receive $token"
    send "$from" "$folder"
    if [ -n "${SECRETS+set}" ]; then send_secrets; fi
    undo_with discard_release
    target < <(adopt_steps)
    undo=(discard_release)
}

drop_folder() { target <<<"step drop drop $token"; }

discard_release() {
    if [ -n "$new" ] && [ -z "$reused" ]; then target <<<"step discard discard $new"; fi
}

replace() {
    stop_running
    if [ "$current" != "$new" ]; then
        if [ -n "$current" ]; then
            undo_with link_to .backup "${backup:-none}"
            link_to .backup "$current"
        fi
        undo_with link_to current "${current:-none}"
        link_to current "$new"
    fi
    undo_with stop_failed_start "$current"
    start_release "$new"
}

# What is shipped of the folder: what the source patterns name, as everywhere. Each path ends with NUL, in $work/files.
select_files() { # FOLDER
    local path pattern number
    local used=()
    source_patterns
    cd -- "$1" || exit 1
    while IFS= read -r -d '' path; do
        path=${path#./}
        chosen "$path" || continue
        acceptable "$1" "$path" || exit 1
        printf '%s\0' "$path"
    done < <(LC_ALL=C find . ! -type d -print0) >"$work/files"
    [ -s "$work/files" ] || { complain "$1 holds nothing to ship"; exit 1; }
    for number in "${!INCLUDE[@]}"; do
        [ -n "${used[number]-}" ] || { complain "Nothing in $1 matches ${PATTERNS[number]}"; exit 1; }
    done
    for path in ${NEEDS[@]+"${NEEDS[@]}"}; do
        if [ ! -e "$path" ] || ! chosen "$path"; then complain "$path is not among the sources"; exit 1; fi
    done
}

# Patterns are of use where they name a file that is excluded, and not where its folder is.
chosen() { # PATH
    local LC_ALL=C pattern number found=1
    case $1 in */*) ! excluded "${1%/*}" || return 1 ;; esac
    for number in "${!INCLUDE[@]}"; do
        pattern="^(${INCLUDE[number]})\$"
        if [[ $1 =~ $pattern ]]; then used[number]=yes found=0; fi
    done
    ! excluded "$1" || return 1
    return "$found"
}

excluded() { # PATH
    local pattern
    for pattern in ${EXCLUDE[@]+"${EXCLUDE[@]}"}; do
        pattern="^(${pattern})\$"
        if [[ $1 =~ $pattern ]]; then return 0; fi
    done
    return 1
}

acceptable() { # FOLDER PATH
    local real
    case $2 in .unifyweaver | .unifyweaver/*) complain "$2 is a reserved name"; return 1 ;; esac
    if [ -L "$2" ]; then
        real=$(readlink -f -- "$2") || real=$1/
        if leads_outside "$2" "$(readlink -- "$2")" || [ "${real#"$1"/}" = "$real" ]; then
            complain "The link $2 leads out of the folder"
            return 1
        fi
    elif [ ! -f "$2" ]; then
        complain "$2 is neither a file nor a link"
        return 1
    fi
}

leads_outside() { # LINK TARGET
    local part depth=0 parts
    case $2 in /*) return 0 ;; esac
    IFS=/ read -r -d '' -a parts < <(printf '%s/%s\0' "$(dirname -- "$1")" "$2")
    for part in "${parts[@]}"; do
        case $part in
        '' | .) ;;
        ..) depth=$((depth - 1)); if ((depth < 0)); then return 0; fi ;;
        *) depth=$((depth + 1)) ;;
        esac
    done
    return 1
}

if (($# != 1)) || [ ! -d "$1" ]; then
    complain "Usage: $0 FOLDER"
    exit 2
fi
needs rsync "${TOOLS[@]}"
make_workplace
deploy "$1"
