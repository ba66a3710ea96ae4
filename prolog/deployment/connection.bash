# One connection to a host by SSH, for all that a script does there.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the head of the script assigns some

over_ssh() { # ARGUMENT...: of ssh
    ssh -T -o ControlMaster=auto -o ControlPersist=60 -o "ControlPath=$work/ssh" "${SSH_OPTIONS[@]}" -l "$USER" "$@"
}

disconnect() {
    [ ! -S "$work/ssh" ] || over_ssh -O exit -- "$HOST" 2>/dev/null || true
}
