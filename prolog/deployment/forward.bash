# The service is asked through the connection, as it is only listened to on the target itself.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the head of the script assigns some, other functions read some

reach() { # PORT
    through=(--unix-socket "$work/port-$1")
    [ -S "$work/port-$1" ] || over_ssh -O forward -L "$work/port-$1:$ADDRESS:$1" -- "$HOST"
}

prepare_to_ask() {
    work=$(mktemp -d /tmp/unifyweaver.XXXXXX)
    trap 'disconnect; rm -rf -- "$work"' EXIT
    over_ssh -- "$HOST" true || { complain "$HOST cannot be reached"; exit 2; }
}
