# Functions that run on a target beside those of target.sh, for scripts: rsync fills a folder, which becomes a release.
# GNU find, sed and sort, and awk.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # target.sh or the script assigns some, and the script reads some

receive() { # NAME: an empty folder for it
    partial=$dir/releases/.partial-$1
    empty_partial && got folder "$partial"
}

drop() { tool rm -rf -- "$dir/releases/.partial-$1" "$dir/releases/.partial-$1-secrets"; } # NAME

# The folder becomes a release, named as the library names it: its files with the run configuration, hashed. A release
# that was active before is whole, and not written again. Sets id, and reused where it was there.
adopt() { # NAME SUFFIX CONFIGURATION PATH TEXT…
    partial=$dir/releases/.partial-$1
    suffix=$2
    configuration=$3
    shift 3
    complaint=$(inventory "$partial" 2>&1)
    code=$?
    [ "$code" -eq 0 ] || blame "$complaint" || return 1
    read -r sources <"$partial/.unifyweaver/sources"
    id=$(release_id "$sources")$suffix
    tool rm -f -- "$partial/.unifyweaver/sources" && add_files "$@" && add_secrets && age "$partial" && startable "$partial" && place
}

release_id() { # HASH of the sources, which Prolog writes with quotes unless it begins with a letter
    case $1 in [a-f]*) sources=$1 ;; *) sources="'$1'" ;; esac
    sum=$(printf 'release(%s,%s)' "$sources" "$configuration" | sha256sum)
    printf '%s' "${sum%% *}"
}

add_files() { # PATH TEXT…
    while [ $# -gt 0 ]; do
        { (umask 077 && printf '%s' "$2" >"$partial/$1") &&
            digest "$partial/$1" && printf '%s  %s\n' "$sum" "$1" >>"$partial/.unifyweaver/manifest"; } 2>/dev/null ||
            because no_space || return 1
        shift 2
    done
}

# Secrets arrive beside the folder, in a file that only its owner may read.
add_secrets() {
    [ -f "$partial-secrets/secrets" ] || return 0
    tool mv -- "$partial-secrets/secrets" "$partial/.unifyweaver/secrets" && tool rmdir -- "$partial-secrets" || return 1
    { digest "$partial/.unifyweaver/secrets" && printf '%s  .unifyweaver/secrets\n' "$sum" >>"$partial/.unifyweaver/manifest"; } 2>/dev/null ||
        because no_space
}

place() {
    reused=
    if was_active; then
        reused=yes
        got reused
        tool rm -rf -- "$partial" && { release_at current && [ "$named" = "$id" ] || verify "$id"; } || return 1
    else
        tool rm -rf -- "$dir/releases/$id" && tool mv -T -- "$partial" "$dir/releases/$id" || return 1
    fi
    got id "$id"
}

was_active() {
    [ -d "$dir/releases/$id/.unifyweaver" ] || return 1
    ! in_use "$id" || return 0
    [ -r "$dir/run/history" ] && grep -qxF -- "$id" "$dir/run/history"
}

# Modes as in every release: what others may not read stays private. The manifest of what arrived, and in the file sources the hash over it.
inventory() ( # FOLDER
    LC_ALL=C
    export LC_ALL
    umask 022
    cd "$1" && find . -type d -exec chmod 755 {} + &&
        find . -type f \( -perm /111 \( -perm -004 -exec chmod 755 {} + -o -exec chmod 700 {} + \) -o \
            -perm -004 -exec chmod 644 {} + -o -exec chmod 600 {} + \) && mkdir -- .unifyweaver .unifyweaver/work || exit
    work=.unifyweaver/work
    find . -path ./.unifyweaver -prune -o -type l -printf 'l 0 %p\0' -o -type f \( -perm 644 -printf 'f %s %p\0' -o \
        -perm 755 -printf 'x %s %p\0' -o -perm 600 -printf 'p %s %p\0' -o -printf 'q %s %p\0' \) >$work/found && sort -z -t ' ' -k 3 $work/found | escaped >$work/entries || exit
    find . -path ./.unifyweaver -prune -o -type l -printf '%p\0%l\0' | escaped >$work/links || exit
    find . -path ./.unifyweaver -prune -o -type f -print0 >$work/files &&
        xargs -0 -r sha256sum -z -- <$work/files >$work/hashed && escaped <$work/hashed >$work/sums || exit
    work=$work awk "$plain$list" >$work/stream && digest $work/stream && printf '%s' "$sum" >.unifyweaver/sources &&
        mv -- $work/manifest .unifyweaver/manifest && rm -rf -- $work
)

# Each ended by a line end instead of NUL, and what must be escaped in a manifest escaped.
escaped() { sed -z 's/\\/\\\\/g; s/\n/\\n/g; s/\r/\\r/g' | tr '\0' '\n'; }

# Writes the manifest, and to standard output what the hash of the sources is over: kind, path and content (or target) of
# each, with their lengths.
# shellcheck disable=SC2016  # expanded by awk
list='
function number(n,   i, byte) {
    for (i = 0; i < 8; i++) { byte[i] = n % 256; n = int(n / 256) }
    while (i > 0) printf "%c", byte[--i]
}
function sized(text) { number(length(text)); printf "%s", text }
function raw(hex,   i) {
    for (i = 1; i < 64; i += 2)
        printf "%c", 16 * index("123456789abcdef", substr(hex, i, 1)) + index("123456789abcdef", substr(hex, i + 1, 1))
}
function written(path) { return kind ~ /[pq]/ ? "./" path : path == "-" ? "././-" : path }
function tabbed(text) { gsub(/\t/, "\\t", text); return text }
BEGIN {
    work = ENVIRON["work"]; manifest = work "/manifest"
    while ((getline line <(work "/sums")) > 0) sum[substr(line, 67)] = substr(line, 1, 64)
    while ((getline line <(work "/links")) > 0) { getline to <(work "/links"); target[line] = to }
    while ((getline line <(work "/entries")) > 0) {
        kind = substr(line, 1, 1)
        size = substr(line, 3)
        name = substr(size, index(size, " ") + 1)
        size += 0
        path = substr(name, 3)
        printf "%s", kind == "p" ? "f" : kind == "q" ? "x" : kind
        sized(plain(path))
        if (kind == "l") {
            sized(plain(target[name]))
            print "#link " tabbed(path) "\t" tabbed(target[name]) >manifest
        } else {
            number(size)
            raw(sum[name])
            print (index(path, "\\") ? "\\" : "") sum[name] (kind ~ /[xq]/ ? " *" : "  ") written(path) >manifest
        }
    }
}
'
