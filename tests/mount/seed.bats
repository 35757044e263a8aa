# The SDK as shell lines: what sandboxfs-ctl(5) has under that heading runs as it stands there, with bash and with dash. The lines
# are taken from the page, so that page and test cannot differ but in the sandbox's name; around them stands what they need to be
# there, and what must be true.
load ../lib/harness

# lines FROM TO: those of the page, from the one that begins with FROM to the one that begins with TO.
lines() {
	MANWIDTH=250 man -l "$repo/contrib/man/sandboxfs-ctl.5" 2>/dev/null | col -bx | sed 's/^ *//' |
		awk -v from="$1" -v to="$2" '
			/^THE SDK AS SHELL LINES/ { section = 1 }
			section && index($0, from) == 1 { on = 1 }
			on { print }
			on && index($0, to) == 1 { found = 1; on = section = 0 } # to its end: man leaves files if it cannot write
			END { exit !found }' | sed "s,^\\(M=[^ ]*/\\)demo ,\\1$NAME ,"
}
# seed SHELL FROM TO: runs them, stops at the first that fails; every line has M, C and W.
seed() {
	ln -sfn "$MNT" "$HOME/sbx"
	{ lines M= M= && lines "$2" "$3"; } >"$T/seed.sh" || return 1
	(cd "$T" && within 60 "$1" -e "$T/seed.sh")
}
setup() {
	command -v man >/dev/null || skip 'no man here'
	private_directory
	start
}

@test "exec, and exec with cwd and env" {
	local sh
	echo 'import sys; print("out"); print("err", file=sys.stderr); sys.exit(3)' >"$W/script.py"
	mkdir "$W/project"
	echo 'import os; print(os.getcwd(), os.environ["API_KEY"])' >"$W/project/test.py"
	for sh in bash dash; do
		run -0 seed $sh "echo 'python3 script.py'" "echo 'python3 script.py'"
		[[ $output =~ ^out$'\n'err$'\n'3$'\n'[0-9.]+$ ]]
		run -0 seed $sh 'exec 3<>$C/exec.json' 'exec 3<>$C/exec.json'
		[[ $output == *'"/workspace/project secret\n"'* ]]
		[[ $output == *'"exitCode":0'* ]]
	done
}

@test "writeFile, readFile, listFiles, deleteFile, mkdir, exists" {
	local sh
	for sh in bash dash; do
		rm -rf "$W/a"
		mkdir -p "$W/dir/sub"
		echo data >"$W/data.txt"
		touch "$W/temp.txt" "$W/file.txt"
		run -0 seed $sh install 'cat $W/data.txt'
		[ "${lines[0]}" = data ]
		[[ $output == *temp.txt* ]]
		[ "$(other 'cat /workspace/a/file.txt; ls -A /workspace/dir /workspace')" = "$(printf 'content\n/workspace:\na\ndata.txt\ndir\nfile.txt\n\n/workspace/dir:')" ]
	done
}

@test "startProcess, waitForPort, waitForLog, getLogs, listProcesses, kill" {
	local sh
	for sh in bash dash; do
		rm -rf "$W/public"
		run -0 seed $sh 'P=$C' 'grep . $C/proc'
		[[ ${lines[0]} =~ ^[0-9]+$ ]]
		[ "${lines[1]}" = 'python3 -u -m http.server 8080' ]
		[[ ${lines[2]} = 'Serving HTTP on '*' port 8080 '* ]]
		[ "${lines[-2]}" = running ]
		[ "${lines[-1]}" = 143 ]
		[ -z "$(ls -d "$C"/processes/*/ 2>/dev/null)" ]
	done
}

@test "exposePort, getExposedPorts, unexposePort" {
	local sh
	mkdir "$W/public"
	echo site >"$W/public/index.html"
	mkdir "$C/processes/w"
	echo /workspace/public >"$C/processes/w/cwd"
	echo PORT=8080 >"$C/processes/w/env"
	echo 'python3 -m http.server 8080' >"$C/processes/w/cmd"
	echo 8080 >"$C/processes/w/wait-port"
	for sh in bash dash; do
		run -0 --separate-stderr seed $sh 'echo web-app' 'echo web-app'
		[ "${lines[0]}" = site ]
		[[ ${lines[1]} =~ ^http://127.0.0.1:[0-9]+/$ ]]
		[ ! -e "$C/ports/8080" ]
	done
}

@test "wsConnect" {
	local sh
	cp "$repo/tests/lib/ws_server.py" "$W/"
	mkdir "$C/processes/service"
	echo 'exec python3 ws_server.py 8080' >"$C/processes/service/cmd"
	echo 'timeout=30 ready' >"$C/processes/service/wait-log"
	for sh in bash dash; do
		run -0 --separate-stderr seed $sh 'exec 5<>' 'exec 5<>'
		[ "$output" = hello ]
	done
}

@test "keepAlive, and destroy at the end" {
	local sh
	for sh in bash dash; do
		run -0 seed $sh "echo 'keepalive on'" 'until echo true'
		[ ! -e "$M" ]
		mkdir "$M"
	done
}

@test "createSession, exec in it, session.writeFile, getSession, deleteSession" {
	local sh
	for sh in bash dash; do
		rm -rf "$W/user123"
		mkdir "$W/user123"
		run -0 seed $sh "echo '{\"id\":\"user-123\"" 'echo '"'"'echo $USER_ID'
		[ "$output" = 123 ]
		[ "$(other 'cat /workspace/user123/config.txt')" = data ]
		[ ! -e "$C/sessions/user-123" ]
	done
}

@test "createCodeContext with variables, runCode, its outputs and error" {
	local sh
	x 'command -v python3' >/dev/null || skip 'no python3 in the sandbox'
	cat >"$T/plot.py" <<'E'
class Plot:
    def _repr_png_(self): return b"\x89PNG"
    def __repr__(self): return "plot"
open("plot.png", "wb").write(b"\x89PNG")
print(sum(data), config)
Plot()
E
	for sh in bash dash; do
		rm -f "$W/plot.png"
		run -0 seed $sh 'K=$C/code/a' 'cat plot.py'
		[[ $output = "15 {'verbose': True}"$'\n'*/plot.png*$'\n'0.png$'\n'0.txt$'\n'1 ]]
		rmdir "$C/code/a"
	done
}
