# Size: large files pass through in bounded memory.
TEST_LIMIT=280
load ../lib/harness

peak() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status"; }

@test "a 2 GiB file streams in and out with less than 100 MB of resident memory" {
	local sum there pid size=2147483648
	# a sanitizer's shadow memory is not the program's: there it is only walked through
	[ -z "${SAN:-}" ] || size=268435456
	[ "$(df --output=avail -B1M "$T" | tail -n 1)" -gt 5000 ] || skip 'less than 5 GB of disk'
	pid=$(fs_pid)
	[ -n "$pid" ]
	sum=$(openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c $size | tee "$W/big" | sha256sum)
	[ "$(stat -c %s "$W/big")" = $size ]
	there=$(other 'sha256sum < /workspace/big')
	[ "$there" = "$sum" ]
	echo drop-caches >"$C/ctl"
	[ "$(sha256sum <"$W/big")" = "$sum" ]
	echo "peak resident memory: $(peak "$pid") kB"
	[ -n "${SAN:-}" ] || [ "$(peak "$pid")" -lt 100000 ]
}

@test "10,000 files are walked without memory growing with them" {
	local pid before
	pid=$(fs_pid)
	x 'mkdir -p t; cd t; for d in $(seq 20); do mkdir d$d; (cd d$d; seq 500 | xargs touch); done'
	[ "$(find "$W/t" -type f | wc -l)" = 10000 ]
	before=$(peak "$pid")
	for _ in 1 2 3; do
		echo drop-caches >"$C/ctl"
		find "$W/t" -type f >/dev/null
	done
	[ -n "${SAN:-}" ] || [ "$(peak "$pid")" -lt $((before + 20000)) ]
}
