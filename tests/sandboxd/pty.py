#!/usr/bin/env python3
"""Drives terminals of sandboxd over WebSockets, on the socket given. Ends with 0 if all is well.

pty.py SOCKET CASE
"""
import base64
import hashlib
import json
import os
import re
import socket
import struct
import sys
import time

PATIENCE = 20 * int(os.environ.get("SLOW", "1"))


class Refused(Exception):
    pass


class WebSocket:
    def __init__(self, path, upgrade=True):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(PATIENCE)
        self.s.connect(sys.argv[1])
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\n"
        if upgrade:
            head += f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        self.s.sendall((head + "\r\n").encode())
        self.f = self.s.makefile("rb")
        status = int(self.f.readline().split()[1])
        headers = {}
        while line := self.f.readline().strip().decode():
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        if status != 101:
            raise Refused(status, self.f.read(int(headers["content-length"])))
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert headers["upgrade"] == "websocket"
        self.text = b""
        self.events = []
        self.code = None

    def send(self, data, opcode=2):
        if isinstance(data, str):
            data, opcode = data.encode(), 1
        n = len(data)
        size = bytes([128 | n]) if n < 126 else struct.pack(">BH", 254, n) if n < 65536 else struct.pack(">BQ", 255, n)
        mask = os.urandom(4)
        whole = int.from_bytes((mask * (n // 4 + 1))[:n], "big") ^ int.from_bytes(data, "big")
        self.s.sendall(bytes([128 | opcode]) + size + mask + whole.to_bytes(n, "big"))

    def frame(self):
        """One frame; what it holds is kept. False: the other side has said goodbye, or is gone."""
        head = self.f.read(2)
        if len(head) < 2:
            return False
        opcode, n = head[0] & 15, head[1] & 127
        assert not head[1] & 128, "a server does not mask"
        if n == 126:
            n = struct.unpack(">H", self.f.read(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.f.read(8))[0]
        data = self.f.read(n)
        if opcode == 8:
            self.code = struct.unpack(">H", data[:2])[0]
            try:
                self.send(data[:2], 8)
            except BrokenPipeError:
                pass  # it does not wait for an answer
            return False
        if opcode == 1:
            self.events.append(json.loads(data))
        elif opcode == 9:
            self.send(data, 10)
        elif opcode in (0, 2):
            self.text += data
        elif opcode == 10:
            self.events.append({"type": "pong", "data": data.decode()})
        return True

    def until(self, what):
        """Until the output holds it, from here on; an event if it is no bytes."""
        if isinstance(what, bytes):
            while what not in self.text:
                assert self.frame(), (what, self.text[-500:], self.events)
            at = self.text.index(what) + len(what)
            before, self.text = self.text[:at], self.text[at:]
            return before
        while not any(e["type"] == what for e in self.events):
            assert self.frame(), (what, self.text[-500:], self.events)
        found = next(e for e in self.events if e["type"] == what)
        self.events.remove(found)
        return found

    def rest(self):
        while self.frame():
            pass
        return self.text

    def leave(self):
        self.f.close()
        self.s.close()


def post(path, body, raw=False):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE)
    s.connect(sys.argv[1])
    data = body if raw else json.dumps(body).encode()
    s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = b""
    while part := s.recv(65536):
        answer += part
    head, body = answer.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(body)


def refused(path, upgrade=True):
    try:
        WebSocket(path, upgrade)
    except Refused as e:
        return e.args[0]
    raise AssertionError("was not refused")


def open_terminal(id, command, columns=80, rows=24, **more):
    """Starts a command with a terminal; its frames are left unread."""
    text = json.dumps({"id": id, "command": command, "terminal": {"cols": columns, "rows": rows}, **more}).encode()
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE)
    s.connect(sys.argv[1])
    body = struct.pack("<I", len(text)) + text
    s.sendall(f"POST /api/sandboxfs/commands HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    status = s.recv(12)
    assert status == b"HTTP/1.1 200", status
    return s


def session():
    post("/api/execute", {"command": "cd /usr; export A=1", "sessionId": "s"})
    w = WebSocket("/ws/pty?sessionId=s&cols=100&rows=30")
    w.until("ready")
    w.send(b"PS1='$ '; pwd; echo A=$A $TERM; stty size; tty\n")
    w.until(b"/usr\r\nA=1 xterm-256color\r\n30 100\r\n/dev/pts/")
    w.send('{"type":"resize","cols":120,"rows":40}')
    w.send(b"stty size\n")
    w.until(b"40 120\r\n")
    # it is the controlling terminal: jobs, ^C, ^Z
    w.send(b"sh -c 'echo u\"\"p; exec sleep 1000'\n")
    w.until(b"up\r\n")
    w.send(b"\x1a")
    w.until(b"Stopped")
    w.send(b"kill -9 %1; wait; sh -c 'echo u\"\"p; exec sleep 1000'\n")
    w.until(b"up\r\n")
    w.send(b"\x03")
    w.until(b"^C")
    w.send(b"echo status $?\n")
    w.until(b"status 130\r\n")
    for bad in ("nonsense", "[]", '{"type":"resize","cols":0,"rows":1}', '{"type":"resize"}', '{"type":"sing"}'):
        w.send(bad)
        assert w.until("error")["message"]
    w.send(b"hello", 9)
    assert w.until("pong")["data"] == "hello"
    # another shares it, and sees what was
    other = WebSocket("/ws/pty?sessionId=s&cols=10&rows=10")
    other.until("ready")
    assert b"status 130" in other.text
    other.text = b""
    other.send(b"stty size; echo sha''red\n")
    other.until(b"40 120\r\nshared\r\n")
    w.until(b"shared\r\n")
    # who leaves does not end it; its directory is its own
    w.send(b"cd /etc; kept=1\n")
    w.until(b"kept=1\r\n")
    w.leave()
    other.leave()
    assert post("/api/execute", {"command": "pwd", "sessionId": "s"})[1]["stdout"] == "/usr\n"
    w = WebSocket("/ws/pty?sessionId=s")
    w.until("ready")
    w.text = b""
    w.send(b"echo $kept $PWD\n")
    w.until(b"1 /etc\r\n")
    # its end is told, and the next one begins anew
    w.send(b"exit 7\n")
    assert w.until("exit") == {"type": "exit", "code": 7}
    w.rest()
    assert w.code == 1000
    w = WebSocket("/ws/pty?sessionId=s&shell=sh")
    w.until("ready")
    w.text = b""
    w.send(b"echo new $kept.\nkill -9 $$\n")
    w.until(b"new .\r\n")
    assert w.until("exit") == {"type": "exit", "code": 137, "signal": "KILL"}
    # and with its session
    w = WebSocket("/ws/pty?sessionId=s")
    w.until("ready")
    post("/api/session/delete", {"sessionId": "s"})
    w.until("exit")


def refusals():
    assert refused("/ws/pty") == 400
    assert refused("/ws/pty?sessionId=") == 400
    assert refused("/ws/pty?sessionId=s", False) == 404
    assert refused("/ws/pty?sessionId=s&cols=0") == 400
    assert refused("/ws/pty?sessionId=s&rows=x") == 400
    assert refused("/ws/pty?command=none") == 404
    w = WebSocket("/ws/pty?sessionId=s&shell=/no/such/shell")
    assert w.until("exit") == {"type": "exit", "code": 127}
    assert b"No such file" in w.rest()


def output():
    """Bytes are exact, in both directions, and the last ones come before the end."""
    w = None
    s = open_terminal("o", "stty raw -echo; echo up; head -c 300000 | sha256sum; head -c 3000000 /dev/zero | tr '\\0' x; echo end; exit 3")
    w = WebSocket("/ws/pty?command=o")
    assert w.until("replay")["offset"] == 0
    w.until(b"up\n")
    data = os.urandom(300000)
    for at in range(0, len(data), 70000):
        w.send(data[at : at + 70000])
    w.until(hashlib.sha256(data).hexdigest().encode() + b"  -\n")
    assert w.until(b"end\n") == b"x" * 3000000 + b"end\n"
    assert w.until("exit")["code"] == 3
    # what was is there, from any byte, also after the end
    w = WebSocket("/ws/pty?command=o&from=3000000")
    assert w.until("replay")["offset"] == 3000000
    assert w.rest().endswith(b"xxend\n") and w.code == 1000
    assert refused("/ws/pty?command=o&from=9999999999") == 416
    assert refused("/ws/pty?command=o&from=x") == 416


def resume():
    """A connection that breaks is taken up again at the next byte; what is typed again is typed once."""
    open_terminal("r", "exec bash --norc")
    seen = 0
    for i in range(10):
        w = WebSocket(f"/ws/pty?command=r&from={seen}")
        assert w.until("replay")["offset"] == seen
        w.send(f"echo r''{i}r\n".encode())
        seen += len(w.until(f"r{i}r\r\n".encode()))
        w.leave()
    at = post("/api/sandboxfs/commands/r/input", b"", True)[1]["typed"]
    for _ in range(3):
        status, answer = post(f"/api/sandboxfs/commands/r/input?at={at}", b"echo on''ce >>count\n", True)
        assert (status, answer["typed"]) == (200, at + 20), answer
    assert post(f"/api/sandboxfs/commands/r/input?at={at + 21}", b"x", True)[0] == 416
    assert post("/api/sandboxfs/commands/r/resize", {"cols": 33, "rows": 7})[0] == 200
    assert post("/api/sandboxfs/commands/r/resize", {"cols": 33, "rows": 70000})[0] == 400
    post("/api/sandboxfs/commands/r/input", b"stty size; cat count\n", True)
    w = WebSocket(f"/ws/pty?command=r&from={seen}")
    assert w.until(b"7 33\r\n").count(b"7 33") == 1
    w.until(b"once\r\n")
    w.send(b"exit\n")
    w.until("exit")
    assert b"once" not in w.rest()
    assert post("/api/sandboxfs/commands/r/input", b"x", True)[0] == 404
    assert post("/api/sandboxfs/commands/r/resize", {"cols": 33, "rows": 7})[0] == 404
    assert post("/api/sandboxfs/commands/none/input", b"x", True)[0] == 404


def hangup():
    """The end of a terminal ends what runs in it, in the background too."""
    n = os.environ["S"]
    open_terminal("h", f"bash --norc -i -c 'sleep {n} & sleep {n}'")
    w = WebSocket("/ws/pty?command=h")
    deadline = time.monotonic() + PATIENCE
    while os.system(f"pgrep -fx 'sleep {n}' | wc -l | grep -qx 2"):
        assert time.monotonic() < deadline
    assert post("/api/sandboxfs/commands/h/signal", {"cancel": True})[0] == 200
    w.until("exit")
    while os.system(f"pgrep -fx 'sleep {n}' >/dev/null") == 0:
        assert time.monotonic() < deadline
    # its command has no terminal, so it takes none of this
    post("/api/process/start", {"command": f"sleep {n}", "processId": "p", "sessionId": "__DISABLE_SESSION__"})
    assert post("/api/sandboxfs/commands/p/resize", {"cols": 33, "rows": 7})[0] == 400
    assert refused("/ws/pty?command=p") == 400


def slow():
    """Who does not read holds up nobody, and is told what he missed."""
    w = WebSocket("/ws/pty?sessionId=s")
    w.until("ready")
    w.send(b"seq 1 200000; echo do''ne\n")
    other = WebSocket("/ws/pty?sessionId=s")
    other.until(b"done\r\n")
    time.sleep(0)
    w.until(b"done\r\n")
    # one who types without end into what does not read is held, and the rest goes on
    open_terminal("d", "stty raw; sleep 1000")
    d = WebSocket("/ws/pty?command=d")
    d.s.settimeout(0.5)
    try:
        for _ in range(1000):
            d.send(b"y" * 60000)
        raise AssertionError("60 MB were taken")
    except TimeoutError:
        pass
    other.send(b"echo al''ive\n")
    other.until(b"alive\r\n")


def vim():
    w = WebSocket("/ws/pty?sessionId=s&cols=80&rows=24")
    w.until("ready")
    w.send(b"vim -u NONE -i NONE file.txt\n")
    w.until(b"[New")
    w.send(b"ihello from vim\x1b")
    w.send(b"yyp:wq\r")
    w.until(b"written")
    w.send(b"cat file.txt; echo en''d\n")
    assert b"hello from vim\r\nhello from vim\r\n" in w.until(b"end\r\n")


def nonsense():
    """Frames that break the rules close the connection, not the server."""
    for data in (b"\x82\x05hello", b"\xff\xff\xff\xff" * 8, b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"maskx"):
        w = WebSocket("/ws/pty?sessionId=s")
        w.until("ready")
        w.s.sendall(data)
        w.rest()
    w = WebSocket("/ws/pty?sessionId=s")
    w.until("ready")
    w.text = b""
    w.send(b"echo al''ive\n")
    w.until(b"alive\r\n")


globals()[sys.argv[2]]()
