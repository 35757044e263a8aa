# Programs that walk a whole sandbox, with everything in it that runs and waits: they end by themselves, the readers among them
# change nothing, and rm -r reaches the workspace alone (row 36).
TEST_LIMIT=240
load ../lib/harness

# A sandbox in use: files, a process that talks, one that has ended, a session, a port, variables, a terminal, a listener.
furnish() {
	mkdir -p "$W/src/deep"
	echo one >"$W/src/a"
	echo two >"$W/src/deep/b"
	ln -s a "$W/src/link"
	x 'echo run'
	mkdir "$C/processes/talks" "$C/processes/ended"
	echo "while sleep 0.1; do echo talk; done" >"$C/processes/talks/cmd"
	echo true >"$C/processes/ended/cmd"
	[ "$(cat "$C/processes/ended/wait")" = 0 ]
	echo KEPT=value >"$C/env"
	mkdir "$C/sessions/s"
	echo 'cd /tmp' >"$C/sessions/s/exec"
	echo '80 24' >"$C/pty/new"
	pid=$(cat "$C/processes/talks/pid")
}
# What must be as it was: what runs, is set, exists and is stored.
state() {
	ls "$C/processes" "$C/sessions" "$C/pty" "$C/ports" "$C/ws" "$C/mounts" "$C/backups"
	cat "$C/processes/talks/pid" "$C/processes/talks/status" "$C/processes/ended/exit" "$C/env"
	x 'find /workspace -printf "%P %T@ %C@ %s %l\n" | sort'
}
walks() { # NAME COMMAND...: ends by itself, whatever its status, and leaves all as it was
	local name=$1 before after
	shift
	before=$(state)
	within 60 "$@" >"$T/walk.out" 2>"$T/walk.err" </dev/null && status=0 || status=$?
	echo "$name: status $status"
	tail -n 3 "$T/walk.err"
	[ "$status" != 124 ]
	[ "$status" != 137 ]
	after=$(state)
	[ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after"); return 1; }
}

@test "grep -r, find, ls -lR, tar c and rsync -a over a sandbox in use end and change nothing" {
	furnish
	walks 'grep -r' grep -r . "$C"
	walks 'grep -r of all' grep -r talk "$M"
	walks find find "$M" -ls
	walks 'ls -lR' ls -lR "$M"
	walks tar tar c -C "$MNT" -f "$T/all.tar" "$NAME"
	tar tf "$T/all.tar" | grep -q workspace/src/deep/b
	walks rsync rsync -a "$M/" "$T/copy/"
	[ "$(cat "$T/copy/workspace/src/deep/b")" = two ]
	[ "$(readlink "$T/copy/workspace/src/link")" = a ]
}

@test "a long listing of the mount and of a sandbox's directory starts none; one of its workspace does" {
	local state=unknown
	remount
	many || state=running # where there is nothing to start
	is_so() { [ "$(head -n 1 "$C/status")" = "$1" ]; }
	ls -la "$MNT" "$M" >/dev/null
	stat "$M/workspace" "$M/root" "$M" >/dev/null
	find "$MNT" -maxdepth 2 >/dev/null
	[ -d "$W" ]
	is_so $state
	ls -l "$W" >/dev/null
	is_so running
	x 'chmod 751 /workspace'
	[ "$(stat -c %a "$W")" = 751 ]
}

# What of ctl/ can be removed: it stays until it is named.
kept() {
	(cd "$C" && ls -d backups/* ports/[0-9]* processes/[a-z]* pty/[0-9]* sessions/* ws/[a-z]*)
	cat "$C/processes/talks/status" "$C/processes/talks/pid" "$C/processes/ended/exit" "$C/env"
}

@test "rm -r and shutil.rmtree over a sandbox in use empty its workspace and reach nothing else" {
	local port=$((20000 + S % 20000)) before walk
	furnish
	echo src >"$C/backups/new"
	echo src >"$C/backups/new"
	echo web >"$C/ports/$port"
	mkdir "$C/ws/chat"
	before=$(kept)
	for walk in "rm -rf" "python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)'"; do
		mkdir -p "$W/src/deep"
		echo again >"$W/src/deep/c"
		within 60 bash -c "$walk \"\$0\"" "$M" 2>"$T/rm.err" || :
		[ -z "$(ls -A "$W")" ]
		[ "$(x 'ls -A /workspace; ls / | grep -c .')" -gt 5 ]
		[ "$(kept)" = "$before" ] || { diff <(echo "$before") <(kept); return 1; }
		x "kill -0 $pid"
	done
	run rm -r "$C/backups"
	[ "$status" != 0 ]
	grep -q 'rm -r does not reach into ctl/; name what is to go: rm backups/' "$C/error"
	[ "$(kept)" = "$before" ]
}

@test "what of ctl/ is named is removed, also by a program that has just listed it" {
	local i
	furnish
	for i in 1 2 3 4; do echo src >"$C/backups/new"; done
	rm "$C/backups/$(ls "$C/backups" | head -n 1)"
	[ "$(ls "$C/backups" | wc -l)" = 3 ]
	rm "$C"/backups/*
	[ -z "$(ls "$C/backups")" ]
	rmdir "$C/sessions/s" "$C/processes/ended"
	[ ! -e "$C/sessions/s" ]
	[ ! -e "$C/processes/ended" ]
	for i in {1..8}; do mkdir "$C/processes/draft$i"; done
	python3 -c 'import os, sys
os.chdir(sys.argv[1])
for name in os.listdir("."):
    if name.startswith("draft"): os.listdir("."); os.rmdir(name)' "$C/processes"
	[ "$(cd "$C/processes" && ls -d */)" = talks/ ]
}

@test "a hundred blocked readers of each kind hold no thread, and end with a signal and with umount -l" {
	mkdir "$C/processes/quiet"
	echo "sleep $S" >"$C/processes/quiet/cmd"
	ls "$W" >/dev/null
	local before readers=() i file
	before=$(threads)
	for file in processes/quiet/follow processes/quiet/wait events; do
		for i in {1..100}; do
			cat "$C/$file" >/dev/null 2>&1 3>&- &
			readers+=($!)
		done
	done
	all_wait() { [ "$(ps -o wchan= -p "$(IFS=,; echo "${readers[*]}")" | grep -c 'fuse\|request_wait')" = 300 ]; }
	wait_until 60 all_wait
	# who serves them is a few, not as many as they are; one whose open is not yet answered waits in the same place
	few_serve() { [ "$(threads)" -lt $((before + 40)) ]; }
	wait_until 20 few_serve
	within 10 ls "$W" "$C/processes" >/dev/null
	[ "$(x 'echo still here')" = 'still here' ]
	kill -TERM "${readers[@]:0:150}"
	first_half_gone() { ! ps -o stat= -p "$(IFS=,; echo "${readers[*]:0:150}")" | grep -qv Z; }
	wait_until 10 first_half_gone
	if [ "$(id -u)" = 0 ]; then umount -l "$MNT"; else fusermount3 -u -z "$MNT"; fi
	kill -TERM "$(fs_pid)"
	second_half_gone() { ! ps -o stat= -p "$(IFS=,; echo "${readers[*]:150}")" | grep -qv Z; }
	wait_until 20 second_half_gone
}
threads() { awk '$1 == "threads" { print $2 }' "$MNT/ctl/stats"; }
