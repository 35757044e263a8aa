# ws/: WebSockets to a service in the sandbox. The service is tests/lib/ws_server.py: what it does is the path's.
load ../lib/harness

serve_ws() {
	cp "$BATS_TEST_DIRNAME/../lib/ws_server.py" "$W/"
	mkdir "$C/processes/service"
	echo 'exec python3 ws_server.py 0' >"$C/processes/service/cmd"
	echo 'timeout=60 ready' >"$C/processes/service/wait-log"
	P=$(sed -n 's/^ready //p' "$C/processes/service/stdout")
	[ -n "$P" ]
}
says() { wait_until 10 grep -qx "$1" "$C/processes/service/logs"; }
# connect NAME PATH [OPTION]...
connect() {
	[ -d "$C/ws/$1" ] || mkdir "$C/ws/$1"
	echo "connect $P /$2 ${*:3}" >"$C/ws/$1/ctl"
}
state() { head -n 1 <"$C/ws/$1/ctl"; }

# bats test_tags=server
@test "a port is a conversation: a line is a message, a message a line" {
	serve_ws
	local x
	exec 5<>"$C/ws/$P"
	echo hello >&5
	read -r -t 10 x <&5
	[ "$x" = hello ]
	printf 'two\nlines\n' >&5
	read -r -t 10 x <&5
	[ "$x" = two ]
	read -r -t 10 x <&5
	[ "$x" = lines ]
	printf 'no newline' >&5
	read -r -t 10 x <&5
	[ "$x" = 'no newline' ]
	echo >&5 # an empty message
	read -r -t 10 x <&5
	[ -z "$x" ]
	exec 5>&-
	# as the manual has it
	exec 5<>"$C/ws/$P"
	echo hello >&5
	[ "$(head -n1 <&5 2>"$T/err")" = hello ]
	exec 5>&-
}

@test "dash holds the same conversation" {
	serve_ws
	within 20 dash -c 'exec 5<>"$1"; echo one >&5; read -r a <&5; echo two >&5; read -r b <&5; echo "$a $b"' - "$C/ws/$P" >"$T/out"
	[ "$(cat "$T/out")" = 'one two' ]
}

@test "two openings of a port are two connections" {
	serve_ws
	local a b
	exec 5<>"$C/ws/$P" 6<>"$C/ws/$P"
	echo first >&5
	echo second >&6
	read -r -t 10 b <&6
	read -r -t 10 a <&5
	[ "$a $b" = 'first second' ]
	exec 5>&- 6>&-
}

@test "writing alone sends each line and closes after the last" {
	serve_ws
	connect c count
	rmdir "$C/ws/c"
	says 'count: 0 0 1001'
	echo hello >"$C/ws/$P"
	mkdir "$C/ws/c"
	connect c count
	{ echo one; echo two; printf three; } >"$C/ws/c/lines"
	[ "$(state c)" = open ]
	echo close >"$C/ws/c/ctl"
	says 'count: 3 11 1000'
}

@test "reading a port, or a name that is not connected, connects to nothing" {
	serve_ws
	run cat "$C/ws/$P"
	[ "$status" -ne 0 ]
	grep -q '^errno EACCES' "$C/error"
	[ -z "$(ls "$C/ws")" ]
	mkdir "$C/ws/c"
	[ "$(cat "$C/ws/c/ctl")" = closed ]
	within 10 grep -r . "$C/ws" >/dev/null || :
	[ "$(cat "$C/ws/c/ctl")" = closed ]
	run bash -c 'echo x >"$1"' - "$C/ws/c/lines"
	[ "$status" -ne 0 ]
	grep -q '^errno ENOTCONN' "$C/error"
}

# bats test_tags=server
@test "paths, protocols and headers reach the service" {
	serve_ws
	connect c 'headers?q=1' protocol=one protocol=two "'header=X-Words: two words'" header=Authorization:secret header=Host:example.org
	within 10 cat "$C/ws/c/lines" >"$T/out"
	head -n 1 "$T/out" | grep -qxF '/headers?q=1'
	grep -qx 'x-words: two words' "$T/out"
	grep -qx 'authorization: secret' "$T/out"
	grep -qx 'host: example.org' "$T/out"
	grep -qx 'sec-websocket-protocol: one,two' "$T/out"
	grep -qx 'sec-websocket-version: 13' "$T/out"
	grep -qx 'protocol two' "$C/ws/c/ctl"
}

@test "close codes go both ways, with the reason" {
	serve_ws
	connect c 'close?4001,bye'
	within 10 cat "$C/ws/c/lines"
	[ "$(cat "$C/ws/c/ctl")" = $'closed 4001\nreason bye' ]
	connect c silent-close
	within 10 cat "$C/ws/c/lines"
	[ "$(cat "$C/ws/c/ctl")" = 'closed 1005' ]
	connect c count
	echo 'close 4321' >"$C/ws/c/ctl"
	says 'count: 0 0 4321'
	[ "$(cat "$C/ws/c/ctl")" = 'closed 4321' ]
	[ -z "$(within 10 cat "$C/ws/c/lines")" ]
	run bash -c 'echo "close 1005" >"$1"' - "$C/ws/c/ctl"
	[ "$status" -ne 0 ]
	echo close >"$C/ws/c/ctl" # twice is harmless
	run bash -c 'echo late >"$1"' - "$C/ws/c/lines"
	[ "$status" -ne 0 ]
	grep -q '^errno EPIPE' "$C/error"
}

@test "pings are answered between the frames of a message, which is one line" {
	serve_ws
	connect c fragments
	[ "$(within 10 cat "$C/ws/c/lines")" = $'one two three\npong came' ]
	[ "$(state c)" = 'closed 1000' ]
}

# bats test_tags=server
@test "data is exact: any bytes, one write one message" {
	serve_ws
	connect c echo
	within 20 /usr/bin/python3 - "$C/ws/c/data" <<-'END'
		import os, sys
		fd = os.open(sys.argv[1], os.O_RDWR)
		for size in 1, 125, 126, 65535, 65536, 100000:
		    sent = os.urandom(size)
		    assert os.write(fd, sent) == size
		    got = os.read(fd, 1 << 20)
		    assert got == sent, (size, len(got))
		os.write(fd, b"a\nb\n")
		os.write(fd, b"c")
		assert os.read(fd, 100) == b"a\nb\n"
		assert os.read(fd, 100) == b"c"
		# a message longer than the read goes on in the next
		os.write(fd, b"0123456789")
		assert os.read(fd, 4) == b"0123" and os.read(fd, 100) == b"456789"
	END
	connect b binary
	within 10 cat "$C/ws/b/data" >"$T/out"
	/usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) + b"\n\ntext")' | cmp - "$T/out"
}

@test "a line that is not UTF-8 is refused, and the connection goes on" {
	serve_ws
	connect c echo
	run bash -c 'printf "\xff\n" >"$1"' - "$C/ws/c/lines"
	[ "$status" -ne 0 ]
	grep -q '^errno EILSEQ' "$C/error"
	exec 5<>"$C/ws/c/lines"
	echo 'äöü €' >&5
	read -r -t 10 x <&5
	[ "$x" = 'äöü €' ]
	exec 5>&-
}

@test "a service that breaks the protocol or the connection is an error of the read" {
	serve_ws
	connect c break
	run within 10 cat "$C/ws/c/lines"
	[[ $output = *before*'reset by peer'* ]]
	[ "$(state c)" = 'closed 1006' ]
	grep -q '^message ws/c: the connection broke' "$C/error"
	connect c masked
	run within 10 cat "$C/ws/c/lines"
	[[ $output = *'Protocol error'* ]]
	[ "$(state c)" = 'closed 1002' ]
	connect c badtext
	run within 10 cat "$C/ws/c/lines"
	[ "$status" -ne 0 ]
	says 'badtext: 8 1007'
	connect c echo # the name goes on to be of use
	[ "$(state c)" = open ]
	run connect c echo
	[ "$status" -ne 0 ]
	grep -q '^errno EBUSY' "$C/error"
}

# bats test_tags=server
@test "what cannot be connected says why" {
	serve_ws
	mkdir "$C/ws/c"
	local line want
	while read -r want line; do
		run bash -c 'echo "connect $2" >"$1"' - "$C/ws/c/ctl" "${line/PORT/$P}"
		[ "$status" -ne 0 ] || { echo "$line: no error"; return 1; }
		grep -qx "errno $want" "$C/error" || { echo "$line:"; cat "$C/error"; return 1; }
		[ "$(state c)" != open ]
	done <<-END
		EACCES PORT /forbidden
		ENOENT PORT /nothing
		EPROTO PORT /wrong-accept
		EPROTO PORT /not-http
		EPROTO PORT /wrong-protocol protocol=one
		ECONNREFUSED 1 /
		EINVAL 0 /
		EINVAL 65536 /
		EINVAL PORT /x frobnicate=1
		EINVAL PORT path
		EINVAL PORT /x header=Upgrade:h2c
		EINVAL PORT /x header=nocolon
		EINVAL PORT /x#y
		EINVAL PORT /x protocol=a/b
	END
	run bash -c 'exec 5<>"$1"' - "$C/ws/1"
	[[ $output = *'Connection refused'* ]]
	run mkdir "$C/ws/8080" "$C/ws/.x" "$C/ws/a b"
	[ "$(ls "$C/ws")" = c ]
}

@test "a first message in the same packet as the handshake is not lost" {
	serve_ws
	connect c welcome
	exec 5<>"$C/ws/c/lines"
	read -r -t 10 x <&5
	[ "$x" = welcome ]
	exec 5>&-
}

@test "readers consume nothing: each gets what came, also what came before it" {
	serve_ws
	connect c fragments
	wait_until 10 grep -qx 'closed 1000' "$C/ws/c/ctl"
	within 10 cat "$C/ws/c/lines" >"$T/a"
	within 10 cat "$C/ws/c/lines" >"$T/b"
	cmp "$T/a" "$T/b"
	[ "$(wc -l <"$T/a")" = 2 ]
	# another connection of the same name begins anew
	connect c headers
	within 10 head -n 1 <"$C/ws/c/lines" 2>"$T/err" | grep -qx /headers
}

@test "a peer that nobody reads waits, and nothing of what it sent is lost" {
	serve_ws
	connect c 'flood?4000,4096'
	exec 5<>"$C/ws/c/lines"
	read -r -t 10 first <&5
	[ "${first:0:9}" = 000000000 ]
	# it stands: as many as are kept here and on the way, of 16 MB
	same_twice() {
		local a=$(cat "$W/sent")
		read -r -t 0.5 -u "$pause" || :
		[ -n "$a" ] && [ "$a" = "$(cat "$W/sent")" ]
	}
	exec {pause}<> <(:)
	wait_until 20 same_twice
	exec {pause}>&-
	[ "$(cat "$W/sent")" -lt 2500 ]
	[ "$(state c)" = open ]
	cut -c 1-9 <&5 >"$T/out"
	exec 5>&-
	seq -f %09.0f 1 3999 | cmp - "$T/out"
	[ "$(state c)" = 'closed 1000' ]
}

# The number of pings that went out, when no more do.
pings_stand() {
	local a=$(cat "$W/sent")
	read -r -t 0.5 -u "$pause" || :
	[ -n "$a" ] && [ "$a" = "$(cat "$W/sent")" ]
}
@test "pings of a service that reads no pongs wait there, and each is answered when it reads" {
	serve_ws
	local before after pid pause
	pid=$(fs_pid)
	connect c count # what a first connection takes is no growth
	echo close >"$C/ws/c/ctl"
	before=$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")
	connect c 'pings?300000'
	exec {pause}<> <(:)
	wait_until 20 pings_stand
	exec {pause}>&-
	after=$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")
	[ -n "${SAN:-}" ] || [ $((after - before)) -lt 10000 ] || { echo "$before $after"; return 1; }
	[ "$(state c)" = open ]
	touch "$W/go"
	wait_until 60 grep -qx 'pongs: 300000' "$C/processes/service/logs"
	wait_until 10 state_is c 'closed 1000'
}
state_is() { [ "$(state "$1")" = "$2" ]; }

@test "pings put off no close" {
	serve_ws
	local pause
	connect c 'pings?300000'
	exec {pause}<> <(:)
	wait_until 20 pings_stand
	exec {pause}>&-
	# it never reads: given up after 5 s
	within 20 bash -c 'echo close >"$1"' - "$C/ws/c/ctl"
	[[ $(state c) == closed* ]]
}

@test "a reason cannot steer a terminal" {
	serve_ws
	connect c 'close?4001,a%1b[31m%c2%9b1m%0ab%c3%84'
	within 10 cat "$C/ws/c/lines"
	[ "$(cat "$C/ws/c/ctl")" = $'closed 4001\nreason a\\033[31m\\302\\2331m\\012b\303\204' ]
}

@test "one message of 200 MB passes in bounded memory" {
	serve_ws
	local before after pid
	pid=$(fs_pid)
	connect c 'huge?200000000'
	before=$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")
	[ "$(within 100 cat "$C/ws/c/data" | wc -c)" = 200000000 ]
	after=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status")
	[ -n "${SAN:-}" ] || [ $((after - before)) -lt 40000 ] || { echo "$before $after"; return 1; }
}

@test "a writer waits for a service that does not read; ^C ends the wait, O_NONBLOCK is EAGAIN" {
	serve_ws
	connect c slow
	within 60 /usr/bin/python3 - "$C/ws/c/data" "$W/go" <<-'END'
		import errno, os, select, signal, sys
		fd = os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
		sent = 0
		p = select.poll()
		p.register(fd, select.POLLOUT)
		# until it stands: for a while what is on the way makes room
		while p.poll(500):
		    try:
		        sent += os.write(fd, b"x" * 60000)
		    except BlockingIOError:
		        pass
		assert sent >= 500000, sent
		try:
		    while True:
		        os.write(fd, b"x" * 60000)
		except BlockingIOError:
		    pass
		# a writer that waits ends with a signal, and sends nothing more
		pid = os.fork()
		if pid == 0:
		    w = os.open(sys.argv[1], os.O_WRONLY)
		    while True:
		        os.write(w, b"y" * 60000)
		while open(f"/proc/{pid}/wchan").read() in ("0", ""):
		    pass
		# again, for one that comes between two system calls is only noted by Python, which then waits
		ended = (0, 0)
		while ended[0] == 0:
		    os.kill(pid, signal.SIGINT)
		    select.select([], [], [], 0.05)
		    ended = os.waitpid(pid, os.WNOHANG)
		assert ended[1] != 0
		open(sys.argv[2], "w").close()
		assert p.poll(30000), "never writable"
		os.write(fd, b"z")
	END
	echo close >"$C/ws/c/ctl"
	wait_until 20 grep -q '^count: .* 1000' "$C/processes/service/logs"
}

reads() { grep -qF '(cat) S' "/proc/$1/stat"; }
@test "100 readers wait without a thread each, and end with the connection" {
	serve_ws
	connect c echo
	local pid before i readers
	pid=$(fs_pid)
	cat "$C/ws/c/lines" >"$T/out.0" &
	readers=$!
	wait_until 10 reads $readers
	before=$(ls "/proc/$pid/task" | wc -l)
	for i in $(seq 99); do
		cat "$C/ws/c/lines" >"$T/out.$i" &
		readers="$readers $!"
	done
	echo hello >"$C/ws/c/lines"
	heard() { [ "$(cat "$T"/out.* | grep -cx hello)" = 100 ]; }
	wait_until 30 heard
	[ $(($(ls "/proc/$pid/task" | wc -l) - before)) -lt 40 ]
	echo close >"$C/ws/c/ctl"
	# shellcheck disable=SC2086
	wait $readers
}

@test "a signal ends a waiting read, rmdir one that waits in a name that goes, the end of the service every one" {
	serve_ws
	connect c echo
	cat "$C/ws/c/lines" >"$T/first" &
	local pid=$!
	wait_until 10 reads $pid
	kill $pid
	wait_until 20 gone $pid
	cat "$C/ws/c/lines" >"$T/out" &
	pid=$!
	wait_until 10 reads $pid
	rmdir "$C/ws/c"
	wait_until 20 gone $pid
	[ ! -e "$C/ws/c" ]
	connect d echo
	echo 'kill KILL' >"$C/processes/service/ctl"
	run within 10 cat "$C/ws/d/lines"
	[ "$status" -ne 0 ]
	[ "$(state d)" = 'closed 1006' ]
}

@test "poll tells when a message has come; a read that would wait is EAGAIN" {
	serve_ws
	connect c echo
	within 20 /usr/bin/python3 - "$C/ws/c/lines" <<-'END'
		import os, select, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
		try:
		    os.read(fd, 10)
		    raise SystemExit("no EAGAIN")
		except BlockingIOError:
		    pass
		p = select.poll()
		p.register(fd, select.POLLIN)
		assert p.poll(0) == []
		os.write(fd, b"ping\n")
		said = b""
		while not said.endswith(b"\n"): # which may come in parts
		    assert p.poll(10000)
		    said += os.read(fd, 100)
		assert said == b"ping\n"
	END
}

@test "the mount ends while connections are open" {
	serve_ws
	connect c echo
	connect d 'flood?4000,4096'
	[ "$(state c)" = open ]
	within 30 "$sandboxfs" -u --kill "$MNT"
}
