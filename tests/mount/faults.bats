# A server that stops or dies under load: everything ends within timeout + 1 s, the mount answers meanwhile, umount works.
NO_START=1
load ../lib/harness

limit=4 # -o timeout= of these mounts, in seconds
load_it() { # 50 mkdirs in one directory and 1,000 reads, each logging how long it took
	local i
	for i in $(seq 50); do
		(timed mkdir "$W/dir/d$i") 3>&- 2>/dev/null &
		work+=($!)
	done
	for i in $(seq 20); do
		(for n in $(seq 50); do timed dd if="$W/dir/f$n" of=/dev/null bs=64k status=none iflag=nonblock; done) 3>&- 2>/dev/null &
		work+=($!)
	done
}
timed() {
	local began=$EPOCHREALTIME
	"$@" 2>/dev/null || :
	awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }' >>"$T/times"
}
prepare() {
	local i
	start -o timeout=$limit
	mkdir "$W/dir"
	for i in $(seq 50); do head -c 20000 /dev/urandom >"$W/dir/f$i"; done
	server=$(server_of_sandbox)
	[ -n "$server" ]
	work=()
}
slowest() { sort -n "$T/times" | tail -n 1; }
all_ended() {
	local p
	for p in "${work[@]}"; do ! kill -0 "$p" 2>/dev/null || return 1; done
}
# What waits for the server waits until the time is over.
answers_meanwhile() {
	within $((limit - 1)) ls -l "$MNT" >/dev/null
	within $((limit - 1)) cat "$MNT/ctl/stats" >/dev/null
	within $((limit - 1)) cat "$C/status" >/dev/null
	within $((limit - 1)) cat "$C/error" >/dev/null
}
in_time() {
	[ "$(wc -l <"$T/times")" = 1050 ]
	awk -v s="$(slowest)" -v l=$((limit * SLOW + 1)) 'BEGIN { exit !(s <= l + 0.7) }' || {
		echo "slowest: $(slowest) s"
		return 1
	}
}

@test "sandboxd stopped (SIGSTOP) with 50 mkdirs waiting in a directory and 1,000 reads" {
	prepare
	kill -STOP "$server"
	load_it
	answers_meanwhile
	# reads of what fails at once follow one another; what matters is each one's time
	wait_until 90 all_ended
	in_time
	answers_meanwhile
	run within $((limit + 2)) mkdir "$W/dir/late"
	[ "$status" != 0 ]
	[ "$status" != 124 ]
	grep -q '^message ' "$C/error"
	kill -CONT "$server"
	# after the link returns, the next call works with no command typed
	wait_until 15 mkdir -p "$W/dir/after"
	[ "$(x 'echo back')" = back ]
}

@test "umount works while sandboxd is stopped" {
	prepare
	kill -STOP "$server"
	load_it
	fusermount3 -u "$MNT" || within 10 fusermount3 -u -z "$MNT"
	! is_mounted || false
	kill -CONT "$server"
	wait_until 90 all_ended # a thousand programs end one after the other
}

@test "^C ends what waits for a stopped server within a second (row 13)" {
	local what pid began limit=60 # nothing else ends it
	prepare
	kill -STOP "$server"
	for what in "cat $W/dir/nothing-yet" "ls $W/other" "mkdir $W/other2" "stat $W/dir/f1x" "df $W" "cp /etc/passwd $W/new"; do
		timeout 40 /usr/bin/python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' $what >/dev/null 2>&1 3>&- &
		pid=$!
		wait_until 20 child_asks $pid
		began=$(date +%s%N)
		pkill -INT -P $pid
		wait $pid || :
		(($(date +%s%N) - began < 3000000000 * SLOW)) || { echo "$what: not ended by ^C"; kill -CONT "$server"; return 1; }
	done
	kill -CONT "$server"
}

child_asks() { asks "$(pgrep -P "$1")"; }

@test "sandboxd killed under load: all ends in time, nothing of close's promises is lost, the sandbox comes back" {
	prepare
	echo precious >"$W/kept"
	load_it
	kill -9 "$server"
	wait_until 90 all_ended
	in_time
	answers_meanwhile
	if ! many; then
		run within $((limit + 2)) cat "$W/dir/f7x"
		[ "$status" != 0 ]
		[ "$status" != 124 ]
		[ "$(cat "$T/ws/kept")" = precious ]
		return 0
	fi
	wait_until 20 back_again
	[ "$(cat "$W/kept")" = precious ]
}
back_again() {
	echo true >"$C/exec" 2>/dev/null || { echo accept >"$C/ctl" 2>/dev/null; false; }
}

@test "a command whose server dies never reads as success" {
	prepare
	local n
	exec 5<>"$C/exec"
	read -r n <&5
	echo "sleep $S" >&5
	wait_until 10 grep -q . "$C/runs/$n/started"
	kill -9 "$server"
	within $((limit * 3 + 5)) cat <&5 >/dev/null 2>&1 || :
	exec 5>&-
	[ "$(cat "$C/runs/$n/exit")" != 0 ]
	if ! many; then # one that nobody starts again may be out of reach: its end is known when another answers
		[ -z "$(cat "$C/runs/$n/exit")" ]
		start_server "$SERVER"
	fi
	wait_until 10 grep -qE 'unknown|137' "$C/runs/$n/exit"
}

@test "a stopped server loses no command that runs: its output and exit code come whole" {
	prepare
	local n
	exec 5<>"$C/exec"
	read -r n <&5
	echo 'for i in $(seq 100); do echo $i; sleep 0.02; done; exit 7' >&5
	wait_until 10 grep -q . "$C/runs/$n/started"
	kill -STOP "$server"
	answers_meanwhile
	read -r -t 1 <> <(:) || :
	kill -CONT "$server"
	[ "$(within 30 cat <&5)" = "$(seq 100)" ]
	exec 5>&-
	[ "$(cat "$C/runs/$n/exit")" = 7 ]
}

# No thread more for this program. New processes of a user count for its limit as well, so it is set for the program alone, at what
# it has now; root has none, but may make a group that has one. It goes when the program has ended.
no_thread_for() { # PID
	local group
	if [ "$(id -u)" != 0 ]; then
		prlimit --pid "$1" --nproc=1:1
		return
	fi
	for group in /sys/fs/cgroup/pids /sys/fs/cgroup; do
		[ -e "$group/cgroup.procs" ] || continue
		group=$group/sbxt.$1
		mkdir "$group" 2>/dev/null || continue
		if [ -e "$group/pids.max" ]; then
			(tail --pid="$1" -f /dev/null; rmdir "$group") 3>&- &
			echo 1 >"$group/pids.max"
			echo "$1" >"$group/cgroup.procs"
			return
		fi
		rmdir "$group"
	done
	skip 'root has no limit of processes, and no group can be made that has'
}
@test "no thread to be had: what needs no server is answered, the rest is ENOMEM, nothing hangs, -u ends" {
	prepare
	local pid i
	pid=$(fs_pid)
	kill -STOP "$server"
	no_thread_for "$pid"
	work=()
	for i in $(seq 100); do
		timed head -c 100 "$W/dir/f$((i % 50 + 1))x" >/dev/null 3>&- &
		work+=($!)
	done
	answers_meanwhile
	wait_until 90 all_ended
	grep -q 'a thread could not be started' "$MNT/ctl/log"
	kill -CONT "$server"
	wait_until 15 test -e "$W/dir/f1"
	within 30 "$sandboxfs" -u "$MNT"
	! is_mounted || false
}

@test "while the link is lost, processes/ lists what is known here, as lost" {
	prepare
	mkdir "$C/processes/p"
	echo "sleep $S" >"$C/processes/p/cmd"
	[ "$(cat "$C/processes/p/status")" = running ]
	kill -STOP "$server"
	# the first call finds it out
	[ "$(within $((limit + 20)) ls "$C/processes")" = $'new\np' ]
	[ "$(within 20 cat "$C/processes/p/status")" = lost ]
	kill -CONT "$server"
	wait_until 15 grep -qx running "$C/processes/p/status"
}

# What tells the kernel to drop pages waits for them to be written, and who answers that writing may be the program that ends.
@test "a program with a mapped file that it keeps changing does not keep a signalled mount from ending" {
	start -o timeout=$limit
	local pid
	pid=$(fs_pid)
	/usr/bin/python3 - "$W/f" "$T/ready" <<-'E' 3>&- 2>/dev/null &
		import mmap, os, sys, time
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
		os.ftruncate(fd, 1 << 20)
		m = mmap.mmap(fd, 1 << 20)
		open(sys.argv[2], "w").close()
		end = time.monotonic() + 60
		while time.monotonic() < end:
		    for i in range(0, 1 << 20, 4096):
		        m[i] = (m[i] + 1) & 255
	E
	local writer=$!
	wait_until 10 test -e "$T/ready"
	kill -TERM "$pid"
	wait_until 20 gone "$pid"
	kill -9 $writer 2>/dev/null || :
	wait_until 10 gone $writer
}

@test "a descriptor outlives the sandbox's server: every call on it works with the next one" {
	many || skip 'the next use starts no server anew'
	prepare
	cp "$W/dir/f1" "$T/f1"
	local call
	for call in fsync fallocate seek copy_range ftruncate fchmod fstat read write close new; do
		/usr/bin/python3 - "$call" "$W" "$T" "$server" <<-'E' 3>&- || { echo "$call"; return 1; }
			import os, signal, sys
			call, w, t = sys.argv[1:4]
			server = int(sys.argv[4])
			data = open(t + "/f1", "rb").read()
			a = os.open(w + "/dir/f1", os.O_RDWR)
			b = os.open(w + "/dir/copy", os.O_RDWR | os.O_CREAT, 0o644)
			os.write(b, b"begin"); os.fsync(b)
			new = os.open(w + "/dir/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
			at = os.fstat(a).st_ino
			os.kill(server, signal.SIGKILL)
			assert not os.path.exists(w + "/dir/none") # the next one is there
			if call == "fsync": os.fsync(a)
			elif call == "fallocate": os.posix_fallocate(b, 0, 100000); assert os.fstat(b).st_size == 100000
			elif call == "seek": assert os.lseek(a, 0, os.SEEK_DATA) == 0 and os.lseek(a, 0, os.SEEK_HOLE) == len(data)
			elif call == "copy_range":
			    assert os.copy_file_range(a, b, 10000, 0, 0) == 10000
			    assert os.pread(b, 20000, 0) == data[:10000]
			elif call == "ftruncate": os.ftruncate(b, 3); assert os.pread(b, 10, 0) == b"beg"
			elif call == "fchmod": os.fchmod(b, 0o600); assert os.fstat(b).st_mode & 0o777 == 0o600
			elif call == "fstat":
			    assert os.fstat(a).st_ino == at and os.fstat(a).st_size == len(data)
			    assert os.fstat(new).st_size == 0
			elif call == "read": assert os.pread(a, 100000, 7) == data[7:]
			elif call == "write": os.pwrite(b, b"more", 5); os.fsync(b); assert os.pread(b, 20, 0) == b"beginmore"
			elif call == "new": os.write(new, b"here"); os.fsync(new)
			for fd in (a, b, new): os.close(fd)
			assert os.stat(w + "/dir/new").st_size == (4 if call == "new" else 0)
			os.unlink(w + "/dir/new"); os.unlink(w + "/dir/copy")
		E
		cmp "$T/f1" "$W/dir/f1"
		[ -z "$(cat "$C/sync")" ]
		server=$(server_of_sandbox)
	done
}
