#!/usr/bin/env python3
"""Drives the attach mode of the sandboxd in the directory given, over terminals. Runs in a namespace of its own; ends with 0 if all is
well. A client of mux.h that shares nothing with that of the program.

    attach.py DIRECTORY TEST [BUSYBOX]
"""
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import zlib

directory = sys.argv[1]
OPEN, DATA, CREDIT, END, RESET, ACK, PING = range(7)
HEADER, PAYLOAD, WINDOW, FLIGHT = 16, 16 << 10, 256 << 10, 2 << 20
GREETING = b"\x1eSANDBOXFS-MUX-1\n"
LIMIT = 120


class Attached:
    """One attach on a terminal."""

    def __init__(self, take=65536, command=()):
        self.take = take
        command = list(command) + [directory + "/attach"]
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM="xterm", PS1="$ ", KEPT="yes")
            os.execvp(command[0], command)
        seen = b""
        while GREETING not in seen:
            part = os.read(self.fd, 1)  # not a byte of what follows
            assert part, seen
            seen += part
            assert not seen.endswith(b"\n") or GREETING in seen, seen
        os.set_blocking(self.fd, False)
        self.sequence_out = self.sequence_in = self.newest = 0
        self.sent = self.acked = self.arrived = self.told = 0
        self.out = self.rest = b""
        self.streams = {}

    def frame(self, kind, stream, payload=b""):
        body = struct.pack("<IIHBB", self.sequence_out, stream, len(payload), kind, 1) + payload
        self.sequence_out += 1
        self.out += struct.pack("<I", zlib.crc32(body)) + body
        self.sent += HEADER + len(payload)

    def open(self, data=b"", end=False):
        self.newest += 1
        self.streams[self.newest] = Stream(data, end)
        self.frame(OPEN, self.newest)
        return self.streams[self.newest]

    def fill(self):
        for number, stream in self.streams.items():
            while stream.data and stream.credit and self.sent - self.acked < FLIGHT - PAYLOAD - HEADER:
                n = min(len(stream.data), stream.credit, PAYLOAD)
                self.frame(DATA, number, bytes(stream.data[:n]))
                stream.data, stream.credit = stream.data[n:], stream.credit - n
            if not stream.data and stream.end and not stream.said_end:
                stream.said_end = True
                self.frame(END, number)
            if stream.owed >= WINDOW // 4 and not stream.ended:
                self.frame(CREDIT, number, struct.pack("<I", stream.owed))
                stream.owed = 0
        if self.arrived - self.told >= FLIGHT // 8:
            self.frame(ACK, 0, struct.pack("<Q", self.arrived))
            self.told = self.arrived

    def step(self, limit=LIMIT):
        self.fill()
        readable, writable, _ = select.select([self.fd], [self.fd] if self.out else [], [], limit)
        assert readable or writable or limit < LIMIT
        if writable:
            self.out = self.out[os.write(self.fd, self.out[: self.take]) :]
        if readable:
            part = os.read(self.fd, self.take)
            self.arrived += len(part)
            self.rest += part
            self.frames()

    def frames(self):
        while len(self.rest) >= HEADER:
            check, sequence, number, length, kind, version = struct.unpack("<IIIHBB", self.rest[:HEADER])
            if len(self.rest) < HEADER + length:
                return
            payload = self.rest[HEADER : HEADER + length]
            assert version == 1 and sequence == self.sequence_in
            assert check == zlib.crc32(self.rest[4 : HEADER + length])
            self.rest = self.rest[HEADER + length :]
            self.sequence_in += 1
            stream = self.streams.get(number)
            if kind == DATA:
                stream.got += payload
                stream.owed += length
            elif kind == CREDIT:
                stream.credit += struct.unpack("<I", payload)[0]
            elif kind == END:
                stream.ended = True
            elif kind == RESET:
                # after its end it only says that nobody reads what we might still send
                stream.reset = not stream.ended
                stream.ended = True
            elif kind == ACK:
                self.acked = struct.unpack("<Q", payload)[0]

    def until(self, condition):
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline
            self.step(0.1)  # the condition may be of something else

    def ask(self, request):
        stream = self.open(request)
        self.until(lambda: stream.ended)
        assert not stream.reset
        return bytes(stream.got)

    def hang_up(self):
        os.close(self.fd)
        return os.waitpid(self.pid, 0)[1]


class Stream:
    def __init__(self, data, end):
        self.data, self.end = memoryview(data), end
        self.got, self.credit, self.owed = bytearray(), WINDOW, 0
        self.said_end = self.ended = self.reset = False


def get(path):
    return b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode()


def execute(command):
    body = b'{"command":"%s"}' % command.encode()
    return (
        b"POST /api/execute HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def daemons():
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if b"--listen" in words:
            pids.append(int(pid))
    return pids


def a_request_passes():
    a = Attached()
    assert b"200 OK" in a.ask(get("/api/ping"))
    a.hang_up()


def every_byte_passes_both_ways():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]

    def echo():
        c, _ = listener.accept()
        while part := c.recv(65536):
            c.sendall(part)
        c.close()

    threading.Thread(target=echo, daemon=True).start()
    a = Attached()
    # First each byte after each other, then chance.
    question = bytes(range(256)) + bytes(b for i in range(256) for j in range(256) for b in (i, j))
    question += os.urandom(20 << 20)
    stream = a.open(
        b"GET /api/sandboxfs/relay/%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: sandboxfs-relay\r\n\r\n" % port + question,
        end=True,
    )
    a.until(lambda: stream.ended)
    head, _, answer = bytes(stream.got).partition(b"\r\n\r\n")
    assert b" 101 " in head
    assert answer == question
    a.hang_up()


def short_pieces_pass():
    a = Attached(take=13)
    for _ in range(20):
        assert b"200 OK" in a.ask(get("/api/ping"))
    a.hang_up()


def two_at_once_start_one():
    several = []
    threads = [threading.Thread(target=lambda: several.append(Attached())) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(several) == 6
    assert len(daemons()) == 1, daemons()
    for a in several:
        assert b"200 OK" in a.ask(get("/api/ping"))
    for a in several:
        a.hang_up()


def the_daemon_outlives_the_link():
    a = Attached()
    before = daemons()
    assert b"200 OK" in a.ask(execute("echo still here > /workspace/f; sleep 1000 & echo $!"))
    a.hang_up()
    assert daemons() == before and len(before) == 1
    b = Attached()
    assert b"still here" in b.ask(execute("cat /workspace/f"))
    assert daemons() == before
    b.hang_up()


def a_dead_daemon_is_replaced():
    a = Attached()
    (before,) = daemons()
    waits = a.open(execute("echo > /tmp/begun; sleep 1000"))
    a.until(lambda: os.path.exists("/tmp/begun"))
    death = os.pidfd_open(before)
    os.kill(before, signal.SIGKILL)
    # what it was asked ends, without an answer
    a.until(lambda: waits.ended)
    assert b"exitCode" not in waits.got
    assert select.select([death], [], [], LIMIT)[0]
    # and the next request begins another, on this link or on a new one
    os.makedirs(directory + "/spool/left/behind")
    assert b"200 OK" in a.ask(get("/api/ping"))
    assert not os.path.exists(directory + "/spool/left")
    (after,) = daemons()
    assert after != before
    a.hang_up()
    b = Attached()
    assert b"200 OK" in b.ask(get("/api/ping"))
    assert daemons() == [after]
    b.hang_up()


def nothing_of_the_terminal_reaches_commands():
    a = Attached()
    answer = a.ask(execute("env; tty; ls -l /proc/self/fd"))
    assert b"KEPT=yes" in answer
    assert not re.search(rb"\bPS1=|\bTERM=|/dev/pts|/socket|/lock", answer), answer
    (pid,) = daemons()
    for fd in os.listdir("/proc/%d/fd" % pid) if os.geteuid() == 0 else []:
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue
        assert "/dev/pts" not in target and "ptmx" not in target, target
    a.hang_up()


def without_a_terminal_it_says_so():
    r = subprocess.run([directory + "/attach"], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    assert r.returncode == 1
    assert r.stdout.startswith(b"\x1eSANDBOXFS-ERR ") and r.stdout.count(b"\n") == 1, r
    assert b"terminal" in r.stdout


def what_keeps_the_daemon_from_starting_is_said():
    os.chmod("/workspace", 0o700)
    os.mkdir(directory + "/socket")  # nothing can be bound there
    pid, fd = pty.fork()
    if not pid:
        os.execv(directory + "/attach", [directory + "/attach"])
    seen = b""
    while not seen.endswith(b"\n"):
        seen += os.read(fd, 1)
    assert seen.startswith(b"\x1eSANDBOXFS-ERR "), seen
    assert b"did not start: " in seen and b"socket" in seen, seen
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def a_bare_image_is_enough():
    """Of this test alone it runs outside; the image has a shell, and no library, no /etc, no locale."""
    here = os.path.realpath(os.path.dirname(os.path.abspath(sys.argv[1])))
    image = "bwrap --unshare-all --die-with-parent --clearenv --proc /proc --dev /dev --tmpfs /tmp --dir /bin"
    image += " --bind %s/d /tmp/.sandboxfs/0123 --ro-bind %s /bin/busybox" % (here, sys.argv[3])
    for name in "sh cat echo uname ls sleep kill env mkdir rm".split():
        image += " --symlink busybox /bin/" + name
    a = Attached(command=image.split())
    assert b"200 OK" in a.ask(get("/api/ping"))
    assert b"made in /workspace" in a.ask(execute("echo made in $PWD > f; cat /workspace/f; ls -a /"))
    assert b'"exitCode":7' in a.ask(execute("(exit 7)"))
    a.hang_up()


def a_damaged_frame_ends_it():
    a = Attached()
    assert b"200 OK" in a.ask(get("/api/ping"))
    a.frame(PING, 0)
    os.write(a.fd, a.out[:-1] + b"\xff")
    os.waitpid(a.pid, 0)
    assert len(daemons()) == 1


if sys.argv[2] == "a_bare_image_is_enough":
    directory = "/tmp/.sandboxfs/0123"  # as it is seen in there
globals()[sys.argv[2]]()
