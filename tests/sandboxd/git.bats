# Clones, by their routes.
load rig

upstream() {
	git init -q -b main "$T/up"
	git -C "$T/up" config user.name t
	git -C "$T/up" config user.email t@example.org
	echo main >"$T/up/f"
	git -C "$T/up" add f
	git -C "$T/up" commit -q -m one
	git -C "$T/up" checkout -q -b dev
	echo dev >"$T/up/f"
	git -C "$T/up" commit -q -a -m two
	git -C "$T/up" checkout -q main
}

@test "a clone, its branch, its directory and its depth" {
	upstream
	run post git/checkout "{\"repoUrl\":\"file://$T/up\"}"
	[ "$(field '["branch"]+" "+d["targetDir"]' <<<"$output")" = "main $W/up" ]
	[ "$(cat "$W/up/f")" = main ]
	run post git/checkout "{\"repoUrl\":\"file://$T/up\",\"branch\":\"dev\",\"targetDir\":\"a/b c\",\"depth\":1}"
	[ "$(field '["branch"]+" "+d["targetDir"]' <<<"$output")" = "dev $W/a/b c" ]
	[ "$(cat "$W/a/b c/f")" = dev ]
	[ "$(git -C "$W/a/b c" rev-list --count HEAD)" = 1 ]
}

@test "what goes wrong has its code and errno" {
	upstream
	mkdir "$W/full"
	touch "$W/full/x"
	failure() { # JSON: status, code, errno
		status git/checkout "$1" | tr '\n' ' '
		post git/checkout "$1" | field '["context"].get("errno")'
	}
	[ "$(failure "{\"repoUrl\":\"file://$T/up\",\"targetDir\":\"full\"}")" = "500 GIT_CLONE_FAILED EEXIST" ]
	[ "$(failure "{\"repoUrl\":\"file://$T/up\",\"branch\":\"nope\"}")" = "404 GIT_BRANCH_NOT_FOUND ENOENT" ]
	[ "$(failure "{\"repoUrl\":\"file://$T/nope\"}")" = "404 GIT_REPOSITORY_NOT_FOUND ENOENT" ]
	[ "$(failure '{"repoUrl":"http://127.0.0.1:1/x.git"}')" = "502 GIT_NETWORK_ERROR EHOSTUNREACH" ]
	[ "$(failure '{"repoUrl":"--upload-pack=x"}')" = "400 INVALID_GIT_URL None" ]
	[ "$(failure '{}')" = "400 INVALID_GIT_URL None" ]
	[ "$(failure "{\"repoUrl\":\"file://$T/up\",\"timeoutMs\":0}")" = "400 VALIDATION_FAILED None" ]
	[ "$(failure "{\"repoUrl\":\"file://$T/up\",\"depth\":-1}")" = "400 VALIDATION_FAILED None" ]
	[ "$(failure "{\"repoUrl\":\"file://$T/up\",\"branch\":\"--x\"}")" = "400 VALIDATION_FAILED None" ]
	[ ! -e "$W/nope" ]
}

# refusing PORT-FILE: a server on loopback that wants a password, and says 404 below /none.
refusing() {
	python3 - "$T/port" <<-'PY' &
		import http.server, os, sys
		class H(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        self.send_response(404 if self.path.startswith("/none") else 401)
		        self.send_header("WWW-Authenticate", 'Basic realm="r"')
		        self.send_header("Content-Length", "0")
		        self.end_headers()
		    def log_message(self, *a): pass
		s = http.server.HTTPServer(("127.0.0.1", 0), H)
		open(sys.argv[1] + "~", "w").write(str(s.server_port))
		os.rename(sys.argv[1] + "~", sys.argv[1])
		s.serve_forever()
	PY
	web=$!
	wait_until 10 test -s "$T/port"
	port=$(<"$T/port")
}

@test "a wrong password is EACCES, and no password is in an answer or a record" {
	refusing
	[ "$(status git/checkout "{\"repoUrl\":\"http://127.0.0.1:$port/x.git\"}")" = "401 GIT_AUTH_FAILED" ]
	[ "$(status git/checkout "{\"repoUrl\":\"http://127.0.0.1:$port/none.git\"}")" = "404 GIT_REPOSITORY_NOT_FOUND" ]
	run post git/checkout "{\"repoUrl\":\"http://me:sekret@127.0.0.1:$port/x.git\"}"
	[[ $output = *GIT_AUTH_FAILED* && $output = *'http://***@127.0.0.1'* && $output != *sekret* ]]
	run post sandboxfs/git "{\"repoUrl\":\"http://me:sekret@127.0.0.1:$port/x.git\",\"id\":\"g\"}"
	[[ $output = *GIT_AUTH_FAILED* && $output != *sekret* ]]
	kill "$web"
	wait "$web" || :
	[ "$(http -o /dev/null -w '%{http_code}' http://x/api/sandboxfs/commands/g)" = 404 ]
	[ "$(http http://x/api/process/list | field '["processes"]')" = "[]" ]
}

@test "progress is told as it comes, and the end" {
	upstream
	post sandboxfs/git "{\"repoUrl\":\"file://$T/up\"}" >"$T/events"
	python3 - "$T/events" "$W/up" <<-'PY'
		import json, sys
		events = [json.loads(l[6:]) for l in open(sys.argv[1]) if l.startswith("data: ")]
		assert events[0]["type"] == "progress" and "Cloning into" in events[0]["text"]
		assert any("Receiving objects: 100%" in e.get("text", "") for e in events)
		assert events[-1]["type"] == "complete" and events[-1]["targetDir"] == sys.argv[2], events[-1]
	PY
}

@test "a clone that hangs is ended by its time-out or by a cancel" {
	python3 - "$T/port" <<-'PY' &
		import os, socket, sys
		s = socket.socket()
		s.bind(("127.0.0.1", 0))
		s.listen()
		open(sys.argv[1] + "~", "w").write(str(s.getsockname()[1]))
		os.rename(sys.argv[1] + "~", sys.argv[1])
		kept = []
		while True: kept.append(s.accept())
	PY
	web=$!
	wait_until 10 test -s "$T/port"
	[ "$(status git/checkout "{\"repoUrl\":\"http://127.0.0.1:$(<"$T/port")/x.git\",\"timeoutMs\":500}")" = "502 GIT_NETWORK_ERROR" ]
	http -N http://x/api/sandboxfs/git -d "{\"repoUrl\":\"http://127.0.0.1:$(<"$T/port")/x.git\",\"id\":\"g\"}" >"$T/events" &
	job=$!
	cancel() { post sandboxfs/commands/g/signal '{"cancel":true}' | grep -q '"success":true'; }
	begun() { grep -q Cloning "$T/events"; }
	wait_until 10 begun
	wait_until 10 cancel
	wait "$job"
	[[ $(tail -n 2 "$T/events") = *OPERATION_INTERRUPTED* ]]
	kill "$web"
	wait "$web" || :
	[ ! -e "$W/x" ]
}

@test "a clone that is ended has taken away its files when that is told" {
	command -v unshare >/dev/null && unshare -rm true || skip "no mount namespaces"
	# a git that takes its time for it
	cat >"$T/git" <<-'SH'
		#!/bin/bash
		trap 'sleep 1; rm -r x; exit 1' TERM
		mkdir x
		touch x/f
		sleep 1000
	SH
	chmod 755 "$T/git"
	stop
	# shellcheck disable=SC2016
	WRAP=(unshare -rm sh -c 'mount --bind "$0" "$(realpath /usr/bin/git)" && exec "$@"' "$T/git")
	serve
	[ "$(status git/checkout '{"repoUrl":"http://127.0.0.1:1/x.git","timeoutMs":2000}')" = "502 GIT_NETWORK_ERROR" ]
	[ ! -e "$W/x" ]
}
