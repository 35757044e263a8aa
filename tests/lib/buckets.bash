# For tests of buckets, beside harness.bash: a store of the test's own, and who uses it.

setup() { private_directory; }

free_port() { /usr/bin/python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
answers() { curl -s -o /dev/null -m 5 "$1"; }

# s3 [own|moto|s3rver]: a store with the buckets data-bucket, DATA_BUCKET and other; its URL in $S3, its key in the environment of what is
# mounted. The secret is no other test's, and in $SECRET.
s3() {
	local port b
	command -v s3fs >/dev/null || skip 's3fs is not installed'
	SECRET=Test/Secret+$S
	export AWS_ACCESS_KEY_ID=TESTKEY AWS_SECRET_ACCESS_KEY=$SECRET
	[ "${1:-own}" = own ] || port=$(free_port)
	case ${1:-own} in
	own)
		/usr/bin/python3 "$repo/tests/lib/s3_server.py" data-bucket DATA_BUCKET other >"$T/s3.log" 2>&1 3>&- &
		echo $! >>"$T/pids"
		wait_until 30 grep -q . "$T/s3.log"
		port=$(head -n 1 "$T/s3.log")
		[[ $port =~ ^[0-9]+$ ]] || { cat "$T/s3.log"; return 1; }
		;;
	moto)
		moto_server -H 127.0.0.1 -p "$port" >"$T/s3.log" 2>&1 3>&- &
		echo $! >>"$T/pids"
		;;
	s3rver)
		command -v s3rver >/dev/null || skip 'neither moto_server (pip install moto[server]) nor s3rver (npm install -g s3rver) is in PATH'
		export AWS_ACCESS_KEY_ID=S3RVER AWS_SECRET_ACCESS_KEY=S3RVER
		mkdir "$T/objects"
		s3rver -d "$T/objects" -a 127.0.0.1 -p "$port" --configure-bucket data-bucket \
			--configure-bucket other >"$T/s3.log" 2>&1 3>&- &
		echo $! >>"$T/pids"
		;;
	esac
	S3=http://127.0.0.1:$port
	export AWS_ENDPOINT_URL=$S3
	wait_until 30 answers "$S3/"
	if [ "${1:-own}" = moto ]; then
		for b in data-bucket other; do curl -sf -X PUT "$S3/$b"; done
	fi
}
control() { curl -sf "$S3/-/$1"; }

# s3fs of this test's mount, by the port of its store, wherever it runs.
no_s3fs() { ! pgrep -f "s3fs .*url=$S3" >/dev/null; }
# refused ERRNO COMMAND...: it fails and error says why.
refused() {
	local number=$1
	shift
	if "$@" 2>"$T/refused"; then echo "not refused: $*"; return 1; fi
	grep -qx "errno $number" "$C/error" || { echo "not $number: $*"; cat "$T/refused" "$C/error"; return 1; }
}
put() { echo "$1" >"$C/mounts/new"; }
