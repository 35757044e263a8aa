#!/usr/bin/env python3
"""A file that is replaced all the time: one hand writes it under another name and renames it, the other opens and reads it.

    replaced.py write FILE PAUSE     until FILE.stop is there, a minute at most; the seconds between two
    replaced.py read FILE OPENINGS   fails if one fails, or reads what no single writing has written
"""
import os
import random
import sys
import time


def write(name, pause):
    end = time.monotonic() + 60
    mark = 0
    while time.monotonic() < end and not os.path.exists(name + ".stop"):
        mark = mark % 250 + 1
        size = random.choice((0, 1, 5, 100, 5000, random.randrange(100000)))
        with open(name + ".new", "wb") as f:
            f.write(bytes([mark]) + bytes([251]) * size + bytes([mark]))
        os.rename(name + ".new", name)
        time.sleep(pause)


def read(name, openings):
    files = 0
    seen = set()
    while files < openings:
        with open(name, "rb") as f:
            data = f.read()
            seen.add(os.fstat(f.fileno()).st_ino)
        files += 1
        assert len(data) >= 2 and data[0] == data[-1] < 251 and data.count(251) == len(data) - 2, (
            files, len(data), data[:2], data[-2:])
    # it was in fact another one again and again
    assert len(seen) > 1, seen


if sys.argv[1] == "write":
    write(sys.argv[2], float(sys.argv[3]))
else:
    read(sys.argv[2], int(sys.argv[3]))
