# What the tests of sandboxd share: each test has its own server on a socket in a private directory.
#
# From outside: BUILD (what is tested), SLOW (factor on deadlines), SAN_LOG (where sanitizers report).

repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
: "${BUILD:=build}" "${SLOW:=1}"
case $BUILD in /*) ;; *) BUILD=$repo/$BUILD ;; esac
sandboxd=${SANDBOXD:-$BUILD/sandboxd}
BATS_TEST_TIMEOUT=$((180 * SLOW))
export BATS_TEST_TIMEOUT

# wait_until SECONDS COMMAND...: asks again until it succeeds. It changes $!: keep that before.
wait_until() {
	local deadline=$((SECONDS + $1 * SLOW)) pause
	shift
	exec {pause}<> <(:)
	until "$@"; do
		if ((SECONDS >= deadline)); then
			echo "still not so after the deadline: $*"
			exec {pause}>&-
			return 1
		fi
		read -r -t 0.02 -u "$pause" || :
	done
	exec {pause}>&-
}

serve() { # OPTIONS...
	"${WRAP[@]}" "$sandboxd" --listen "unix:$T/s" --workspace "$W" --spool "$T/spool" "$@" \
		>"$T/log" 2>&1 3>&- &
	server=$!
	wait_until 20 http -o /dev/null http://x/api/ping 2>/dev/null
}

setup() {
	T=$(mktemp -d "${TMPDIR:-/tmp}/sbxd.XXXXXX")
	W=$T/ws
	WRAP=()
	mkdir "$W" "$T/spool" "$T/home"
	# what a shell of root reads at its start is not the tests' matter
	[[ $(id -u) != 0 || $(realpath "$sandboxd")$T == */root/* ]] ||
		WRAP=("$repo/tests/lib/unshared" sh -c 'mount --bind "$0" /root && exec "$@"' "$T/home")
	local log=${SAN_LOG:-$T}/san
	# The leak check traces its process, which a user may not do to one that cannot be dumped.
	local leaks=
	[ "$(id -u)" = 0 ] || leaks=:detect_leaks=0
	export ASAN_OPTIONS="log_path=$log$leaks" UBSAN_OPTIONS="print_stacktrace=1:log_path=$log"
	export TSAN_OPTIONS="log_path=$log:suppressions=$BATS_TEST_DIRNAME/tsan.supp"
	# how long this test's commands sleep: a number by which they are told from another test's
	S=$((100000 + (RANDOM * 32768 + RANDOM) % 800000))
	serve
}

stop() {
	[ -n "${server:-}" ] || return 0
	kill "$server" 2>/dev/null || :
	wait_until 15 gone "$server" || kill -9 "$server"
	local status=0
	wait "$server" || status=$?
	server=
	return $status
}

# What a failed test has written: which answer was not the expected one.
tell() {
	local f
	for f in "$T"/*; do
		[ ! -f "$f" ] || { echo "--- ${f##*/}" && head -c 4000 "$f"; }
	done
}

teardown() {
	local status=0
	[ -n "${BATS_TEST_COMPLETED:-}" ] || tell
	stop || status=$?
	if ((status)); then
		echo "sandboxd ended with $status"
		cat "$T/log"
	fi
	if cat "$T"/san.* 2>/dev/null; then status=1; fi
	rm -rf "$T"
	return $status
}

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(ps -o stat= -p "$1" | cut -c1)" = Z ]; }
sleeping() { pgrep -f "^sleep $S" >/dev/null; }
awake() { ! sleeping; }
# Nobody is connected to the server: what is left of its socket is who listens.
alone() { [ "$(grep -c "$T/s\$" /proc/net/unix)" = 1 ]; }

http() { curl -sS --max-time $((90 * SLOW)) --unix-socket "$T/s" "$@"; }
# post ROUTE JSON: the body of the answer
post() { http "http://x/api/$1" -d "$2"; }
# field JSON-PATH: of the JSON on stdin, in python's words
field() { python3 -c 'import json,sys; print(eval("d"+sys.argv[1], {"d": json.load(sys.stdin)}))' "$1"; }
# status ROUTE JSON: HTTP status and code
status() { http -w '\n%{http_code}' "http://x/api/$1" -d "$2" | python3 -c '
import json,sys
body, status = sys.stdin.read().rsplit("\n", 1)
try: print(status, json.loads(body).get("code"))
except ValueError: print(status, body)'; }
frames() { timeout $((90 * SLOW)) python3 "$BATS_TEST_DIRNAME/frames.py" "$T/s" "$@"; }
