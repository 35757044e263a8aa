# Buckets on local:, where s3fs runs outside of the sandbox: what of it is to be seen inside, what a sandbox can do to it, and that it
# ends with the mount. What is so of every server is in mounts.bats.
SERVER=local
load ../lib/harness
load ../lib/buckets

@test "sandboxfs-ctl(5)'s lines for buckets, by bash and by dash" {
	local sh
	s3
	start
	for sh in bash dash; do
		# shellcheck disable=SC2016
		M=$M C=$C within 60 $sh -euc '
			echo "DATA_BUCKET /data" > $C/mounts/new; ls $M/root/data; echo result > $M/root/data/output.txt; rm $C/mounts/data'
		echo 'DATA_BUCKET /data ro' >"$C/mounts/new"
		[ "$(x 'cat /data/output.txt')" = result ]
		rm "$C/mounts/data"
	done
}

@test "neither the store nor s3fs is to be seen in the sandbox" {
	s3
	start
	put 'data-bucket /data'
	[ "$(x 'ps -e -o comm= | grep -c s3fs' || :)" = 0 ]
	x "! { : > /dev/tcp/127.0.0.1/${S3##*:}; } 2>/dev/null"
	x '! umount /data 2>/dev/null && ! mount -o remount,exec,suid,dev /data 2>/dev/null'
	x 'grep " /data " /proc/mounts' | grep -q 'nosuid,nodev'
}

@test "a link that the sandbox planted leads nowhere" {
	s3
	start
	x 'ln -s /etc /workspace/link; ln -s / /workspace/root; mkdir /tmp/real; ln -s real /tmp/link'
	refused ENOTDIR put 'data-bucket /workspace/link/data'
	refused ENOTDIR put 'data-bucket /workspace/root/data'
	refused ENOTDIR put 'data-bucket /workspace/link'
	refused ENOTDIR put 'data-bucket /tmp/link'
	x '! grep -q data-bucket /proc/mounts'
	[ ! -e /etc/data ]
	# the root of the sandbox stays read-only, also after a directory was made there
	put 'data-bucket /a/b'
	x '! touch /x 2>/dev/null && ! touch /a/x 2>/dev/null'
}

@test "a bucket whose way was renamed is unmounted" {
	s3
	start
	mkdir "$W/a"
	put 'data-bucket /workspace/a/b'
	echo text >"$W/a/b/f"
	x 'mv /workspace/a "/workspace/c d"'
	[ "$(x 'cat "/workspace/c d/b/f"')" = text ]
	rm "$C/mounts/workspace-a-b"
	wait_until 10 no_s3fs
	x '! grep -q data-bucket /proc/mounts'
}

@test "s3fs that dies is told; rm clears up" {
	s3
	start
	put 'data-bucket /data'
	kill -9 $(pgrep -f "^/usr/bin/s3fs .*url=$S3")
	wait_until 10 grep -q '^ended ' "$C/mounts/data"
	refused EEXIST put 'data-bucket /data'
	rm "$C/mounts/data"
	put 'data-bucket /data'
	echo text >"$M/root/data/f"
	[ "$(x 'cat /data/f')" = text ]
}

@test "destroy, unmount and a killed program leave no s3fs, no mount, no file" {
	local pid
	s3
	start
	put 'data-bucket /data'
	put 'other /other'
	echo destroy >"$C/ctl"
	wait_until 10 no_s3fs
	mkdir "$M"
	is_empty "$C/mounts"
	put 'data-bucket /data'
	pid=$(fs_pid)
	unmount
	no_s3fs
	wait_until 10 gone "$pid"
	[ -z "$(find "$T/data" -name buckets)" ]
	mount_it
	put 'data-bucket /data'
	pid=$(fs_pid)
	kill -9 "$pid"
	wait_until 10 no_s3fs
	fusermount3 -u "$MNT" || umount -l "$MNT"
	mount_it
	[ "$(x 'ls -A /data 2>/dev/null | wc -l')" = 0 ]
	put 'data-bucket /data'
}

# The s3fs of data-bucket alone.
at_work() { pgrep -f "^/usr/bin/s3fs data-bucket .*url=$S3" >/dev/null; }
idle() { ! at_work; }
@test "a store that does not answer: a signal ends the request, and the mount still ends" {
	local pid
	s3
	start
	put 'other /other'
	control hang
	{ echo 'data-bucket /data' >"$C/mounts/new"; } &
	pid=$!
	wait_until 10 at_work
	kill "$pid"
	wait_until 10 gone "$pid"
	wait "$pid" || :
	wait_until 10 idle
	[ "$(ls "$C/mounts")" = other ]
	# who asks for the bucket waits for the store, nobody else does
	mkdir "$C/processes/p"
	echo 'ls /other' >"$C/processes/p/cmd"
	echo text >"$W/f"
	[ "$(x 'cat f')" = text ]
	pid=$(fs_pid)
	within 60 "$sandboxfs" -u --kill "$MNT"
	wait_until 20 gone "$pid"
	wait_until 20 no_s3fs # which was killed
}
