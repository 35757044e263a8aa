# Mixed file work over a bad link: python3 badlink.py WORKSPACE SEED SECONDS JOURNAL
#
# Some workers, each with files of its own, write, append, overwrite in part, replace by rename, sync, remove and read back. An operation
# may fail; what is known of a file then is what it may hold now: the content before, or the one that was being made. One that
# succeeds leaves one possibility. JOURNAL gets at the end a line for every file that was used, "NAME SHA256 [SHA256]...", of all contents that
# are possible (- for: there is no such file); what a read gives here must be one of them too, or it is a lie, printed; then it ends with 1.
#
# A content is made of lines that each name their file and have a number, so that a difference tells what it is.
import errno
import hashlib
import os
import random
import sys
import threading
import time

W, seed, seconds, journal = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
WORKERS, FILES, MOST = 6, 8, 400000
counts = {}
lies = []
lock = threading.Lock()
end = time.monotonic() + seconds


def note(name, ok):
    with lock:
        done = counts.setdefault(name, [0, 0])
        done[not ok] += 1


class Worker:
    def __init__(self, n):
        self.rng = random.Random(seed * 1000 + n)
        self.dir = "%s/w%d" % (W, n)
        self.may_be = {}  # name: set of contents, None for no file
        self.serial = 0

    def text(self, name, most):
        out = b""
        size = int(self.rng.triangular(1, most, 200))
        while len(out) < size:
            self.serial += 1
            out += b"%s %d %s\n" % (name.encode(), self.serial, b"." * self.rng.randrange(200))
        return out

    def put(self, name, flags, changes, sync):
        """Opens, writes each (offset, bytes), maybe syncs, closes; a failure anywhere leaves the end uncertain."""
        fd = os.open(self.dir + "/" + name, flags | os.O_CLOEXEC, 0o644)
        failed = None
        try:
            for off, data in changes:
                while data:
                    n = os.write(fd, data) if off is None else os.pwrite(fd, data, off)
                    data, off = data[n:], None if off is None else off + n
            if sync:
                os.fsync(fd)
        except OSError as e:
            failed = e
        try:
            os.close(fd)
        except OSError as e:
            failed = failed or e
        if failed:
            raise failed

    def write(self, name):
        data = self.text(name, self.rng.choice((100, 5000, MOST)))
        self.change(name, lambda old: data, lambda: self.put(
            name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, [(None, data)], self.rng.random() < 0.5), anything=(b"",))

    def append(self, name):
        parts = [self.text(name, 3000) for _ in range(self.rng.randrange(1, 4))]
        steps = [b"".join(parts[:i]) for i in range(len(parts))]
        self.change(name, lambda old: (old or b"") + b"".join(parts), lambda: self.put(
            name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, [(None, p) for p in parts], self.rng.random() < 0.5),
            half=lambda old: [(old or b"") + s for s in steps])

    def overwrite(self, name):
        off = self.rng.randrange(0, 5000)
        data = self.text(name, 4000)

        def over(old):
            old = (old or b"").ljust(off, b"\0")
            return old[:off] + data + old[off + len(data):]
        self.change(name, over, lambda: self.put(name, os.O_RDWR | os.O_CREAT, [(off, data)], self.rng.random() < 0.5),
                    half=lambda old: [old or b""])

    def replace(self, name):
        data, path, temporary = self.text(name, 20000), self.dir + "/" + name, name + "~"

        def act():
            try:
                os.unlink(path + "~")
            except FileNotFoundError:
                pass
            self.put(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, [(None, data)], True)
            os.rename(path + "~", path)
        self.change(name, lambda old: data, act)

    def remove(self, name):
        def act():
            try:
                os.unlink(self.dir + "/" + name)
            except FileNotFoundError:
                if None not in self.may_be[name]:
                    lies.append("%s/%s: no such file, but it was there" % (self.dir, name))
        self.change(name, lambda old: None, act)

    def change(self, name, after, act, half=None, anything=()):
        before = self.may_be.setdefault(name, {None})
        new = {after(old) for old in before}
        try:
            act()
            self.may_be[name] = new
        except OSError as e:
            self.failed(e)
            self.may_be[name] = before | new | set(anything)
            for old in before if half else ():
                self.may_be[name] |= set(half(old))
            raise

    def failed(self, e):
        with lock:
            counts[errno.errorcode.get(e.errno, "?")] = counts.get(errno.errorcode.get(e.errno, "?"), 0) + 1

    def read(self, name):
        possible = self.may_be.setdefault(name, {None})
        try:
            with open(self.dir + "/" + name, "rb") as f:
                got = f.read()
        except FileNotFoundError:
            got = None
        except OSError as e:
            self.failed(e)
            raise
        if got not in possible:
            lies.append("%s/%s: reads as %s, can be %s" % (self.dir, name, show(got), ", ".join(map(show, possible))))
            self.may_be[name] = {got}

    def run(self):
        while time.monotonic() < end:
            try:
                os.makedirs(self.dir, exist_ok=True)
                break
            except OSError as e:
                self.failed(e)
        kinds = [self.write, self.append, self.append, self.overwrite, self.replace, self.remove, self.read, self.read, self.read]
        while time.monotonic() < end:
            act = self.rng.choice(kinds)
            try:
                act("f%d" % self.rng.randrange(FILES))
                note(act.__name__, True)
            except OSError:
                note(act.__name__, False)


def show(content):
    return "nothing" if content is None else "%d bytes %s" % (len(content), hashlib.sha256(content).hexdigest()[:8])


def digest(content):
    return "-" if content is None else hashlib.sha256(content).hexdigest()


workers = [Worker(n) for n in range(WORKERS)]
threads = [threading.Thread(target=w.run) for w in workers]
for t in threads:
    t.start()
for t in threads:
    t.join()
with open(journal, "w") as f:
    for n, w in enumerate(workers):
        for name, contents in w.may_be.items():
            print("w%d/%s" % (n, name), *map(digest, contents), file=f)
print(*("%s=%s" % (k, "%d+%d" % tuple(v) if isinstance(v, list) else v) for k, v in sorted(counts.items(), key=str)))
print(*lies, sep="\n")
sys.exit(bool(lies))
