#!/bin/bash
# What the original generates, as it does it: host after host, an ssh for each step, rsync, and a health check from here
# that sleeps for a second. (Its `pkill -f` ends its own command too: here the process is known by its pid.)
set -euo pipefail
SSH="ssh -F none -o BatchMode=yes -o UserKnownHostsFile=$KNOWN_HOSTS -i $KEY_FILE"

deploy() {
    $SSH -o ConnectTimeout=10 "root@$1" "echo ok" >/dev/null
    $SSH "root@$1" "mkdir -p $BASE/current"
    rsync -az --delete --exclude "*.pyc" --exclude "__pycache__" --exclude ".git" --exclude "*.log" \
        -e "$SSH" "$SITE/" "root@$1:$BASE/current/"
    $SSH "root@$1" "cd $BASE/current && if [ -f requirements.txt ]; then pip install -r requirements.txt; fi"
    $SSH "root@$1" "cd $BASE/current && { [ ! -e ../pid ] || kill \$(cat ../pid) || true; } &&
        { nohup python3 server.py --port $PORT --address 0.0.0.0 >../log 2>&1 </dev/null & echo \$! >../pid; }"
    for _ in {1..30}; do
        [ "$(curl -sf "http://$1:$PORT/")" != "$VERSION" ] || return 0
        sleep 1
    done
    return 1
}
for host in $HOSTS; do deploy "$host"; done
