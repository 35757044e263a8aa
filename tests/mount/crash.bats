# The program dies or is ended: the same command works again at once, nothing stays behind, no file is lost (rows 14 and 25).
load ../lib/harness

setup() {
	private_directory
	start
	settle # what kills the program leaves no start half done
}
sandbox_processes() { # a server of the test's own is not the mount's
	local p
	for p in $(test_processes); do
		many || [[ $(cat "/proc/${p%:*}/comm" 2>/dev/null) != @(bwrap|sandboxd) ]] || continue
		echo "$p"
	done
}

@test "kill -9 of the program: the same mount command works again at once (row 14)" {
	local before pid
	echo kept >"$W/f"
	before=$(sandbox_processes)
	pid=$(fs_pid)
	kill -9 "$pid"
	wait_until 5 gone "$pid"
	run ls "$MNT"
	[ "$status" != 0 ]
	mount_it
	[ "$(cat "$W/f")" = kept ]
	[ "$(x 'cat f')" = kept ]
	# shellcheck disable=SC2086
	wait_until 5 none_left $before
}

@test "kill -9 in the middle of writing: what fsync accepted is there, whole" {
	local pid writer
	/usr/bin/python3 - "$W" "$T/acked" <<-'E' 3>&- 2>/dev/null &
		import os, sys
		n = 0
		while True:
		    fd = os.open(f"{sys.argv[1]}/f{n}", os.O_WRONLY | os.O_CREAT, 0o644)
		    os.write(fd, b"%d" % n * 1000); os.fsync(fd); os.close(fd)
		    with open(sys.argv[2], "a") as a: a.write(f"{n}\n")
		    n += 1
	E
	writer=$!
	wait_until 20 lines_at_least "$T/acked" 30
	pid=$(fs_pid)
	kill -9 "$pid"
	wait $writer || :
	wait_until 5 gone "$pid"
	mount_it
	local n
	while read -r n; do
		[ "$(cat "$W/f$n")" = "$(printf "$n%.0s" {1..1000})" ] || { echo "f$n lost"; return 1; }
	done <"$T/acked"
}
lines_at_least() { [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -ge "$2" ]; }

@test "of two that are mounted on one directory at once, one is and the other says so" {
	local n a b failed
	mkdir "$T/two"
	for n in 1 2 3 4 5 6; do
		"$sandboxfs" "$url" "$T/two" 3>&- 2>"$T/said.a" & a=$!
		"$sandboxfs" "$url" "$T/two" 3>&- 2>"$T/said.b" & b=$!
		failed=0
		wait $a || failed=$((failed + 1))
		wait $b || failed=$((failed + 1))
		cat "$T/said.a" "$T/said.b"
		[ $failed = 1 ]
		cat "$T/said.a" "$T/said.b" | grep -qE 'being mounted here|mounted here already'
		[ "$(grep -c " $T/two " /proc/mounts)" = 1 ]
		within 30 "$sandboxfs" -u "$T/two"
	done
}

@test "SIGTERM unmounts and leaves nothing" {
	local pid
	echo kept >"$W/f"
	pid=$(fs_pid)
	kill -TERM "$pid"
	wait_until 15 gone "$pid"
	! is_mounted || false
	mount_it
	[ "$(cat "$W/f")" = kept ]
}

@test "plain umount returns at once and the program ends behind it" {
	local pid
	pid=$(fs_pid)
	within 5 fusermount3 -u "$MNT"
	wait_until 15 gone "$pid"
}

@test "sandboxfs -u of what is no mount says so" {
	run within 10 "$sandboxfs" -u "$T/tmp"
	[ "$status" != 0 ]
	[[ $output == *"$T/tmp"* ]]
}

@test "when the mount command returns 0 the mount works, also inside \$(...)" {
	local out
	unmount
	out=$(within 30 "$sandboxfs" "$url" "$MNT" 3>&-)
	[ -z "$out" ]
	[ -e "$MNT/ctl/server" ]
	[ -d "$W" ]
}

@test "-f stays in the foreground until the end" {
	unmount
	"$sandboxfs" -f "$url" "$MNT" >"$T/fg.log" 2>&1 3>&- &
	local pid=$!
	wait_until 10 is_mounted
	wait_until 10 test -d "$W"
	kill -0 $pid
	kill -TERM $pid
	wait $pid
	! is_mounted || false
}

@test "a second mount shows a sandbox that is in use, and EBUSY; one that is a server's own is shared" {
	local first=$MNT
	echo text >"$W/f"
	MNT=$T/mnt2
	mkdir "$MNT"
	mount_it
	if many; then
		[ "$(head -n 1 "$MNT/$NAME/ctl/status")" = in-use ]
		grep -q "$first\|pid" "$MNT/$NAME/ctl/status"
		run within 10 ls "$MNT/$NAME/workspace"
		[[ $output == *'busy'* ]]
		mkdir "$MNT/other"
		echo mine >"$MNT/other/workspace/f"
	else
		[ "$(cat "$MNT/$NAME/workspace/f")" = text ]
		echo 'cat f' >"$MNT/$NAME/ctl/exec"
		[ "$(cat "$MNT/$NAME/ctl/last/stdout")" = text ]
	fi
	unmount
	MNT=$first
	[ "$(cat "$W/f")" = text ]
	unmount
	MNT=$T/mnt2
	mount_it
	[ "$(cat "$MNT/$NAME/workspace/f")" = text ]
	unmount
	MNT=$first
}

@test "mkdir and rmdir in a loop of 50: no error, never the old files (row 25)" {
	local i
	if ! many; then
		run mkdir "$MNT/x"
		[[ $output == *'Operation not permitted'* ]]
		grep -q '^message x: this server is one sandbox' "$MNT/ctl/error"
		run rmdir "$MNT/$NAME"
		[ "$status" != 0 ]
		[ -d "$W" ]
		return
	fi
	for i in $(seq 50); do
		mkdir "$MNT/x"
		if ((i % 10 == 0)); then
			[ -z "$(ls -A "$MNT/x/workspace")" ]
			echo "$i" >"$MNT/x/workspace/f"
			echo destroy >"$MNT/x/ctl/ctl"
		else
			rmdir "$MNT/x"
		fi
		[ ! -e "$MNT/x" ]
	done
}

none_run() { [ -z "$(fs_pid)" ]; }
@test "auto_unmount takes the mount away when the program dies, also while it is used" {
	local i
	unmount
	for i in 1 2 3; do
		mount_it -o auto_unmount
		exec 5<"$W"
		kill -9 "$(fs_pid)"
		wait_until 10 eval '! is_mounted'
		exec 5<&-
		wait_until 10 none_run
	done
}

@test "auto_unmount: what watches ends with the program, and is in nobody's way" {
	unmount
	timeout 20 "$sandboxfs" -o auto_unmount local: "$MNT" | cat # which ends when all that holds the pipe has
	[ -d "$MNT/ctl" ]
	[ "$(pgrep -cf "^[^ ]*/sandboxfs .*$MNT\$")" = 2 ]
	unmount
	wait_until 10 none_run
}

@test "a mount over a stale one of another server's is replaced by its own command only" {
	local pid
	pid=$(fs_pid)
	kill -9 "$pid"
	wait_until 5 gone "$pid"
	mount_it -o timeout=7
	[ -d "$W" ]
	[ "$(grep -c " $MNT " /proc/mounts)" = 1 ]
}

in_d_state() { # PATTERN...: a process of this test that no signal ends
	local p state
	for p in $(test_processes); do
		state=$(awk '/^State:/ { print $2 }' "/proc/${p%:*}/status" 2>/dev/null) || continue
		[ "$state" != D ] || { ps -o pid,stat,wchan:20,args -p "${p%:*}"; return 0; }
	done
	return 1
}
none_in_d_state() { ! in_d_state; }

@test "sandboxfs -u ends also when the program is stopped: it says so, --kill ends the program and frees who waited" {
	local pid reader
	pid=$(fs_pid)
	kill -STOP "$pid"
	cat "$W/nothing-yet" >/dev/null 2>&1 3>&- &
	reader=$!
	run within 20 "$sandboxfs" -u -o timeout=2,drain=1 "$MNT"
	[ "$status" = 1 ]
	[[ $output == *'no answer within 2 s'*--kill* ]]
	is_mounted
	run within 40 "$sandboxfs" -u --kill -o timeout=2,drain=1 "$MNT"
	[ "$status" = 1 ]
	[[ $output == *killed* ]]
	! is_mounted || false
	wait_until 5 gone "$pid"
	wait_until 5 gone "$reader"
	wait_until 10 none_in_d_state # for a moment any may be in it
}

@test "sandboxfs -u finds the mount and its program through a relative path and a symlink, and asks a stopped one nothing" {
	local pid
	pid=$(fs_pid)
	ln -s mnt "$T/link"
	cd "$T"
	kill -STOP "$pid"
	# the mount command sees that it is taken, without waiting
	run within 5 "$sandboxfs" "$url" link 3>&-
	[ "$status" = 1 ]
	[[ $output == *'mounted here already'* ]]
	run within 5 "$sandboxfs" "$url" ./mnt/ 3>&-
	[[ $output == *'mounted here already'* ]]
	kill -CONT "$pid"
	within 30 "$sandboxfs" -u link
	! is_mounted || false
	wait_until 5 gone "$pid"
}

@test "root's -u of a user's mount asks as that user, unmounts nothing else and signals no program but the mount's" {
	[ "$(id -u)" = 0 ] || skip 'needs root'
	chmod 755 "$T"
	chown -R 47110:47110 "$T"/{data,run,cache,config,tmp,home,log}
	mkdir -m 755 "$T/home/m" "$T/build"
	chown 47110:47110 "$T/home/m"
	mknod -m 666 "$T/fuse" c 10 229
	echo "sandbox-tester:x:47110:47110::$T/home:/bin/bash" | cat /etc/passwd - >"$T/passwd"
	unmount
	run within 100 unshare --mount --pid --fork --mount-proc --propagation private \
		bash "$BATS_TEST_DIRNAME/../lib/other_user.sh" "$T" "$BUILD" 3>&-
	echo "$output"
	[[ $output == *'process p runs'*'asked: 1'* ]]
	[[ $output == *'spared: 0'* ]]
	[[ $output == *'no longer mounted here'*'neither: 1'* ]]
	[ "$status" = 0 ]
	rm "$T/fuse"
}

@test "a mount over what a program left that died says nothing, and -u of another's server asks for no processes" {
	local pid
	pid=$(fs_pid)
	kill -9 "$pid"
	wait_until 5 gone "$pid"
	run mount_it
	echo "$output"
	[ "$status" = 0 ]
	[ -z "$output" ]
	unmount
	start_server unix
	mount_it
	mkdir "$MNT/default/ctl/processes/p"
	echo "sleep $S" >"$MNT/default/ctl/processes/p/cmd"
	wait_until 10 grep -qx running "$MNT/default/ctl/processes/p/status"
	unmount
	! is_mounted || false
	[[ $(curl_server /api/process/list) == *"sleep $S"* ]]
}
