# Commands through exec, exec.json, runs/ and processes/: what comes back, when, and what ends them.
load ../lib/harness

# bats test_tags=server
@test "a command's write returns when it has ended, with output and exit code to read" {
	echo 'echo out; echo err >&2; exit 3' >"$C/exec"
	[ "$(cat "$C/last/exit")" = 3 ]
	[ "$(cat "$C/last/stdout")" = out ]
	[ "$(cat "$C/last/stderr")" = err ]
	[ "$(cat "$C/exec" | sort)" = $'err\nout' ]
	[ "$(cat "$C/last/cmd")" = 'echo out; echo err >&2; exit 3' ]
	[ "$(cat "$C/last/logs" | sort)" = $'err\nout' ]
	[[ $(cat "$C/last/duration") =~ ^[0-9]+\.[0-9]+$ ]]
	[[ $(cat "$C/last/started") =~ ^20[0-9]{2}-.*Z$ ]]
}

@test "a script of many lines is one run" {
	cat >"$C/exec" <<-'E'
		a=1
		b=2
		echo $((a + b))
	E
	[ "$(cat "$C/exec")" = 3 ]
	printf 'x=5\necho $x\n' >"$C/exec"
	[ "$(cat "$C/exec")" = 5 ]
	{ echo 'y=7'; echo 'echo $y'; } >"$C/exec"
	[ "$(cat "$C/exec")" = 7 ]
}

@test "a script with #! runs under its interpreter" {
	printf '#!/usr/bin/python3\nprint(6*7)\n' >"$C/exec"
	[ "$(cat "$C/exec")" = 42 ]
}

# bats test_tags=server
@test "a conversation streams each command's output to its end (sandboxfs-ctl(5)'s lines for scripts)" {
	local n
	exec 5<>"$C/exec"
	read -r n <&5
	echo 'echo hello; exit 4' >&5
	[ "$(cat <&5)" = hello ]
	[ "$(cat "$C/runs/$n/exit")" = 4 ]
	echo 'echo again' >&5
	[ "$(cat <&5)" = again ]
	exec 5>&-
}

# bats test_tags=server
@test "a late error meets the next reader, but not behind a success" {
	local f
	for f in exec exec.json processes/new env code/mine/language; do
		mkdir -p "$C/code/mine"
		case $f in
		exec) good='echo alive' bad='a\0b' ;;
		exec.json) good='{"command":"echo alive"}' bad='{"command":1}' ;;
		processes/new) good='{"command":"true"}' bad='{"command":1}' ;;
		env) good=A=b bad=1=2 ;;
		*) good=python bad=latin ;;
		esac
		printf "$bad" >"$C/$f" || :
		run cat "$C/$f"
		[ "$status" = 1 ] || { echo "$f: nothing was said"; return 1; }
		cat "$C/$f" >/dev/null
		printf "$bad" >"$C/$f" || :
		echo "$good" >"$C/$f"
		cat "$C/$f" >"$T/read" || { echo "$f"; return 1; }
	done
	echo 'echo alive' >"$C/exec"
	[ "$(cat "$C/exec")" = alive ]
}

@test "output arrives while the command runs" {
	local line
	exec 5<>"$C/exec"
	read -r line <&5
	echo 'echo first; until [ -e go ]; do sleep 0.05; done; echo second' >&5
	read -r -t $((10 * SLOW)) line <&5
	[ "$line" = first ]
	touch "$W/go"
	[ "$(within 10 cat <&5)" = second ]
	exec 5>&-
}

# bats test_tags=server
@test "output passes byte for byte: NUL, bytes that are not UTF-8, split characters (row 22)" {
	x 'head -c 1048576 /dev/urandom > bytes'
	x 'cat bytes' >"$T/out"
	cmp "$T/out" "$W/bytes"
	x "python3 -c 'import sys, time
for i in range(300): sys.stdout.buffer.write(chr(0x20ac).encode()[i % 3:i % 3 + 1]); sys.stdout.flush()'" >"$T/out"
	[ "$(cat "$T/out")" = "$(printf '€%.0s' {1..100})" ]
	x "for i in 1 2 3 4 5 6 7 8; do printf '\\342'; sleep 0.01; printf '\\202'; sleep 0.01; printf '\\254'; done" >"$T/euro"
	[ "$(cat "$T/euro")" = '€€€€€€€€' ]
	x 'printf "a\\000b\\377c"' >"$T/out"
	[ "$(od -An -c "$T/out" | tr -s ' ')" = ' a \0 b 377 c' ]
	cat "$C/last/stdout" >"$T/out"
	[ "$(od -An -c "$T/out" | tr -s ' ')" = ' a \0 b 377 c' ]
}

@test "stdin is empty, the working directory is /workspace, nothing of this host's environment is there" {
	export LEAK_ME=secret
	[ "$(x 'cat; pwd; echo "$LEAK_ME"')" = $'/workspace' ]
}

@test "exec keeps no state from one command to the next" {
	x 'cd /tmp; export A=1'
	[ "$(x 'echo "$PWD$A"')" = /workspace ]
}

@test "a command never sees yesterday's file, and we never see yesterday's result: 200 rounds" {
	local i
	mkdir "$W/r"
	for i in $(seq 200); do
		echo x >"$W/r/d"
		echo "echo $i > r/f; mv r/d r/e" >"$C/exec"
		[ "$(cat "$W/r/f")" = "$i" ] || { echo "round $i: $(cat "$W/r/f")"; return 1; }
		[ "$(ls "$W/r" | xargs)" = 'e f' ] || { echo "round $i: $(ls "$W/r")"; return 1; }
	done
}

@test "what is dirty in an open file or a mapping is in the sandbox before a command" {
	within 30 /usr/bin/python3 - "$W/m" "$C/exec" <<-E
		import mmap, os, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
		os.write(fd, b"-" * 8192)
		m = mmap.mmap(fd, 8192)
		m[5000:5005] = b"dirty"
		with open(sys.argv[2], "w") as f: f.write("cut -c5001-5005 m")
		out = open(sys.argv[2]).read()
		assert out == "dirty\n", out
	E
}

# bats test_tags=server
@test "50 commands at once from 50 shells: each gets its own output (rows 21 and 4)" {
	local i pids=()
	mkdir "$W/at"
	for i in $(seq 50); do
		(
			n=
			exec 5<>"$C/exec" && read -r n <&5 && echo "$(meet $i); seq $i 1000" >&5 && cat <&5 >"$T/out$i"
			[ "$(cat "$C/runs/$n/exit")" = 0 ]
			exec 5>&-
		) 3>&- &
		pids+=($!)
	done
	all_meet 50
	for i in "${pids[@]}"; do wait "$i" || { echo "a shell failed"; return 1; }; done
	for i in $(seq 50); do
		cmp "$T/out$i" <(seq "$i" 1000) || { echo "$i mixed"; return 1; }
	done
}
# meet NUMBER: shell text that goes on when all_meet has seen all of them there: only commands that run at once come so far.
meet() { echo ": >at/$1; until [ -e go ]; do sleep 0.5; done"; }
all_meet() { # HOW-MANY
	wait_until 60 all_there "$1"
	: >"$W/go"
}
all_there() { [ "$(ls "$W/at" | wc -l)" = "$1" ]; }

@test "50 writes to exec at once do not wait for each other" {
	local i pids=()
	mkdir "$W/at"
	for i in $(seq 50); do
		# not as its last command: a close by a process that exits is answered at once
		(echo "$(meet $i); echo $i > out$i" >"$C/exec"; :) 3>&- &
		pids+=($!)
	done
	all_meet 50
	wait "${pids[@]}"
	[ "$(cat "$W"/out* | sort -n | xargs)" = "$(seq -s ' ' 50)" ]
}

# By the whole command line: where the sandbox sees this machine's processes, shells of the test name the command as well.
count_is() { [ "$(other "pgrep -fxc '$2'")" = "$1" ]; }
nothing_sleeps() { count_is 0 "sleep $S"; }
sleeps() { count_is 1 "sleep $S"; }
# bats test_tags=server
@test "^C ends a sleep 1000 within a second and nothing of it stays in the sandbox (rows 5 and 13)" {
	local pid began took i
	for i in 1 2 3; do
		bash -c "echo 'sleep $S' > $C/exec" 3>&- &
		pid=$!
		wait_until 10 sleeps
		began=$(date +%s%N)
		# ^C reaches every process of the foreground group; a background child ignores INT, so TERM stands for it
		kill -TERM $pid
		wait $pid || :
		took=$(($(date +%s%N) - began))
		wait_until 10 nothing_sleeps
		# this machine may have been busy with something else, once
		((took >= 1000000000 * SLOW)) || break
	done
	((took < 1000000000 * SLOW))
	[ "$(x 'echo next')" = next ]
}

@test "^C at a terminal ends the command (expect)" {
	command -v expect >/dev/null || skip 'no expect'
	cat >"$T/e" <<-E
		set timeout $((10 * SLOW))
		spawn -noecho bash --norc --noprofile
		send "PS1='rea''dy> '\r"
		expect "ready> " {} timeout { exit 2 }
		# this machine may be busy with something else, once
		for {set i 0; set took 0} {\$i < 3 && (!\$i || \$took > $((1000 * SLOW)))} {incr i} {
			file delete $W/begun
			send "echo 'echo begun > begun; sleep $S' > $C/exec\r"
			set began [clock milliseconds]
			while {![file exists $W/begun]} {
				if {[clock milliseconds] - \$began > $((10000 * SLOW))} { exit 4 }
				after 50
			}
			set began [clock milliseconds]
			send "\003"
			expect "ready> " {} timeout { exit 3 }
			set took [expr {[clock milliseconds] - \$began}]
		}
		if {\$took > $((1000 * SLOW))} { exit 5 }
		send "exit\r"
		expect eof
	E
	within 100 expect -f "$T/e" 3>&-
	wait_until 10 nothing_sleeps
}

@test "a resized terminal and a background job's end disturb nothing during an exec" {
	mkfifo "$T/end"
	bash -c 'trap : WINCH CHLD; read <"$2/end" & echo $! >"$2/job"
		echo "touch begun; until [ -e go ]; do sleep 0.05; done; touch ok" >"$1" && touch "$2/fine"' - "$C/exec" "$T" 3>&- &
	local pid=$! i
	wait_until 20 test -e "$W/begun"
	for i in 1 2 3 4 5 6 7 8; do
		kill -WINCH $pid
		read -r -t 0.2 <> <(:) || :
		[ $i != 4 ] || { echo >"$T/end"; wait_until 10 gone "$(cat "$T/job")"; }
	done
	touch "$W/go"
	wait $pid
	[ -e "$T/fine" ]
	[ -e "$W/ok" ]
}

@test "kill -9 of the writer: the command can be cancelled, the mount goes on (row 13)" {
	bash -c "echo 'sleep $S' > $C/exec" 3>&- &
	local pid=$!
	wait_until 10 sleeps
	kill -9 $pid
	wait_until 10 gone $pid
	echo cancel >"$C/ctl"
	wait_until 10 nothing_sleeps
	[ "$(x 'echo next')" = next ]
}

@test "the last close of a conversation ends what it still runs" {
	local n
	exec 5<>"$C/exec"
	read -r n <&5
	echo "sleep $S" >&5
	wait_until 10 sleeps
	exec 5>&-
	wait_until 10 nothing_sleeps
}

@test "a run's exit is empty while it runs" {
	local n
	exec 5<>"$C/exec"
	read -r n <&5
	echo 'until [ -e go ]; do sleep 0.05; done; exit 9' >&5
	[ -z "$(cat "$C/runs/$n/exit")" ]
	touch "$W/go"
	within 10 cat <&5
	[ "$(cat "$C/runs/$n/exit")" = 9 ]
	exec 5>&-
}

@test "a command that kills itself says 128 + the signal" {
	run x 'kill -9 $$'
	[ "$status" = 137 ]
	run x 'definitely-not-a-command'
	[ "$status" = 127 ]
}

json() { # REQUEST: the events of one call
	local f
	exec {f}<>"$C/exec.json"
	printf '%s\n' "$1" >&"$f"
	cat <&"$f"
	exec {f}>&-
}
# bats test_tags=server
@test "exec.json gives events with output, exit code and times" {
	json '{"command":"echo out; echo err >&2; exit 3"}' >"$T/events"
	jq -e . "$T/events" >/dev/null
	[ "$(jq -rs 'map(select(.type == "stdout") | .data) | add' "$T/events")" = out ]
	[ "$(jq -rs 'map(select(.type == "stderr") | .data) | add' "$T/events")" = err ]
	[ "$(tail -n 1 "$T/events" | jq -r '.type')" = exit ]
	[ "$(tail -n 1 "$T/events" | jq -r '.exitCode // .code')" = 3 ]
	jq -r .timestamp "$T/events" | sort -c
}

@test "exec.json: cwd and env hold for that command only, values with quotes arrive (row 20)" {
	mkdir "$W/sub"
	json '{"command":"pwd; printf %s \"$V\"","cwd":"/workspace/sub","env":{"V":"it'"'"'s \"q\" $x `y`\nline"}}' >"$T/events"
	[ "$(jq -rs 'map(select(.type == "stdout") | .data) | add' "$T/events")" = $'/workspace/sub\nit\'s "q" $x `y`\nline' ]
	[ "$(x 'echo "$V$PWD"')" = /workspace ]
}

# bats test_tags=server
@test "exec.json: stdin with quotes, NUL and 10 MB arrives byte for byte (row 20)" {
	head -c 10000000 /dev/urandom >"$T/in"
	{
		printf '{"command":"sha256sum; true","stdinBase64":"'
		base64 -w0 "$T/in"
		printf '"}\n'
	} >"$C/exec.json"
	[[ $(cat "$C/last/stdout") == $(sha256sum <"$T/in") ]]
	json '{"command":"cat","stdin":"it'"'"'s \"quoted\" \u0001 $x\n"}' >"$T/events"
	[ "$(jq -rs 'map(select(.type == "stdout") | .data) | add' "$T/events")" = $'it\'s "quoted" \001 $x' ]
}

# bats test_tags=server
@test "a time-out ends the command with exit 124 and a TIMEOUT event (row 5)" {
	local began=$SECONDS
	json '{"command":"sleep '$S'","timeout":1000}' >"$T/events"
	((SECONDS - began < 30 * SLOW))
	grep -q TIMEOUT "$T/events"
	[ "$(tail -n 1 "$T/events" | jq -r '.exitCode // .code')" = 124 ]
	[ "$(cat "$C/last/exit")" = 124 ]
	wait_until 10 nothing_sleeps
	[ "$(x 'echo next')" = next ]
}

@test "last never shows an older run, runs/ keeps the newest 16" {
	local i
	for i in $(seq 20); do echo "exit $i" >"$C/exec"; done
	[ "$(cat "$C/last/exit")" = 20 ]
	# the kernel tells of the end of an opening when it gets round to it
	wait_until 10 are_kept 16
}
are_kept() { [ "$(ls "$C/runs" | grep -vc help)" = "$1" ]; }

# --- processes ---

# bats test_tags=server
@test "processes/new starts a process and its id is read from the same opening" {
	local id
	exec 5<>"$C/processes/new"
	echo 'echo up; until [ -e go ]; do sleep 0.05; done; echo down; exit 5' >&5
	read -r id <&5
	exec 5>&-
	[ -d "$C/processes/$id" ]
	[ "$(cat "$C/processes/$id/status")" = running ]
	[ -n "$(cat "$C/processes/$id/pid")" ]
	[ -z "$(cat "$C/processes/$id/exit")" ]
	within 10 head -n 1 "$C/processes/$id/follow" | grep -q up
	touch "$W/go"
	[ "$(within 10 cat "$C/processes/$id/wait")" = 5 ]
	[ "$(cat "$C/processes/$id/follow")" = $'up\ndown' ]
	[ "$(cat "$C/processes/$id/logs")" = $'up\ndown' ]
	[ "$(cat "$C/processes/$id/exit")" = 5 ]
	[ "$(cat "$C/processes/$id/status")" = failed ]
	rmdir "$C/processes/$id"
	[ ! -e "$C/processes/$id" ]
}

@test "mkdir, cwd, env, cmd: a process is set up as in configfs" {
	local p=$C/processes/web-server
	mkdir "$p" "$W/public"
	[ "$(cat "$p/status")" = new ]
	echo /workspace/public >"$p/cwd"
	printf 'PORT=8080\nGREETING=hello there\n' >"$p/env"
	echo 'pwd; echo "$PORT $GREETING"' >"$p/cmd"
	[ "$(within 10 cat "$p/wait")" = 0 ]
	[ "$(cat "$p/stdout")" = $'/workspace/public\n8080 hello there' ]
	[ "$(cat "$p/status")" = completed ]
	[ "$(cat "$p/cmd")" = 'pwd; echo "$PORT $GREETING"' ]
	# after its end: again, with empty logs
	echo 'echo second' >"$p/cmd"
	[ "$(within 10 cat "$p/wait")" = 0 ]
	[ "$(cat "$p/stdout")" = second ]
	rmdir "$p"
}

# bats test_tags=server
@test "kill ends a process and its grandchildren, and no other (row 15)" {
	mkdir "$C/processes/a" "$C/processes/b"
	echo "sleep $S & (sleep $S & sleep $S) & sleep $S" >"$C/processes/a/cmd"
	echo "sleep ${S}1" >"$C/processes/b/cmd"
	wait_until 10 count_is 4 "sleep $S"
	wait_until 10 count_is 1 "sleep ${S}1"
	run rmdir "$C/processes/a"
	[[ $output == *busy* ]]
	echo kill >"$C/processes/a/ctl"
	[ "$(within 10 cat "$C/processes/a/wait")" -ge 128 ]
	wait_until 10 count_is 0 "sleep $S"
	count_is 1 "sleep ${S}1"
	[ "$(cat "$C/processes/b/status")" = running ]
	[ "$(cat "$C/processes/a/status")" != running ]
	echo 'kill KILL' >"$C/processes/b/ctl"
	within 10 cat "$C/processes/b/wait"
}

@test "a process that dies by itself is never shown as running (row 15)" {
	mkdir "$C/processes/p"
	echo 'kill -9 $$' >"$C/processes/p/cmd"
	[ "$(within 10 cat "$C/processes/p/wait")" = 137 ]
	[ "$(cat "$C/processes/p/status")" != running ]
	[ "$(cat "$C/processes/p/exit")" = 137 ]
}

@test "logs are sized and grow: tail -f follows them" {
	mkdir "$C/processes/p"
	echo 'echo 1; until [ -e go ]; do sleep 0.05; done; echo 2; until [ -e end ]; do sleep 0.05; done' >"$C/processes/p/cmd"
	wait_until 10 size_is "$C/processes/p/logs" 2
	tail -f -s 0.1 "$C/processes/p/logs" >"$T/tail" 2>/dev/null 3>&- &
	echo $! >>"$T/pids"
	wait_until 10 grep -q 1 "$T/tail"
	touch "$W/go"
	wait_until 10 grep -q 2 "$T/tail"
	touch "$W/end"
	[ "$(within 10 cat "$C/processes/p/wait")" = 0 ]
}
size_is() { [ "$(stat -c %s "$1")" = "$2" ]; }

# bats test_tags=server
@test "wait-log answers the line, or ECHILD when the process ends without it" {
	local line
	mkdir "$C/processes/p"
	echo 'echo noise; echo "Server running on 8080"; until [ -e go ]; do sleep 0.05; done' >"$C/processes/p/cmd"
	echo 'Server running' >"$C/processes/p/wait-log"
	exec 5<>"$C/processes/p/wait-log"
	echo 'running on (\d+)' >&5
	read -r line <&5
	[ "$line" = 'Server running on 8080' ]
	read -r line <&5
	[ "$line" = 8080 ]
	exec 5>&-
	run within 10 bash -c "echo 'timeout=300ms never' > $C/processes/p/wait-log"
	[[ $output == *'timed out'* ]]
	touch "$W/go"
	run within 10 bash -c "echo 'never' > $C/processes/p/wait-log"
	[[ $output == *'No child processes'* ]]
}

# bats test_tags=server
@test "wait-port waits for a server, and its port is reached through ports/ even if bound to loopback" {
	local p=$C/processes/web url port
	serve 127.0.0.1
	echo hello-page >"$W/page"
	within 20 bash -c "echo $port > $p/wait-port"
	echo web-app >"$C/ports/$port"
	url=$(cat "$C/ports/$port")
	[ "$(curl -sS -m $((30 * SLOW)) "${url%/}/page")" = hello-page ]
	[ "$(ls "$C/ports" | grep -v help)" = "$port" ]
	rm "$C/ports/$port"
	rm -f "$C/ports/$port"
	[ ! -e "$C/ports/$port" ]
	echo kill >"$p/ctl"
	within 10 cat "$p/wait"
	run within 10 bash -c "echo $port > $p/wait-port"
	[[ $output == *'No child processes'* ]]
}
# serve ADDRESS: process web, an HTTP server at a port that was free there, in $port. It listens a moment after it has said which.
serve() {
	cat >"$W/serve.py" <<-'E'
		import http.server, sys, time
		s = http.server.ThreadingHTTPServer((sys.argv[1], 0), http.server.SimpleHTTPRequestHandler, False)
		s.allow_reuse_address = False
		s.server_bind()
		print("port", s.server_port)
		time.sleep(0.5)
		s.server_activate()
		s.serve_forever()
	E
	mkdir "$C/processes/web"
	echo "exec python3 -u serve.py $1" >"$C/processes/web/cmd"
	exec 5<>"$C/processes/web/wait-log"
	echo '^port (\d+)' >&5
	read -r port <&5
	read -r port <&5
	exec 5>&-
}

@test "wait, follow, wait-port and wait-log of what is not started are ESRCH at once and say why a start failed" {
	local f p=$C/processes/p
	mkdir "$p"
	all_refuse() { # SENTENCE
		for f in wait follow follow.json; do
			run within 10 cat "$p/$f"
			[[ $output == *'No such process'* ]]
			grep -q "^message processes/p/$f: $1" "$C/error"
		done
		for f in wait-port wait-log; do
			run within 10 bash -c "echo 80 >'$p/$f'"
			[[ $output == *'No such process'* ]]
			grep -q "^message processes/p/$f: $1" "$C/error"
		done
	}
	all_refuse 'it is not started; write its command to processes/p/cmd'
	run bash -c "echo kill >'$p/ctl'"
	[[ $output == *'No such process'* ]]
	grep -q '^message processes/p/ctl: it does not run' "$C/error"
	echo /nowhere >"$p/cwd"
	run bash -c "echo true >'$p/cmd'"
	all_refuse 'it is not started, its start failed: .*/nowhere'
	[ "$(cat "$p/status")" = new ]
	echo /workspace >"$p/cwd"
	echo 'exit 3' >"$p/cmd"
	[ "$(within 10 cat "$p/wait")" = 3 ]
	echo kill >"$p/ctl" # harmless
	[ "$(cat "$p/exit")" = 3 ]
	run within 10 bash -c "echo 80 >'$p/wait-port'"
	[[ $output == *'No child processes'* ]]
	grep -q '^message .*it ended with exit code 3 before port 80 answered; see logs' "$C/error"
	# started again where it cannot be: the record of the first run is gone, its settings are not
	echo /nowhere >"$p/cwd"
	run bash -c "echo true >'$p/cmd'"
	all_refuse 'it is not started, its start failed: .*/nowhere'
	[ "$(cat "$p/cwd")" = /nowhere ]
	rmdir "$p"
	mkdir "$p"
	all_refuse 'it is not started; write its command to processes/p/cmd'
}

@test "an idle preview port lets a large answer through" {
	local port
	serve 0.0.0.0
	head -c 20000000 /dev/urandom >"$W/blob"
	echo "$port timeout=$((20 * SLOW))" >"$C/processes/web/wait-port"
	touch "$C/ports/$port"
	curl -sS -m $((30 * SLOW)) -o "$T/blob" "$(cat "$C/ports/$port")/blob"
	cmp "$T/blob" "$W/blob"
	echo 'kill KILL' >"$C/processes/web/ctl"
	within 10 cat "$C/processes/web/wait"
}

# bats test_tags=server
@test "processes that another client started appear as well" {
	api /api/process/start '{"command":"sleep '$S'","processId":"theirs","sessionId":"__DISABLE_SESSION__"}' >/dev/null
	wait_until 10 test -d "$C/processes/theirs"
	[ "$(cat "$C/processes/theirs/status")" = running ]
	[ "$(cat "$C/processes/theirs/cmd")" = "sleep $S" ]
	echo 'kill KILL' >"$C/processes/theirs/ctl"
	within 10 cat "$C/processes/theirs/wait"
	wait_until 10 count_is 0 "sleep $S"
}
