# Run on a host by every recipe, after `set -- BASE VERSION PORT`: switch, restart, and wait for the new version.
# shellcheck shell=sh
set -e
ln -sfn "$1/releases/$2" "$1/current"
[ ! -e "$1/pid" ] || kill "$(cat "$1/pid")" || :
cd "$1/current"
setsid python3 server.py --port "$3" >"$1/log" 2>&1 </dev/null &
echo $! >"$1/pid"
for _ in $(seq 1000); do
    [ "$(curl -s "http://127.0.0.1:$3/")" != "$2" ] || exit 0
    sleep 0.02
done
exit 1
