#!/bin/sh
# The least that could do it: one connection a host, all in parallel; nothing is verified, nothing kept to go back to.
set -eu
deploy() {
    tar -C "$SITE" -cf - . |
        ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$KNOWN_HOSTS" -i "$KEY_FILE" "root@$1" "
            mkdir -p '$BASE/releases/$VERSION'
            tar -xf - -C '$BASE/releases/$VERSION'
            $RESTART"
}
jobs=
for host in $HOSTS; do
    deploy "$host" &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
