# Archives and backups, by their routes.
load rig

# A tree with everything that an archive should carry.
tree() {
	mkdir -p "$1/sub/deep" "$1/empty"
	(
		cd "$1"
		echo content >file
		ln file hard
		ln -s file link
		ln -s /no/such absolute
		mkfifo fifo
		truncate -s 5M hole
		truncate -s 10M sparse
		echo x | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
		: >sub/nothing
		echo a >$'sub/\xff bytes'
		echo b >$'sub/new\nline é'
		touch "sub/$(printf 'n%.0s' {1..255})"
		chmod 0751 sub
		chmod 0604 file
		setfattr -n user.mark -v 'some value' file 2>/dev/null || :
		touch -d '2001-02-03 04:05:06.123456789' file sub/nothing
		touch -h -d '2002-02-03 04:05:06.5' link
		touch -d '2003-02-03 04:05:06.25' sub empty .
	)
}
# What find sees of it.
seen() { (cd "$1" && find . -printf '%P\t%y\t%s\t%m\t%T@\t%l\t%n\n' | sort && getfattr -R -d . 2>/dev/null | sort); }
# pack PATH [QUERY]; unpack PATH FILE [QUERY]
pack() { http -f "http://x/api/sandboxfs/archive?path=$1&${2:-}"; }
unpack() { http -T "$2" "http://x/api/sandboxfs/archive?path=$1&${3:-}"; }
errno() { field '["context"]["errno"]+" "+str(d["context"]["entries"])'; }

@test "a tree goes out and comes back the same" {
	tree "$W/a"
	pack a >"$T/tar"
	mkdir "$W/b"
	unpack b "$T/tar" >"$T/answer"
	[ "$(field '["success"]' <"$T/answer")" = True ]
	diff <(seen "$W/a") <(seen "$W/b")
	cmp "$W/a/sparse" "$W/b/sparse"
	[ "$W/b/file" -ef "$W/b/hard" ]
	[ "$(stat -c %b "$W/b/hole")" = "$(stat -c %b "$W/a/hole")" ]
	# and over what is there already
	echo old >"$W/b/file"
	rm "$W/b/link"
	mkdir "$W/b/link"
	unpack b "$T/tar" >/dev/null
	diff <(seen "$W/a") <(seen "$W/b")
	[ "$(stat -c %s "$T/tar")" -lt 100000 ]
}

@test "compressed archives, and those of other programs" {
	tree "$W/a"
	rm "$W/a/fifo"
	for kind in gzip zstd lz4; do
		pack a "compression=$kind" >"$T/tar"
		rm -rf "$W/b"
		mkdir "$W/b"
		unpack b "$T/tar" >/dev/null
		diff <(seen "$W/a") <(seen "$W/b")
	done
	for format in gnu posix; do
		tar -C "$W/a" --format=$format --sparse --xattrs -czf "$T/tar" .
		rm -rf "$W/b"
		mkdir "$W/b"
		[ "$(unpack b "$T/tar" | field '["success"]')" = True ]
		diff -r --no-dereference "$W/a" "$W/b"
	done
	mkdir "$T/out"
	pack a | tar -C "$T/out" -x
	diff -r --no-dereference "$W/a" "$T/out"
}

@test "no name leads out of the directory" {
	python3 - "$T" <<-'PY'
		import io, sys, tarfile
		R, S, L, D = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
		def make(name, *items):
		    t = tarfile.open(sys.argv[1] + "/" + name, "w")
		    for path, kind, link in items:
		        i = tarfile.TarInfo(path)
		        i.type, i.linkname = kind, link
		        i.size = 3 if kind == R else 0
		        t.addfile(i, io.BytesIO(b"bad"))
		    t.close()
		make("1", ("good", R, ""), ("../evil", R, ""))
		make("2", ("good", R, ""), (sys.argv[1] + "/evil", R, ""))
		make("3", ("l", S, ".."), ("l/evil", R, ""))
		make("4", ("l", S, sys.argv[1]), ("l/evil", R, ""))
		make("5", ("x/l", S, "../.."), ("x/l/evil/deep", D, ""))
		make("6", ("h", L, "../outside"))
		make("7", ("l", S, ".."), ("h", L, "l/outside"))
		make("8", ("a/../../evil", R, ""))
		make("9", ("l", S, "../outside"), ("l", R, ""))
	PY
	for i in 1 2 3 4 5 6 7 8; do
		rm -rf "$W/in"
		mkdir "$W/in"
		echo safe >"$W/outside"
		[[ $(unpack in "$T/$i" | errno) = EPERM* ]]
		[ "$(cat "$W/outside")" = safe ]
		[ "$(stat -c %h "$W/outside")" = 1 ]
		[ -z "$(find "$T" -name evil)" ]
	done
	# A file takes the place of a link; it is not written through it.
	rm -rf "$W/in"
	mkdir "$W/in"
	[ "$(unpack in "$T/9" | field '["entries"]')" = 2 ]
	[ "$(cat "$W/outside" "$W/in/l")" = safe$'\n'bad ]
	[ ! -L "$W/in/l" ]
}

@test "an archive that is cut is told from a whole one, wherever it was cut" {
	tree "$W/a"
	rm "$W/a/fifo"
	pack a >"$T/tar"
	size=$(stat -c %s "$T/tar")
	mkdir "$W/b"
	for n in 0 100 512 $((size / 4)) $((size / 2)) $((size / 2 / 512 * 512)) $((size - 1536)); do
		head -c "$n" "$T/tar" >"$T/cut"
		[[ $(unpack b "$T/cut" | errno) = EIO* ]]
	done
	# between two files: only the end is missing
	n=$(python3 -c '
import sys, tarfile
m = tarfile.open(sys.argv[1]).getmembers()
print(m[4].offset_data + (m[4].size + 511) // 512 * 512 if not m[4].sparse else m[5].offset - 1024)' "$T/tar")
	head -c "$n" "$T/tar" >"$T/cut"
	[[ $(unpack b "$T/cut" | errno) = EIO* ]]
	pack a compression=gzip >"$T/tar"
	head -c $(($(stat -c %s "$T/tar") - 300)) "$T/tar" >"$T/cut"
	[[ $(unpack b "$T/cut" | errno) = EIO* ]]
	echo nonsense >"$T/cut"
	[[ $(unpack b "$T/cut" | errno) = 'EIO 0' ]]
}

@test "replacing is all or nothing" {
	tree "$W/a"
	rm "$W/a/fifo"
	pack a >"$T/tar"
	mkdir -p "$W/b/old/x"
	touch "$W/b/old/x/y" "$W/b/file2"
	head -c 2000 "$T/tar" >"$T/cut"
	[[ $(unpack b "$T/cut" replace=1 | errno) = EIO* ]]
	[ "$(ls -A "$W/b")" = $'file2\nold' ]
	[ "$(unpack b "$T/tar" replace=1 | field '["success"]')" = True ]
	diff <(seen "$W/a") <(seen "$W/b")
}

@test "a client that goes away in the middle leaves no temporary file" {
	mkdir "$W/b"
	head -c 3000000 /dev/urandom >"$W/r"
	tar -C "$W" -cf "$T/tar" r
	http --max-time 1 --limit-rate 100k -T "$T/tar" "http://x/api/sandboxfs/archive?path=b" || :
	nothing() { [ -z "$(ls -A "$W/b")" ]; }
	wait_until 10 nothing
}

@test "a gigabyte passes in little memory" {
	mkdir "$W/a" "$W/b"
	head -c 300000000 /dev/urandom >"$W/a/r"
	truncate -s 700M "$W/a/h"
	pack a | unpack b - >"$T/answer"
	cmp "$W/a/r" "$W/b/r"
	[ "$(stat -c %s "$W/b/h")" = $((700 << 20)) ]
	rm "$W/a/r" "$W/b/r"
	[ "$SLOW" != 1 ] || [ "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$server/status")" -lt 40000 ]
}

@test "what is left out, and what was wrong, in frames" {
	mkdir -p "$W/a/node_modules/x" "$W/a/src/build" "$W/a/.git"
	touch "$W/a/node_modules/x/y" "$W/a/src/build/o" "$W/a/src/c.tmp" "$W/a/src/c"
	names() { tar t | grep -v '/$' | sort | tr '\n' ' '; }
	[ "$(pack a 'exclude=node_modules&exclude=*.tmp&exclude=src/build' | names)" = "src/c " ]
	rmdir "$W/a/.git"
	git -C "$W/a" init -q
	printf 'build/\n*.tmp\nnode_modules\n' >"$W/a/.gitignore"
	[ "$(pack a 'gitignore=1&exclude=.git' | names)" = ".gitignore src/c " ]
	pack a 'frames=1&exclude=.git' >"$T/frames"
	python3 - "$T/frames" >"$T/tar" <<-'PY'
		import struct, sys
		d = open(sys.argv[1], "rb").read()
		while d:
		    kind, stream, _, n, _ = struct.unpack("<BBHIQ", d[:16])
		    if kind == 2 and stream == 1: sys.stdout.buffer.write(d[16:16 + n])
		    last, d = (kind, d[16:16 + n]), d[16 + n:]
		assert last == (3, struct.pack("<iI", 0, 0)), last
	PY
	[ "$(names <"$T/tar")" = ".gitignore node_modules/x/y src/build/o src/c src/c.tmp " ]
}

@test "wrong requests are refused" {
	touch "$W/file"
	echo x >"$T/body"
	code() { field '["code"]'; }
	[ "$(unpack nope "$T/body" | code)" = FILE_NOT_FOUND ]
	[ "$(unpack file "$T/body" | code)" = NOT_DIRECTORY ]
	[ "$(http -T "$T/body" http://x/api/sandboxfs/archive | code)" = VALIDATION_FAILED ]
	[ "$(http 'http://x/api/sandboxfs/archive?path=nope' | code)" = FILE_NOT_FOUND ]
	[ "$(http 'http://x/api/sandboxfs/archive?path=file' | code)" = NOT_DIRECTORY ]
	[ "$(http "http://x/api/sandboxfs/archive?path=$W&compression=7z" | code)" = VALIDATION_FAILED ]
}

@test "a backup is made and restored" {
	tree "$W/a"
	rm "$W/a/fifo"
	touch -d '2003-02-03 04:05:06.25' "$W/a"
	run post backup/create "{\"dir\":\"$W/a\",\"archivePath\":\"$T/store/x.tar\",\"excludes\":[\"hole\"],\"compression\":{\"format\":\"zstd\"}}"
	[ "$(field '["sizeBytes"]' <<<"$output")" = "$(stat -c %s "$T/store/x.tar")" ]
	[ "$(ls "$T/store")" = x.tar ]
	rm "$W/a/hole"
	touch -d '2003-02-03 04:05:06.25' "$W/a"
	seen "$W/a" >"$T/before"
	rm -r "$W/a/sub"
	touch "$W/a/more"
	[ "$(post backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/store/x.tar\"}" | field '["dir"]')" = "$W/a" ]
	diff "$T/before" <(seen "$W/a")
	[ "$(post backup/restore "{\"dir\":\"$W/new/er\",\"archivePath\":\"$T/store/x.tar\"}" | field '["success"]')" = True ]
	diff "$T/before" <(seen "$W/new/er")
}

# What squashfs keeps of it: whole seconds. Directories were touched meanwhile.
seen_seconds() { seen "$1" | sed -E 's/\.[0-9]*\t/\t/; s/^([^\t]*\td\t[0-9]*\t[0-7]*\t)[0-9]*/\1/'; }

@test "a backup whose name ends in .sqsh is squashfs, as clients of the official API expect" {
	command -v mksquashfs >/dev/null && command -v unsquashfs >/dev/null || skip "no squashfs-tools"
	tree "$W/a"
	rm "$W/a/fifo"
	mkdir -p "$W/a/node_modules/x" "$W/a/sub/node_modules"
	chmod 750 "$W/a"
	touch "$W/a/b.log" "$W/a/sub/c.log" "$W/a/[d]" "$W/a/d"
	git -C "$W/a" init -q
	printf '%s\n' '\[d\]' >"$W/a/.gitignore"
	run post backup/create "{\"dir\":\"$W/a\",\"archivePath\":\"$T/store/x.sqsh\",\"gitignore\":true,\"excludes\":[\"**/node_modules\",\"*.log\",\".git\"],\"compression\":{\"format\":\"zstd\"}}"
	[ "$(field '["sizeBytes"]' <<<"$output")" = "$(stat -c %s "$T/store/x.sqsh")" ]
	[ "$(ls "$T/store")" = x.sqsh ]
	[ "$(head -c 4 "$T/store/x.sqsh")" = hsqs ]
	rm -r "$W/a/node_modules" "$W/a/sub/node_modules" "$W/a/.git" "$W/a/[d]"
	rm "$W/a/b.log" "$W/a/sub/c.log"
	seen_seconds "$W/a" >"$T/before"
	rm -r "$W/a/sub"
	touch "$W/a/more"
	[ "$(post backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/store/x.sqsh\"}" | field '["dir"]')" = "$W/a" ]
	diff "$T/before" <(seen_seconds "$W/a")
	[ "$(post backup/restore "{\"dir\":\"$W/new/er\",\"archivePath\":\"$T/store/x.sqsh\"}" | field '["success"]')" = True ]
	diff "$T/before" <(seen_seconds "$W/new/er")
	# a broken one changes nothing
	head -c 200 "$T/store/x.sqsh" >"$T/cut.sqsh"
	touch "$W/a/kept"
	[ "$(status backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/cut.sqsh\"}")" = "500 BACKUP_RESTORE_FAILED" ]
	[ -e "$W/a/kept" ]
	[ -z "$(ls -A "$W/a" | grep sandboxd)" ]
}

@test "backups that cannot be" {
	mkdir "$W/a"
	[ "$(status backup/create "{\"dir\":\"$W/nope\",\"archivePath\":\"$T/x\"}")" = "500 BACKUP_CREATE_FAILED" ]
	[ "$(status backup/create "{\"dir\":\"a\",\"archivePath\":\"$T/x\"}")" = "400 INVALID_BACKUP_CONFIG" ]
	[ "$(status backup/create "{\"dir\":\"$W/a\"}")" = "400 INVALID_BACKUP_CONFIG" ]
	[ "$(status backup/create "{\"dir\":\"$W/a\",\"archivePath\":\"$T/x\",\"compression\":{\"format\":\"rar\"}}")" = "400 INVALID_BACKUP_CONFIG" ]
	[ "$(status backup/create "{\"dir\":\"$W/a\",\"archivePath\":\"/proc/x\"}")" = "500 BACKUP_CREATE_FAILED" ]
	[ "$(status backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/nope\"}")" = "500 BACKUP_RESTORE_FAILED" ]
	echo hsqsxxxx >"$T/squash"
	[ "$(status backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/squash\"}")" = "500 BACKUP_RESTORE_FAILED" ]
	touch "$W/a/kept"
	echo nonsense >"$T/nonsense"
	[ "$(status backup/restore "{\"dir\":\"$W/a\",\"archivePath\":\"$T/nonsense\"}")" = "500 BACKUP_RESTORE_FAILED" ]
	[ "$(ls -A "$W/a")" = kept ]
}

# Makes LEVELS directories in each other, deeper than any path may be long, and a file in the last.
deep() { # DIR LEVELS
	python3 - "$@" <<-'PY'
		import os, sys
		at = os.open(sys.argv[1], os.O_RDONLY)
		for i in range(int(sys.argv[2])):
		    os.mkdir("d", dir_fd=at)
		    next = os.open("d", os.O_RDONLY, dir_fd=at)
		    os.close(at)
		    at = next
		os.close(os.open("last", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=at))
		os.utime(at, ns=(0, 1234567890 * 10**9 + 5))
	PY
}
# How deep it is; the last directory has its file and its time.
depth() {
	python3 - "$1" <<-'PY'
		import os, sys
		at = os.open(sys.argv[1], os.O_RDONLY)
		n = 0
		while "d" in os.listdir(at):
		    next = os.open("d", os.O_RDONLY, dir_fd=at)
		    os.close(at)
		    at = next
		    n += 1
		assert os.listdir(at) == ["last"], os.listdir(at)
		assert os.fstat(at).st_mtime_ns == 1234567890 * 10**9 + 5
		print(n)
	PY
}

@test "a tree of 12000 levels goes out, comes in, is replaced and replaces" {
	mkdir "$W/a" "$W/b" "$W/c"
	deep "$W/a" 12000
	touch "$W/c/shallow"
	pack a compression=zstd >"$T/deep"
	pack c >"$T/shallow"
	[ "$(unpack b "$T/deep" | field '["success"]')" = True ]
	[ "$(depth "$W/b")" = 12000 ]
	[ "$(unpack b "$T/shallow" replace=1 | field '["success"]')" = True ]
	[ "$(ls -A "$W/b")" = shallow ]
	[ "$(unpack b "$T/deep" replace=1 | field '["success"]')" = True ]
	[ "$(depth "$W/b")" = 12000 ]
	# one that is cut goes again
	head -c $(($(stat -c %s "$T/deep") / 2)) "$T/deep" >"$T/cut"
	[[ $(unpack c "$T/cut" replace=1 | errno) = EIO* ]]
	[ "$(ls -A "$W/c")" = shallow ]
	[ "$(ls "/proc/$server/fd" | wc -l)" -lt 60 ]
	rm -rf "$W/a" "$W/b"
}

@test "replacing where something is mounted is EBUSY, and touches nothing" {
	[ "$(id -u)" = 0 ] || skip 'mounts need root'
	mkdir -p "$W/b/x/data" "$W/a"
	touch "$W/b/old" "$W/a/new" "$W/b/x/file" "$T/other"
	pack a >"$T/tar"
	stop
	# in a namespace of its own: it goes with the server
	# shellcheck disable=SC2016
	WRAP=("$repo/tests/lib/unshared" sh -c 'mount -t tmpfs none "$0/b/x/data" && : >"$0/b/x/data/object" && exec "$@"' "$W")
	serve
	inside=/proc/$server/root$W
	[[ $(unpack b "$T/tar" replace=1 | errno) = EBUSY* ]]
	[[ $(unpack b "$T/tar" replace=1) = *x/data*'mounted there'* ]]
	[[ $(post backup/restore "{\"dir\":\"$W/b\",\"archivePath\":\"$T/tar\"}") = *'mounted there'* ]]
	[ "$(ls -A "$W/b" "$inside/b/x/data")" = "$(printf '%s:\nobject\n\n%s:\nold\nx' "$inside/b/x/data" "$W/b")" ]
	# of a file too
	stop
	# shellcheck disable=SC2016
	WRAP=("$repo/tests/lib/unshared" sh -c 'mount --bind "$1" "$0/b/x/file" && shift && exec "$@"' "$W" "$T/other")
	serve
	[[ $(unpack b "$T/tar" replace=1 | errno) = EBUSY* ]]
	[ "$(ls -A "$W/b")" = $'old\nx' ]
	stop
	WRAP=()
	serve
	[ "$(unpack b "$T/tar" replace=1 | field '["success"]')" = True ]
	[ "$(ls -A "$W/b")" = new ]
}

@test "directories that lack w and x are replaced, and come" {
	mkdir -p "$W/b/shut/in" "$W/b/ro/in/in" "$W/a/ro/in"
	touch "$W/b/shut/in/f" "$W/b/ro/in/f" "$W/a/ro/in/f"
	chmod 555 "$W/b/ro/in/in" "$W/b/ro/in" "$W/b/ro" "$W/a/ro/in" "$W/a/ro"
	chmod 0 "$W/b/shut"
	pack a >"$T/tar"
	head -c 600 "$T/tar" >"$T/cut"
	[[ $(unpack b "$T/cut" replace=1 | errno) = EIO* ]]
	[ "$(stat -c %a "$W/b/shut" "$W/b/ro" | tr '\n' ' ')" = '0 555 ' ]
	[ "$(unpack b "$T/tar" replace=1 | field '["success"]')" = True ]
	diff <(seen "$W/a") <(seen "$W/b")
	[ "$(ls -A "$W/b")" = ro ]
	chmod -R u+w "$W"
}

@test "what is another's stays, and all with it" {
	[ "$(id -u)" = 0 ] || skip 'it takes two users'
	mkdir -p "$W/b/mine" "$W/b/theirs/deep" "$W/b/zero" "$W/a"
	touch "$W/b/theirs/deep/f" "$W/a/new"
	pack a >"$T/tar"
	stop
	chmod 755 "$T"
	chown -R 65534:65534 "$T/spool" "$W"
	chown -R 0:0 "$W/b/theirs/deep"
	WRAP=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	chown 65534 "$T"
	rm -f "$T/s" "$T/log"
	serve
	before=$(seen "$W/b")
	[[ $(unpack b "$T/tar" replace=1 | errno) = EACCES* ]]
	diff <(echo "$before") <(seen "$W/b")
	rm -r "$W/b/theirs"
	# an empty one of another's can be removed, but not moved: that shows in the middle only
	chown 0:0 "$W/b/zero"
	before=$(seen "$W/b")
	[[ $(unpack b "$T/tar" replace=1) = *'nothing was changed'* ]]
	diff <(echo "$before") <(seen "$W/b")
}

@test "more directories than are kept in memory get their times" {
	python3 - "$T/tar" <<-'PY'
		import sys, tarfile
		t = tarfile.open(sys.argv[1], "w", format=tarfile.USTAR_FORMAT)
		for i in range(20000):
		    e = tarfile.TarInfo("directory-%d/%s-%d" % (i % 100, "n" * 80, i))
		    e.type, e.mode, e.mtime = tarfile.DIRTYPE, 0o755, 1000000000 + i
		    t.addfile(e)
		t.close()
	PY
	mkdir "$W/b"
	[ "$(unpack b "$T/tar" replace=1 | field '["entries"]')" = 20000 ]
	[ "$(stat -c %Y "$W/b"/directory-7/*-7 "$W/b"/directory-99/*-19999 | tr '\n' ' ')" = '1000000007 1000019999 ' ]
}
