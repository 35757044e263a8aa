# sessions/: shells that keep their state from command to command, each apart from all others.
load ../lib/harness

# s ID COMMAND...: what one command prints in a session; its exit code is this one's.
s() {
	local dir=$C/sessions/$1 f n rc
	shift
	exec {f}<>"$dir/exec" || return 125
	read -r n <&"$f" || return 125
	printf '%s\n' "$*" >&"$f" || { exec {f}>&-; return 125; }
	cat <&"$f" || { exec {f}>&-; return 125; }
	rc=$(cat "$dir/runs/$n/exit")
	exec {f}>&-
	case $rc in
	'' | *[!0-9]*) echo "exit is '$rc'" >&2; return 125 ;;
	*) return "$rc" ;;
	esac
}
state_is() { [ "$(cat "$C/sessions/$1/ctl")" = "$2" ]; }
list() { ls "$C/sessions" | grep -vx new | tr '\n' ' '; }
nothing_sleeps() { [ "$(other "pgrep -fxc 'sleep $S'")" = 0 ]; }

# bats test_tags=server
@test "directory, variables, functions, options and umask persist in a session, by bash and by dash" {
	local sh
	for sh in bash dash; do
		$sh -euc '
			C=$1 S=$C/sessions/$2
			mkdir $S
			echo "mkdir -p d; cd d; export A=1; b=2; f() { echo f \$1; }; set -f; umask 027" > $S/exec
			[ "$(cat $S/last/exit)" = 0 ]
			echo "pwd; echo \$A\$b; f x; echo *; umask" > $S/exec
			[ "$(cat $S/exec)" = "/workspace/d
12
f x
*
0027" ]
			[ "$(cat $S/runs/2/stdout)" = "$(cat $S/exec)" ]
			rmdir $S
			test ! -e $S
		' $sh "$C" "in-$sh"
	done
}

# bats test_tags=server
@test "sessions do not see each other, nor does exec see them" {
	mkdir "$C/sessions/a" "$C/sessions/b"
	s a 'cd /tmp; export X=a; g() { echo a; }'
	s b 'X=b'
	[ "$(s a 'echo $X $PWD; g')" = $'a /tmp\na' ]
	[ "$(s b 'echo $X $PWD; type g >/dev/null 2>&1 || echo none')" = $'b /workspace\nnone' ]
	[ "$(x 'echo [$X] $PWD')" = '[] /workspace' ]
	# runs have numbers of their own in each
	[ "$(readlink "$C/sessions/a/last")" = runs/2 ]
	[ "$(ls "$C/sessions/b/runs")" = $'1\n2' ]
}

# bats test_tags=server
@test "the default session is always there, and is that of the SDK" {
	[ "$(list)" = 'default ' ]
	state_is default alive
	[ "$(readlink "$C/sessions/default/cwd")" = ../../../workspace ]
	s default 'export FROM=here; cd /usr'
	[ "$(api /api/execute '{"command":"echo $FROM $PWD"}' | jq -r .stdout)" = 'here /usr' ]
	run rmdir "$C/sessions/default"
	[[ $output == *'Operation not permitted'* ]]
	grep -q 'echo kill' "$C/error"
	run mkdir "$C/sessions/default"
	[[ $output == *'File exists'* ]]
}

# bats test_tags=server
@test "new takes an id or the SDK's options and answers the id" {
	local f id
	echo plain >"$C/sessions/new"
	[ "$(cat "$C/sessions/new")" = plain ]
	echo '{"id":"user-123","cwd":"/workspace/user123","env":{"USER_ID":"123","N":null}}' >"$C/sessions/new"
	[ "$(s user-123 'echo $USER_ID [$N]; pwd')" = $'123 []\n/workspace/user123' ]
	[ "$(cat "$C/sessions/user-123/env")" = USER_ID=123 ]
	echo data >"$C/sessions/user-123/cwd/config.txt"
	[ "$(other 'cat /workspace/user123/config.txt')" = data ]
	exec {f}<>"$C/sessions/new"
	echo '{"cwd":"rel","commandTimeoutMs":60000}' >&"$f"
	read -r id <&"$f"
	exec {f}>&-
	[[ $id == session-* ]]
	[ "$(s "$id" pwd)" = /workspace/rel ]
	[ -d "$W/rel" ]
}

# refused TEXT ERRNO-TEXT SENTENCE: new takes no such text; cat shows the error of close.
refused() {
	run bash -c "cat > $C/sessions/new" <<<"$1"
	[ "$status" != 0 ] && [[ $output == *"$2"* ]] || { echo "$1: $output"; return 1; }
	grep -q "^message .*$3" "$C/error" || { cat "$C/error"; return 1; }
}
# bats test_tags=server
@test "new refuses what is no session, and says what is wrong" {
	mkdir "$C/sessions/a"
	refused a 'File exists' 'sessions/a: there is one'
	refused '{"id":"a"}' 'File exists' 'there is one'
	refused 'two words' 'Invalid argument' 'one id'
	refused 'a/b' 'Invalid argument' 'no id of a session'
	refused '{"id":".x"}' 'Invalid argument' 'no id'
	refused '{"id":7}' 'Invalid argument' 'string'
	refused '{"ids":"x"}' 'Invalid argument' 'unknown key "ids"'
	refused '{"id":"x","env":{"A-B":"c"}}' 'Invalid argument' 'no name of a variable'
	refused '{"id":"x","env":["c"]}' 'Invalid argument' 'object of strings'
	refused '{"id":"x","commandTimeoutMs":-1}' 'Invalid argument' 'milliseconds'
	refused '{"id":"x"' 'Invalid argument' 'JSON ends at byte'
	touch "$W/file"
	refused '{"id":"x","cwd":"/workspace/file"}' 'exists' 'x: there is no directory /workspace/file, and it cannot be made: File exists'
	refused '{"id":"x","cwd":"/proc/none"}' 'No such file' 'x: there is no directory /proc/none, and it cannot be made'
	run mkdir "$C/sessions/new" "$C/sessions/a b"
	[[ $output == *'File exists'*'Invalid argument'* ]]
	[ "$(list)" = 'a default ' ]
}

# bats test_tags=server
@test "an open quote is an error and neither hangs nor harms the shell" {
	mkdir "$C/sessions/a"
	s a 'K=kept; cd /usr'
	run -2 within 10 bash -c "echo 'echo \"open' > $C/sessions/a/exec; exit \$(cat $C/sessions/a/last/exit)"
	grep -q 'unexpected EOF' "$C/sessions/a/last/stderr"
	run -2 s a 'if true; then'
	run -2 s a ')'
	[ "$(s a 'echo $K $PWD')" = 'kept /usr' ]
	state_is a alive
}

# bats test_tags=server
@test "after exit 3 that run says 3 and the next line has a new shell in the same place" {
	mkdir "$C/sessions/a"
	echo G=given >"$C/sessions/a/env"
	s a 'cd /usr; export E=exported; own() { :; }'
	run -3 s a 'echo out; exit 3'
	[ "$output" = out ]
	state_is a 'ended 3'
	[ "$(s a 'echo $G $E $PWD; type own >/dev/null 2>&1 || echo forgotten')" = $'given exported /usr\nforgotten' ]
	state_is a alive
}

# bats test_tags=server
@test "INT to a writer and interrupt in ctl end the command and not the shell" {
	mkdir "$C/sessions/a"
	s a 'K=kept'
	local pid n
	exec 5<>"$C/sessions/a/exec"
	read -r n <&5
	echo "echo up; sleep $S" >&5
	read -r line <&5
	[ "$line" = up ]
	echo interrupt >"$C/sessions/a/ctl"
	within 10 cat <&5
	exec 5>&-
	[[ $(cat "$C/sessions/a/runs/$n/exit") =~ ^1(30|43)$ ]]
	/usr/bin/python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
fd = os.open(sys.argv[1], os.O_WRONLY)
os.write(fd, b"touch up; sleep %s\n" % sys.argv[2].encode())
try: os.close(fd)
except KeyboardInterrupt: pass' "$C/sessions/a/exec" "$S" &
	pid=$!
	wait_until 10 test -e "$W/up"
	kill -INT $pid
	wait_until 10 gone $pid
	[ "$(within 10 cat "$C/sessions/a/exec")" = '' ]
	[ "$(s a 'echo $K')" = kept ]
	state_is a alive
	# nothing to interrupt is no error
	echo interrupt >"$C/sessions/a/ctl"
	wait_until 10 nothing_sleeps
}

# bats test_tags=server
@test "kill ends the shell, and the next line has another, where that was and with what it had exported" {
	local i
	mkdir "$C/sessions/a"
	for i in $(seq 10); do
		echo "cd /usr; export E=$i; v=1" >"$C/sessions/a/exec"
		echo kill >"$C/sessions/a/ctl"
		[ $i != 10 ] || wait_until 10 state_is a 'ended 137'
		[ "$(s a 'echo $PWD $E [$v]')" = "/usr $i []" ]
	done
	run bash -c "echo hangup > $C/sessions/a/ctl"
	[[ $output == *'Invalid argument'* ]]
	grep -q 'hangup' "$C/error"
}

# bats test_tags=server
@test "a time-out ends the command with 124 and says so, the session goes on (row 5)" {
	mkdir "$C/sessions/a"
	s a 'K=kept'
	exec 5<>"$C/sessions/a/exec.json"
	echo "{\"command\":\"echo up; sleep $S\",\"timeout\":$((3000 * SLOW))}" >&5
	within 20 cat <&5 >"$T/events"
	exec 5>&-
	[ "$(jq -r .type "$T/events" | tr '\n' ' ')" = 'start stdout error exit ' ]
	[ "$(jq -r 'select(.type == "error").code' "$T/events")" = TIMEOUT ]
	[ "$(jq -r 'select(.type == "exit").exitCode' "$T/events")" = 124 ]
	[ "$(s a 'echo $K')" = kept ]
	# the session's own, for commands that bring none
	echo '{"id":"t","commandTimeoutMs":500}' >"$C/sessions/new"
	run -124 s t "sleep $S"
	# which would be short for this one on a machine that is busy
	echo '{"command":"echo on","timeout":60000}' >"$C/sessions/t/exec.json"
	[ "$(cat "$C/sessions/t/last/stdout")" = on ]
}

# bats test_tags=server
@test "one session keeps the order of its commands, several run side by side (row 21)" {
	local i pids=()
	mkdir "$C/sessions/a"
	s a 'i=0; echo 0 >last; overlap() { mkdir busy || echo twice >>overlap; sleep 0.05; rmdir busy; }'
	for i in 1 2 3 4 5 6 7 8; do
		# a program that closes its output: the close of one that exits waits for nothing
		/bin/echo 'overlap; i=$((i + 1)); echo $i' >"$C/sessions/a/exec" &
		pids+=($!)
	done
	wait "${pids[@]}"
	[ "$(s a 'echo $i')" = 8 ]
	[ ! -e "$W/overlap" ]
	# each has the output of its own
	[ "$(cat "$C"/sessions/a/runs/*/stdout | grep -cx '[1-8]')" = 9 ]
	# a conversation's lines too
	exec 5<>"$C/sessions/a/exec"
	printf 'n=%s\n' 1 2 3 >&5
	printf 'echo $n\n' >&5
	for i in 1 2 3; do [ -z "$(cat <&5)" ]; done
	[ "$(cat <&5)" = 3 ]
	exec 5>&-
	# two that wait for each other can only end side by side
	mkdir "$C/sessions/b"
	{ echo 'touch in-a; until [ -e in-b ]; do sleep 0.02; done' >"$C/sessions/a/exec"; } &
	within 20 bash -c "echo 'touch in-b; until [ -e in-a ]; do sleep 0.02; done' > $C/sessions/b/exec"
	wait $!
}

# bats test_tags=server
@test "bytes pass as they are: no newline added, NUL, output that is split in characters (row 22)" {
	mkdir "$C/sessions/a"
	echo 'head -c 300000 /dev/urandom | tee r; printf "\\0é\\351 end"' >"$C/sessions/a/exec"
	printf '\0é\351 end' | cat "$W/r" - | cmp - "$C/sessions/a/last/stdout"
	printf '{"command":"cat >in; cat in","stdinBase64":"%s"}' "$(base64 -w0 "$W/r")" >"$C/sessions/a/exec.json"
	cmp "$W/r" "$W/in"
}

# bats test_tags=server
@test "a conversation streams while the command runs, and its close ends the command alone" {
	mkdir "$C/sessions/a"
	s a 'K=kept'
	within 30 /usr/bin/python3 - "$C/sessions/a" "$W" "$S" <<-'E'
		import os, select, sys, time
		d, w, s = sys.argv[1:]
		fd = os.open(d + "/exec", os.O_RDWR)
		n = os.read(fd, 100).decode().strip()
		os.write(fd, b"echo one; until [ -e go ]; do sleep 0.02; done; echo two\n")
		assert os.read(fd, 100) == b"one\n"
		p = select.poll(); p.register(fd, select.POLLIN)
		assert not p.poll(100)
		assert open(f"{d}/runs/{n}/exit").read() == ""
		open(w + "/go", "w").close()
		assert p.poll(20000)
		assert os.read(fd, 100) == b"two\n"
		assert os.read(fd, 100) == b""
		assert open(f"{d}/runs/{n}/exit").read() == "0\n"
		other = os.open(d + "/exec", os.O_RDWR)
		assert os.read(other, 100).decode().strip() == str(int(n) + 1)
		os.write(other, b"touch up; sleep %s\n" % s.encode())
		while not os.path.exists(w + "/up"): time.sleep(0.02)
		# another's line waits for its turn, and is not lost
		os.write(fd, b"echo mine $K\n")
		os.close(other)
		assert os.read(fd, 100) == b"mine kept\n"
	E
	state_is a alive
}

# bats test_tags=server
@test "cwd is a link into the mount that follows the shell" {
	mkdir "$C/sessions/a"
	x 'mkdir -p deep/er "with space"'
	[ "$(readlink "$C/sessions/a/cwd")" = ../../../workspace ]
	s a 'cd deep/er'
	[ "$(readlink "$C/sessions/a/cwd")" = ../../../workspace/deep/er ]
	echo data >"$C/sessions/a/cwd/f"
	[ "$(s a 'cat f')" = data ]
	[ "$(cd -P "$C/sessions/a/cwd" && pwd)" = "$W/deep/er" ]
	s a 'cd "/workspace/with space"'
	[ "$(readlink -f "$C/sessions/a/cwd")" = "$W/with space" ]
	s a 'cd /usr/bin'
	[ -e "$C/sessions/a/cwd/env" ]
	[ "$(readlink "$C/sessions/a/cwd")" = ../../../root/usr/bin ]
	# a name that only begins like the workspace
	s a 'mkdir -p /tmp/workspaces; cd /tmp/workspaces'
	[ "$(readlink "$C/sessions/a/cwd")" = ../../../root/tmp/workspaces ]
}

@test "with subdir=workspace the links lead to where things are there" {
	unmount
	mount_it -o sandbox="$NAME",subdir=workspace
	C=$MNT/.ctl
	mkdir "$C/sessions/a"
	s a 'mkdir -p d; cd d; echo text >f'
	[ "$(readlink "$C/sessions/a/cwd")" = ../../../d ]
	[ "$(cat "$C/sessions/a/cwd/f")" = text ]
	s a 'cd /usr/bin'
	[ -e "$C/sessions/a/cwd/env" ]
}

# bats test_tags=server
@test "env sets in the shell that there is, shows what was given, and says no value in an error" {
	mkdir "$C/sessions/a"
	printf 'A=one two\nB='"'"'"$x`\\\n' >"$C/sessions/a/env"
	[ "$(s a 'printf "%s|%s" "$A" "$B"; env | grep -c "^[AB]="')" = "one two|'\"\$x\`\\2" ]
	echo C=3 >>"$C/sessions/a/env"
	printf 'A\n# a comment\n' >"$C/sessions/a/env"
	[ "$(cat "$C/sessions/a/env")" = $'B=\'"$x`\\\nC=3' ]
	[ "$(s a 'echo [${A-unset}] $C')" = '[unset] 3' ]
	# it is in nobody's runs
	[ "$(ls "$C/sessions/a/runs" | wc -l)" = 2 ]
	run bash -c "cat > $C/sessions/a/env" <<<$'D=4\nnot a hidden/+=='
	[[ $output == *'Invalid argument'* ]]
	grep -q '^message .*line 2' "$C/error"
	[ "$(s a 'echo [$D]')" = '[]' ]
	s a 'readonly R=1'
	run bash -c "cat > $C/sessions/a/env" <<<'R=hidden'
	[[ $output == *'Operation not permitted'* ]]
	run cat "$C/sessions/a/env" # it meets the next reader as well, once
	[ "$(cat "$C/sessions/a/env")" = $'B=\'"$x`\\\nC=3' ]
	! grep -rq hidden "$C/error" "$MNT/ctl/log" || false
}

# bats test_tags=server
@test "sessionId of exec.json and processes is the same session, made if there is none" {
	mkdir "$C/sessions/a"
	s a 'mkdir -p d; cd d; V=plain; export E=exported'
	exec 5<>"$C/exec.json"
	echo '{"command":"echo $V $PWD","sessionId":"a"}' >&5
	[ "$(cat <&5 | jq -rj 'select(.type == "stdout").data')" = 'plain /workspace/d' ]
	echo '{"command":"echo $V $E $PWD","sessionId":"a","env":{"E":"own"},"cwd":"/usr"}' >&5
	[ "$(cat <&5 | jq -rj 'select(.type == "stdout").data')" = 'plain own /usr' ]
	echo '{"command":"W=new","sessionId":"fresh"}' >&5
	[ "$(cat <&5 | jq -r .type | tail -n 1)" = exit ]
	echo '{"command":"echo [$E]","sessionId":"__DISABLE_SESSION__"}' >&5
	[ "$(cat <&5 | jq -rj 'select(.type == "stdout").data')" = '[]' ]
	exec 5>&-
	[ "$(s a 'echo $E $PWD')" = 'exported /workspace/d' ]
	[ "$(s fresh 'echo $W')" = new ]
	run bash -c "cat > $C/sessions/a/exec.json" <<<'{"command":"true","sessionId":"fresh"}'
	[[ $output == *'Invalid argument'* ]]
	grep -q 'sessions/fresh/exec.json' "$C/error"
}

# bats test_tags=server
@test "processes of a session start where it is, and end with it" {
	local p
	mkdir "$C/sessions/a" "$C/processes/q"
	s a 'mkdir -p d; cd d; export E=exported'
	exec 5<>"$C/sessions/a/processes/new"
	echo "echo \$E \$PWD; sleep $S" >&5
	read -r p <&5
	exec 5>&-
	wait_until 10 grep -qx 'exported /workspace/d' "$C/processes/$p/logs"
	[ "$(cat "$C/processes/$p/session")" = a ]
	# the shell is free meanwhile
	[ "$(s a 'echo free')" = free ]
	echo a >"$C/processes/q/session"
	echo 'echo $E $PWD' >"$C/processes/q/cmd"
	[ "$(within 10 cat "$C/processes/q/wait")" = 0 ]
	[ "$(cat "$C/processes/q/logs")" = 'exported /workspace/d' ]
	run bash -c "cat > $C/sessions/a/processes/new" <<<'{"command":"true","sessionId":"b"}'
	[[ $output == *'Invalid argument'* ]]
	rmdir "$C/sessions/a"
	within 10 cat "$C/processes/$p/wait"
	[ "$(cat "$C/processes/$p/status")" != running ]
}

# bats test_tags=server
@test "rmdir ends all that the session started, and who converses with it hears of it" {
	mkdir "$C/sessions/a"
	s a "sleep $S & (setsid sleep $S &) ; cd /usr"
	exec 5<>"$C/sessions/a/exec"
	read -r n <&5
	echo "echo up; sleep $S" >&5
	read -r line <&5
	within 10 rmdir "$C/sessions/a"
	run within 10 cat <&5
	wait_until 10 nothing_sleeps
	# a line to a session that is gone makes none
	run bash -c 'echo true >&5'
	[ "$status" != 0 ]
	grep -q 'session a is gone' "$C/error"
	exec 5>&-
	[ "$(list)" = 'default ' ]
	run rmdir "$C/sessions/a"
	[[ $output == *'No such file'* ]]
}

# bats test_tags=server
@test "mkdir and rmdir of one session, fifty times: no error, never the old state (row 25)" {
	local i
	for i in $(seq 50); do
		mkdir "$C/sessions/a"
		[ ! -e "$C/sessions/a/last" ]
		echo "echo [\$V]; V=$i; cd /usr" >"$C/sessions/a/exec"
		[ "$(cat "$C/sessions/a/exec")" = '[]' ]
		[ "$(cat "$C/sessions/a/last/exit")" = 0 ]
		rmdir "$C/sessions/a"
	done
	[ "$(list)" = 'default ' ]
}

# bats test_tags=server
@test "sessions of others appear and go, whatever they are called" {
	api /api/session/create '{"id":"theirs","cwd":"/usr","env":{"T":"1"}}' >/dev/null
	api /api/session/create '{"id":"a/b"}' >/dev/null
	api /api/session/create '{"id":"sp ace é"}' >/dev/null
	[ "$(list)" = 'default sp ace é theirs ' ]
	[ "$(s theirs 'echo $T $PWD; V=2')" = '1 /usr' ]
	[ -z "$(cat "$C/sessions/theirs/env")" ]
	[ "$(api /api/execute '{"command":"echo $V","sessionId":"theirs"}' | jq -r .stdout)" = 2 ]
	[ "$(s 'sp ace é' 'echo fine')" = fine ]
	api /api/session/delete '{"sessionId":"theirs"}' >/dev/null
	[ ! -e "$C/sessions/theirs" ]
	[ "$(list)" = 'default sp ace é ' ]
	rmdir "$C/sessions/sp ace é"
}

@test "looking at sessions and env starts no sandbox, and reading changes nothing" {
	remount
	[ "$(list)" = 'default ' ]
	cat "$C/env" "$C/env.json" "$C/sessions/default/ctl" "$C/sessions/default/env"
	[ ! -e "$C/sessions/none" ]
	ls -lR "$C/sessions" >/dev/null
	! many || [ "$(head -n 1 "$C/status")" = unknown ] # another's server runs already, which the mount has seen
	mkdir "$C/sessions/a"
	s a "cd /usr; sleep $S & V=1"
	within 20 grep -r . "$C/sessions" >"$T/grep" 2>&1 || :
	within 20 find "$C/sessions" >/dev/null
	within 20 tar cf "$T/tar" -C "$C" sessions
	[ "$(s a 'echo $V; jobs -p | wc -l')" = $'1\n1' ]
	run rm -r "$C/sessions"
	[ "$status" != 0 ]
	[ "$(s a 'echo $V')" = 1 ]
	grep -q '^exec ' <(cat "$C/sessions/a/help")
}

@test "kill-all and cancel end what runs in sessions" {
	mkdir "$C/sessions/a"
	for verb in cancel kill-all; do
		exec 5<>"$C/sessions/a/exec"
		read -r n <&5
		echo "echo up; sleep $S" >&5
		read -r line <&5
		echo $verb >"$C/ctl"
		within 10 cat <&5
		exec 5>&-
		[ "$(cat "$C/sessions/a/runs/$n/exit")" -ge 128 ]
	done
	state_is a alive
}

@test "sessions that were there when the server was replaced are gone, and say so" {
	unmount
	SERVER=unix
	start -o timeout=$((10 * SLOW))
	mkdir "$C/sessions/a"
	s a 'V=1'
	exec 5<>"$C/sessions/a/exec"
	kill -9 "$server_pid"
	wait_until 10 gone "$server_pid"
	rm -f "$T/server.sock"
	start_server unix 5>&-
	wait_until 20 answers
	run bash -c 'echo true >&5'
	[ "$status" != 0 ]
	[ ! -e "$C/sessions/a" ]
	[ "$(list)" = 'default ' ]
	mkdir "$C/sessions/a"
	[ "$(s a 'echo [$V]')" = '[]' ]
	exec 5>&-
}
answers() { [ "$(x 'echo on' 2>/dev/null)" = on ]; }
