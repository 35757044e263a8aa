# What a run shows when its link, its start or its reader fails: status, exit, and output beyond output-max.
NO_START=1
load ../lib/harness

status_is() { [ "$(head -n 1 "$C/status")" = "$1" ]; }
exit_is() { [ "$(cat "$C/runs/$1/exit")" = "$2" ]; }

# A conversation on descriptor 5 with a command that says it is up, and sleeps: its run's number in n.
begin() {
	local line
	exec 5<>"$C/exec"
	read -r n <&5
	echo "echo up; sleep $S" >&5
	read -r -t $((10 * SLOW)) line <&5
	[ "$line" = up ]
}

@test "a server killed under a running command shows in status, though no file is touched" {
	SERVER=unix
	start -o timeout=$((10 * SLOW))
	local n
	begin
	status_is running
	exit_is "$n" ''
	kill -9 "$server_pid"
	wait_until 20 status_is unreachable
	exit_is "$n" '' # nobody knows that it has ended
	# another server at the same place does not know it
	start_again
	wait_until 10 status_is running
	wait_until 10 exit_is "$n" unknown
	run within 20 cat <&5
	[ "$status" = 1 ]
	exec 5>&-
}
# The test's server once more, at the same socket.
start_again() {
	rm -f "$T/server.sock"
	start_server unix 5>&- # it would hold the conversation open
}

@test "a server that is stopped under a running command shows in status, and the output goes on behind it" {
	SERVER=unix
	start -o timeout=$((5 * SLOW))
	local n line
	exec 5<>"$C/exec"
	read -r n <&5
	echo 'echo up; until [ -e go ]; do sleep 0.1; done; echo on' >&5
	read -r -t $((10 * SLOW)) line <&5
	kill -STOP "$server_pid"
	wait_until 30 status_is unreachable
	touch "$T/ws/go"
	kill -CONT "$server_pid"
	[ "$(within 20 cat <&5)" = on ]
	exit_is "$n" 0
	wait_until 10 status_is running
	exec 5>&-
}

@test "what a command says of a full disk is kept, and so is what later ones say" {
	SERVER=unix
	mkdir "$T/small"
	server_bwrap=(--size 20000000 --tmpfs "$T/small") server_args=(--spool "$T/small")
	start
	echo "head -c 50M /dev/zero >$T/small/fill; echo \$?; df --output=avail $T/small | tail -n 1" >"$C/exec"
	[ "$(cat "$C/last/stderr")" = "head: error writing 'standard output': No space left on device" ]
	[ "$(tr -d ' \n' <"$C/last/stdout")" = 10 ]
	[ "$(x 'echo still works; seq 10000 | tail -n 1')" = $'still works\n10000' ]
	# beyond what is kept all the same
	run x 'seq 100000; echo behind'
	[ "$status" = 125 ]
	grep -q '^message exec: .* if the disk of the sandbox has room' "$C/error"
	[ "$(head -c 5 "$C/runs/3/logs")" = $'1\n2\n3' ]
	x "rm $T/small/fill"
	[ "$(x 'seq 100000; echo behind' | tail -n 1)" = behind ]
}

@test "a start that finds no server shows in status, and its run is not shown as running" {
	SERVER=unix
	start -o timeout=$((10 * SLOW))
	local f
	[ "$(x 'echo before')" = before ]
	kill -9 "$server_pid"
	wait_until 10 gone "$server_pid"
	run within 30 bash -c "echo true > $C/exec; cat $C/exec"
	[ "$status" = 1 ]
	wait_until 10 status_is unreachable
	for f in "$C"/runs/[0-9]*/exit "$C/last/exit"; do [ -n "$(cat "$f")" ]; done
}

@test "a start that is refused leaves a run whose exit is unknown, not empty" {
	start
	run within 30 bash -c "echo '{\"command\":\"true\",\"cwd\":\"/not/there\"}' > $C/exec.json; cat $C/exec.json"
	[ "$status" = 1 ]
	[ "$(cat "$C/last/exit")" = unknown ]
	[ "$(x 'echo next')" = next ]
}

@test "a server of our own that is killed under a command is started by the next one" {
	start
	local n pid
	begin
	pid=$(server_of_sandbox)
	kill -9 "$pid"
	wait_until 10 gone "$pid" # a request that reaches it while it dies may have been done, and is not repeated
	[ "$(x 'echo next')" = next ]
	wait_until 10 exit_is "$n" unknown
	exec 5>&-
}

# --- beyond output-max ---

@test "sized files: a dropped range is ENODATA with the way out, what is kept is read at its offset" {
	start -o output-max=64K
	echo 'seq 100000' >"$C/exec"
	seq 100000 >"$T/want"
	[ "$(stat -c %s "$C/last/stdout")" = "$(stat -c %s "$T/want")" ]
	run cat "$C/last/stdout"
	[ "$status" = 1 ]
	[[ $output == *'No data available'* ]]
	grep -q 'no longer kept; tail -c +' "$C/error"
	cmp <(tail -c 60000 "$C/last/stdout") <(tail -c 60000 "$T/want")
	# the sentence is a command that works
	local from
	from=$(sed -n 's/.*tail -c +\([0-9]*\) reads on.*/\1/p' "$C/error")
	cmp <(tail -c "+$from" "$C/last/logs") <(tail -c "+$from" "$T/want")
	[ "$(tail -c "+$from" "$C/last/logs" | wc -c)" = 65536 ]
	[ "$(tail -n 1 "$C/last/stdout")" = 100000 ]
	[ "$(cat "$C/last/exit")" = 0 ]
}

# reads FILE [COMMAND]: with one descriptor, to the end: its bytes to $T/got, each error a line of its number.
reads() {
	within 60 /usr/bin/python3 - "$T/got" "$@" <<-'E'
		import os, select, sys
		fd = os.open(sys.argv[2], os.O_RDWR if len(sys.argv) > 3 else os.O_RDONLY)
		run = None
		if len(sys.argv) > 3:
		    run = os.read(fd, 100).decode().strip()
		    os.read(fd, 100)
		    os.write(fd, sys.argv[3].encode() + b"\n")
		    if len(sys.argv) > 4: # until all of it has come
		        while open(f"{sys.argv[4]}/{run}/exit").read() == "": select.select([], [], [], 0.05)
		with open(sys.argv[1], "wb") as out:
		    while True:
		        try: part = os.read(fd, 100000)
		        except OSError as e:
		            print(e.errno)
		            continue
		        if not part: break
		        out.write(part)
	E
}

@test "streams: one read says how much is lost, the next goes on behind it" {
	start -o output-max=64K
	echo 'seq 100000' >"$C/exec"
	seq 100000 >"$T/want"
	[ "$(reads "$C/exec")" = 61 ]
	cmp "$T/got" <(tail -c 65536 "$T/want")
	grep -q "exec: $(($(stat -c %s "$T/want") - 65536)) bytes of the output of run 1 are no longer kept" "$C/error"
	# a conversation that was not read meanwhile
	[ "$(reads "$C/exec" 'seq 100000' "$C/runs")" = 61 ]
	cmp "$T/got" <(tail -c 65536 "$T/want")
	# as events: a line
	grep -q '"code":"OUTPUT_LOST","lost":523359' <(json 'seq 100000')
}
json() {
	local f
	exec {f}<>"$C/exec.json"
	echo "{\"command\":\"$1\"}" >&"$f"
	wait_until 10 grep -q . "$C/last/exit"
	cat <&"$f"
	exec {f}>&-
}

@test "a reader that keeps up loses nothing of an output longer than output-max" {
	start -o output-max=64K
	# each piece is printed when the one before has been read
	within 60 /usr/bin/python3 - "$C/exec" "$W" <<-'E'
		import os, sys
		fd = os.open(sys.argv[1], os.O_RDWR)
		os.read(fd, 100); os.read(fd, 100)
		os.write(fd, b"i=0; while [ $i -lt 20 ]; do head -c 30000 /dev/zero | tr '\\0' x; i=$((i+1)); "
		    b"until [ -e $i ]; do sleep 0.01; done; done\n")
		total = 0
		for i in range(1, 21):
		    while total < 30000 * i:
		        part = os.read(fd, 65536)
		        assert part and part == b"x" * len(part), part[:20]
		        total += len(part)
		    open(f"{sys.argv[2]}/{i}", "w").close()
		assert os.read(fd, 1) == b""
		assert total == 600000
	E
	[ "$(cat "$C/last/exit")" = 0 ]
}
