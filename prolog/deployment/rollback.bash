# Rolling back from a script.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the head of the script assigns some, other functions the rest

roll_service_back() {
    announce "=== Rolling back $SERVICE on $HOST ==="
    observe
    new=$backup
    if [ -z "$new" ] || [ "$new" = "$current" ]; then
        complain 'There is no backup to roll back to'
        exit 1
    fi
    hooks_pre_rollback || complain 'A pre_rollback hook failed'
    stop_running
    undo_with link_to current "${current:-none}"
    link_to current "$new"
    undo_with link_to .backup "$backup"
    link_to .backup "$(earlier)"
    undo_with stop_failed_start ''
    start_release "$new"
    commit "$new"
    completed
    hooks_post_rollback || complain 'A post_rollback hook failed'
    announce "=== Rolled back to $REMOTE_DIR/$SERVICE/releases/$new ==="
}

# The release that was active before and is still there, or none.
earlier() {
    local release found=none
    for release in $history; do
        if [ "$release" = "$new" ]; then break; fi
        case " $kept" in *" $release "*) found=$release ;; esac
    done
    if [ "${release-}" = "$new" ]; then printf %s "$found"; else printf none; fi
}

needs "${TOOLS[@]}"
make_workplace
roll_service_back
