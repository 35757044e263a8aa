#!/usr/bin/env python3
"""Drives the relay of sandboxd, on the socket given, against services of its own. Ends with 0 if all is well."""
import os
import socket
import sys
import threading

PATIENCE = 20 * int(os.environ.get("SLOW", "1"))


def service(handle):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def run():
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            handle(connection)

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


def relay(port, early=b""):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE)
    s.connect(sys.argv[1])
    s.sendall(
        b"GET /api/sandboxfs/relay/%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: sandboxfs-relay\r\n\r\n" % port + early
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = s.recv(1)
        assert byte, head
        head += byte
    return s, int(head.split()[1])


def read_all(s):
    data = b""
    while part := s.recv(65536):
        data += part
    return data


# A service that answers only after the end of the question: both half-closes must pass.
port = service(lambda c: c.sendall(b"got " + read_all(c)))
s, status = relay(port, b"early ")
assert status == 101
question = os.urandom(3000000)
s.sendall(question)
s.shutdown(socket.SHUT_WR)
assert read_all(s) == b"got early " + question

# Nobody listens: said before the switch.
free = socket.socket()
free.bind(("127.0.0.1", 0))
assert relay(free.getsockname()[1])[1] == 502

# A client that leaves is noticed by the service, whether that talks or listens.
gone = threading.Event()


def talk(c):
    try:
        while True:
            c.sendall(b"x" * 65536)
    except OSError:
        gone.set()


s, status = relay(service(talk))
s.recv(10)
s.close()
assert gone.wait(PATIENCE)
heard = threading.Event()
s, status = relay(service(lambda c: (read_all(c), heard.set())))
s.close()
assert heard.wait(PATIENCE)
