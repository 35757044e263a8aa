# Programs that build, copy and keep databases in the workspace.
load ../lib/harness

@test "make of a small C project builds what changed and nothing else (row 28)" {
	mkdir "$W/p"
	cd "$W/p"
	printf '#include "a.h"\n#include <stdio.h>\nint main(void) { printf("%%d\\n", a()); return 0; }\n' >main.c
	printf 'int a(void);\n' >a.h
	printf '#include "a.h"\nint a(void) { return 42; }\n' >a.c
	printf 'p: main.o a.o\n\tcc -o $@ $^\n%%.o: %%.c a.h\n\tcc -c $< -o $@\n\techo $< >> built\n' >Makefile
	make -s
	[ "$(./p)" = 42 ]
	[ "$(sort built | xargs)" = 'a.c main.c' ]
	run make -q
	[ "$status" = 0 ]
	sed -i s/42/43/ a.c
	make -s
	[ "$(sort built | xargs)" = 'a.c a.c main.c' ]
	[ "$(./p)" = 43 ]
	[ "$(x 'cd p && ./p')" = 43 ]
	run x 'cd p && make -q'
	[ "$status" = 0 ]
	cd /
	remount
	run make -q -C "$W/p"
	[ "$status" = 0 ]
}

@test "echo make > exec; ./out works, always" {
	local i
	mkdir "$W/p"
	printf 'int main(void) { return VALUE; }\n' >"$W/p/m.c"
	for i in 1 2 3 4 5; do
		echo "cd p && cc -DVALUE=$i -o out m.c" >"$C/exec"
		run "$W/p/out"
		[ "$status" = "$i" ]
	done
}

tree() { # DIRECTORY: files, directories and links with modes and times
	mkdir -p "$1/d/e" "$1/empty"
	local i
	for i in $(seq 60); do head -c $((i * 997)) /dev/urandom >"$1/d/f$i"; done
	printf '#!/bin/sh\n' >"$1/d/e/run"
	chmod 755 "$1/d/e/run"
	chmod 600 "$1/d/f1"
	chmod 711 "$1/d/e"
	ln -s ../f2 "$1/d/e/link"
	ln "$1/d/f3" "$1/d/hard"
	touch -d '2003-04-05 06:07:08.987654321 UTC' "$1/d/f4"
	touch -d '1999-01-01 UTC' "$1/empty"
	truncate -s 5M "$1/sparse"
}
listing() { (cd "$1" && find . -mindepth 1 -printf '%p %y %m %T@ %l\n' | sort; find . -type f -exec sha256sum {} + | sort); }
same_tree() {
	diff <(cd "$1" && listing .) <(cd "$2" && listing .)
}

@test "tar x keeps content, modes, times and links" {
	tree "$T/src"
	tar -C "$T/src" --format=posix -cf "$T/a.tar" .
	mkdir "$W/t"
	tar -C "$W/t" -xpf "$T/a.tar"
	same_tree "$T/src" "$W/t"
	[ "$(stat -c %h "$W/t/d/hard")" = 2 ]
	x 'cd t && tar -cf - . | tar -tvf - >/dev/null'
	[ "$(other 'cd /workspace/t && find . -type f -exec sha256sum {} + | sort | sha256sum')" = "$(cd "$T/src" && find . -type f -exec sha256sum {} + | sort | sha256sum)" ]
	[ "$(other 'stat -c "%a %Y" /workspace/t/d/f4')" = "$(stat -c '%a %Y' "$T/src/d/f4")" ]
	tar -C "$W/t" --format=posix -cf "$T/b.tar" .
	mkdir "$T/back"
	tar -C "$T/back" -xpf "$T/b.tar"
	same_tree "$T/src" "$T/back"
}

@test "rsync -a copies, and a second one finds nothing to do" {
	tree "$T/src"
	rsync --modify-window=-1 -aH "$T/src/" "$W/r/"
	same_tree "$T/src" "$W/r"
	[ -z "$(rsync --modify-window=-1 -aHi "$T/src/" "$W/r/")" ]
	cd /
	remount
	[ -z "$(rsync --modify-window=-1 -aHi "$T/src/" "$W/r/")" ]
	echo more >>"$T/src/d/f7"
	[ "$(rsync --modify-window=-1 -aHi "$T/src/" "$W/r/" | grep -c '^>f')" = 1 ]
	rsync --modify-window=-1 -aH "$W/r/" "$T/back/"
	same_tree "$T/src" "$T/back"
}

@test "cp -a and mv of a tree" {
	tree "$T/src"
	cp -a "$T/src" "$W/c"
	same_tree "$T/src" "$W/c"
	mv "$W/c" "$W/moved"
	same_tree "$T/src" "$W/moved"
	rm -r "$W/moved"
	[ "$(other 'ls -A /workspace; echo nothing else')" = 'nothing else' ]
}

@test "sqlite3 with 4 processes keeps its database whole (row 30)" {
	local i pids=()
	sqlite3 "$W/db" 'create table t (who int, n int);'
	for i in 1 2 3 4; do
		(
			for n in $(seq 25); do
				echo ".timeout $((60000 * SLOW))"
				echo "insert into t values ($i, $n);"
			done | sqlite3 -bail "$W/db"
		) >"$T/sql$i" 2>&1 3>&- &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || { cat "$T"/sql*; return 1; }; done
	[ "$(sqlite3 "$W/db" 'select count(*), count(distinct who) from t;')" = '100|4' ]
	[ "$(sqlite3 "$W/db" 'pragma integrity_check;')" = ok ]
	[ -z "$(ls "$W" | grep -v '^db$')" ]
	same_there db
	[ "$(x "python3 -c \"import sqlite3; print(sqlite3.connect('db').execute('pragma integrity_check').fetchone()[0])\"")" = ok ]
}

@test "python's mmap writes and reads, shared between two processes" {
	within 30 /usr/bin/python3 - "$W/m" <<-E
		import mmap, os, sys
		size = 1 << 20
		with open(sys.argv[1], "wb") as f: f.truncate(size)
		f = open(sys.argv[1], "r+b")
		m = mmap.mmap(f.fileno(), size)
		m[0:5] = b"begin"; m[size - 3:] = b"end"
		pid = os.fork()
		if pid == 0:
		    g = open(sys.argv[1], "r+b"); n = mmap.mmap(g.fileno(), size)
		    ok = n[0:5] == b"begin"; n[500000:500005] = b"child"; n.flush()
		    os._exit(0 if ok else 1)
		assert os.waitpid(pid, 0)[1] == 0
		assert m[500000:500005] == b"child"
		m.flush(); m.close(); f.close()
	E
	same_there m
	[ "$(other 'tail -c 3 /workspace/m')" = end ]
}

@test "a mapping that was closed without msync is in the sandbox" {
	/usr/bin/python3 - "$W/m" <<-E
		import mmap, os, sys
		f = open(sys.argv[1], "w+b"); f.truncate(100000)
		m = mmap.mmap(f.fileno(), 100000)
		for i in range(0, 100000, 1000): m[i:i+4] = b"mark"
		f.close(); m.close()
	E
	wait_until 5 bash -c "[ \$(grep -c . <(tr -d '\\0' < '$W/m' | fold -w4)) -ge 100 ]"
	echo 'tr -d "\0" < m | wc -c' >"$C/exec"
	[ "$(cat "$C/exec")" = 400 ]
}

@test "a dynamic linker, an interpreter and a shell script run from the workspace" {
	cp /bin/true "$W/true"
	"$W/true"
	printf 'import sys; print(sys.argv[1])\n' >"$W/s.py"
	[ "$(/usr/bin/python3 "$W/s.py" x)" = x ]
	[ "$(cd "$W" && /usr/bin/python3 -c 'import s' 2>&1 | tail -n 1 | cut -c1-10)" = IndexError ]
	rm -rf "$W/__pycache__"
}
