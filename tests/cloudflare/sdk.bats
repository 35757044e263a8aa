# The official SDK's own methods against the server: each gives what the SDK's types promise, its errors with their class, code and status.
# The rows are in sdk/*.mjs; a failure shows them. A Worker in workerd calls the SDK, the containers of its Durable Objects are sandboxd.
#
# SDK_TRANSPORT=http  how the SDK speaks to the server; CONTAINER=, CONTAINER_FILES= another server (serve.mjs)
bats_require_minimum_version 1.5.0
BATS_TEST_TIMEOUT=$((240 * ${SLOW:-1}))
export BATS_TEST_TIMEOUT

why_not() {
	"$BATS_TEST_DIRNAME/deps" -n || return 0
	bwrap --dev-bind / / --unshare-pid true 2>/dev/null || echo "no bubblewrap"
}

setup_file() {
	[ -z "$(why_not)" ] || return 0
	cd "$BATS_TEST_DIRNAME" || return
	export D
	D=$(mktemp -d "${TMPDIR:-/tmp}/sbxsdk.XXXXXX")
	mkfifo "$D/address"
	mkdir "$D/containers"
	BUILD=$(cd ../.. && realpath "${BUILD:-build}") WORKER=$PWD/sdk/worker.mjs CLASSES=Sandbox TRANSPORT=${SDK_TRANSPORT:-http} \
		node serve.mjs "$D/containers" < <(exec tail -f /dev/null --pid=$$) >"$D/address" 2>"$D/log" 3>&- &
	echo $! >"$D/pid"
	# the rest of what it says must go somewhere
	exec {from}<"$D/address"
	read -r -t $((60 * ${SLOW:-1})) SDK_AT <&"$from" || {
		cat "$D/log"
		return 1
	}
	export SDK_AT
	cat <&"$from" >"$D/out" 3>&- &
	exec {from}<&-
}

teardown_file() {
	[ -n "${D:-}" ] || return 0
	kill "$(cat "$D/pid")" || :
	tail --pid="$(cat "$D/pid")" -f /dev/null
	rm -rf "$D"
}

setup() {
	local why
	why=$(why_not)
	[ -z "$why" ] || skip "$why"
}

group() { # NAME [QUERY]
	local status
	status=$(curl -sS -m "$BATS_TEST_TIMEOUT" -o "$D/answer" -w '%{http_code}' "$SDK_AT/$1?${2:-}")
	cat "$D/answer"
	[ "$status" = 200 ]
}

@test "exec, execStream" { group commands; }
@test "exec, execStream without a default session, as the bridge does" { group commands session=none; }
@test "readFile, readFileStream, writeFile, listFiles, deleteFile, mkdir, renameFile, moveFile, exists" { group files; }
@test "the same without a default session" { group files session=none; }
@test "startProcess, waitForPort, waitForLog, waitForExit, getProcess, listProcesses, kill..., logs" { group processes; }
@test "the same processes without a default session" { group processes session=none; }
@test "createSession, getSession, deleteSession" { group sessions; }
@test "createCodeContext, runCode, runCodeStream, listCodeContexts, deleteCodeContext" { group code; }
@test "watch, checkChanges" { group watches; }
@test "gitCheckout" { group git; }
@test "exposePort, getExposedPorts, unexposePort, proxyToSandbox, wsConnect" { group ports; }
@test "createBackup, restoreBackup, mountBucket" { group backups; }
@test "setEnvVars, terminal, destroy and the settings" { group settings; }
