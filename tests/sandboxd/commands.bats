# Commands: how they are run, what is kept of them, how they end.
load rig

@test "execute gives both streams and the exit code" {
	run post execute '{"command":"echo hi; echo no >&2; exit 3","sessionId":"__DISABLE_SESSION__"}'
	[ "$(field '["stdout"]+d["stderr"]' <<<"$output")" = $'hi\nno' ]
	[ "$(field '["exitCode"]' <<<"$output")" = 3 ]
	[ "$(field '["success"]' <<<"$output")" = False ]
}

@test "a command has descriptors 0 1 2, umask 022, default signals, a clean environment" {
	run post execute '{"command":"python3 -c \"import os; print(sorted(map(int, os.listdir(\\\"/proc/self/fd\\\")))[:4], oct(os.umask(0)), os.getsid(0) == os.getpgid(0) == os.getppid())\"; true","sessionId":"__DISABLE_SESSION__"}'
	[ "$(field '["stdout"]' <<<"$output")" = "[0, 1, 2, 3] 0o22 True" ]
	run post execute '{"command":"exec grep -E \"Sig(Blk|Ign)\" /proc/self/status","sessionId":"__DISABLE_SESSION__"}'
	# 32 and 33 are the C library's own: no program can change what it inherited of them, and make's children do
	run field '["stdout"]' <<<"$output"
	[ "${lines[0]}" = $'SigBlk:\t0000000000000000' ]
	[ $((0x${lines[1]##*$'\t'} & ~0x180000000)) = 0 ]
	run post execute '{"command":"env | sort","env":{"A":"b=c","HOME":"/h","N":null}}'
	run field '["stdout"]' <<<"$output"
	[[ $output = *A=b=c* && $output = *HOME=/h* && $output = *LC_ALL=C.UTF-8* && $output != *ASAN* ]]
	[ "$(grep -cv -E '^(A|HOME|LANG|LC_ALL|PATH|PWD|OLDPWD|SHELL|SHLVL|USER|_)=' <<<"$output")" = 0 ]
}

@test "a missing cwd is an error of its own" {
	[ "$(status execute '{"command":"pwd","cwd":"/no","sessionId":"__DISABLE_SESSION__"}')" = "500 COMMAND_EXECUTION_ERROR" ]
	run post execute '{"command":"pwd","cwd":"/no"}'
	[ "$(field '["stderr"]' <<<"$output")" = "Failed to change directory to '/no'" ]
	[ "$(status execute/stream '{"command":"pwd","cwd":"/no","sessionId":"__DISABLE_SESSION__"}')" = "500 STREAM_START_ERROR" ]
	mkdir "$W/sub"
	[ "$(post execute '{"command":"pwd","cwd":"sub"}' | field '["stdout"]')" = "$W/sub" ]
}

@test "a time-out ends the command and says so" {
	# its shell has to come up before, and to print
	run post execute "{\"command\":\"echo begun; sleep $S; echo never\",\"timeoutMs\":3000}"
	[ "$(field '["exitCode"]' <<<"$output")" = 124 ]
	[ "$(field '["stdout"]' <<<"$output")" = begun ]
	[[ $(field '["stderr"]' <<<"$output") = *"Command timed out after 3000ms" ]]
	wait_until 20 awake
}

@test "a background child that keeps the pipe does not hold the answer, and what it prints is kept" {
	frames start "{\"id\":\"a\",\"command\":\"{ sleep $S; } & echo now\"}" >"$T/answer"
	[ "$(cat "$T/answer")" = $'started\nexit 0' ]
	wait_until 20 sleeping
	frames start '{"id":"b","command":"{ read x <fifo; echo late; } & mkfifo fifo; echo now"}' >/dev/null || :
	mkfifo "$W/fifo2"
	T=$T frames start '{"id":"c","command":"{ read x <fifo2; echo late; } & echo now"}' >"$T/answer"
	[ "$(cat "$T/out")" = now ]
	echo >"$W/fifo2"
	late() { http "http://x/api/sandboxfs/commands/c/output" | grep -q late; }
	wait_until 20 late
}

@test "the last bytes of a command are never lost" {
	for i in {1..40}; do
		[ "$(post execute '{"command":"seq 1 3000"}' | field '["stdout"]')" = "$(seq 1 3000)" ]
	done
}

@test "50 commands at once each get their own output" {
	for i in {1..50}; do
		post execute "{\"command\":\"for k in 1 2 3 4 5; do echo $i; done; head -c 200000 /dev/zero | tr '\\\\0' $((i % 10)); exit $i\",\"sessionId\":\"__DISABLE_SESSION__\"}" >"$T/o$i" &
		jobs[i]=$!
	done
	for i in {1..50}; do wait "${jobs[i]}"; done
	for i in {1..50}; do
		[ "$(field '["exitCode"]' <"$T/o$i")" = "$i" ]
		[ "$(field '["stdout"].count("\n")' <"$T/o$i")" = 5 ]
		[ "$(field "[\"stdout\"].count(\"$((i % 10))\") >= 200000" <"$T/o$i")" = True ]
	done
}

@test "events hold characters together and end with complete" {
	post execute/stream '{"command":"for i in $(seq 2000); do printf \"aä€😀\"; done; printf \"\\xe2\\x82\"; exit 4"}' >"$T/events"
	python3 - "$T/events" <<-'PY'
		import json, sys
		events = [json.loads(l[6:]) for l in open(sys.argv[1]) if l.strip()]
		assert [e["type"] for e in events[:1]] == ["start"], events[0]
		assert events[-1]["type"] == "complete" and events[-1]["exitCode"] == 4
		text = "".join(e["data"] for e in events if e["type"] == "stdout")
		assert text == "aä€😀" * 2000 + "\ufffd", text[-20:]
	PY
}

@test "stdin, stdout and stderr pass byte for byte" {
	head -c 3000000 /dev/urandom >"$T/in"
	T=$T frames start '{"id":"a","command":"tee /dev/stderr"}' "$T/in" >"$T/answer"
	[ "$(cat "$T/answer")" = $'started\nexit 0' ]
	cmp "$T/in" "$T/out"
	cmp "$T/in" "$T/err"
}

@test "a stream is taken up again at any byte, and starting twice is starting once" {
	T=$T frames start '{"id":"a","command":"echo one; echo two >&2; echo >>count; exit 5"}'
	frames start '{"id":"a","command":"echo other"}'
	[ "$(wc -l <"$W/count")" = 1 ]
	T=$T frames attach a 2
	[ "$(cat "$T/out")" = e ]
	[ "$(cat "$T/err")" = two ]
	[ "$(frames attach a 100)" = "416 VALIDATION_FAILED" ]
	[ "$(frames attach b 0)" = "404 PROCESS_NOT_FOUND" ]
	[ "$(http 'http://x/api/sandboxfs/commands/a/output?view=stderr&offset=1&length=1')" = w ]
	[ "$(http http://x/api/sandboxfs/commands/a | field '["command"]["sizes"]["both"]')" = 8 ]
}

@test "output beyond the limit: the oldest goes, and the gap is told" {
	stop
	serve --output-max 100000
	T=$T frames start '{"id":"a","command":"seq 1 100000"}' >/dev/null
	run env T="$T" python3 "$BATS_TEST_DIRNAME/frames.py" "$T/s" attach a 0
	[[ $output = *gap* && $output = *"exit 0" ]]
	[ "$(stat -c %s "$T/out")" = 100000 ]
	[ "$(tail -n 1 "$T/out")" = 100000 ]
	[ "$(http -w '%{http_code}' 'http://x/api/sandboxfs/commands/a/output?offset=5')" = 416 ]
}

@test "cancel ends the whole tree, deaf ones after two seconds" {
	frames start "{\"id\":\"a\",\"command\":\"trap : TERM; setsid sleep $S & (trap '' TERM; sleep $S; sleep $S) & sleep $S; sleep $S\"}" >"$T/answer" &
	client=$!
	wait_until 20 sleeping
	[ "$(post sandboxfs/commands/a/signal '{"cancel":true}' | field '["success"]')" = True ]
	wait_until 10 awake
	wait $client
	[[ $(tail -n 1 "$T/answer") = "exit "*cancelled ]]
	[ "$(status sandboxfs/commands/a/signal '{"cancel":true}')" = "404 COMMAND_NOT_FOUND" ]
}

@test "a signal reaches the command once" {
	mkfifo "$W/ready"
	frames start '{"id":"a","command":"trap \"echo got\" USR1; trap \"echo end; exit 9\" INT; echo >ready; while :; do sleep 0.05; done"}' >"$T/answer" &
	client=$!
	read -r _ <"$W/ready"
	post sandboxfs/commands/a/signal '{"signal":"SIGUSR1"}'
	got() { http http://x/api/sandboxfs/commands/a/output | grep -q got; }
	wait_until 20 got
	post sandboxfs/commands/a/signal '{"signal":2}'
	wait $client
	[ "$(http 'http://x/api/sandboxfs/commands/a/output?view=stdout')" = $'got\nend' ]
	[ "$(tail -n 1 "$T/answer")" = "exit 9" ]
	[ "$(status sandboxfs/commands/a/signal '{"signal":"NONSENSE"}')" = "400 VALIDATION_FAILED" ]
}

@test "a cancel that comes before its start wins" {
	[ "$(status sandboxfs/commands/a/signal '{"cancel":true}')" = "404 PROCESS_NOT_FOUND" ]
	[ "$(frames start '{"id":"a","command":"echo no"}')" = "409 OPERATION_INTERRUPTED" ]
	[ "$(frames start '{"id":"a","command":"echo yes"}')" = $'started\nexit 0' ]
}

@test "a client that leaves does not end its command" {
	local clients=()
	commands() { [ "$(http 'http://x/api/sandboxfs/session?id=default' | field '["session"]["commands"]')" = "$1" ]; }
	curl -s --unix-socket "$T/s" http://x/api/execute -d '{"command":"until [ -e go ]; do sleep 0.05; done; echo done >result"}' &
	clients+=($!)
	wait_until 20 commands 1
	curl -s --unix-socket "$T/s" http://x/api/execute/stream -d '{"command":"echo done >result2"}' >"$T/events" &
	clients+=($!)
	wait_until 20 commands 2
	kill "${clients[@]}"
	wait_until 20 alone
	touch "$W/go"
	wait_until 20 test -s "$W/result" -a -s "$W/result2"
}

@test "long scripts and scripts with an interpreter run from a file that goes away" {
	python3 - >"$T/long.json" <<-'PY'
		import json
		print(json.dumps({"command": "#" + "x" * 1000000 + "\necho done"}))
	PY
	[ "$(http http://x/api/execute -d "@$T/long.json" | field '["stdout"]')" = done ]
	[ "$(post execute '{"command":"#!/usr/bin/env python3\nprint(6*7)"}' | field '["stdout"]')" = 42 ]
	run post execute '{"command":"#!/no/such thing\n"}'
	[ "$(field '["exitCode"]' <<<"$output")" = 127 ]
	[ -z "$(ls "$T/spool")" ]
}

@test "orphans are adopted and no zombie stays" {
	for i in {1..20}; do post execute '{"command":"for i in 1 2 3; do (setsid sh -c \"sleep 0.0$i & exit\" >/dev/null 2>&1 &) ; done","sessionId":"__DISABLE_SESSION__"}' >/dev/null; done
	childless() { [ -z "$(ps -o pid= --ppid "$server")" ]; }
	wait_until 10 childless
}

@test "TERM stops everything that was started" {
	post process/start "{\"command\":\"trap '' TERM; (trap '' TERM; setsid sleep $S) & sleep $S\"}" >/dev/null
	frames start "{\"id\":\"a\",\"command\":\"sleep $S\"}" >"$T/answer" &
	client=$!
	wait_until 20 sleeping
	wait_until 20 grep -q started "$T/answer"
	stop
	wait $client
	awake
	[ ! -e "$T/s" ]
	[ "$(cat "$T/answer")" = $'started\nexit 143' ]
}

@test "a client that has nothing more to say is still answered" {
	python3 - "$T/s" <<-'PY'
		import socket, sys
		s = socket.socket(socket.AF_UNIX)
		s.connect(sys.argv[1])
		body = b'{"command":"sleep 2; echo done"}'
		s.sendall(b"POST /api/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
		s.shutdown(socket.SHUT_WR)
		answer = b""
		while b'"stdout":"done\\n"' not in answer:
		    part = s.recv(65536)
		    assert part, answer
		    answer += part
	PY
}

@test "with a limit of processes a fork bomb stays small and sandboxd answers" {
	[ "$(id -u)" != 0 ] || command -v setpriv >/dev/null || skip "no setpriv"
	stop
	if [ "$(id -u)" = 0 ]; then
		chmod 777 "$T" "$W" "$T/spool"
		WRAP=(setpriv --reuid 54321 --regid 54321 --clear-groups --bounding-set=-all)
	fi
	serve --processes 60
	frames start '{"id":"a","command":"f() { f | f & }; f; sleep 5"}' >"$T/answer" &
	bomb=$!
	wait_until 20 grep -q started "$T/answer"
	[ "$(post execute '{"command":"ulimit -u"}' | field '["stdout"]')" = 60 ]
	[ "$(http http://x/api/ping | field '["status"]')" = healthy ]
	post sandboxfs/commands/a/signal '{"cancel":true}'
	wait "$bomb"
}

@test "nonsense is refused and nothing breaks" {
	[ "$(status execute 'nonsense')" = "500 INTERNAL_ERROR" ]
	[ "$(status execute 'null')" = "500 INTERNAL_ERROR" ]
	[ "$(status execute "{'command':'x'}")" = "500 INTERNAL_ERROR" ]
	[ "$(status execute '{"command":"x"} x')" = "500 INTERNAL_ERROR" ]
	[ "$(status execute '{}')" = "500 COMMAND_EXECUTION_ERROR" ]
	[ "$(status execute '[1]')" = "500 COMMAND_EXECUTION_ERROR" ]
	[ "$(status execute '{"command":5}')" = "500 COMMAND_EXECUTION_ERROR" ]
	[ "$(status execute '{"command":"a\u0000b"}')" = "500 COMMAND_EXECUTION_ERROR" ]
	[ "$(status execute '{"command":"x","sessionId":" "}')" = "500 INTERNAL_ERROR" ]
	[ "$(status execute '{"command":"x","env":[1]}')" = "400 VALIDATION_FAILED" ]
	[ "$(status execute '{"command":"x","env":{"A":"\u0000"}}')" = "400 VALIDATION_FAILED" ]
	[ "$(status execute/stream '{"command":" "}')" = "400 INVALID_COMMAND" ]
	[ "$(status process/start '{"command":""}')" = "400 INVALID_COMMAND" ]
	[ "$(status process/start '{"command":"x","processId":"a/b"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status execute "$(printf '[%.0s' {1..100000})")" = "500 INTERNAL_ERROR" ]
	[ "$(status sandboxfs/commands 'xx')" = "400 VALIDATION_FAILED" ]
	[ "$(status sandboxfs/batch 'xx')" = "400 VALIDATION_FAILED" ]
	[ "$(frames start '{"id":"a/b","command":"x"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status nothing '{}')" = "404 UNKNOWN_ERROR" ]
	[ "$(http -X PATCH -w '%{http_code}' -o /dev/null http://x/api/ping)" = 500 ]
	head -c 134217729 /dev/zero >"$T/large"
	[ "$(http -w '%{http_code}' -o /dev/null http://x/api/write -T "$T/large" -X POST)" = 413 ]
	[ "$(http -w '%{http_code}' -o /dev/null http://x/api/write -T - -X POST <"$T/large")" = 413 ]
	[ "$(http http://x/api/ping | field '["status"]')" = healthy ]
}
