# A link that drops, tears, stalls, cuts and refuses (lib/proxy.py): operations may fail, none may lie. MINUTES: so long instead of some seconds.
NO_START=1
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
