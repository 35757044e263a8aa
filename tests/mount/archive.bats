# ctl/workspace.tar: the workspace as a tar, both ways, as it goes.
load ../lib/harness

high_water() { awk '/VmHWM/ { print $2 }' "/proc/$(fs_pid)/status"; }

# bats test_tags=server
@test "out and in again: content, modes, links, hard links, xattrs, times to the ns (row 38)" {
	mkdir -p "$W/d/e"
	echo text >"$W/d/f"
	chmod 750 "$W/d/f"
	ln "$W/d/f" "$W/d/hard"
	ln -s f "$W/d/soft"
	setfattr -n user.colour -v red "$W/d/f" 2>/dev/null || no_xattr=1
	printf '%s' x >"$W/d/"$'n\nl'
	truncate -s 10M "$W/d/sparse"
	touch -h -d '2020-01-02 03:04:05.123456789' "$W/d/soft" "$W/d/f"
	touch -d '2019-01-02 03:04:05.987654321' "$W/d/e"
	local before
	before=$(cd "$W" && find d -printf '%p %y %m %s %n %T@ %l\n' | sort)
	cat "$C/workspace.tar" >"$T/a.tar"
	tar tf "$T/a.tar" | grep -q 'd/soft'
	if [ "$SERVER" = local ]; then
		echo destroy >"$C/ctl"
		wait_until 10 test ! -e "$M"
		mkdir "$M"
	else
		rm -r "$W/d"
	fi
	cat "$T/a.tar" >"$C/workspace.tar"
	diff <(echo "$before") <(cd "$W" && find d -printf '%p %y %m %s %n %T@ %l\n' | sort)
	[ "$W/d/f" -ef "$W/d/hard" ]
	[ -n "${no_xattr:-}" ] || [ "$(getfattr --only-values -n user.colour "$W/d/f")" = red ]
	[ "$(cat "$W/d/f")" = text ]
}

# bats test_tags=server
@test "tar of this machine writes to it and reads from it; gzip and zstd too; dash" {
	mkdir "$T/src" "$T/dst"
	seq 10000 >"$T/src/numbers"
	tar -C "$T/src" -c . >"$C/workspace.tar"
	cmp "$T/src/numbers" "$W/numbers"
	rm "$W/numbers"
	dash -c "tar -C $T/src -cz . >$C/workspace.tar"
	cmp "$T/src/numbers" "$W/numbers"
	if command -v zstd >/dev/null; then
		rm "$W/numbers"
		tar -C "$T/src" -c . | zstd -q >"$C/workspace.tar"
		cmp "$T/src/numbers" "$W/numbers"
	fi
	rm "$W/numbers"
	exec 7>"$C/workspace.tar"
	tar -C "$T/src" -c . >&7
	exec 7>&-
	cmp "$T/src/numbers" "$W/numbers"
	echo late >"$W/late"
	tar -C "$T/dst" -x <"$C/workspace.tar"
	diff -r "$W" "$T/dst"
}

# bats test_tags=server
@test "tar reads it as a file: each of its reads is answered in full" {
	local i
	mkdir "$W/many" "$T/dst"
	for i in $(seq 60); do echo "$i" >"$W/many/$i"; done
	head -c 20000000 /dev/urandom >"$W/big"
	tar tf "$C/workspace.tar" >"$T/names"
	[ "$(grep -c 'many/[0-9]' "$T/names")" = 60 ]
	tar -C "$T/dst" -xf "$C/workspace.tar"
	diff -r "$W" "$T/dst"
	/usr/bin/python3 - "$C/workspace.tar" <<-'E'
		import os, sys
		for size in (10240, 131072, 1000000):
		    fd, last = os.open(sys.argv[1], os.O_RDONLY), size
		    while got := len(os.read(fd, size)):
		        assert last == size, (size, last)
		        last = got
		    os.close(fd)
	E
	# who does not want to wait gets what there is
	/usr/bin/python3 - "$C/workspace.tar" >"$T/pieces" <<-'E'
		import os, select, sys
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
		while True:
		    try: got = os.read(fd, 1 << 17)
		    except BlockingIOError:
		        select.select([fd], [], [])
		        continue
		    if not got: break
		    sys.stdout.buffer.write(got)
	E
	[ "$(tar tf - <"$T/pieces" | wc -l)" = "$(wc -l <"$T/names")" ]
}

# bats test_tags=server
@test "names with .. and absolute ones are EPERM, and nothing is written outside" {
	mkdir "$T/src"
	echo evil >"$T/src/x$S"
	tar -C "$T/src" -cf "$T/up.tar" --transform 's,^,../,' "x$S"
	tar -C "$T/src" -cPf "$T/abs.tar" --transform 's,^,/tmp/,' "x$S"
	ln -s /tmp "$T/src/link"
	tar -C "$T/src" -cf "$T/link.tar" link
	tar -C "$T/src" -rf "$T/link.tar" --transform 's,^,link/,' "x$S"
	local f
	for f in up abs; do
		run cp "$T/$f.tar" "$C/workspace.tar"
		[ "$status" != 0 ]
		[[ $output == *'Operation not permitted'* ]] || { echo "$f: $output"; cat "$C/error"; return 1; }
	done
	run cp "$T/link.tar" "$C/workspace.tar"
	[ "$status" != 0 ]
	[ "$(other "ls -d /x$S /tmp/x$S 2>/dev/null; echo looked")" = looked ]
}

# bats test_tags=server
@test "a cut tar is EIO with the count done; no tar at all too; a killed writer cuts" {
	mkdir "$T/src"
	seq 1000 >"$T/src/a"
	head -c 1000000 /dev/urandom >"$T/src/b"
	tar -C "$T/src" -cf "$T/whole.tar" a b
	head -c 500000 "$T/whole.tar" >"$T/cut.tar"
	run cp "$T/cut.tar" "$C/workspace.tar"
	[ "$status" != 0 ]
	[[ $output == *'Input/output error'* ]]
	grep -q '^message workspace.tar: .*1 entries done' "$C/error"
	cmp "$T/src/a" "$W/a"
	run cp "$T/src/a" "$C/workspace.tar"
	[[ $output == *'Input/output error'* ]]
	rm "$W/a"
	mkfifo "$T/fifo"
	cat "$T/fifo" >"$C/workspace.tar" 3>&- &
	local pid=$!
	exec 7>"$T/fifo"
	head -c 500000 "$T/whole.tar" >&7
	wait_until 10 test -e "$W/a"
	kill -9 $pid
	exec 7>&-
	wait $pid || :
	wait_until 10 cmp "$T/src/a" "$W/a"
	run bash -c "exec 8<>$C/workspace.tar"
	[ "$status" != 0 ]
}

# bats test_tags=server
@test "200 MB stream both ways in little memory, and sizes are right" {
	x 'for i in 1 2 3 4; do head -c 50M /dev/urandom >big$i; done; sha256sum big* >sums'
	cat "$C/workspace.tar" >"$T/a.tar"
	(($(stat -c %s "$T/a.tar") > 200 * 1024 * 1024))
	[ "$(stat -c %s "$C/workspace.tar")" = 0 ]
	x 'rm big*'
	cat "$T/a.tar" >"$C/workspace.tar"
	rm "$T/a.tar"
	x 'sha256sum -c --quiet sums'
	echo "high water: $(high_water) kB"
	[ -n "${SAN:-}" ] || (($(high_water) < 60000))
}

# bats test_tags=server
@test "a reader that stops and goes away holds nothing; ^C, O_NONBLOCK and poll" {
	x 'head -c 30M /dev/urandom >big'
	head -c 1000000 "$C/workspace.tar" >/dev/null
	within 30 /usr/bin/python3 - "$C/workspace.tar" <<-'E'
		import os, select, sys
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
		p = select.poll(); p.register(fd, select.POLLIN)
		n = 0
		while True:
		    assert p.poll(20000)
		    try: got = os.read(fd, 1 << 17)
		    except BlockingIOError: continue
		    if not got: break
		    n += len(got)
		assert n > 30 << 20 and n % 512 == 0, n
	E
	within 20 ls "$W" >/dev/null
}
