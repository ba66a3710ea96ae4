# The target of a script is this machine.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the head of the script assigns some

on_target() {
    if [ -n "$AS_ROOT" ]; then sudo -n sh; else sh; fi
}

disconnect() { :; }

# Fill a folder with the files that are listed in $work/files, of another.
send() { # HERE THERE
    if [ -n "$AS_ROOT" ]; then
        sudo -n rsync "${RSYNC_OPTIONS[@]}" --files-from="$work/files" -- "$1/" "$2/"
    else
        rsync "${RSYNC_OPTIONS[@]}" --files-from="$work/files" -- "$1/" "$2/"
    fi
}
