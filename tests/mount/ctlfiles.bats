# The control tree as files: each reads the same whichever way it is read, reading changes nothing, and refusals say why.
load ../lib/harness

# What ends by itself when read: all but the streams.
plain_files() { find "$1" -type f -perm -400 ! -name 'follow*' ! -name wait ! -name events ! -path '*/pty/*'; }

# bats test_tags=server
@test "cat, cp, wc, python and dd bs=1 give the same full text of every control file (row 32)" {
	local f files=0
	x 'seq 300' >/dev/null
	mkdir "$C/processes/p"
	echo 'seq 200' >"$C/processes/p/cmd"
	within 10 cat "$C/processes/p/wait"
	while read -r f; do
		files=$((files + 1))
		# figures, logs and ages move between two reads
		case $f in */stats | */log | */status) cat "$f" >/dev/null; continue ;; esac
		cat "$f" >"$T/cat"
		cp --remove-destination "$f" "$T/cp"
		dd if="$f" of="$T/dd" bs=1 status=none
		/usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read())' "$f" >"$T/py"
		cmp "$T/cat" "$T/cp" && cmp "$T/cat" "$T/dd" && cmp "$T/cat" "$T/py" || { echo "$f"; return 1; }
		[ "$(wc -c <"$f")" = "$(stat -c %s "$T/cat")" ] || { echo "wc of $f"; return 1; }
	done < <(plain_files "$M/ctl"; plain_files "$MNT/ctl")
	((files > 30)) || { echo "$files files"; return 1; }
	[ "$(cat "$C/processes/p/stdout")" = "$(seq 200)" ]
}

@test "files of root/proc read whole in every way (row 32)" {
	local f
	for f in version cpuinfo filesystems; do
		cat "$M/root/proc/$f" >"$T/cat"
		[ -s "$T/cat" ]
		cp --remove-destination "$M/root/proc/$f" "$T/cp"
		cmp "$T/cat" "$T/cp"
		[ "$(wc -c <"$M/root/proc/$f")" = "$(stat -c %s "$T/cat")" ]
		dd if="$M/root/proc/$f" of="$T/dd" bs=1 status=none
		cmp "$T/cat" "$T/dd"
	done
	[[ $(cat "$M/root/proc/uptime") =~ ^[0-9]+\.[0-9]+\ [0-9]+\.[0-9]+$ ]]
	[ -z "$(ls "$M/root/proc")" ]
}

# The sandbox's processes, but those that look.
others() { other 'ps -eo pgid=,args= | awk -v me="$(ps -o pgid= $$)" "\$1 + 0 != me + 0 { print }" | sort'; }
# bats test_tags=server
@test "grep -r and find over ctl start nothing, end nothing and do not hang (row 36)" {
	local before
	mkdir "$C/processes/p"
	echo "echo up; sleep $S" >"$C/processes/p/cmd"
	wait_until 10 grep -q up "$C/processes/p/logs"
	sleeps() { others | grep -qE "^ *[0-9]+ sleep $S\$"; } # and not the shell that is to run it
	wait_until 10 sleeps
	x true
	before=$(others)
	within 20 grep -r . "$M/ctl" >"$T/grep" 2>&1 || :
	within 10 find "$M" >/dev/null
	within 10 ls -lR "$M/ctl" >/dev/null
	within 10 du -s "$M/ctl" >/dev/null
	[ "$(cat "$C/processes/p/status")" = running ]
	[ "$SERVER" != local ] || [ "$(others)" = "$before" ] || { others; return 1; }
	[ "$(cat "$C/last/cmd")" = true ]
	echo 'kill KILL' >"$C/processes/p/ctl"
}

@test "the mount's source has a colon, so that tools take it for remote (row 36)" {
	awk -v m="$MNT" '$2 == m { print $1, $3, $4 }' /proc/mounts >"$T/line"
	[[ $(cat "$T/line") == *:*' fuse.sandboxfs '* ]]
	[[ $(cat "$T/line") == *nosuid* && $(cat "$T/line") == *nodev* ]]
}

# bats test_tags=server
@test "status answers one word first and wakes nothing" {
	case $(head -n 1 "$C/status") in
	unknown | starting | running) ;;
	*) cat "$C/status"; return 1 ;;
	esac
	x true
	[ "$(head -n 1 "$C/status")" = running ]
	grep -q '^server ' "$C/status"
}

@test "sync is empty when all is there" {
	echo text >"$W/f"
	[ -z "$(cat "$C/sync")" ]
}

@test "server and stats show the server itself" {
	grep -q '^kind ' "$MNT/ctl/server"
	grep -q '^url ' "$MNT/ctl/server"
	grep -q '^can files$' "$MNT/ctl/server"
	# What a sandbox has and what is said of it cannot differ.
	[ -z "$(comm -23 <(ls "$C" | grep -v '^help$' | sort) <(sed -nE 's/^can(not)? ([^ ]+).*/\2/p' "$MNT/ctl/server" | sort))" ]
	if grep -q 'not have it yet' "$MNT/ctl/server"; then return 1; fi
	[ -z "$(grep -vE '^[A-Za-z0-9_.-]+ [0-9.]+$' "$MNT/ctl/stats")" ]
}

@test "help answers in every directory" {
	local d
	mkdir "$C/processes/p"
	for d in "$MNT/ctl" "$C" "$C/processes" "$C/processes/p" "$C/runs" "$C/ports"; do
		[ -s "$d/help" ] || [ -n "$(cat "$d/help")" ] || { echo "$d"; return 1; }
	done
	grep -q exec "$C/help"
	# only what is there is listed in ports/, so that grep . ports/* means what it says
	[ -z "$(ls "$C/ports")" ]
}

@test "ctl belongs to the mounting user alone" {
	[ "$(stat -c %a "$C" "$MNT/ctl" | sort -u)" = 700 ]
	[ -z "$(find "$M/ctl" -type f -perm /077)" ]
}

# bats test_tags=server
@test "verbs: an unknown word is EINVAL and the error repeats the line" {
	run bash -c "echo 'frobnicate now' > $C/ctl"
	[[ $output == *'Invalid argument'* ]]
	grep -q frobnicate "$C/error"
	printf '\n# a comment\n' >"$C/ctl"
	run bash -c "echo 'destroy force of nature' > $C/ctl"
	[ "$status" != 0 ]
	[ -d "$M" ]
}

@test "the settings that ctl shows can be written back" {
	cat "$MNT/ctl/ctl" >"$T/settings"
	cat "$T/settings" >"$MNT/ctl/ctl"
	cat "$C/ctl" >"$T/settings"
	cat "$T/settings" >"$C/ctl"
}

@test "editors' temporary names are EACCES at once in ctl" {
	local n
	for n in .exec.swp 4913~ '#exec#' .x; do
		run touch "$C/$n"
		[[ $output == *'Permission denied'* ]] || { echo "$n: $output"; return 1; }
	done
	run sed -i s/a/b/ "$C/exec"
	[ "$status" != 0 ]
	[[ $output == *'Permission denied'* ]]
}

@test "chmod, truncate and touch on a control file succeed and do nothing" {
	chmod 666 "$C/exec"
	truncate -s 0 "$C/exec"
	touch "$C/exec"
	[ "$(stat -c %a "$C/exec")" = 600 ]
}

@test "an error of the control tree is a sentence with the way out, and ctl/error's lines" {
	run bash -c "echo x > $C/ports/99999"
	[ "$status" != 0 ]
	grep -q '^message .*99999' "$C/error"
	grep -q '^errno ' "$C/error"
	grep -q '^time 20' "$C/error"
	# the ordinary errors of directories are not news
	run cat "$W/none"
	run mkdir "$W"
	grep -q '^message .*99999' "$C/error"
}

# bats test_tags=server
@test "O_NONBLOCK on a file that waits is EAGAIN, poll tells when there is something" {
	mkdir "$C/processes/p"
	echo 'until [ -e go ]; do sleep 0.05; done; echo now' >"$C/processes/p/cmd"
	within 20 /usr/bin/python3 - "$C/processes/p" "$W/go" <<-E
		import os, select, sys
		fd = os.open(sys.argv[1] + "/follow", os.O_RDONLY | os.O_NONBLOCK)
		try: os.read(fd, 10); sys.exit("no EAGAIN")
		except BlockingIOError: pass
		p = select.poll(); p.register(fd, select.POLLIN)
		assert not p.poll(200)
		open(sys.argv[2], "w").close()
		assert p.poll(8000)
		assert os.read(fd, 10) == b"now\n"
	E
}

interrupted() { # FILE: a reader of it is ended by INT within a second
	local pid began
	rm -f "$T/up"
	/usr/bin/python3 -c 'import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
print("up", flush=True)
open(sys.argv[1]).read()' "$1" >"$T/up" 2>/dev/null 3>&- &
	pid=$!
	wait_until 20 grep -qs up "$T/up"
	wait_until 20 asks $pid
	began=$(date +%s%N)
	kill -INT $pid
	wait $pid || :
	(($(date +%s%N) - began < 3000000000 * SLOW)) || { echo "$1 took too long"; return 1; }
}
@test "^C ends every file that waits within a second (row 13)" {
	mkdir "$C/processes/p"
	echo "sleep $S" >"$C/processes/p/cmd"
	interrupted "$C/processes/p/wait"
	interrupted "$C/processes/p/follow"
	[ "$(cat "$C/processes/p/status")" = running ]
	local pid began
	for f in wait-port wait-log; do
		bash -c "echo '1 ' > $C/processes/p/$f" 2>/dev/null 3>&- &
		pid=$!
		wait_until 20 asks $pid
		began=$(date +%s%N)
		kill -TERM $pid
		wait $pid || :
		(($(date +%s%N) - began < 3000000000 * SLOW)) || { echo "$f took too long"; return 1; }
	done
}

# bats test_tags=server
@test "100 blocked readers do not stop ls or another command (row 13)" {
	local i readers=()
	mkdir "$C/processes/p"
	echo "sleep $S" >"$C/processes/p/cmd"
	for i in $(seq 100); do
		cat "$C/processes/p/follow" >/dev/null 2>&1 3>&- &
		echo $! >>"$T/pids"
		readers+=($!)
	done
	for i in "${readers[@]}"; do wait_until 20 asks "$i"; done
	within 5 ls -l "$MNT" "$M" "$W" >/dev/null
	within 10 bash -c "echo true > $C/exec"
	echo 'kill KILL' >"$C/processes/p/ctl"
	within 10 bash -c "cat $C/processes/p/wait"
}

@test "mkdir answers at once, ls of the mount never waits for a start, first use waits (row 17)" {
	many || skip 'one sandbox only'
	mkdir "$MNT/web"
	case $(head -n 1 "$MNT/web/ctl/status") in starting | running | unknown) ;; *) return 1 ;; esac
	within 10 ls -l "$MNT" >/dev/null
	echo text >"$MNT/web/workspace/f"
	[ "$(head -n 1 "$MNT/web/ctl/status")" = running ]
}

@test "names of sandboxes: a probe is ENOENT, a leading dot EPERM, ctl is taken, bad names are EINVAL" {
	many || skip 'one sandbox only'
	[ ! -e "$MNT/nosuch" ]
	run mkdir "$MNT/.Trash-1000"
	[[ $output == *'Operation not permitted'* ]]
	run mkdir "$MNT/ctl"
	[[ $output == *'File exists'* ]]
	run mkdir "$MNT/a b"
	[[ $output == *'Invalid argument'* ]]
	grep -q '^message .*a b' "$MNT/ctl/error"
	run mkdir "$M"
	[[ $output == *'File exists'* ]]
	run touch "$MNT/file"
	[ "$status" != 0 ]
}

@test "rmdir ends an empty sandbox; with files or processes it is ENOTEMPTY; destroy does it anyway" {
	many || skip 'one sandbox only'
	mkdir "$MNT/a" "$MNT/b" "$MNT/c"
	rmdir "$MNT/a"
	[ ! -e "$MNT/a" ]
	echo text >"$MNT/b/workspace/f"
	run rmdir "$MNT/b"
	[[ $output == *'Directory not empty'* ]]
	grep -q destroy "$MNT/b/ctl/error" "$MNT/ctl/error"
	echo destroy >"$MNT/b/ctl/ctl"
	wait_until 10 test ! -e "$MNT/b"
	mkdir "$MNT/c/ctl/processes/p"
	echo "sleep $S" >"$MNT/c/ctl/processes/p/cmd"
	run rmdir "$MNT/c"
	[[ $output == *'Directory not empty'* ]]
	echo destroy >"$MNT/c/ctl/ctl"
	wait_until 10 test ! -e "$MNT/c"
	mkdir "$MNT/b"
	[ -z "$(ls -A "$MNT/b/workspace")" ]
}

@test "-o sandbox=NAME makes the mount the sandbox, subdir=workspace its workspace" {
	echo text >"$W/f"
	unmount
	mount_it -o sandbox="$NAME"
	[ "$(cat "$MNT/workspace/f")" = text ]
	[ -e "$MNT/ctl/server" ]
	echo 'cat f' >"$MNT/ctl/exec"
	[ "$(cat "$MNT/ctl/exec")" = text ]
	unmount
	mount_it -o sandbox="$NAME",subdir=workspace
	[ "$(ls -A "$MNT")" = f ]
	[ "$(cat "$MNT/f")" = text ]
	echo 'echo $((6 * 7))' >"$MNT/.ctl/exec"
	[ "$(cat "$MNT/.ctl/exec")" = 42 ]
	[ -d "$MNT/.ctl/root/usr" ]
}

@test "sandboxfs-ctl(5)'s shell lines, as a person types them" {
	local P=$C/processes/web-server
	echo 'print(6*7)' >"$W/script.py"
	echo 'python3 script.py' >"$C/exec"
	[ "$(cat "$C/last/stdout" "$C/last/stderr" "$C/last/exit")" = $'42\n0' ]
	install -D /dev/stdin "$W/a/file.txt" <<<content
	[ "$(cat "$W/a/file.txt")" = content ]
	rm -r "$W/a"
	mkdir "$P" "$W/public"
	echo /workspace/public >"$P/cwd"
	echo PORT=8080 >"$P/env"
	echo 'echo Server running; exec sleep 100000' >"$P/cmd"
	echo 'Server running' >"$P/wait-log"
	grep . "$C"/processes/*/status
	echo kill >"$P/ctl"
	cat "$P/wait"
	rmdir "$P"
	until echo true >"$C/exec"; do return 1; done
}

threads_of() { ls "/proc/$1/task" | wc -l; }
# where it holds a token it lets nobody but root look; its spools are the same
deleted_files() {
	if [ -r "/proc/$1/fd" ]; then ls -l "/proc/$1/fd" | grep -c '(deleted)'; else echo 0; fi
}
fewer_than() { [ "$(threads_of "$1")" -lt "$2" ]; }
no_more_deleted() { [ "$(deleted_files "$1")" -le "$2" ]; }
@test "a destroyed sandbox leaves no thread, no spool and no port behind in the program" {
	many || skip 'one sandbox only'
	local pid before files i port readers=()
	x 'echo warm' >/dev/null
	pid=$(sed -n 's/^pid //p' "$MNT/ctl/stats")
	before=$(threads_of "$pid") files=$(deleted_files "$pid")
	for i in a b c; do # a bridge's names have no 1
		mkdir "$MNT/d$i"
		C=$MNT/d$i/ctl
		x 'echo hello' >/dev/null
		mkdir "$C/processes/p"
		echo "sleep $S" >"$C/processes/p/cmd"
		port=$((20000 + RANDOM % 20000))
		echo web >"$C/ports/$port"
		# its own number, where that was free here
		port=$(sed 's/.*:\([0-9]*\).*/\1/' "$C/ports/$port")
		cat "$C/processes/p/follow" >/dev/null 2>&1 3>&- &
		readers+=($!)
		echo text >"$MNT/d$i/workspace/f"
		echo destroy >"$C/ctl"
		[ ! -e "$MNT/d$i" ]
		wait_until 10 port_closed "$port"
	done
	wait "${readers[@]}" || :
	C=$M/ctl
	echo drop-caches >"$MNT/ctl/ctl"
	# the loop keeps a few idle readers of its own
	wait_until 15 fewer_than "$pid" $((before + 9))
	wait_until 15 no_more_deleted "$pid" "$files"
	[ "$(x 'echo still')" = still ]
}
port_closed() { ! bash -c "exec 7<>/dev/tcp/127.0.0.1/$1" 2>/dev/null; }
