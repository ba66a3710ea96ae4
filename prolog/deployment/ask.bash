# Functions of a script that asks a service over HTTP.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the head of the script assigns some, other functions read some

through=() # what curl needs to reach the service, beside its address

announce() { printf '%s\n' "$*"; }

complain() { printf '%s\n' "$*" >&2; }

needs() { # COMMAND...
    local command
    for command; do
        command -v "$command" >/dev/null || { complain "This script needs $command"; exit 1; }
    done
}

service_url() { printf '%s://%s:%s%s' "$PROTOCOL" "$ADDRESS" "$1" "$2"; } # PORT PATH

# One request. Its status is in $status, 000 when there was no answer, and curl's exit code in $trouble.
request() { # METHOD URL SECONDS
    local body=()
    [ "$1" = GET ] || body=(--data '')
    trouble=0
    status=$(curl -q --silent --globoff --noproxy '*' --output /dev/null --write-out '%{http_code}' --max-time "$3" \
        --request "$1" ${body[@]+"${body[@]}"} ${through[@]+"${through[@]}"} -- "$2") || trouble=$?
}

what_was_wrong() {
    case $trouble in
    0) printf 'status %s' "$status" ;;
    7) printf 'connection refused' ;;
    28) printf 'no answer in time' ;;
    *) printf 'no answer, curl says %s' "$trouble" ;;
    esac
}

# Healthy within so many tries.
healthy_in_tries() { # URL TRIES PAUSE SECONDS
    local try
    for ((try = 1; try <= $2; try++)); do
        request GET "$1" "$4"
        if [ "$trouble $status" = '0 200' ]; then return 0; fi
        complain "Attempt $try/$2 failed: $(what_was_wrong)"
        if ((try < $2)); then sleep "$3"; fi
    done
    return 1
}
