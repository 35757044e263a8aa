# Files: the official routes.
load rig

@test "write makes parents, read gives it back, as text and as base64" {
	[ "$(status write '{"path":"a/b.txt","content":"h\u00e4llo\n"}' | cut -c1-3)" = 200 ]
	[ "$(cat "$W/a/b.txt")" = hällo ]
	[ "$(stat -c %a "$W/a/b.txt" "$W/a")" = $'644\n755' ]
	run post read '{"path":"a/b.txt"}'
	[ "$(field '["content"]' <<<"$output")" = hällo ]
	[ "$(field '["encoding"]' <<<"$output")" = utf-8 ]
	[ "$(post read '{"path":"a/b.txt","encoding":"base64"}' | field '["content"]' | base64 -d)" = hällo ]
	head -c 100000 /dev/urandom >"$T/in"
	printf '{"path":"bin","encoding":"base64","content":"%s"}' "$(base64 -w0 "$T/in")" >"$T/json"
	http http://x/api/write -d "@$T/json"
	cmp "$T/in" "$W/bin"
	post read '{"path":"bin"}' | field '["content"]' | base64 -d | cmp - "$T/in"
	[ "$(status write '{"path":"x","content":"A\nA=","encoding":"base64"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status write '{"path":"x","content":"AA==AA==","encoding":"base64"}')" = "400 VALIDATION_FAILED" ]
	[ ! -e "$W/x" ]
}

@test "relative paths are from the directory of the session, and from the workspace without one" {
	mkdir "$W/d"
	post execute '{"command":"cd d","sessionId":"s"}'
	post write '{"path":"a","content":"x","sessionId":"s"}'
	[ -f "$W/d/a" ]
	[ "$(post read '{"path":"./a","sessionId":"s"}' | field '["content"]')" = x ]
	post rename '{"oldPath":"a","newPath":"../b","sessionId":"s"}'
	[ -f "$W/b" ]
	[ "$(status read '{"path":"b","sessionId":"s"}')" = "404 FILE_NOT_FOUND" ]
	for session in none __DISABLE_SESSION__; do
		[ "$(status read "{\"path\":\"b\",\"sessionId\":\"$session\"}" | cut -c1-3)" = 200 ]
	done
	[ "$(status read '{"path":"b"}' | cut -c1-3)" = 200 ]
	# also of one whose command runs
	post execute/stream '{"command":"sleep '$S'","sessionId":"s"}' >"$T/stream" 3>&- &
	local stream=$!
	wait_until 10 sleeping
	[ "$(post exists '{"path":"../b","sessionId":"s"}' | field '["exists"]')" = True ]
	post session/delete '{"sessionId":"s"}'
	wait "$stream"
}

@test "an existing file keeps its inode, mode, links and what its symlinks say" {
	echo a long old content >"$W/f"
	chmod 751 "$W/f"
	ln "$W/f" "$W/g"
	ln -s f "$W/l"
	ln -s new "$W/broken"
	before=$(stat -c '%i %a %h' "$W/f")
	post write '{"path":"l","content":"new"}'
	post write '{"path":"broken","content":"made"}'
	[ "$(cat "$W/g")" = new ]
	[ "$(cat "$W/new")" = made ]
	[ "$(stat -c '%i %a %h' "$W/f")" = "$before" ]
	[ "$(readlink "$W/l")" = f ]
}

@test "write and read tell their errors" {
	mkdir "$W/d"
	echo x >"$W/f"
	mkfifo "$W/fifo"
	[ "$(status write '{"path":"d","content":""}')" = "500 FILESYSTEM_ERROR" ]
	[[ $(post write '{"path":"d","content":""}' | field '["context"]["stderr"]') = "EISDIR: illegal operation on a directory, open '$W/d'" ]]
	[[ $(post write '{"path":"f/x","content":""}' | field '["context"]["stderr"]') = "ENOTDIR: "* ]]
	[[ $(post write '{"path":"fifo","content":"x"}' | field '["context"]["stderr"]') = "ENXIO: "* ]]
	[ "$(status write '{"path":"f"}')" = "400 VALIDATION_FAILED" ]
	for path in d none f/x; do [ "$(status read "{\"path\":\"$path\"}")" = "404 FILE_NOT_FOUND" ]; done
	[ "$(status read '{"path":"fifo"}')" = "413 FILE_TOO_LARGE" ]
	truncate -s 33554433 "$W/large"
	[ "$(status read '{"path":"large"}')" = "413 FILE_TOO_LARGE" ]
	truncate -s 33554432 "$W/large"
	[ "$(post read '{"path":"large"}' | field '["size"]')" = 33554432 ]
	for path in '5' '""' '"a\u0000b"' "\"$(printf 'x%.0s' {1..4097})\""; do
		[ "$(status read "{\"path\":$path}")" = "400 VALIDATION_FAILED" ]
		[ "$(status rename "{\"oldPath\":$path,\"newPath\":\"x\"}")" = "500 SECURITY_VALIDATION_FAILED" ]
	done
	[ "$(status read '{"path":"f","sessionId":""}')" = "500 INTERNAL_ERROR" ]
	[[ $(post read '{"path":"/proc/version"}' | field '["content"]') = Linux* ]]
}

@test "the space that is to stay free stays free" {
	stop
	serve --min-free 100000000000000
	[[ $(post write '{"path":"f","content":"x"}' | field '["context"]["stderr"]') = "ENOSPC: "* ]]
	[ ! -e "$W/f" ]
}

@test "read/stream gives any file in events" {
	head -c 300000 /dev/urandom >"$W/f.bin"
	for i in {1..30000}; do echo aä€😀; done >"$W/f.txt"
	for name in f.bin f.txt; do
		post read/stream "{\"path\":\"$name\"}" >"$T/answer"
		python3 - "$T/answer" "$W/$name" <<-'PY'
			import base64, json, sys
			e = [json.loads(l[6:]) for l in open(sys.argv[1], encoding="utf-8") if l.strip()]
			want = open(sys.argv[2], "rb").read()
			assert e[0]["type"] == "metadata" and e[0]["size"] == len(want)
			data = [x["data"] for x in e[1:-1]]
			got = b"".join(map(base64.b64decode, data)) if e[0]["isBinary"] else "".join(data).encode()
			assert got == want and e[-1] == {"type": "complete", "bytesRead": len(want)}
		PY
	done
	[[ $(post read/stream '{"path":"none"}') = 'data: {"type":"error","error":"File not found: '* ]]
}

@test "mkdir, exists, delete" {
	[ "$(status mkdir '{"path":"a"}' | cut -c1-3)" = 200 ]
	[ "$(post mkdir '{"path":"a"}' | field '["context"]["stderr"]')" = "mkdir: cannot create directory '$W/a': File exists" ]
	[[ $(post mkdir '{"path":"b/c"}' | field '["context"]["stderr"]') = *"No such file or directory"* ]]
	[ "$(post mkdir '{"path":"b/c","recursive":true}' | field '["recursive"]')" = True ]
	[ "$(status mkdir '{"path":"b/c","recursive":true}' | cut -c1-3)" = 200 ]
	[ "$(post exists '{"path":"b/c"}' | field '["exists"]')" = True ]
	ln -s none "$W/broken"
	ln -s b "$W/link"
	echo >"$W/f"
	[ "$(post exists '{"path":"broken"}' | field '["exists"]')" = False ]
	[ "$(status delete '{"path":"broken"}')" = "404 FILE_NOT_FOUND" ]
	[ "$(status delete '{"path":"link"}')" = "400 IS_DIRECTORY" ]
	[ "$(status delete '{"path":"f"}' | cut -c1-3)" = 200 ]
	[ ! -e "$W/f" ]
}

@test "rename and move do what mv does" {
	mkdir "$W/d"
	echo 1 >"$W/-q'\$x"
	[ "$(post rename "{\"oldPath\":\"-q'\$x\",\"newPath\":\"b c\"}" | field '["newPath"]')" = "b c" ]
	echo 2 >"$W/e"
	post move '{"sourcePath":"b c","destinationPath":"e"}'
	[ "$(cat "$W/e")" = 1 ]
	post move '{"sourcePath":"e","destinationPath":"d"}'
	[ "$(cat "$W/d/e")" = 1 ]
	[ "$(status rename '{"oldPath":"none","newPath":"x"}')" = "404 FILE_NOT_FOUND" ]
	run post rename '{"oldPath":"d","newPath":"d"}'
	[[ $(field '["context"]["stderr"]' <<<"$output") = "mv: cannot move "* ]]
	[ "$(field '["context"]["exitCode"]' <<<"$output")" = 1 ]
}

@test "list-files tells every name once" {
	python3 - "$W" <<-'PY'
		import os, sys
		d = os.fsencode(sys.argv[1]) + b"/d[x]*\\"
		os.mkdir(d)
		for name in [b"tab\there", b"new\nline", b"q'\"\\", b"\xff\xfe", b".hidden", b" blank ", b"*"]:
		    open(d + b"/" + name, "w").close()
		os.makedirs(d + b"/sub/.deep")
		os.symlink("nowhere", d + b"/link")
		os.chmod(d + b"/*", 0o4751)
		os.utime(d + b"/*", ns=(0, 1600000000123456789))
	PY
	post list-files '{"path":"d[x]*\\","options":{"recursive":true,"includeHidden":true}}' >"$T/answer"
	python3 - "$T/answer" <<-'PY'
		import json, sys
		a = json.load(open(sys.argv[1]))
		names = sorted(f["relativePath"] for f in a["files"])
		assert names == sorted(["tab\there", "new\nline", "q'\"\\", "\ufffd\ufffd", ".hidden", " blank ", "*", "sub", "sub/.deep", "link"]), names
		assert a["count"] == 10
		star = [f for f in a["files"] if f["name"] == "*"][0]
		assert star["modifiedAt"] == "2020-09-13T12:26:40.1234567890" and star["mode"] == "rwxr-x--x" and star["type"] == "file"
		link = [f for f in a["files"] if f["name"] == "link"][0]
		assert link["type"] == "symlink" and link["size"] == 7
	PY
	[ "$(post list-files '{"path":"d[x]*\\"}' | field '["count"]')" = 8 ]
	echo >"$W/f"
	ln -s "d[x]*\\" "$W/l"
	[ "$(status list-files '{"path":"f"}')" = "400 NOT_DIRECTORY" ]
	[ "$(status list-files '{"path":"l"}')" = "400 NOT_DIRECTORY" ]
	[ "$(post list-files '{"path":"l/"}' | field '["count"]')" = 8 ]
	[ "$(status list-files '{"path":"none"}')" = "404 FILE_NOT_FOUND" ]
}

watching() { # JSON
	http -N http://x/api/watch -d "$1" >"$T/events" &
	watcher=$!
	wait_until 20 grep -q '"watching"' "$T/events"
}
saw() { grep -F "\"eventType\":\"$1\",\"path\":\"$W/$2\"" "$T/events"; }

@test "watch sees what is made, also in new directories, and ends with its root" {
	mkdir -p "$W/w/.git"
	watching '{"path":"w"}'
	mkdir -p "$W/w/d/e"
	echo >"$W/w/d/e/f"
	wait_until 20 saw create w/d/e/f
	echo >"$W/w/.git/x"
	mv "$W/w/d" "$W/w/dd"
	wait_until 20 saw move_to w/dd
	echo >"$W/w/dd/e/g"
	wait_until 20 saw create w/dd/e/g
	! saw create w/d/e/g || false
	rm "$W/w/dd/e/g"
	wait_until 20 saw delete w/dd/e/g
	! grep -F /.git "$T/events" || false
	(cd "$W/w" && rm -r "$W/w" && wait_until 20 grep -q '"stopped"' "$T/events")
	wait $watcher
}

@test "watch keeps to its globs and events" {
	mkdir "$W/w"
	watching '{"path":"w","include":["*.c"],"events":["create","attrib"]}'
	touch "$W/w/a.h" "$W/w/a.c"
	chmod 600 "$W/w/a.c"
	wait_until 20 saw attrib w/a.c
	saw create w/a.c
	! grep -F a.h "$T/events" || false
	kill $watcher
	[ "$(status watch '{"path":"/etc"}')" = "403 PERMISSION_DENIED" ]
	ln -s /etc "$W/out"
	[ "$(status watch '{"path":"out"}')" = "403 PERMISSION_DENIED" ]
	[ "$(status watch '{"path":"none"}')" = "404 FILE_NOT_FOUND" ]
	[ "$(status watch '{"path":"w","include":["a"],"exclude":["b"]}')" = "400 VALIDATION_FAILED" ]
	[ "$(status watch '{"path":"w","include":["[a]"]}')" = "400 VALIDATION_FAILED" ]
	[ "$(status watch '{"path":"w","events":["nap"]}')" = "400 VALIDATION_FAILED" ]
	[ "$(status watch 'null')" = "400 VALIDATION_FAILED" ]
}

@test "watch tells of 5000 files made in a rush, or that it lost some" {
	mkdir "$W/w"
	watching '{"path":"w","events":["create"]}'
	python3 -c 'import sys
for i in range(5000): open("%s/w/%d" % (sys.argv[1], i), "w").close()' "$W"
	all() { [ "$(grep -c '"create"' "$T/events")" = 5000 ] || grep -q '"error"' "$T/events"; }
	wait_until 30 all
	kill $watcher
}

@test "watch/check counts what came since" {
	mkdir "$W/w"
	check() { post watch/check "{\"path\":\"w\"${1:+,\"since\":\"$1\"}}" >"$T/check"; field '["status"]' <"$T/check"; }
	[ "$(check)" = unchanged ]
	v=$(field '["version"]' <"$T/check")
	[ "$(check "$v")" = unchanged ]
	mkdir -p "$W/w/d"
	[ "$(check "$v")" = changed ]
	v=$(field '["version"]' <"$T/check")
	echo >"$W/w/d/f"
	[ "$(check "$v")" = changed ]
	[ "$(check watch-1-5:0)" = resync ]
	[ "$(field '["reason"]' <"$T/check")" = restarted ]
	[ "$(check nonsense)" = None ] || [ "$(field '["code"]' <"$T/check")" = VALIDATION_FAILED ]
}
