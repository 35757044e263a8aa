# What a server that lies may say: nothing of it leads out of the mount, takes memory or time without end, or steers a terminal.
SERVER=tcp # a liar is put before it
load ../lib/harness

setup_lies() {
	mkdir "$T/lies" "$T/mnt2"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/../lib/hostile_server.py" "${url##*:}" "$T/lies" >"$T/port" 3>&- &
	echo $! >>"$T/pids"
	wait_until 10 grep -q . "$T/port"
	within 60 "$sandboxfs" "http://127.0.0.1:$(cat "$T/port")" "$T/mnt2" 3>&-
	H=$T/mnt2/default/ctl
}
# lie NAME TEXT
lie() { printf '%s' "$2" >"$T/lies/$1.new" && mv "$T/lies/$1.new" "$T/lies/$1"; }
truth() { rm -f "$T/lies/$1"; }
# cwd_is PATH-AS-JSON LINK
cwd_is() {
	lie session '{"success":true,"session":{"id":"default","state":"alive","cwd":"'"$1"'"}}'
	[ "$(readlink "$H/sessions/default/cwd")" = "$2" ] || { echo "$1: $(readlink "$H/sessions/default/cwd")"; return 1; }
}
cwd_fails() {
	lie session '{"success":true,"session":{"id":"default","state":"alive","cwd":"'"$1"'"}}'
	run readlink "$H/sessions/default/cwd"
	[ "$status" != 0 ] || { echo "$1: $output"; return 1; }
}

@test "a session's cwd is a link within the mount, whatever the server says" {
	setup_lies
	cwd_is /workspace/a ../../../workspace/a
	cwd_is "/workspace/../../../../../../../..$T" "../../../root$T"
	[[ $(realpath -m "$H/sessions/default/cwd") == "$T/mnt2/default/root/"* ]]
	cwd_is "/../../../../../../../..$T" "../../../root$T"
	cwd_is "/workspace/a/../../workspace/./b//c/" ../../../workspace/b/c
	cwd_is /usr/../workspace ../../../workspace
	cwd_is /workspace/.. ../../../root/
	cwd_is //workspace ../../../workspace
	cwd_is /workspacex/.. ../../../root/
	cwd_is /.../..a/... ../../../root/.../..a/...
	cwd_fails ''
	cwd_fails workspace
	cwd_fails ../../../tmp
	cwd_fails '/a\u0000b'
	cwd_fails "/$(printf 'x%.0s' {1..4095})"
	cwd_fails "/$(printf 'x%.0s' {1..4090})" # with what leads to root/ in front of it
}

@test "a session made with .. in its cwd begins where that is in the sandbox" {
	x 'mkdir -p /tmp/below'
	echo '{"id":"up","cwd":"../../../../tmp/./below/"}' >"$C/sessions/new"
	[ "$(readlink "$C/sessions/up/cwd")" = ../../../root/tmp/below ]
	echo pwd >"$C/sessions/up/exec"
	[ "$(cat "$C/sessions/up/last/stdout")" = /tmp/below ]
	run bash -c 'printf "{\"id\":\"long\",\"cwd\":\"/%5000d\"}" 0 | cat >"$1"' - "$C/sessions/new"
	[ "$status" != 0 ]
	grep -q '^errno ENAMETOOLONG' "$C/error"
}

@test "a list of sessions that is too long is refused at once, a long one is no burden" {
	setup_lies
	lie list '{"success":true,"data":['"$(seq -s, -f '"s%.0f"' 100000)"']}'
	run within 5 ls "$H/sessions"
	[[ $output == *'Protocol error'* ]]
	grep -q '^message .*more than 4096' "$H/error"
	lie list '{"success":true,"data":['"$(seq -s, -f '"s%.0f"' 4000),$(seq -s, -f '"s%.0f"' 50)"']}'
	within 5 ls "$H/sessions" >"$T/out"
	[ "$(wc -l <"$T/out")" = 4002 ]
	[ -z "$(uniq -d <"$T/out")" ]
	truth list
	[ "$(ls "$H/sessions" | xargs)" = 'default new' ]
}

@test "a list that would take gigabytes takes nothing; neither does what a run of code shows" {
	setup_lies
	local many pid
	many=$(printf '{},%.0s' {1..1000000}){}
	pid=$(pgrep -f "^[^ ]*/sandboxfs .*$T/mnt2\$")
	lie processes '{"success":true,"processes":['"$many"']}'
	for _ in 1 2 3; do
		run within 20 ls "$H/processes"
		[[ $output == *'Protocol error'* ]]
	done
	grep -q '^message .*too much to be taken in' "$H/error"
	truth processes
	[ "$(ls "$H/processes")" = new ]
	# where a look would find nothing but text
	lie list '{"success":true,"a":'"'\"'"',"data":['"$many"'],"b":'"'\"'}"
	run within 20 ls "$H/sessions"
	[[ $output == *'Protocol error'* ]]
	lie code "data: {\"type\":\"result\",\"json\":[$many]}"$'\n\n'
	within 20 bash -c "echo 1 >$H/code/python/run" # refused at its close, which a shell does not look at
	grep -q '^errno EFBIG' "$H/error"
	[ "$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status")" -lt 150000 ] || [ -n "${SAN:-}" ]
}

@test "events name what is below workspace/ alone, and steer no terminal" {
	setup_lies
	lie changes $'create\t../../../host\ncreate\t/etc/passwd\nmove\ta\tb/../../c\ncreate\t\\056\\056/x\ncreate\tgood\ncreate\ta\033[31mb\033]0;x\a\ncreate\tc\xc2\x9b1m\xc3\x84\n\033[2J\ncreate\tlast\n'
	within 10 head -n 4 "$H/events" >"$T/out"
	cat -v "$T/out"
	[ "$(cat "$T/out")" = $'create\tgood\ncreate\ta\\033[31mb\\033]0;x\\007\ncreate\tc\\302\\2331m\303\204\ncreate\tlast' ]
}

@test "sync escapes what steers a terminal in a name, and takes it back so" {
	# one program: a shell's redirections close copies, and what is closed is sent
	within 30 /usr/bin/python3 - "$W" "$C" <<-'END'
		import os, sys
		def queued():
		    with open(sys.argv[2] + "/sync", "rb") as f: return sorted(f.read().splitlines())
		def ctl(line):
		    with open(sys.argv[2] + "/ctl", "wb") as f: f.write(line)
		name = b"a\033[31m\\b\nc\302\233\303\204"
		shown = b"a\\033[31m\\134b\\012c\\302\\233\303\204"
		fds = [os.open(os.fsencode(sys.argv[1]) + b"/" + n, os.O_WRONLY | os.O_CREAT) for n in (name, b"other", b"\\")]
		for fd in fds: os.write(fd, b"12345")
		assert queued() == [b"queued 5 \\134", b"queued 5 " + shown, b"queued 5 other"], queued()
		ctl(b"discard '" + shown + b"'\n")
		assert queued() == [b"queued 5 \\134", b"queued 5 other"], queued()
		ctl(b"discard '\\'\n")
		assert queued() == [b"queued 5 other"], queued()
		ctl(b"retry other\n")
		assert queued() == [], queued()
	END
	[ "$(cat "$W/other")" = 12345 ]
}

@test "lists of processes and contexts that are too long are refused at once" {
	setup_lies
	lie processes '{"success":true,"processes":['"$(seq -s, -f '{"id":"p%.0f"}' 100000)"']}'
	run within 5 ls "$H/processes"
	[[ $output == *'Protocol error'* ]]
	lie contexts '{"success":true,"contexts":['"$(seq -s, -f '{"id":"c%.0f","language":"python"}' 100000)"']}'
	run within 5 ls "$H/code"
	[[ $output == *'Protocol error'* ]]
	lie processes '{"success":true,"processes":['"$(seq -s, -f '{"id":"p%.0f"}' 4096)"']}'
	[ "$(within 5 ls "$H/processes" | grep -c '^p')" = 4096 ]
}
