# For tests of a link, beside harness.bash: a sandboxd of the test's own with lib/proxy.py before it.

# lib/proxy.py before the server of start_server tcp: what mounts from now on goes through it.
start_proxy() {
	local front
	mkfifo "$T/proxy"
	python3 "$repo/tests/lib/proxy.py" "${url##*:}" >"$T/proxy" 2>"$T/proxy.log" 3>&- &
	echo $! >>"$T/pids"
	read -r -t $((10 * SLOW)) front proxy_control <"$T/proxy"
	server_url=$url
	url=http://127.0.0.1:$front
}
proxy() { # ORDER: its answer
	local f answer
	exec {f}<>"/dev/tcp/127.0.0.1/$proxy_control"
	echo "$1" >&"$f"
	read -r -t $((60 * SLOW)) answer <&"$f"
	exec {f}>&-
	echo "$answer"
}

# start_link [MOUNT-OPTION]...: such a server and a mount over the proxy.
start_link() {
	start_server tcp
	start_proxy
	mount_it "$@"
	NAME=default
	M=$MNT/$NAME W=$MNT/$NAME/workspace C=$MNT/$NAME/ctl
}
