# Editors on files of the workspace: content, mode and (where the editor writes in place) inode as on a disk, no litter,
# and what was saved is in the sandbox (rows 10 and 26).
load ../lib/harness

# emacs keeps no backups below the temporary directory, and leaves compiler's litter there: it gets another one
emacs=(env TMPDIR=/nonexistent-tmp emacs -Q)
prepare() {
	printf 'first\nsecond\n' >"$W/f"
	chmod 750 "$W/f"
	ino=$(stat -c %i "$W/f")
}
saved() { # TEXT
	[ "$(cat "$W/f")" = "$1" ] || { cat "$W/f"; return 1; }
	same_there f
	[ "$(other 'stat -c %a /workspace/f')" = 750 ]
	[ "$(stat -c '%a %u' "$W/f")" = "750 $(id -u)" ]
	[ "$(ls -A "$W")" = f ] || { ls -lA "$W"; return 1; }
	[ "$(other 'ls -A /workspace')" = f ]
}

@test "vim saves" {
	prepare
	within 30 vim -u NONE -N -es -c '%s/second/changed/' -c 'wq' "$W/f" </dev/null
	saved $'first\nchanged'
}

@test "vim saves with backup, swap file, and undo file" {
	prepare
	within 30 vim -u NONE -N -es -c 'set backup writebackup swapfile backupcopy=auto undofile undodir=.' \
		-c "set backupdir=$T directory=." -c '%s/second/changed/' -c 'w' -c 'qa!' "$W/f" </dev/null
	rm -f "$W"/.f.un~ "$T"/f~ "$T"/*.un~
	saved $'first\nchanged'
}

@test "vim saves by rename (backupcopy=no) and in place (backupcopy=yes)" {
	prepare
	within 30 vim -u NONE -N -es -c 'set writebackup backupcopy=no' -c '%s/second/changed/' -c 'wq' "$W/f" </dev/null
	saved $'first\nchanged'
	ino=$(stat -c %i "$W/f")
	within 30 vim -u NONE -N -es -c 'set writebackup backupcopy=yes' -c '%s/changed/again/' -c 'wq' "$W/f" </dev/null
	saved $'first\nagain'
	[ "$(stat -c %i "$W/f")" = "$ino" ]
}

@test "vim in a terminal: open, type, save" {
	prepare
	cat >"$T/e" <<-E
		set timeout $((20 * SLOW))
		spawn -noecho vim -u NONE -N $W/f
		expect "second"
		send "Gothird\033:wq\r"
		expect eof
	E
	within 40 expect -f "$T/e" 3>&- >/dev/null
	saved $'first\nsecond\nthird'
}

@test "nano saves" {
	prepare
	cat >"$T/e" <<-E
		set timeout $((20 * SLOW))
		spawn -noecho nano -I $W/f
		expect "second"
		send "new "
		send "\017"
		expect "Name to Write"
		send "\r"
		expect "Wrote"
		send "\030"
		expect eof
	E
	within 40 expect -f "$T/e" 3>&- >/dev/null
	saved $'new first\nsecond'
	[ "$(stat -c %i "$W/f")" = "$ino" ]
}

@test "emacs saves (batch), with a backup that is the only other file" {
	prepare
	within 60 "${emacs[@]}" --batch --eval '(setq backup-enable-predicate (lambda (n) t))' "$W/f" --eval '(progn (goto-char (point-max)) (insert "third\n") (save-buffer))' </dev/null
	[ "$(cat "$W/f~")" = $'first\nsecond' ]
	rm "$W/f~"
	saved $'first\nsecond\nthird'
}

@test "emacs saves by copying (backup-by-copying), keeping the inode" {
	prepare
	within 60 "${emacs[@]}" --batch --eval '(setq backup-enable-predicate (lambda (n) t))' "$W/f" --eval '(progn (setq backup-by-copying t) (goto-char (point-max)) (insert "third\n") (save-buffer))' </dev/null
	rm "$W/f~"
	saved $'first\nsecond\nthird'
	[ "$(stat -c %i "$W/f")" = "$ino" ]
}

@test "emacs -nw in a terminal: lock file, type, save" {
	prepare
	cat >"$T/e" <<-E
		set timeout $((40 * SLOW))
		spawn -noecho env TMPDIR=$HOME emacs -Q -nw $W/f
		expect "second"
		send "new "
		send "\030\023"
		expect "Wrote"
		send "\030\003"
		expect eof
	E
	within 60 expect -f "$T/e" 3>&- >/dev/null
	rm -f "$W/f~"
	saved $'new first\nsecond'
}

@test "sed -i and perl's way of saving keep mode and content" {
	prepare
	sed -i s/second/changed/ "$W/f"
	saved $'first\nchanged'
}

@test "a save by temporary file, fsync and rename, as gedit and VS Code do it" {
	prepare
	/usr/bin/python3 - "$W" <<-E
		import os, sys
		os.chdir(sys.argv[1])
		fd = os.open(".goutputstream-X", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
		os.write(fd, b"atomic\n")
		os.fchmod(fd, os.stat("f").st_mode & 0o7777)
		os.fsync(fd)
		os.close(fd)
		os.rename(".goutputstream-X", "f")
		d = os.open(".", os.O_RDONLY); os.fsync(d); os.close(d)
	E
	saved atomic
}

@test "a reader in the sandbox never sees a part of a save by rename" {
	printf 'A%.0s' {1..5000} >"$W/f"
	cat >"$W/../workspace/watch.py" <<-'E'
		import os
		bad = 0
		while not os.path.exists("stop"):
		    d = open("f").read()
		    open("begun", "w")
		    if len(d) != 5000 or len(set(d)) != 1: bad += 1
		open("result", "w").write(str(bad))
	E
	echo 'python3 watch.py' >"$C/processes/new"
	wait_until 20 test -e "$W/begun"
	local i c
	for i in $(seq 60); do
		c=$((i % 10))
		printf "$c%.0s" {1..5000} >"$W/.tmp"
		mv "$W/.tmp" "$W/f"
	done
	touch "$W/stop"
	wait_until 20 test -s "$W/result"
	[ "$(cat "$W/result")" = 0 ]
}
