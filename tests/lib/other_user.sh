# shellcheck shell=bash
# What root does with the mount of a user who means it ill, in namespaces of its own: bash other_user.sh DIRECTORY BUILD
#   unshare --mount --pid --fork --mount-proc --propagation private
# Prints a line for what has happened; see crash.bats.
set -eu
T=$1 B=$1/build
mount --bind "$1/fuse" /dev/fuse
mount --bind "$2" "$B"
mount --bind "$1/passwd" /etc/passwd
as_user() { setpriv --reuid 47110 --regid 47110 --clear-groups --inh-caps=-all "$@"; }
until_true() {
	local deadline=$((SECONDS + 20 * ${SLOW:-1}))
	until "$@"; do ((SECONDS < deadline)) || { echo "never: $*"; exit 1; }; sleep 0.05; done
}
mounted() { grep -q " $T/$1 " /proc/self/mounts; }
program() { pgrep -u 47110 -f "^$B/sandboxfs .*$1\$"; }

# what root may not look at
as_user "$B/sandboxfs" local: "$T/home/m"
as_user sh -c "mkdir $T/home/m/a; mkdir $T/home/m/a/ctl/processes/p; echo 'sleep 1000' >$T/home/m/a/ctl/processes/p/cmd"
rc=0
"$B/sandboxfs" -u "$T/home/m" 2>&1 || rc=$?
echo "asked: $rc"

# a number that another's program has got since
pid=$(program home/m)
device=$(awk -v at="$T/home/m" '$5 == at { print $3 }' /proc/self/mountinfo)
kill -9 "$pid"
until_true eval "! kill -0 $pid 2>/dev/null"
as_user /usr/bin/python3 - "$device" >"$T/squatter" <<'END'
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind("\0sandboxfs-mount-" + sys.argv[1])
told, tell = os.pipe()
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    os.read(told, 1)
    time.sleep(1000)
s.listen(64)
print(os.getpid(), child, flush=True)
os.write(tell, b"x")
END
read -r number squatter <"$T/squatter"
until_true eval "! kill -0 $number 2>/dev/null"
# again: a thread or a program that begins at this moment may get it first
for ((tries = 0; tries < 50; tries++)); do
	echo $((number - 1)) >/proc/sys/kernel/ns_last_pid
	sleep 1000 &
	other=$!
	[ $other != "$number" ] || break
	kill $other
done
[ $other = "$number" ] || { echo "number $other, not $number"; exit 1; }
rc=0
"$B/sandboxfs" -u --kill "$T/home/m" || rc=$?
if kill -0 $other; then echo "spared: $rc"; fi
# before the mount, whose device number is the next one's, of another test perhaps
kill -9 "$squatter"
if mounted home/m; then umount -l "$T/home/m"; fi

# a link where a directory of its path was
as_user mkdir -p "$T/home/d/v"
mkdir -p "$T/mnt/v"
mount -t tmpfs tmpfs "$T/mnt/v"
as_user "$B/sandboxfs" local: "$T/home/d/v"
pid=$(program home/d/v)
kill -STOP "$pid"
"$B/sandboxfs" -u "$T/home/d/v" 2>&1 &
asker=$!
until_true pgrep -P $asker >/dev/null
as_user sh -c "mv $T/home/d $T/home/e; ln -s $T/mnt $T/home/d"
kill -CONT "$pid"
rc=0
wait $asker || rc=$?
if mounted mnt/v && mounted home/e/v; then echo "neither: $rc"; fi
as_user "$B/sandboxfs" -u "$T/home/e/v"
