# The file tree of workspace/: every operation a program may do on a disk, and what the sandbox then has.
# Promises: README, "What the file tree promises".
load ../lib/harness

# bats test_tags=server
@test "what is written here is byte for byte in the sandbox when close has returned" {
	head -c 1000003 /dev/urandom >"$T/f"
	cp "$T/f" "$W/f"
	same_there f
	cmp "$T/f" "$W/f"
}

# bats test_tags=server
@test "what is written in the sandbox is here at the next open" {
	x 'printf one > f'
	[ "$(cat "$W/f")" = one ]
	x 'printf longer-text > f'
	[ "$(cat "$W/f")" = longer-text ]
	x 'printf s > f; echo new > g'
	[ "$(cat "$W/f")" = s ]
	[ "$(ls "$W")" = $'f\ng' ]
}

# bats test_tags=server
@test "another hand lengthens, shortens, replaces and deletes: open gives exactly the new bytes (row 8)" {
	local i n sum
	for i in $(seq 40); do
		n=$((RANDOM * 7))
		case $((i % 4)) in
		0) sum=$(other "head -c $n /dev/urandom > /workspace/f; sha256sum < /workspace/f") ;;
		1) sum=$(other "truncate -s $n /workspace/f; sha256sum < /workspace/f") ;;
		2) sum=$(other "head -c $n /dev/urandom > /workspace/t; mv /workspace/t /workspace/f; sha256sum < /workspace/f") ;;
		3) sum=$(other "rm -f /workspace/f; head -c $n /dev/zero | tr '\0' $i > /workspace/f; sha256sum < /workspace/f") ;;
		esac
		# names and attributes live a second; an open asks anew. Over a slow link a name may be missing for so long.
		[ "$SERVER" != bridge ] || wait_until 2 test -e "$W/f"
		[ "$(sha256sum <"$W/f")" = "$sum" ] || { echo "round $i, $n bytes"; return 1; }
		[ "$(sha256sum <"$W/f")" = "$sum" ]
	done
}

# bats test_tags=server
@test "sizes around the limits of blocks, requests and pages come back equal (row 16)" {
	local n
	for n in 0 1 4095 4096 4097 98304 131071 131072 131073 1048575 1048577 4194303 4194305 33554431 33554433; do
		head -c $n /dev/urandom >"$T/f"
		cp "$T/f" "$W/f$n"
		[ "$(stat -c %s "$W/f$n")" = $n ]
		same_there "f$n"
		cmp "$T/f" "$W/f$n"
		rm "$W/f$n"
	done
}

# bats test_tags=server
@test "names with quotes, newlines, dashes, blanks and bytes that are not UTF-8 are kept" {
	local name n=0
	for name in 'a b' "it's" '"q"' $'new\nline' '-rf' '--help' $'\xff\xfe' $'\x01\x7f' 'ünï' '*' '?[x]' \
		'$(touch x)' '`id`' '\back\\' ' lead' 'trail ' '.hidden' '...' '~' '#x#' 'a:b' '%2F' '%00'; do
		echo "$name" >"$W/$name"
		[ "$(cat "$W/$name")" = "$name" ]
		n=$((n + 1))
	done
	[ "$(find "$W" -type f -print0 | tr -cd '\0' | wc -c)" = $n ]
	[ "$(other 'cd /workspace; for f in * .[!.]* ...; do [ "$(cat "./$f")" = "$f" ] || echo "bad $f"; done; ls -A | wc -l >/dev/null')" = '' ]
	for name in "$W"/* "$W"/.hidden "$W"/...; do rm -- "$name"; done
	[ -z "$(ls -A "$W")" ]
}

@test "a name has 255 bytes and no more" {
	local long
	long=$(printf 'x%.0s' {1..255})
	echo ok >"$W/$long"
	[ "$(cat "$W/$long")" = ok ]
	run touch "$W/${long}y"
	[ "$status" != 0 ]
	[[ $output == *'File name too long'* ]]
}

@test "a deep path works, as deep as a path may be" {
	local d=$W i
	for i in $(seq 40); do d=$d/$(printf "dir-%03d-0123456789-0123456789-0123456789" "$i"); done
	mkdir -p "$d"
	echo deep >"$d/f"
	[ "$(cat "$d/f")" = deep ]
	rm -r "$W"/dir-001*
	[ -z "$(ls -A "$W")" ]
}

@test "a file with holes keeps its holes and its zeros" {
	truncate -s 64M "$W/f"
	printf mid | dd of="$W/f" bs=1 seek=33554432 conv=notrunc status=none
	[ "$(stat -c %s "$W/f")" = 67108864 ]
	[ "$(stat -c %b "$W/f")" -lt 4096 ]
	same_there f
	[ "$(other 'stat -c %b /workspace/f')" -lt 4096 ]
	/usr/bin/python3 - "$W/f" <<-E
		import os, sys
		fd = os.open(sys.argv[1], os.O_RDONLY)
		d = os.lseek(fd, 0, os.SEEK_DATA)
		assert 0 < d <= 33554432, d
		h = os.lseek(fd, d, os.SEEK_HOLE)
		assert 33554432 < h < 67108864, h
	E
}

# bats test_tags=server
@test "appends of many programs here and there lose nothing (row 9)" {
	local i pids=()
	echo a >"$W/f"
	echo b >>"$W/f"
	[ "$(cat "$W/f")" = $'a\nb' ]
	for i in 1 2 3 4; do
		(for n in $(seq 50); do echo "here $i $n" >>"$W/g"; done) 3>&- &
		pids+=($!)
	done
	other 'for n in $(seq 50); do echo "there 0 $n" >> /workspace/g; done'
	wait "${pids[@]}"
	[ "$(other 'sort /workspace/g | uniq | wc -l')" = 250 ]
	[ "$(other 'wc -l < /workspace/g')" = 250 ]
	wait_until 3 lines_are "$W/g" 250
}
lines_are() { [ "$(wc -l <"$1")" = "$2" ]; }

@test "an append after the other side has appended goes to the true end" {
	echo one >"$W/f"
	exec 5>>"$W/f"
	other 'echo two >> /workspace/f'
	echo three >&5
	exec 5>&-
	[ "$(other 'cat /workspace/f')" = $'one\ntwo\nthree' ]
}

@test "truncate shortens, lengthens with zeros, and on an open file too" {
	printf 0123456789 >"$W/f"
	truncate -s 4 "$W/f"
	[ "$(cat "$W/f")" = 0123 ]
	truncate -s 8 "$W/f"
	[ "$(od -An -c "$W/f" | tr -d ' \n')" = '0123\0\0\0\0' ]
	/usr/bin/python3 - "$W/f" <<-E
		import os, sys
		f = open(sys.argv[1], "r+b", buffering=0)
		f.write(b"abcdef"); f.truncate(3); f.write(b"X")
		assert os.fstat(f.fileno()).st_size == 7
		f.seek(0); assert f.read() == b"abc\0\0\0X"
	E
	[ "$(other 'od -An -c /workspace/f' | tr -d ' \n')" = 'abc\0\0\0X' ]
	: >"$W/f"
	[ "$(other 'stat -c %s /workspace/f')" = 0 ]
}

@test "random writes and truncations leave what a local disk would have (row 9)" {
	within 100 /usr/bin/python3 - "$W/model" "$T/model" <<-E
		import os, random, sys
		random.seed(7)
		a, b = sys.argv[1:]
		for rounds in range(25):
		    fds = [os.open(p, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if rounds % 9 == 8 else 0), 0o644) for p in (a, b)]
		    for step in range(30):
		        what = random.random()
		        if what < .7:
		            at, data = random.randrange(300000), random.randbytes(random.randrange(1, 20000))
		            for fd in fds: assert os.pwrite(fd, data, at) == len(data)
		        elif what < .85:
		            n = random.randrange(320000)
		            for fd in fds: os.ftruncate(fd, n)
		        else:
		            at, n = random.randrange(300000), random.randrange(30000)
		            x, y = (os.pread(fd, n, at) for fd in fds)
		            assert x == y, (rounds, step, at, n)
		        x, y = (os.fstat(fd).st_size for fd in fds)
		        assert x == y, (rounds, step, x, y)
		    if rounds % 3 == 0:
		        os.fsync(fds[0])
		    for fd in fds: os.close(fd)
		    assert open(a, "rb").read() == open(b, "rb").read(), rounds
	E
	cmp "$W/model" "$T/model"
	[ "$(other 'sha256sum < /workspace/model')" = "$(sha256sum <"$T/model")" ]
}

# bats test_tags=server
@test "rename replaces, and keeps the file's inode and content" {
	echo old >"$W/a"
	echo new >"$W/b"
	local ino
	ino=$(stat -c %i "$W/b")
	mv "$W/b" "$W/a"
	[ "$(cat "$W/a")" = new ]
	[ "$(stat -c %i "$W/a")" = "$ino" ]
	[ ! -e "$W/b" ]
	mkdir "$W/d"
	mv "$W/a" "$W/d/c"
	[ "$(other 'cat /workspace/d/c; ls /workspace')" = $'new\nd' ]
}

@test "two programs that truncate one file at the same moment: what is written then is there, and nothing is unsent" {
	within 100 /usr/bin/python3 - "$W" "$C" <<-E
		import os, sys, threading
		w, c = sys.argv[1:]
		open(w + "/f", "w").close()
		for what in range(300):
		    begin, opened = threading.Barrier(2), threading.Barrier(2)
		    def work(letter, writes):
		        begin.wait()
		        fd = os.open(w + "/f", os.O_WRONLY | os.O_TRUNC)
		        opened.wait()
		        if writes: os.write(fd, letter * 20000)
		        os.close(fd)
		    pair = [threading.Thread(target=work, args=(b"a", what % 3 < 2)), threading.Thread(target=work, args=(b"b", True))]
		    for t in pair: t.start()
		    for t in pair: t.join()
		    got = open(w + "/f", "rb").read()
		    assert got == b"b" * 20000 or what % 3 < 2 and got == b"a" * 20000, (what, len(got), set(got))
		    assert open(c + "/sync").read() == "", what
	E
}

@test "rename of directories: over an empty one yes, over a full one ENOTEMPTY, below itself EINVAL" {
	mkdir -p "$W/a/x" "$W/b" "$W/c/y"
	mv -T "$W/a" "$W/b"
	[ -d "$W/b/x" ]
	run mv -T "$W/b" "$W/c"
	[ "$status" != 0 ]
	[[ $output == *'Directory not empty'* ]]
	/usr/bin/python3 - "$W" <<-E
		import errno, os, sys
		try: os.rename(sys.argv[1] + "/c", sys.argv[1] + "/c/y/z"); sys.exit("done?")
		except OSError as e: assert e.errno == errno.EINVAL, e
	E
}

renameat2() { # OLD NEW FLAGS: its errno's name, or ok
	/usr/bin/python3 - "$@" <<-E
		import ctypes, errno, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		r = libc.renameat2(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), int(sys.argv[3]))
		print("ok" if r == 0 else errno.errorcode[ctypes.get_errno()])
	E
}
@test "RENAME_NOREPLACE does not replace and RENAME_EXCHANGE exchanges" {
	echo a >"$W/a"
	echo b >"$W/b"
	[ "$(renameat2 "$W/a" "$W/b" 1)" = EEXIST ]
	[ "$(cat "$W/b")" = b ]
	[ "$(renameat2 "$W/a" "$W/b" 2)" = ok ]
	[ "$(cat "$W/a" "$W/b")" = $'b\na' ]
	[ "$(renameat2 "$W/a" "$W/c" 1)" = ok ]
	[ "$(other 'cat /workspace/c')" = b ]
}

@test "hard links are one file with a count" {
	echo one >"$W/a"
	ln "$W/a" "$W/b"
	[ "$(stat -c %h "$W/a")" = 2 ]
	[ "$(stat -c %i "$W/a")" = "$(stat -c %i "$W/b")" ]
	echo two >>"$W/b"
	[ "$(cat "$W/a")" = $'one\ntwo' ]
	rm "$W/a"
	[ "$(stat -c %h "$W/b")" = 1 ]
	[ "$(other 'stat -c %h /workspace/b')" = 1 ]
}

# bats test_tags=server
@test "an existing file that is written again keeps its inode, links, mode and open readers" {
	echo old >"$W/a"
	ln "$W/a" "$W/b"
	chmod 640 "$W/a"
	local ino there
	ino=$(stat -c %i "$W/a")
	there=$(other 'stat -c %i /workspace/a')
	exec 5<"$W/a"
	echo longer content >"$W/a"
	[ "$(stat -c '%i %a %h' "$W/a")" = "$ino 640 2" ]
	[ "$(other 'stat -c %i /workspace/a')" = "$there" ]
	[ "$(cat "$W/b")" = 'longer content' ]
	[ "$(cat <&5)" = 'longer content' ]
	exec 5<&-
}

@test "a new file appears whole in the sandbox, never in part" {
	x 'mkdir d; cat > watch.sh <<E
touch begun
while [ ! -e stop ]; do for f in d/*; do [ -e "\$f" ] && [ "\$(stat -c %s "\$f" 2>/dev/null || echo 8000000)" != 8000000 ] && echo "\$f" >> torn; done; done
E'
	echo 'bash watch.sh' >"$C/processes/new"
	wait_until 10 test -e "$W/begun"
	local i
	for i in 1 2 3 4 5 6; do head -c 8000000 /dev/zero >"$W/d/f$i"; done
	touch "$W/stop"
	wait_until 10 grep -q . "$C"/processes/*/exit
	[ ! -e "$W/torn" ]
}

@test "a new file whose writer is killed in the middle leaves no torn file with a false end" {
	# close by the kernel is a close: what was written is there, all of it
	(head -c 300000 /dev/urandom | tee "$T/part"; read -r -t 100 <> <(:)) >"$W/f" 2>/dev/null 3>&- &
	local pid=$!
	wait_until 5 size_is "$T/part" 300000
	pkill -P $pid || :
	kill -9 $pid
	wait $pid || :
	wait_until 5 cmp -s "$T/part" "$W/f"
}
size_is() { [ "$(stat -c %s "$1" 2>/dev/null)" = "$2" ]; }

# bats test_tags=server
@test "a file that was unlinked while open goes on for its descriptor, and nothing litters (row 31)" {
	echo text >"$W/f"
	exec 5<>"$W/f"
	rm "$W/f"
	[ ! -e "$W/f" ]
	[ -z "$(ls -A "$W")" ]
	[ -z "$(other 'ls -A /workspace')" ]
	[ "$(cat <&5)" = text ]
	echo more >&5
	[ "$(stat -L -c %s "/proc/$$/fd/5")" = 10 ] || [ "$(stat -L -c %s /dev/fd/5)" = 10 ]
	exec 5>&-
	[ -z "$(ls -A "$W")" ]
	[ -z "$(other 'ls -A /workspace')" ]
}

@test "a file that the sandbox unlinks while it is open here goes on for its descriptor" {
	head -c 3000000 /dev/urandom >"$W/f"
	local sum
	sum=$(sha256sum <"$W/f")
	x 'true'
	exec 5<"$W/f"
	other 'rm /workspace/f'
	[ "$(sha256sum <&5)" = "$sum" ]
	exec 5<&-
	wait_until 3 test ! -e "$W/f"
}

# bats test_tags=server
@test "a file that the sandbox replaces all the time opens each time, and is read whole" {
	local writer
	cp "$repo/tests/lib/replaced.py" "$W"
	(x 'python3 replaced.py write f 0.001') 3>&- &
	writer=$!
	wait_until 20 test -s "$W/f"
	within 50 python3 "$repo/tests/lib/replaced.py" read "$W/f" 300
	: >"$W/f.stop"
	wait_until 20 gone $writer
	wait $writer
}

@test "bytes written to a file that was replaced meanwhile neither vanish nor come back under its name" {
	echo first >"$W/f"
	# any close of a copy of the descriptor would send what was written: the replacement runs apart from the writer
	(
		wait_until 10 test -e "$T/written"
		other 'echo theirs > /workspace/t; mv /workspace/t /workspace/f'
		touch "$T/replaced"
	) 3>&- &
	python3 - "$W/f" "$T" <<-'E'
		import os, sys, time
		fd = os.open(sys.argv[1], os.O_WRONLY)
		os.write(fd, b"ours\n")
		open(sys.argv[2] + "/written", "w").close()
		end = time.monotonic() + 60
		while not os.path.exists(sys.argv[2] + "/replaced") and time.monotonic() < end:
		    time.sleep(0.01)
		os.close(fd)
	E
	wait_until 3 grep -q theirs "$W/f"
	[ "$(other 'cat /workspace/f')" = theirs ]
	[ "$(head -n 1 "$W"/f.conflict-*)" = ours ]
	grep -q '^conflict f.conflict-' "$C/sync"
	rm "$W"/f.conflict-*
	[ -z "$(cat "$C/sync")" ]
}

# bats test_tags=server
@test "the same where its name is looked at here before the close" {
	local look
	for look in 'ls -l' cat 'stat -c %i'; do
		echo first >"$W/log"
		python3 - "$W/log" $look <<-'E'
			import os, subprocess, sys
			log, look = sys.argv[1], sys.argv[2:]
			fd = os.open(log, os.O_WRONLY | os.O_APPEND)
			os.write(fd, b"a\n")
			with open(os.path.dirname(log) + "/../ctl/exec", "w") as f:
			    f.write("cp log new && mv new log\n")
			subprocess.run(look + [log, os.path.dirname(log)], stdout=subprocess.DEVNULL)
			os.write(fd, b"b\n")
			os.close(fd)
		E
		[ "$(other 'cat /workspace/log')" = $'first\na' ]
		[ "$(cat "$W"/log.conflict-*)" = $'first\na\nb' ]
		grep -q '^conflict log.conflict-' "$C/sync"
		x true
		rm "$W"/log*
		[ -z "$(cat "$C/sync")" ]
	done
}

# bats test_tags=server
@test "what another hand writes into a file while it is saved here stays, and ours is beside it" {
	local name
	echo old >"$W/old"
	chmod 751 "$W/old"
	for name in old new; do
		rm -f "$T/written" "$T/changed"
		(
			wait_until 10 test -e "$T/written"
			other "echo theirs >/workspace/$name"
			touch "$T/changed"
		) 3>&- &
		python3 - "$W/$name" "$T" <<-'E'
			import os, sys, time
			fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
			os.write(fd, b"ours\n")
			open(sys.argv[2] + "/written", "w").close()
			end = time.monotonic() + 60
			while not os.path.exists(sys.argv[2] + "/changed") and time.monotonic() < end:
			    time.sleep(0.01)
			os.close(fd)
		E
		[ "$(other "cat /workspace/$name")" = theirs ]
		wait_until 3 grep -qx theirs "$W/$name"
		[ "$(cat "$W/$name".conflict-*)" = ours ]
		grep -q "^conflict $name.conflict-" "$C/sync"
		grep -q "our bytes are in .*/$name.conflict-" "$C/error"
	done
	[ "$(stat -c %a "$W"/old.conflict-*)" = 751 ]
	[ "$(stat -c %a "$W"/new.conflict-*)" = 640 ]
}

@test "rm -r works while readers are inside, rmdir of what is full is ENOTEMPTY (row 31)" {
	mkdir -p "$W/node_modules/a/b"
	local i
	for i in $(seq 100); do echo $i >"$W/node_modules/a/f$i"; done
	run rmdir "$W/node_modules"
	[[ $output == *'Directory not empty'* ]]
	exec 5<"$W/node_modules/a/f1" 6<"$W/node_modules/a/f50"
	rm -r "$W/node_modules"
	[ "$(cat <&5)" = 1 ]
	exec 5<&- 6<&-
	[ -z "$(other 'ls -A /workspace')" ]
}

# bats test_tags=server
@test "chmod and the executable bit hold on both sides (row 26)" {
	printf '#!/bin/sh\necho ran\n' >"$W/s"
	chmod 755 "$W/s"
	[ "$("$W/s")" = ran ]
	[ "$(x ./s)" = ran ]
	[ "$(other 'stat -c %a /workspace/s')" = 755 ]
	chmod 600 "$W/s"
	[ "$(other 'stat -c %a /workspace/s')" = 600 ]
	other 'chmod 444 /workspace/s'
	wait_until 3 mode_is "$W/s" 444
}
mode_is() { [ "$(stat -c %a "$1")" = "$2" ]; }
modes_there() { [ "$(other 'stat -c %a /workspace/p /workspace/q /workspace/r' | xargs)" = "$1" ]; }

@test "all that is in the workspace is mine, umask applies (row 26)" {
	x 'mkdir d; touch d/f'
	[ "$(stat -c '%u %g' "$W" "$W/d" "$W/d/f" | sort -u)" = "$(id -u) $(id -g)" ]
	(umask 077; touch "$W/p"; mkdir "$W/q")
	[ "$(stat -c %a "$W/p" "$W/q" | xargs)" = '600 700' ]
	(umask 002; touch "$W/r")
	# an empty file has its name there a moment after its close
	wait_until 10 modes_there '600 700 664'
}

# bats test_tags=server
@test "times are kept to the nanosecond on both sides, and reading changes none (row 28)" {
	echo text >"$W/f"
	touch -d '2001-02-03 04:05:06.123456789 UTC' "$W/f"
	[ "$(TZ=UTC stat -c %y "$W/f")" = '2001-02-03 04:05:06.123456789 +0000' ]
	[ "$(other 'TZ=UTC stat -c %y /workspace/f')" = '2001-02-03 04:05:06.123456789 +0000' ]
	local before
	before=$(stat -c '%y %z' "$W/f")
	cat "$W/f" >/dev/null
	[ "$(stat -c '%y %z' "$W/f")" = "$before" ]
	cp -p "$W/f" "$W/g"
	[ "$(stat -c %y "$W/g")" = "$(stat -c %y "$W/f")" ]
	touch -a -d '2010-01-01 UTC' "$W/f"
	[ "$(TZ=UTC stat -c %y "$W/f")" = '2001-02-03 04:05:06.123456789 +0000' ]
}

@test "what fstat shows before close is what every later stat shows, also on the next mount" {
	local before after
	before=$(/usr/bin/python3 - "$W/f" <<-E
		import os, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
		os.write(fd, b"x" * 70000)
		s = os.fstat(fd)
		print(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
	E
	)
	show='import os, sys; s = os.stat(sys.argv[1]); print(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)'
	after=$(/usr/bin/python3 -c "$show" "$W/f")
	[ "$before" = "$after" ]
	remount
	[ "$(/usr/bin/python3 -c "$show" "$W/f")" = "$before" ]
}

@test "FIFOs and sockets connect programs of this host" {
	mkfifo "$W/p"
	[ -p "$W/p" ]
	echo through >"$W/p" 3>&- &
	local pid=$!
	[ "$(within 10 cat "$W/p")" = through ]
	wait $pid
	within 10 /usr/bin/python3 - "$W" <<-E
		import os, socket, sys
		os.chdir(sys.argv[1])
		s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen()
		c = socket.socket(socket.AF_UNIX); c.connect("sock"); c.sendall(b"hi")
		assert s.accept()[0].recv(2) == b"hi"
	E
	rm "$W/p" "$W/sock"
}

@test "device files cannot be made or opened" {
	run mknod "$W/null" c 1 3
	[ "$status" != 0 ]
	[ ! -e "$W/null" ]
}

@test "user xattrs can be set, read, listed and removed" {
	if [ "$SERVER" = local ]; then
		x 'python3 -c "import os; open(\"probe\", \"w\"); os.setxattr(\"probe\", \"user.x\", b\"1\")"' || skip 'no xattrs in the sandbox'
	fi
	touch "$W/f"
	setfattr -n user.colour -v green "$W/f"
	[ "$(getfattr --absolute-names --only-values -n user.colour "$W/f")" = green ]
	[[ $(getfattr "$W/f" 2>/dev/null) == *user.colour* ]]
	setfattr -x user.colour "$W/f"
	run getfattr -n user.colour "$W/f"
	[[ $output == *'No such attribute'* ]]
}

@test "df agrees with the sandbox and is never zero (row 33)" {
	local here there
	here=$(stat -f -c '%S %b' "$W" | awk '{ printf "%.0f\n", $1 * $2 }')
	there=$(other "stat -f -c '%S %b' /workspace" | awk '{ printf "%.0f\n", $1 * $2 }')
	((here > 0))
	awk -v a="$here" -v b="$there" 'BEGIN { exit !(a > b * 0.99 && a < b * 1.01) }'
	df "$W" >/dev/null
	[ "$(df --output=avail "$W" | tail -n 1)" -gt 0 ]
	[ "$(stat -f -c %l "$W")" = 255 ]
}

@test "df of the mount and of a sandbox's directory answer without a request, with room for what fits (row 33)" {
	local at before after
	ls "$W" # it has started
	before=$(awk '$1 == "requests" { print $2 }' "$MNT/ctl/stats")
	# what ls has opened is closed behind it: that may be a request or two
	for at in "$MNT" "$M" "$MNT" "$M"; do
		[ "$(df -B1 --output=avail "$at" | tail -n 1)" -gt 1000000 ]
		[ "$(df -B1 --output=size "$at" | tail -n 1)" -gt 1000000 ]
		[ "$(stat -f -c %s "$at")" -gt 0 ]
		[ "$SERVER" != local ] || [ "$(stat -f -c '%S %b' "$at")" = "$(stat -f -c '%S %b' "$T/data")" ]
	done
	after=$(awk '$1 == "requests" { print $2 }' "$MNT/ctl/stats")
	((after - before < 4)) || { echo "$((after - before)) requests"; return 1; }
}

# bats test_tags=server
@test "10,000 entries in a directory are listed once each, fast enough to use" {
	x 'mkdir big; cd big; seq -f "file-%05g" 10000 | xargs touch'
	[ "$(ls -f "$W/big" | grep -c ^file-)" = 10000 ]
	[ "$(find "$W/big" -type f | sort -u | wc -l)" = 10000 ]
	[ "$(within 30 ls -l "$W/big" | wc -l)" = 10001 ]
	within 60 rm -r "$W/big"
	[ "$(other 'ls -A /workspace')" = '' ]
}

@test "a listing goes on while entries come and go" {
	/usr/bin/python3 - "$W" <<-E
		import os, sys
		d = sys.argv[1] + "/d"; os.mkdir(d)
		for i in range(3000): open(f"{d}/{i:05}", "w").close()
		seen = []
		with os.scandir(d) as it:
		    for n, e in enumerate(it):
		        seen.append(e.name)
		        if n == 10:
		            for i in range(0, 100): open(f"{d}/new{i}", "w").close()
		        os.unlink(f"{d}/{e.name}") if not e.name.startswith("new") else None
		old = [s for s in seen if not s.startswith("new")]
		assert len(old) == len(set(old)) == 3000, (len(old), len(set(old)))
	E
}

@test "fallocate makes room and copy_file_range copies inside the sandbox" {
	fallocate -l 1M "$W/f"
	[ "$(stat -c %s "$W/f")" = 1048576 ]
	head -c 5000000 /dev/urandom >"$W/a"
	/usr/bin/python3 - "$W" <<-E
		import os, sys
		a = os.open(sys.argv[1] + "/a", os.O_RDONLY)
		b = os.open(sys.argv[1] + "/b", os.O_RDWR | os.O_CREAT, 0o644)
		left = 5000000
		while left:
		    n = os.copy_file_range(a, b, left); assert n > 0; left -= n
	E
	cmp "$W/a" "$W/b"
	same_there b
}

@test "flock and fcntl locks hold between programs of this host (row 30)" {
	touch "$W/f"
	exec 5>"$W/f"
	flock -x 5
	run flock -n -x "$W/f" true
	[ "$status" = 1 ]
	flock -u 5
	flock -n -x "$W/f" true
	exec 5>&-
	within 20 /usr/bin/python3 - "$W/f" <<-E
		import fcntl, os, sys
		f = open(sys.argv[1], "r+")
		fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
		pid = os.fork()
		if pid == 0:
		    g = open(sys.argv[1], "r+")
		    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
		    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5); os._exit(1)
		    except OSError: os._exit(0)
		assert os.waitpid(pid, 0)[1] == 0
	E
}

@test "a directory that another hand removes is ENOENT, not a hang or an old listing" {
	mkdir "$W/d"
	touch "$W/d/f"
	other 'rm -r /workspace/d'
	wait_until 3 test ! -e "$W/d"
	run ls "$W/d"
	[ "$status" != 0 ]
}

@test "O_EXCL creates once among many" {
	local i won=0 pids=()
	for i in $(seq 12); do
		(set -C; : >"$W/lock") 2>/dev/null 3>&- &
		pids+=($!)
	done
	for i in "${pids[@]}"; do if wait "$i"; then won=$((won + 1)); fi; done
	[ $won = 1 ]
}

# bats test_tags=server
@test "errors are what a disk says" {
	run cat "$W/none"
	[[ $output == *'No such file or directory'* ]]
	mkdir "$W/d"
	run cat "$W/d"
	[[ $output == *'Is a directory'* ]]
	touch "$W/f"
	run ls "$W/f/x"
	[[ $output == *'Not a directory'* ]]
	run mkdir "$W/d"
	[[ $output == *'File exists'* ]]
	run unlink "$W/d"
	[[ $output == *'Is a directory'* ]]
	run rmdir "$W/f"
	[[ $output == *'Not a directory'* ]]
}

# bats test_tags=server
@test "root/ answers to its name but is not listed" {
	[ "$(ls -A "$M")" = $'ctl\nworkspace' ]
	[ -d "$M/root/usr/bin" ]
	[ "$(readlink "$M/root/workspace")" = ../workspace ]
	[ -s "$M/root/etc/passwd" ]
	if [ "$SERVER" = local ]; then
		echo hi >"$M/root/tmp/f"
		[ "$(x 'cat /tmp/f')" = hi ]
	fi
}

@test "the sandbox's files are there again at the next mount" {
	echo kept >"$W/f"
	mkdir "$W/d"
	chmod 700 "$W/d"
	remount
	[ "$(cat "$W/f")" = kept ]
	[ "$(stat -c %a "$W/d")" = 700 ]
}

@test "a read-only mount changes nothing" {
	echo text >"$W/f"
	unmount
	mount_it -o ro
	[ "$(cat "$W/f")" = text ]
	run touch "$W/g"
	[[ $output == *'Read-only file system'* ]]
}
