# code.py body CONTEXT [timeoutMs=N] [runId=ID]: the JSON of a request that runs the code of stdin.
# code.py events: the event stream on stdin, one event a line as it comes:
# stdout TEXT, stderr TEXT (as JSON strings), result FORMS VALUE, error NAME: MESSAGE, complete. An answer that is no stream: its code.
import json
import sys


def body(context, words):
    o = {"context_id": context, "code": sys.stdin.read()}
    for word in words:
        name, value = word.split("=", 1)
        o[name] = int(value) if name == "timeoutMs" else value
    print(json.dumps(o))


texts = {"stdout": "", "stderr": ""}


def flush():
    for name in texts:
        if texts[name]:
            print(name, json.dumps(texts[name], ensure_ascii=False), flush=True)
        texts[name] = ""


def event(e):
    kind = e["type"]
    if kind in texts:
        # Pieces of one line are joined: how they were cut is chance.
        texts[kind] += e["text"]
        if texts[kind].endswith("\n"):
            flush()
        return
    flush()
    if kind == "result":
        forms = sorted(k for k in e if k not in ("type", "metadata"))
        value = json.dumps(e["json"], ensure_ascii=False) if "json" in e else json.dumps(e["text"])
        print("result", " ".join(forms), value, flush=True)
    elif kind == "error":
        assert "\x1b" not in "".join(e["traceback"]), e
        print("error %s: %s" % (e["ename"], e["evalue"]), flush=True)
    else:
        print("complete", flush=True)


if sys.argv[1] == "body":
    body(sys.argv[2], sys.argv[3:])
else:
    for line in iter(sys.stdin.readline, ""):
        if line.startswith("data: "):
            event(json.loads(line[6:]))
        elif line.strip():
            print(json.loads(line)["code"])
