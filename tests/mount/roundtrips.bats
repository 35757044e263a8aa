# How many round trips of a link of 100 ms each operation waits for: counted by lib/proxy.py, not timed.
SERVER=tcp NO_START=1
load ../lib/harness
load ../lib/link

rounds() { # NAME...
	start_link
	/usr/bin/python3 "$repo/tests/lib/rounds.py" "$proxy_control" "$W" "$C" "$@" 3>&-
}

@test "stat and open of what is known wait for nothing, ls -l and the read of a small file for one round trip" {
	rounds stat open ls-l read
}

@test "a small file is saved in two round trips: overwritten, new, appended to, with and without fsync" {
	rounds overwrite overwrite-fsync new new-fsync append
}

@test "a file that is saved under another name, synced and renamed waits for three" {
	rounds save-rename
}

@test "rename, mkdir, rmdir, unlink, symlink and chmod wait for one round trip" {
	rounds rename rename-over mkdir rmdir unlink symlink chmod
}

@test "a command and its output come in one round trip" {
	rounds exec exec-output
}
