# What each operation of a mount waits for: python3 rounds.py CONTROL WORKSPACE CTL [NAME]... does the operations of that name (all without
# one), has lib/proxy.py count their round trips, and prints "NAME N ALLOWED" for each; 1 if one waited for more.
#
# Each is done on files of its own in a directory that was listed a moment before, so that its names are known. Connections are there then.
import os
import socket
import subprocess
import sys
import time

control, W, C = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rw"), sys.argv[2], sys.argv[3]


def proxy(order):
    control.write(order + "\n")
    control.flush()
    return control.readline().split()


def put(path, flags, data=b"some text\n", sync=True):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


def get(path):
    with open(path, "rb", buffering=0) as f:
        return f.read()


def save_by_rename(path):
    put(path + "~", os.O_EXCL)
    os.rename(path + "~", path)


def execute(command):
    with open(C + "/exec", "w") as f:
        f.write(command + "\n")


def converse(command):
    fd = os.open(C + "/exec", os.O_RDWR)
    os.read(fd, 100)
    os.write(fd, command.encode() + b"\n")
    out = b""
    while data := os.read(fd, 65536):
        out += data
    os.close(fd)
    return out


def list_long(path):
    subprocess.run(["ls", "-l", path], stdout=subprocess.DEVNULL, check=True)


# NAME: ALLOWED, the operation on a directory that has the files f and g and the empty directory e, all known
OPERATIONS = {
    "stat": (0, lambda d: os.stat(d + "/f")),
    "open": (0, lambda d: os.open(d + "/f", os.O_RDONLY)),
    "ls-l": (1, list_long),
    "read": (1, lambda d: get(d + "/f")),
    "overwrite": (2, lambda d: put(d + "/f", os.O_TRUNC, sync=False)),
    "overwrite-fsync": (2, lambda d: put(d + "/f", os.O_TRUNC)),
    "new": (2, lambda d: put(d + "/n", os.O_EXCL, sync=False)),
    "new-fsync": (2, lambda d: put(d + "/n", 0)),
    "append": (2, lambda d: put(d + "/f", os.O_APPEND, sync=False)),
    "save-rename": (3, lambda d: save_by_rename(d + "/f")),
    "rename": (1, lambda d: os.rename(d + "/f", d + "/h")),
    "rename-over": (1, lambda d: os.rename(d + "/f", d + "/g")),
    "mkdir": (1, lambda d: os.mkdir(d + "/m")),
    "rmdir": (1, lambda d: os.rmdir(d + "/e")),
    "unlink": (1, lambda d: os.unlink(d + "/f")),
    "symlink": (1, lambda d: os.symlink("f", d + "/s")),
    "chmod": (1, lambda d: os.chmod(d + "/f", 0o600)),
    "exec": (1, lambda d: execute("true")),
    "exec-output": (1, lambda d: converse("echo hello")),
}


def prepare(d):
    os.mkdir(d)
    os.mkdir(d + "/e")
    for name in "fg":
        put(d + "/" + name, 0, b"before\n")


def know(d):
    """It is learned how slow the link is; then all that was known has run out, and the directory and what is in it are looked at: from when on."""
    for i in range(4):
        os.path.exists("%s/none%d" % (W, i))
    time.sleep(1.1)
    since = time.monotonic()
    with os.scandir(d) as entries:
        for e in entries:
            e.stat()
    return since


bad = False
put(W + "/warm", 0)
save_by_rename(W + "/warm")
for name in sys.argv[4:] or OPERATIONS:
    allowed, act = OPERATIONS[name]
    for again in range(5):
        d = "%s/%s%d.d" % (W, name, again)
        proxy("delay 0")
        prepare(d)
        proxy("delay 50")
        since = know(d)
        proxy("begin")
        act(d)
        n = int(proxy("count")[0])
        # On a machine that has other things to do what was known may have run out before it was of use: that shows nothing.
        if n <= allowed or time.monotonic() - since < 0.95:
            break
    print(name, n, allowed, flush=True)
    bad |= n > allowed
sys.exit(bad)
