# git in the workspace (row 11).
load ../lib/harness

make_repository() { # FILES
	local i
	git init -q "$W/r"
	cd "$W/r"
	mkdir -p src/a src/b
	for i in $(seq "$1"); do echo "content $i" >"src/$([ $((i % 2)) = 0 ] && echo a || echo b)/file$i"; done
	printf '#!/bin/sh\n' >run
	chmod +x run
	git add .
	git commit -q -m first
}

@test "init, add, commit, branch, checkout, merge, gc, fsck" {
	make_repository 60
	git checkout -q -b side
	echo side >>src/a/file2
	rm src/b/file1
	git commit -q -a -m side
	git checkout -q main
	[ "$(cat src/a/file2)" = 'content 2' ]
	[ -e src/b/file1 ]
	echo main >>src/b/file3
	git commit -q -a -m main
	git merge -q -m merge side
	git rebase -q side
	git stash list
	git gc -q
	git fsck --full --strict
	[ -z "$(git status --porcelain)" ]
	[ "$(git log --oneline | wc -l)" -ge 3 ]
}

@test "the sandbox's own git sees a clean tree and the same commit" {
	make_repository 20
	x 'command -v git >/dev/null' || skip 'no git in the sandbox'
	# the sandbox's index was written on this side: a refresh must find no content changed
	[ "$(x 'cd r && git -c safe.directory=* status --porcelain && echo clean')" = clean ]
	[ "$(x 'cd r && git -c safe.directory=* rev-parse HEAD')" = "$(git rev-parse HEAD)" ]
	[ -x run ]
	[ "$(other 'stat -c %a /workspace/r/run' | cut -c1)" = 7 ]
}

@test "after a checkout and a remount git status reads no file" {
	make_repository 40
	git checkout -q -b other
	git checkout -q main
	# entries as young as the index are read again (git's own racy rule): let the clock pass them
	local n=0
	wait_until 10 newer_second src/a/file2
	git update-index --refresh
	touch -d '2020-01-01' "$T/old"
	find src run -exec touch -h -r "$T/old" {} +
	git update-index --refresh -q || :
	git status --porcelain
	cd /
	remount
	cd "$W/r"
	within 60 strace -f -e trace=openat -o "$T/trace" git status --porcelain 2>/dev/null >"$T/status" || {
		GIT_TRACE2_PERF=$T/perf git status --porcelain >"$T/status"
	}
	[ ! -s "$T/status" ]
	if [ -s "$T/trace" ]; then
		n=$(grep -c 'src/[ab]/file' "$T/trace" || :)
		[ "$n" = 0 ]
	fi
	# whichever way: not a byte of file content crossed the link
	[ -z "$(git diff-files)" ]
}
newer_second() { [ "$(date +%s)" -gt "$(stat -c %Y "$1")" ]; }

@test "no file turns modified by itself" {
	make_repository 30
	local i
	for i in 1 2 3; do
		[ -z "$(git diff-files)" ] || { git diff-files; return 1; }
		find . -type f -exec cat {} + >/dev/null
		remount_here
	done
	[ -z "$(git diff-files)" ]
}
remount_here() {
	cd /
	remount
	cd "$W/r"
}

@test "clone of a repository into the workspace and back" {
	git init -q "$T/src"
	cd "$T/src"
	head -c 3000000 /dev/urandom >big
	ln -s big link
	git add .
	git commit -q -m one
	git clone -q "$T/src" "$W/clone"
	cmp big "$W/clone/big"
	[ "$(readlink "$W/clone/link")" = big ]
	cd "$W/clone"
	echo more >more
	git add more
	git commit -q -m two
	git clone -q --no-local "$W/clone" "$T/back"
	cmp "$W/clone/more" "$T/back/more"
	git -C "$T/back" fsck --full
}

@test "no dubious ownership" {
	make_repository 3
	run git -C "$W/r" status
	[[ $output != *dubious* ]]
	[ "$status" = 0 ]
}
