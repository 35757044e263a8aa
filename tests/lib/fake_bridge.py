# A bridge that fails, for tests: python3 fake_bridge.py PORT DIR stands before a real one on 127.0.0.1:PORT and prints its own port.
#
# Every request is a line of DIR/requests: its method, its path, and `token` or `-`. What it does is the first line of DIR/rules that fits:
#
#   COUNT PATTERN ACTION    for the next COUNT requests (-1: for all) whose `METHOD PATH` begins as PATTERN, a regular expression, says
#
#   status CODE BODY        that answer
#   redirect CODE URL       that one
#   file NAME [CHUNK]       the bytes of DIR/NAME and the end; with CHUNK that again and again instead of an end
#   exec TEXT               200 and TEXT (with \n) as the answer's events
#   hang                    nothing at all
#   drip SIZE               200, and SIZE bytes ten times a second, without end
#   head                    200, and lines of a head without end
#   ws KIND                 a WebSocket that says: nothing, bytes or words (without end), pings (likewise)
#
# and without one it passes what comes, both ways. SIGUSR1 cuts every connection; while DIR/down is there each new one is cut as well.
import base64
import hashlib
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

PORT, DIR = int(sys.argv[1]), sys.argv[2]
lock = threading.Lock()
links = set()
held = None  # the rules as they were read last: file, text, lines with what is left of their counts


def cut(s):
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def path(name):
    return os.path.join(DIR, name)


def rules_now():
    """[count, pattern, action] of each. Counted here and not in the file, which the test may replace at any moment."""
    global held
    try:
        f = open(path("rules"))
    except FileNotFoundError:
        held = None
        return []
    text = f.read()
    # it is kept open: no other file has its number
    if not held or held[1] != text or not os.path.sameopenfile(held[0].fileno(), f.fileno()):
        held = f, text, [[int(count), pattern, action] for count, pattern, action in (line.split(" ", 2) for line in text.splitlines())]
    return held[2]


def rule(request):
    """The action for `METHOD PATH`; counts it."""
    with lock:
        for one in rules_now():
            count, pattern, action = one
            if count == 0 or not re.match(pattern.replace("~", " "), request):
                continue
            if count > 0:
                one[0] -= 1
            return action.split(" ", 2)
        return None


def read_request(s):
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(65536)
        if not more:
            return None, b""
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    while found and len(body) < int(found[1]):
        more = s.recv(65536)
        if not more:
            return None, b""
        body += more
    return head, body


def pump(a, b, head=b""):
    """head: what goes behind the first line"""
    try:
        while True:
            data = a.recv(65536)
            if not data:
                break
            b.sendall(data.replace(b"\r\n", b"\r\n" + head, 1) if head else data)
            head = b"" if b"\r\n" in data else head
        b.shutdown(socket.SHUT_WR)
    except OSError:
        cut(a)
        cut(b)


def pass_on(s, head, body):
    # each connection is one request, so that each is seen
    close = b"" if re.search(rb"(?im)^upgrade:", head) else b"Connection: close\r\n"
    with socket.create_connection(("127.0.0.1", PORT)) as real:
        links.add(real)
        real.sendall(head + b"\r\n\r\n" + body)
        back = threading.Thread(target=pump, args=(s, real), daemon=True)
        back.start()
        pump(real, s, close)
        cut(s)
        back.join()
        links.discard(real)


def answer(s, status, body=b"", more=b""):
    s.sendall(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, body))


def without_end(s, piece):
    while True:
        s.sendall(piece)


def websocket(s, head, kind):
    key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    s.sendall(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    if kind == "nothing":
        while s.recv(65536):
            pass
    elif kind == "pings":
        without_end(s, b"\x89\x04ping" * 1000)
    elif kind == "words":
        without_end(s, (b"\x81\x7e\x03\xe8" + b'{"type":"x"}' * 84)[:1004] * 64)
    else:
        without_end(s, b"\x82\x7e\x03\xe8" + b"\x1eSANDBOXFS \x1b[31m" * 55 + b"12345678" * 15)


def serve(s):
    head, body = read_request(s)
    if head is None:
        return
    request = b" ".join(head.split(b"\r\n")[0].split()[:2]).decode()
    with lock, open(path("requests"), "a") as f:
        f.write(request + (" token\n" if re.search(rb"(?im)^authorization: *bearer ", head) else " -\n"))
    action = rule(request)
    if not action:
        pass_on(s, head, body)
    elif action[0] == "status":
        answer(s, int(action[1]), action[2].encode() if len(action) > 2 else b"")
    elif action[0] == "redirect":
        answer(s, int(action[1]), b"", b"Location: " + action[2].encode() + b"\r\n")
    elif action[0] == "exec":
        answer(s, 200, " ".join(action[1:]).replace("\\n", "\n").encode(), b"Content-Type: text/event-stream\r\n")
    elif action[0] == "file":
        with open(path(action[1]), "rb") as f:
            s.sendall(f.read())
        if len(action) > 2:
            without_end(s, action[2].encode() * 10000)
    elif action[0] == "drip":
        s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            s.sendall(b"x" * int(action[1]))
            time.sleep(0.1)
    elif action[0] == "head":
        s.sendall(b"HTTP/1.1 200 OK\r\n")
        without_end(s, (b"X-%09d: " % 1 + b"y" * 1000 + b"\r\n") * 64)
    elif action[0] == "ws":
        websocket(s, head, action[1])
    else:
        while s.recv(65536):
            pass


def handle(s):
    try:
        serve(s)
    except OSError:
        pass
    links.discard(s)
    s.close()


def cut_all(*_):
    for s in list(links):
        cut(s)


signal.signal(signal.SIGUSR1, cut_all)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    if os.path.exists(path("down")):
        cut(client)
        client.close()
    else:
        links.add(client)  # here, where signals are taken: none is between this and the look at `down`
        threading.Thread(target=handle, args=(client,), daemon=True).start()
