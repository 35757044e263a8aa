#!/usr/bin/env python3
"""What an append that failed leaves behind: the next one is in the file as write and fsync said, and nothing else.

    appends.py MOUNTED WORKSPACE PROXY-CONTROL FIRST ORDER BACK NEXT

FIRST bytes are appended and synced, then 700,000 while the proxy is told ORDER, then, told BACK, NEXT bytes.
"""
import os
import socket
import sys
import time

mounted, workspace, control = sys.argv[1], sys.argv[2], int(sys.argv[3])
first, bad, good, following = int(sys.argv[4]), sys.argv[5], sys.argv[6], int(sys.argv[7])


def proxy(order):
    with socket.create_connection(("127.0.0.1", control)) as s:
        s.sendall(order.encode() + b"\n")
        s.recv(100)


def settled():
    """The size on the other side, once what is late has come: when nothing is on the link any more, a moment for the server."""
    proxy("begin")
    size, since = -1, time.monotonic()
    while time.monotonic() < since + 3:
        now = os.stat(workspace + "/log").st_size
        if now != size:
            size, since = now, time.monotonic()
        time.sleep(0.05)
    return size


fd = os.open(mounted + "/log", os.O_WRONLY | os.O_APPEND)
if first:
    assert os.write(fd, b"x" * first) == first
    os.fsync(fd)
proxy(bad)
failed = False
try:
    os.write(fd, b"A" * 700000)
except OSError as e:
    failed = True
    print("large:", e)
assert failed
proxy(good)
before = settled()
assert os.write(fd, b"B" * following) == following
os.fsync(fd)
with open(workspace + "/log", "rb") as f:
    data = f.read()
print(before, len(data), data.count(b"B"))
assert len(data) == before + following and data[before:] == b"B" * following
