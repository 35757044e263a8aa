# A bridge that is not good: wrong tokens, redirects, cold starts, answers that are none, wires that break, containers that are lost. On
# Cloudflare's own bridge; where only a faulty one shows it, with lib/fake_bridge.py before it.
SERVER=bridge NO_START=1
load ../lib/harness

not() { ! "$@"; } # which fails a test, as ! alone does not
failed() { [ "$status" != 0 ] || return 1; [ "$status" != 124 ]; } # an error, and no time-out, of the last run
KEY=${SANDBOX_API_KEY:-} # it is not in the environment of every mount
has_no_key() { not grep -F -e "$KEY"; }
# From now on a mount goes by way of the fake, which passes on what no rule is for.
front() {
	mkdir "$T/fake"
	/usr/bin/python3 "$repo/tests/lib/fake_bridge.py" "${BRIDGE_URL##*:}" "$T/fake" >"$T/front" 2>"$T/fake.log" 3>&- &
	front_pid=$!
	echo $front_pid >>"$T/pids"
	wait_until 10 grep -q . "$T/front"
	url=http://127.0.0.1:$(cat "$T/front")/v1
}
# rule "COUNT PATTERN ACTION"...: what the fake does from now on
rules() {
	printf '%s\n' "$@" >"$T/fake/rules.tmp"
	mv "$T/fake/rules.tmp" "$T/fake/rules"
}
no_rules() { rm -f "$T/fake/rules"; }
# Requests so far, but for the one of the mount itself.
requests() { grep -vc ' /v1/pool/stats ' "$T/fake/requests" 2>/dev/null || :; }
asked() { grep -Eq "$1" "$T/fake/requests"; }
fresh_name() { echo "t$(head -c 10 /dev/urandom | base32 | tr A-Z a-z)"; }
# a mount by way of the fake, without a sandbox; then one in it
mount_front() {
	front
	mount_it "$@"
}
in_it() {
	NAME=$(fresh_name)
	M=$MNT/$NAME W=$MNT/$NAME/workspace C=$MNT/$NAME/ctl
	mkdir "$M"
}
start_front() {
	mount_front "$@"
	in_it
}
refused() { # PATTERN [MOUNT-OPTION]...: the mount fails with one sentence, and the token is not in it
	local pattern=$1
	shift
	run mount_it "$@"
	failed
	[ "${#lines[@]}" = 1 ]
	[[ $output =~ $pattern ]] || { echo "$output"; return 1; }
	[[ $output != *"$KEY"* ]]
	not is_mounted
}
state() { head -n 1 "$C/status"; }
state_is() { [ "$(state)" = "$1" ]; }
# The first use fails within SECONDS, with an errno and a sentence, and the mount answers.
first_use_fails() { # SECONDS ERRNO-TEXT SENTENCE
	run within "$1" ls "$W"
	failed
	[[ $output == *"$2"* ]] || { echo "$output"; cat "$C/error"; return 1; }
	grep -q "^message .*$3" "$C/error" || { cat "$C/error"; return 1; }
	within 10 ls -l "$MNT" >/dev/null
}
# A program that waits for the sandbox ends soon after ^C, not only when the sandbox's time is over.
interrupted() { # COMMAND...
	local pid
	/usr/bin/python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@" >/dev/null 2>&1 3>&- &
	pid=$!
	wait_until 20 waits $pid "$1"
	not gone $pid
	kill -INT $pid
	wait_until 20 gone $pid
}
# It has become that program: before, it is this shell, and then python, which are deaf to INT.
waits() { [[ $(cat "/proc/$1/comm" 2>/dev/null) == "$2" && $(awk '{ print $3 }' "/proc/$1/stat") == [SD] ]]; }
containers() { find "$BRIDGE" -mindepth 1 -maxdepth 1 -name '[0-9]*' | wc -l; }
# The sandbox's container ends, as one that sleeps or is evicted.
lose_container() {
	local lost
	lost=$(echo "$BRIDGE"/[0-9]*)
	kill -9 -- "-$(cat "$lost/pid")"
	wait_until 20 test ! -e "$lost" # there may be another by then
}
no_container() { [ "$(containers)" = 0 ]; }

# --- the token ---

@test "a token that is wrong, missing or no word: EACCES or EINVAL in one sentence, without it" {
	local key=$SANDBOX_API_KEY
	url=$BRIDGE_URL/v1
	SANDBOX_API_KEY="wrong$key" refused 'token'
	SANDBOX_API_KEY='' refused 'SANDBOX_API_KEY'
	SANDBOX_API_KEY='two words' refused 'SANDBOX_API_KEY'
	(umask 077 && echo "wrong$key" >"$T/token")
	refused 'token' -o token_file="$T/token"
	: >"$T/token"
	refused 'first line' -o token_file="$T/token"
	refused 'No such file' -o token_file="$T/none"
}

@test "a bridge that is mounted without /v1 says so" {
	url=$BRIDGE_URL
	run mount_it
	failed
	[[ $output == *"if a sandbox bridge is there, mount $BRIDGE_URL/v1"* ]]
}

@test "the token by file, by ~/.config/sandboxfs/token, by the environment; the file named goes first" {
	local key=$SANDBOX_API_KEY
	url=$BRIDGE_URL/v1
	(umask 077 && echo "$key" >"$T/token")
	mkdir -p "$XDG_CONFIG_HOME/sandboxfs"
	SANDBOX_API_KEY=wrong mount_it -o token_file="$T/token" 2>"$T/said"
	unmount
	[ ! -s "$T/said" ]
	install -m 640 "$T/token" "$XDG_CONFIG_HOME/sandboxfs/token"
	SANDBOX_API_KEY='' mount_it 2>"$T/said"
	unmount
	grep 'open to others.*0640' "$T/said"
	echo wrong >"$XDG_CONFIG_HOME/sandboxfs/token"
	SANDBOX_API_KEY=$key mount_it
}

@test "the token is in no list of processes, mounts, logs, states and errors, and in no core file" {
	local pid
	start_front
	rules '1 POST~.*/exec status 500 {"error":"no"}'
	ls "$W" >/dev/null 2>&1 || :
	no_rules
	ls "$W" >/dev/null
	pid=$(fs_pid)
	tr '\0' '\n' <"/proc/$pid/cmdline" | has_no_key
	has_no_key </proc/mounts
	ps -eo args >"$T/ps"
	has_no_key <"$T/ps"
	timeout 20 cat "$MNT"/ctl/{log,error,server,stats} "$C"/{status,error,log,sync} 2>/dev/null | has_no_key
	not grep -rF "$KEY" "$T/data" "$T/run" "$T/cache" "$T/config"
	[ "$(prlimit --core --noheadings --raw --output SOFT,HARD -p "$pid" | xargs)" = '0 0' ]
	# closed to other programs of this user, and to what gets core files by a pipe
	[ "$(stat -c %u "/proc/$pid/environ")" = 0 ]
	[ "$(id -u)" = 0 ] || ! cat "/proc/$pid/environ" >/dev/null
}

@test "a redirect is refused with a sentence, and who it names gets neither the token nor a request" {
	local code other
	start_front # for its container: what follows is at the front door
	other=$T/other
	mkdir "$other"
	/usr/bin/python3 "$repo/tests/lib/fake_bridge.py" "${BRIDGE_URL##*:}" "$other" >"$T/other.port" 2>/dev/null 3>&- &
	echo $! >>"$T/pids"
	wait_until 10 grep -q . "$T/other.port"
	ls "$W" >/dev/null
	unmount
	for code in 301 302 307 308; do
		rules "-1 .* redirect $code http://127.0.0.1:$(cat "$T/other.port")/v1/pool/stats"
		refused "elsewhere \\($code\\)"
	done
	# and after the mount
	no_rules
	mount_it
	rules "-1 .*/(exec|pty|file) redirect 307 http://127.0.0.1:$(cat "$T/other.port")/v1/sandbox/x/exec"
	first_use_fails 30 'Protocol error' 'elsewhere'
	[ ! -e "$other/requests" ]
	no_rules
}

@test "https with a certificate that nobody vouches for is refused, and nothing was asked" {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
		-keyout "$T/key" -out "$T/cert" 2>/dev/null
	/usr/bin/python3 - "$T" >"$T/port" 3>&- <<-'E' &
		import socket, ssl, sys
		c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
		c.load_cert_chain(sys.argv[1] + "/cert", sys.argv[1] + "/key")
		l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen()
		print(l.getsockname()[1], flush=True)
		while True:
		    s, _ = l.accept()
		    try:
		        with c.wrap_socket(s, server_side=True) as t:
		            open(sys.argv[1] + "/got", "ab").write(t.recv(1000))
		    except (ssl.SSLError, OSError): pass
	E
	echo $! >>"$T/pids"
	wait_until 10 grep -q . "$T/port"
	url=https://localhost:$(cat "$T/port")
	refused 'certificate'
	[ ! -s "$T/got" ]
}

@test "http to a host that is not this one is refused before there is a connection" {
	url=http://bridge.example.org/v1
	refused 'only on 127.0.0.1'
	url=http://127.0.0.1.example.org:80/v1
	refused 'only on 127.0.0.1'
	url=http://127.0.0.1@10.0.0.1/v1
	refused 'credentials do not belong'
	url='https://10.0.0.1/v1?x'
	refused 'bridge is named'
}

# --- names and what asks for nothing ---

@test "one request at the mount; lists, stat, df, unknown names and .git ask for nothing" {
	mount_front
	[ "$(cat "$T/fake/requests")" = 'GET /v1/pool/stats token' ]
	local before
	in_it
	ls "$W" >/dev/null
	unmount
	mount_it
	before=$(requests)
	ls "$MNT" >/dev/null
	ls -la "$MNT" >/dev/null
	ls "$M" >/dev/null
	stat "$M" "$MNT" >/dev/null
	df "$MNT" "$M" >/dev/null
	[ ! -e "$MNT/nosuch" ]
	[ ! -e "$MNT/.git" ]
	[ ! -e "$MNT/nosuch/workspace/f" ]
	cat "$C/status" "$MNT/ctl/server" "$MNT/ctl/stats" >/dev/null
	state_is unknown
	[ "$(requests)" = "$before" ] || { tail "$T/fake/requests"; return 1; }
}

@test "names outside [a-z2-7] are EINVAL with the grammar, and ask for nothing" {
	local name
	mount_front
	for name in Upper x1 a-b a_b a.b é 'a b' "$(printf 'a%.0s' {1..64})"; do
		run mkdir "$MNT/$name"
		[[ $output == *'Invalid argument'* ]] || { echo "$name: $output"; return 1; }
		grep -q '^message .*a-z' "$MNT/ctl/error"
		run ls "$MNT/$name"
		[[ $output == *'No such file'* ]]
	done
	[ "$(requests)" = 0 ]
}

# --- a cold start ---

@test "503, 502 and 429 for a while: mkdir answers at once, status says starting, ls of the mount does not wait, the first use does" {
	local user
	mount_front
	rules '3 .*/v1/sandbox/ status 503 {"error":"Maximum number of instances reached","code":"capacity_exceeded"}' \
		'1 .*/v1/sandbox/ status 502 {"error":"container could not be started","code":"pool_error"}' \
		'1 .*/v1/sandbox/ status 429 slow down' \
		'-1 GET~.*/pty status 503 {"code":"CONTAINER_UNAVAILABLE"}'
	NAME=$(fresh_name) M=$MNT/$NAME W=$MNT/$NAME/workspace C=$MNT/$NAME/ctl
	within 20 mkdir "$M" # it would wait as long as the rules are there
	sh -c 'echo text >"$1/f"' - "$W" 3>&- &
	user=$!
	wait_until 20 state_is starting
	wait_until 60 asked /pty
	within 20 ls -la "$MNT" >/dev/null
	not gone $user
	state_is starting
	no_rules
	wait $user
	[ "$(cat "$W/f")" = text ]
	state_is running
}

@test "503 for ever: what waits can be interrupted, and the end of the mount ends it" {
	local pid
	mount_front
	rules '-1 .*/v1/sandbox/ status 503 {"error":"Maximum number of instances reached","code":"capacity_exceeded"}'
	in_it
	interrupted cat "$W/f"
	interrupted mkdir "$W/d"
	cat "$W/f" 3>&- 2>/dev/null &
	pid=$!
	wait_until 20 waits $pid cat
	wait_until 20 state_is starting
	kill "$(fs_pid)"
	wait_until 30 gone $pid # and not only when start= is over
	wait_until 20 not is_mounted
}

@test "not now for longer than start=: EHOSTDOWN with what the server said last; no answer for so long: ETIMEDOUT; the next use tries anew" {
	mount_front -o start=6 # the last try of a start is after 3 s: so long has its answer time
	rules '-1 .*/v1/sandbox/ status 503 {"error":"Maximum number of instances reached","code":"capacity_exceeded"}'
	in_it
	first_use_fails 40 'Host is down' 'not up within start= (6 s): .*not now (503): Maximum number of instances reached'
	state_is unknown
	rules '-1 .*/v1/sandbox/ hang'
	first_use_fails 40 'timed out' 'no answer within'
	rules '-1 .*/pty hang'
	bridge_direct true # the start of the container is none of the time that is asked for here
	first_use_fails 40 'timed out' 'no answer within'
	no_rules
	wait_until 60 ls "$W" 2>/dev/null
	state_is running
}

@test "a failure that does not pass is said at once: 500, 404, 403, 401" {
	mount_front
	rules '-1 .*/v1/sandbox/ status 500 {"error":"Container failed to start due to a permanent error: no such image"}'
	in_it
	first_use_fails 20 'Input/output error' 'permanent error: no such image'
	rules '-1 .*/v1/sandbox/ status 404 Not Found'
	first_use_fails 20 'not supported' 'is a sandbox bridge there'
	rules '-1 .*/v1/sandbox/ status 403 {"error":"forbidden"}'
	first_use_fails 20 'Permission denied' 'forbidden'
	rules '-1 .*/v1/sandbox/ status 401 {"error":"Unauthorized"}'
	first_use_fails 20 'Permission denied' 'refuses the token'
	no_rules
	is_empty "$W"
}

# --- answers that are none ---

@test "an exec whose stream ends without an exit, or with one that is no number, is never success" {
	local answer
	mount_front
	rules '-1 .*/exec status 500 the-end'
	in_it
	not ls "$W" 2>/dev/null
	for answer in 'event: stdout\ndata: eDg2XzY0Cg==\n\n' 'event: exit\ndata: {}\n\n' 'event: exit\ndata: {"exit_code":null}\n\n' \
		'event: exit\ndata: {"exit_code":"0"}\n\n' 'event: error\ndata: {"error":null}\n\n' 'event: exit\n\ndata: {"exit_code":0}\n\n' \
		'<html>hello</html>' ''; do
		: >"$T/fake/requests"
		rules "1 .*/exec exec $answer" '-1 .*/exec status 500 the-end'
		run within 20 ls "$W"
		failed
		asked /exec
		not asked '/file/|/pty'
	done
	no_rules
	is_empty "$W"
}

@test "an answer without end, and one that is not HTTP, are an errno and a sentence" {
	mount_front
	printf 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n' >"$T/fake/endless"
	printf 'SSH-2.0-nothing\r\n' >"$T/fake/ssh"
	rules '-1 .*/exec file endless event:~stdout'
	in_it
	first_use_fails 30 'Protocol error' 'without end'
	rules '-1 .*/exec head'
	first_use_fails 30 'Protocol error' 'without end'
	rules '-1 .*/exec file ssh'
	first_use_fails 30 'Protocol error' 'no HTTP'
	rules '-1 .*/exec hang'
	interrupted ls "$W"
	no_rules
}

@test "another machine, and what is no machine: ENOTSUP names it, fit for a terminal" {
	mount_front
	rules "-1 .*/exec exec event: stdout\\ndata: $(echo riscv64 | base64)\\n\\nevent: exit\\ndata: {\"exit_code\":0}\\n\\n"
	in_it
	first_use_fails 20 'not supported' 'riscv64'
	rules "-1 .*/exec exec event: stdout\\ndata: $(printf '\033[31mx\007\n' | base64)\\n\\nevent: exit\\ndata: {\"exit_code\":0}\\n\\n"
	first_use_fails 20 'not supported' 'no helper'
	not grep -q $'[\033\007]' "$C/error"
}

@test "a terminal that talks nonsense, in bytes, words or pings, ends in an error; while it is waited for ^C works" {
	mount_front
	rules '-1 .*/pty ws bytes'
	in_it
	first_use_fails 60 'Protocol error' 'does not run what'
	rules '-1 .*/pty ws words'
	interrupted ls "$W"
	rules '-1 .*/pty ws pings'
	interrupted ls "$W"
	rules '-1 .*/pty ws nothing'
	interrupted ls "$W"
	grep -c . "$T/fake/requests"
	# none of it took memory
	[ "$(awk '/^VmHWM/ { print $2 }' "/proc/$(fs_pid)/status")" -lt 200000 ]
	no_rules
	is_empty "$W"
}

# --- where sandboxd cannot be brought in ---

# A container whose first command is this one, before sandboxd is there: by the second client.
prepare_container() { # SCRIPT
	mount_front
	rules '-1 .* status 503 later'
	in_it
	bridge_direct "$1"
	no_rules
}
bridge_direct() {
	jq -n --arg c "$1" '{argv: ["sh", "-c", $c]}' |
		curl_bridge "$NAME/exec" -N -H 'Content-Type: application/json' -d @- | grep -q '"exit_code":0'
}

@test "a /tmp that takes no directory, and a place there that is a link: ENOTSUP with the reason" {
	prepare_container 'touch /tmp/.sandboxfs'
	first_use_fails 30 'not supported' 'cannot be brought into the sandbox'
	bridge_direct 'rm /tmp/.sandboxfs; mkdir /tmp/else; ln -s else /tmp/.sandboxfs'
	first_use_fails 30 'not supported' 'cannot be brought into the sandbox'
	bridge_direct 'rm /tmp/.sandboxfs; ls -A /workspace | grep . && exit 1; exit 0' # nothing litters
	is_empty "$W"
}

@test "no gzip, a full /tmp, one without programs, a shell that is none: ENOTSUP says which" {
	local code machine
	mount_front
	machine="1 POST~.*/exec exec event: stdout\\ndata: $(uname -m | base64)\\n\\nevent: exit\\ndata: {\"exit_code\":0}\\n\\n"
	rules '-1 .*/exec status 500 the-end'
	in_it
	not ls "$W" 2>/dev/null # and with it the start that mkdir began
	for code in 6:gzip 2:full 7:noexec 127:127; do
		rules "$machine" '-1 PUT status 200 {"ok":true}' "-1 .*/exec exec event: exit\\ndata: {\"exit_code\":${code%:*}}\\n\\n"
		first_use_fails 20 'not supported' "cannot be brought into the sandbox: .*${code#*:}"
	done
}

# --- the wire breaks ---

@test "every connection is cut, again and again: what follows works without a remount, what was closed has arrived" {
	local i
	start_front
	for i in $(seq 2); do
		echo "text $i" >"$W/f$i"
		kill -USR1 $front_pid
		[ "$(cat "$W/f$i")" = "text $i" ]
		[ "$(x "cat f$i")" = "text $i" ]
		kill -USR1 $front_pid
		echo "more $i" >>"$W/f$i"
		same_there "f$i"
	done
	state_is running
	[ "$(ls "$W" | wc -l)" = 2 ]
}

@test "a command that runs while the wire breaks has its whole output and its true exit code" {
	local rc=0
	start_front
	ls "$W" >/dev/null
	x 'for i in $(seq 2000); do echo line $i; [ $((i % 200)) != 0 ] || sleep .3; done; exit 7' >"$T/out" 2>"$T/err" 3>&- &
	local pid=$!
	wait_until 20 test -s "$T/out"
	kill -USR1 $front_pid
	wait $pid || rc=$?
	[ $rc = 7 ] || { echo "exit $rc"; cat "$T/err"; return 1; }
	seq -f 'line %.0f' 2000 | cmp - "$T/out"
}

@test "a link that is down for longer than timeout=: calls fail with a sentence, the mount answers, and it comes back" {
	start_front -o timeout=8
	echo text >"$W/f"
	touch "$T/fake/down"
	kill -USR1 $front_pid
	run within 40 cat "$W/g"
	failed
	wait_until 40 state_is unreachable
	within 7 ls -l "$MNT" >/dev/null # it does not wait for timeout=
	run within 20 mkdir "$W/d"
	failed
	grep -q '^message ' "$C/error"
	rm "$T/fake/down"
	wait_until 40 mkdir -p "$W/d"
	[ "$(cat "$W/f")" = text ]
	state_is running
}

@test "umount while the link is down ends" {
	start_front -o timeout=8
	echo text >"$W/f"
	touch "$T/fake/down"
	kill -USR1 $front_pid
	within 30 "$sandboxfs" -u "$MNT" || within 30 "$sandboxfs" -u --kill "$MNT"
	not is_mounted
	rm "$T/fake/down"
}

@test "umount while the server takes connections and says nothing ends" {
	start_front -o timeout=8
	echo text >"$W/f"
	rules '-1 .* hang'
	kill -USR1 $front_pid
	within 30 "$sandboxfs" -u "$MNT" || within 30 "$sandboxfs" -u --kill "$MNT"
	not is_mounted
}

# What a mount of four sandboxes asks at its end is answered by this ACTION; its end takes no longer for it.
end_in_time() { # ACTION
	local i
	for i in 1 2 3 4; do
		in_it
		ls "$W" >/dev/null
		echo web >"$C/ports/8080"
	done
	: >"$T/fake/requests"
	rules "-1 DELETE~ $1"
	within 14 "$sandboxfs" -u "$MNT" # 4 s and one for the last word, not 4 s for each
	not is_mounted
	[ "$(grep -c '^DELETE .*/session/' "$T/fake/requests")" = 4 ] # each was said goodbye to
	no_rules
}

@test "umount of many sandboxes while the server drips its answers, or gives none, takes as long as that of one" {
	local expose='-1 POST~.*/expose status 200 {"url":"https://8080.example.org/"}' action
	front
	for action in 'drip 1000' hang; do
		mount_it -o preview-host=example.org
		rules "$expose"
		end_in_time "$action"
	done
}

# --- the container is lost ---

is_replaced() {
	ls "$W" >/dev/null 2>&1 || :
	state_is replaced
}
# The second client looks, and sees nothing.
nothing_there() {
	local all
	all=$(other 'ls -A /workspace; echo looked')
	[ "$all" = looked ] || { echo "there: $all"; return 1; }
}

@test "a lost container: said; nothing is written, made or run in the new one before accept" {
	local verb
	start_front
	echo precious >"$W/f"
	[ "$(x 'cat f')" = precious ]
	lose_container
	wait_until 60 is_replaced
	for verb in 'echo more >"$W/f"' 'mkdir "$W/d"' 'echo hi >"$C/exec"' 'touch "$W/t"' 'ln -s a "$W/l"'; do
		run within 20 bash -c "W=$W C=$C; $verb"
		failed || { echo "$verb"; return 1; }
	done
	[[ $(grep ^message "$C/error") == *accept* ]]
	grep -q accept "$C/status"
	is_empty "$W"
	no_container || nothing_there
	echo accept >"$C/ctl"
	state_is running
	echo new >"$W/f"
	[ "$(x 'cat f')" = new ]
	same_there f
}

@test "bytes that were unsent when the container was lost are kept: accept pours them in, discard drops them" {
	local verb
	for verb in accept discard; do
		start_front_again
		echo there >"$W/existing"
		/usr/bin/python3 - "$W" "$T" 3>&- <<-'E' &
			import os, sys, time
			f = os.open(sys.argv[1] + "/held", os.O_WRONLY | os.O_CREAT)
			os.write(f, b"unsent")
			more = os.open(sys.argv[1] + "/existing", os.O_WRONLY | os.O_APPEND)
			os.write(more, b"appended")
			open(sys.argv[2] + "/written", "w").close()
			while not os.path.exists(sys.argv[2] + "/close"): time.sleep(0.05)
			for fd in f, more:
			    try: os.close(fd)
			    except OSError as e: print(e.errno, file=open(sys.argv[2] + "/errno", "a"))
		E
		local writer=$!
		wait_until 10 test -e "$T/written"
		lose_container
		wait_until 60 is_replaced
		touch "$T/close"
		wait_until 20 gone $writer
		[ "$(cat "$T/errno")" = $'116\n116' ] # ESTALE
		grep -q 'held' "$C/sync"
		nothing_there
		if [ $verb = accept ]; then
			echo accept >"$C/ctl"
			[ "$(other 'cat /workspace/held')" = unsent ]
			# what it was to be appended to is no more
			[ "$(other 'ls /workspace; cat /workspace/existing.*')" = "$(ls "$W")"$'\nappended' ]
			grep -q '^conflict existing.conflict-' "$C/sync"
			x true
			rm "$W"/existing.conflict-*
		else
			echo 'discard all' >"$C/ctl"
			[ -z "$(cat "$C/sync")" ]
			state_is running
			[ ! -e "$W/held" ]
			nothing_there
		fi
		[ -z "$(cat "$C/sync")" ]
		echo destroy >"$C/ctl"
		unmount
		rm -f "$T/written" "$T/close" "$T/errno"
	done
}
start_front_again() {
	[ -d "$T/fake" ] || front
	mount_it
	in_it
	ls "$W" >/dev/null
}

@test "DELETE of the sandbox behind the mount's back is a lost container too" {
	start_front
	echo precious >"$W/f"
	curl_bridge "$NAME" -X DELETE -o /dev/null
	wait_until 60 is_replaced
	run bash -c 'echo more >"$1"' - "$W/f"
	[ "$status" != 0 ]
	echo accept >"$C/ctl"
	is_empty "$W"
}

@test "a sandboxd that ends within its container is started again, and nothing is lost" {
	start_front
	echo text >"$W/f"
	other 'kill -9 $(pgrep -f "^/tmp/.sandboxfs/[^ ]*/sandboxd ")' || :
	wait_until 60 works_again
	[ "$(cat "$W/f")" = text ]
	[ "$(x 'echo back')" = back ]
	state_is running
}
works_again() { [ "$(cat "$W/f" 2>/dev/null)" = text ] && touch "$W/g"; }

# --- two mounts ---

@test "a second mount of the same user: the sandbox is in use, and says by whom; a third has others" {
	start_front
	echo text >"$W/f"
	mkdir "$T/mnt2"
	within 60 "$sandboxfs" "$url" "$T/mnt2" 3>&-
	[ "$(head -n 1 "$T/mnt2/$NAME/ctl/status")" = in-use ]
	run within 20 cat "$T/mnt2/$NAME/workspace/f"
	[[ $output == *busy* ]]
	grep -q "in use by pid $(fs_pid) ($MNT)" "$T/mnt2/$NAME/ctl/error"
	within 60 "$sandboxfs" -u "$MNT"
	[ "$(cat "$T/mnt2/$NAME/workspace/f")" = text ]
	within 60 "$sandboxfs" -u "$T/mnt2"
	mount_it
}

@test "another user or host shares a sandbox: both write, and each sees what the other has closed" {
	start_front
	mkdir -m 700 "$T/data2"
	mkdir "$T/mnt2"
	ls "$W" >/dev/null
	XDG_DATA_HOME=$T/data2 within 60 "$sandboxfs" "$url" "$T/mnt2" 3>&-
	mkdir "$T/mnt2/$NAME"
	echo one >"$W/f"
	[ "$(cat "$T/mnt2/$NAME/workspace/f")" = one ]
	echo two >"$T/mnt2/$NAME/workspace/f"
	wait_until 20 reads_two
	echo 'cat f' >"$T/mnt2/$NAME/ctl/exec"
	[ "$(cat "$T/mnt2/$NAME/ctl/last/stdout")" = two ]
	[ "$(x 'cat f')" = two ]
	[ "$(containers)" = 1 ]
	within 60 "$sandboxfs" -u "$T/mnt2"
	[ "$(cat "$W/f")" = two ]
}
reads_two() { [ "$(cat "$W/f")" = two ]; }

# --- a program that is killed ---

@test "kill -9: its terminal ends in the container, its sockets here go with the next program" {
	start_front
	ls "$W" >/dev/null
	[ "$(terminals)" = 1 ]
	kill -9 "$(fs_pid)"
	wait_until 50 no_terminal
	mount_it
	is_empty "$W"
	[ "$(terminals)" = 1 ]
	[ "$(find "$T/run" "$T/tmp" -name 'sandboxfs*' -maxdepth 2 -type d ! -name sandboxfs | wc -l)" -le 1 ]
}
