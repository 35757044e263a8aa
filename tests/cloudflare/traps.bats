# What the interfaces of Cloudflare's servers get wrong for a file system, measured on them: none of it is to be seen in a mount.
# Each name says what the interface does. The numbers are only an order.
SERVER=bridge
load ../lib/harness

@test "1: a GET of what is not there, or is a directory, is 200 and empty: here it is an errno" {
	run cat "$W/none"
	[[ $output == *'No such file'* ]]
	mkdir "$W/d"
	run cat "$W/d"
	[[ $output == *'Is a directory'* ]]
	ln -s nowhere "$W/dangling"
	run cat "$W/dangling"
	[[ $output == *'No such file'* ]]
	[ "$(readlink "$W/dangling")" = nowhere ]
}

@test "2: text is decoded and encoded again: here a BOM, UTF-16, NUL and bytes of no encoding come back" {
	local name
	printf '\xef\xbb\xbfwith a BOM\n' >"$W/bom.txt"
	printf '\xff\xfea\0b\0' >"$W/utf16.txt"
	printf '\xff\xfe\x80\xc0 \0 \r\n' >"$W/bytes.json"
	head -c 300000 /dev/urandom >"$W/random.html"
	for name in bom.txt utf16.txt bytes.json random.html; do same_there $name; done
	other 'printf "\357\273\277\377\0\r" >theirs.md'
	[ "$(od -An -c "$W/theirs.md" | tr -d ' ')" = '357273277377\0\r' ]
	[ "$(x 'printf "\377\0\376"' | od -An -tx1)" = ' ff 00 fe' ]
}

@test "3: streams lose their end, and never end after exit: here output is whole and exit is what it was" {
	local i rc
	for i in $(seq 10); do
		rc=0
		x 'sleep .1; seq 1 2000; exit 7' >"$T/out" || rc=$?
		[ $rc = 7 ]
		seq 1 2000 | cmp - "$T/out"
	done
	rc=0
	x 'kill -9 $$' || rc=$?
	[ $rc = 137 ]
}

@test "4: an open quote hangs all that follows: here it fails, and nothing else waits" {
	local rc=0
	within 20 bash -c 'echo "echo \"open" >"$1/exec"; cat "$1/exec"' - "$C" || rc=$?
	[ $rc != 124 ]
	within 20 bash -c 'echo "}" >"$1/exec"' - "$C" || [ $? != 124 ]
	[ "$(within 20 cat "$C/last/exit")" != 0 ]
	echo text >"$W/f"
	[ "$(x 'cat f')" = text ]
}

@test "5: a write truncates first, so that readers see half: here a new file of less than a part appears whole" {
	local i sizes
	head -c 500000 /dev/urandom >"$T/f"
	# a last look comes after the last file, however late the first does
	other 'rm -f sizes stop; (until [ -e stop ] && last=1; stat -c %s one two three 2>/dev/null; [ $last ]; do :; done | sort -u >sizes) >/dev/null 2>&1 &'
	for i in one two three; do cat "$T/f" >"$W/$i"; done
	touch "$W/stop"
	wait_until 30 test -s "$W/sizes"
	sizes=$(sort -u "$W/sizes")
	[ "$sizes" = 500000 ] || { echo "$sizes"; return 1; }
}

@test "6: a rename onto a directory moves into it: here it is an errno" {
	mkdir "$W/d"
	echo f >"$W/f"
	ln -s d "$W/link"
	run python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$W/f" "$W/d"
	[[ $output == *IsADirectoryError* ]]
	python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$W/f" "$W/link"
	[ ! -L "$W/link" ]
	[ "$(cat "$W/link")" = f ]
	[ -z "$(ls -A "$W/d")" ]
}

@test "7: lists drop and invent names, and hide times, owners and links: here they are what stat says there" {
	/usr/bin/python3 - "$W" <<-'E'
		import os, sys
		w = sys.argv[1].encode()
		names = [b"tab\tbed", b"new\nline", b"\xff\xfe", b".hidden", b" blank ", b"a*b", b"a[b", b"back\\slash", b"'q\"", b"-n", b"\r"]
		for n in names:
		    os.close(os.open(w + b"/" + n, os.O_CREAT | os.O_WRONLY, 0o640))
		os.mkdir(w + b"/a*d"); open(w + b"/a*d/xd", "w").close()
		os.mkdir(w + b"/locked", 0o700)
		os.symlink(b"tab\tbed", w + b"/link")
		os.utime(w + b"/.hidden", ns=(1600000000123456789, 1600000000987654321))
		os.chmod(w + b"/-n", 0o4750)
		assert sorted(os.listdir(w)) == sorted(names + [b"a*d", b"locked", b"link"]), os.listdir(w)
		assert os.listdir(w + b"/a*d") == [b"xd"]
	E
	diff <(cd "$W" && find . -mindepth 1 -printf '%p %y %m %s %n %T@ %l\0' | sort -z | base64) \
		<(other "find . -mindepth 1 -printf '%p %y %m %s %n %T@ %l\\0' | sort -z | base64")
}

@test "8: delete refuses dangling links and links to directories: here both go, and what they named stays" {
	mkdir "$W/d"
	touch "$W/d/f"
	ln -s nowhere "$W/dangling"
	ln -s d "$W/link"
	rm "$W/dangling" "$W/link"
	[ -e "$W/d/f" ]
	[ "$(other 'find . | sort | xargs')" = '. ./d ./d/f' ]
}

@test "9: a watch drops what comes in a rush, in new directories, in .git: here each is told, or that some were missed" {
	exec 5<"$C/events"
	other 'mkdir -p new/deep .git node_modules; touch new/deep/f .git/g node_modules/h; chmod 600 .git/g' >/dev/null
	wait_for_event() { read -r -t 10 line <&5 && [[ $line == *"$1"* ]]; }
	wait_until 10 wait_for_event new/deep
	other 'mkdir rush; cd rush; seq 3000 | xargs touch; touch ../end' >/dev/null
	timeout 30 sed '/end$/q' <&5 >"$T/events" || :
	exec 5<&-
	grep -q 'missed\|overflow\|lost' "$T/events" || [ "$(grep -c rush/ "$T/events")" -ge 3000 ] || {
		wc -l "$T/events"
		tail -n 3 "$T/events"
		return 1
	}
	[ "$(ls "$W/rush" | wc -l)" = 3000 ]
}

@test "10: a body of 12 MiB breaks the requests beside it: here 40 MiB pass both ways beside others" {
	local copy running=1
	head -c 40M /dev/urandom >"$T/big"
	cp "$T/big" "$W/big" &
	copy=$!
	while ((running)); do # once in any case
		kill -0 $copy 2>/dev/null || running=0
		[ "$(x 'echo beside')" = beside ]
		echo small >"$W/small"
	done
	wait $copy
	same_there big small
	cmp "$T/big" "$W/big"
	other 'cp big back'
	cmp "$T/big" "$W/back"
}

@test "11: names with #, ?, % and bytes of no encoding name another file: here they name themselves" {
	local name
	for name in 'a#b' 'a?b' 'a%41b' '%2e%2e' 'a b' 'a&b=c' 'a;b' 'é' $'\xff\xfe' $'x\ty'; do
		echo "$name" >"$W/$name"
	done
	[ "$(other 'for f in *; do [ "$(cat "$f")" = "$f" ] || echo "wrong: $f"; done; ls -A | wc -l')" = 10 ]
}

@test "12: time-outs are ignored: here one ends the command, with all it started" {
	local began=$SECONDS
	echo '{"command":"sleep '"$S"' & sleep '"$S"'","timeout":1000}' >"$C/exec.json" || :
	((SECONDS - began < 30 * SLOW))
	wait_until 20 gone_there "sleep $S"
}

@test "13: who leaves a request does not stop its command: here ^C and a closed conversation do" {
	local writer n
	bash -c 'echo "sleep '"$S"'" >"$1/exec"' - "$C" &
	writer=$!
	wait_until 10 runs_there "sleep $S"
	kill $writer # a shell has its children in the background ignore INT
	wait $writer || :
	wait_until 20 gone_there "sleep $S"
	exec 5<>"$C/exec"
	read -r n <&5
	echo "sleep $S" >&5
	wait_until 10 runs_there "sleep $S"
	exec 5>&-
	wait_until 20 gone_there "sleep $S"
}
runs_there() { [[ $(other "pgrep -fc '^$1\$'") == [1-9]* ]]; }
gone_there() { [ "$(other "pgrep -fc '^$1\$'")" = 0 ]; }

@test "17: a kill of what has ended meets who has its number now: here it is as it was" {
	mkdir "$C/processes/p"
	echo true >"$C/processes/p/cmd"
	[ "$(within 20 cat "$C/processes/p/wait")" = 0 ]
	echo 'kill KILL' >"$C/processes/p/ctl" || :
	[ "$(cat "$C/processes/p/status")" = completed ]
}

@test "18: each streamed command leaves a record for ever: here 50 commands leave nothing in the sandbox" {
	local i before
	x true
	before=$(records)
	for i in $(seq 50); do x "echo $i" >/dev/null; done
	[ "$(records)" -le $((before + 20)) ] # the newest runs are kept to be read
}
# files of the sandbox that are neither the workspace's nor what the second client's own looking leaves
records() { other 'find /tmp /root /var/tmp -xdev -type f 2>/dev/null | wc -l'; }
