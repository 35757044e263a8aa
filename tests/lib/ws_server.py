# A WebSocket server for tests, of Python's own library alone: python3 ws_server.py PORT. It prints `ready PORT`; of 0 it is one that was free.
# What it does is the path's: /echo sends back what it hears; /hello says things by itself; see serve() for the others.
import base64
import hashlib
import os
import socket
import struct
import sys
import threading
import time
import urllib.parse

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload=b"", fin=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    n = len(payload)
    if n < 126:
        head += bytes([n])
    elif n < 65536:
        head += struct.pack(">BH", 126, n)
    else:
        head += struct.pack(">BQ", 127, n)
    return head + payload


class Peer:
    def __init__(self, sock):
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, opcode, payload=b"", fin=True):
        self.sock.sendall(frame(opcode, payload, fin))

    def take(self, n):
        got = self.file.read(n)
        if len(got) < n:
            raise EOFError
        return got

    def frame(self):
        a, b = self.take(2)
        if not b & 0x80:
            raise ValueError("a client's frame is not masked")
        n = b & 0x7F
        if n == 126:
            n = struct.unpack(">H", self.take(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.take(8))[0]
        mask = self.take(4)
        data = self.take(n)
        if n:
            key = int.from_bytes((mask * (n // 4 + 1))[:n], "big")
            data = (int.from_bytes(data, "big") ^ key).to_bytes(n, "big")
        return a & 0x0F, bool(a & 0x80), data

    # One message or control frame: (opcode, bytes).
    def message(self):
        kind, whole = None, b""
        while True:
            opcode, fin, data = self.frame()
            if opcode >= 8:
                return opcode, data
            kind = kind or opcode
            whole += data
            if fin:
                return kind, whole

    def close(self, code, reason=b""):
        self.send(8, struct.pack(">H", code) + reason)
        try:
            while self.message()[0] != 8:
                pass
        except EOFError:
            pass


def echo(peer):
    while True:
        opcode, data = peer.message()
        if opcode == 8:
            peer.send(8, data)
            return
        if opcode == 9:
            peer.send(10, data)
        elif opcode != 10:
            peer.send(opcode, data)


def serve(peer, path, headers):
    what, _, rest = path[1:].partition("?")
    if what in ("", "echo"):
        echo(peer)
    elif what == "headers":  # the request as it came
        peer.send(1, path.encode())
        for name in sorted(headers):
            peer.send(1, f"{name}: {headers[name]}".encode())
        peer.close(1000)
    elif what == "fragments":  # one message in three frames, a ping between
        peer.send(1, b"one ", False)
        peer.send(9, b"between")
        peer.send(0, b"two ", False)
        peer.send(0, b"three")
        assert peer.message() == (10, b"between")
        peer.send(1, b"pong came")
        peer.close(1000)
    elif what == "close":  # with the code and reason asked for
        code, _, reason = rest.partition(",")
        peer.close(int(code), urllib.parse.unquote_to_bytes(reason))
    elif what == "silent-close":  # a close without a code
        peer.send(8)
    elif what == "break":  # no close at all
        peer.send(1, b"before")
    elif what == "binary":
        peer.send(2, bytes(range(256)))
        peer.send(2, b"")
        peer.send(2, b"\n\n")
        peer.send(1, b"text")
        peer.close(1000)
    elif what == "flood":  # N messages as fast as they are taken; how many went so far is told in a file
        count, size = map(int, rest.split(","))
        for i in range(count):
            peer.send(1, b"%09d" % i + b"x" * (size - 9))
            if i % 16 == 0:
                with open("/workspace/sent.new", "w") as f:
                    f.write(str(i))
                os.rename("/workspace/sent.new", "/workspace/sent")
        peer.close(1000)
    elif what == "huge":  # one message of so many bytes, in one frame
        n = int(rest)
        peer.sock.sendall(bytes([0x82]) + struct.pack(">BQ", 127, n))
        for _ in range(n // 65536):
            peer.sock.sendall(b"h" * 65536)
        peer.sock.sendall(b"h" * (n % 65536))
        peer.close(1000)
    elif what == "masked":  # what a server must not do
        peer.sock.sendall(b"\x81\x81aaaa" + b"\x00")
        try:
            print("masked:", peer.message(), flush=True)
        except EOFError:
            pass
    elif what == "badtext":
        peer.send(1, b"\xff\xfe")
        try:
            opcode, data = peer.message()
            print("badtext:", opcode, struct.unpack(">H", data[:2])[0], flush=True)
        except EOFError:
            pass
    elif what == "count":  # says how many bytes and messages came until the close
        n = size = 0
        while True:
            opcode, data = peer.message()
            if opcode == 8:
                print("count:", n, size, struct.unpack(">H", data[:2])[0], flush=True)
                peer.send(8, data)
                return
            n, size = n + 1, size + len(data)
    elif what == "pings":  # N pings as fast as they are taken, none of the pongs read before a file says so
        count = int(rest)

        def ping():
            for i in range(0, count, 1000):
                try:
                    peer.sock.sendall(frame(9, b"0123456789") * 1000)
                except OSError:
                    return
                with open("/workspace/sent.new", "w") as f:
                    f.write(str(i + 1000))
                os.rename("/workspace/sent.new", "/workspace/sent")
        threading.Thread(target=ping, daemon=True).start()
        while not os.path.exists("/workspace/go"):
            time.sleep(0.02)
        for _ in range(count):
            assert peer.message() == (10, b"0123456789")
        print("pongs:", count, flush=True)
        peer.close(1000)
    elif what == "slow":  # reads nothing until told through a file
        while not os.path.exists("/workspace/go"):
            time.sleep(0.02)
        serve(peer, "/count", headers)


def connection(sock):
    peer = Peer(sock)
    try:
        path = peer.file.readline().split()[1].decode()
        headers = {}
        while True:
            line = peer.file.readline().strip().decode()
            if not line:
                break
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if path == "/forbidden":
            sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        if path == "/nothing":
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        accept = base64.b64encode(
            hashlib.sha1(headers["sec-websocket-key"].encode() + MAGIC).digest())
        if path == "/wrong-accept":
            accept = base64.b64encode(b"x" * 20)
        if path == "/not-http":
            sock.sendall(b"SSH-2.0-nothing\r\n\r\n\r\n")
            return
        answer = (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n"
                  b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n")
        if "sec-websocket-protocol" in headers:
            chosen = headers["sec-websocket-protocol"].split(",")[-1].strip()
            if path == "/wrong-protocol":
                chosen = "another"
            answer += b"Sec-WebSocket-Protocol: " + chosen.encode() + b"\r\n"
        # the first message in the same packet as the handshake
        first = frame(1, b"welcome") if path == "/welcome" else b""
        sock.sendall(answer + b"\r\n" + first)
        serve(peer, "/echo" if path == "/welcome" else path, headers)
    except (EOFError, ConnectionError):
        pass
    finally:
        sock.close()


listener = socket.socket()
if sys.argv[1] != "0":  # with it two could be given the same port
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(64)
print("ready", listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=connection, args=(client,), daemon=True).start()
