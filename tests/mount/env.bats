# env, env.json: variables for everything that this mount starts, and nobody else's.
load ../lib/harness

# bats test_tags=server
@test "env holds for exec, exec.json, processes and new sessions, under the request's own" {
	local p
	mkdir "$C/sessions/before"
	printf 'A=1\nB=two words\n' >"$C/env"
	[ "$(x 'echo $A $B')" = '1 two words' ]
	exec 5<>"$C/exec.json"
	echo '{"command":"echo $A $B","env":{"B":"own"}}' >&5
	[ "$(cat <&5 | jq -rj 'select(.type == "stdout").data')" = '1 own' ]
	exec 5>&-
	mkdir "$C/processes/p"
	echo B=own >"$C/processes/p/env"
	echo 'echo $A $B' >"$C/processes/p/cmd"
	[ "$(within 10 cat "$C/processes/p/wait")" = 0 ]
	[ "$(cat "$C/processes/p/logs")" = '1 own' ]
	exec 5<>"$C/processes/new"
	echo 'echo $A $B' >&5
	read -r p <&5
	exec 5>&-
	within 10 cat "$C/processes/$p/wait"
	[ "$(cat "$C/processes/$p/logs")" = '1 two words' ]
	mkdir "$C/sessions/after"
	echo '{"id":"given","env":{"B":"own"}}' >"$C/sessions/new"
	echo 'echo $A $B' >"$C/sessions/after/exec"
	[ "$(cat "$C/sessions/after/exec")" = '1 two words' ]
	echo 'echo $A $B' >"$C/sessions/given/exec"
	[ "$(cat "$C/sessions/given/exec")" = '1 own' ]
	[ "$(cat "$C/sessions/given/env")" = $'A=1\nB=own' ]
	# not for sessions that were there
	echo 'echo [$A]' >"$C/sessions/before/exec"
	[ "$(cat "$C/sessions/before/exec")" = '[]' ]
	# the default session is made by its first command
	echo 'echo $A' >"$C/sessions/default/exec"
	[ "$(cat "$C/sessions/default/exec")" = 1 ]
}

# bats test_tags=server
@test "> adds like >>, KEY alone unsets, by bash and by dash" {
	local sh
	for sh in bash dash; do
		$sh -euc '
			C=$1
			echo A=1 > $C/env
			echo B= >> $C/env
			echo C=3 > $C/env
			[ "$(cat $C/env)" = "A=1
B=
C=3" ]
			cat $C/env > $2/kept
			printf "A\n\n# no\nNEVER\n" > $C/env
			echo "env | sort | grep ^[A-C]=" > $C/exec
			[ "$(cat $C/exec)" = "B=
C=3" ]
			# what is read can be written back
			cat $2/kept > $C/env
			cmp $2/kept $C/env || { sort $2/kept > $2/a; sort $C/env > $2/b; cmp $2/a $2/b; }
			printf "A\nB\nC\n" > $C/env
			[ -z "$(cat $C/env)" ]
		' $sh "$C" "$T"
	done
}

# bats test_tags=server
@test "env.json is for values with newlines" {
	echo '{"N":"one\ntwo\n","U":"é\u0001"}' >"$C/env.json"
	[ "$(x 'printf %s "$N$U" | od -An -c | tr -d " "')" = 'one\ntwo\n303251001' ]
	[ "$(jq -r .N "$C/env.json")" = $'one\ntwo' ]
	grep -q '^# N ' "$C/env"
	echo '{"N":null}' >"$C/env.json"
	[ "$(x 'echo ${N-unset}')" = unset ]
	[ "$(jq -r 'keys[]' "$C/env.json")" = U ]
}

# wrong FILE TEXT SENTENCE: refused as a whole, with the sentence.
wrong() {
	run bash -c "cat > $C/$1" <<<"$2"
	[ "$status" != 0 ] && [[ $output == *'Invalid argument'* ]] || { echo "$2: $output"; return 1; }
	grep -q "^message $1.*$3" "$C/error" || { cat "$C/error"; return 1; }
	! grep -q 'hidden' "$C/error" || return 1
	run cat "$C/$1" # it meets the next reader as well, once
	[ "$(cat "$C/env")" = A=1 ]
}
@test "what is no variable is refused whole, with a sentence and without its value" {
	echo A=1 >"$C/env"
	wrong env $'A=2\n1B=hidden' 'line 2'
	wrong env 'hidden words' 'line 1'
	wrong env 'export B=hidden' 'KEY=VALUE'
	wrong env '=hidden' 'KEY=VALUE'
	wrong env.json '{"A":"2","B":["hidden"]}' 'is to be a string'
	wrong env.json '{"A":"2","hidden-":"x"}' 'no name'
	wrong env.json '{"B":"hidden"' 'JSON ends'
	wrong env.json 'B=hidden' 'no JSON object'
	printf 'A=2\0B=hidden' >"$T/nul"
	run bash -c "cat $T/nul > $C/env"
	[[ $output == *'Invalid argument'* ]]
	{ printf L=; head -c 140000 /dev/zero | tr '\0' x; } >"$T/long"
	run bash -c "cat $T/long > $C/env"
	[[ $output == *'too long'* ]]
	run cat "$C/env"
	[ "$(cat "$C/env")" = A=1 ]
	# a shell's own echo does not see errors of close: the next opening does
	echo '2=hidden' >"$C/env" || :
	run cat "$C/env"
	[ "$status" != 0 ]
	[ "$(cat "$C/env")" = A=1 ]
}

# bats test_tags=server
@test "values are on no command line, in no log and no error, and not another client's" {
	echo "TOKEN=hidden$S" >"$C/env"
	exec 5<>"$C/exec"
	read -r n <&5
	echo "echo \${#TOKEN}; sleep $S" >&5
	read -r line <&5
	[ "$line" = $((6 + ${#S})) ]
	mkdir "$C/sessions/a"
	echo "OTHER=hidden$S" >"$C/sessions/a/env"
	other 'cat /proc/[0-9]*/cmdline' | tr '\0' '\n' >"$T/there"
	grep -q . "$T/there"
	ps -eo args >"$T/here"
	! grep "hidden$S" "$T/there" "$T/here" || false
	exec 5>&-
	run bash -c "cat > $C/exec.json" <<<'{"command":"x","cwd":"/no/such"}'
	! grep -q "hidden$S" "$C/error" "$MNT/ctl/log" || false
	[ -z "$(other 'echo $TOKEN')" ]
	[ "$(stat -c %a "$C/env" "$C/env.json" "$C/sessions/a/env" | sort -u)" = 600 ]
}

@test "env answers without a sandbox, and holds once there is one" {
	remount
	echo A=1 >"$C/env"
	[ "$(cat "$C/env")" = A=1 ]
	[ "$(head -n 1 "$C/status")" = unknown ]
	[ "$(x 'echo $A')" = 1 ]
}

@test "a clone has env too" {
	x 'command -v git >/dev/null' || skip 'no git in the sandbox'
	x 'git init -q r && cd r && git -c user.name=a -c user.email=a commit -q --allow-empty -m first'
	printf 'GIT_TRACE=/workspace/trace\n' >"$C/env"
	echo '/workspace/r dir=c' >"$C/git" || cat "$C/error"
	[ -s "$W/trace" ]
}
