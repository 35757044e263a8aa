#!/usr/bin/env python3
"""Interrupts the commands of two sessions of sandboxd, on the socket given, at any moment: none may lose state or stay. Ends with 0 if all is well.
A library that is named too is loaded into their shells."""
import http.client
import json
import os
import random
import socket
import sys
import threading
import time

SLOW = int(os.environ.get("SLOW", "1"))
COMMANDS = (
    "echo $v$E",
    "true",
    "sleep 0.01; echo $v$E",
    "f() { sleep 0.005; f; }; f",
    "while :; do :; done",
    "for i in 1 2 3; do sleep 0.01; done; echo $v$E",
    "x=$(sleep 0.01; echo hi); echo $v$E",
)
problems = []


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30 * SLOW)
        self.sock.connect(sys.argv[1])

    def post(self, path, **body):
        self.request("POST", path, json.dumps(body))
        return json.loads(self.getresponse().read())


def interrupt(session, over):
    connection = Connection("x")
    while not over.wait(random.random() * 0.02):
        connection.post("/api/sandboxfs/session/signal", sessionId=session, action="interrupt")


def work(session):
    connection = Connection("x")
    env = {"LD_PRELOAD": sys.argv[2]} if len(sys.argv) > 2 else {}
    connection.post("/api/session/create", id=session, env=env)
    connection.post("/api/execute", command="v=kept; export E=1", sessionId=session)
    over = threading.Event()
    other = threading.Thread(target=interrupt, args=(session, over))
    other.start()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        text = random.choice(COMMANDS)
        answer = connection.post("/api/execute", command=text, sessionId=session)
        if answer.get("stdout") not in ("", "kept1\n") or answer.get("exitCode") not in (0, 130, 143):
            problems.append((text, answer))
    over.set()
    other.join()
    answer = connection.post("/api/execute", command="echo $v$E", sessionId=session)
    if answer.get("stdout") != "kept1\n":
        problems.append(answer)


threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not problems, problems
