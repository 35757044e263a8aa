# The stock bridge as a server: its token, its names, what starts a container, and what is noticed when one is lost.
SERVER=bridge NO_START=1
load ../lib/harness

containers() { find "$BRIDGE" -mindepth 1 -maxdepth 1 -name '[0-9]*' | wc -l; }
# a name of a sandbox that no other test has
fresh_name() { echo "t$(head -c 10 /dev/urandom | base32 | tr A-Z a-z)"; }
refused() { # PATTERN: the mount fails with one sentence that matches
	run mount_it
	[ "$status" != 0 ]
	[ "${#lines[@]}" = 1 ]
	[[ $output =~ $1 ]] || { echo "$output"; return 1; }
	! is_mounted
}

@test "without a token or with a wrong one the mount is refused, and the sentence does not have it" {
	local key=$SANDBOX_API_KEY
	url=$BRIDGE_URL/v1
	SANDBOX_API_KEY='' refused 'SANDBOX_API_KEY'
	SANDBOX_API_KEY="wrong$key" refused 'token'
	[[ $output != *"$key"* ]]
}

@test "the token from a file: the environment need not have it" {
	(umask 077 && echo "$SANDBOX_API_KEY" >"$T/token")
	url=$BRIDGE_URL/v1
	SANDBOX_API_KEY='' mount_it -o token_file="$T/token"
	grep -qx 'kind bridge' "$MNT/ctl/server"
}

@test "no token is where others look: arguments, environment of what is started, /proc/mounts, files, the log" {
	local pid
	start
	echo text >"$W/f"
	echo 'nosuchcommand; env' >"$C/exec" || :
	pid=$(fs_pid)
	! tr '\0' '\n' <"/proc/$pid/cmdline" | grep -F "$SANDBOX_API_KEY" || false
	! grep -F "$SANDBOX_API_KEY" /proc/mounts || false
	! grep -rF "$SANDBOX_API_KEY" "$T/data" "$T/run" "$T/cache" "$T/config" || false
	! grep -rF "$SANDBOX_API_KEY" "$MNT/ctl" "$C/exec" "$C/last/" "$C/error" "$C/status" || false
	! x env | grep -F "$SANDBOX_API_KEY" || false
	! other 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null' | tr '\0' '\n' | grep -F "$SANDBOX_API_KEY" || false
	! grep -F "$SANDBOX_API_KEY" "$BATS_FILE_TMPDIR/bridge.log" || false
	! prlimit --core --noheadings --output SOFT -p "$pid" | grep -qv '^ *0' || false
}

@test "a bridge on this host is gone to without a proxy of the environment, which would hear the token" {
	export http_proxy=http://127.0.0.1:1 all_proxy=http://127.0.0.1:1 no_proxy=''
	start
	echo text >"$W/f"
	unset http_proxy all_proxy no_proxy
	same_there f
}

@test "looking starts no container: names that are not there, lists, stat, df; mkdir does, and use" {
	start
	wait_until 20 eval '[ "$(containers)" = 1 ]'
	ls "$W"
	unmount
	curl_bridge "$NAME" -X DELETE
	wait_until 20 eval '[ "$(containers)" = 0 ]'
	mount_it
	[ ! -e "$MNT/nosuch" ]
	[ ! -e "$MNT/.git" ]
	[ "$(ls "$MNT")" = "ctl
$NAME" ]
	ls -la "$MNT" >/dev/null
	stat "$M" >/dev/null
	df "$MNT" "$M" >/dev/null
	cat "$C/status" "$MNT/ctl/server" >/dev/null
	[ "$(containers)" = 0 ]
	is_empty "$W"
	[ "$(containers)" = 1 ]
}

@test "a name that the bridge cannot carry is EINVAL with its grammar, and ctl is taken" {
	start
	local name
	for name in Upper with-dash x1 a.b "$(printf 'a%.0s' {1..200})"; do
		run mkdir "$MNT/$name"
		[[ $output == *'Invalid argument'* || $output == *'too long'* ]] || { echo "$name: $output"; return 1; }
	done
	grep -q 'a-z' "$MNT/ctl/error"
	run mkdir "$MNT/ctl"
	[ "$status" != 0 ]
}

@test "rmdir refuses what holds files; destroy ends it, and the same name is a new one" {
	start
	echo text >"$W/f"
	run rmdir "$M"
	[[ $output == *'not empty'* ]]
	echo destroy >"$C/ctl"
	[ ! -e "$M" ]
	[ "$(containers)" = 0 ]
	mkdir "$M"
	is_empty "$W"
}

@test "two sandboxes are two containers, at the same time" {
	local second
	start
	second=$(fresh_name)
	mkdir "$MNT/$second"
	echo one >"$W/f"
	echo two >"$MNT/$second/workspace/f"
	[ "$(x 'cat f')" = one ]
	echo 'cat f' >"$MNT/$second/ctl/exec"
	[ "$(cat "$MNT/$second/ctl/exec")" = two ]
	[ "$(containers)" = 2 ]
}

@test "the sandbox outlives the mount: files, and a process goes on" {
	start
	echo kept >"$W/f"
	other 'setsid sleep '$S' >/dev/null 2>&1 & echo started' >/dev/null
	unmount
	[ "$(containers)" = 1 ]
	mount_it
	[ "$(cat "$W/f")" = kept ]
	[ "$(other "pgrep -fc '^sleep $S\$'")" = 1 ]
	[ "$(containers)" = 1 ]
}

# The container ends, as one that sleeps or is evicted; the next use starts an empty one.
lose_container() {
	local lost
	lost=$(echo "$BRIDGE"/*)
	kill -9 -- "-$(cat "$lost/pid")"
	wait_until 20 test ! -e "$lost"
}
@test "a container that is lost: this is said, nothing is written over unasked, accept goes on with the new one" {
	start
	echo precious >"$W/f"
	[ "$(x 'cat f')" = precious ]
	lose_container
	wait_until 60 is_replaced
	run sh -c 'echo more >"$1/f"' - "$W"
	[ "$status" != 0 ]
	run sh -c 'echo "echo hi" >"$1/exec"' - "$C"
	[ "$status" != 0 ]
	[ "$(other 'ls -A; echo looked')" = looked ]
	echo accept >"$C/ctl"
	is_empty "$W"
	echo new >"$W/f"
	[ "$(x 'cat f')" = new ]
	same_there f
}
is_replaced() {
	ls "$W" >/dev/null 2>&1 || :
	[ "$(head -n 1 "$C/status")" = replaced ]
}
