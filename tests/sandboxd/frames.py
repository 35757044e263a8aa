#!/usr/bin/env python3
"""A client of the routes of frames.h.

frames.py SOCKET start JSON [STDIN-FILE]    frames.py SOCKET attach ID FROM

Prints a line per frame that is not data, the bytes of both streams to files out and err in $T if that is set.
"""
import json
import os
import socket
import struct
import sys


def request(path, body):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    s.sendall(head.encode() + body)
    f = s.makefile("rb")
    status = int(f.readline().split()[1])
    chunked = False
    while line := f.readline().strip().lower():
        chunked = chunked or line == b"transfer-encoding: chunked"

    def chunks():
        while n := int(f.readline(), 16):
            yield f.read(n)
            f.readline()

    return status, chunks() if chunked else [f.read()]


def frames(chunks):
    have = b""
    for chunk in chunks:
        have += chunk
        while len(have) >= 16:
            kind, stream, zero, n, time = struct.unpack("<BBHIQ", have[:16])
            assert zero == 0 and time > 1e15
            if len(have) < 16 + n:
                break
            yield kind, stream, have[16 : 16 + n]
            have = have[16 + n :]
    assert not have, "half a frame at the end"


def main():
    if sys.argv[2] == "start":
        text = sys.argv[3].encode("utf-8", "surrogateescape")
        stdin = open(sys.argv[4], "rb").read() if len(sys.argv) > 4 else b""
        status, chunks = request("/api/sandboxfs/commands", struct.pack("<I", len(text)) + text + stdin)
    else:
        status, chunks = request(f"/api/sandboxfs/commands/{sys.argv[3]}/attach?from={sys.argv[4]}", b"")
    if status != 200:
        print(status, json.loads(b"".join(chunks))["code"])
        return
    files = [open(os.path.join(os.environ["T"], name), "wb") for name in ("out", "err")] if "T" in os.environ else None
    for kind, stream, data in frames(chunks):
        if kind == 1:
            print("started", flush=True)
        elif kind == 2 and files:
            files[stream - 1].write(data)
        elif kind == 3:
            code, flags = struct.unpack("<iI", data)
            print("exit", code, *(w for i, w in enumerate(["timed-out", "cancelled", "lost", "session"]) if flags & 1 << i))
        elif kind == 5:
            print("gap", struct.unpack("<Q", data)[0])


main()
