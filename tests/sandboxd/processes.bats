# Processes: records, logs, ends.
load rig

running() { [ "$(http "http://x/api/process/$1" | field '["process"]["status"]')" = running ]; }
ended() { ! running "$1"; }

@test "a process is listed, has logs, and ends with its status" {
	[ "$(post process/start '{"command":"echo out; echo err >&2; exit 2","processId":"p"}' | field '["processId"]')" = p ]
	wait_until 20 ended p
	run http http://x/api/process/p
	[ "$(field '["process"]["status"]' <<<"$output")" = failed ]
	[ "$(field '["process"]["exitCode"]' <<<"$output")" = 2 ]
	run http http://x/api/process/p/logs
	[ "$(field '["stdout"]+d["stderr"]' <<<"$output")" = $'out\nerr' ]
	[ "$(http http://x/api/process/list | field '["processes"][0]["id"]')" = p ]
	[ "$(http 'http://x/api/process/list?status=running' | field '["processes"]')" = '[]' ]
	[ "$(http -X DELETE http://x/api/process/p | field '["code"]')" = COMMAND_NOT_FOUND ]
	[ "$(http http://x/api/process/q | field '["code"]')" = PROCESS_NOT_FOUND ]
}

@test "DELETE answers when the whole tree is dead" {
	post process/start "{\"command\":\"sleep $S & setsid sleep $S & sleep $S\",\"processId\":\"p\"}"
	wait_until 20 sleeping
	[ "$(http -X DELETE http://x/api/process/p | field '["success"]')" = True ]
	awake
	[ "$(http http://x/api/process/p | field '["process"]["status"]')" = killed ]
}

@test "kill-all kills what is listed and counts it" {
	post process/start "{\"command\":\"sleep $S\"}"
	post process/start "{\"command\":\"trap '' TERM INT; sleep $S\"}"
	wait_until 20 sleeping
	[ "$(http -X DELETE http://x/api/process/kill-all | field '["cleanedCount"]')" = 2 ]
	awake
}

@test "an id that runs is not given to another, an ended one is" {
	post process/start "{\"command\":\"sleep $S\",\"processId\":\"p\"}"
	[ "$(status process/start '{"command":"true","processId":"p"}')" = "409 RESOURCE_BUSY" ]
	http -X DELETE http://x/api/process/p
	post process/start '{"command":"echo two","processId":"p"}'
	wait_until 20 ended p
	[ "$(http http://x/api/process/p/logs | field '["stdout"]')" = two ]
}

@test "the stream gives all from the first byte, then the exit" {
	post process/start '{"command":"echo one; echo two >&2; exit 1","processId":"p"}'
	for i in 1 2; do
		run http http://x/api/process/p/stream
		python3 - "$output" <<-'PY'
			import json, sys
			e = [json.loads(l[6:]) for l in sys.argv[1].splitlines() if l]
			assert e[0]["type"] == "process_info" and e[0]["processId"] == "p"
			assert [(x["type"], x["data"]) for x in e[1:-1]] == [("stdout", "one\n"), ("stderr", "two\n")], e
			assert e[-1]["type"] == "exit" and e[-1]["exitCode"] == 1
			assert e[-1]["data"] == "Process failed with exit code 1"
		PY
	done
}

@test "commands that are not to be listed are not" {
	frames start '{"id":"a","command":"true"}'
	frames start '{"id":"b","command":"true","list":true}'
	[ "$(http http://x/api/process/list | field '["processes"][0]["id"]')" = b ]
	[ "$(http http://x/api/process/a | field '["code"]')" = PROCESS_NOT_FOUND ]
}

@test "records are bounded: the oldest ended go first" {
	post process/start "{\"command\":\"sleep $S\",\"processId\":\"first\"}"
	seq 1 530 | xargs -P 8 -n 40 bash -c 'for i; do curl -s --unix-socket "$0/s" http://x/api/process/start -d "{\"command\":\"true\",\"processId\":\"p$i\"}" >"$0/o$i"; done' "$T"
	none_running() { [ "$(http 'http://x/api/process/list?status=running' | field '["processes"].__len__()')" = 1 ]; }
	wait_until 10 none_running
	post process/start '{"command":"true"}'
	run http http://x/api/process/list
	[ "$(field '["processes"][0]["id"]' <<<"$output")" = first ]
	(($(field '["processes"].__len__()' <<<"$output") <= 514))
}

@test "port-watch: ready, status out of range, process gone, unknown process" {
	# below those that the kernel gives to whoever wants any: another's would come between
	port=$(python3 -c '
import random, socket
while True:
    port = random.randrange(15000, 32000)
    try: socket.socket().bind(("127.0.0.1", port))
    except OSError: continue
    print(port)
    break')
	post process/start "{\"command\":\"exec python3 -m http.server --bind 127.0.0.1 $port\",\"processId\":\"web\"}"
	run post port-watch "{\"port\":$port,\"interval\":100,\"processId\":\"web\"}"
	[[ $output = *watching*ready*statusCode*200* ]]
	run post port-watch "{\"port\":$port,\"mode\":\"tcp\"}"
	[[ $output = *ready* ]]
	(http --max-time 1 http://x/api/port-watch -d "{\"port\":$port,\"path\":\"/none\",\"interval\":100}" || :) >"$T/answer"
	! grep -q ready "$T/answer" || false
	http -X DELETE http://x/api/process/web
	run post port-watch "{\"port\":$port,\"interval\":100,\"processId\":\"web\"}"
	[[ $output = *process_exited*143* ]]
	run post port-watch "{\"port\":$port,\"processId\":\"nobody\"}"
	[[ $output = *'"error":"Process not found"'* ]]
	[ "$(status port-watch '{"port":0}')" = "400 INVALID_PORT" ]
	[ "$(status port-watch '{"port":"x"}')" = "400 INVALID_PORT" ]
}

@test "the relay passes bytes and half-closes both ways" {
	run timeout $((60 * SLOW)) python3 "$BATS_TEST_DIRNAME/relay.py" "$T/s"
	[ "$status" = 0 ]
}
