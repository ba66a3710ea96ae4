# The functions of target.sh that breakpoints.sh stands in for.
s/^attempt() {/attempt_() {/
s/^tool() {/tool_() {/
s/ && "\$@"$/ \&\& perform "$@"/
