# A local sandbox runs what nobody has checked. What it cannot see, open, reach or use up.
# Probes run inside as /workspace/probe.py; a probe prints what it could do and should not have, so that silence is success,
# and a last line that shows that it looked.
SERVER=local NO_START=1
load ../lib/harness

inside() { # a probe in python, from stdin; its output
	cat >"$W/probe.py"
	x 'python3 -I /workspace/probe.py'
}
# Nothing but a last line `looked at N`, N at least $1.
nothing_but_looked() {
	echo "$output"
	[ "$status" = 0 ]
	[ "${#lines[@]}" = 1 ]
	[[ ${lines[0]} == "looked at "* ]]
	[ "${lines[0]#looked at }" -ge "$1" ]
}

# --- kernel files ---

@test "no file of /proc/sys can be opened for writing, and nothing else of /proc that is not a process" {
	start
	run inside <<-'E'
		import os
		n = 0
		for top in ["/proc"]:
		    for d, dirs, files in os.walk(top):
		        if d == "/proc":
		            dirs[:] = [x for x in dirs if not x.isdigit()]
		        for f in files:
		            p = os.path.join(d, f)
		            n += 1
		            try:
		                os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK))
		                print("writable:", p)
		            except OSError:
		                pass
		for p in ["/proc/sys", "/proc/sys/net/ipv4", "/proc/sys/kernel"]:
		    try:
		        os.close(os.open(p + "/x", os.O_WRONLY | os.O_CREAT))
		        print("makes files in:", p)
		    except OSError:
		        pass
		print("looked at", n)
	E
	nothing_but_looked 500
}

@test "no capability, no new one, no namespace, no mount" {
	start
	run inside <<-'E'
		import ctypes, os
		libc = ctypes.CDLL(None, use_errno=True)
		n = 0
		for line in open("/proc/self/status"):
		    name, value = line.split(":", 1)
		    if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
		        n += 1
		        if int(value, 16): print(line)
		    if name == "NoNewPrivs":
		        n += 1
		        if value.strip() != "1": print(line)
		for what, flag in dict(user=0x10000000, mount=0x20000, net=0x40000000, pid=0x20000000).items():
		    n += 1
		    if libc.unshare(flag) == 0: print("unshared", what)
		if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0: print("mounted")
		if libc.chroot(b"/tmp") == 0: print("chroot")
		print("looked at", n)
	E
	nothing_but_looked 10
}

# --- files of the host ---

@test "the sandbox sees these directories and these files of /etc, and no more" {
	start
	run -0 x 'ls -A /'
	echo "$output"
	for name in $output; do
		case $name in
		.sandboxd | bin | dev | etc | home | lib | lib32 | lib64 | libx32 | proc | root | run | sbin | tmp | usr | var | workspace) ;;
		*) echo "/$name"; return 1 ;;
		esac
	done
	run x 'ls -A /etc /etc/ssl /home /root /run /var /var/tmp /tmp /dev/shm | grep -v "^$"'
	echo "$output"
	# what plots need of /etc, where the host has it
	plots() { ! [ -e "/etc/$1" ] || echo "$1 "; }
	[ "$(echo "$output" | tr '\n' ' ')" = "/dev/shm: /etc: alternatives $(plots fonts)group host.conf hostname hosts ld.so.cache ld.so.conf ld.so.conf.d $(plots matplotlibrc)mtab nsswitch.conf os-release passwd resolv.conf shells ssl /etc/ssl: certs /home: /root: /run: /tmp: /var: tmp /var/tmp: " ]
	[ "$(x 'cut -d: -f1 /etc/passwd' | tr '\n' ' ')" = 'root nobody ' ]
	run -0 x 'cut -d" " -f5 /proc/self/mountinfo | sort'
	echo "$output"
	for name in $output; do
		case $name in
		/ | /usr | /bin | /sbin | /lib | /lib32 | /lib64 | /libx32 | /proc | /proc/sys | /proc/pressure | /dev | /dev/null | /dev/zero | /dev/full) ;;
		/dev/random | /dev/urandom | /dev/tty | /dev/pts | /dev/shm | /tmp | /root | /home | /run | /var/tmp | /workspace) ;;
		/.sandboxd/sandboxd | /.sandboxd/spool | /etc/ssl/certs | /etc/alternatives | /etc/ld.so.* | /etc/fonts | /etc/matplotlibrc) ;;
		*) echo "mounted: $name"; return 1 ;;
		esac
	done
}

@test "a file of the host that everybody may read is not there" {
	start
	chmod 755 "$T"
	echo secret >"$T/secret"
	chmod 644 "$T/secret"
	[ "$(cat "$T/secret")" = secret ]
	x "! cat $T/secret && ! ls $T && ! ls $HOME" 2>/dev/null
	x 'for d in sys boot srv opt mnt; do ! ls /$d || exit 1; done' 2>/dev/null
	for way in "$T/secret" "../../../../../..$T/secret" "/proc/self/cwd/../..$T/secret" "/proc/1/root$T/secret"; do
		x "! cat $way" 2>/dev/null
	done
}

@test "what comes from the host is read-only, and the root and /dev hold nothing" {
	start
	run inside <<-'E'
		import os
		n = 0
		for d in ["/", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/etc", "/etc/ssl/certs", "/etc/alternatives", "/etc/fonts", "/dev",
		          "/.sandboxd", "/var", "/proc/sys"]:
		    n += 1
		    try:
		        os.close(os.open(d + "/made", os.O_WRONLY | os.O_CREAT))
		        print("wrote in", d)
		    except OSError:
		        pass
		for f in ["/.sandboxd/sandboxd", "/etc/passwd", "/etc/hosts", "/etc/ld.so.cache", "/usr/bin/env"]:
		    n += 1
		    try:
		        os.close(os.open(f, os.O_WRONLY))
		        print("opened", f)
		    except OSError:
		        pass
		print("looked at", n)
	E
	nothing_but_looked 17
}

@test "no block device, no kernel memory, no terminal of the host" {
	start
	run inside <<-'E'
		import os, stat
		usual = {"full", "null", "random", "tty", "urandom", "zero", "pts/ptmx"}
		n = 0
		for d, dirs, files in os.walk("/dev"):
		    for f in files:
		        p = os.path.join(d, f)
		        n += 1
		        mode = os.lstat(p).st_mode
		        if stat.S_ISBLK(mode): print("a block device:", p)
		        if stat.S_ISCHR(mode) and p[5:] not in usual: print("a device:", p)
		try:
		    os.open("/dev/tty", os.O_RDWR)
		    print("a terminal")
		except OSError:
		    pass
		print("looked at", n)
	E
	nothing_but_looked 7
}

# --- processes of the host ---

@test "no process of the host is visible, and pid 1 is the sandbox's server" {
	start
	sleep $S 3>&- &
	echo $! >>"$T/pids"
	[ "$(x "cat /proc/*/cmdline | tr '\0' ' ' | grep -c '[s]leep $S'")" = 0 ]
	[ "$(x 'tr "\0" " " </proc/1/cmdline | cut -d" " -f1')" = /.sandboxd/sandboxd ]
	[ "$(x 'ls -d /proc/[0-9]* | wc -l')" -lt 10 ]
	! x "kill -0 $!" 2>/dev/null || false
	kill -0 $!
	for ns in pid net ipc uts mnt user; do
		[ "$(x "readlink /proc/self/ns/$ns")" != "$(readlink /proc/self/ns/$ns)" ]
	done
	[ "$(x hostname 2>/dev/null || x 'cat /proc/sys/kernel/hostname')" = demo ]
}

@test "root in the sandbox is not root on the host, and what it makes belongs to an ordinary uid" {
	start
	[ "$(x 'id -u')" = 0 ]
	x 'mkdir d; touch d/f; chmod 4755 d/f'
	local file pid looked=0
	file=$(find "$T/data" -path '*/workspace/d/f')
	[ "$(stat -c %u "$file")" != 0 ]
	for pid in $(test_processes | cut -d: -f1); do
		case $(readlink "/proc/$pid/exe") in
		*/sandboxd | */slirp4netns | */bwrap) ;;
		*) continue ;;
		esac
		cp "/proc/$pid/status" "$T/status" 2>/dev/null || continue # it has ended
		looked=$((looked + 1))
		echo "$pid $(grep ^Uid "$T/status")"
		! grep -q '^Uid:.*\b0\b' "$T/status" || return 1
		grep -qP '^Groups:\s*(0|'"$(id -g)"')?\s*$' "$T/status" || [ "$(id -u)" != 0 ]
	done
	((looked >= 1)) # a user may not look at the sandbox's own
}

@test "a command can neither stop nor kill the sandbox's server" {
	start
	x 'kill -9 1; kill -STOP 1; kill -9 -1' || :
	[ "$(x 'echo alive')" = alive ]
	[ "$(head -n 1 "$C/status")" = running ]
}

# --- what is inherited ---

@test "a command has descriptors 0 1 2 and no other" {
	echo secret >"$T/secret"
	exec 17<"$T/secret" 18<>"$T/tmp/f"
	start
	rm "$T/tmp/f"
	[ "$(x 'python3 -I -c "import os; print(*sorted(map(int, os.listdir(\"/proc/self/fd\"))))"')" = '0 1 2 3' ]
	[ "$(x 'readlink /proc/$$/fd/0')" = /dev/null ]
	[ "$(x 'cat; echo end')" = end ]
	# nor has any process there something of the host
	run x 'ls -l /proc/[0-9]*/fd 2>/dev/null'
	[[ $output == *' -> /dev/null'* && $output != *"$T"* ]]
	exec 17<&- 18<&-
}

@test "no environment of the host reaches a command, sandboxd or bubblewrap" {
	export SECRET_TOKEN=$S LD_LIBRARY_PATH=/tmp BASH_ENV=/etc/profile
	start
	unset LD_LIBRARY_PATH BASH_ENV
	run -0 x 'env | cut -d= -f1 | sort | tr "\n" " "'
	echo "$output"
	for name in $output; do
		case $name in HOME | LANG | LC_ALL | PATH | PWD | SHELL | SHLVL | USER | LOGNAME | TERM | _) ;; *) return 1 ;; esac
	done
	run x 'cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr "\0" "\n"'
	[[ $output == *sandboxd* && $output != *$S* && $output != *"$T"* ]]
	for pid in $(test_processes | cut -d: -f1); do
		case $(readlink "/proc/$pid/exe") in
		*/sandboxd | */slirp4netns | */bwrap) ! grep -q SECRET_TOKEN "/proc/$pid/environ" 2>/dev/null || return 1 ;;
		esac
	done
}

@test "no key of the user's session keyring is there" {
	/usr/bin/python3 - "$sandboxfs" "$MNT" <<-'E'
		import ctypes, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		libc.syscall(250, 1, None)                    # a session keyring of this test's own
		if libc.syscall(248, b"user", b"sbxt-secret", b"v", 1, -3) < 0: sys.exit(99)
		assert b"sbxt-secret" in open("/proc/keys", "rb").read()
		os.execv(sys.argv[1], [sys.argv[1], "local:", sys.argv[2]])
	E
	url=local: NAME=demo M=$MNT/demo W=$MNT/demo/workspace C=$MNT/demo/ctl
	mkdir "$M"
	run inside <<-'E'
		import ctypes
		libc = ctypes.CDLL(None, use_errno=True)
		n = 0
		for ring in (-1, -2, -3, -4, -5):
		    n += 1
		    if libc.syscall(250, 10, ring, b"user", b"sbxt-secret", 0) > 0: print("found in", ring)
		print("looked at", n)
	E
	nothing_but_looked 5
}

# --- the listening socket ---

@test "the listening socket is not to be had: no link, no descriptor, no ptrace, no memory" {
	start
	run inside <<-'E'
		import ctypes, os
		libc = ctypes.CDLL(None, use_errno=True)
		n = 0
		pidfd = libc.syscall(434, 1, 0)
		if pidfd < 0: print("no pidfd: the probe is wrong")
		for fd in range(64):
		    n += 1
		    if libc.syscall(438, pidfd, fd, 0) >= 0: print("pidfd_getfd", fd)
		    for mode in os.O_RDONLY, os.O_RDWR, os.O_PATH:
		        try:
		            os.open(f"/proc/1/fd/{fd}", mode | os.O_NONBLOCK)
		            print("opened", fd)
		        except OSError:
		            pass
		    try:
		        print(os.readlink(f"/proc/1/fd/{fd}"))
		    except OSError:
		        pass
		for request in 16, 0x4206:                    # PTRACE_ATTACH, PTRACE_SEIZE
		    if libc.ptrace(request, 1, None, None) == 0: print("ptrace", request)
		for f in "mem", "environ", "maps", "auxv", "root", "cwd", "exe", "ns/net", "ns/mnt":
		    n += 1
		    try:
		        os.open("/proc/1/" + f, os.O_RDONLY)
		        if f == "environ" and not open("/proc/1/" + f).read(): continue
		        print("opened", f)
		    except OSError:
		        pass
		print("looked at", n)
	E
	nothing_but_looked 70
	# and no path leads to it
	x "! find / -xdev -type s | grep ."
}

# --- network ---

# A link's own address is looked at for a second or two before it is used, and says so.
settled() { [[ $(x 'ip addr') != *tentative* ]]; }
with_network() {
	start "$@"
	x true
	wait_until 20 settled
	grep '^network' "$C/status"
	grep -qE '^network (internet|lan)$' "$C/status" || skip "$(grep '^network' "$C/status")"
}

# Listens on every address of the host, TCP and UDP and a multicast group, and in the abstract socket name space; notes who comes.
listeners() {
	/usr/bin/python3 - "$T/heard" "$T/port" "sbxt-$S" <<-'E' 3>&- &
		import os, select, socket, struct, sys
		while True:
		    tcp = socket.socket(); tcp.bind(("0.0.0.0", 0)); tcp.listen(50)
		    port = tcp.getsockname()[1]
		    six = socket.socket(socket.AF_INET6); six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
		    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    try: six.bind(("::", port)); udp.bind(("0.0.0.0", port))
		    except OSError: continue                  # that number is another program's there
		    six.listen(50)
		    break
		for line in os.popen("ip -4 -o addr"):
		    try: udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
		        socket.inet_aton("239.1.2.3") + socket.inet_aton(line.split()[3].split("/")[0]))
		    except OSError: pass
		ab = socket.socket(socket.AF_UNIX); ab.bind("\0" + sys.argv[3]); ab.listen(5)
		with open(sys.argv[2] + ".new", "w") as f: f.write(str(port))
		os.rename(sys.argv[2] + ".new", sys.argv[2])
		while True:
		    for s in select.select([tcp, six, udp, ab], [], [])[0]:
		        who = s.recvfrom(100) if s is udp else s.accept()[1]
		        with open(sys.argv[1], "a") as f: f.write(f"{who}\n")
	E
	echo $! >>"$T/pids"
	wait_until 10 test -s "$T/port"
	port=$(cat "$T/port")
}
host_addresses() { ip -o addr | awk '{ sub("/.*", "", $4); print $4 }'; }

reach_probe() { # ADDRESS...: tries each by TCP and UDP, plainly and by every way around the routes
	cat >"$W/probe.py" <<-'E'
		import fcntl, socket, struct, sys
		port, addresses = int(sys.argv[1]), sys.argv[2:]
		n = 0
		def attempt(what, f):
		    global n
		    n += 1
		    try:
		        f()
		        print("reached:", what)
		    except OSError:
		        pass
		def tcp(a, device):
		    s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET)
		    s.settimeout(2)
		    if device: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
		    s.connect((a, port))
		def udp(a, device, source=None):
		    s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM)
		    if device: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
		    if ":" not in a:
		        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
		        if source: s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
		    s.sendto(b"x", (a, port))
		def pktinfo(a):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    info = struct.pack("=I4s4s", socket.if_nametoindex("tap0"), bytes(4), bytes(4))
		    s.sendmsg([b"x"], [(socket.IPPROTO_IP, 8, info)], 0, (a, port))
		own = fcntl.ioctl(socket.socket(), 0x8915, struct.pack("256s", b"tap0"))[20:24]
		gateway, dns = (socket.inet_ntoa(own[:3] + bytes([x])) for x in (2, 3))
		for a in addresses + [gateway, dns, "255.255.255.255", socket.inet_ntoa(own[:3] + b"\xff")]:
		    if a.startswith("127.") or a == "::1":
		        continue          # the sandbox's own
		    for device in False, True:
		        attempt(f"tcp {a} {device}", lambda: tcp(a, device))
		        if ":" not in a:
		            attempt(f"udp {a} {device}", lambda: udp(a, device))
		    if ":" not in a: attempt(f"pktinfo {a}", lambda: pktinfo(a))
		for device in False, True:
		    attempt(f"multicast {device}", lambda: udp("239.1.2.3", device))
		attempt("multicast by address", lambda: udp("239.1.2.3", False, socket.inet_ntoa(own)))
		print("looked at", n)
	E
	x "python3 -I /workspace/probe.py $port $*"
}

@test "no address of the host and no loopback of it can be reached, by no way around the routes" {
	listeners
	with_network
	# shellcheck disable=SC2046
	run reach_probe $(host_addresses) 10.0.2.2 10.0.2.3 169.254.169.254 192.168.1.1 172.17.0.1 100.64.0.1
	nothing_but_looked 30
	x "! python3 -I -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect(chr(0) + \"sbxt-$S\")'" 2>/dev/null
	x "! python3 -I -c 'import socket; s=socket.socket(); s.settimeout(2); s.connect((\"127.0.0.1\", $port))'" 2>/dev/null
	[ ! -e "$T/heard" ] || { cat "$T/heard"; return 1; }
	# the listeners do listen:
	/usr/bin/python3 -c "import socket; s=socket.create_connection(('127.0.0.1', $port))"
	wait_until 5 test -s "$T/heard"
}

@test "net=lan: private ranges are open, the host's own addresses and link-local ones are not" {
	listeners
	with_network -o net=lan
	# shellcheck disable=SC2046
	run reach_probe $(host_addresses) 169.254.169.254
	nothing_but_looked 15
	[ ! -e "$T/heard" ]
	x 'ip route' | grep -q 'prohibit 169.254.0.0/16'
	! x 'ip route' | grep -q 'prohibit 10.0.0.0/8' || false
}

@test "the walls cannot be taken down from inside" {
	with_network
	local before
	before=$(x 'ip route; ip addr')
	x '! ip route del prohibit 10.0.0.0/8 && ! ip route flush root 0/0 && ! ip link set tap0 down && ! ip addr add 10.9.9.9/8 dev tap0 &&
	   ! ip neigh add 10.1.1.1 lladdr 52:55:0a:00:02:02 dev tap0 && ! ip xfrm policy flush' 2>/dev/null
	[ "$(x 'ip route; ip addr')" = "$before" ]
	run inside <<-'E'
		import socket
		n = 0
		for family, kind, proto in (17, 3, 3), (17, 2, 3), (2, 3, 1), (2, 3, 255), (10, 3, 58), (16, 3, 6):
		    n += 1
		    try:
		        socket.socket(family, kind, proto)
		        if family != 16: print("a raw socket", family)
		    except OSError:
		        pass
		print("looked at", n)
	E
	nothing_but_looked 6
}

@test "net=none: loopback and nothing else" {
	start -o net=none
	x true
	grep -qx 'network none' "$C/status"
	[ "$(x 'ls /sys/class/net 2>/dev/null; cut -d: -f1 -s /proc/net/dev | tr -d " \n"' | sed 's/.*|//')" = lo ]
	x 'python3 -I -c "
import socket
l = socket.socket(); l.bind((\"127.0.0.1\", 0)); l.listen(1)
socket.create_connection(l.getsockname())"'
}

@test "where /dev/net/tun is closed to the user, status says so and the sandbox has loopback only" {
	[ "$(id -u)" = 0 ] || skip 'needs root to close it'
	chmod 755 "$T"
	chown -R 47110:47110 "$T"/{data,run,cache,config,tmp,home,log,mnt}
	mknod -m 666 "$T/fuse" c 10 229
	mknod -m 600 "$T/tun" c 10 200
	echo "sandbox-tester:x:47110:47110::$T/home:/bin/bash" | cat /etc/passwd - >"$T/passwd"
	mkdir "$T/build"
	unshare --mount --propagation private bash -euc '
		mount --bind "$1/fuse" /dev/fuse; mount --bind "$1/tun" /dev/net/tun; mount --bind "$2" "$1/build"
		mount --bind "$1/passwd" /etc/passwd
		exec setpriv --reuid 47110 --regid 47110 --clear-groups --inh-caps=-all bash -euc "
			$1/build/sandboxfs local: $1/mnt; mkdir $1/mnt/demo; echo \"ip -o link | wc -l\" > $1/mnt/demo/ctl/exec
			cat $1/mnt/demo/ctl/last/stdout; grep ^network $1/mnt/demo/ctl/status; $1/build/sandboxfs -u $1/mnt"
	' - "$T" "$BUILD" >"$T/said" 3>&-
	cat "$T/said"
	[ "$(cat "$T/said")" = "$(printf '1\nnetwork none: /dev/net/tun is closed to this user')" ]
	rm "$T/fuse" "$T/tun"
}

# --- using things up ---

@test "a fork bomb stays inside: the mount answers, the host goes on, destroy ends it" {
	start -o limits=processes:150
	x true
	echo kept >"$W/f"
	printf 'b() { b | b & b; }; b' >"$C/processes/new"
	bombed() { [ "$(test_processes | wc -l)" -ge 120 ]; }
	wait_until 30 bombed
	within 30 cat "$W/f"
	echo more >"$W/g"
	within 30 ls "$W" "$C/processes" >/dev/null
	local i
	for i in {1..50}; do /bin/true; done
	[ "$(test_processes | wc -l)" -lt 1000 ]
	local all
	all=$(test_processes | grep -v "^$(fs_pid):")
	echo destroy >"$C/ctl"
	# shellcheck disable=SC2086
	wait_until 15 none_left $all
	[ ! -e "$M" ]
}

@test "a full tmpfs stays inside: ENOSPC there, and commands, output and files go on" {
	start -o limits=tmp:8M
	local d
	for d in /tmp /dev/shm /root /home /run /var/tmp; do
		run x "head -c 64M /dev/zero > $d/full"
		[[ $output == *'No space left'* ]]
		[ "$(x "stat -c %s $d/full")" -le $((8 << 20)) ]
	done
	[ "$(x 'du -cks /tmp /dev/shm /root /home /run /var/tmp' | awk 'END { print $1 }')" -le $((6 * 8192)) ]
	[ "$(x 'echo fine')" = fine ]
	[ "$(x 'seq 100000' | tail -n 1)" = 100000 ]
	seq 10000 >"$W/f"
	[ "$(x 'sha256sum < f')" = "$(sha256sum <"$W/f")" ]
}

@test "limits=memory stops a greedy process and nothing else" {
	[[ ${SAN:-} != *address* && ${SAN:-} != *thread* ]] || skip 'a sanitizer alone takes more address space'
	start -o limits=memory:300M
	run x 'python3 -I -c "
b = []
for i in range(1000): b.append(bytes(1 << 20) + b\"x\")
print(\"all of it\")"'
	echo "$output"
	[ "$status" != 0 ]
	[[ $output != *'all of it'* ]]
	[ "$(x 'echo fine')" = fine ]
}

# --- planted links ---

@test "a link planted in the data directory is refused and not followed" {
	start
	x 'echo mine > f'
	unmount
	mkdir -p "$T/victim"
	echo secret >"$T/victim/secret"
	chmod -R a+rwX "$T" 2>/dev/null || :
	chmod go-w "$T/data" "$T"
	local ws
	ws=$(find "$T/data" -type d -path '*/demo/workspace')
	chmod go-w "$(dirname "$ws")" "$(dirname "$(dirname "$ws")")"
	mv "$ws" "$ws.old"
	ln -s "$T/victim" "$ws"
	mount_it
	run timeout 30 ls "$W"
	[ "$status" != 0 ]
	[[ $output != *secret* ]]
	cat "$C/error" "$C/status"
	cat "$C/error" "$C/status" | grep -q 'links are not followed'
	! echo x >"$W/new" || false
	[ "$(ls "$T/victim")" = secret ]
	unmount
	rm "$ws"
	mv "$ws.old" "$ws"
	mount_it
	[ "$(cat "$W/f")" = mine ]
}

@test "a link of the sandbox leads a program of the host nowhere" {
	start
	x 'ln -s /etc/passwd a; ln -s ../../../../../../../../../etc/passwd b; ln -s /proc/1/root/etc/passwd c; ln -s / d; ln -s /proc/self/root e'
	echo "words of the host" >"$T/secret"
	x "ln -s $T/secret f; ln -s ../../../../../../../../..$T/secret g"
	local l
	for l in a b c d/etc/passwd; do
		[ "$(timeout 20 cat "$W/$l")" = "$(x 'cat /etc/passwd')" ]
	done
	[ "$(cat "$W/a")" != "$(cat /etc/passwd)" ]
	for l in e/etc/passwd f g "d$T/secret" "e$T/secret"; do
		run timeout 20 cat "$W/$l"
		[[ $output != *words* ]]
		[ "$output" != "$(cat /etc/passwd)" ]
	done
	# nor does writing or removing
	for l in f g; do
		run bash -c 'echo x >"$0"' "$W/$l"
	done
	rm -r "$W"/[a-g]
	[ "$(cat "$T/secret")" = "words of the host" ]
}
