# sandboxd as the "shell" of a terminal, in a namespace of its own with nothing but /usr: as it is carried into a sandbox.

setup() {
	repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	: "${BUILD:=build}" "${SLOW:=1}"
	case $BUILD in /*) ;; *) BUILD=$repo/$BUILD ;; esac
	BATS_TEST_TIMEOUT=$((180 * SLOW))
	T=$(mktemp -d "${TMPDIR:-/tmp}/sbxa.XXXXXX")
	mkdir "$T/d"
	local program=$BUILD/helper/sandboxd-$(uname -m)
	[ -x "$program" ] || skip "no helper was built: contrib/deps"
	cp "$program" "$T/d/sandboxd"
	ln -s sandboxd "$T/d/attach"
}

teardown() {
	rm -rf "$T"
}

attach() { # TEST of attach.py
	timeout "$((170 * SLOW))" bwrap --unshare-all --die-with-parent --clearenv --setenv PATH /usr/bin:/bin \
		--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
		--symlink usr/sbin /sbin --proc /proc --dev /dev --tmpfs /tmp --dir /workspace \
		--bind "$T/d" /tmp/.sandboxfs/0123 --ro-bind "$BATS_TEST_DIRNAME/attach.py" /attach.py \
		--chdir / python3 /attach.py /tmp/.sandboxfs/0123 "$1"
}

@test "a request passes over a terminal" {
	attach a_request_passes
}

@test "every byte passes both ways, 20 MiB of them" {
	attach every_byte_passes_both_ways
}

@test "a terminal of short pieces is as good" {
	attach short_pieces_pass
}

@test "several that come at once start one server" {
	attach two_at_once_start_one
}

@test "the server and its commands outlive the link" {
	attach the_daemon_outlives_the_link
}

@test "a server that was killed is replaced" {
	attach a_dead_daemon_is_replaced
}

@test "nothing of the terminal reaches commands" {
	attach nothing_of_the_terminal_reaches_commands
}

@test "without a terminal it says so" {
	attach without_a_terminal_it_says_so
}

@test "what keeps the server from starting is said" {
	attach what_keeps_the_daemon_from_starting_is_said
}

@test "a damaged frame ends the link, not the server" {
	attach a_damaged_frame_ends_it
}

@test "an image of nothing but a shell is enough" {
	local busybox
	busybox=$(command -v busybox) || skip 'no busybox'
	! ldd "$busybox" >/dev/null 2>&1 || skip 'busybox is not static'
	# -P: beside it lies another pty.py
	timeout "$((170 * SLOW))" python3 -P "$BATS_TEST_DIRNAME/attach.py" "$T/d" a_bare_image_is_enough "$(realpath "$busybox")"
}
