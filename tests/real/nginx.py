"""Debian's nginx as a real origin, and a small one by hand for what nginx does not do, through Vaxel to real clients.

Bytes are compared with the origin's own. Nothing waits by sleeping: what must not be delayed is proven by an origin
that only goes on after the client has seen what came before.
"""

import base64
import collections
import concurrent.futures
import gzip
import hashlib
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import uuid

import origin
from harness import ROOT, Test, binary, fetch, free_ports, listening, scrape, settled, until

SIZES = {"0.bin": 0, "1.bin": 1, "1k.bin": 1 << 10, "100k.bin": 100 << 10, "1m.bin": 1 << 20, "10m.bin": 10 << 20}
TEXT = "text.txt"


class World:
    """The two origins, Vaxel between, and where everything is."""

    def __init__(self, test):
        self.test = test
        self.www = test.dir / "www"
        self.www.mkdir()
        self.out = test.dir / "out"
        self.out.mkdir()
        self.files = write_files(self.www)
        self.plain, self.secure, self.admin, self.nginx_port, self.app_port = free_ports(5)
        self.barriers = 0
        self.access = test.dir / "access.log"
        self.ca = self.certificates()
        self.start_origins()
        self.start_vaxel()

    def certificates(self):
        """A CA and a certificate by Vaxel's own command."""
        certs = self.test.dir / "certs"
        made = subprocess.run([binary(), "certs", "--dir", certs], capture_output=True, text=True, timeout=60)
        self.test.equal("vaxel certs makes certificates", made.returncode, 0)
        paths = dict(re.findall(r"^(\w+) +(/.*|\S+\.\w+)$", made.stdout, re.M))
        self.cert, self.key = paths["certificate"], paths["key"]
        return paths["CA"]

    def start_origins(self):
        self.nginx_log = self.test.dir / "nginx-access.log"
        (self.test.dir / "upload").mkdir()
        config = self.test.write("nginx.conf", NGINX.format(
            dir=self.test.dir, port=self.nginx_port, log=self.nginx_log))
        self.nginx = self.test.start("nginx", ["nginx", "-c", config, "-p", self.test.dir])
        self.app = origin.Origin(self.app_port)
        listening(self.nginx_port, self.nginx)

    def start_vaxel(self):
        self.vaxel = self.test.vaxel("run", "--config", ROOT / "tests/real/nginx.toml", env=os.environ | {
            "PLAIN": f"127.0.0.1:{self.plain}", "SECURE": f"127.0.0.1:{self.secure}",
            "ADMIN": f"127.0.0.1:{self.admin}", "CERT": self.cert, "KEY": self.key, "ACCESS": str(self.access),
            "NGINX": f"http://127.0.0.1:{self.nginx_port}", "APP": f"http://127.0.0.1:{self.app_port}"})
        for port in (self.plain, self.secure, self.admin):
            listening(port, self.vaxel)

    def seen_by_nginx(self, path, **having):
        """nginx' own log of requests for `path`."""
        # It logs a request after its answer was read; its one process has logged all before when it logs this one.
        self.barriers += 1
        barrier = f"/barrier-{self.barriers}"
        fetch(self.nginx_port, barrier)
        until("nginx logs the barrier", lambda: barrier in self.nginx_log.read_text())
        lines = [json.loads(line) for line in self.nginx_log.read_text().splitlines()]
        return [line for line in lines if line["path"] == path and all(line[key] == having[key] for key in having)]

    def curl(self, *arguments, timeout=60):
        """curl's standard output."""
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--max-time", str(timeout), *map(str, arguments)],
            capture_output=True, timeout=timeout + 5)
        if done.returncode:
            raise RuntimeError(f"curl {arguments} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout

    def get(self, path, **options):
        """One request to the plain listener."""
        return fetch(self.plain, path, **options)


def main():
    with Test("nginx") as test:
        world = World(test)
        for title, part in PARTS:
            with test.part(title):
                part(test, world)
    sys.exit(test.code)


def protocols(test, world):
    """Every file by every protocol, from the uncached and the cached route, to curl."""
    http, https = f"http://127.0.0.1:{world.plain}", f"https://localhost:{world.secure}"
    trust = ["--cacert", world.ca]
    for name, version, base, options in (
            ("HTTP/1.0", "1", http, ["--http1.0"]),
            ("HTTP/1.1", "1.1", http, ["--http1.1"]),
            ("h2c", "2", http, ["--http2-prior-knowledge"]),
            ("HTTP/1.1 and TLS", "1.1", https, ["--http1.1", *trust]),
            ("HTTP/2 and TLS", "2", https, ["--http2", *trust])):
        for route in ("plain", "cached"):
            wrong = []
            for file, content in world.files.items():
                # One curl each: 7.88 cannot use an h2c connection twice, with nginx as its server neither.
                wrote = world.curl(*options, "--write-out", "%{http_code} %{http_version}", "-o", world.out / file,
                                   f"{base}/{route}/{file}").decode()
                if wrote != f"200 {version}" or sha((world.out / file).read_bytes()) != sha(content):
                    wrong.append((file, wrote))
            test.check(f"{name}: {len(world.files)} files from /{route} are the origin's", not wrong, wrong)
    for file, content in world.files.items():
        count = len(world.seen_by_nginx(f"/cached/{file}"))
        # http and https are two addresses; what is larger than an entry may be (8 MiB) is never stored.
        expected = 2 if len(content) < 8 << 20 else 5
        test.equal(f"nginx was asked {expected} times for the cached {file}", count, expected)
    count = len(world.seen_by_nginx("/plain/1k.bin"))
    test.equal("nginx was asked each time for an uncached file", count, 5)


def caching(test, world):
    """What a hit looks like, and that a client can make the cache ask again."""
    status, headers, body = world.get("/cached/hit.bin")
    test.check("the first answer is a miss that was stored",
               status == 200 and "fwd=uri-miss" in field(headers) and "stored" in field(headers), field(headers))
    test.check("the first answer has no Age or 0", headers.get("age", "0") == "0", headers["age"])
    status, again, second = world.get("/cached/hit.bin")
    test.check("the second is a hit of vaxel",
               field(again).startswith("vaxel") and "; hit" in field(again), field(again))
    test.check("the second has an Age", (again["age"] or "").isdigit(), again.items())
    test.check("bytes, type, tag and date of change are the same",
               second == body and all(again[name] == headers[name] for name in (
                   "content-type", "etag", "last-modified", "content-length")), again.items())
    test.equal("nginx saw one request", len(world.seen_by_nginx("/cached/hit.bin")), 1)

    status, headers, third = world.get("/cached/hit.bin", headers={"Cache-Control": "no-cache"})
    asked = world.seen_by_nginx("/cached/hit.bin")
    test.equal("no-cache asks nginx with the tag, and it answers 304",
               [(line["status"], bool(line["if_none_match"])) for line in asked[1:]], [("304", True)])
    test.check("the client gets the whole answer all the same", (status, third) == (200, body), (status, len(third)))

    status, headers, nothing = world.get("/cached/never.bin", headers={"Cache-Control": "only-if-cached"})
    test.equal("only-if-cached for what is not stored is a 504", status, 504)
    test.equal("and nginx was not asked", world.seen_by_nginx("/cached/never.bin"), [])

    status, headers, _ = world.get("/plain/hit.bin")
    test.check("a route without a cache has neither hit nor Age",
               "; hit" not in field(headers) and headers["age"] is None, headers.items())
    status, headers, _ = world.get("/plain/missing.bin")
    test.equal("a 404 of nginx stays one", status, 404)


def heads_and_conditions(test, world):
    content = world.files["100k.bin"]
    for route in ("plain", "cached"):
        path = f"/{route}/100k.bin"
        _, full, _ = world.get(path)
        status, head, body = world.get(path, method="HEAD")
        test.check(f"{path}: HEAD has the fields of GET and no body",
                   (status, body) == (200, b"") and head["content-length"] == str(len(content))
                   and head["etag"] == full["etag"], (status, head.items()))
        for name, value, expected in (
                ("If-None-Match", full["etag"], 304),
                ("If-None-Match", f'"other", W/{full["etag"]}', 304),
                ("If-None-Match", "*", 304),
                ("If-None-Match", '"other"', 200),
                ("If-Modified-Since", full["last-modified"], 304),
                ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT", 200)):
            if (route, value) == ("plain", "*"):
                continue  # nginx 1.22 knows no `*`
            status, headers, body = world.get(path, headers={name: value})
            good = status == expected and body == (b"" if expected == 304 else content)
            test.check(f"{path}: {name}: {value[:12]} gives {expected}", good, (status, len(body)))
            if status == 304:
                test.equal(f"{path}: that 304 has the tag", headers["etag"], full["etag"])
    test.equal("nginx has heard nothing of all that for the cached file", len(world.seen_by_nginx("/cached/100k.bin")), 2)


def ranges(test, world):
    content = world.files["100k.bin"]
    size = len(content)
    for route in ("plain", "cached"):
        path = f"/{route}/100k.bin"
        _, full, _ = world.get(path)
        for spec, start, end in (
                ("0-0", 0, 1), ("100-199", 100, 200), (f"{size - 1}-", size - 1, size),
                ("-100", size - 100, size), (f"100-{size * 2}", 100, size), (f"-{size * 2}", 0, size)):
            status, headers, body = world.get(path, headers={"Range": f"bytes={spec}"})
            expected = (206, f"bytes {start}-{end - 1}/{size}")
            test.check(f"{path}: bytes={spec}",
                       (status, headers["content-range"]) == expected and body == content[start:end],
                       (status, headers["content-range"], len(body)))
        status, headers, _ = world.get(path, headers={"Range": f"bytes={size}-"})
        test.equal(f"{path}: a range behind the end", (status, headers["content-range"]), (416, f"bytes */{size}"))
        status, headers, body = world.get(path, headers={"Range": "bytes=0-9,50-59"})
        parts = [piece.split(b"\r\n\r\n", 1)[1][:10] for piece in body.split(b"--")[1:] if b"\r\n\r\n" in piece]
        whole = status == 200 and body == content  # allowed: RFC 9110 section 14.2
        test.check(f"{path}: two ranges", whole or (status == 206 and parts == [content[:10], content[50:60]]),
                   (status, headers.items(), len(body)))
        for tag, expected in ((full["etag"], 206), ('"other"', 200)):
            status, _, body = world.get(path, headers={"Range": "bytes=0-9", "If-Range": tag})
            test.check(f"{path}: If-Range: {tag[:8]} gives {expected}",
                       status == expected and body == (content[:10] if expected == 206 else content), status)
    head = world.curl("--http2-prior-knowledge", "--range", "5-14", f"http://127.0.0.1:{world.plain}/cached/100k.bin")
    test.equal("a range over HTTP/2", head, content[5:15])
    test.equal("a range of what is not stored yet", world.get(
        "/cached/range.bin", headers={"Range": "bytes=10-19"})[2], (world.www / "range.bin").read_bytes()[10:20])
    test.equal("and the whole afterwards", world.get("/cached/range.bin")[2], (world.www / "range.bin").read_bytes())


def coding(test, world):
    content = world.files[TEXT]
    for route in ("plain", "cached"):
        path = f"/{route}/{TEXT}"
        for turn in (1, 2):
            status, headers, body = world.get(path, headers={"Accept-Encoding": "gzip"})
            test.check(f"{path}: gzip, turn {turn}",
                       status == 200 and headers["content-encoding"] == "gzip" and gzip.decompress(body) == content
                       and "accept-encoding" in (headers["vary"] or "").lower(), (status, headers.items()))
            status, headers, body = world.get(path)
            test.check(f"{path}: as it is, turn {turn}",
                       status == 200 and headers["content-encoding"] is None and body == content,
                       (status, headers.items()))
    out = world.curl("--compressed", f"http://127.0.0.1:{world.plain}/cached/{TEXT}")
    test.check("curl unpacks what the cache has", out == content, len(out))
    # Without Accept-Encoding by http and by https before; then `identity` of http.client, `gzip`, and curl's list.
    test.equal("nginx was asked once for each Accept-Encoding", len(world.seen_by_nginx(f"/cached/{TEXT}")), 5)


def load(test, world):
    """Real load generators; no error of any kind."""
    http, https = f"http://127.0.0.1:{world.plain}", f"https://localhost:{world.secure}"
    for route, path in (("cached", "/cached/1k.bin"), ("uncached", "/plain/1k.bin"), ("large", "/cached/100k.bin")):
        done = subprocess.run(["wrk", "-t1", "-c16", "-d3s", http + path], capture_output=True, text=True, timeout=30)
        found = re.search(r"(\d+) requests in", done.stdout)
        clean = done.returncode == 0 and found and int(found[1]) > 100 and not re.search(
            r"Non-2xx|Socket errors", done.stdout)
        test.check(f"wrk, {route}: {found and found[1]} requests without an error", clean, done.stdout + done.stderr)
    for name, options, url, requests in (
            ("HTTP/1.1", ["--h1", "-c8"], f"{http}/cached/1k.bin", 4000),
            ("h2c, cached", ["-c8", "-m10"], f"{http}/cached/1k.bin", 4000),
            ("h2c, uncached", ["-c4", "-m8"], f"{http}/plain/1k.bin", 2000),
            ("h2c, large", ["-c2", "-m10"], f"{http}/cached/1m.bin", 100),
            ("h2 and TLS, cached", ["-c8", "-m10"], f"{https}/cached/1k.bin", 4000),
            ("h2 and TLS, uncached", ["-c4", "-m8"], f"{https}/plain/100k.bin", 500)):
        done = subprocess.run(["h2load", "-n", str(requests), *options, url], capture_output=True, text=True, timeout=60)
        clean = f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
        test.check(f"h2load, {name}: {requests} succeeded", clean and f"{requests} 2xx" in done.stdout,
                   done.stdout + done.stderr)


def browser(test, world):
    """Six connections, as a browser opens them: a page of forty files, then again with conditions, then parts."""
    names = [f"asset-{number}.bin" for number in range(40)]
    for number, name in enumerate(names):
        (world.www / name).write_bytes(random.Random(number).randbytes(200 * number))
    expected = {name: (world.www / name).read_bytes() for name in names}

    def visit(headers_of):
        waiting = collections.deque(names)
        found = {}

        def one_connection(_):
            connection = http.client.HTTPConnection("127.0.0.1", world.plain, timeout=30)
            while True:
                try:
                    name = waiting.popleft()
                except IndexError:
                    return connection.close()
                connection.request("GET", f"/cached/{name}", headers=headers_of(name))
                response = connection.getresponse()
                found[name] = (response.status, response.headers, response.read())

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(one_connection, range(6)))
        return found

    first = visit(lambda _: {})
    test.check("first visit: every file arrives whole",
               {name: body for name, (_, _, body) in first.items()} == expected, [
                   (name, status) for name, (status, _, body) in first.items() if body != expected[name]])
    second = visit(lambda name: {"If-None-Match": first[name][1]["etag"]})
    test.equal("second visit: nothing is sent again", {
        (status, body) for status, _, body in second.values()}, {(304, b"")})
    third = visit(lambda _: {"Range": "bytes=0-0"})
    test.check("parts: one byte each", all(
        (status, body) == (206, expected[name][:1]) for name, (status, _, body) in third.items() if expected[name]),
        [(name, status) for name, (status, _, _) in third.items()])
    test.equal("nginx was asked once for each file", {
        name: len(world.seen_by_nginx(f"/cached/{name}")) for name in names}, dict.fromkeys(names, 1))
    urls = [item for name in names for item in ("-o", world.out / name, f"https://localhost:{world.secure}/cached/{name}")]
    world.curl("--cacert", world.ca, "--parallel", "--parallel-immediate", "--http2", *urls)
    test.check("curl --parallel over HTTP/2 gets the same", all(
        (world.out / name).read_bytes() == expected[name] for name in names), "")


def uploads(test, world):
    big, small = world.files["10m.bin"], world.files["1k.bin"]
    http, https = f"http://127.0.0.1:{world.plain}", f"https://localhost:{world.secure}"
    source = {"10m": world.www / "10m.bin", "1k": world.www / "1k.bin", "0": world.www / "0.bin"}
    for number, (name, file, options) in enumerate((
            ("a length", "10m", ["--http1.1", "-H", "Expect:"]),
            ("Expect: 100-continue", "10m", ["--http1.1", "-H", "Expect: 100-continue"]),
            ("HTTP/2", "10m", ["--http2-prior-knowledge"]),
            ("nothing in it", "0", ["--http1.1"]))):
        target = f"/plain/upload/{number}"
        status = world.curl("-T", source[file], *options, "-o", "/dev/null", "-w", "%{http_code}", http + target)
        stored = world.test.dir / "upload" / str(number)
        test.check(f"PUT to nginx with {name}: the file on its disk is the same", status == b"201"
                   and stored.exists() and stored.read_bytes() == source[file].read_bytes(), status)
    for name, base, file, options in (
            ("a length", http, "1k", ["--http1.1"]),
            ("chunks", http, "10m", ["--http1.1", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"]),
            ("chunks and Expect", http, "10m", ["--http1.1", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"]),
            ("HTTP/1.0", http, "1k", ["--http1.0"]),
            ("HTTP/2", http, "10m", ["--http2-prior-knowledge"]),
            ("HTTP/2 and TLS", https, "10m", ["--http2", "--cacert", world.ca]),
            ("HTTP/2 without a length", http, "10m", ["--http2-prior-knowledge", "-H", "Transfer-Encoding: chunked"])):
        content = source[file].read_bytes()
        data = ["--data-binary", f"@{source[file]}"] if "length" in name and "HTTP" not in name else ["-T", source[file]]
        found = json.loads(world.curl("-X", "POST", *options, *data, base + "/app/echo"))
        test.equal(f"POST with {name}: the origin read the same bytes",
                   (found.get("length"), found.get("sha256")), (len(content), sha(content)))
    # http.client makes one chunk of each piece.
    _, _, body = world.get("/app/echo", method="POST", body=iter([b"a", b"b" * 70000, b"c"]))
    test.equal("small and large chunks", json.loads(body)["sha256"], sha(b"a" + b"b" * 70000 + b"c"))
    status, _, _ = world.get("/app/echo", method="POST", body=b"no chunk", headers={"Transfer-Encoding": "chunked"})
    test.equal("broken chunks are the client's fault", status, 400)


def expectations(test, world):
    """100-continue: the invitation comes from the origin, and a refusal reaches a client that still waits for one."""
    with Raw(world.plain) as raw:
        raw.send(b"POST /app/echo HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        status, _, _ = raw.head()
        test.equal("the invitation comes before the body is sent", status, 100)
        raw.send(b"hello")
        status, headers, _ = raw.head()
        found = json.loads(raw.body(headers))
        test.equal("then the answer", (status, found["sha256"]), (200, sha(b"hello")))
        test.equal("the origin saw the expectation", found["expect"], "100-continue")
    with Raw(world.plain) as raw:
        raw.send(b"POST /app/refuse HTTP/1.1\r\nHost: app\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        status, _, _ = raw.head()
        test.equal("a refusal instead of the invitation", status, 413)
    with Raw(world.plain) as raw:
        raw.send(b"GET /app/hints HTTP/1.1\r\nHost: app\r\n\r\n")
        status, headers, _ = raw.head()
        if status == 103:
            test.equal("103 Early Hints are relayed", headers.get("link"), "</style.css>; rel=preload")
            status, headers, _ = raw.head()
        test.equal("103 Early Hints do not disturb the answer", (status, json.loads(raw.body(headers))),
                   (200, {"hinted": True}))


def websocket(test, world):
    key = base64.b64encode(random.Random(7).randbytes(16)).decode()
    with Raw(world.plain) as raw:
        raw.send(f"GET /app/ws HTTP/1.1\r\nHost: app\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        status, headers, _ = raw.head()
        test.equal("the switch", (status, headers.get("sec-websocket-accept"), (headers.get("upgrade") or "").lower()),
                   (101, origin.accept_key(key), "websocket"))
        busy = scrape(world.admin).sum("vaxel_slots_busy", upstream="app")
        test.equal("the slot is taken while it is open", busy, 1.0)
        for opcode, payload in ((origin.TEXT, "Grüße".encode()), (origin.BINARY, random.Random(8).randbytes(300)),
                                (origin.BINARY, random.Random(9).randbytes(300_000)), (origin.TEXT, b"")):
            raw.send(origin.frame(opcode, payload, b"mask"))
            test.check(f"an echo of {len(payload)} bytes", origin.read_frame(raw.stream) == (opcode, payload))
        raw.send(b"".join(origin.frame(origin.TEXT, str(n).encode(), b"mask") for n in range(100)))
        test.check("a hundred at once", [origin.read_frame(raw.stream)[1] for _ in range(100)] == [
            str(n).encode() for n in range(100)])
        raw.send(origin.frame(origin.CLOSE, b"\x03\xe8", b"mask"))
        test.equal("the close is answered", origin.read_frame(raw.stream), (origin.CLOSE, b"\x03\xe8"))
        test.equal("and the connection ends", raw.stream.read(), b"")
    test.check("the origin saw the close", world.app.closed["ws"].wait(5))
    metrics = settled(world.admin, "slot free", lambda found: not found.sum("vaxel_slots_busy", upstream="app"))
    test.equal("the slot is free again", metrics.sum("vaxel_slots_busy", upstream="app"), 0.0)
    status, _, _ = world.get("/app/ws")
    test.equal("without an upgrade the origin's own refusal", status, 426)


def trailers(test, world):
    whole = b"".join(origin.TRAILED)
    with Raw(world.plain) as raw:
        raw.send(b"GET /app/trailers HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        status, headers, _ = raw.head()
        body, trailer = raw.chunked()
        test.equal("HTTP/1.1: the body", (status, body == whole), (200, True))
        test.equal("HTTP/1.1: its checksum in a trailer", trailer.get("x-checksum"), sha(whole))
    done = subprocess.run(["nghttp", "-v", "--no-dep", "-H", "te: trailers", f"http://127.0.0.1:{world.plain}/app/trailers"],
                          capture_output=True, timeout=30)
    test.check("HTTP/2: its checksum in a trailer", b"x-checksum: " + sha(whole).encode() in done.stdout.lower(),
               done.stdout[-1500:])
    status, _, body = world.get("/app/close")
    test.equal("a body that ends with the connection", (status, body), (200, b"until the end" * 1000))


def events(test, world):
    """The origin sends the second event only after the client, having read the first, asks it to."""
    for route in ("app", "app-cached"):
        name = uuid.uuid4().hex
        with Raw(world.plain) as raw:
            raw.send(f"GET /{route}/events?name={name} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
            status, headers, _ = raw.head()
            first = raw.chunk()
            test.equal(f"/{route}, HTTP/1.1: the first event comes alone", (status, first), (200, b"data: first\n\n"))
            world.get(f"/app/go?name={name}")
            rest, _ = raw.chunked()
            test.equal(f"/{route}, HTTP/1.1: then the second", rest, b"data: second\n\n")
        name = uuid.uuid4().hex
        client = subprocess.Popen(
            ["curl", "-sN", "--max-time", "30", "--http2-prior-knowledge",
             f"http://127.0.0.1:{world.plain}/{route}/events?name={name}"], stdout=subprocess.PIPE)
        try:
            test.equal(f"/{route}, HTTP/2: the first event comes alone", os.read(client.stdout.fileno(), 100),
                       b"data: first\n\n")
            world.get(f"/app/go?name={name}")
            test.equal(f"/{route}, HTTP/2: then the second", client.stdout.read(), b"data: second\n\n")
        finally:
            client.kill()
            client.wait()
    _, headers, body = world.get(f"/app-cached/events?name={name}")
    test.check("a stream that ended was stored like any answer",
               body == b"data: first\n\ndata: second\n\n" and "; hit" in field(headers), (body, field(headers)))


def fields(test, world):
    """What the origin learns of the client, and what it must not."""
    _, _, body = world.get("/app/fields", headers={
        "Connection": "close, X-Private", "X-Private": "hop by hop", "X-Forwarded-For": "203.0.113.9",
        "Cookie": "a=1; b=2", "X-Long": "x" * 8000})
    found = json.loads(body)["fields"]
    by_name = {name: value for name, value in found}
    test.check("a field that Connection names does not pass", "x-private" not in by_name, by_name)
    test.equal("Host stays the client's", by_name.get("host"), f"127.0.0.1:{world.plain}")
    test.check("X-Forwarded-For of a stranger is not believed",
               "203.0.113.9" not in by_name.get("x-forwarded-for", ""), by_name.get("x-forwarded-for"))
    test.check("Via names vaxel", "vaxel" in by_name.get("via", ""), by_name.get("via"))
    test.equal("Cookie", by_name.get("cookie"), "a=1; b=2")
    test.equal("a long field", len(by_name.get("x-long", "")), 8000)
    _, headers, _ = world.get("/app/fields")
    test.check("Via of the answer names vaxel", "vaxel" in (headers["via"] or ""), headers.items())


def books(test, world):
    """Afterwards: nothing hangs, nothing broke, and counters and access log agree."""
    idle = lambda found: not any(found.sum(name) for name in (
        "vaxel_slots_busy", "vaxel_slots_zombie", "vaxel_queue_length", "vaxel_cache_fills_bytes"))
    metrics = settled(world.admin, "idle", idle, timeout=30)
    for name in ("vaxel_slots_busy", "vaxel_slots_zombie", "vaxel_queue_length", "vaxel_cache_fills_bytes"):
        test.check(f"{name} is 0", metrics.has(name) and metrics.sum(name) == 0, metrics.series(name))
    test.equal("no panic", metrics.sum("vaxel_worker_panics_total"), 0.0)
    broken = [entry for entry in metrics.series("vaxel_requests_total") if entry[0]["code"] == "5xx"]
    expected = [entry for entry in broken if entry[0]["route"] == "cached" and entry[1] == 1]
    test.equal("no 5xx but the 504 of only-if-cached", broken, expected)
    refusals = {(labels["route"], labels["reason"]): value for labels, value in metrics.series("vaxel_refusals_total")}
    test.equal("no refusal that was not provoked", refusals, {
        ("cached", "cache.only_if_cached"): 1.0, ("app", "request.body"): 1.0})

    def lines():
        return sum(1 for _ in world.access.open()) + scrape(world.admin).sum("vaxel_access_log_dropped_total")
    total = metrics.sum("vaxel_requests_total")
    until("the access log is written", lambda: lines() >= total, timeout=10)
    test.equal("the access log has a line for each counted request", lines(), total)
    world.vaxel.kill(15)
    test.equal("TERM ends vaxel with exit code 0", world.vaxel.wait(40), 0)
    test.check("and it complained of nothing", " ERROR " not in world.vaxel.text(), world.vaxel.text()[-1500:])


class Raw:
    """A client by hand, where bytes and their moment matter."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def head(self):
        """(status, fields, reason)"""
        line = self.stream.readline().decode()
        if not line:
            raise ConnectionError("closed before an answer")
        _, status, *reason = line.split(None, 2)
        return int(status), self.fields(), reason

    def fields(self):
        found = {}
        while (line := self.stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        return found

    def body(self, headers):
        if "content-length" in headers:
            return self.stream.read(int(headers["content-length"]))
        return self.chunked()[0]

    def chunk(self):
        """One chunk; empty: the last."""
        size = int(self.stream.readline().split(b";")[0], 16)
        data = self.stream.read(size)
        if size:
            self.stream.readline()
        return data

    def chunked(self):
        """(all that is left of the body, trailer fields)"""
        pieces = []
        while piece := self.chunk():
            pieces.append(piece)
        return b"".join(pieces), self.fields()


def write_files(www):
    """The origin's files, the same in every run."""
    files = {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}
    words = random.Random("words")
    files[TEXT] = " ".join(words.choice(["gear", "slot", "route", "trip"]) for _ in range(20000)).encode()
    for name, content in (*files.items(), ("hit.bin", b"hit" * 99), ("range.bin", bytes(range(256)))):
        (www / name).write_bytes(content)
    return files


def field(headers):
    return headers["cache-status"] or ""


def sha(content):
    return hashlib.sha256(content).hexdigest()


PARTS = [
    ("protocols", protocols),
    ("caching", caching),
    ("HEAD and conditions", heads_and_conditions),
    ("ranges", ranges),
    ("content coding", coding),
    ("a browser", browser),
    ("uploads", uploads),
    ("expectations", expectations),
    ("WebSocket", websocket),
    ("trailers", trailers),
    ("server-sent events", events),
    ("fields", fields),
    ("load", load),
    ("books", books),
]

NGINX = """
user root;
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    types {{ text/plain txt; application/octet-stream bin; }}
    log_format seen escape=json '{{"path":"$uri","method":"$request_method","status":"$status","if_none_match":"$http_if_none_match"}}';
    access_log {log} seen;
    client_body_temp_path {dir}/tmp-body;
    proxy_temp_path {dir}/tmp-proxy;
    fastcgi_temp_path {dir}/tmp-fastcgi;
    uwsgi_temp_path {dir}/tmp-uwsgi;
    scgi_temp_path {dir}/tmp-scgi;
    client_max_body_size 20m;
    sendfile on;
    gzip on;
    gzip_types text/plain;
    gzip_vary on;
    gzip_proxied any;
    gzip_http_version 1.0;
    server {{
        listen 127.0.0.1:{port};
        location /plain/ {{ alias {dir}/www/; }}
        location /cached/ {{ alias {dir}/www/; expires 10m; }}
        location /plain/upload/ {{ alias {dir}/upload/; dav_methods PUT; }}
    }}
}}
"""

if __name__ == "__main__":
    main()
