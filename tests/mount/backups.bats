# ctl/backups/: copies of a directory, kept on this machine, and restored.
load ../lib/harness
load ../lib/backups

# bats test_tags=server
@test "a backup is restored as it was, and replaces what came since; rm forgets it" {
	mkdir "$W/a" "$W/a/b"
	echo one >"$W/a/f"
	echo two >"$W/a/b/g"
	ln "$W/a/f" "$W/a/hard"
	ln -s f "$W/a/soft"
	touch -d '2020-01-02 03:04:05.123456789' "$W/a/f"
	local id
	id=$(backup 'a name=first')
	[[ $id =~ ^[0-9a-f]{32}$ ]]
	[ "$(cat "$C/backups/new")" = "$id" ]
	[ "$(ls "$C/backups")" = "$id" ]
	grep -qx 'dir /workspace/a' "$C/backups/$id"
	grep -qx 'name first' "$C/backups/$id"
	grep -qx 'expires never' "$C/backups/$id"
	grep -q '^created 20' "$C/backups/$id"
	grep -q '^bytes [1-9]' "$C/backups/$id"
	echo changed >"$W/a/f"
	rm -r "$W/a/b"
	echo new >"$W/a/new"
	echo restore >"$C/backups/$id"
	[ "$(cat "$W/a/f")" = one ]
	[ "$(cat "$W/a/b/g")" = two ]
	[ ! -e "$W/a/new" ]
	[[ $(stat -c %y "$W/a/f") == '2020-01-02 03:04:05.123456789 '* ]]
	[ "$W/a/f" -ef "$W/a/hard" ]
	[ "$(readlink "$W/a/soft")" = f ]
	[ -n "$(kept)" ]
	[ -z "$(find "$T/data" -path '*/.backups/*' -perm /077)" ]
	rm "$C/backups/$id"
	is_empty "$C/backups"
	[ -z "$(kept)" ]
}

# bats test_tags=server
@test "it is restored where it is told to be, and where the directory is gone" {
	mkdir "$W/a"
	echo one >"$W/a/f"
	local id
	id=$(backup '/workspace/a')
	rm -r "$W/a"
	echo 'restore' >"$C/backups/$id"
	[ "$(cat "$W/a/f")" = one ]
	exec 7<>"$C/backups/$id"
	echo 'restore b/c' >&7
	read -r line <&7
	exec 7>&-
	[[ $line == 'replaced /workspace/b/c entries '* ]]
	[ "$(cat "$W/b/c/f")" = one ]
}

# bats test_tags=server
@test "gitignore and exclude= leave out; JSON as createBackup has it" {
	x 'mkdir a && cd a && git init -q . && mkdir node_modules out && touch f f.log out/x node_modules/y && echo out/ >.gitignore' 
	local id
	id=$(backup 'a gitignore exclude=node_modules exclude=*.log')
	echo 'restore b' >"$C/backups/$id"
	[ -e "$W/b/f" ]
	[ ! -e "$W/b/f.log" ]
	[ ! -e "$W/b/out/x" ]
	[ ! -e "$W/b/node_modules/y" ]
	id=$(backup '{"dir":"/workspace/a","name":"n","ttl":3600,"excludes":["f*"]}')
	grep -q '^expires 20' "$C/backups/$id"
	echo 'restore c' >"$C/backups/$id"
	[ ! -e "$W/c/f" ]
	[ -e "$W/c/out/x" ]
}

gone_from() { [ ! -e "$1" ]; }
# bats test_tags=server
@test "what fails says so and leaves nothing; ttl= ends it" {
	mkdir "$W/a"
	run bash -c "echo nowhere >$C/backups/new"
	[[ $output == *'No such file'* ]]
	run bash -c "echo ../etc >$C/backups/new"
	[[ $output == *'Invalid argument'* ]]
	run bash -c "echo /etc >$C/backups/new"
	[[ $output == *'Invalid argument'* ]]
	grep -q 'below /workspace' "$C/error"
	run bash -c "echo 'a colour=red' >$C/backups/new"
	[[ $output == *'Invalid argument'* ]]
	run bash -c "echo '{\"dir\":\"a\",\"color\":1}' >$C/backups/new"
	[[ $output == *'Invalid argument'* ]]
	grep -q color "$C/error"
	[ -z "$(kept)" ]
	local id
	id=$(backup a)
	run bash -c "echo 'restore /etc' >$C/backups/$id"
	[[ $output == *'Invalid argument'* ]]
	run bash -c "echo 'rstore' >$C/backups/$id"
	[[ $output == *'Invalid argument'* ]]
	rm "$C/backups/$id"
	id=$(backup 'a ttl=1s')
	wait_until 10 gone_from "$C/backups/$id"
	is_empty "$C/backups"
	[ -z "$(kept)" ]
	[ ! -e "$C/backups/../backups/nosuch" ]
	run mkdir "$C/backups/x"
	[ "$status" != 0 ]
}

@test "a backup outlives its sandbox: destroy, a new one, restore" {
	many || skip 'one sandbox only'
	echo text >"$W/f"
	local id
	id=$(backup .)
	echo 'destroy' >"$C/ctl"
	wait_until 10 test ! -e "$M"
	mkdir "$M"
	is_empty "$W"
	echo restore >"$C/backups/$id"
	[ "$(cat "$W/f")" = text ]
	rm "$C/backups/$id"
}

# bats test_tags=server
@test "reading backups/ in every way changes nothing" {
	mkdir "$W/a"
	local id
	id=$(backup a)
	within 10 grep -r . "$C/backups" >/dev/null
	within 10 find "$C/backups" -ls >/dev/null
	[ "$(ls "$C/backups")" = "$id" ]
}
