# Breakpoints in the library's scripts. In ~/.faults, `at` holds POINT STEP. A script that comes there renames it to
# `reached` and waits for `go`, which says how it goes on: go, fail (the step does nothing and fails) or die.
#
#   before    nothing of the step has been done or reported     instead   it would be done now
#   during    before its first tool is run; of a step without tools, when it is done and not reported
#   after     it is done and reported
# shellcheck shell=sh
# shellcheck disable=SC2154  # step is assigned by target.sh
faults=$HOME/.faults
entered=''

halt() { # POINT STEP
    { read -r point at <"$faults/at"; } 2>/dev/null || return 0
    [ "$point $at" = "$1 $2" ] && mv "$faults/at" "$faults/reached" 2>/dev/null || return 0
    left=3000
    until [ -e "$faults/go" ] || [ "$left" -eq 0 ]; do
        sleep 0.01
        left=$((left - 1))
    done
    how=go
    [ ! -e "$faults/go" ] || read -r how <"$faults/go"
    rm -f "$faults/go"
    case $how in
    die) kill -s KILL $$ ;;
    fail) return 1 ;;
    esac
}

attempt() {
    printf '%s\n' "$1" >>"$faults/steps"
    name_of_step=$1
    halt before "$1"
    attempt_ "$@"
    outcome=$?
    halt after "$name_of_step"
    return "$outcome"
}

perform() { # FUNCTION ARGUMENT…, in place of the bare "$@" in `attempt`
    halt instead "$step" || because "command_failed 1" || return 1
    entered=$step
    "$@"
    performed=$?
    [ -z "$entered" ] || halt during "$step"
    entered=''
    return "$performed"
}

tool() {
    [ -z "$entered" ] || halt during "$entered"
    entered=''
    tool_ "$@"
}
