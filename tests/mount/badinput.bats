# What a person types wrong and what a server answers wrong: a clear error, nothing hangs, nothing is lost.
NO_START=1
load ../lib/harness

refused() { # EXPRESSION ARGUMENT...: the program exits non-zero, with one sentence that matches
	local expression=$1
	shift
	run within 30 "$sandboxfs" "$@"
	[ "$status" != 0 ] && [ "$status" != 124 ] && [ "$status" -lt 128 ] || { echo "status $status: $output"; return 1; }
	[[ $output =~ $expression ]] || { echo "says: $output"; return 1; }
	! is_mounted
}

@test "usage errors are clear and exit non-zero" {
	refused '[Uu]sage|--help'
	refused '[Uu]sage|--help' local: "$MNT" too-much
	run within 10 "$sandboxfs" --help
	[ "$status" = 0 ]
	[[ $output == *timeout* ]]
	run within 10 "$sandboxfs" --version
	[ "$status" = 0 ]
}

@test "an unknown server is refused with what would be one" {
	refused 'local:' ftp://example.org "$MNT"
	refused '.' nonsense: "$MNT"
	refused '.' 'unix:' "$MNT"
	refused '.' 'http://' "$MNT"
}

@test "a dead socket and a closed port are refused, naming them" {
	refused "$T/none" -o timeout=3 "unix:$T/none" "$MNT"
	refused '127.0.0.1:1' -o timeout=3 http://127.0.0.1:1 "$MNT"
	SANDBOX_API_KEY=key refused 'no server takes connections at http://127.0.0.1:1; start it' http://127.0.0.1:1/v1 "$MNT"
}

@test "a wrong mount point is refused, naming it" {
	refused "$T/none" local: "$T/none"
	touch "$T/file"
	refused "$T/file" local: "$T/file"
}

@test "a wrong option or value is refused, naming it (row 26)" {
	refused 'frobnicate' -o frobnicate local: "$MNT"
	refused 'timeout' -o timeout=never local: "$MNT"
	refused 'symlinks' -o symlinks=maybe local: "$MNT"
	refused 'sandbox' -o 'sandbox=a b' local: "$MNT"
	refused 'token' -o token_file="$T/none" "unix:$T/none" "$MNT"
}

@test "a closed /dev/fuse is one sentence" {
	run unshare -r -m sh -c "mount --bind /dev/null /dev/fuse && '$sandboxfs' local: '$MNT'"
	[ "$status" != 0 ]
	[[ $output == *fuse* ]]
}

sentence() { # EXPRESSION: the newest error has errno and a sentence that matches
	grep -q '^errno ' "$C/error" && grep '^message ' "$C/error" | grep -qE "$1" || { cat "$C/error"; return 1; }
}

@test "malformed JSON in every file that takes it: EINVAL and where it is wrong" {
	start
	local text
	for text in '{' '{"command":' '{"command":"x"' '{"command":3}' '{"command":"true","nonsense":1}' '{"command":"true"} x' '[]' '{}' 'nul' '{"command":"x","env":[]}' '{"command":"x","timeout":"soon"}' '{"command":"x","stdinBase64":"%"}'; do
		run within 20 /usr/bin/python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.write(fd, sys.argv[2].encode() + b"\n")
print(os.read(fd, 100000))' "$C/exec.json" "$text"
		[ "$status" != 0 ] && [ "$status" != 124 ] || { echo "exec.json took: $text: $output"; return 1; }
		sentence 'exec.json'
	done
	for text in '{"command":' '{"command":"x"' '{"command":3}' '{"command":"true","nonsense":1}' '{"processId":"a/b","command":"true"}' '{"processId":"new","command":"true"}'; do
		run within 20 bash -c 'exec 5<>"$1"; printf "%s\n" "$2" >&5 && cat <&5' - "$C/processes/new" "$text"
		[ "$status" != 0 ] && [ "$status" != 124 ] || { echo "processes/new took: $text: $output"; return 1; }
		sentence 'processes/new'
	done
	[ "$(x 'echo fine')" = fine ]
}

@test "JSON nested a million deep is refused" {
	start
	/usr/bin/python3 -c 'print("{\"command\":" * 200000)' >"$T/deep"
	run within 20 bash -c "cat '$T/deep' > '$C/exec.json'"
	[ "$status" != 0 ]
	[ "$status" != 124 ]
	[ "$(x 'echo fine')" = fine ]
}

@test "ports 0 and 99999 and words that are no ports are refused by their creation" {
	start
	local p
	for p in 0 99999 -1 80x 65536 0080; do
		run touch "$C/ports/$p"
		[ "$status" != 0 ] || { echo "$p was taken"; return 1; }
	done
	run bash -c "echo x > $C/ports/99999"
	[ "$status" != 0 ]
	sentence '99999.*(not a port|1024 to 65535)'
	[ -z "$(ls "$C/ports")" ]
}

@test "ids of processes that are none are refused" {
	start
	local p
	for p in .hidden 'a b' $'a\nb' "$(printf 'x%.0s' {1..129})" new help; do
		run mkdir "$C/processes/$p"
		[ "$status" != 0 ] || { echo "$p was taken"; return 1; }
	done
	run mkdir "$C/processes/a/b"
	[ "$status" != 0 ]
}

@test "a script of a megabyte runs; a line of a conversation and a document beyond their limits are refused" {
	start
	{ printf ': '; head -c 1048576 /dev/zero | tr '\0' x; printf '\necho ran\n'; } >"$T/long"
	within 30 bash -c "cat '$T/long' > '$C/exec'"
	[ "$(cat "$C/last/stdout")" = ran ]
	run within 30 bash -c "head -c 17825792 /dev/zero | tr '\\0' '#' > '$C/exec'"
	[ "$status" != 0 ]
	[ "$status" != 124 ]
	[[ $output == *'File too large'* ]]
	within 30 /usr/bin/python3 - "$C/exec" <<-E
		import errno, os, sys
		fd = os.open(sys.argv[1], os.O_RDWR)
		number = os.read(fd, 100)
		text = b": " + b"x" * (3 << 20) + b"\n"
		try:
		    while text: text = text[os.write(fd, text):]
		    sys.exit("took 3 MiB as a line")
		except OSError as e: assert e.errno in (errno.EFBIG, errno.E2BIG, errno.EINVAL, errno.EMSGSIZE), e
	E
	[ "$(x 'echo fine')" = fine ]
}

@test "an open quote in a line of verbs is EINVAL, not a wait" {
	start
	run within 10 bash -c "echo \"discard 'open\" > $C/ctl"
	[ "$status" != 0 ]
	[ "$status" != 124 ]
	run within 10 bash -c "echo \"echo 'open\" > $C/exec"
	[ "$status" != 124 ]
	[ "$(x 'echo fine')" = fine ]
}

@test "wait-port and wait-log refuse what they cannot understand" {
	start
	mkdir "$C/processes/p"
	echo "sleep $S" >"$C/processes/p/cmd"
	local l
	for l in 0 99999 x '80 gopher' '80 status=many' '80 timeout=soon' '80 frob=1'; do
		run within 10 bash -c "echo '$l' > $C/processes/p/wait-port"
		[ "$status" != 0 ] && [ "$status" != 124 ] || { echo "$l was taken"; return 1; }
	done
	run within 10 bash -c "echo '(unclosed' > $C/processes/p/wait-log"
	[ "$status" != 0 ]
	[ "$status" != 124 ]
	[[ $output == *'Invalid argument'* ]]
}

# A server that says what MODE tells it.
nonsense_server() { # MODE
	/usr/bin/python3 - "$1" "$T/nonsense.sock" <<-'E' 3>&- &
		import os, socket, sys, threading, time
		mode, path = sys.argv[1:]
		# under its name it listens already
		s = socket.socket(socket.AF_UNIX); s.bind(path + "~"); s.listen(64); os.rename(path + "~", path)
		def head(body, length=None, kind="application/json", status="200 OK", extra=""):
		    return (f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body) if length is None else length}\r\n{extra}\r\n").encode() + body
		def serve(c):
		    try:
		        while True:
		            if not c.recv(65536): return
		            if mode == "garbage": c.sendall(os.urandom(5000)); return
		            if mode == "html": c.sendall(head(b"<html>hello</html>", kind="text/html"))
		            elif mode == "500": c.sendall(head(b"oops", status="500 Internal Server Error"))
		            elif mode == "half": c.sendall(head(b'{"success":tr', 4000)); return
		            elif mode == "null": c.sendall(head(b"null"))
		            elif mode == "deep": c.sendall(head(b'{"a":' * 100000))
		            elif mode == "endless":
		                c.sendall(head(b"", 1 << 50))
		                while True: c.sendall(b"x" * 65536)
		            elif mode == "drip":
		                c.sendall(head(b"", 1 << 20))
		                while True: c.sendall(b" "); time.sleep(0.3)
		            elif mode == "drip-header":
		                for b in head(b"{}" * 500): c.sendall(bytes([b])); time.sleep(0.3)
		            elif mode == "silent": c.recv(1); return
		            elif mode == "close": return
		            elif mode == "huge-header":
		                c.sendall(b"HTTP/1.1 200 OK\r\n")
		                while True: c.sendall(b"X-A: " + b"y" * 60000 + b"\r\n")
		    except OSError: pass
		    finally: c.close()
		while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
	E
	nonsense_pid=$!
	echo $nonsense_pid >>"$T/pids"
	wait_until 10 test -S "$T/nonsense.sock"
}
for_nonsense() { # MODE
	local began pid
	nonsense_server "$1"
	began=$SECONDS
	run within 30 "$sandboxfs" -o timeout=3 "unix:$T/nonsense.sock" "$MNT" 3>&-
	[ "$status" != 124 ] || { echo "the mount command hangs"; return 1; }
	((SECONDS - began <= 4 * SLOW + 4)) || { echo "took $((SECONDS - began)) s"; return 1; }
	if [ "$status" = 0 ]; then
		# a mount may come to be; then what needs the server fails in time, with a sentence
		C=$MNT/default/ctl
		run within 8 ls "$MNT/default/workspace"
		[ "$status" != 0 ]
		[ "$status" != 124 ]
		# by the reader at the latest: a shell does not look at what its > said at the end
		run within 8 bash -c "echo true > $C/exec && cat $C/exec"
		[ "$status" != 0 ]
		[ "$status" != 124 ]
		sentence .
		within 5 ls "$MNT" >/dev/null
		pid=$(fs_pid)
		[ "$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status")" -lt 300000 ] || [ -n "${SAN:-}" ]
		unmount
	else
		[ -n "$output" ]
	fi
}
@test "a server that answers garbage" { for_nonsense garbage; }
@test "a server that answers HTML" { for_nonsense html; }
@test "a server that answers 500 to everything" { for_nonsense 500; }
@test "a server that answers half a JSON" { for_nonsense half; }
@test "a server that answers null" { for_nonsense null; }
@test "a server that answers JSON a hundred thousand deep" { for_nonsense deep; }
@test "a server whose answer never ends" { for_nonsense endless; }
@test "a server that answers a byte at a time" { for_nonsense drip; }
@test "a server whose header comes a byte at a time" { for_nonsense drip-header; }
@test "a server that takes and never answers" { for_nonsense silent; }
@test "a server that closes every connection" { for_nonsense close; }
@test "a server whose header never ends" { for_nonsense huge-header; }

@test "-o sandbox= of a name that is not there is refused and says how to make it; -o create makes it" {
	refused 'nosuch.*-o create' -o sandbox=nosuch local: "$MNT"
	refused 'nosuch.*-o create' -o sandbox=nosuch,ro local: "$MNT"
	[ ! -e "$T/data/sandboxfs/nosuch" ]
	refused 'ctl' -o sandbox=ctl local: "$MNT"
	refused 'ctl' -o sandbox=ctl,create local: "$MNT"
	refused 'create.*ro' -o sandbox=new,create,ro local: "$MNT"
	refused 'create.*sandbox=' -o create local: "$MNT"
	within 30 "$sandboxfs" -o sandbox=new,create,subdir=workspace local: "$MNT" 3>&-
	echo text >"$MNT/f"
	within 30 "$sandboxfs" -u "$MNT"
	within 30 "$sandboxfs" -o sandbox=new,create local: "$MNT" 3>&-
	[ "$(cat "$MNT/workspace/f")" = text ]
}

@test "-o sandbox= of one that another mount uses is refused, naming it, and leaves no mount" {
	start
	ls "$W" >/dev/null
	mkdir "$T/mnt2"
	local first=$MNT option
	MNT=$T/mnt2
	for option in sandbox=$NAME sandbox=$NAME,subdir=workspace; do
		refused "in use by pid $(fs_pid_of "$first").*$first" -o $option "$url" "$MNT"
	done
	MNT=$first
}
fs_pid_of() { sed -n 's/^pid //p' "$1/ctl/stats"; }

@test "options for local: alone are refused with another server; schemes are the same in any case" {
	local option
	for option in net=none min-free=1M limits=processes:5; do
		refused 'is for local: alone' -o $option unix:/tmp/none "$MNT"
	done
	echo token >"$T/token"
	refused 'takes no token' -o token_file="$T/token" local: "$MNT"
	refused "$T/none" -o timeout=3 "UNIX:$T/none" "$MNT"
	refused '127.0.0.1:1' -o timeout=3 HTTP://127.0.0.1:1 "$MNT"
	run within 30 "$sandboxfs" LOCAL: "$MNT" 3>&-
	[ "$status" = 0 ]
	[ -z "$output" ]
	grep -qx 'url local:' "$MNT/ctl/server"
}

@test "the token of token_file goes with each request, and a file without one is refused" {
	local p
	umask 077
	: >"$T/empty"
	echo 'two words' >"$T/words"
	refused 'no token' -o token_file="$T/empty" "unix:$T/none" "$MNT"
	refused 'no token' -o token_file="$T/words" "unix:$T/none" "$MNT"
	/usr/bin/python3 - "$T/sock" "$T/heads" <<-'E' 3>&- &
		import os, socket, sys
		# under its name it listens already
		s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + "~"); s.listen(8); os.rename(sys.argv[1] + "~", sys.argv[1])
		while True:
		    c, _ = s.accept()
		    with open(sys.argv[2], "ab") as f: f.write(c.recv(65536))
		    c.sendall(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"); c.close()
	E
	echo $! >>"$T/pids"
	wait_until 10 test -S "$T/sock"
	printf 'secret-123\r\n' >"$T/token"
	refused 'status 500' -o token_file="$T/token",timeout=3 "unix:$T/sock" "$MNT"
	grep -q $'^Authorization: Bearer secret-123\r$' "$T/heads"
}

@test "--help says what each value is" {
	run within 10 "$sandboxfs" --help
	[[ $output == *'timeout=DUR'*'min-free=SIZE'*'DUR is 500ms, 30s'*'SIZE is bytes'* ]]
	[[ $output == *'memory:SIZE of each process alone'* ]]
}
