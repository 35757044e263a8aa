# A link that drops, tears, stalls, cuts and refuses (lib/proxy.py): operations may fail, none may lie. MINUTES: so long instead of some seconds.
SERVER=tcp NO_START=1
TEST_LIMIT=$((${MINUTES:-1} * 60 + 240))
load ../lib/harness
load ../lib/link

all_sent() { [ -z "$(grep -v '^conflict' "$C/sync")" ]; }
# What the journal allows of each file is what a mount without the proxy has.
check_journal() { # JOURNAL WORKSPACE
	local name is one bad=0 sums files=0
	while read -r name sums; do
		files=$((files + 1))
		if [ -e "$2/$name" ]; then is=$(sha256sum <"$2/$name"); else is=-; fi
		for one in $sums; do
			[ "$one" != "${is%% *}" ] || continue 2
		done
		echo "$name: ${is%% *} is none of: $sums"
		bad=1
	done <"$1"
	((files > 20)) || { echo "$files files"; return 1; }
	return $bad
}

@test "mixed file work over a bad link: what close and fsync accepted is in the sandbox, and no read lies (rows 2, 4)" {
	local seed=${SEED:-1}
	start_link -o timeout=5
	proxy "delay $((seed % 2 * 15))" >/dev/null # over a slow link less is asked for
	proxy "faults $seed ${FAULTS:-0.08}" >/dev/null
	/usr/bin/python3 "$repo/tests/lib/badlink.py" "$W" "$seed" $((${MINUTES:-0} ? MINUTES * 60 : 20)) "$T/journal" 3>&-
	proxy stats
	proxy 'faults 0 0' >/dev/null
	wait_until 60 all_sent || { cat "$C/sync"; return 1; }
	mkdir "$T/direct"
	within 60 "$sandboxfs" "$server_url" "$T/direct" 3>&-
	check_journal "$T/journal" "$T/direct/default/workspace"
	# and the mount that had the bad link sees the same
	echo drop-caches >"$C/ctl"
	check_journal "$T/journal" "$W"
}

@test "what was appended and whose answer came too late is in the file once" {
	start_link -o timeout=3
	echo first >"$W/f"
	exec 7>>"$W/f"
	proxy 'delay 1900' >/dev/null # done in time, and answered after the time
	# a shell does not see an error of close
	within 40 sh -c 'echo second >&7'
	[ -n "$(cat "$C/sync")" ]
	exec 7>&- || :
	proxy 'delay 0' >/dev/null
	wait_until 60 all_sent || { cat "$C/sync"; return 1; }
	wait_until 30 eval 'echo third >>"$W/f"'
	wait_until 60 all_sent
	echo drop-caches >"$C/ctl"
	[ "$(cat "$W/f")" = $'first\nsecond\nthird' ]
}

appends() { /usr/bin/python3 "$repo/tests/lib/appends.py" "$W" "$T/ws" "$proxy_control" "$@" 3>&-; }
@test "after a large append that failed the next one is there, whole and alone" {
	start_link -o timeout=2
	: >"$T/ws/log"
	appends 299008 'refuse 502' 'refuse 0' 5
}
@test "the same where the failed one was the first" {
	start_link -o timeout=2
	head -c 4096 /dev/zero >"$T/ws/log"
	appends 0 'refuse 502' 'refuse 0' 5
}
@test "the same where the failed one arrived, and the next is as large" {
	start_link -o timeout=2
	head -c 4096 /dev/zero >"$T/ws/log"
	appends 0 'delay 2500' 'delay 0' 600000
}

@test "cat of several files into one over a slow link, just after they were listed" {
	local i
	start_link
	mkdir "$T/ws/a"
	for i in 1 2 3; do head -c 20000 /dev/urandom >"$T/ws/a/f$i"; done
	proxy 'delay 30' >/dev/null
	ls -l "$W" "$W/a" >/dev/null
	ls -l "$W/a" >/dev/null # opens come later now
	cat "$W"/a/f? >"$W/out"
	cat "$T"/ws/a/f? | cmp - "$T/ws/out"
}

@test "a command that is silent for longer than a connection lives ends with its true exit code (row 4)" {
	local n
	start_link -o timeout=5
	proxy 'life 1' >/dev/null
	exec 5<>"$C/exec"
	read -r n <&5
	echo 'sleep 6; echo late; exit 7' >&5
	[ "$(within 40 cat <&5)" = late ]
	[ "$(cat "$C/runs/$n/exit")" = 7 ]
	exec 5>&-
	[[ $(proxy stats) =~ outlived=([0-9]+) ]]
	((BASH_REMATCH[1] >= 3))
	# and a process of its own, followed
	mkdir "$C/processes/p"
	echo 'echo first; sleep 4; echo last; exit 3' >"$C/processes/p/cmd"
	[ "$(within 40 cat "$C/processes/p/follow")" = $'first\nlast' ]
	[ "$(cat "$C/processes/p/exit")" = 3 ]
}

@test "over a slow link, too, a file that the server replaces all the time opens each time, and is read whole" {
	local writer
	start_link
	proxy 'delay 25' >/dev/null
	python3 "$repo/tests/lib/replaced.py" write "$T/ws/f" 0.01 3>&- &
	writer=$!
	wait_until 20 test -s "$W/f"
	within 60 python3 "$repo/tests/lib/replaced.py" read "$W/f" 60
	: >"$T/ws/f.stop"
	wait_until 20 gone $writer
	wait $writer
}

@test "a stream that is cut anywhere, its head included, is never the end of a command (row 4)" {
	local i n
	start_link -o timeout=5
	proxy 'faults 3 0.4' >/dev/null
	for i in $(seq 12); do
		exec 5<>"$C/exec"
		read -r n <&5
		echo "seq 2000; exit $i" >&5
		if [ "$(within 60 cat <&5 | sha256sum)" != "$(seq 2000 | sha256sum)" ]; then
			grep -qx unknown "$C/runs/$n/exit" || { echo "$i: $(cat "$C/runs/$n/exit")"; return 1; }
		else
			grep -qxE "$i|unknown" "$C/runs/$n/exit" || { echo "$i: $(cat "$C/runs/$n/exit")"; return 1; }
		fi
		exec 5>&-
	done
}

@test "a server that begins with 503, 500 or 429 is waited for: no error, nothing done twice (row 17)" {
	local status work last
	start_link -o timeout=30
	for status in 503 500 429; do
		proxy "refuse $status" >/dev/null
		(echo once >>"$W/f$status" && echo done >"$T/done$status") 3>&- &
		work=$!
		(echo "echo once >>/workspace/x$status" >"$C/exec" && echo done >"$T/ran$status") 3>&- &
		last=$!
		refused() { [[ $(proxy stats) =~ status-$status=([0-9]+) ]] && ((BASH_REMATCH[1] >= 4)); }
		wait_until 10 refused
		[ ! -e "$T/done$status" ]
		within 10 ls "$MNT" >/dev/null
		proxy 'refuse 0' >/dev/null
		wait "$work" "$last"
		[ -e "$T/done$status" ]
		[ -e "$T/ran$status" ]
		[ "$(cat "$T/ws/f$status")" = once ]
		[ "$(cat "$T/ws/x$status")" = once ]
	done
}
