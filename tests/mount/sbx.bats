# sbx and sbx-sh: everything through the mounted files, from an ordinary shell. Run by dash and by bash, whichever sh is.
load ../lib/harness

setup() {
	private_directory
	PATH=$repo/contrib/sbx:$PATH
	export SBX_MOUNT=$MNT
	if [ -z "${NO_START:-}" ]; then start; fi
}
# in each of the two shells
in_dash() { dash "$repo/contrib/sbx/sbx" "$@"; }
in_bash() { bash --posix "$repo/contrib/sbx/sbx" "$@"; }
# What lists the mounts of this machine from now on finds this test's alone: others come and go, or do not answer.
only_mine() {
	mkdir -p "$T/bin"
	printf '#!/bin/sh\n[ "$1" != /proc/self/mounts ] || exec grep -F " %s " "$1"\nexec /bin/cat "$@"\n' "$MNT" >"$T/bin/cat"
	chmod +x "$T/bin/cat"
	PATH=$T/bin:$PATH
}

# bats test_tags=server
@test "sbx exec gives a command's output, each stream for itself, and its exit code" {
	local s
	for s in in_dash in_bash; do
		run -7 --separate-stderr $s exec "$NAME" -- sh -c 'echo out; echo err >&2; exit 7'
		[ "$output" = out ]
		[ "$stderr" = err ]
		# as they arrive, where both go to one place
		run -0 $s exec "$NAME" -c 'echo 1; echo 2 >&2; echo 3'
		[ "$(sort <<<"$output")" = "$(printf '1\n2\n3')" ]
	done
}

# bats test_tags=server
@test "sbx exec: every word arrives as it stands" {
	local s
	printf '%s\n' 'a b' "it's" 'x
y' '\n' '' '$HOME' '`id`' '*' 'tail
' '-n' '"' 'ü' >"$T/want"
	for s in in_dash in_bash; do
		$s exec "$NAME" -- printf '%s\n' 'a b' "it's" 'x
y' '\n' '' '$HOME' '`id`' '*' 'tail
' '-n' '"' 'ü' >"$T/got"
		cmp "$T/want" "$T/got"
		# and through JSON, with every control character
		$s exec "$NAME" -t 30s -e A="$(printf '\001\t\033"\\\n.')" -c 'printf %s "$A"' >"$T/got"
		printf '\001\t\033"\\\n.' | cmp - "$T/got"
	done
}

# bats test_tags=server
@test "sbx exec runs in the directory that matches the current one" {
	mkdir "$W/a b"
	cd "$W/a b"
	unset SBX_MOUNT
	[ "$(sbx exec -- pwd)" = '/workspace/a b' ]
	[ "$(sbx exec -w c/.. -- pwd 2>&1)" != '/workspace/a b' ]
	[ "$(sbx exec -w /tmp -- pwd)" = /tmp ]
	[ "$(sbx exec -t 20 -w .. -- pwd)" = /workspace ]
	cd "$M/root/etc"
	[ "$(sbx exec -- pwd)" = /etc ]
	cd "$C/runs"
	[ "$(sbx exec -- pwd)" = /workspace ]
	cd /
	[ "$(sbx exec "$W/a b" -- pwd)" = '/workspace/a b' ]
	# a tree that looks like a mount is none
	mkdir -p "$W/fake/ctl"
	touch "$W/fake/ctl/exec" "$W/fake/ctl/status"
	cd "$W/fake/ctl"
	[ "$(sbx exec -- pwd)" = /workspace/fake/ctl ]
	cd "$T"
	run -125 sbx exec -- true
	[[ $output == *'no sandbox is here'* ]]
}

@test "sbx exec -i gives the standard input, byte for byte, and -t ends with 124" {
	head -c 300000 /dev/urandom >"$T/in"
	sbx exec "$NAME" -i -- cat <"$T/in" >"$T/out"
	cmp "$T/in" "$T/out"
	run -124 sbx exec "$NAME" -t 300ms -- sleep "$S"
	# without -i it is empty
	[ -z "$(echo text | sbx exec "$NAME" -- cat)" ]
}

# bats test_tags=server
@test "sbx exec: megabytes on both streams at once arrive whole" {
	sbx exec "$NAME" -- sh -c 'head -c 5000000 /dev/urandom | tee /workspace/r; cat /workspace/r >&2' >"$T/o" 2>"$T/e"
	cmp "$T/o" "$W/r"
	cmp "$T/e" "$W/r"
}

@test "a signal to sbx exec ends the command in the sandbox" {
	local p rc=0
	setsid sbx exec "$NAME" -- sh -c "echo up; sleep $S" >"$T/out" &
	p=$!
	wait_until 10 grep -q up "$T/out"
	kill -TERM $p
	wait $p || rc=$?
	[ $rc = 143 ]
	wait_until 10 gone_inside
	# a reader that leaves ends it as well (not of `yes`: that may print more than is kept before the first is read)
	run -0 bash -c "sbx exec $NAME -- sh -c 'while echo $S; do :; done' | head -n 1"
	[ "$output" = "$S" ]
	wait_until 10 gone_inside
}
gone_inside() { [ "$(other "pgrep -fc '[ ]$S'")" = 0 ]; }

@test "^C in a terminal ends the command and not the terminal" {
	cat >"$T/expect" <<-'E'
		set timeout 20
		proc want {what} { expect $what {} timeout { puts "missed: $what"; exit 99 } }
		spawn bash --norc
		send "sbx exec $env(BOX) -- sh -c 'echo u''p; sleep $env(NUMBER)'; echo status=\$?\r"
		want "\[\r\n\]up"
		send "\003"
		want "status=130"
		send "exit\r"
		expect eof
	E
	BOX=$NAME NUMBER=$S within 60 expect "$T/expect"
	wait_until 10 gone_inside
}

# bats test_tags=server
@test "sbx: processes, their logs, waits and ends" {
	cd "$W"
	run -0 sbx run -n web -e A=b -- sh -c 'echo $A; pwd; exec sleep '"$S"
	[ "$output" = web ]
	wait_until 10 grep -q workspace "$C/processes/web/logs"
	[ "$(sbx logs web)" = "$(printf 'b\n/workspace')" ]
	sbx ps | grep -E '^web +running +[0-9]+ +- +sh -c'
	[ "$(sbx ps -q)" = web ]
	sbx kill web
	run -143 sbx wait web
	[ "$(within 20 sbx logs -f web | tail -n 1)" = /workspace ]
	run -125 sbx logs nobody
	[[ $output == *'no such process'* ]]
	sbx run -- sleep "$S"
	sbx kill -a
	wait_until 10 gone_inside
}

@test "sbx: a server, its port and its URL" {
	local port
	cd "$W"
	port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
	echo hello >index.txt
	sbx run -n web -p "$port" -- python3 -m http.server "$port"
	curl -s "$(sbx expose "$port" site)index.txt" | grep -x hello
	sbx ports | grep "^$port http://127.0.0.1:"
	sbx unexpose "$port"
	sbx unexpose "$port"
	[ -z "$(sbx ports)" ]
	run -125 sbx expose 99999
	[[ $output == 'sbx: ports/99999: not a port'* ]]
	sbx kill -KILL web
}

# bats test_tags=server
@test "sbx cp copies in and out, with modes and times" {
	printf x >"$T/f"
	chmod 751 "$T/f"
	touch -d 2001-02-03T04:05:06 "$T/f"
	# /tmp may be this machine's
	sbx cp "$T/f" "$NAME:/tmp/f$S"
	[ "$(other "stat -c '%a %Y' /tmp/f$S; rm /tmp/f$S")" = "751 $(stat -c %Y "$T/f")" ]
	mkdir -p "$W/d/e"
	echo y >"$W/d/e/y"
	sbx cp "$NAME:d" "$T/d"
	[ "$(cat "$T/d/e/y")" = y ]
	cd "$W/d"
	echo z >"$T/a:b"
	sbx cp "$T/a:b" :e
	[ "$(cat "$W/d/e/a:b")" = z ]
	run -1 sbx cp :none "$T"
}

@test "make SHELL=sbx-sh runs each recipe line in the sandbox, in its directory" {
	mkdir "$W/p"
	cat >"$W/p/Makefile" <<'E'
V := $(shell echo v; echo warn >&2)
all: a b
	@echo "[$(V)] $$PWD it's \$$x $$(cat a)"
	@cd / && pwd
	@test -z "$$HOST_ONLY" && echo "$$GIVEN"
a b:
	@hostname > $@
fail:
	exit 3
sub:
	@$(MAKE) -s inner X=1
inner:
	@echo "level $(MAKELEVEL) X=$(X)"
E
	cd "$W/p"
	HOST_ONLY=1 GIVEN='a b' SBX_ENV=GIVEN make -s -j2 SHELL=sbx-sh >"$T/out"
	x hostname >"$T/host"
	[ "$(cat "$W/p/a")" = "$(cat "$T/host")" ]
	[ "$(sed -n 1p "$T/out")" = "[v] /workspace/p it's \$x $(cat a)" ]
	[ "$(sed -n 2p "$T/out")" = / ]
	[ "$(sed -n 3p "$T/out")" = 'a b' ]
	run -2 make -s SHELL=sbx-sh fail
	[[ $output == *'Error 3'* ]]
	# the tests themselves may be run by a make
	[ "$(env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s SHELL=sbx-sh sub)" = 'level 1 X=1' ]
}

@test "sbx ls, new and destroy" {
	many || skip 'one sandbox'
	only_mine
	run -0 sbx new second
	[ "$output" = "$MNT/second" ]
	echo x >"$MNT/second/workspace/f"
	sbx ls | grep -E "^second +(running|starting) +$MNT/second\$"
	sbx destroy second
	[ ! -e "$MNT/second" ]
	run -125 sbx destroy second
	[[ $output == *'no such sandbox'* ]]
	run -125 sbx new '-'
	[ "$status" = 125 ]
}

@test "sbx with a mount of one sandbox, or of its workspace" {
	unmount
	mount_it -o sandbox="$NAME"
	mkdir "$MNT/workspace/x"
	cd "$MNT/workspace/x"
	[ "$(sbx exec -- pwd)" = /workspace/x ]
	cd /
	[ "$(sbx exec "$NAME" -- pwd)" = /workspace ]
	unmount
	mount_it -o sandbox="$NAME",subdir=workspace
	cd "$MNT/x"
	[ "$(sbx exec -- pwd)" = /workspace/x ]
	only_mine
	sbx ls | grep "^$NAME .* $MNT\$"
	cd /
}

@test "sbx says what is wrong with a call, with status 125" {
	local call
	for call in '' nosuch 'exec' "exec $NAME" "exec $NAME ls" 'exec -x -- ls' 'exec -e 1=2 -- ls' 'exec -t x -- ls' logs kill 'expose x y' 'cp a' \
		destroy 'new' 'ps a b' 'exec nobody -- ls' 'wait'; do
		# shellcheck disable=SC2086
		run -125 sbx $call
		[[ $output == *sbx* ]] || { echo "$call: $output"; return 1; }
	done
	run -0 sbx help
	[[ $output == 'usage: sbx'* ]]
}

@test "completions complete" {
	only_mine
	mkdir "$C/processes/zzz"
	echo true >"$C/processes/zzz/cmd"
	cd "$W"
	run -0 bash --norc -c '. "$0"; COMP_WORDS=(sbx logs z); COMP_CWORD=2; _sbx; echo "${COMPREPLY[@]}"' "$repo/contrib/completions/sbx.bash"
	[ "$output" = zzz ]
	run -0 bash --norc -c '. "$0"; COMP_WORDS=(sbx exp); COMP_CWORD=1; _sbx; echo "${COMPREPLY[@]}"' "$repo/contrib/completions/sbx.bash"
	[ "$output" = expose ]
	if command -v zsh >/dev/null; then zsh -n "$repo/contrib/completions/_sbx"; fi
	if command -v fish >/dev/null; then
		run -0 fish --no-config -c "source $repo/contrib/completions/sbx.fish; complete -C 'sbx logs z'"
		[[ $output == zzz* ]]
	fi
}

@test "completions run no word that somebody else has chosen" {
	mkdir "$T/bin"
	printf '%s\n' '#!/bin/sh' "echo '\$(touch\${IFS}$T/ran)' '\`touch\${IFS}$T/ran\`'" >"$T/bin/sbx"
	chmod +x "$T/bin/sbx"
	PATH=$T/bin:$PATH run -0 bash --norc -c '. "$0"; COMP_WORDS=(sbx exec ""); COMP_CWORD=2; _sbx; printf "%s\n" "${COMPREPLY[@]}"' "$repo/contrib/completions/sbx.bash"
	[[ $output == *'$(touch'* ]]
	[ ! -e "$T/ran" ]
}

@test "the mounts of other users are not looked for; one's own and root's are" {
	unset SBX_MOUNT
	only_mine
	run -0 sbx ls -q
	[[ $output == *"$NAME"* ]]
	printf '#!/bin/sh\necho 12345\n' >"$T/bin/id"
	chmod +x "$T/bin/id"
	run -0 sbx ls
	if [ "$(/usr/bin/id -u)" = 0 ]; then [[ $output == *"$MNT/"* ]]; else [[ $output != *"$MNT/"* ]]; fi
	# named by its path it is
	run -0 sbx exec "$W" -- echo there
	[ "$output" = there ]
}

@test "a command that holds what steers a terminal is shown without it" {
	mkdir "$C/processes/odd"
	printf 'true \033]0;x\a\302\233\303\204b\n' >"$C/processes/odd/cmd"
	for s in in_dash in_bash; do
		run -0 $s ps "$NAME"
		[[ $output == *'true ?]0;x??Äb'* ]]
	done
}

@test "sbx save and restore: the workspace as a tar, whole or not at all" {
	mkdir "$W/d"
	echo text >"$W/d/f"
	ln -s f "$W/d/l"
	cd "$W"
	sbx save "$T/w.tar"
	sbx save "$T/w.tar.gz"
	sbx save - | tar tf - | grep -qx './d/f\|d/f'
	tar tzf "$T/w.tar.gz" | grep -qx './d/f\|d/f'
	rm -r "$W/d"
	sbx restore "$T/w.tar.gz"
	[ "$(other 'cat /workspace/d/l')" = text ]
	rm -r "$W/d"
	sbx restore - <"$T/w.tar"
	[ "$(cat "$W/d/l")" = text ]
	run -125 sbx restore "$T/none"
	run -125 sbx save "$T/none/w.tar"
	# what leads out is refused, and said
	python3 -c 'import sys, tarfile; t = tarfile.open(sys.argv[1], "w"); t.addfile(tarfile.TarInfo("../evil")); t.close()' "$T/bad.tar"
	run -125 sbx restore "$T/bad.tar"
	[[ $output == *'sbx: workspace.tar: '*evil* ]]
	head -c 700 "$T/w.tar" >"$T/cut.tar"
	run -125 sbx restore "$T/cut.tar"
	[ -z "$(ls "$T"/*.part 2>/dev/null)" ]
}

@test "sbx events tells what changes, as it happens" {
	local all one
	mkdir "$W/d"
	cd "$W"
	sbx events >"$T/all" 3>&- &
	all=$!
	sbx events -- d recursive=no >"$T/d" 3>&- &
	one=$!
	printf "%s\n" "$all" "$one" >>"$T/pids"
	wait_until 30 bash -c "sbx exec -- touch d/ready; grep -q ready $T/d && grep -q ready $T/all"
	sbx exec -- sh -c 'mv d/ready d/steady; mkdir d/e; touch d/e/deep outside'
	wait_until 10 grep -q "$(printf '^create\toutside')" "$T/all"
	sbx exec -- touch d/last
	wait_until 10 grep -q "$(printf '^create\td/last')" "$T/d"
	grep -q "$(printf '^move\td/ready\td/steady')" "$T/d"
	! grep -q 'deep\|outside' "$T/d" || false
	kill "$all" "$one" # not by the numbers of jobs: the first is the test's own time limit
}

@test "sbx shell: a terminal with size, ^C and exit code, in the matching directory" {
	# as a person types: after the prompt, and ^C when the command runs
	cat >"$T/expect" <<-'E'
		set timeout 20
		proc want {what} { expect $what {} timeout { puts "missed: $what"; exit 99 } }
		spawn sbx shell
		stty rows 30 columns 90 < $spawn_out(slave,name)
		want "# "
		send "pwd\r"
		want "/workspace/sub"
		want "# "
		# its program is told of a size after the terminal that is typed at
		send "until stty size | grep -x '30 90'; do sleep 0.1; done; echo si''zed\r"
		want "sized"
		want "# "
		stty rows 41 columns 101 < $spawn_out(slave,name)
		send "until stty size | grep -x '41 101'; do sleep 0.1; done; echo gr''own\r"
		want "grown"
		want "# "
		send "sleep $env(S)\r"
		# a ^C between two commands of a shell may end neither
		for {set n 0} {[catch {exec pgrep -fx "sleep $env(S)"}]} {incr n} {
			if {$n == 600} { puts "missed: sleep"; exit 99 }
			after 50
		}
		send "\003"
		want "# "
		send "echo go''es on\r"
		want "goes on"
		want "# "
		send "exit 7\r"
		expect eof
		exit [lindex [wait] 3]
	E
	mkdir "$W/sub"
	cd "$W/sub"
	S=$S run within 100 expect "$T/expect"
	echo "$output" | cat -v
	[ "$status" = 7 ]
	# it is gone, and so is what it started
	[ -z "$(ls "$C/pty" | grep '[0-9]')" ]
	cd /
}

@test "sbx exec -S: a session keeps its state, but not what was given for one command" {
	mkdir "$C/sessions/s" "$W/a"
	cd "$W"
	sbx exec -S s -c 'cd /tmp; X=5'
	[ "$(sbx exec -S s -c 'pwd; echo $X')" = "$(printf '/tmp\n5')" ]
	[ "$(sbx exec -S s -w a -e Y=1 -c 'pwd; echo $Y')" = "$(printf '/workspace/a\n1')" ]
	[ "$(sbx exec -S s -c 'pwd; echo $X$Y')" = "$(printf '/tmp\n5')" ]
	run -3 sbx exec -S s -c 'exit 3'
	run -2 within 10 sbx exec -S s -c 'echo "open'
	run -125 sbx exec -S none -c true
	[[ $output == *'no such session'* ]]
}

# bats test_tags=server
@test "sbx code prints as the code prints, writes pictures beside the file, and ends with 1 after an error" {
	local sh
	x 'command -v python3' >/dev/null || skip 'no python3 in the sandbox'
	cat >"$T/pic.py" <<'E'
class Picture:
    def _repr_svg_(self): return "<svg/>"
    def __repr__(self): return "picture"
print("printed")
Picture()
E
	for sh in in_dash in_bash; do
		rm -f "$T"/pic-*
		run -0 --separate-stderr $sh code "$NAME" "$T/pic.py"
		[ "$output" = $'printed\npicture' ]
		[ "$stderr" = "sbx: wrote $T/pic-0.svg" ]
		[ "$(cat "$T/pic-0.svg")" = '<svg/>' ]
		run -1 $sh code "$NAME" -k own - <<<'kept = 3; 1/0'
		[[ $output = *'ZeroDivisionError: division by zero' ]]
		[ "$(echo 'kept' | $sh code "$NAME" -k own -)" = 3 ]
		rmdir "$C/code/own"
	done
	# which sandbox: a word alone that is no file, or the one in which the file lies
	echo 'print(open("/workspace/mark").read())' | tee "$T/own.py" >"$W/own.py"
	printf 'here' >"$W/mark"
	cd "$T"
	for sh in in_dash in_bash; do
		[ "$($sh code "$NAME" <own.py)" = here ]
		[ "$($sh code "$NAME" - <own.py)" = here ]
		[ "$($sh code "$W" <own.py)" = here ]
		[ "$($sh code "$W/own.py")" = here ]
		run -125 $sh code own.py
		[[ $output == 'sbx: no sandbox is here'* ]]
		run -125 $sh code none.py
		[ "$output" = 'sbx: none.py: neither a file nor a sandbox' ]
	done
	# a file comes before a sandbox of its name
	cp own.py "$NAME"
	run -125 in_dash code "$NAME"
	[[ $output == 'sbx: no sandbox is here'* ]]
	x 'command -v node' >/dev/null || return 0
	echo 'console.log(1 + 1)' >"$T/two.js"
	[ "$(in_dash code "$NAME" "$T/two.js")" = 2 ]
}
