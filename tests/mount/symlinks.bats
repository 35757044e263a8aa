# Symbolic links in a tree whose other end runs untrusted code: none leads a program of this host out of the tree.
load ../lib/harness

@test "a link that stays inside its tree reads as it is (row 29)" {
	echo text >"$W/f"
	mkdir -p "$W/d/e"
	ln -s f "$W/a"
	ln -s ../../f "$W/d/e/b"
	ln -s d "$W/c"
	[ "$(readlink "$W/a")" = f ]
	[ "$(readlink "$W/d/e/b")" = ../../f ]
	[ "$(cat "$W/a" "$W/d/e/b" "$W/c/e/b")" = $'text\ntext\ntext' ]
	[ "$(other 'readlink /workspace/d/e/b')" = ../../f ]
}

@test "an absolute link reads as a path into root/" {
	x 'ln -s /etc/passwd p; ln -s /workspace/f q; echo here > f; mkdir -p a/b; ln -s /etc/hosts a/b/h'
	[ "$(readlink "$W/p")" = ../root/etc/passwd ]
	[ "$(cat "$W/p")" = "$(x 'cat /etc/passwd')" ]
	[ "$(readlink "$W/a/b/h")" = ../../../root/etc/hosts ]
	[ "$(cat "$W/q")" = here ]
}

@test "a link that climbs out leads nowhere on the host" {
	echo "secret of the host" >"$T/secret"
	x "ln -s ../../../../../../../../..$T/secret s; ln -s ../../.. up; ln -s $T abs; ln -s .. dd"
	run cat "$W/s"
	[ "$status" != 0 ]
	[ ! -e "$W/abs/secret" ]
	[ ! -e "$W/up$T/secret" ]
	[ "$W/up" -ef "$M/root" ]
	run find -L "$W" -maxdepth 3 -name secret
	[[ $output != *"/secret"* ]]
}

@test "links through other links cannot be combined into a way out" {
	mkdir "$W/d"
	echo "secret of the host" >"$T/secret"
	# each alone stays inside; together they climb
	x 'mkdir -p x/y/z; ln -s x/y/z deep; ln -s ../../../.. x/y/z/up1; ln -s deep/up1 up2; ln -s deep/../../../../.. up3'
	local l
	for l in "$W/up2" "$W/up3" "$W/x/y/z/up1"; do
		[ ! -e "$l$T/secret" ]
		[ ! -e "$l/..$T/secret" ]
	done
}

@test "a second name of a link, less deep, does not borrow the depth of the first" {
	mkdir -p "$T/v"
	echo "secret of the host" >"$T/v/victim"
	x "mkdir -p a/b/c/d/e/f/g/h; ln -s ../../../../../../../..$T/v/victim a/b/c/d/e/f/g/h/link; ln -P a/b/c/d/e/f/g/h/link z"
	stat "$W/z" "$W/a/b/c/d/e/f/g/h/link" >/dev/null
	[ "$(cat "$W/z" 2>&1)" != "secret of the host" ]
	stat "$W/z" "$W/a/b/c/d/e/f/g/h/link" >/dev/null
	(echo planted >>"$W/z") 2>/dev/null || :
	[ "$(cat "$T/v/victim")" = "secret of the host" ]
}

@test "a sandbox's own .ctl does not hide the control tree, its ctl/stats names nobody to end" {
	local victim
	sleep 1000 3>&- &
	victim=$!
	echo $victim >>"$T/pids"
	x "mkdir -p .ctl ctl; echo planted > .ctl/status; echo pid $victim > ctl/stats"
	"$BUILD/sandboxfs" -u --kill "$MNT"
	mount_it -o sandbox="$NAME",subdir=workspace
	ls -la "$MNT" >/dev/null
	[ "$(head -n 1 "$MNT/.ctl/status")" != planted ]
	within 30 "$BUILD/sandboxfs" -u "$MNT"
	kill -0 "$victim"
	kill "$victim"
}

@test "dangling and looping links list normally" {
	x 'ln -s nothing dangle; ln -s loop loop; ln -s b a; ln -s a b; echo 1 > real'
	[ "$(ls "$W" | xargs)" = 'a b dangle loop real' ]
	ls -l "$W" >/dev/null
	run cat "$W/loop"
	[[ $output == *'Too many levels of symbolic links'* ]]
	run cat "$W/dangle"
	[[ $output == *'No such file'* ]]
	rm "$W/a" "$W/loop" "$W/dangle"
}

@test "symlinks=verbatim shows the stored text" {
	x 'ln -s /etc/passwd p; ln -s ../../.. up'
	unmount
	mount_it -o symlinks=verbatim
	[ "$(readlink "$W/p")" = /etc/passwd ]
	[ "$(readlink "$W/up")" = ../../.. ]
}

@test "a link made here means in the sandbox what was written" {
	ln -s /etc/hosts "$W/h"
	[ "$(other 'readlink /workspace/h')" = /etc/hosts ]
	[ "$(x 'cat h')" = "$(x 'cat /etc/hosts')" ]
}

@test "a long link text is kept" {
	local text
	text=$(printf 'a/%.0s' {1..500})z
	ln -s "$text" "$W/l"
	[ "$(readlink "$W/l")" = "$text" ]
	[ "$(stat -c %s "$W/l")" = ${#text} ]
}

@test "a link swapped for a directory in the middle of a walk leads nowhere on the host" {
	mkdir -p "$T/hostdir"
	echo secret >"$T/hostdir/f"
	x "mkdir real; echo good > real/f; cat > swap.sh <<E
touch begun
while [ ! -e stop ]; do ln -sfn $T/hostdir x; rm -rf x; mkdir x; echo good > x/f; rm -r x; done
E"
	echo 'bash swap.sh' >"$C/processes/new"
	wait_until 20 test -e "$W/begun"
	local i
	for i in $(seq 300); do
		! grep -q secret "$W/x/f" 2>/dev/null || { echo "round $i"; touch "$W/stop"; return 1; }
	done
	touch "$W/stop"
}
