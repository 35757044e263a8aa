# Buckets as files: mounts/new, mounts/NAME and what is to be seen in the sandbox. The store is a small server of the tests' own
# that checks signatures; the first test runs again with moto_server and with s3rver where these are installed.
load ../lib/harness

setup() { private_directory; }

free_port() { /usr/bin/python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
answers() { curl -s -o /dev/null -m 5 "$1"; }

# s3 [own|moto|s3rver]: a store with the buckets data-bucket, DATA_BUCKET and other; its URL in $S3, its key in the environment of what is mounted.
s3() {
	local port b
	command -v s3fs >/dev/null || skip 's3fs is not installed'
	port=$(free_port)
	S3=http://127.0.0.1:$port
	export AWS_ACCESS_KEY_ID=TESTKEY AWS_SECRET_ACCESS_KEY=Test/Secret+1 AWS_ENDPOINT_URL=$S3
	case ${1:-own} in
	own) /usr/bin/python3 "$repo/tests/lib/s3_server.py" "$port" data-bucket DATA_BUCKET other >"$T/s3.log" 2>&1 3>&- & ;;
	moto)
		command -v moto_server >/dev/null || skip 'no moto_server in PATH (pip install moto[server])'
		moto_server -H 127.0.0.1 -p "$port" >"$T/s3.log" 2>&1 3>&- &
		;;
	s3rver)
		command -v s3rver >/dev/null || skip 'no s3rver in PATH (npm install -g s3rver)'
		export AWS_ACCESS_KEY_ID=S3RVER AWS_SECRET_ACCESS_KEY=S3RVER
		mkdir "$T/objects"
		s3rver -d "$T/objects" -a 127.0.0.1 -p "$port" --configure-bucket data-bucket \
			--configure-bucket other >"$T/s3.log" 2>&1 3>&- &
		;;
	esac
	echo $! >>"$T/pids"
	wait_until 30 answers "$S3/"
	if [ "${1:-own}" = moto ]; then
		for b in data-bucket other; do curl -sf -X PUT "$S3/$b"; done
	fi
}
control() { curl -sf "$S3/-/$1"; }

# s3fs of this test's mount, by the port of its store.
no_s3fs() { ! pgrep -f "s3fs .*url=$S3" >/dev/null; }
# refused ERRNO COMMAND...: it fails and error says why.
refused() {
	local number=$1
	shift
	if "$@" 2>"$T/refused"; then echo "not refused: $*"; return 1; fi
	grep -qx "errno $number" "$C/error" || { echo "not $number: $*"; cat "$T/refused" "$C/error"; return 1; }
}
put() { echo "$1" >"$C/mounts/new"; }

story() {
	local big
	start
	put 'data-bucket /data'
	[ "$(ls "$C/mounts")" = data ]
	[ -z "$(ls -A "$M/root/data")" ]
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
	[ -z "$(x 'ls -A /data')" ]
	put 'data-bucket /mnt/again ro prefix=/dir'
	[ "$(ls "$C/mounts")" = mnt-again ]
	[ "$(ls -A "$M/root/mnt/again")" = numbers ]
	cmp "$T/want" "$M/root/mnt/again/numbers"
	x '! echo no > /mnt/again/no; ! rm /mnt/again/numbers'
	if echo no >"$M/root/mnt/again/no"; then return 1; fi
	cmp "$T/want" "$M/root/mnt/again/numbers"
	rm "$C/mounts/mnt-again"
	wait_until 10 no_s3fs
}

@test "a bucket is mounted, written, read in parts, unmounted, and mounted read-only" { s3 own; story; }
@test "the same with moto_server" { s3 moto; story; }
@test "the same with s3rver" { s3 s3rver; story; }

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
	put "{\"bucket\":\"data-bucket\",\"mountPath\":\"/data\",\"options\":{\"endpoint\":\"$S3\",\"credentials\":{\"accessKeyId\":\"TESTKEY\",\"secretAccessKey\":\"Test/Secret+1\"},\"readOnly\":false,\"prefix\":\"/sub/\",\"s3fsOptions\":[\"multipart_size=20\"]}}"
	grep -qx 'prefix /sub' "$C/mounts/data"
	echo in >"$M/root/data/f"
	control log | grep -q 'PUT /data-bucket/sub/f'
	refused EINVAL put '{"bucket":"b","mountPath":"/x","colour":1}'
	grep -q colour "$C/error"
	refused EOPNOTSUPP put '{"bucket":"b","mountPath":"/x","options":{"localBucket":true}}'
}

@test "the key: from a file that is the user's alone, from the environment, and never to be found" {
	s3
	unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
	start
	refused EACCES put 'data-bucket /data'
	printf 'TESTKEY:Test/Secret+1\n' >"$T/key"
	chmod 644 "$T/key"
	refused EACCES put "data-bucket /data credentials=$T/key"
	grep -q 'chmod 600' "$C/error"
	chmod 600 "$T/key"
	put "data-bucket /data credentials=$T/key"
	printf '[default]\naws_access_key_id = TESTKEY\naws_secret_access_key = Test/Secret+1\n' >"$T/key"
	put "other /other credentials=$T/key"
	printf 'TESTKEY:wrong\n' >"$T/key"
	refused EACCES put "other /third credentials=$T/key"
	rm "$T/key"
	# on the host's command lines, in the tree, in the log, on the disk, in the sandbox
	run ! pgrep -af Test/Secret
	run ! within 20 grep -rs Test/Secret "$C/mounts" "$C/error" "$C/status" "$MNT/ctl/log" "$MNT/ctl/error"
	run ! grep -rs --exclude-dir=mnt Test/Secret "$T/data" "$T/run" "$T/tmp"
	x '! cat /proc/[0-9]*/environ /proc/mounts 2>/dev/null | grep -a Test/Secret'
}

@test "neither the store nor s3fs is to be seen in the sandbox" {
	s3
	start
	put 'data-bucket /data'
	[ "$(x 'ps -e -o comm= | grep -c s3fs' || :)" = 0 ]
	x "! { : > /dev/tcp/127.0.0.1/${S3##*:}; } 2>/dev/null"
	x '! umount /data 2>/dev/null; ! mount -o remount,exec,suid,dev /data 2>/dev/null'
	x 'grep " /data " /proc/mounts' | grep -q 'nosuid,nodev'
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
	refused EHOSTUNREACH put "data-bucket /data endpoint=http://127.0.0.1:$(free_port)"
	[ -z "$(ls "$C/mounts")" ]
	no_s3fs
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

@test "a bucket that is in use is not unmounted; one whose way was renamed is" {
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
	[ -z "$(ls "$C/mounts")" ]
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
	echo 'data-bucket /data' >"$C/mounts/new" &
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
	within 40 "$sandboxfs" -u --kill "$MNT"
	wait_until 20 gone "$pid"
	no_s3fs
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
	refused EOPNOTSUPP put 'data-bucket /data endpoint=http://127.0.0.1:9 s3fs=public_bucket=1'
	grep -q 'mounts no buckets' "$C/error"
	grep -q '^cannot mounts ' "$MNT/ctl/server"
	[ -z "$(ls "$C/mounts")" ]
	if rm "$C/mounts/data"; then return 1; fi
}
