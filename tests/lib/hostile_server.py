# A server that lies, for tests: python3 hostile_server.py PORT DIR stands before a real one on 127.0.0.1:PORT and passes everything
# on, but for what there is a file in DIR: DIR/session is its answer on the state of any session, DIR/list that on which there are,
# DIR/processes and DIR/contexts likewise, DIR/code that to a run of code, DIR/changes what it tells of changes, after `ready`. Prints its own port.
import os
import socket
import sys
import threading

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LIES = {b"GET /api/sandboxfs/session?": "session", b"GET /api/session/list ": "list",
        b"GET /api/process/list ": "processes", b"GET /api/contexts ": "contexts",
        b"POST /api/sandboxfs/changes ": "changes", b"POST /api/execute/code ": "code"}


def lie(request):
    for begin, name in LIES.items():
        if request.startswith(begin):
            try:
                with open(os.path.join(sys.argv[2], name), "rb") as f:
                    return name, f.read()
            except FileNotFoundError:
                pass
    return None, b""


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def pump(a, b, look):
    try:
        while True:
            data = a.recv(65536)
            if not data:
                break
            # who has one connection for one request after the other begins each with a packet of its own
            name, answer = lie(data) if look else (None, b"")
            if name == "changes":
                a.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"ready\n" + answer))
            elif name:
                a.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
            else:
                b.sendall(data)
    except OSError:
        pass
    for s in a, b:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for args in (client, server, True), (server, client, False):
        threading.Thread(target=pump, args=args, daemon=True).start()
