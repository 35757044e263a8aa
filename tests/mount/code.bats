# code/: interpreters that keep their state from run to run, by bash, by dash and by a program that holds descriptors open.
load ../lib/harness

K=''
setup() {
	private_directory
	start
	K=$C/code
}
# code NAME [CODE]: runs it (or the input), and shows what an interpreter would have said.
code() { # the conversation of one run
	local f rc=0
	exec {f}<>"$K/$1/run" || return 125
	if [ $# -gt 1 ]; then printf '%s\n' "$2" >&"$f" || rc=$?; else cat >&"$f" || rc=$?; fi
	[ $rc != 0 ] || cat <&"$f" || rc=$?
	exec {f}>&-
	return $rc
}
# has PROGRAM, has_module MODULE: in the sandbox.
has() { x "command -v $1" >/dev/null; }
has_module() { x "python3 -c 'import $1'" >/dev/null 2>&1; }
need() {
	local rc=0
	"$@" || rc=$?
	[ $rc != 125 ] || return 1 # it is not known
	[ $rc = 0 ] || skip "no $2 in the sandbox"
}
list() { ls "$K" | grep -vx new | tr '\n' ' '; }

# bats test_tags=server
@test "state persists in a context, variables are set, by bash and by dash" {
	local sh
	need has python3
	for sh in bash dash; do
		$sh -euc '
			K=$1/code/in-$2
			mkdir $K
			echo "{\"data\":[1,2,3],\"config\":{\"deep\":[true,null]}}" > $K/variables.json
			[ "$(cat $K/variables.json)" = "{\"data\":[1,2,3],\"config\":{\"deep\":[true,null]}}" ]
			echo "x = data[2]; print(config[\"deep\"])" > $K/run
			[ "$(cat $K/stdout)" = "[True, None]" ]
			echo "{\"data\":\"later\"}" > $K/variables.json
			echo "print(x, data)" > $K/run
			[ "$(cat $K/stdout)" = "3 later" ]
			[ ! -s $K/stderr ]
			[ -z "$(cat $K/error)" ]
			[ "$(cat $K/language)" = python ]
			rmdir $K
			[ ! -e $K ]
		' $sh "$C" $sh
	done
}

# bats test_tags=server
@test "stdout, stderr and displays are apart, and together what an interpreter says" {
	need has python3
	code python 'import sys; print("out"); print("err", file=sys.stderr)
6 * 7' >"$T/said"
	sort "$T/said" >"$T/sorted"
	[ "$(cat "$T/sorted")" = $'42\nerr\nout' ]
	[ "$(cat "$K/python/stdout")" = out ]
	[ "$(cat "$K/python/stderr")" = err ]
	[ "$(stat -c %s "$K/python/stdout")" = 4 ]
	[ "$(ls "$K/python/results")" = 0.txt ]
	[ "$(cat "$K/python/results/0.txt")" = 42 ]
	[ "$(stat -c %s "$K/python/results/0.txt")" = 2 ]
	cp "$K/python/results/0.txt" "$T/copy"
	[ -n "$(find "$T/copy" -perm -600)" ]
	run bash -c "echo x >'$K/python/results/0.txt'"
	[[ $output == *'Permission denied'* ]]
	cmp "$T/said" "$K/python/run"
	jq -e '.error == null and .results == [{"text":"42"}] and .logs.stdout == ["out\n"] and .logs.stderr == ["err\n"]
		and ([.outputs[] | select(.type == "text")] == [{"type":"text","content":"42"}])' "$K/python/result.json"
}

# bats test_tags=server
@test "an exception is no error of the write; error has its name, message and traceback without colours" {
	need has python3
	printf 'def f():\n  return {}["no"]\nprint("before")\nf()\n' >"$K/python/run"
	[ "$(cat "$K/python/stdout")" = before ]
	[ "$(head -n 1 "$K/python/error")" = "KeyError: 'no'" ]
	grep -q 'return {}\["no"\]' "$K/python/error"
	! grep -q $'\033' "$K/python/error" || false
	jq -e '.error.name == "KeyError" and .error.message == "'"'no'"'" and (.error.traceback | length > 1)' "$K/python/result.json"
	echo 'def g(:' >"$K/python/run"
	[[ $(cat "$K/python/error") = SyntaxError:* ]]
	[ ! -s "$K/python/stdout" ]
	# what a conversation shows ends with it, and its end is no error
	run -0 code python '1/0'
	[[ ${lines[-1]} = 'ZeroDivisionError: division by zero' ]]
	echo 'pass' >"$K/python/run"
	[ -z "$(cat "$K/python/error")" ]
	[ -z "$(ls "$K/python/results")" ]
}

@test "a plot is a picture, png or svg, and a data frame a table with two forms" {
	need has_module matplotlib
	need has_module pandas
	# its list of fonts, of which it says in stderr that it makes it, if that takes long
	x "python3 -c 'import matplotlib.font_manager'"
	code python >/dev/null <<-'PY'
		import matplotlib.pyplot as plt, pandas as pd
		_ = plt.plot([1, 2, 3]); plt.title("a title with letters"); plt.show()
		pd.DataFrame({"column": [1, 2]})
	PY
	[ "$(cat "$K/python/error")" = '' ]
	[ "$(cat "$K/python/stderr")" = '' ]
	ls "$K/python/results"
	[[ $(file -b "$K/python/results/0.png") = 'PNG image data, '* ]]
	grep -q '<td>2</td>' "$K/python/results/1.html"
	grep -q column "$K/python/results/1.txt"
	cp "$K/python/results/0.png" "$T/plot.png"
	[ "$(stat -c %s "$T/plot.png")" = "$(stat -c %s "$K/python/results/0.png")" ]
	jq -re '.results[0].png' "$K/python/result.json" | base64 -d | cmp - "$T/plot.png"
	[ "$(date +%s)" -ge "$(stat -c %Y "$K/python/results/0.png")" ]
	[ "$(stat -c %Y "$K/python/results/0.png")" -gt $(($(date +%s) - 300)) ]
	code python 'plt.rcParams["savefig.format"] = "svg"; _ = plt.plot([1, 2])' >/dev/null
	[ "$(ls "$K/python/results" | grep svg)" = 0.svg ]
	grep -q '<svg' "$K/python/results/0.svg"
}

@test "a plot works in an ordinary exec as well" {
	need has_module matplotlib
	echo 'import matplotlib; matplotlib.use("Agg"); import matplotlib.pyplot as p; p.plot([1]); p.title("x"); p.savefig("p.png")' >"$W/p.py"
	echo 'python3 p.py' >"$C/exec"
	[ "$(cat "$C/last/exit")" = 0 ]
	[[ $(file -b "$W/p.png") = 'PNG image data, '* ]]
}

@test "javascript and typescript keep their state, and show values and errors" {
	need has node
	code javascript 'const a = 41; console.log("log"); console.error("err")' >/dev/null
	[ "$(cat "$K/javascript/stdout")" = log ]
	[ "$(cat "$K/javascript/stderr")" = err ]
	[ "$(code javascript 'a + 1')" = 42 ]
	code javascript '({b: [a]})' >/dev/null
	[ "$(jq -c . "$K/javascript/results/0.json")" = '{"b":[41]}' ]
	code javascript 'throw new TypeError("no such thing")' >/dev/null
	[[ $(head -n 1 "$K/javascript/error") = *'no such thing'* ]]
	mkdir "$K/ts"
	echo typescript >"$K/ts/language"
	[ "$(cat "$K/ts/language")" = typescript ]
	code ts 'interface P { n: number }
const p: P = { n: 7 }; console.log(p.n)' >/dev/null || {
		grep -q '^message .*TypeScript needs' "$C/error"
		skip "$(grep ^message "$C/error")"
	}
	[ "$(cat "$K/ts/stdout")" = 7 ]
	[ "$(code typescript '1 + (1 as number)')" = 2 ]
}

# bats test_tags=server
@test "output comes while the code runs, to conversations and to stdout" {
	need has python3
	local f line
	exec {f}<>"$K/python/run"
	printf 'import os, time\nprint("first", flush=True)\nwhile not os.path.exists("go"): time.sleep(.02)\nprint("second")\n' >&"$f"
	IFS= read -r -t $((20 * SLOW)) line <&"$f"
	[ "$line" = first ]
	[ "$(cat "$K/python/stdout")" = first ]
	[ -z "$(cat "$K/python/error")" ]
	: >"$W/go"
	[ "$(cat <&"$f")" = second ]
	# and once more by the same opening
	echo 'print("third")' >&"$f"
	[ "$(cat <&"$f")" = third ]
	exec {f}>&-
}

@test "poll tells of output, a reader that would wait gets EAGAIN, and lines are one request" {
	need has python3
	within 60 python3 - "$K/python/run" "$W" <<-'E'
		import errno, os, select, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
		assert os.read(fd, 100) == b""  # nothing was asked for
		os.write(fd, b"import os, time\nfor i in range(2):\n")
		os.write(fd, b"    print(i, flush=True)\n    while not os.path.exists('n%d' % i): time.sleep(.02)\n")
		got = b""
		p = select.poll()
		p.register(fd, select.POLLIN)
		for i in range(2):
		    while got.count(b"\n") <= i:
		        try:
		            got += os.read(fd, 1)
		        except BlockingIOError:
		            assert p.poll(20000), got
		    try:
		        os.read(fd, 1)
		        assert False, "it did not say that it would wait"
		    except BlockingIOError:
		        pass
		    open("%s/n%d" % (sys.argv[2], i), "w").close()
		while True:
		    try:
		        more = os.read(fd, 100)
		        break
		    except BlockingIOError:
		        assert p.poll(20000)
		assert got == b"0\n1\n" and more == b"", (got, more)
		# an opening for both that is closed without a read has sent it, too
		fd = os.open(sys.argv[1], os.O_RDWR)
		os.write(fd, b"open('closed', 'w').close()\n")
		os.close(fd)
	E
	wait_until 20 test -e "$W/closed"
}

# bats test_tags=server
@test "^C interrupts a run and leaves the context" {
	need has python3
	local pid rc=0
	code python 'kept = 5' >/dev/null
	echo 'print("runs", flush=True)
import time
time.sleep('"$S"')' >"$T/code.py"
	# a shell's background ignores SIGINT; TERM is the same here
	cat "$T/code.py" >"$K/python/run" &
	pid=$!
	wait_until 20 grep -q runs "$K/python/stdout"
	kill -TERM "$pid"
	wait_until 20 grep -q '^KeyboardInterrupt' "$K/python/error"
	wait "$pid" || rc=$?
	[ $rc = 143 ]
	[ "$(code python 'kept')" = 5 ]
	# the last close of a conversation
	exec 7<>"$K/python/run"
	cat "$T/code.py" >&7
	[ "$(head -c 5 <&7)" = runs ]
	exec 7>&-
	wait_until 20 grep -q '^KeyboardInterrupt' "$K/python/error"
	# ctl: then its writer goes on as after any exception
	# another word: until this run begins, stdout is that of the last one
	sed 's/runs/goes/' "$T/code.py" >"$K/python/run" &
	pid=$!
	wait_until 20 grep -q goes "$K/python/stdout"
	echo interrupt >"$K/python/ctl"
	wait "$pid"
	[[ $(cat "$K/python/error") = KeyboardInterrupt* ]]
	echo interrupt >"$K/python/ctl"
	[ "$(code python 'kept')" = 5 ]
}

# bats test_tags=server
@test "a time-out ends a run with ETIMEDOUT; the context stays" {
	need has python3
	mkdir "$K/t"
	[ "$(cat "$K/t/ctl")" = 'timeout 0' ]
	echo 'kept = 1' >"$K/t/run"
	echo 'timeout 300ms' >"$K/t/ctl"
	[ "$(cat "$K/t/ctl")" = 'timeout 300ms' ]
	run -1 code t 'while True: pass'
	[[ $output = *'timed out'* ]]
	grep -q '^message code/t/run: .*timed out after 300 ms' "$C/error"
	grep -qx 'errno ETIMEDOUT' "$C/error"
	[[ $(cat "$K/t/error") = TimeoutError:* ]]
	cat "$K/t/ctl" >"$T/settings"
	echo 'timeout 0' >"$K/t/ctl"
	[ "$(code t 'kept')" = 1 ]
	cat "$T/settings" >"$K/t/ctl"
	run ! bash -c 'echo "timeout soon" >"$1"' - "$K/t/ctl"
	[ "$(cat "$K/t/ctl")" = 'timeout 300ms' ]
}

# bats test_tags=server
@test "an interpreter that dies is EIO with a sentence, and the next run gets a new one" {
	need has python3
	echo 'x = 1' >"$K/python/run"
	run -1 code python 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'
	grep -q '^message code/python/run: .*SIGKILL' "$C/error"
	grep -qx 'errno EIO' "$C/error"
	[[ $(cat "$K/python/error") = KernelDied:* ]]
	code python 'x' >/dev/null
	[[ $(cat "$K/python/error") = NameError:* ]]
	# restart is the same on purpose
	echo '{"y":1}' >"$K/python/variables.json"
	[ "$(code python 'y')" = 1 ]
	echo restart >"$K/python/ctl"
	[ "$(cat "$K/python/variables.json")" = '{}' ]
	code python 'y' >/dev/null
	[[ $(cat "$K/python/error") = NameError:* ]]
}

# bats test_tags=server
@test "runs of one context follow each other, contexts run side by side" {
	need has python3
	local i pids=()
	mkdir "$K/a" "$K/b"
	echo 'n = 0' >"$K/a/run"
	# in braces: a program that exits with the file open does not wait for the answer
	for i in 1 2 3 4 5; do
		{ printf 'import time\nm = n; time.sleep(.05); n = m + 1\n' >"$K/a/run"; } &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i"; done
	[ "$(code a 'n')" = 5 ]
	# each waits for what only the other one does
	{ printf 'import os, time\nopen("a", "w").close()\nwhile not os.path.exists("b"): time.sleep(.02)\n' >"$K/a/run"; } &
	pids=($!)
	{ printf 'import os, time\nopen("b", "w").close()\nwhile not os.path.exists("a"): time.sleep(.02)\n' >"$K/b/run"; } &
	pids+=($!)
	for i in "${pids[@]}"; do wait "$i"; done
}

# bats test_tags=server
@test "a run sees what was written before it, and what it writes is seen at once" {
	need has python3
	local i
	for i in 1 2 3 4 5; do
		echo "$i" >"$W/in"
		echo 'open("out", "w").write(open("in").read() * 2)' >"$K/python/run"
		[ "$(cat "$W/out")" = $"$i"$'\n'"$i" ]
	done
}

# bats test_tags=server
@test "env and new: environment, directory and variables of a context, and its id" {
	need has python3
	local f id
	echo 'FROM_MOUNT=here' >"$C/env"
	mkdir "$W/sub"
	exec {f}<>"$K/new"
	echo '{"language":"python","cwd":"/workspace/sub","envVars":{"OWN":"x"},"variables":{"v":[1]}}' >&"$f"
	read -r id <&"$f"
	exec {f}>&-
	[ -d "$K/$id" ]
	[ "$(code "$id" 'import os; print(os.getcwd(), os.environ["OWN"], os.environ["FROM_MOUNT"], v)')" = '/workspace/sub x here [1]' ]
	[ "$(cat "$K/$id/variables.json")" = '{"v":[1]}' ]
	rmdir "$K/$id"
	[ "$(list)" = 'javascript python typescript ' ]
	exec {f}<>"$K/new"
	echo python >&"$f"
	read -r id <&"$f"
	exec {f}>&-
	[ "$(cat "$K/$id/language")" = python ]
}

# bats test_tags=server
@test "contexts of others are listed, used and gone with them" {
	need has python3
	[ "$(list)" = 'javascript python typescript ' ]
	api /api/contexts '{"language":"python","id":"theirs"}' >/dev/null
	[[ $(list) = *' theirs '* ]]
	[ "$(code theirs '1 + 1')" = 2 ]
	mkdir "$K/mine"
	[[ $(list) = *' mine '* ]]
	api /api/contexts '{"language":"python","id":"mine"}' >/dev/null
	[ "$(code mine '1 + 2')" = 3 ]
	rmdir "$K/theirs"
	[ ! -e "$K/theirs" ]
	rmdir "$K/mine"
	[ "$(list)" = 'javascript python typescript ' ]
}

# bats test_tags=server
@test "what cannot be done says why" {
	need has python3
	says() { grep -q "^message .*$1" "$C/error" || { cat "$C/error"; return 1; }; }
	run ! mkdir "$K/.hidden"
	run ! mkdir "$K/new.." "$K/a b"
	[ ! -e "$K/a b" ]
	run ! mkdir "$K/python"
	run ! rmdir "$K/python"
	says 'always there'
	run ! python3 -c 'import os, sys; f = os.open(sys.argv[1], 1); os.write(f, b"cobol\n"); os.close(f)' "$K/new"
	says 'cobol: not a language'
	mkdir "$K/a"
	run ! python3 -c 'import os, sys; f = os.open(sys.argv[1], 1); os.write(f, b"cobol\n"); os.close(f)' "$K/a/language"
	says 'cobol: not a language'
	echo 1 >"$K/a/run"
	run ! python3 -c 'import os, sys; f = os.open(sys.argv[1], 1); os.write(f, b"typescript\n"); os.close(f)' "$K/a/language"
	says 'keeps its language'
	run ! python3 -c 'import os, sys; f = os.open(sys.argv[1], 1); os.write(f, b"{\"a b\":1}"); os.close(f)' "$K/a/variables.json"
	says 'not the name of a variable'
	run ! python3 -c 'import os, sys; f = os.open(sys.argv[1], 1); os.write(f, b"{\"colour\":1}"); os.close(f)' "$K/new"
	says colour
	# an error of a close meets the next who reads, once
	cat "$K/a/language" "$K/a/variables.json" 2>/dev/null || :
	# looking starts nothing
	cat "$K"/*/{language,stdout,error,result.json} "$K/javascript/run" >/dev/null
	[ "$(api_contexts | jq -r '.contexts[].id')" = a ]
}
api_contexts() {
	case $SERVER in
	tcp) curl_server /api/contexts ;;
	*) curl -sS --unix-socket "$(api_socket)" http://localhost/api/contexts ;;
	esac
}

@test "a language that the sandbox lacks is ENOTSUP with what to install, at the open" {
	local real
	unmount
	# a server that sees no node
	mkdir "$T/bin"
	real=$(command -v bwrap)
	cat >"$T/bin/bwrap" <<-E
		#!/bin/bash
		hide=() args=()
		for p in /usr/local/bin /usr/bin; do [ ! -e \$p/node ] || hide+=(--dev-bind /dev/null \$p/node); done
		while [ \$# -gt 0 ] && [ "\$1" != "$sandboxd" ]; do args+=("\$1"); shift; done
		exec $real "\${args[@]}" "\${hide[@]}" "\$@"
	E
	chmod +x "$T/bin/bwrap"
	PATH=$T/bin:$PATH SERVER=unix start
	K=$C/code
	run ! bash -c 'echo 1 >"$1"' - "$K/javascript/run"
	[[ $output = *'not supported'* ]]
	grep -q '^code JAVASCRIPT_NOT_AVAILABLE' "$C/error"
	grep -q '^message code/javascript/run: .*node' "$C/error"
	[ "$(code python '1')" = 1 ]
}

@test "a run that prints beyond output-max keeps its end and says so" {
	unmount
	mount_it -o output-max=1m
	need has python3
	echo 'for i in range(400000): print(i)' >"$K/python/run"
	[ "$(tail -n 1 "$K/python/stdout")" = 399999 ]
	run ! head -c 10 "$K/python/stdout"
	grep -q '^message .*no longer kept' "$C/error"
	code python 'import base64
class P:
    def _repr_png_(self): return b"\x89PNG" + b"x" * 3000000
    def __repr__(self): return "big"
P()' >"$T/said"
	grep -q 'left out' "$T/said"
	[ "$(ls "$K/python/results")" = 0.txt ]
}

@test "a display of a million values is left out, and takes no memory here or there" {
	need has python3
	local daemon
	daemon=$(fs_pid)
	code python 'class P:
    def _repr_json_(self): return [{}] * 1000000
    def __repr__(self): return "many"
P()' >"$T/said"
	grep -q '1 displays left out: of too many values' "$T/said"
	code python 'class Q:
    def _repr_json_(self): return [[1, {"a": i}] for i in range(10000)]
    def __repr__(self): return "some"
Q()' | grep -q some
	[ "$(grep -o '"a"' "$K/python/results/0.json" | wc -l)" = 10000 ]
	[ "$(awk '/^VmHWM/ { print $2 }' "/proc/$daemon/status")" -lt 150000 ] || [ -n "${SAN:-}" ]
}
