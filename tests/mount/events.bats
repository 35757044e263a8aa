# ctl/events: what changes under workspace/, from the open on, nothing lost unsaid.
load ../lib/harness

# listen [LINE]: events of this opening go to $T/events until the test ends; it is armed on return
listen() {
	mkfifo "$T/armed"
	/usr/bin/python3 - "$C/events" "$T/events" "$T/armed" "$@" 3>&- <<-'E' &
		import os, sys
		path, out, armed, line = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
		fd = os.open(path, os.O_RDWR if line else os.O_RDONLY)
		if line: os.write(fd, line[0].encode() + b"\n")
		to = os.open(out, os.O_WRONLY | os.O_CREAT, 0o600)
		open(armed, "w").close()
		while True:
		    got = os.read(fd, 65536)
		    if not got: break
		    os.write(to, got)
	E
	listener=$!
	cat "$T/armed" >/dev/null
	rm "$T/armed"
}
heard() { grep -qxF -- "$1" "$T/events"; }
hears() { wait_until 10 heard "$1"; }
# in order, whatever stands between
in_order() {
	local line
	exec 8<"$T/events"
	for line; do
		while :; do
			IFS= read -r got <&8 || { echo "not in order: $line"; cat "$T/events"; return 1; }
			[ "$got" != "$line" ] || break
		done
	done
	exec 8<&-
}
t=$'\t'

# bats test_tags=server
@test "create, modify, attrib, move and delete, of files and directories, as the sandbox and as this side make them" {
	x 'mkdir old; echo 1 >old/f'
	listen
	x 'mkdir a a/b'
	hears "create${t}a/b/"
	x 'echo 1 >a/f; chmod 600 a/f; mv a/f a/b/g; mv a/b c; rm c/g; rmdir c; rm -r old; ln -s x l; mv l /tmp/l'$S'; mv /tmp/l'$S' back'
	hears "create${t}back"
	in_order "create${t}a/" "create${t}a/f" "modify${t}a/f" "attrib${t}a/f" "move${t}a/f${t}a/b/g" \
		"move${t}a/b/${t}c/" "delete${t}c/g" "delete${t}c/" "delete${t}old/f" "delete${t}old/" \
		"create${t}l" "delete${t}l" "create${t}back"
	echo here >"$W/here"
	mv "$W/here" "$W/there"
	hears "move${t}here${t}there"
	kill $listener
}

# bats test_tags=server
@test "a new file has no other name before its own; one that is named so has it" {
	listen
	local i
	for i in 1 2 3 4 5; do
		touch "$W/new$i"
		echo text >"$W/full$i"
	done
	other 'echo a > /workspace/#12; echo b >> /workspace/#12; rm /workspace/#12; touch /workspace/last'
	hears "create${t}last"
	heard "create${t}#12"
	heard "delete${t}#12"
	heard "create${t}new5"
	! grep -vxF "create${t}#12" "$T/events" | grep -vxF "delete${t}#12" | grep -vxF "modify${t}#12" | grep '#' || false
}

# bats test_tags=server
@test "names with newline, tab and backslash are one line, and other bytes as they are" {
	listen
	x "touch 'a b' \$'n\\nl' \$'t\\tb' 'b\\' \$'\\377'"
	hears "create${t}b\\134"
	hears "create${t}n\\012l"
	hears "create${t}t\\011b"
	hears "create${t}a b"
	hears $'create\t\377'
	kill $listener
}

# bats test_tags=server
@test "nothing after the open is missed, nothing from before is told" {
	local i
	for i in 1 2 3 4 5; do
		x "touch before$i"
		listen
		x "touch after$i; mkdir -p d$i/e/f; touch d$i/e/f/g"
		hears "create${t}d$i/e/f/g"
		heard "create${t}after$i"
		run ! grep before "$T/events"
		kill $listener
		wait $listener || :
		rm "$T/events"
	done
}

# bats test_tags=server
@test "the first line says what: a directory, globs, not below it; .git and node_modules are told too" {
	x 'mkdir -p src/deep node_modules .git'
	listen 'src recursive=no exclude=*.o include=*.c include=*.o include=deep'
	x 'touch other src/a.c src/a.o src/a.h src/deep/b.c node_modules/x .git/x; rm src/a.c'
	hears "delete${t}src/a.c"
	[ "$(sort "$T/events" | uniq)" = "$(printf '%s\n' "attrib${t}src/a.c" "create${t}src/a.c" "delete${t}src/a.c" | sort)" ] || { cat "$T/events"; return 1; }
	kill $listener
	rm "$T/events"
	listen
	x 'touch node_modules/y .git/y'
	hears "create${t}node_modules/y"
	hears "create${t}.git/y"
	kill $listener
}

# bats test_tags=server
@test "what cannot be watched says so; who only writes hears nothing" {
	run bash -c 'exec 7<>"$1/events"; echo "$2" >&7' - "$C" nowhere
	[[ $output == *'No such file'* ]]
	run bash -c 'exec 7<>"$1/events"; echo "$2" >&7' - "$C" ../x
	[[ $output == *'Invalid argument'* ]]
	run bash -c 'exec 7<>"$1/events"; echo "$2" >&7' - "$C" '. often=yes'
	[[ $output == *'Invalid argument'* ]]
	grep -q 'often=yes' "$C/error"
	# a mistyped option is no directory, and nobody waits for what will not come
	run within 20 bash -c 'exec 7<>"$1/events"; echo "$2" >&7; cat <&7' - "$C" 'inclde=*.c'
	[ "$status" = 1 ]
	[[ $output == *'Invalid argument'*'Invalid argument'* ]]
	grep -q '^message events: not understood: inclde=' "$C/error"
	mkdir "$W/a=b"
	listen '/workspace/a=b'
	touch "$W/a=b/f"
	hears "create${t}a=b/f"
	run bash -c 'echo . >"$1/events"' - "$C"
	[[ $output == *'Invalid argument'* ]]
	run bash -c 'exec 7<>"$1/events"; echo . >&7; echo . >&7' - "$C"
	[[ $output == *'busy'* ]]
}

# bats test_tags=server
@test "since= tells a version, and whether anything has changed since one" {
	local version
	exec 7<>"$C/events"
	echo 'since=' >&7
	read -r word version _ <&7
	[ "$word" = version ]
	exec 7>&-
	exec 7<>"$C/events"
	echo "since=$version" >&7
	read -r word version status <&7
	[ "$status" = unchanged ]
	exec 7>&-
	x 'touch x'
	exec 7<>"$C/events"
	echo "since=$version" >&7
	read -r word version status <&7
	[ "$status" = changed ]
	exec 7>&-
}

# bats test_tags=server
@test "10,000 changes in a second: each is told, or it is said how many were not" {
	listen
	cat >"$W/many.py" <<-'E'
		import os
		for i in range(10000):
		    os.close(os.open("/workspace/n%d" % i, os.O_CREAT | os.O_WRONLY))
		open("/workspace/end", "w").close()
	E
	x 'python3 many.py'
	wait_until 30 heard "create${t}end"
	local told lost
	told=$(grep -c "^create${t}n[0-9]*$" "$T/events")
	lost=$(awk '$1 == "lost" { n += $2 } END { print n + 0 }' "$T/events")
	echo "told $told, lost $lost"
	((told == 10000 || told + lost >= 10000))
	run ! grep -F 'lost ?' "$T/events"
	kill $listener
}

# bats test_tags=server
@test "a reader that does not read holds nobody up, and is told how many it missed" {
	cat >"$W/many.py" <<-'E'
		import os
		long = "/workspace" + ("/" + "x" * 240) * 12
		for i in range(4000):
		    n = long + "/%d" % i
		    os.close(os.open(n, os.O_CREAT | os.O_WRONLY)); os.unlink(n)
		open("/workspace/end", "w").close()
	E
	# fewer than the kernel keeps for who is slow to take them (16,384), or nobody knows how many; what is long are the names
	x "mkdir -p $(printf '%0.s'"$(printf 'x%.0s' {1..240})/" {1..12})"
	within 100 /usr/bin/python3 - "$C/events" "$C/exec" <<-'E'
		import os, subprocess, sys, time
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
		with open(sys.argv[2], "w") as f: f.write("python3 many.py")
		got, told, lost, last, deadline = b"", 0, 0, b"", time.monotonic() + 30
		while told + lost < 8000 and time.monotonic() < deadline:
		    try: got = last + os.read(fd, 1 << 20)
		    except BlockingIOError:
		        time.sleep(0.01); continue
		    *lines, last = got.split(b"\n")
		    for l in lines:
		        if l.startswith(b"lost "): lost += int(l[5:])
		        elif b"xxx" in l: told += 1
		print(told, lost)
		assert lost > 0 and told > 0, (told, lost)
		assert 8000 <= told + lost < 8100, (told, lost)
	E
}

@test "100 listeners cost no thread each here, and none of them keeps ls waiting; the last close ends what watches" {
	local i before pid
	x true
	pid=$(fs_pid)
	few_threads() { (($(ls "/proc/$pid/task" | wc -l) < before + 40)); }
	cat "$C/events" >"$T/first" 3>&- &
	echo $! >>"$T/pids"
	listen
	before=$(ls "/proc/$pid/task" | wc -l)
	for i in $(seq 99); do
		cat "$C/events" >"$T/out$i" 3>&- &
		echo $! >>"$T/pids"
	done
	within 20 ls -l "$W" >/dev/null
	# one that opened later sees a later one
	for i in $(seq 99); do wait_until 20 bash -c "grep -q seen $T/out$i || { touch $W/seen; false; }"; done
	wait_until 20 few_threads || { ls "/proc/$pid/task" | wc -l; return 1; }
}

# bats test_tags=server
@test "^C ends a reader, O_NONBLOCK is EAGAIN, poll tells" {
	x true # it runs: an opening with O_NONBLOCK starts none
	within 30 /usr/bin/python3 - "$C/events" "$W/f" "$SLOW" <<-'E'
		import os, select, signal, sys, time
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
		try: os.read(fd, 10); sys.exit("no EAGAIN")
		except BlockingIOError: pass
		p = select.poll(); p.register(fd, select.POLLIN)
		assert not p.poll(100)
		open(sys.argv[2], "w").close()
		assert p.poll(8000)
		assert b"f" in os.read(fd, 1000)
		opened, tell = os.pipe()
		pid = os.fork()
		if pid == 0:
		    signal.signal(signal.SIGINT, signal.SIG_DFL)
		    f = os.open(sys.argv[1], os.O_RDONLY)
		    os.write(tell, b"x")
		    while True: os.read(f, 1000)
		os.close(tell)
		assert os.read(opened, 1) == b"x"
		while "request_wait" not in open(f"/proc/{pid}/wchan").read(): time.sleep(0.01)
		began = time.monotonic()
		os.kill(pid, signal.SIGINT)
		assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT
		assert time.monotonic() - began < 3 * int(sys.argv[3])
	E
}

# bats test_tags=server
@test "a link that broke is taken up again, and what was missed is said" {
	[ "$SERVER" = tcp ] || start_server tcp # a link that can be cut
	cat >"$T/proxy.py" <<-'E'
		import signal, socket, sys, threading
		port = int(sys.argv[1])
		pairs = []
		def cut(*_):
		    for s in pairs:
		        try: s.shutdown(socket.SHUT_RDWR)
		        except OSError: pass
		    pairs.clear()
		signal.signal(signal.SIGUSR1, cut)
		def pump(a, b):
		    try:
		        while True:
		            data = a.recv(65536)
		            if not data: break
		            b.sendall(data)
		    except OSError: pass
		    for s in a, b:
		        try: s.shutdown(socket.SHUT_RDWR)
		        except OSError: pass
		l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(64)
		print(l.getsockname()[1], flush=True)
		while True:
		    a, _ = l.accept()
		    b = socket.create_connection(("127.0.0.1", port))
		    pairs.extend((a, b))
		    for p in (a, b), (b, a): threading.Thread(target=pump, args=p, daemon=True).start()
	E
	/usr/bin/python3 "$T/proxy.py" "${url##*:}" >"$T/proxy" 3>&- &
	local proxy=$!
	echo $proxy >>"$T/pids"
	wait_until 10 grep -q . "$T/proxy"
	mkdir "$T/mnt2"
	within 60 "$sandboxfs" "http://127.0.0.1:$(cat "$T/proxy")" "$T/mnt2" 3>&-
	C=$T/mnt2/default/ctl listen
	touch "$T/ws/before"
	hears "create${t}before"
	kill -USR1 $proxy
	hears 'lost ?'
	touch "$T/ws/after"
	hears "create${t}after"
	in_order "create${t}before" 'lost ?' "create${t}after"
	kill $listener
}

@test "who listens is told when the sandbox is destroyed, and when the mount ends" {
	many || skip 'one sandbox only'
	local pid
	x true
	cat "$C/events" >"$T/out" 2>"$T/err" 3>&- &
	pid=$!
	wait_until 10 bash -c "touch $W/f; grep -q . $T/out"
	echo 'destroy force' >"$C/ctl"
	wait_until 15 gone $pid
	cat "$T/err"
	grep -q 'Stale file handle' "$T/err"
	mkdir "$M"
	x true
	cat "$C/events" >"$T/out2" 2>"$T/err2" 3>&- &
	pid=$!
	wait_until 10 bash -c "touch $W/f; grep -q . $T/out2"
	umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT"
	kill -TERM "$(fs_pid)"
	wait_until 15 gone $pid
	cat "$T/err2"
	[ -s "$T/err2" ]
}

@test "looking at all that is in ctl/, as grep -r does, starts no sandbox" {
	many || skip 'its server runs anyway'
	remount
	[ "$(head -n 1 "$C/status")" = unknown ]
	! grep -rs 'nothing has this' "$C" || false
	run dd if="$C/events" iflag=nonblock
	[[ $output == *'Resource temporarily unavailable'* ]]
	run dd if="$C/workspace.tar" iflag=nonblock
	[[ $output == *'Resource temporarily unavailable'* ]]
	[ "$(head -n 1 "$C/status")" = unknown ]
	# who waits has it started
	cat "$C/workspace.tar" >"$T/tar"
	tar tf "$T/tar"
	[ "$(head -n 1 "$C/status")" = running ]
	run ! dd if="$C/events" iflag=nonblock
	[[ $output == *'Resource temporarily unavailable'* ]] # nothing has changed yet
}
