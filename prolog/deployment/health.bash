# A health check as a script.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the head of the script assigns some

check() { reach "$PORT" && healthy_in_tries "$(service_url "$PORT" "$ENDPOINT")" "$RETRIES" "$DELAY" "$TIMEOUT"; }

needs "${TOOLS[@]}"
prepare_to_ask
if check; then
    announce "OK: $SERVICE on $HOST is healthy"
else
    complain "CRITICAL: $SERVICE on $HOST: health check failed after $RETRIES attempts"
    exit 2
fi
