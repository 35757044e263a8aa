# stress-ng's file-system stressors with verification, and fio's verified jobs. One that skips itself has failed.
TEST_LIMIT=240
load ../lib/harness

# Bounded by the number of operations: the alarm of a time-out would end a call that waits (EINTR), and the stressor's own
# tidying up does not expect that.
stress() { # STRESSOR [OPTION]...
	local name=$1
	shift
	cd "$W"
	within 200 stress-ng --temp-path "$W" --verify --no-rand-seed --metrics-brief --timeout 190 "--$name" 2 "$@" >"$T/out" 2>&1 3>&- || {
		cat "$T/out"
		return 1
	}
	cd /
	if grep -qiE 'skipp(ed|ing) stressor|skipped: [1-9]|fail:|failed: [1-9]' "$T/out"; then
		cat "$T/out"
		return 1
	fi
	grep -q "passed: .*$name" "$T/out" || grep -qE "successful run completed" "$T/out" || {
		cat "$T/out"
		return 1
	}
	[ -z "$(ls -A "$W")" ] || { ls -lA "$W"; return 1; }
}

@test "stress-ng --dir" { stress dir --dir-ops 200 --dir-dirs 64; }
@test "stress-ng --dentry" { stress dentry --dentry-ops 400 --dentries 100; }
@test "stress-ng --filename" { stress filename --filename-ops 100 --filename-opts posix; }
@test "stress-ng --rename" { stress rename --rename-ops 500; }
# one round of these is 8,192 links made, looked at and removed
@test "stress-ng --link" { stress link --link-ops 2; }
@test "stress-ng --symlink" {
	# it makes absolute links and expects their text back: that is what this option is for
	unmount
	mount_it -o symlinks=verbatim
	stress symlink --symlink-ops 2
}
@test "stress-ng --chmod" { stress chmod --chmod-ops 100; }
@test "stress-ng --utime" { stress utime --utime-ops 500; }
@test "stress-ng --fstat" { stress fstat --fstat-ops 100 --fstat-dir "$W"; }
@test "stress-ng --hdd" { stress hdd --hdd-ops 200 --hdd-bytes 8m; }
@test "stress-ng --seek" { stress seek --seek-ops 500 --seek-size 4m; }
@test "stress-ng --mmap on a file" { stress mmap --mmap-ops 4 --mmap-bytes 4m --mmap-file; }
@test "stress-ng --copy-file" { stress copy-file --copy-file-ops 20 --copy-file-bytes 128m; }

@test "fio --verify=crc32c with 4 jobs" {
	within 200 fio --name=v --directory="$W" --numjobs=4 --size=16m --bs=4k-64k --rw=randrw --ioengine=psync \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --do_verify=1 --group_reporting --output="$T/fio" 3>&- || { cat "$T/fio"; return 1; }
	! grep -qi 'verify: bad' "$T/fio" || false
	x 'ls v.*'
}

@test "fio --verify=crc32c sequential and with fsync" {
	within 200 fio --name=v --directory="$W" --numjobs=4 --size=8m --bs=128k --rw=write --ioengine=psync --fsync=16 \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --do_verify=1 --group_reporting --output="$T/fio" 3>&- || { cat "$T/fio"; return 1; }
}
