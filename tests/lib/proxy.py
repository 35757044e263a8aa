# A slow and bad link, for tests: python3 proxy.py PORT stands before a server on 127.0.0.1:PORT, passes every byte on as it is (so
# HTTP and WebSocket alike) and prints its own port and that of its control, where a line is answered by a line:
#
#   delay MS         what each direction takes from now on; a new connection waits for its handshake, 2 * MS, as over a real link
#   begin            waits until every request has its answer, then begins to count; answers "ok"
#   count            how many round trips have been waited for since: "N REQUESTS"
#   faults SEED P    each request from now on has one of the faults below with probability P; P 0: none
#   refuse STATUS    each request from now on has that answer; 0: none
#   life S           a connection lives so long, whatever it carries; 0: as long as it likes
#   stats            NAME=NUMBER for what was done so far
#
# What is a round trip that an operation waits for? A burst is what a client sends on a connection until an answer begins there (a
# new connection is one too: its answer is the end of the handshake). Bursts are numbered in rounds, over all connections: one that starts
# when the answer to any burst of the present round has begun is of the next round, for it may have waited for that answer; else it is of the
# same round, for it cannot have. An operation that has ended has waited for as many round trips as there are rounds with an answer:
# what it left behind without waiting, such as the closing of a handle, is not answered by then. Requests that did not wait for each other
# can be counted as if they had, never the other way round.
#
# The faults: drop (the request is not passed on), torn (half of it is), status (429, 500, 502 or 503 in its place), late (it is done, the
# answer is a 502), lost (it is done, the answer is a reset), cut (the answer breaks off after some bytes), stall (it takes its time).
import asyncio
import collections
import random
import socket
import struct
import sys
import time

CHUNK = 65536
KINDS = ("drop", "torn", "status", "late", "lost", "cut", "cut", "stall", "stall")
LONG_STALL = 8.0
stats = collections.Counter()


class Meter:
    def __init__(self):
        self.epoch, self.round, self.requests, self.answered = 0, 0, 0, True
        self.waiting = {}
        self.changed = asyncio.Event()

    def burst(self, link, request=True):
        """True: it is the beginning of one."""
        if link in self.waiting:
            return False
        if self.answered:
            self.round += 1
            self.answered = False
        self.requests += request
        self.waiting[link] = (self.epoch, self.round)
        return True

    def answer(self, link):
        if self.waiting.pop(link, None) == (self.epoch, self.round):
            self.answered = True
        self.changed.set()

    async def begin(self):
        while self.waiting:
            self.changed.clear()
            await self.changed.wait()
        self.epoch += 1
        self.round, self.requests, self.answered = 0, 0, True

    def count(self):
        return self.round - (not self.answered), self.requests


class World:
    delay, life, probability = 0.0, 0.0, 0.0
    rng = random.Random(0)
    refuse = 0


def abort(writer):
    """A reset rather than an end."""
    s = writer.get_extra_info("socket")
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    writer.transport.abort()


class Link:
    def __init__(self, meter, client, server):
        self.meter = meter
        (self.from_client, self.to_client), (self.from_server, self.to_server) = client, server
        self.fault, self.refused = None, False
        self.left = 0  # of the answer, until it is cut
        self.tasks = []

    def draw(self):
        self.fault = "status" if World.refuse else None
        if self.fault or World.rng.random() >= World.probability:
            return
        self.fault = World.rng.choice(KINDS)
        stats[self.fault] += 1
        self.left = int(World.rng.expovariate(1 / 3000))

    async def stall(self):
        long = World.rng.random() < 0.04
        stats["stall-long"] += long
        await asyncio.sleep(LONG_STALL if long else World.rng.uniform(0.05, 1.5))

    async def refuse(self, status):
        stats["status-%d" % status] += 1
        wait = b"Retry-After: 1\r\n" if status in (429, 503) and World.rng.random() < 0.5 else b""
        body = b"<html>error</html>\n"
        self.to_client.write(b"HTTP/1.1 %d Refused\r\nContent-Type: text/html\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                             % (status, wait, len(body), body))
        self.meter.answer(self)
        await self.to_client.drain()
        self.refused = True  # the client ends the connection; what still comes must not turn the answer into a reset

    async def pass_up(self, data, begins):
        """False: the connection is over."""
        if self.refused:
            return True
        if begins and self.fault == "drop":
            return False
        if begins and self.fault == "torn":
            self.to_server.write(data[:len(data) // 2])
            await self.to_server.drain()
            return False
        if begins and self.fault == "status":
            await self.refuse(World.refuse or World.rng.choice((429, 500, 502, 503)))
            return True
        if begins and self.fault == "stall":
            await self.stall()
        self.to_server.write(data)
        await self.to_server.drain()
        return True

    async def pass_down(self, data):
        if self.refused:
            return True
        if self.fault == "late":
            await self.refuse(502)
            return True
        if self.fault == "lost":
            abort(self.to_client)
            return False
        if self.fault == "cut":
            data, self.left = data[:self.left], self.left - len(data)
        self.meter.answer(self)
        self.to_client.write(data)
        await self.to_client.drain()
        return self.fault != "cut" or self.left > 0

    async def run(self, read, act, begin):
        """Bytes of one direction: taken as they come, acted upon after the delay."""
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue(64)

        async def take():
            try:
                while data := await read(CHUNK):
                    await queue.put((loop.time() + World.delay, data, begin()))
            except OSError:
                pass
            await queue.put(None)

        task = asyncio.create_task(take())
        self.tasks.append(task)
        while item := await queue.get():
            due, data, begins = item
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not await (act(data, begins) if act == self.pass_up else act(data)):
                break

    def begin_up(self):
        begins = self.meter.burst(self)
        if begins:
            stats["requests"] += 1
            self.draw()
        return begins

    async def both(self):
        pumps = [asyncio.create_task(self.run(self.from_client.read, self.pass_up, self.begin_up)),
                 asyncio.create_task(self.run(self.from_server.read, self.pass_down, lambda: False))]
        self.tasks += pumps
        born, done = time.monotonic(), ()
        while not done and not 0 < World.life < time.monotonic() - born:
            done, _ = await asyncio.wait(pumps, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        stats["outlived"] += not done
        for task in done:
            task.exception()

    def end(self):
        for task in self.tasks:
            task.cancel()
        self.meter.answer(self)
        for writer in self.to_client, self.to_server:
            if self.fault in ("drop", "torn", "cut") and World.rng.random() < 0.5:
                abort(writer)
            writer.close()


async def serve(port):
    meter = Meter()

    async def on_client(*client):
        stats["connections"] += 1
        handshake = object()
        meter.burst(handshake, False)
        await asyncio.sleep(2 * World.delay)
        meter.answer(handshake)
        try:
            server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            abort(client[1])
            return
        link = Link(meter, client, server)
        try:
            await link.both()
        except OSError:
            pass
        finally:
            link.end()

    async def order(words):
        match words:
            case ["delay", ms]:
                World.delay = float(ms) / 1000
            case ["begin"]:
                await meter.begin()
            case ["count"]:
                return "%d %d" % meter.count()
            case ["faults", seed, p]:
                World.rng, World.probability = random.Random(int(seed)), float(p)
            case ["refuse", status]:
                World.refuse = int(status)
            case ["life", seconds]:
                World.life = float(seconds)
            case ["stats"]:
                return " ".join("%s=%d" % i for i in sorted(stats.items()))
            case _:
                return "what?"
        return "ok"

    async def on_control(reader, writer):
        while line := await reader.readline():
            writer.write((await order(line.decode().split())).encode() + b"\n")
            await writer.drain()
        writer.close()

    front = await asyncio.start_server(on_client, "127.0.0.1", 0)
    control = await asyncio.start_server(on_control, "127.0.0.1", 0)
    print(front.sockets[0].getsockname()[1], control.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(front.serve_forever(), control.serve_forever())


asyncio.run(serve(int(sys.argv[1])))
