# Secrets of a script: fetched when it runs, and sent to the target in a file of their own. The release is named as the
# library names it, by digests that the user's key makes.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the head of the script assigns some, other functions read some

values=()
digests=()
suffix=''

# Values and digests in the order of SECRETS: NAME env|command SOURCE each.
fetch_secrets() {
    local LC_ALL=C number=0 key value
    read_key
    set -- "${SECRETS[@]}"
    while (($#)); do
        fetch_value "$2" "$3" || { complain "The secret $1 cannot be had"; exit 1; }
        ((${#value} <= 65536)) || { complain "The secret $1 is longer than 64 kB"; exit 1; }
        values[number]=$value
        digests[number]=s$({ printf '%s\0' "$1"; printf %s "$value"; } | keyed)
        number=$((number + 1))
        shift 3
    done
    write_secrets
    name_suffix
}

fetch_value() { # env|command SOURCE
    local name=$2 limit=()
    case $1 in
    env) [ -n "${!name+set}" ] && value=${!name} ;;
    *)
        if command -v timeout >/dev/null; then limit=(timeout 30); fi
        value=$(${limit[@]+"${limit[@]}"} sh -c -- "$2" </dev/null 2>/dev/null)
        ;;
    esac
}

# NAME and the number of its value in EXPORTS. The first line can't be guessed, so that the file's digest tells nothing.
write_secrets() {
    local lines='' quote="'\"'\"'" value
    set -- "${EXPORTS[@]}"
    while (($#)); do
        value=${values[$2]}
        lines+="export $1='${value//\'/$quote}'"$'\n'
        shift 2
    done
    mkdir -m 700 -- "$work/sealed"
    (umask 077 && printf '# %s\n%s' "$({ printf 'file\0'; printf %s "$lines"; } | keyed)" "$lines" >"$work/sealed/secrets")
}

send_secrets() {
    printf 'secrets\0' >"$work/files"
    send "$work/sealed" "$folder-secrets"
}

# A host whose options change what the service is run with has releases of its own.
name_suffix() {
    local own common
    own=$(own_configuration | unsealed)
    common=$(common_configuration | unsealed)
    if [ "$own" != "$common" ]; then
        own=$(printf %s "$own" | sha256)
        suffix=-${own:0:8}
    fi
}

# Standard input with digests in place of what stands for them.
unsealed() {
    local LC_ALL=C text number mark
    text=$(cat)
    for number in "${!digests[@]}"; do
        printf -v mark 'unsealed_%04d' "$number"
        text=${text//$mark/${digests[number]}}
    done
    printf '%s\n' "${text//unsealed_suffix/$suffix}"
}

read_key() {
    local state=${XDG_STATE_HOME:-$HOME/.local/state} file
    case $OSTYPE in darwin*) state="$HOME/Library/Application Support" ;; esac
    file=${UNIFYWEAVER_KEY:-$state/unifyweaver/key}
    [ -e "$file" ] || make_key "$file"
    [ -z "$(find "$file" \( -perm -040 -o -perm -004 \) -print)" ] || { complain "Others may read $file"; exit 1; }
    read -r key <"$file"
    [[ $key =~ ^[0-9a-f]{64}$ ]] || { complain "$file has not 64 hexadecimal digits"; exit 1; }
}

make_key() { # FILE: of two who make one at once, the first wins
    (umask 077 && mkdir -p -- "$(dirname -- "$1")" && printf '%s\n' "$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" >"$1.$$")
    ln -- "$1.$$" "$1" 2>/dev/null || [ -e "$1" ]
    rm -f -- "$1.$$"
}

# HMAC-SHA-256 of standard input. The key has as many bytes as a block.
keyed() {
    local inner
    inner=$({ padded 54; cat; } | sha256)
    { padded 92; raw "$inner"; } | sha256
}

padded() { # NUMBER: the key, each byte combined with it
    local at code
    for ((at = 0; at < 64; at++)); do
        printf -v code %d "'${key:at:1}"
        printf -v code %02x $((code ^ $1))
        raw "$code"
    done
}

raw() { # HEXADECIMAL
    local at
    for ((at = 0; at < ${#1}; at += 2)); do printf %b "\\x${1:at:2}"; done
}

sha256() {
    local sum
    if command -v sha256sum >/dev/null; then sum=$(sha256sum); else sum=$(shasum -a 256); fi
    printf %s "${sum%% *}"
}
