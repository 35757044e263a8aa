# A small S3 server for tests, of Python's own library alone: s3_server.py BUCKET... prints its port and keeps objects in memory.
# It checks the signature (version 4) of every request against the key of its environment. What s3fs asks
# for is there: listings, objects with their headers, ranges, copies, uploads in parts. GET /-/NAME controls it:
# /-/log the requests so far; /-/refuse PUTs answer 403 from now on; /-/hang nothing is answered; /-/well all is as before.
import hashlib
import hmac
import http.server
import os
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate
from xml.sax.saxutils import escape

KEY, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
lock = threading.Lock()
buckets = {}
uploads = {}
log = []
mode = {"refuse": False, "hang": threading.Event()}
mode["hang"].set()


def signed(method, path, query, headers, digest):
    try:
        fields = dict(p.strip().split("=", 1) for p in headers["authorization"].split(" ", 1)[1].split(","))
        key, date, region, service, _ = fields["Credential"].split("/")
        names = fields["SignedHeaders"].split(";")
    except (KeyError, ValueError, IndexError):
        return "AccessDenied"
    if key != KEY:
        return "InvalidAccessKeyId"
    pairs = sorted((urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~")) for k, v in query)
    canonical = "\n".join(
        [method, path, "&".join(f"{k}={v}" for k, v in pairs)]
        + [f"{n}:{' '.join(headers.get(n, '').split())}" for n in names]
        + ["", ";".join(names), digest]
    )
    text = "\n".join(
        ["AWS4-HMAC-SHA256", headers["x-amz-date"], f"{date}/{region}/{service}/aws4_request",
         hashlib.sha256(canonical.encode()).hexdigest()]
    )
    k = b"AWS4" + SECRET.encode()
    for part in (date, region, service, "aws4_request"):
        k = hmac.new(k, part.encode(), hashlib.sha256).digest()
    right = hmac.new(k, text.encode(), hashlib.sha256).hexdigest()
    return None if hmac.compare_digest(right, fields["Signature"]) else "SignatureDoesNotMatch"


def etag(data):
    return '"' + hashlib.md5(data).hexdigest() + '"'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=(), kind="application/xml"):
        if isinstance(body, str):
            body = body.encode()
        self.send_response(status)
        names = {h[0].lower() for h in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-type" not in names:
            self.send_header("Content-Type", kind)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def control(self, what):
        if what == "hang":
            mode["hang"].clear()
        elif what == "well":
            mode["refuse"] = False
            mode["hang"].set()
        elif what == "refuse":
            mode["refuse"] = True
        with lock:
            text = "\n".join(log) + "\n" if what == "log" else "ok\n"
        self.answer(200, text, kind="text/plain")

    def do(self):
        raw, _, q = self.path.partition("?")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if raw.startswith("/-/"):
            return self.control(raw[3:])
        query = urllib.parse.parse_qsl(q, keep_blank_values=True)
        headers = {k.lower(): v for k, v in self.headers.items()}
        with lock:
            log.append(f"{self.command} {self.path}")
        mode["hang"].wait()
        digest = headers.get("x-amz-content-sha256", hashlib.sha256(self.body).hexdigest())
        bad = signed(self.command, raw, query, headers, digest)
        if not bad and digest != "UNSIGNED-PAYLOAD" and digest != hashlib.sha256(self.body).hexdigest():
            bad = "XAmzContentSHA256Mismatch"
        if bad:
            return self.error(403, bad)
        bucket, _, key = urllib.parse.unquote(raw[1:]).partition("/")
        if bucket not in buckets:
            return self.error(404, "NoSuchBucket")
        if self.command in ("PUT", "POST") and mode["refuse"]:
            return self.error(403, "AccessDenied")
        with lock:
            getattr(self, "on_" + self.command.lower())(buckets[bucket], key, dict(query), headers)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def listing(self, objects, q):
        prefix, delimiter = q.get("prefix", ""), q.get("delimiter", "")
        marker, most = q.get("marker", ""), int(q.get("max-keys", 1000))
        out, groups, last, cut = [], [], "", False
        for key in sorted(k for k in objects if k.startswith(prefix) and k > marker):
            rest = key[len(prefix):]
            group = prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
            if group in groups:
                continue
            if len(out) + len(groups) >= most:
                cut = True
                break
            last = group or key
            if group:
                groups.append(group)
            else:
                data, _, when = objects[key]
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(when))
                out.append(f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified>"
                           f"<ETag>{escape(etag(data))}</ETag><Size>{len(data)}</Size></Contents>")
        text = "".join(out) + "".join(f"<CommonPrefixes><Prefix>{escape(g)}</Prefix></CommonPrefixes>" for g in groups)
        self.answer(200, "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
                    f"<IsTruncated>{'true' if cut else 'false'}</IsTruncated><Prefix>{escape(prefix)}</Prefix>"
                    f"<NextMarker>{escape(last)}</NextMarker>{text}</ListBucketResult>")

    def on_get(self, objects, key, q, headers):
        if not key:
            return self.listing(objects, q)
        if key not in objects:
            return self.error(404, "NoSuchKey")
        data, meta, when = objects[key]
        status, size = 200, len(data)
        extra = [("Last-Modified", formatdate(when, usegmt=True)), ("ETag", etag(data)), *meta.items()]
        if "range" in headers and self.command == "GET":
            first, _, last = headers["range"][len("bytes="):].partition("-")
            a, b = int(first), min(int(last or size), size - 1)
            if a >= size:
                return self.error(416, "InvalidRange")
            status, data = 206, data[a:b + 1]
            extra.append(("Content-Range", f"bytes {a}-{b}/{size}"))
        extra.append(("Content-Length", str(len(data))))
        self.answer(status, data, extra, "application/octet-stream")

    on_head = on_get

    def source(self, headers):
        name = urllib.parse.unquote(headers["x-amz-copy-source"]).lstrip("/")
        bucket, _, key = name.partition("/")
        return buckets.get(bucket, {}).get(key)

    def on_put(self, objects, key, q, headers):
        meta = {k: v for k, v in headers.items() if k.startswith("x-amz-meta-") or k == "content-type"}
        data = self.body
        copy = "x-amz-copy-source" in headers
        if copy:
            found = self.source(headers)
            if not found:
                return self.error(404, "NoSuchKey")
            data = found[0]
            if "x-amz-copy-source-range" in headers:
                a, _, b = headers["x-amz-copy-source-range"][len("bytes="):].partition("-")
                data = data[int(a):int(b) + 1]
            elif headers.get("x-amz-metadata-directive") != "REPLACE":
                meta = found[1]
        if "uploadId" in q:
            uploads[q["uploadId"]][1][int(q["partNumber"])] = data
        else:
            objects[key] = (data, meta, int(time.time()))
        tag = etag(data)
        text = f"<CopyObjectResult><ETag>{escape(tag)}</ETag></CopyObjectResult>" if copy else ""
        self.answer(200, text, [("ETag", tag)])

    def on_post(self, objects, key, q, headers):
        if "uploads" in q:
            name = f"upload{len(uploads)}"
            meta = {k: v for k, v in headers.items() if k.startswith("x-amz-meta-") or k == "content-type"}
            uploads[name] = (meta, {})
            return self.answer(200, f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>")
        meta, parts = uploads.pop(q["uploadId"])
        data = b"".join(parts[n] for n in sorted(parts))
        objects[key] = (data, meta, int(time.time()))
        self.answer(200, f"<CompleteMultipartUploadResult><ETag>{escape(etag(data))}</ETag></CompleteMultipartUploadResult>")

    def on_delete(self, objects, key, q, headers):
        objects.pop(key, None)
        self.answer(204)


for name in sys.argv[1:]:
    buckets[name] = {}
# with it two could be given the same port, of which one is refused when it listens
http.server.ThreadingHTTPServer.allow_reuse_address = False
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
