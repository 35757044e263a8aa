# What others put into a sandbox where sandboxd is to lie is not gone into and not run.
SERVER=bridge
load ../lib/harness

# The sandbox goes on; what a mount left in its /tmp is taken away before the next comes.
make_way() {
	ls "$W" >/dev/null
	unmount
	TMP=$(echo "$BRIDGE"/[0-9]*/tmp)
	rm -r "$TMP/.sandboxfs"
}
in_the_way() {
	mount_it
	run ls "$W"
	[ "$status" != 0 ]
	cat "$MNT/ctl/error" "$C/error" | grep '/tmp/.sandboxfs is there and'
}

@test "a link in the place of sandboxd's directory is not followed, and the sentence says what is in the way" {
	make_way
	mkdir "$TMP/elsewhere"
	ln -s /tmp/elsewhere "$TMP/.sandboxfs"
	in_the_way
	[ -z "$(ls -A "$TMP/elsewhere")" ]
	rm "$TMP/.sandboxfs"
	ls "$W"
}

@test "a program in another user's directory of that name is not run" {
	[ "$(id -u)" = 0 ] || skip "one uid alone is in this sandbox"
	make_way
	mkdir "$TMP/.sandboxfs"
	chown 1000 "$TMP/.sandboxfs"
	in_the_way
}
