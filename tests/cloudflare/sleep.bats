# Sandboxes that sleep: a mount keeps none awake that nobody uses.
SERVER=bridge
load ../lib/harness

state() { [ "$(head -n 1 "$C/status")" = "$1" ]; }
# For some seconds of looking it is never let go of.
never_rests() {
	local looks
	for looks in {1..80}; do
		! state unknown || return 1
		sleep .05 # between two looks
	done
}

@test "a sandbox that nobody uses is let go of after sleep-after, and gone to again at its next use" {
	echo text >"$W/f"
	wait_until 20 grep -q '^sleeps-at 20' "$C/status"
	echo 'sleep-after 1s' >"$C/ctl"
	[ "$(cat "$C/ctl")" = $'keepalive off\nsleep-after 1s' ]
	wait_until 20 state unknown
	grep -q '^detail .*sleep-after' "$C/status"
	# nothing of the mount is there any more, but the server that it brought in
	wait_until 20 no_terminal
	[ "$(curl_bridge "$NAME/exec" -H 'Content-Type: application/json' -d '{"argv":["true"]}' | grep -c exit_code)" = 1 ]
	# looking wakes nobody
	ls -la "$MNT" >/dev/null
	cat "$C/status" "$C/sync" "$C/error" >/dev/null
	state unknown
	echo 'sleep-after 10m' >"$C/ctl" # or it may have been let go of again when that is looked at
	[ "$(cat "$W/f")" = text ]
	state running
}

@test "what runs keeps it, and keepalive" {
	local pid
	echo 'sleep-after 1s' >"$C/ctl"
	# in parentheses: a descriptor that is closed by an exit is waited for by nobody
	(echo 'until [ -e go ]; do sleep .1; done; echo done' >"$C/exec") &
	pid=$!
	wait_until 20 state running
	never_rests
	touch "$W/go"
	wait "$pid"
	[ "$(cat "$C/exec")" = done ]
	echo 'keepalive on' >"$C/ctl"
	grep -qx 'keepalive on' "$C/status"
	true >"$W/used"
	never_rests
	echo 'keepalive off' >"$C/ctl"
	wait_until 20 state unknown
	run ! sh -c 'echo "sleep-after soon" >"$1"' - "$C/ctl"
}

@test "one that was lost while it was let go of is not taken for the old one" {
	echo text >"$W/f"
	cat "$W/f" >/dev/null
	echo 'sleep-after 1s' >"$C/ctl"
	wait_until 20 state unknown
	curl_bridge "$NAME" -X DELETE
	run ! cat "$W/f"
	wait_until 20 state replaced
	run ! sh -c 'echo new >"$1"' - "$W/g"
	echo accept >"$C/ctl"
	echo new >"$W/g"
	[ "$(ls "$W")" = g ]
}
