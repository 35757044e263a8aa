# What every mount test uses. Each test has a private directory $T with its own XDG directories, its own mount
# at $T/mnt and, after `start`, a sandbox: M its directory, W its workspace, C its control tree.
#
# From outside: BUILD (what is tested), SERVER (local, unix, tcp, bridge, or worker: ours), SAN_LOG (where sanitizers report), SLOW (factor on deadlines).

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
: "${BUILD:=build}" "${SERVER:=local}" "${SLOW:=1}"
# contrib/worker is a bridge with more
if [ "$SERVER" = worker ]; then
	export SERVER=bridge WORKER=$repo/tests/cloudflare/worker.mjs
fi
case $BUILD in /*) ;; *) BUILD=$repo/$BUILD ;; esac
sandboxfs=$BUILD/sandboxfs
sandboxd=$BUILD/sandboxd
BATS_TEST_TIMEOUT=$((${TEST_LIMIT:-120} * SLOW))
export BATS_TEST_TIMEOUT
bats_require_minimum_version 1.5.0
. "$repo/tests/lib/where.sh"

# --- waiting ---

# wait_until SECONDS COMMAND...: asks again until it succeeds; the deadline failing is the test's failure.
wait_until() {
	local deadline=$((SECONDS + $1 * SLOW)) last= pause
	shift
	exec {pause}<> <(:)
	until "$@"; do
		# What was looked at before the deadline may be told long after it, where all waits for a processor: the last look is after it.
		if ((SECONDS <= deadline)); then
			:
		elif [ -z "$last" ]; then
			last=1
		else
			echo "still not so after the deadline: $*"
			[ ! -d "${T:-}" ] || touch "$T/waited_in_vain"
			exec {pause}>&-
			return 1
		fi
		read -r -t 0.05 -u "$pause" || :
	done
	exec {pause}>&-
}

# A process without threads that only waits to be reaped has ended too: bash hears of a child's end when it gets round to it.
gone() {
	local stat tasks
	kill -0 "$1" 2>/dev/null || return 0
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
	tasks=("/proc/$1/task/"*)
	[[ ${stat##*) } == Z* ]] && ((${#tasks[@]} == 1))
}
# asks PID: it waits for the answer of a mount.
asks() { grep -q 'request_wait\|fuse' "/proc/$1/wchan" 2>/dev/null; }
# within SECONDS COMMAND...: its own status, or 124 and the test's failure when it takes longer.
within() {
	local limit=$1
	shift
	timeout -k 5 $((limit * SLOW)) "$@"
}

# --- a mount ---

private_directory() {
	T=$(mktemp -d "${TMPDIR:-/tmp}/sbxt.XXXXXX")
	mkdir -m 700 "$T"/{data,run,cache,config,tmp,home,log}
	mkdir "$T/mnt"
	export XDG_DATA_HOME=$T/data XDG_RUNTIME_DIR=$T/run XDG_CACHE_HOME=$T/cache \
		XDG_CONFIG_HOME=$T/config XDG_STATE_HOME=$T/data/state TMPDIR=$T/tmp HOME=$T/home
	export GIT_CONFIG_NOSYSTEM=1 LC_ALL=C.UTF-8 TERM=xterm
	git config --global user.name Tester
	git config --global user.email tester@example.org
	git config --global init.defaultBranch main
	local log=${SAN_LOG:-$T/log}/report
	export ASAN_OPTIONS="log_path=$log" TSAN_OPTIONS="log_path=$log" \
		UBSAN_OPTIONS="print_stacktrace=1:log_path=$log"
	MNT=$T/mnt
	# how long this test's commands sleep: a number by which they are told from another test's
	S=$((100000 + (RANDOM * 32768 + RANDOM) % 800000))
}

# Another server than local: is a sandboxd of the test's own; server_bwrap and server_args are more words for either.
start_server() { # unix|tcp
	local try
	mkdir -p "$T/ws"
	# what was a free port may be another's when it is to be listened at
	for try in 1 2 3; do
		try_server "$1"
		[ -z "$server_pid" ] || break
	done
	[ -n "$server_pid" ] || { cat "$T/server.log"; return 1; }
	echo "$server_pid" >>"$T/pids"
}
try_server() { # unix|tcp: server_pid is empty if it has ended
	local port
	case $1 in
	unix)
		url=unix:$T/server.sock
		set -- --listen "$url"
		;;
	tcp)
		if [[ ${url:-} == http://127.0.0.1:* && -n ${server_pid:-} ]] && gone "$server_pid"; then
			port=${url##*:} # in its place
		else
			port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
		fi
		url=http://127.0.0.1:$port
		set -- --listen "127.0.0.1:$port"
		;;
	esac
	# The API speaks of /workspace, so there must be one: this machine's files with the test's directory at that name.
	local bind=() wrap=() d
	[ "$(id -u)" != 0 ] || wrap=("$repo/tests/lib/unshared")
	for d in /*; do
		if [ -L "$d" ]; then
			bind+=(--symlink "$(readlink "$d")" "$d")
		elif [[ $d == /root && $sandboxd$T != */root/* ]]; then
			bind+=(--bind "$HOME" "$d") # what a shell of root reads at its start is not the tests' matter
		elif [ "$d" != /workspace ]; then
			bind+=(--dev-bind "$d" "$d")
		fi
	done
	ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" \
		"${wrap[@]}" bwrap "${bind[@]}" --bind "$T/ws" /workspace "${server_bwrap[@]}" --die-with-parent \
		"$sandboxd" "$@" --workspace /workspace "${server_args[@]}" >"$T/server.log" 2>&1 3>&- &
	local outer=$!
	wait_until 10 pings_or_gone $outer
	server_pid=$(pgrep -P $outer -x sandboxd || :)
}
pings_or_gone() { gone "$1" || ping_server; }
ping_server() { curl_server /api/ping >/dev/null 2>&1; }
curl_server() { # PATH [CURL-OPTION]...
	local path=$1
	shift
	case $url in
	unix:*) curl -sS -m $((30 * SLOW)) --unix-socket "${url#unix:}" "$@" "http://localhost$path" ;;
	*) curl -sS -m $((30 * SLOW)) "$@" "$url$path" ;;
	esac
}

# --- Cloudflare's bridge: one for the tests of a file, each with sandboxes of its own ---

setup_file() {
	[ "$SERVER" != bridge ] || start_bridge
}
teardown_file() {
	[ -z "${BRIDGE_PID:-}" ] || end_bridge
}
# BRIDGE, its folder: 1/, 2/, ... are its containers, each with tmp/ and workspace/ as the sandbox sees them.
start_bridge() {
	[ -d "$repo/tests/cloudflare/node_modules" ] || { echo 'needs node, and make cloudflare-deps'; return 1; }
	export BRIDGE=$BATS_FILE_TMPDIR/b BUILD SANDBOX_API_KEY=${RANDOM}key$RANDOM
	local in
	mkdir "$BRIDGE"
	# It ends with its standard input: with this program, however that ends.
	mkfifo "$BATS_FILE_TMPDIR/in"
	node "$repo/tests/cloudflare/serve.mjs" "$BRIDGE" \
		<"$BATS_FILE_TMPDIR/in" >"$BATS_FILE_TMPDIR/url" 2>"$BATS_FILE_TMPDIR/bridge.log" 3>&- &
	export BRIDGE_PID=$!
	exec {in}>"$BATS_FILE_TMPDIR/in"
	wait_until 30 bridge_began || :
	BRIDGE_URL=$(cat "$BATS_FILE_TMPDIR/url")
	export BRIDGE_URL
	[ -n "$BRIDGE_URL" ] || {
		cat "$BATS_FILE_TMPDIR/bridge.log"
		return 1
	}
}
bridge_began() { [ -s "$BATS_FILE_TMPDIR/url" ] || gone "$BRIDGE_PID"; }
end_bridge() {
	kill "$BRIDGE_PID"
	wait_until 20 gone "$BRIDGE_PID" || {
		kill -9 "$BRIDGE_PID"
		return 1
	}
	[ -z "$(ls -A "$BRIDGE")" ] || {
		echo "left by the bridge: $(ls -A "$BRIDGE")"
		return 1
	}
}
# curl_bridge PATH [CURL-OPTION]...
curl_bridge() {
	curl -sS -m $((30 * SLOW)) --oauth2-bearer "$SANDBOX_API_KEY" -H 'Expect:' "${@:2}" "$BRIDGE_URL/v1/sandbox/$1"
}
# What the bridge's exec prints, as text.
bridge_exec() { # COMMAND
	local line
	# Two first requests at once may be given a container each: the mount's comes first.
	[ -n "$(api_socket)" ] || ls "$W" >/dev/null
	jq -n --arg c "$1" '{argv: ["sh", "-c", $c]}' | curl_bridge "$NAME/exec" -N -H 'Content-Type: application/json' -d @- |
		awk '/^event: / { event = $2 } /^data: / && event == "stdout" { print $2 }
			/^event: exit/ { ended = 1 } END { exit !ended }' |
		while read -r line; do base64 -d <<<"$line"; done
	return "${PIPESTATUS[2]}"
}
# Terminals of mounts in this test's container.
terminals() {
	local p n=0
	for p in $(pgrep -f '^/tmp/.sandboxfs/[0-9a-f]*/attach$'); do
		[ "$(stat -Lc %i "/proc/$p/root/tmp" 2>/dev/null)" != "$(stat -c %i "$BRIDGE"/*/tmp)" ] || n=$((n + 1))
	done
	echo $n
}
no_terminal() { [ "$(terminals)" = 0 ]; }
# No container outlives the sandboxes of its test.
destroy_sandboxes() { # NAME...
	local name answer
	for name; do
		answer=$(curl_bridge "$name" -X DELETE -o "$T/deleted" -w '%{http_code}') && [ "$answer" = 204 ] ||
			echo "DELETE $name: $answer $(cat "$T/deleted")"
	done
	[ -z "$(ls "$BRIDGE")" ]
}

# mount_it [OPTION]...: the mount command as a user types it.
mount_it() {
	within 60 "$sandboxfs" "$@" "${url:-local:}" "$MNT" 3>&-
}

# start [MOUNT-OPTION]...: a mount and a sandbox in it.
start() {
	case $SERVER in
	local)
		url=local:
		NAME=demo
		mount_it "$@"
		;;
	bridge)
		url=$BRIDGE_URL/v1
		NAME=t$(head -c 10 /dev/urandom | base32 | tr A-Z a-z)
		mount_it "$@"
		;;
	*)
		NAME=default
		start_server "$SERVER"
		mount_it "$@"
		;;
	esac
	M=$MNT/$NAME W=$MNT/$NAME/workspace C=$MNT/$NAME/ctl
	[ -d "$M" ] || mkdir "$M"
}

# One mount has many sandboxes: of an official container's server it has one.
many() { [[ $SERVER == @(local|bridge) ]]; }
is_mounted() { awk -v m="${1:-$MNT}" '$2 == m { f = 1 } END { exit !f }' /proc/mounts; }
unmount() {
	settle
	within 60 "$sandboxfs" -u "$@" "$MNT"
}
# mkdir begins to start a sandbox; a bridge may give it another container for another first request beside that, as the next mount's.
settle() {
	[ "$SERVER" != bridge ] || [ "$url" != "$BRIDGE_URL/v1" ] || [ -n "$(api_socket)" ] ||
		timeout 30 ls "${W:-}" >/dev/null 2>&1 || :
}
# Unmounts and mounts the same again.
remount() {
	unmount
	mount_it "$@"
}
# The oldest: a child that has not become its program yet is called the same, and numbers begin anew.
fs_pid() { pgrep -o -f "^[^ ]*/sandboxfs .*$MNT\$"; }

# --- the other side ---

# x COMMAND: runs it in the sandbox the way sandboxfs-ctl(5) tells scripts to, with its output and exit code.
x() {
	local n f rc
	case $* in
	*$'\n'*) # a line of a conversation is a command; a script is a document
		printf '%s\n' "$*" >"$C/exec" || return 125
		cat "$C/last/stdout"
		cat "$C/last/stderr" >&2
		return "$(cat "$C/last/exit")"
		;;
	esac
	exec {f}<>"$C/exec" || return 125
	read -r n <&"$f" || return 125
	printf '%s\n' "$*" >&"$f" || { exec {f}>&-; return 125; }
	cat <&"$f" || { exec {f}>&-; return 125; }
	# before the close: a run without a conversation gives way to newer ones
	rc=$(cat "$C/runs/$n/exit")
	exec {f}>&-
	case $rc in
	'' | *[!0-9]*) echo "exit is '$rc'" >&2; return 125 ;;
	*) return "$rc" ;;
	esac
}

# The socket of the sandbox's own server on local:, as another client of the container API finds it.
api_socket() {
	case $SERVER in
	unix) echo "$T/server.sock" ;;
	bridge) find "$BRIDGE"/*/tmp/.sandboxfs -name socket 2>/dev/null | head -n 1 ;;
	*) awk -v t="$T/" 'index($8, t) == 1 { print $8; exit }' /proc/net/unix ;;
	esac
}
# The pid of the sandboxd that answers for the sandbox.
server_of_sandbox() {
	if [ -n "${server_pid:-}" ]; then
		echo "$server_pid"
		return
	fi
	local p
	if [ "$SERVER" = bridge ]; then # there are others' sandboxes: this one's is known by its workspace
		for p in $(pgrep -f '^/tmp/\.sandboxfs/[^ ]*/sandboxd '); do
			[ ! "/proc/$p/root/workspace" -ef "$(echo "$BRIDGE"/*/workspace)" ] || echo "$p"
		done
		return
	fi
	for p in $(test_processes); do
		[[ $(tr '\0' ' ' <"/proc/${p%:*}/cmdline" 2>/dev/null) == *sandboxd\ * ]] || continue
		[ "$(cat "/proc/${p%:*}/comm")" = sandboxd ] && echo "${p%:*}"
	done | head -n 1
}
# api ROUTE JSON: the container API by curl, past the mount.
api() {
	if [ "$SERVER" = tcp ]; then
		curl_server "$1" -d "$2"
	else
		# the first use of the sandbox starts its server
		[ -n "$(api_socket)" ] || ls "$W" >/dev/null
		curl -sS -m $((30 * SLOW)) --unix-socket "$(api_socket)" -d "$2" "http://localhost$1"
	fi
}
# other COMMAND: its output (bytes as they are) in the sandbox by the independent client.
other() {
	local answer
	if [ "$SERVER" = bridge ]; then
		bridge_exec "{ $1
} | base64 -w0" | base64 -d
		return "${PIPESTATUS[0]}"
	fi
	answer=$(api /api/execute "$(jq -n --arg c "{ $1
} | base64 -w0" '{command: $c, sessionId: "__DISABLE_SESSION__"}')") || return 1
	jq -r .stdout <<<"$answer" | base64 -d || { echo "$answer" >&2; return 1; }
}
# is_empty DIRECTORY: it can be listed, and nothing is in it.
is_empty() {
	local all
	all=$(ls -A "$1") || return 1
	[ -z "$all" ] || { echo "in $1: $all"; return 1; }
}
# same_there FILE...: what is at workspace/FILE here is byte for byte what the independent client reads.
same_there() {
	local f sum
	for f; do
		sum=$(sha256sum <"$W/$f") && [ "$sum" = "$(other "sha256sum < $(printf %q "/workspace/$f")")" ] || {
			echo "$f differs"
			return 1
		}
	done
}

# --- processes ---

# PID:START of every process that belongs to this test: those that name $T and all below them.
test_processes() {
	ps -eo pid=,ppid=,args= | T=$T SELF=$BASHPID awk '
		{ pid = $1; parent[pid] = $2; $1 = $2 = ""; if (index($0, ENVIRON["T"])) mine[pid] = 1 }
		END {
			for (again = 1; again;) {
				again = 0
				for (p in parent)
					if (!mine[p] && mine[parent[p]]) again = mine[p] = 1
			}
			for (p = ENVIRON["SELF"]; p > 1; p = parent[p]) delete mine[p]
			for (p in mine) if (mine[p]) print p
		}' | while read -r pid; do
		start=$(awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$pid/stat" 2>/dev/null) || continue
		[ -z "$start" ] || echo "$pid:$start"
	done
}
still_there() { # PID:START...
	local p state
	left=
	for p; do
		# a dead child of init is init's affair, and some take their time
		state=$(awk -v s="${p#*:}" '{ sub(/.*\) /, ""); if ($20 == s && !($1 == "Z" && $2 == 1)) print $1 }' \
			"/proc/${p%:*}/stat" 2>/dev/null) || continue
		[ -z "$state" ] || left="$left ${p%:*}"
	done
	[ -n "$left" ]
}
none_left() { ! still_there "$@"; }

# --- the end of a test ---

# Nothing of the test itself may hold the mount when it is to be unmounted: its programs in the background, its descriptors.
let_go() {
	local at p
	for at in $(find /proc/[0-9]*/cwd /proc/[0-9]*/fd -lname "$T/mnt*" 2>/dev/null); do
		p=${at#/proc/} p=${p%%/*}
		if [ "$p" != $BASHPID ]; then
			kill -9 "$p" 2>/dev/null || :
		else
			eval "exec ${at##*/}>&-"
		fi
	done
}

setup() {
	private_directory
	if [ -z "${NO_START:-}" ]; then start; fi
}

teardown() {
	local all bad=0 m p names= running
	[ -n "${T:-}" ] || return 0
	cd /
	if [ -n "${BRIDGE_PID:-}" ]; then
		# the program's own list of them, which is there without a mount as well
		names=$(ls "$T"/data/sandboxfs/.bridges/*/ 2>/dev/null)
		# mkdir begins to start it; a second first request, which DELETE would be, may be given another container
		[ -z "$names" ] || [ -n "$(SERVER=bridge api_socket)" ] || timeout 30 ls "$W" >/dev/null 2>&1 || :
	fi
	all=$(test_processes)
	# what a failed test left stopped could not end
	for p in $all; do kill -CONT "${p%:*}" 2>/dev/null || :; done
	if [ -n "${BATS_ERROR_STATUS:-}" ] && [ "${BATS_ERROR_STATUS:-0}" != 0 ] && [ -n "${C:-}" ]; then
		echo "# ctl/error:"
		timeout 5 cat "$C/error" "$MNT/ctl/error" 2>&1
		echo "# ctl/log:"
		timeout 5 tail -n 15 "$MNT/ctl/log" 2>&1
		if [ -e "$T/waited_in_vain" ]; then
			echo "# the processes:"
			# shellcheck disable=SC2046,SC2086
			where_they_wait $(printf '%s\n' $all | sed 's/:.*//')
		fi
		if [ -n "${BRIDGE_PID:-}" ]; then
			echo "# the bridge:"
			grep -v "^ " "$BATS_FILE_TMPDIR/bridge.log" | tail -n 10
		fi
	fi
	let_go
	for m in $(awk -v t="$T/" 'index($2, t) == 1 { print $2 }' /proc/mounts | tac); do
		timeout -k 5 $((40 * SLOW)) "$sandboxfs" -u --kill "$m" >"$T/unmount.log" 2>&1 || {
			echo "sandboxfs -u $m failed: $(cat "$T/unmount.log")"
			bad=1
		}
		! is_mounted "$m" || fusermount3 -u -z "$m" || umount -l "$m"
	done
	# before the sandboxes: a request that one of them still holds and passes on late would start another container
	if [ -f "$T/pids" ]; then
		running=$'\n'$(jobs -pr)$'\n'
		while read -r p; do
			# by now the number may be another program's
			[[ $running == *$'\n'"$p"$'\n'* ]] || still_there "$(grep "^$p:" <<<"$all")" || continue
			kill "$p" 2>/dev/null || :
			[ -z "${BRIDGE_PID:-}" ] || wait_until 15 gone "$p" || :
		done <"$T/pids"
	fi
	if [ -n "${BRIDGE_PID:-}" ]; then
		p=$(find "$BRIDGE" -name '.sanitizer*' -size +0 2>/dev/null)
		[ -z "$p" ] || {
			echo "a sanitizer reports:"
			# shellcheck disable=SC2086
			head -n 60 $p
			bad=1
		}
		# shellcheck disable=SC2086
		destroy_sandboxes $names || {
			echo "containers left: $(ls "$BRIDGE")"
			for p in "$BRIDGE"/*/pid; do kill -9 -- "-$(cat "$p")" || :; done
			bad=1
		}
	fi
	# what a server that a test killed had started has outlived it
	pkill -KILL -f "^sleep $S\$" || :
	# shellcheck disable=SC2086
	wait_until 15 none_left $all || {
		echo "processes left:$left"
		for p in $left; do
			ps -o pid,ppid,stat,wchan:20,args -p "$p" | tail -n +2
			kill -9 "$p" || :
		done
		bad=1
	}
	if is_mounted; then
		echo 'the mount is left'
		bad=1
	fi
	if [ -n "$(ls -A "$T/tmp")" ]; then
		echo "left in TMPDIR: $(ls -A "$T/tmp")"
		bad=1
	fi
	for p in "$T"/log/* $(find "$T/data" "$T/ws" -name '.sanitizer*' 2>/dev/null); do
		[ ! -s "$p" ] || { echo "a sanitizer reports:"; head -n 60 "$p"; bad=1; }
	done
	chmod -R u+rwX "$T" 2>/dev/null
	rm -rf "$T" || bad=1
	return $bad
}
