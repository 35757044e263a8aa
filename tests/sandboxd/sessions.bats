# Sessions: one shell each, that keeps its state whatever its commands do.
load rig

# in_session SESSION TEXT [JSON]: the answer of execute
in_session() {
	jq -nc --arg s "$1" --arg c "$2" --argjson more "${3:-"{}"}" '{sessionId: $s, command: $c} + $more' |
		http http://x/api/execute -d @-
}
# says SESSION TEXT [JSON]: its exit code and both streams, as python writes them
says() {
	in_session "$@" | python3 -c 'import json,sys; d=json.load(sys.stdin)
print(d["code"] if "code" in d else "%d %r %r" % (d["exitCode"], d["stdout"], d["stderr"]))'
}
# on SESSION: frames of a command in it; JSON members and stdin follow
on() {
	local id=$1 session=$2 text=$3
	shift 3
	frames start "$(jq -nc --arg i "$id" --arg s "$session" --arg c "$text" '{id: $i, sessionId: $s, command: $c}')" "$@"
}
state() { http "http://x/api/sandboxfs/session?id=$1" | field "[\"session\"]$2"; }
childless() { [ -z "$(ps -o pid= --ppid "$server")" ]; }
commands_in() { [ "$(state "$1" '["commands"]')" = "$2" ]; }

@test "directory, variables, functions, options and umask last, in their session alone" {
	[ "$(says a 'mkdir d; cd d; export E=1; V=2; f() { echo f$1; }; set -f; umask 077')" = "0 '' ''" ]
	[ "$(says a 'pwd; echo $E $V *; f 3; umask; sh -c "echo \$E"')" = "0 '$W/d\\n1 2 *\\nf3\\n0077\\n1\\n' ''" ]
	[ "$(says b 'pwd; echo "$E$V"; umask; type f >/dev/null 2>&1 || echo none')" = "0 '$W\\n\\n0022\\nnone\\n' ''" ]
	[ "$(says __DISABLE_SESSION__ 'pwd; echo "$E$V"')" = "0 '$W\\n\\n' ''" ]
	[ "$(state a '["cwd"]')" = "$W/d" ]
}

@test "without a session it is the default one, as with the API" {
	post execute '{"command":"cd /usr; x=1"}' >/dev/null
	[ "$(post execute '{"command":"pwd; echo $x"}' | field '["stdout"]')" = $'/usr\n1' ]
	[ "$(says default 'pwd')" = "0 '/usr\\n' ''" ]
	[ "$(http http://x/api/execute -H 'X-Session-Id: h' -d '{"command":"y=2; pwd"}' | field '["sessionId"]')" = h ]
	[ "$(http 'http://x/api/execute?session=h' -d '{"command":"echo $y"}' | field '["stdout"]')" = 2 ]
	# a token is no name of a session
	[ "$(http http://x/api/execute -H 'Authorization: Bearer h' -d '{"command":"pwd"}' | field '["stdout"]')" = /usr ]
}

@test "sessions are created, listed and deleted with the API's answers" {
	[ "$(post session/create '{"id":"s/1","env":{"A":"b c","N":null},"cwd":"/usr"}' | field '["data"]["id"]')" = s/1 ]
	[ "$(says s/1 'pwd; echo $A ${N-none}')" = "0 '/usr\\nb c none\\n' ''" ]
	[ "$(status session/create '{"id":"s/1"}')" = "409 SESSION_ALREADY_EXISTS" ]
	[[ $(post session/create '' | field '["data"]["id"]') = session_*_* ]]
	[[ $(post session/create 'nonsense' | field '["data"]["id"]') = session_*_* ]]
	[ "$(http http://x/api/session/list | field '["data"][0], len(d["data"])')" = "('s/1', 3)" ]
	[ "$(post session/delete '{"sessionId":"s/1"}' | field '["sessionId"]')" = s/1 ]
	[ "$(status session/delete '{"sessionId":"s/1"}')" = "500 INTERNAL_ERROR" ]
	[ "$(status session/delete '{}')" = "400 VALIDATION_FAILED" ]
	[ "$(status session/delete 'x')" = "400 VALIDATION_FAILED" ]
	[ "$(status session/create '{"id":" "}')" = "400 VALIDATION_FAILED" ]
	[ "$(status session/create '{"env":{"A":"\u0000"}}')" = "400 VALIDATION_FAILED" ]
	post session/create '{"id":"n","cwd":"/no/such"}' >/dev/null
	run says n 'echo $PWD'
	[[ $output = "0 '/"* && $output != *no/such* ]]
	[ "$(says '' 'echo x' | head -c 1)" = 0 ]
}

@test "an open quote, a syntax error, half a command are errors of that command" {
	says a 'v=kept' >/dev/null
	for text in 'echo "abc' "echo 'abc" 'if true' '}' ')' 'for' 'case x in' 'echo $(' 'echo `' '{ echo' 'f() {' '<' '&&'; do
		run says a "$text"
		[[ $output = "2 '' "?"bash: "*error* || $output = "2 '' "?"bash: "*unexpected* ]]
	done
	[[ $(says a $'cat <<X\nhere') = "0 'here"* ]]
	[[ $(says a 'echo ${none:?not there}; echo no') = "1 '' "*"not there"* ]]
	[[ $(says a 'echo $((1/0))') = "1 '' "* ]]
	[[ $(says a 'nonesuch') = "127 '' "*"command not found"* ]]
	[ "$(says a 'echo $v; trap')" = "0 'kept\\n' ''" ]
}

@test "an exit is that of the command; the next shell begins where the session was" {
	says a 'cd /usr; export E=1 F="a
b"' >/dev/null
	[ "$(says a 'echo out; exit 3')" = "3 'out\\n' ''" ]
	[ "$(state a '["state"], d["session"]["exitCode"]')" = "('ended', 3)" ]
	[ "$(says a 'pwd; echo $E "$F"')" = "0 '/usr\\n1 a\\nb\\n' ''" ]
	[ "$(state a '["state"]')" = alive ]
	[ "$(says a 'set -e; false; echo no')" = "1 '' ''" ]
	[ "$(says a 'exec sh -c "echo replaced; sleep 2; echo ended; exit 4"')" = "4 'replaced\\nended\\n' ''" ]
	[ "$(says a 'pwd; echo $E')" = "0 '/usr\\n1\\n' ''" ]
	# one whose shell has ended makes room for a new one of its name
	says a 'exit' >/dev/null
	[ "$(post session/create '{"id":"a"}' | field '["success"]')" = True ]
	[ "$(says a 'echo $E; pwd')" = "0 '\\n$W\\n' ''" ]
}

@test "a shell that is killed: 410 for what ran, a new one for the next" {
	says a 'cd /usr; export E=1' >/dev/null
	run in_session a 'echo out; kill -9 $$; echo no'
	[ "$(field '["code"], d["httpStatus"], d["context"]' <<<"$output")" = "('SESSION_TERMINATED', 410, {'sessionId': 'a', 'exitCode': 137})" ]
	[ "$(says a 'pwd; echo $E')" = "0 '/usr\\n1\\n' ''" ]
	run on k a 'kill -9 $$'
	[ "${lines[-1]}" = "exit 137 session" ]
	says a true
	kill -9 "$(state a '["pid"]')"
	ended() { [ "$(state a '["state"]')" = ended ]; }
	wait_until 20 ended
	[ "$(says a 'pwd')" = "0 '/usr\\n' ''" ]
}

@test "a command that hides from its shell is found out" {
	says a 'cd /usr' >/dev/null
	# the copies of the shell's own descriptors
	for fds in '10>&-' '11>&-' '12>&-' '10>&- 11>&- 12>&- 13>&-'; do
		says a "exec $fds"
		[ "$(says a 'echo ok')" = "0 'ok\\n' ''" ]
	done
	[ "$(says a 'pwd')" = "0 '/usr\\n' ''" ]
	[ "$(says a 'exec >&- 2>&-; sleep 0.3')" = "0 '' ''" ]
	[ "$(says a 'set -n; echo one')" = "0 'one\\n' ''" ]
	[ "$(says a 'PS1=x PS2=y PROMPT_COMMAND="echo no"; set -v -x; echo two 2>/dev/null' | cut -c1-10)" = "0 'two\\n' " ]
	[ "$(says a 'set +v +x; break; continue; return 5')" != "" ]
	[ "$(says a 'echo three')" = "0 'three\\n' ''" ]
}

@test "streams are exact, whatever the bytes" {
	head -c 3000000 /dev/urandom >"$T/in"
	T=$T on x a 'tee /dev/stderr' "$T/in" >"$T/answer"
	[ "$(cat "$T/answer")" = $'started\nexit 0' ]
	cmp "$T/in" "$T/out"
	cmp "$T/in" "$T/err"
	[ "$(says a 'printf "\\n"')" = "0 '\\n' ''" ]
	[ "$(says a 'printf "a\\0b"; printf "\\303" >&2')" = "0 'a\\x00b' '�'" ]
	for i in {1..30}; do
		[ "$(in_session a 'seq 1 3000' | field '["stdout"]')" = "$(seq 1 3000)" ]
	done
	[ "$(says a 'readlink /proc/self/fd/0')" = "0 '/dev/null\\n' ''" ]
}

@test "a stream is live" {
	mkfifo "$W/go"
	http -N http://x/api/execute/stream -d '{"command":"echo first; read x <go; echo last","sessionId":"a"}' >"$T/events" &
	client=$!
	wait_until 20 grep -q '"data":"first' "$T/events"
	! grep -q '"data":"last' "$T/events" || false
	echo >"$W/go"
	wait $client
	grep -q '"data":"last' "$T/events"
	[ "$(tail -n 2 "$T/events" | cut -c7- | field '["type"], d["exitCode"]')" = "('complete', 0)" ]
	post execute/stream '{"command":"cd /usr; kept=1","sessionId":"a"}' >/dev/null
	[ "$(says a 'pwd; echo $kept')" = "0 '/usr\\n1\\n' ''" ]
}

@test "one after the other in a session, in the order of arrival; side by side in two" {
	mkfifo "$W/go"
	says a 'true' >/dev/null
	in_session a 'read x <go' >/dev/null &
	jobs=($!)
	wait_until 20 commands_in a 1
	for i in 1 2 3 4 5 6; do
		on "c$i" a "echo $i >>order" >/dev/null &
		jobs+=($!)
		wait_until 20 commands_in a $((i + 1))
	done
	[ "$(http http://x/api/sandboxfs/commands/c6 | field '["command"]["pid"]')" = 0 ]
	[ "$(says b 'echo free')" = "0 'free\\n' ''" ]
	[ ! -e "$W/order" ]
	echo >"$W/go"
	wait "${jobs[@]}"
	[ "$(tr -d '\n' <"$W/order")" = 123456 ]
}

@test "50 commands at once over five sessions keep apart" {
	for i in {1..50}; do
		in_session "s$((i % 5))" "for k in 1 2 3; do echo $i; done; n=\$((n + 1)); echo \$n >&2; (exit $i)" >"$T/o$i" &
		jobs[i]=$!
	done
	for i in {1..50}; do wait "${jobs[i]}"; done
	for i in {1..50}; do
		[ "$(field '["exitCode"], d["stdout"]' <"$T/o$i")" = "($i, '$i\\n$i\\n$i\\n')" ]
	done
	for s in 0 1 2 3 4; do [ "$(says s$s 'echo $n')" = "0 '10\\n' ''" ]; done
}

@test "a time-out ends the command, also a deaf one, and the shell stays" {
	says a 'cd /usr; v=1' >/dev/null
	# what it prints before is to come in time
	run in_session a "echo begun; sleep $S; echo never" '{"timeoutMs":3000}'
	[ "$(field '["exitCode"], d["stdout"], d["stderr"]' <<<"$output")" = "(124, 'begun\\n', 'Command timed out after 3000ms')" ]
	[ "$(says a 'while :; do :; done' '{"timeoutMs":100}')" = "124 '' 'Command timed out after 100ms'" ]
	[ "$(says a "f() { g; }; g() { while :; do sleep $S; done; }; f" '{"timeoutMs":100}')" = "124 '' 'Command timed out after 100ms'" ]
	wait_until 20 awake
	[ "$(says a 'pwd; echo $v')" = "0 '/usr\\n1\\n' ''" ]
	[ "$(says a "(trap '' INT TERM; sleep $S; echo no; sleep $S)" '{"timeoutMs":100}')" = "124 '' 'Command timed out after 100ms'" ]
	wait_until 20 awake
	[ "$(says a 'pwd; echo $v')" = "0 '/usr\\n1\\n' ''" ]
	post session/create '{"id":"t","commandTimeoutMs":150}' >/dev/null
	[ "$(says t "sleep $S")" = "124 '' 'Command timed out after 150ms'" ]
}

# A command of session a that has begun to sleep is sent each of these, and nothing that follows in it runs.
ended_by_all() { # SECONDS CHECK...: looks at the answer, in $T/answer
	local how client seconds=$1
	shift
	for how in '{"cancel":true}' '{"signal":"INT"}' '{"signal":"TERM"}' '{"signal":9}'; do
		on "c${#how}" a "echo up; sleep $seconds; echo never" >"$T/answer" &
		client=$!
		up() { http "http://x/api/sandboxfs/commands/c${#how}/output" | grep -q up; }
		wait_until 20 up
		post "sandboxfs/commands/c${#how}/signal" "$how" | field '["success"]'
		wait $client
		"$@"
		! http "http://x/api/sandboxfs/commands/c${#how}/output" | grep never || false
	done
}
exit_by_signal() { [[ $(tail -n 1 "$T/answer") = "exit 1"* ]] || { cat "$T/answer"; false; }; }

@test "a cancel ends the command and keeps the shell and its earlier jobs" {
	says a "v=1; sleep $S & job=\$!" >/dev/null
	wait_until 20 sleeping
	ended_by_all "1000$S" exit_by_signal
	[ "$(says a 'echo $v; kill -0 $job && echo lives')" = "0 '1\\nlives\\n' ''" ]
	sleeping
}

@test "interrupt and kill are there for our client" {
	says a 'v=1' >/dev/null
	[ "$(status sandboxfs/session/signal '{"sessionId":"a","action":"interrupt"}')" = "404 COMMAND_NOT_FOUND" ]
	in_session a "sleep $S" >"$T/answer" &
	client=$!
	wait_until 20 sleeping
	post sandboxfs/session/signal '{"sessionId":"a","action":"interrupt"}' | field '["success"]'
	wait $client
	[ "$(field '["exitCode"]' <"$T/answer")" = 130 ]
	[ "$(says a 'echo $v')" = "0 '1\\n' ''" ]
	in_session a "sleep $S" >"$T/answer" &
	client=$!
	wait_until 20 sleeping
	post sandboxfs/session/signal '{"sessionId":"a","action":"kill"}' | field '["success"]'
	wait $client
	[ "$(field '["code"]' <"$T/answer")" = SESSION_TERMINATED ]
	wait_until 20 awake
	[ "$(state a '["state"], d["session"]["exitCode"]')" = "('ended', 137)" ]
	[ "$(status sandboxfs/session/signal '{"sessionId":"a","action":"kill"}')" = "404 COMMAND_NOT_FOUND" ]
	[ "$(status sandboxfs/session/signal '{"sessionId":"none","action":"kill"}')" = "500 INTERNAL_ERROR" ]
	[ "$(status sandboxfs/session/signal '{"sessionId":"a","action":"hug"}')" = "400 VALIDATION_FAILED" ]
	[ "$(http -o /dev/null -w '%{http_code}' 'http://x/api/sandboxfs/session?id=none')" = 500 ]
}

@test "a command that waits for its turn can be cancelled, and never runs" {
	mkfifo "$W/go"
	in_session a 'read x <go' >/dev/null &
	first=$!
	running() { [ "$(state a '["commands"]')" = 1 ]; }
	wait_until 20 running
	on w a 'touch ran' >"$T/answer" &
	client=$!
	wait_until 20 commands_in a 2
	post sandboxfs/commands/w/signal '{"cancel":true}' | field '["success"]'
	wait $client
	[ "$(tail -n 1 "$T/answer")" = "exit 143 cancelled" ]
	echo >"$W/go"
	wait $first
	[ "$(says a 'ls')" = "0 'go\\n' ''" ]
}

@test "directory and variables of one command are its own" {
	says a 'export A=old; cd /usr' >/dev/null
	[ "$(says a 'echo $A "$B"; sh -c "echo \$A"; pwd; C=new; cd lib' '{"env":{"A":"it'"'"'s","B":"x\ny","N":null},"cwd":"/etc"}')" = \
		"$(python3 -c 'print("0", repr("it'"'"'s x\ny\nit'"'"'s\n/etc\n"), repr("bash: cd: lib: No such file or directory\n"))' | sed 's/^0/1/')" ]
	[ "$(says a 'echo $A ${B-none} $C; pwd')" = "0 'old none new\\n/usr\\n' ''" ]
	[ "$(says a 'pwd' '{"cwd":"lib"}')" = "0 '/usr/lib\\n' ''" ]
	[ "$(says a 'pwd' '{"cwd":"/no/such"}')" = "1 '' \"Failed to change directory to '/no/such'\"" ]
	[ "$(says a 'exit 3' '{"cwd":"/etc"}')" = "3 '' ''" ]
	[ "$(says a 'pwd')" = "0 '/usr\\n' ''" ]
	[ "$(says a 'x' '{"env":{"a b":"c"}}')" = COMMAND_EXECUTION_ERROR ]
	[ "$(says a 'x' '{"env":{"x;touch owned;":"c"}}')" = COMMAND_EXECUTION_ERROR ]
	[ ! -e "$W/owned" ]
}

@test "a background child neither holds the answer nor speaks into another's" {
	mkfifo "$W/go"
	on b a '{ read x <go; echo late; } & echo now' >/dev/null
	[ "$(says a 'echo mine')" = "0 'mine\\n' ''" ]
	in_session a 'echo >go; wait; echo done' >"$T/answer"
	[ "$(field '["stdout"]' <"$T/answer")" = done ]
	late() { http http://x/api/sandboxfs/commands/b/output | grep -q late; }
	wait_until 20 late
}

@test "long scripts, scripts with an interpreter, and nothing left in the spool" {
	python3 - >"$T/long.json" <<-'PY'
		import json
		print(json.dumps({"sessionId": "a", "command": "x=1\n" + "#" + "x" * 2000000 + "\necho done $x"}))
	PY
	[ "$(http http://x/api/execute -d "@$T/long.json" | field '["stdout"]')" = "done 1" ]
	[ "$(says a $'#!/usr/bin/env python3\nprint(6*7)')" = "0 '42\\n' ''" ]
	[[ $(says a $'#!/no/such thing\n') = "127 '' "* ]]
	[ -z "$(ls "$T/spool")" ]
}

@test "processes begin where their session is and end with it" {
	says a 'cd /usr; export A=1' >/dev/null
	post process/start "{\"command\":\"pwd; echo \$A \$B; exec sleep $S\",\"processId\":\"p\",\"sessionId\":\"a\",\"env\":{\"B\":\"2\"}}" | field '["pid"]'
	logs() { [ "$(http http://x/api/process/p/logs | field '["stdout"]')" = $'/usr\n1 2' ]; }
	wait_until 20 logs
	# the session's turn is free
	[ "$(says a 'echo free')" = "0 'free\\n' ''" ]
	post session/delete '{"sessionId":"a"}' >/dev/null
	awake
	[ "$(http http://x/api/process/p | field '["process"]["status"]')" = killed ]
}

@test "the end of a session ends all that it started, and nothing else" {
	says other "v=1; sleep 1000$S &" >/dev/null
	says a "(setsid sh -c 'sleep $S & sleep $S' >/dev/null 2>&1 &); nohup sleep $S >/dev/null 2>&1 &" >/dev/null
	says a "sleep $S & exit 0" >/dev/null
	says a "(trap '' INT TERM HUP; sleep $S; sleep $S) & true" >/dev/null
	in_session a "sleep $S; echo no" >"$T/answer" &
	running=$!
	wait_until 20 commands_in a 1
	in_session a "echo no" >"$T/answer2" &
	waiting=$!
	wait_until 20 commands_in a 2
	wait_until 20 sleeping
	post session/delete '{"sessionId":"a"}' >/dev/null
	wait_until 10 awake
	wait $running $waiting
	[ "$(field '["code"], d["httpStatus"]' <"$T/answer")" = "('SESSION_DESTROYED', 410)" ]
	[ "$(field '["code"]' <"$T/answer2")" = SESSION_DESTROYED ]
	[ "$(says other 'echo $v; kill -0 $! && echo lives')" = "0 '1\\nlives\\n' ''" ]
	[ "$(says a 'echo anew')" = "0 'anew\\n' ''" ]
	post session/delete '{"sessionId":"a"}' >/dev/null
	post session/delete '{"sessionId":"other"}' >/dev/null
	wait_until 20 childless
}

@test "one session made, used and deleted fifty times leaves nothing" {
	for i in {1..50}; do
		[ "$(post session/create '{"id":"a"}' | field '["success"]')" = True ]
		[ "$(post execute '{"command":"echo ${v-none}; v=1; sleep 500 &","sessionId":"a"}' | field '["stdout"]')" = none ]
		post session/delete '{"sessionId":"a"}' >/dev/null
	done
	[ "$(http http://x/api/session/list | field '["data"]')" = "[]" ]
	wait_until 20 childless
	[ -z "$(ls "$T/spool")" ]
}

@test "a server with sessions stops at once" {
	says a "v=1" >/dev/null
	in_session b "sleep $S" >/dev/null &
	client=$!
	wait_until 20 sleeping
	began=$EPOCHREALTIME
	stop
	wait $client || :
	awake
	python3 -c "import sys; assert float('$EPOCHREALTIME') - float('$began') < 5 * ${SLOW}"
}

without_bash() {
	command -v unshare >/dev/null && unshare -rm true || skip "no mount namespaces"
	stop
	: >"$T/none"
	WRAP=(unshare -rm sh -c 'mount --bind "$0" "$(realpath /bin/bash)" && exec "$@"' "$T/none")
	serve
}

@test "where there is no bash, sh keeps the session" {
	without_bash
	[ "$(says a 'mkdir d; cd d; export E=1; V=2; f() { echo f$1; }; umask 077; printf "\303\n" | wc -c')" = "0 '2\\n' ''" ]
	[ "$(says a 'pwd; echo $E $V; f 3; umask; echo $0')" = "0 '$W/d\\n1 2\\nf3\\n0077\\n/bin/sh\\n' ''" ]
	for text in 'echo "abc' 'if true' '}'; do
		[[ $(says a "$text") = "2 '' "*rror* ]]
	done
	[[ $(says a 'echo ${none:?not there}; echo no') = "2 '' "*"not there"* ]]
	[[ $(says a "sleep $S; echo no" '{"timeoutMs":200}') = "124 '' "*"timed out after 200ms'" ]]
	wait_until 20 awake
	[[ $(says a 'while :; do :; done' '{"timeoutMs":200}') = "124 '' "*"timed out after 200ms'" ]]
	[ "$(says a 'echo $V $X' '{"env":{"X":"7"}}')" = "0 '2 7\\n' ''" ]
	[ "$(says a 'exit 3')" = "3 '' ''" ]
	[ "$(says a 'pwd; echo $E')" = "0 '$W/d\\n1\\n' ''" ]
	# one that reads on and does nothing is found out
	[ "$(says a 'set -n')" = SESSION_TERMINATED ]
	[ "$(says a 'pwd; echo $E')" = "0 '$W/d\\n1\\n' ''" ]
	[ "$(says a 'kill -9 $$')" = SESSION_TERMINATED ]
	post session/delete '{"sessionId":"a"}' | field '["success"]'
	wait_until 20 childless
}

interrupted() { # [LIBRARY]
	timeout $((50 * SLOW)) python3 "$BATS_TEST_DIRNAME/interrupts.py" "$T/s" "$@"
	post session/delete '{"sessionId":"a"}' >/dev/null
	post session/delete '{"sessionId":"b"}' >/dev/null
	wait_until 20 childless
	[ -z "$(ls "$T/spool")" ]
}

@test "interrupts at any moment lose no state" {
	interrupted
}

slow_shell() {
	command -v cc >/dev/null || skip "no cc"
	cc -D_GNU_SOURCE -shared -fPIC -o "$T/slow.so" "$BATS_TEST_DIRNAME/slow_shell.c" -ldl
}

@test "interrupts in a shell's rare moments lose no state" {
	slow_shell
	interrupted "$T/slow.so"
}

@test "what follows in a command that is ended does not run, in a shell's rare moments either" {
	slow_shell
	post session/create "{\"id\":\"a\",\"env\":{\"LD_PRELOAD\":\"$T/slow.so\",\"SLOW_SHELL_MS\":\"500\"}}" >/dev/null
	ended_by_all "$S" exit_by_signal
	wait_until 20 awake
}

@test "interrupts at any moment lose no state where there is no bash" {
	without_bash
	interrupted
}

@test "an interrupted command whose shell was lost says so" {
	says a 'v=1' >/dev/null
	in_session a "trap '' INT; >up; while :; do :; done" >"$T/answer" &
	client=$!
	wait_until 20 test -e "$W/up"
	post sandboxfs/session/signal '{"sessionId":"a","action":"interrupt"}' | field '["success"]'
	wait $client
	[ "$(field '["code"]' <"$T/answer")" = SESSION_TERMINATED ]
	[ "$(says a 'echo ${v-none}')" = "0 'none\\n' ''" ]
}
