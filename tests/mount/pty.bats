# pty/: terminals in the sandbox.
load ../lib/harness

# pty [LINE]: opens one, its number in N and its directory in D.
pty() {
	exec {new}<>"$C/pty/new"
	echo "${1-}" >&"$new"
	read -r -t $((20 * SLOW)) N <&"$new"
	exec {new}>&-
	D=$C/pty/$N
}
# The terminal's bytes go to $T/screen while the test runs.
screen() {
	cat "$D/data" >"$T/screen" &
	reader=$!
}
type() { printf "$1" >"$D/data"; }
# A line of it, without what draws.
on_screen() { sed 's/\x1b\[[?0-9;]*[a-zA-Z]//g' <"$T/screen" | tr '\r' '\n' | grep -aq -- "$1"; }
shows() { wait_until 15 on_screen "$1"; }

# bats test_tags=server
@test "a shell at a terminal: size, TERM, a controlling tty, its exit code" {
	pty '100 30'
	[ "$(cat "$C/pty/new")" = "$N" ]
	screen
	type 'stty size; echo "[$TERM]"; tty; pwd; ps -o tty= -p $$\r'
	shows '^30 100'
	shows '^\[xterm-256color\]'
	shows '^/dev/pts/'
	shows '^/workspace'
	shows '^pts/'
	type 'exit 7\r'
	[ "$(within 15 cat "$D/wait")" = 7 ]
	wait_until 10 gone $reader
	[ "$(cat "$D/wait")" = 7 ]
	run bash -c 'echo x >"$1"' - "$D/data"
	[ "$status" -ne 0 ]
	grep -q '^errno EPIPE' "$C/error"
	rmdir "$D"
	[ -z "$(ls "$C/pty" | grep -v new)" ]
}

# bats test_tags=server
@test "resize is seen by what runs there, and can be read back" {
	pty
	screen
	[ "$(cat "$D/ctl")" = 'resize 80 24' ]
	type 'trap "echo winch: \$(stty size)" WINCH; echo rea""dy\r'
	shows '^ready'
	echo 'resize 132 50' >"$D/ctl"
	type '\r'
	shows 'winch: 50 132'
	[ "$(cat "$D/ctl")" = 'resize 132 50' ]
	cat "$D/ctl" >"$T/size" && cat "$T/size" >"$D/ctl"
}

sleeping() { [ "$(other "pgrep -fxc 'sleep $S'")" = "$1" ]; }
# bats test_tags=server
@test "^C interrupts the command and leaves the shell; signal reaches the program" {
	pty
	screen
	type 'echo star""ted\r'
	printf 'sleep %s\r' "$S" >"$D/data"
	shows '^started'
	wait_until 10 sleeping 1 # between two commands of a shell it may end neither
	type '\003'
	type 'echo af""ter $?\r'
	shows '^after 130'
	echo 'signal KILL' >"$D/ctl"
	[ "$(within 15 cat "$D/wait")" = 137 ]
}

@test "another shell, one that is not there, and what is no size" {
	local line
	pty '80 24 sh'
	screen
	type 'echo "<$0>"; exit\r' # its prompt may come behind this
	shows '<sh>'
	[ "$(within 15 cat "$D/wait")" = 0 ]
	pty '80 24 /no/such/shell'
	[ "$(within 15 cat "$D/wait")" = 127 ]
	for line in 80 '80 x' '0 24' '80 10001' '80 24 sh more' '-1 -1'; do
		run bash -c 'echo "$2" >"$1"' - "$C/pty/new" "$line"
		[ "$status" -ne 0 ] || { echo "$line"; return 1; }
		grep -q '^errno EINVAL' "$C/error"
	done
	run bash -c 'echo "resize 80" >"$1"' - "$D/ctl"
	[ "$status" -ne 0 ]
	run bash -c 'echo "resize 0 0" >"$1"' - "$D/ctl"
	[ "$status" -ne 0 ]
	run mkdir "$C/pty/9"
	[ "$status" -ne 0 ]
	run rmdir "$C/pty/99"
	[ "$status" -ne 0 ]
}

@test "a remark opens none, and there is a limit" {
	local n
	printf '# 80 24\n' >"$C/pty/new"
	[ "$(ls "$C/pty" | grep -vc new)" = 0 ]
	exec {new}<>"$C/pty/new"
	echo '80 24 /bin/true' >&"$new"
	read -r n <&"$new"
	exec {new}>&-
	[ "$(within 15 cat "$C/pty/$n/wait")" = 0 ]
	[ "$(ls "$C/pty" | grep -vc new)" = 1 ]
	yes '80 24 /bin/true' | head -n 127 >"$C/pty/new"
	run bash -c 'echo 80 24 >"$1"' - "$C/pty/new"
	[ "$status" -ne 0 ]
	grep -q '^errno EMFILE' "$C/error"
	grep -q '^message .*rmdir pty/' "$C/error"
	# one that is gone does not count, though the kernel may still know it
	exec 5<"$C/pty/$n/wait"
	rmdir "$C/pty/$n"
	echo '80 24 /bin/true' >"$C/pty/new"
	exec 5<&-
}

# bats test_tags=server
@test "vim edits a file there, and it is seen here" {
	pty '80 24'
	screen
	type 'vim -u NONE -n seen.txt\r'
	shows '\~'
	type 'ihello from vim\033:wq\r'
	wait_until 15 test -e "$W/seen.txt"
	type 'exit\r'
	[ "$(within 15 cat "$D/wait")" = 0 ]
	[ "$(cat "$W/seen.txt")" = 'hello from vim' ]
}

@test "what was written here is there when a line is typed; its end shows what it wrote" {
	local i
	pty
	screen
	for i in 1 2 3 4 5; do
		echo "text $i" >"$W/file"
		type 'cat file\r'
		shows "^text $i"
	done
	ls "$W" >/dev/null
	type 'echo made >made; exit\r'
	within 15 cat "$D/wait"
	[ "$(cat "$W/made")" = made ]
}

@test "bytes pass exactly both ways, also a megabyte of them" {
	pty
	type 'stty raw -echo; echo go; head -c 1000000 | sha256sum; exit\r'
	within 60 /usr/bin/python3 - "$D/data" <<-'END'
		import hashlib, os, sys, threading
		r = os.open(sys.argv[1], os.O_RDONLY)
		got = b""
		while b"go\n" not in got:
		    got += os.read(r, 65536)
		sent = os.urandom(1000000)
		w = os.open(sys.argv[1], os.O_WRONLY)
		def write():
		    at = 0
		    while at < len(sent):
		        at += os.write(w, sent[at:at + 300000])
		t = threading.Thread(target=write)
		t.start()
		while True:
		    more = os.read(r, 65536)
		    if not more:
		        break
		    got += more
		t.join()
		assert hashlib.sha256(sent).hexdigest().encode() in got, got[-300:]
	END
	[ "$(cat "$D/wait")" = 0 ]
}

@test "a late reader sees the newest part, a slow one loses nothing, and nobody stops the program" {
	pty
	type 'seq 200000; echo th""e end; exit\r'
	[ "$(within 60 cat "$D/wait")" = 0 ]
	within 10 cat "$D/data" >"$T/late"
	[ "$(stat -c %s "$T/late")" -le 262144 ]
	tr -d '\r' <"$T/late" | grep -qx 'the end'
	within 10 cat "$D/data" | cmp - "$T/late" # reading consumes nothing
	pty
	exec 5<"$D/data"
	read -r -t $((20 * SLOW)) -n 1 first <&5 # of the prompt: its place is where it reads first, which may be late
	type 'seq 300000; echo th""e end; touch done; exit\r'
	read -r -t $((20 * SLOW)) first <&5
	wait_until 60 test -e "$W/done" # nothing is read meanwhile, and the program is not held up
	within 60 cat <&5 | tr -d '\r' >"$T/slow"
	exec 5<&-
	seq 100 300000 >"$T/want"
	grep -x '[0-9]*' "$T/slow" | sed -n '/^100$/,$p' | cmp - "$T/want"
	! grep -q '^lost' "$T/slow" || false
}

@test "wait and data wait without a thread, poll tells, ^C and O_NONBLOCK end" {
	pty
	within 30 /usr/bin/python3 - "$D" <<-'END'
		import os, select, sys
		d = sys.argv[1]
		w = os.open(d + "/wait", os.O_RDONLY | os.O_NONBLOCK)
		try:
		    os.read(w, 10)
		    raise SystemExit("no EAGAIN")
		except BlockingIOError:
		    pass
		p = select.poll()
		p.register(w, select.POLLIN)
		assert p.poll(0) == []
		f = os.open(d + "/data", os.O_RDWR)
		os.write(f, b"exit 3\r")
		assert p.poll(15000)
		assert os.read(w, 10) == b"3\n"
		assert os.read(w, 10) == b""
	END
	pty
	cat "$D/wait" >"$T/out" &
	local pid=$!
	wait_until 10 grep -qF '(cat) S' "/proc/$pid/stat"
	kill $pid
	wait_until 10 gone $pid
}

@test "rmdir hangs up: what ran there has ended, who reads sees the end" {
	pty
	screen
	printf 'sleep %s & sleep %s\r' "$S" "$S" >"$D/data"
	wait_until 10 sleeping 2
	rmdir "$D"
	wait_until 10 gone $reader
	run cat "$D/data"
	[ "$status" -ne 0 ]
	wait_until 10 sleeping 0
}

@test "env holds for terminals too" {
	echo 'GREETING=hello there' >"$C/env"
	pty
	screen
	type 'echo "[$GREETING]"\r'
	shows '^\[hello there\]'
}

# bats test_tags=server
@test "two terminals do not know each other, and both end with the mount" {
	local a
	pty
	a=$D
	pty '90 20'
	printf 'X=first; echo $X-here\r' >"$a/data"
	printf 'echo "<$X>"; stty size\r' >"$D/data"
	screen
	shows '^<>'
	shows '^20 90'
	kill $reader
	wait_until 10 gone $reader
	unmount --kill
}

@test "a service of the mount that reads everything starts and ends nothing" {
	pty
	screen
	within 20 grep -r . "$C/pty" >/dev/null 2>&1 || :
	within 10 find "$C/pty" -type f >/dev/null
	type 'echo still\r'
	shows '^still'
}

@test "dash opens, types, waits" {
	within 30 dash -c '
		exec 3<>"$1/pty/new"; echo >&3; read -r n <&3; exec 3>&-
		printf "exit 5\r" >"$1/pty/$n/data"
		cat "$1/pty/$n/wait"
		rmdir "$1/pty/$n"' - "$C" >"$T/out"
	[ "$(cat "$T/out")" = 5 ]
}
