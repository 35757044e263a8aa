# What is so of local: alone: where its sandboxes are kept, that what runs in them ends with the mount, what is left free of this
# machine's disk, what its sandbox keeps from being written. Its isolation has a file of its own.
SERVER=local
load ../lib/harness
load ../lib/backups

@test "local:DIR keeps the sandboxes in DIR, closed to others" {
	unmount
	mkdir "$T/there"
	url=local:$T/there
	mount_it
	mkdir "$MNT/one"
	echo text >"$MNT/one/workspace/f"
	unmount
	[ -n "$(find "$T/there" -name f)" ]
	[ -z "$(find "$T/there" -mindepth 1 -maxdepth 1 -perm /077)" ] || [ "$(stat -c %a "$T/there")" = 700 ]
	mount_it
	[ "$(cat "$MNT/one/workspace/f")" = text ]
}

@test "kill -9 leaves no process of the sandbox, also without another mount" {
	local before pid
	mkdir "$C/processes/p"
	echo "setsid sleep $S & sleep $S" >"$C/processes/p/cmd"
	both() { [ "$(pgrep -cf "^sleep $S\$")" = 2 ]; }
	wait_until 10 both
	before=$(test_processes)
	pid=$(fs_pid)
	kill -9 "$pid"
	# shellcheck disable=SC2086
	wait_until 10 none_left $before
	fusermount3 -u -z "$MNT"
}

@test "sandboxfs -u waits for the end; it refuses while a process runs, --kill does not" {
	local pid
	mkdir "$C/processes/p"
	echo "sleep $S" >"$C/processes/p/cmd"
	wait_until 10 grep -q running "$C/processes/p/status"
	pid=$(fs_pid)
	run unmount
	[ "$status" != 0 ]
	[[ $output == *process* ]]
	is_mounted
	[ "$(cat "$C/processes/p/status")" = running ]
	unmount --kill
	! is_mounted || false
	wait_until 5 gone "$pid"
}

@test "packing stops before less than min-free= is left, and keeps nothing" {
	unmount
	local free
	free=$(df --output=avail -B1M "$T" | tail -n 1)
	mount_it -o "min-free=$((free + 100000))M"
	[ -d "$M" ] || mkdir "$M"
	x 'mkdir /tmp/a && echo text >/tmp/a/f'
	run bash -c "echo /tmp/a >$C/backups/new"
	[[ $output == *'No space left'* ]]
	grep -q '^message .*min-free=' "$C/error"
	[ -z "$(kept)" ]
}

@test "a tree of 12000 levels is backed up and restored; destroy takes a moment" {
	x 'cat >deep.py <<-E
	import os
	os.mkdir("a")
	os.chdir("a")
	for i in range(12000):
	    os.mkdir("d")
	    os.chdir("d")
	open("last", "w")
	E
	python3 deep.py'
	local id
	id=$(backup a)
	echo restore >"$C/backups/$id"
	x 'cat >count.py <<-E
	import os
	os.chdir("a")
	n = 0
	while os.path.isdir("d"):
	    os.chdir("d")
	    n += 1
	print(n, os.listdir("."))
	E
	python3 count.py' >"$T/out"
	[ "$(cat "$T/out")" = "12000 ['last']" ]
	within 60 bash -c "echo destroy >$C/ctl"
	wait_until 10 test ! -e "$M"
	[ -z "$(find "$T/data" -maxdepth 2 -name '.gone-*')" ]
}

@test "what cannot be read in the sandbox is said after all else was told" {
	x 'echo secret >locked; chmod 000 locked; echo open >open'
	run bash -c "cat $C/workspace.tar >$T/a.tar"
	tar tf "$T/a.tar" | grep -q open
	[ "$status" != 0 ]
	[[ $output == *'Permission denied'* ]]
	grep -q '^message workspace.tar: .*locked' "$C/error"
}

@test "sandboxfs -u --kill ends what a program waits for, and says who to look for if one stays" {
	local waiter
	(echo "echo up; sleep $S" >"$C/exec") 3>&- &
	waiter=$!
	wait_until 10 grep -q up "$C/last/stdout"
	run unmount
	[ "$status" = 1 ]
	[[ $output == *'in use:'*'fuser -vm'* ]]
	[ "$(cat "$C/last/exit")" = '' ]
	unmount --kill
	wait_until 10 gone "$waiter"
	! is_mounted || false
}

@test "a full disk of the sandbox is ENOSPC while writing, or at close, never silence (row 16)" {
	unmount
	mount_it -o min-free=100000T 2>/dev/null || mount_it -o min-free=100T
	[ -d "$M" ] || mkdir "$M"
	run bash -c "head -c 10000000 /dev/zero > $W/f"
	[ "$status" != 0 ] || {
		run dd if=/dev/zero of="$W/g" bs=1M count=10
		[ "$status" != 0 ]
	}
	[[ $output == *'No space left'* ]]
	grep -q '^errno ENOSPC$' "$C/error"
	grep -q '^message demo: no room for it: 0 MiB are left' "$C/error"
}

@test "what the sandbox keeps from being written is EROFS, and ctl/error says what can be" {
	run touch "$M/root/usr/x"
	[[ $output == *'Read-only file system'* ]]
	grep -q '^message demo: this part of the sandbox cannot be written; workspace/ and root/tmp can$' "$C/error"
}
