# The target of a script is a host that is reached by SSH.
# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154  # the head of the script assigns some

on_target() { over_ssh -- "$HOST" "${AS_ROOT}sh"; }

# Fill a folder there with the files that are listed in $work/files, of the folder here.
send() { # HERE THERE
    local host=$HOST
    case $host in *:*) host="[$host]" ;; esac
    rsync "${RSYNC_OPTIONS[@]}" --files-from="$work/files" --rsync-path="${AS_ROOT}rsync" \
        -e "ssh -l $USER -o ControlPath=$work/ssh -o BatchMode=yes -o StrictHostKeyChecking=yes" -- "$1/" "$host:$2/"
}
