# ctl/git: clones into the workspace, with progress, and git's failures as errno.
load ../lib/harness

repository() { # NAME: one of two commits in the sandbox, with a branch `side`
	x "git init -q -b main $1 && cd $1 && git config user.email a@b.c && git config user.name T && seq 20000 >f && git add f && git commit -qm one && git branch side && echo 2 >g && git add g && git commit -qm two" >"$T/init" 2>&1 || { cat "$T/init"; return 1; }
}
nothing_left() { ! left_over; }
left_over() { find "$W" -name '.clone-*' | grep .; }
# fails ERRNO-TEXT MESSAGE LINE: writing LINE to git fails so, and leaves nothing
fails() {
	run bash -c 'echo "$2" >"$1/git"' - "$C" "$3"
	[ "$status" != 0 ] || { echo "it succeeded: $3"; return 1; }
	[[ $output == *"$1"* ]] || { echo "$3: $output"; cat "$C/error"; return 1; }
	grep -q "^message git: .*$2" "$C/error" || { cat "$C/error"; return 1; }
	run ! left_over
}

# bats test_tags=server
@test "a line clones, the write waits, and what it made is seen at once" {
	repository r
	echo 'file:///workspace/r' >"$C/git" && false # r is there already: EEXIST
	echo 'file:///workspace/r dir=c1' >"$C/git"
	cmp "$W/c1/f" "$W/r/f"
	[ "$(git -C "$W/c1" log --format=%s | tr '\n' ' ')" = 'two one ' ]
	[ "$(tail -n 1 "$C/git")" = 'dir /workspace/c1' ]
	tr '\r' '\n' <"$C/git" | grep -q 'Receiving objects: 100%'
	run ! left_over
}

# bats test_tags=server
@test "branch=, depth=, dir= of several parts, an empty directory, quoted blanks; dash" {
	repository r
	dash -c "echo 'file:///workspace/r branch=side depth=1 dir=a/b/c2' >$C/git"
	[ "$(git -C "$W/a/b/c2" rev-parse --abbrev-ref HEAD)" = side ]
	[ "$(git -C "$W/a/b/c2" rev-list --count HEAD)" = 1 ]
	[ ! -e "$W/a/b/c2/g" ]
	mkdir "$W/empty"
	echo "/workspace/r dir=/workspace/empty" >"$C/git"
	[ -e "$W/empty/g" ]
	echo "/workspace/r dir='with blank'" >"$C/git"
	[ -e "$W/with blank/g" ]
}

# bats test_tags=server
@test "dir=. clones into the workspace itself while it is empty" {
	other 'git init -q -b main /tmp/r'$S' && cd /tmp/r'$S' && git -c user.email=a@b.c -c user.name=T commit -q --allow-empty -m one && echo 1 >f && git add f && git -c user.email=a@b.c -c user.name=T commit -qm two'
	echo "/tmp/r$S dir=." >"$C/git"
	[ "$(ls -A "$W" | sort | tr '\n' ' ')" = '.git f ' ]
	other "rm -rf /tmp/r$S"
	fails 'File exists' 'not an empty' "/workspace/.git dir=."
}

# bats test_tags=server
@test "a conversation reads progress while it runs, then dir D, then the end; a failure is the read's" {
	repository r
	exec 7<>"$C/git"
	echo 'file:///workspace/r dir=c1' >&7
	cat <&7 >"$T/out"
	[ "$(head -n 1 "$T/out")" = "Cloning into '/workspace/c1'..." ]
	[ "$(tail -n 1 "$T/out")" = 'dir /workspace/c1' ]
	echo 'file:///workspace/r dir=c1' >&7
	run cat <&7
	[[ $output == *'File exists'* ]]
	echo 'file:///workspace/r dir=c2' >&7
	cat <&7 >/dev/null
	exec 7>&-
	[ -e "$W/c1/g" ]
	[ -e "$W/c2/g" ]
}

@test "who only reads gets the last 64 KiB of what git says, whole lines" {
	many || skip "changes the sandbox's own settings of git"
	repository r
	x 'printf "#!/bin/sh\nseq -f noise%%.0f 30000 >&2\nexec \"\$@\"\n" >/tmp/hook; chmod +x /tmp/hook; git config --global uploadpack.packObjectsHook /tmp/hook'
	exec 7<>"$C/git"
	echo 'file:///workspace/r dir=c1' >&7
	cat <&7 >"$T/all"
	exec 7>&-
	[ "$(stat -c %s "$T/all")" -gt 400000 ]
	cat "$C/git" >"$T/out"
	[ "$(stat -c %s "$T/out")" -lt 66000 ]
	[ "$(stat -c %s "$T/out")" -gt 60000 ]
	[[ $(head -n 1 "$T/out") == '('*' bytes before this)' ]]
	tail -n +2 "$T/out" >"$T/last"
	tail -c "$(stat -c %s "$T/last")" "$T/all" | cmp - "$T/last"
	[[ $(head -n 1 "$T/last") == 'remote: noise'* ]]
	[ "$(tail -n 1 "$T/out")" = 'dir /workspace/c1' ]
}

# bats test_tags=server
@test "what fails says so: unknown branch and repository ENOENT, network EHOSTUNREACH, bad lines EINVAL" {
	repository r
	fails 'No such file' 'Remote branch nope not found' 'file:///workspace/r dir=c branch=nope'
	fails 'No such file' 'nowhere' '/workspace/nowhere'
	fails 'No route to host' 'Failed to connect' 'http://127.0.0.1:1/x.git'
	fails 'Invalid argument' 'not understood: what' 'http://127.0.0.1:1/x.git what'
	fails 'Invalid argument' 'no place' '/workspace/r dir=../../etc/x'
	fails 'Invalid argument' 'below /workspace' '/workspace/r dir=/etc/x'
	fails 'Invalid argument' 'no URL of a repository' 'ext::sh'
	[ ! -e "$W/c" ]
}

# A server that wants a name and a password, over git's plain (dumb) HTTP.
serve() { # NAME PASSWORD
	cat >"$W/serve.py" <<-'E'
		import base64, http.server, os, sys
		want = "Basic " + base64.b64encode(sys.argv[1].encode()).decode()
		os.chdir("/workspace/served")
		class H(http.server.SimpleHTTPRequestHandler):
		    def do_GET(self):
		        if self.headers.get("Authorization") == want: return super().do_GET()
		        self.send_response(401); self.send_header("WWW-Authenticate", 'Basic realm="r"')
		        self.send_header("Content-Length", "0"); self.end_headers()
		    def log_message(self, *a): pass
		s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
		print(s.server_address[1], flush=True)
		s.serve_forever()
	E
	mkdir "$C/processes/web"
	echo "exec python3 serve.py '$1:$2'" >"$C/processes/web/cmd"
	wait_until 15 grep -q . "$C/processes/web/stdout"
	PORT=$(head -n 1 "$C/processes/web/stdout")
}

# bats test_tags=server
@test "credentials in the URL reach the server and nothing else; without them EACCES" {
	repository r
	x 'mkdir served && git clone -q --bare r served/r.git && git -C served/r.git update-server-info'
	serve 'me' 's3cr%t'
	fails 'Permission denied' 'could not read Username' "http://127.0.0.1:$PORT/r.git dir=c"
	fails 'Permission denied' 'Authentication failed' "http://me:wr0ng@127.0.0.1:$PORT/r.git dir=c"
	run ! grep -r wr0ng "$C/error" "$C/git" "$MNT/ctl/log"
	echo "http://me:s3cr%25t@127.0.0.1:$PORT/r.git dir=c" >"$C/git"
	[ -e "$W/c/g" ]
	run ! grep -r 's3cr' "$W/c" "$C/git" "$C/error" "$C/runs" "$MNT/ctl/log"
	[ "$(git -C "$W/c" config remote.origin.url)" = "http://127.0.0.1:$PORT/r.git" ]
	echo 'kill KILL' >"$C/processes/web/ctl"
}

# A git server that begins to answer and never goes on.
hang() {
	cat >"$W/hang.py" <<-'E'
		import socket
		s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
		print(s.getsockname()[1], flush=True)
		keep = []
		while True:
		    c, _ = s.accept(); keep.append(c)
		    print("came", flush=True)
	E
	mkdir "$C/processes/hang"
	echo 'exec python3 hang.py' >"$C/processes/hang/cmd"
	wait_until 15 grep -q . "$C/processes/hang/stdout"
	PORT=$(head -n 1 "$C/processes/hang/stdout")
}
no_git_runs() { [ "$(other "ps -eo args= | grep '[g]it.*:$PORT/'; echo looked")" = looked ]; }

# bats test_tags=server
@test "^C ends a clone and leaves no half directory; so does the last close of a conversation; timeout= too" {
	hang
	bash -c "echo 'git://127.0.0.1:$PORT/r dir=c1' >$C/git" 3>&- &
	local pid=$!
	wait_until 15 grep -q came "$C/processes/hang/stdout"
	wait_until 15 left_over
	kill -INT $pid 2>/dev/null || :
	kill -TERM $pid
	wait $pid || :
	wait_until 15 no_git_runs
	wait_until 15 nothing_left
	exec 7<>"$C/git"
	echo "git://127.0.0.1:$PORT/r dir=c2" >&7
	wait_until 15 bash -c "[ \$(grep -c came $C/processes/hang/stdout) = 2 ]"
	run bash -c "echo x >&7"
	[[ $output == *'busy'* ]]
	exec 7>&-
	wait_until 15 no_git_runs
	fails 'timed out' 'timeout= waits longer' "git://127.0.0.1:$PORT/r dir=c3 timeout=300ms"
	wait_until 15 no_git_runs
	[ ! -e "$W/c1" ]
	[ ! -e "$W/c2" ]
	[ ! -e "$W/c3" ]
	wait_until 15 nothing_left
	echo 'kill KILL' >"$C/processes/hang/ctl"
}

@test "what was written before is in the sandbox when git looks; O_NONBLOCK and poll while it runs" {
	git init -q -b main "$W/r"
	echo text >"$W/r/f"
	git -C "$W/r" add f
	git -C "$W/r" commit -qm one
	within 30 /usr/bin/python3 - "$C/git" <<-'E'
		import errno, os, select, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
		os.write(fd, b"file:///workspace/r dir=c\n")
		p = select.poll(); p.register(fd, select.POLLIN)
		out = b""
		while True:
		    assert p.poll(20000)
		    try: got = os.read(fd, 65536)
		    except BlockingIOError: continue
		    if not got: break
		    out += got
		assert out.endswith(b"dir /workspace/c\n"), out
	E
	[ "$(cat "$W/c/f")" = text ]
}
