# Buckets as files: mounts/new, mounts/NAME and what is to be seen in the sandbox; what is so of local: alone is in buckets.bats.
# The store is a small server of the tests' own that checks signatures; the first test runs again with one that others wrote.
load ../lib/harness
load ../lib/buckets

story() {
	local big
	start
	put 'data-bucket /data'
	[ "$(ls "$C/mounts")" = data ]
	is_empty "$M/root/data"
	# written here, read there, and the other way round
	echo result >"$M/root/data/output.txt"
	[ "$(x 'cat /data/output.txt')" = result ]
	x 'mkdir /data/dir && seq 1000 > /data/dir/seq && mv /data/dir/seq /data/dir/numbers && rm /data/output.txt'
	seq 1000 | cmp - "$M/root/data/dir/numbers"
	[ ! -e "$M/root/data/output.txt" ]
	x 'echo more >> /data/dir/numbers; printf XX | dd of=/data/dir/numbers conv=notrunc bs=1 seek=3 status=none'
	{ seq 1000; echo more; } | sed '2s/.*/2/' >"$T/want"
	printf XX | dd of="$T/want" conv=notrunc bs=1 seek=3 status=none
	cmp "$T/want" "$M/root/data/dir/numbers"
	# in parts
	head -c 30000000 /dev/urandom >"$T/big"
	cp "$T/big" "$M/root/data/big"
	big=$(sha256sum <"$T/big")
	[ "$(x 'sha256sum < /data/big')" = "$big" ]
	# it is in the store, not here
	rm "$C/mounts/data"
	wait_until 10 no_s3fs
	[ -z "$(x 'ls -A /data 2>/dev/null || :')" ]
	put 'data-bucket /mnt/again ro prefix=/dir'
	[ "$(ls "$C/mounts")" = mnt-again ]
	[ "$(ls -A "$M/root/mnt/again")" = numbers ]
	cmp "$T/want" "$M/root/mnt/again/numbers"
	x '! echo no > /mnt/again/no && ! rm /mnt/again/numbers'
	if echo no >"$M/root/mnt/again/no"; then return 1; fi
	cmp "$T/want" "$M/root/mnt/again/numbers"
	rm "$C/mounts/mnt-again"
	wait_until 10 no_s3fs
}

@test "a bucket is mounted, written, read in parts, unmounted, and mounted read-only" { s3 own; story; }
@test "the same with another's store: moto_server, else s3rver" {
	s3 "$(command -v moto_server >/dev/null && echo moto || echo s3rver)"
	story
}

@test "the answer is the name; what is mounted is told with its limits, and no key (row 40)" {
	s3
	start
	exec {f}<>"$C/mounts/new"
	echo 'data-bucket /mnt/a ro prefix=/p' >&"$f"
	read -r name <&"$f"
	exec {f}>&-
	[ "$name" = mnt-a ]
	cat "$C/mounts/mnt-a" >"$T/shown"
	grep -qx 'bucket data-bucket' "$T/shown"
	grep -qx 'dir /mnt/a' "$T/shown"
	grep -qx "endpoint $S3" "$T/shown"
	grep -qx 'prefix /p' "$T/shown"
	grep -qx 'read-only yes' "$T/shown"
	[ "$(grep -c '^limits ' "$T/shown")" -ge 3 ]
	grep -q '^limits .*no hard links' "$T/shown"
	# reading changes nothing
	within 10 grep -r . "$C/mounts" >/dev/null
	[ "$(ls "$C/mounts")" = mnt-a ]
	rm "$C/mounts/mnt-a" # /mnt of a container is this machine's, its directory goes with the bucket
}

@test "what a bucket cannot do fails at once, not at close (row 40)" {
	s3
	start
	put 'data-bucket /data'
	put 'other /ro ro'
	echo text >"$M/root/data/f"
	if ln "$M/root/data/f" "$M/root/data/g"; then return 1; fi
	x '! ln /data/f /data/g'
	/usr/bin/python3 - "$M/root/ro/new" <<'END'
import errno, os, sys
try:
    os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
except OSError as e:
    sys.exit(0 if e.errno == errno.EROFS else str(e))
sys.exit("it could be opened")
END
	[ "$(cat "$M/root/data/f")" = text ]
}

@test "the object of mountBucket" {
	s3
	unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL
	start
	put "{\"bucket\":\"data-bucket\",\"mountPath\":\"/data\",\"options\":{\"endpoint\":\"$S3\",\"credentials\":{\"accessKeyId\":\"TESTKEY\",\"secretAccessKey\":\"$SECRET\"},\"readOnly\":false,\"prefix\":\"/sub/\",\"s3fsOptions\":[\"multipart_size=20\"]}}"
	grep -qx 'prefix /sub' "$C/mounts/data"
	echo in >"$M/root/data/f"
	control log | grep -q 'PUT /data-bucket/sub/f'
	refused EINVAL put '{"bucket":"b","mountPath":"/x","colour":1}'
	grep -q colour "$C/error"
	refused ENOTSUP put '{"bucket":"b","mountPath":"/x","options":{"localBucket":true}}'
}

@test "the key: from a file that is the user's alone, from the environment, and never to be found" {
	s3
	unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
	start
	refused EACCES put 'data-bucket /data'
	printf 'TESTKEY:%s\n' "$SECRET" >"$T/key"
	chmod 644 "$T/key"
	refused EACCES put "data-bucket /data credentials=$T/key"
	grep -q 'chmod 600' "$C/error"
	chmod 600 "$T/key"
	put "data-bucket /data credentials=$T/key"
	printf '[default]\naws_access_key_id = TESTKEY\naws_secret_access_key = %s\n' "$SECRET" >"$T/key"
	put "other /other credentials=$T/key"
	printf 'TESTKEY:wrong\n' >"$T/key"
	refused EACCES put "other /third credentials=$T/key"
	rm "$T/key"
	# on the host's command lines, in the tree, in the log, on the disk, in the sandbox
	run ! pgrep -af "${SECRET/+/.}"
	run ! within 60 grep -rsF "$SECRET" "$C/mounts" "$C/error" "$C/status" "$MNT/ctl/log" "$MNT/ctl/error"
	[ "$status" != 124 ]
	run ! grep -rsF --exclude-dir=mnt "$SECRET" "$T/data" "$T/run" "$T/tmp"
	x '! cat /proc/[0-9]*/environ /proc/mounts 2>/dev/null | grep -a Test/Secret'
}

@test "refusals: the bucket, the directory, the store, the words" {
	s3
	start
	refused EINVAL put 'data-bucket'
	refused EINVAL put 'data-bucket data'
	refused EINVAL put 'data-bucket /a/../b'
	refused EINVAL put 'data-bucket /'
	refused EINVAL put 'data-bucket /workspace'
	refused EINVAL put 'data-bucket /usr/share/data'
	refused EINVAL put 'data-bucket /proc/x'
	refused EINVAL put 'data-bucket /data rw'
	refused EINVAL put 'data-bucket /data s3fs=passwd_file=/etc/passwd'
	refused EINVAL put 'data-bucket /data s3fs=umask=0,allow_root'
	refused EINVAL put 'data-bucket /data endpoint=ftp://x'
	refused EINVAL put 'data-bucket /data provider=azure'
	refused EINVAL put 'data-bucket /data s3fs=no_such_option'
	refused ENOENT put 'missing /data'
	refused EHOSTUNREACH put "data-bucket /data endpoint=http://127.0.0.1:1"
	is_empty "$C/mounts"
	wait_until 10 no_s3fs
	put 'data-bucket /data'
	refused EEXIST put 'other /data'
	refused EBUSY put 'other /data/in'
	echo file >"$W/file"
	mkdir "$W/full"
	echo x >"$W/full/x"
	refused ENOTEMPTY put 'other /workspace/full'
	refused ENOTDIR put 'other /workspace/file'
	[ "$(cat "$W/full/x")" = x ]
	if mkdir "$C/mounts/x"; then return 1; fi
	if echo >"$C/mounts/x"; then return 1; fi
	if rm "$C/mounts/x"; then return 1; fi
	[ "$(ls "$C/mounts")" = data ]
}

@test "a bucket that is in use is not unmounted" {
	s3
	start
	mkdir "$W/a"
	put 'data-bucket /workspace/a/b'
	echo text >"$W/a/b/f"
	mkdir "$C/processes/p"
	echo "cd /workspace/a/b && echo in && exec sleep $S" >"$C/processes/p/cmd"
	wait_until 10 grep -q in "$C/processes/p/logs"
	refused EBUSY rm "$C/mounts/workspace-a-b"
	[ "$(cat "$W/a/b/f")" = text ]
	echo 'kill KILL' >"$C/processes/p/ctl"
	within 10 cat "$C/processes/p/wait"
	rm "$C/mounts/workspace-a-b"
	wait_until 10 no_s3fs
	x '! grep -q data-bucket /proc/mounts'
}

@test "a bucket ends with its sandbox; where that outlives the mount, the next mount takes it over" {
	s3
	start
	put 'data-bucket /data'
	put 'other /other'
	echo destroy >"$C/ctl"
	wait_until 10 no_s3fs
	mkdir "$M"
	is_empty "$C/mounts"
	put 'data-bucket /data'
	echo text >"$M/root/data/f"
	remount
	put 'data-bucket /data'
	[ "$(cat "$M/root/data/f")" = text ]
	rm "$C/mounts/data"
	wait_until 10 no_s3fs
}

@test "a store that refuses a write: the writer is told, and the rest goes on" {
	s3
	start
	put 'data-bucket /data'
	echo one >"$M/root/data/f"
	control refuse
	x "! cp /etc/passwd /data/g 2>/dev/null"
	if cp "$T/s3.log" "$M/root/data/g" 2>/dev/null || cp /etc/passwd "$M/root/data/k" 2>/dev/null; then return 1; fi
	[ "$(cat "$M/root/data/f")" = one ]
	control well
	echo two >"$M/root/data/h"
	[ "$(x 'cat /data/h')" = two ]
}

@test "a server without buckets says so" {
	SERVER=unix
	start
	refused ENOTSUP put 'data-bucket /data endpoint=http://127.0.0.1:9 s3fs=public_bucket=1'
	grep -q 'mounts no buckets' "$C/error"
	grep -q '^cannot mounts ' "$MNT/ctl/server"
	[ -z "$(ls "$C/mounts")" ]
	if rm "$C/mounts/data"; then return 1; fi
}
