# Terminals: of sessions, as the API has them, and of our own client's commands.
load rig

pty() { S=$S timeout $((50 * SLOW)) python3 "$BATS_TEST_DIRNAME/pty.py" "$T/s" "$1"; }

@test "the terminal of a session: shared, resized, with jobs; its end is told" { pty session; }
@test "what is no request for a terminal is refused" { pty refusals; }
@test "bytes are exact both ways, to the last" { pty output; }
@test "a broken connection is taken up again; what is typed twice is typed once" { pty resume; }
@test "the end of a terminal ends what runs in it" { pty hangup; }
@test "who does not read holds up nobody" { pty slow; }
@test "vim runs in it" { pty vim; }
@test "frames that are none close the connection alone" { pty nonsense; }

@test "frames of a terminal: output, exit code, vim's own screen" {
	frames start '{"id":"t","command":"stty size; tty >/dev/null; echo $TERM; read x; exit $x","terminal":{"cols":44,"rows":11},"env":{"TERM":"dumb"}}' >"$T/answer" &
	client=$!
	up() { http http://x/api/sandboxfs/commands/t/output | grep -q dumb; }
	wait_until 20 up
	[ "$(http 'http://x/api/sandboxfs/commands/t/input?at=0' --data-binary $'5\n' | field '["typed"]')" = 2 ]
	wait $client
	[ "$(tail -n 1 "$T/answer")" = "exit 5" ]
	[ "$(http http://x/api/sandboxfs/commands/t/output | head -n 2)" = $'11 44\r\ndumb\r' ]
	[ "$(frames start '{"id":"u","command":"x","terminal":{"cols":0}}')" = "400 VALIDATION_FAILED" ]
	[ "$(frames start '{"id":"u","command":"x","terminal":7}')" = "400 VALIDATION_FAILED" ]
}

@test "a terminal in a session begins where that is, and ends with it" {
	post execute '{"command":"cd /usr; export A=1","sessionId":"a"}' >/dev/null
	frames start "{\"id\":\"t\",\"command\":\"pwd; echo A=\$A; sleep $S\",\"terminal\":{},\"sessionId\":\"a\"}" >"$T/answer" &
	client=$!
	up() { http http://x/api/sandboxfs/commands/t/output | tr -d '\r' | tr '\n' ' ' | grep -q '/usr A=1'; }
	wait_until 20 up
	[ "$(post execute '{"command":"echo free","sessionId":"a"}' | field '["stdout"]')" = free ]
	post session/delete '{"sessionId":"a"}' >/dev/null
	wait $client
	wait_until 20 awake
}

@test "a server with terminals stops at once" {
	frames start "{\"id\":\"t\",\"command\":\"exec bash\",\"terminal\":{}}" >/dev/null &
	client=$!
	up() { http http://x/api/sandboxfs/commands/t | grep -q running; }
	wait_until 20 up
	began=$EPOCHREALTIME
	stop
	wait $client || :
	python3 -c "assert float('$EPOCHREALTIME') - float('$began') < 5 * ${SLOW}"
}
