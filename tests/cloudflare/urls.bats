# URLs of ports that a bridge makes: what is taken for one, and what becomes of one that it does not take back or that has lost its sandbox.
SERVER=bridge NO_START=1
load ../lib/harness

# A mount by way of the fake, and a sandbox in it.
start_front() {
	mkdir "$T/fake"
	/usr/bin/python3 "$repo/tests/lib/fake_bridge.py" "${BRIDGE_URL##*:}" "$T/fake" >"$T/front" 2>"$T/fake.log" 3>&- &
	echo $! >>"$T/pids"
	wait_until 10 grep -q . "$T/front"
	NAME=t$(head -c 10 /dev/urandom | base32 | tr A-Z a-z)
	url=http://127.0.0.1:$(cat "$T/front")/v1
	M=$MNT/$NAME W=$MNT/$NAME/workspace C=$MNT/$NAME/ctl
	mount_it -o preview-host=ports.example
	mkdir "$M"
}
answers() { # METHOD STATUS BODY: of requests for the URL of port 8080
	echo "-1 $1~/v1/sandbox/[a-z2-7]*/expose/8080 status $2 $3" >"$T/fake/rules.tmp"
	mv "$T/fake/rules.tmp" "$T/fake/rules" # it may be asked for at this moment
}
is_replaced() {
	ls "$W" >/dev/null 2>&1 || :
	[ "$(head -n 1 "$C/status")" = replaced ]
}

@test "a URL is http or https, printable and not endless" {
	local bad
	start_front
	for bad in 'javascript:alert(1)' httpx://x 'https://x/\u001b[2J' 'https://x/ y' "https://$(printf 'x%.0s' {1..3000})"; do
		answers POST 200 "{\"url\":\"$bad\"}"
		run sh -c 'echo web >"$1/ports/8080"' - "$C"
		[ "$status" != 0 ]
		grep -q 'no URL' "$C/error"
		[ ! -e "$C/ports/8080" ]
	done
	answers POST 200 '{"url":"https://8080-a.ports.example/"}'
	echo web >"$C/ports/8080"
	[ "$(cat "$C/ports/8080")" = https://8080-a.ports.example/ ]
}

@test "a URL that the bridge does not take back is still listed, and rm says so each time" {
	start_front
	answers POST 200 '{"url":"https://8080-a.ports.example/"}'
	echo web >"$C/ports/8080"
	answers DELETE 500 '{"error":"no"}'
	run rm "$C/ports/8080"
	[ "$status" != 0 ]
	run rm "$C/ports/8080"
	[ "$status" != 0 ]
	[ "$(ls "$C/ports")" = 8080 ]
	answers DELETE 200 '{}'
	rm "$C/ports/8080"
	[ -z "$(ls "$C/ports")" ]
}

@test "the port of a sandbox that is gone is not listed, and looking asks the bridge for nothing" {
	start_front
	answers POST 200 '{"url":"https://8080-a.ports.example/"}'
	echo web >"$C/ports/8080"
	kill -9 -- "-$(cat "$BRIDGE"/[0-9]*/pid)"
	wait_until 60 is_replaced
	[ -z "$(ls "$C/ports")" ]
	! grep -q '^DELETE .*/expose/' "$T/fake/requests" || false
}
