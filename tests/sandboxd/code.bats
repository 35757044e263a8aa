# Contexts of the code interpreter, by their routes.
load rig

code() { # CONTEXT [OPTION=VALUE]... <CODE
	python3 "$BATS_TEST_DIRNAME/code.py" body "$@" | http -N http://x/api/execute/code -d @- |
		python3 "$BATS_TEST_DIRNAME/code.py" events
}
context() { # ID [LANGUAGE [MORE]]
	[ "$(post contexts "{\"id\":\"$1\",\"language\":\"${2:-python}\"${3:+,$3}}" | field '["contextId"]')" = "$1" ]
}
needs() { command -v "$1" >/dev/null || skip "no $1"; }
has_module() { /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin python3 -c "import $1" 2>/dev/null; }

@test "health names the languages" {
	run http http://x/api/interpreter/health
	[ "$(field '["status"]' <<<"$output")" = healthy ]
	[ "$(field '["languages"]["python"]["available"]' <<<"$output")" = True ]
}

@test "python: output, results and state" {
	context a
	[ "$(code a <<<'x = 20; print("hi"); x + 1')" = $'stdout "hi\\n"\nresult text "21"\ncomplete' ]
	[ "$(code a <<<'x += 1')" = complete ]
	[ "$(code a <<<'{"a": [x, None]}')" = $'result json text {"a": [21, null]}\ncomplete' ]
	[ "$(code a <<<'{"a": float("nan")}')" = $'result text "{\'a\': nan}"\ncomplete' ]
	[ "$(code a <<<'import sys; print("e", file=sys.stderr)')" = $'stderr "e\\n"\ncomplete' ]
	[ "$(code a <<<'import os; os.system("echo from a command"); None')" = $'stdout "from a command\\n"\ncomplete' ]
	[ "$(code a <<<'import asyncio; await asyncio.sleep(0); 3')" = $'result text "3"\ncomplete' ]
	[ "$(code a <<<'')" = complete ]
}

@test "python: errors have name, message and a traceback without colours, and are not printed" {
	context a
	[ "$(code a <<<'1/0')" = 'error ZeroDivisionError: division by zero' ]
	[[ $(code a <<<'def f(:') = 'error SyntaxError: '* ]]
	[ "$(code a <<<'raise SystemExit(3)')" = 'error SystemExit: 3' ]
	[[ $(code a <<<'input("?")') = *'error EOFError: '* ]]
	run post execute/code '{"context_id":"a","code":"def g():\n  1/0\ng()"}'
	[[ $output = *'"traceback":["'*'g()'* ]]
	[ "$(code a <<<'5')" = $'result text "5"\ncomplete' ]
}

@test "python: displays of every form" {
	context a
	run code a <<-'PY'
		class D:
		    def _repr_mimebundle_(self, **kw):
		        return {"text/plain": "t", "text/html": "<b>", "image/png": b"\x89PNG", "image/svg+xml": "<svg/>",
		            "image/jpeg": b"\xff\xd8", "text/latex": "$x$", "text/markdown": "*m*",
		            "application/javascript": "1", "application/json": {"a": 1}}
		D()
	PY
	[ "$output" = $'result html javascript jpeg json latex markdown png svg text {"a": 1}\ncomplete' ]
	run code a <<-'PY'
		class H:
		    def _repr_html_(self): return "<i>"
		    def __repr__(self): return "H"
		display(H(), H()); print("after")
	PY
	[ "$output" = $'result html text "H"\nresult html text "H"\nstdout "after\\n"\ncomplete' ]
}

@test "python: a plot is a picture and a data frame a table" {
	has_module matplotlib && has_module pandas || skip "no matplotlib or pandas"
	context a
	run code a <<<'import pandas as pd; pd.DataFrame({"a": [1]})'
	[[ $output = 'result html text '*complete ]]
	run post execute/code '{"context_id":"a","code":"import matplotlib.pyplot as plt\nplt.plot([1,2]); plt.show(); print(7)\nfig, ax = plt.subplots(); _ = ax.plot([1])"}'
	[ "$(grep -o '"png":"iVBOR' <<<"$output" | wc -l)" = 2 ]
	[[ $output = *png*stdout*png*complete* ]]
	run post execute/code '{"context_id":"a","code":"plt.rcParams[\"savefig.format\"] = \"svg\"\n_ = plt.plot([1,2])"}'
	[[ $output = *'"svg":"<?xml'* ]]
}

@test "python without IPython does the same" {
	stop
	# A directory that hides it.
	mkdir -p "$T/hide/IPython"
	echo 'raise ImportError("hidden")' >"$T/hide/IPython/__init__.py"
	serve
	context a python "\"env_vars\":{\"PYTHONPATH\":\"$T/hide\"}"
	# it says on stderr what is missing, before or after
	code a <<<'x = 20; print("hi"); x + 1' >"$T/told"
	grep -qxF 'stdout "hi\n"' "$T/told"
	grep -qxF 'result text "21"' "$T/told"
	[ "$(tail -n 1 "$T/told")" = complete ]
	[ "$(code a <<<'{"a": [x]}')" = $'result json text {"a": [20]}\ncomplete' ]
	[ "$(code a <<<'1/0')" = 'error ZeroDivisionError: division by zero' ]
	[[ $(code a <<<'%ls') = 'error SyntaxError: '*'need IPython, which is not installed here'* ]]
	[ "$(code a <<<'import asyncio; await asyncio.sleep(0); 3')" = $'result text "3"\ncomplete' ]
	[ "$(http http://x/api/contexts/a | field '["context"]["missing"].count("IPython")')" = 1 ]
}

@test "javascript: output, results, state, declaring again, await and import" {
	needs node
	context a javascript
	[ "$(code a <<<'const x = 20; console.log("hi"); x + 1')" = $'stdout "hi\\n"\nresult text "21"\ncomplete' ]
	[ "$(code a <<<'const x = 5; let [y, {z}] = [1, {z: 2}]; class K { m() { return 7 } }')" = complete ]
	[ "$(code a <<<'[x, y, z, new K().m()]')" = $'result json text [5, 1, 2, 7]\ncomplete' ]
	[ "$(code a <<<'const w = await Promise.resolve(4); w + 1')" = $'result text "5"\ncomplete' ]
	[ "$(code a <<<$'import fs, { existsSync } from "fs"\nexistsSync("/") && w')" = $'result text "4"\ncomplete' ]
	[ "$(code a <<<'throw new TypeError("bad")')" = 'error TypeError: bad' ]
	[[ $(code a <<<'function f(') = 'error SyntaxError: '* ]]
	[ "$(code a <<<'console.error("e")')" = $'stderr "e\\n"\ncomplete' ]
	[ "$(code a <<<'({ _repr_html_() { return "<b>" } })' | cut -d' ' -f1-3)" = $'result html text\ncomplete' ]
	[ "$(code a <<<'require("child_process").execSync("cat").length')" = $'result text "0"\ncomplete' ]
}

@test "typescript: types are understood" {
	[ "$(http http://x/api/interpreter/health | field '["languages"]["typescript"]["available"]')" = True ] || skip "no typescript"
	context a typescript
	[ "$(code a <<<$'interface P { n: string }\nenum E { A, B }\nconst p: P = { n: "x" }\np.n + E.B')" = $'result text "\'x1\'"\ncomplete' ]
	[ "$(code a <<<'(p as P).n')" = $'result text "\'x\'"\ncomplete' ]
	[[ $(code a <<<'const n: number = ;') = 'error SyntaxError: '* ]]
}

@test "variables, environment and directory of a context" {
	mkdir "$W/sub"
	context a python '"cwd":"sub","env_vars":{"KEY":"v w"},"variables":{"n":[1,{"k":"é"}]}'
	[ "$(code a <<<'import os; [n, os.environ["KEY"], os.path.basename(os.getcwd())]')" = $'result json text [[1, {"k": "é"}], "v w", "sub"]\ncomplete' ]
	[ "$(post contexts/a/variables '{"variables":{"m":2}}' | field '["success"]')" = True ]
	[ "$(code a <<<'m')" = $'result text "2"\ncomplete' ]
	[ "$(status contexts/a/variables '{"variables":{"m n":2}}')" = "400 VALIDATION_FAILED" ]
	[ "$(status contexts '{"cwd":"/no/such"}')" = "404 FILE_NOT_FOUND" ]
	[ "$(status contexts '{"cwd":"/etc/passwd"}')" = "400 NOT_DIRECTORY" ]
}

@test "what is wrong has its status and code" {
	context a
	[ "$(status contexts '{"id":"a"}')" = "409 CONTEXT_ALREADY_EXISTS" ]
	[ "$(status contexts '{"id":"a/b"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status contexts '{"language":"cobol"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status execute/code '{"context_id":"no","code":"1"}')" = "404 CONTEXT_NOT_FOUND" ]
	run post execute/code '{"context_id":"no","code":"1"}'
	[ "$(field '["error"]' <<<"$output")" = "Context no not found" ]
	[ "$(status execute/code '{"context_id":"a","code":"1","language":"javascript"}')" = "500 CODE_EXECUTION_ERROR" ]
	[ "$(status execute/code '{"context_id":"a"}')" = "400 VALIDATION_FAILED" ]
	[ "$(status execute/code '{"context_id":"a","code":"1","timeoutMs":0}')" = "400 VALIDATION_FAILED" ]
	[ "$(http -X DELETE -o /dev/null -w '%{http_code}' http://x/api/contexts/no)" = 404 ]
	[ "$(status contexts/a/interrupt '{}')" = "404 COMMAND_NOT_FOUND" ]
	[ "$(status contexts/no/interrupt '{}')" = "404 CONTEXT_NOT_FOUND" ]
	[ "$(http http://x/api/contexts | field '["contexts"][0]["id"]')" = a ]
}

@test "output is told while code runs" {
	context a
	mkfifo "$W/go"
	code a <<<'print("begun"); open("go").read(); print("over")' >"$T/out" &
	job=$!
	begun() { grep -q begun "$T/out"; }
	wait_until 20 begun
	grep -q over "$T/out" && false
	echo >"$W/go"
	wait "$job"
	[ "$(cat "$T/out")" = $'stdout "begun\\n"\nstdout "over\\n"\ncomplete' ]
}

@test "an interrupt ends a run and keeps the context" {
	context a
	code a <<<'x = 3; print("begun"); import time; time.sleep(1000)' >"$T/out" &
	job=$!
	begun() { grep -q begun "$T/out"; }
	wait_until 20 begun
	[ "$(post contexts/a/interrupt '{"runId":"other"}' | field '["code"]')" = COMMAND_NOT_FOUND ]
	post contexts/a/interrupt '{}'
	wait "$job"
	[[ $(tail -n 1 "$T/out") = 'error KeyboardInterrupt: '* ]]
	[ "$(code a <<<'x')" = $'result text "3"\ncomplete' ]
}

@test "each interrupt reaches a run" {
	context a
	code a >"$T/out" <<-'PY' &
		import time
		try: print("begun"); time.sleep(1000)
		except KeyboardInterrupt: print("caught"); time.sleep(1000)
	PY
	job=$!
	wait_until 20 grep -q begun "$T/out"
	post contexts/a/interrupt '{}'
	wait_until 20 grep -q caught "$T/out"
	post contexts/a/interrupt '{}'
	wait "$job"
	[[ $(tail -n 1 "$T/out") = 'error KeyboardInterrupt: '* ]]
}

@test "an interrupt reaches the commands of a run, and a run that still waits" {
	context a
	code a <<<"import subprocess; print('begun'); subprocess.run(['sleep', '$S'])" >"$T/out" &
	first=$!
	wait_until 20 sleeping
	code a runId=second <<<'print("never")' >"$T/out2" &
	second=$!
	second() { post contexts/a/interrupt '{"runId":"second"}' | grep -q '"success":true'; }
	wait_until 10 second
	post contexts/a/interrupt '{}'
	wait "$first" "$second"
	[[ $(cat "$T/out2") = 'error KeyboardInterrupt: '* ]]
	wait_until 20 awake
}

@test "javascript is interrupted in a loop and in a wait" {
	needs node
	context a javascript
	code a <<<'var x = 3; console.log("begun"); while (true);' >"$T/out" &
	job=$!
	begun() { grep -q begun "$T/out"; }
	wait_until 20 begun
	post contexts/a/interrupt '{}'
	wait "$job"
	[[ $(tail -n 1 "$T/out") = 'error KeyboardInterrupt: '* ]]
	: >"$T/out"
	code a <<<'console.log("begun"); await new Promise(() => {})' >"$T/out" &
	job=$!
	wait_until 20 begun
	post contexts/a/interrupt '{}'
	wait "$job"
	[[ $(tail -n 1 "$T/out") = 'error KeyboardInterrupt: '* ]]
	[ "$(code a <<<'x')" = $'result text "3"\ncomplete' ]
}

@test "a time-out ends a run, by force if it must" {
	context a
	[ "$(code a <<<'x = 1')" = complete ]
	[[ $(code a timeoutMs=300 <<<'while True: pass') = 'error TimeoutError: Execution timed out after 300 ms' ]]
	[ "$(code a <<<'x')" = $'result text "1"\ncomplete' ]
	run code a timeoutMs=300 <<-'PY'
		import time
		while True:
		    try: time.sleep(1000)
		    except KeyboardInterrupt: pass
	PY
	[[ $output = 'error TimeoutError: '*'its variables are gone' ]]
	[ "$(code a <<<'2')" = $'result text "2"\ncomplete' ]
}

@test "an executor that dies is an error, and the next run gets a new one" {
	context a
	[[ $(code a <<<'import os; print("last"); os._exit(4)') = $'stdout "last\\n"\nerror KernelDied: '*'exit code 4'* ]]
	[ "$(code a <<<'1')" = $'result text "1"\ncomplete' ]
	pid=$(code a <<<'import os; print(os.getpid())' | sed -n 's/stdout "\([0-9]*\).*/\1/p')
	kill -9 "$pid"
	wait_until 20 gone "$pid"
	[[ $(code a <<<'1') = 'error KernelDied: '*SIGKILL*'since the last run'* ]]
	[ "$(code a <<<'1')" = $'result text "1"\ncomplete' ]
	[ "$(code a <<<'x = 1')" = complete ]
	post contexts/a/restart '{}'
	[[ $(code a <<<'x') = 'error NameError: '* ]]
}

@test "runs of a context follow each other, contexts run side by side" {
	context a
	context b
	mkfifo "$W/go"
	code a <<<'print("one"); open("go").read(); None' >"$T/o1" &
	jobs=($!)
	begun() { grep -q one "$T/o1"; }
	wait_until 20 begun
	for i in 2 3 4; do
		code a <<<"print($i)" >"$T/o$i" &
		jobs+=($!)
	done
	[ "$(code b <<<'print("b")')" = $'stdout "b\\n"\ncomplete' ]
	[ ! -s "$T/o2" ]
	[ ! -s "$T/o3" ]
	echo >"$W/go"
	wait "${jobs[@]}"
	for i in 2 3 4; do [ "$(cat "$T/o$i")" = "stdout \"$i\\n\""$'\ncomplete' ]; done
}

@test "deleting a context kills everything it has started" {
	context a
	[ "$(code a <<<"import subprocess; p = subprocess.Popen('setsid sh -c \"sleep $S & exit\"', shell=True); p.wait(); None")" = complete ]
	wait_until 20 sleeping
	code a <<<'print("begun"); import time; time.sleep(1000)' >"$T/out" &
	job=$!
	begun() { grep -q begun "$T/out"; }
	wait_until 20 begun
	[ "$(http -X DELETE http://x/api/contexts/a | field '["contextId"]')" = a ]
	wait "$job"
	[[ $(tail -n 1 "$T/out") = 'error ContextDeleted: '* ]]
	wait_until 10 awake
	[ "$(http http://x/api/contexts | field '["contexts"]')" = "[]" ]
	[ "$(status execute/code '{"context_id":"a","code":"1"}')" = "404 CONTEXT_NOT_FOUND" ]
}

@test "a client that leaves does not end its run" {
	context a
	[ "$(code a <<<'1' | tail -n 1)" = complete ]
	mkfifo "$W/go"
	curl -s --unix-socket "$T/s" http://x/api/execute/code -d '{"context_id":"a","code":"open(\"begun\", \"w\"); open(\"go\").read(); x = 8"}' &
	client=$!
	wait_until 20 test -e "$W/begun"
	kill "$client"
	wait_until 20 alone
	echo >"$W/go"
	[ "$(code a <<<'x')" = $'result text "8"\ncomplete' ]
}

@test "output of millions of lines and characters cut anywhere come whole" {
	context a
	run post execute/code '{"context_id":"a","code":"import os\nfor i in range(2000): os.write(1, \"aä€😀\".encode()[i % 3:])\nfor i in range(200000): print(i)"}'
	printf %s "$output" | python3 -c '
import json, sys
events = [json.loads(l[6:]) for l in sys.stdin if l.startswith("data: ")]
text = "".join(e["text"] for e in events if e["type"] == "stdout")
assert text.endswith("199998\n199999\n"), text[-50:]
assert text.count("😀") == 2000
assert text.count("\n") == 200000'
}

@test "sandboxd ends with its contexts" {
	context a
	code a <<<"import subprocess; print('begun'); subprocess.run(['sleep', '$S'])" >"$T/out" &
	job=$!
	wait_until 20 sleeping
	stop
	wait "$job"
	awake
	[[ $(tail -n 1 "$T/out") = 'error '* ]]
}
