# contrib/editors: what makes editors here follow changes made in the sandbox (row 7).
load ../lib/harness

setup() {
	private_directory
	PATH=$repo/contrib/sbx:$repo/contrib/editors:$PATH
	export SBX_MOUNT=$MNT
	start
	# not below $T, where the sandbox's own socket is looked for
	screen=$T.tmux
}
end_screen() {
	wait_until 10 bash -c "! tmux -S $screen has-session 2>/dev/null" || tmux -S "$screen" kill-server
	rm -f "$screen"
}
teardown_screen() {
	tmux -S "$screen" capture-pane -p
	tmux -S "$screen" kill-server
	rm -f "$screen"
}
# in_screen COMMAND...: in a terminal of its own
in_screen() { tmux -S "$screen" -f /dev/null new-session -d -x 80 -y 24 "$*" 3>&-; }
shows() { tmux -S "$screen" capture-pane -p | grep -qF -- "$1"; }

@test "vim shows what the sandbox wrote into an open file, and :make builds there" {
	echo before >"$W/f"
	printf 'all:\n\t@hostname > where\n' >"$W/Makefile"
	cd "$W"
	in_screen "vim -N -u NONE -i NONE --cmd 'source $repo/contrib/editors/sandboxfs.vim' f"
	wait_until 20 shows before || { teardown_screen; return 1; }
	other 'echo after > /workspace/f'
	wait_until 20 shows after || { teardown_screen; return 1; }
	tmux -S "$screen" send-keys ':make' Enter
	wait_until 20 test -s "$W/where" || { teardown_screen; return 1; }
	tmux -S "$screen" send-keys Enter ':qa!' Enter
	end_screen
	[ "$(cat "$W/where")" = "$(x hostname)" ]
	cd /
}

@test "emacs shows what the sandbox wrote into an open file" {
	echo before >"$W/f"
	cd "$W"
	in_screen "env TMPDIR=$T/home emacs -nw -Q -l $repo/contrib/editors/sandboxfs.el f"
	wait_until 30 shows before || { teardown_screen; return 1; }
	other 'echo after > /workspace/f'
	wait_until 20 shows after || { teardown_screen; return 1; }
	tmux -S "$screen" send-keys C-x C-c
	end_screen
	cd /
}

@test "sbx-follow: who waits for inotify here hears of changes made in the sandbox" {
	cat >"$T/watch.py" <<'E'
# Prints the name of each event in a directory and, for the directory itself, a dot.
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
assert libc.inotify_add_watch(fd, os.fsencode(sys.argv[1]), 0x4 | 0x2 | 0x100 | 0x200) > 0
print("ready", flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        _, mask, _, n = struct.unpack("iIII", data[:16])
        print(os.fsdecode(data[16:16 + n].rstrip(b"\0")) or ".", flush=True)
        data = data[16 + n:]
E
	echo old >"$W/a b"
	echo old >"$W/back\\slash"
	/usr/bin/python3 "$T/watch.py" "$W" >>"$T/heard" 3>&- & # at its end, also when it has been emptied
	echo $! >>"$T/pids"
	wait_until 10 grep -qs ready "$T/heard"
	cd "$W"
	setsid sbx-follow 3>&- &
	local p=$!
	# until it listens
	wait_until 15 bash -c "sbx exec -- sh -c 'echo x >started'; grep -q started $T/heard"
	: >"$T/heard"
	other 'cd /workspace; echo new > "a b"; echo new > "back\\slash"'
	wait_until 10 grep -qx 'a b' "$T/heard"
	wait_until 10 grep -qxF 'back\slash' "$T/heard"
	: >"$T/heard"
	other 'rm "/workspace/a b"'
	wait_until 10 grep -qx '\.' "$T/heard"
	kill -- -$p
	cd /
	# hearing of it changed nothing
	[ "$(cat "$W/back\\slash")" = new ]
}

@test "sbx-follow leaves the modes of what links name, and names outside" {
	umask 077
	echo secret >"$W/key"
	: >"$T/events"
	cat "$C/events" >"$T/events" 3>&- &
	echo $! >>"$T/pids"
	setsid sbx-follow "$NAME" 3>&- &
	echo $! >>"$T/pids"
	# it has repeated a change of this file, and with it all that were before
	repeats() {
		other "echo x >> /workspace/$1"
		grep -q "^attrib.$1\$" "$T/events"
	}
	wait_until 20 repeats first
	other 'ln -sf key /workspace/current'
	wait_until 20 repeats last
	grep -q '^create.current' "$T/events"
	[ "$(other 'stat -c %a /workspace/key')" = 600 ]
}
