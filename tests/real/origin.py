"""An origin for what nginx does not do: echoes of uploads, WebSocket, trailers, events, early hints. No dependencies.

| request | answer |
|---|---|
| POST, PUT …/echo | JSON: SHA-256 and length of the body, and how it came |
| POST …/refuse | 413 at once, without reading the body or inviting it with a 100 |
| GET …/ws | a WebSocket (RFC 6455) that sends each message back |
| GET …/trailers | chunks, and their SHA-256 in a trailer field |
| GET …/events?name=N | one server-sent event, and a second one only after …/go?name=N was asked for |
| GET …/hints | 103 with a Link, then 200 |
| GET …/close | a body that ends with the connection, as HTTP/1.0 servers send it |
| GET …/fields | JSON: the header fields that arrived |
"""

import base64
import collections
import hashlib
import http.server
import json
import socket
import struct
import threading
import urllib.parse

TRAILED = [b"first part, ", b"second part, " * 1000, b"and the last"]


class Origin(http.server.ThreadingHTTPServer):
    """Serves on its own thread until closed."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Handler)
        self.go = collections.defaultdict(threading.Event)
        self.closed = collections.defaultdict(threading.Event)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # An origin that waits for ever would hide a hanging proxy.
    timeout = 60

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        name = dict(urllib.parse.parse_qsl(url.query)).get("name", "")
        match url.path.rsplit("/", 1)[-1]:
            case "ws":
                self.websocket()
            case "trailers":
                self.trailers()
            case "events":
                self.events(name)
            case "go":
                self.server.go[name].set()
                self.json({"go": name})
            case "hints":
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
                self.json({"hinted": True})
            case "close":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"until the end" * 1000)
                self.close_connection = True
            case "fields":
                self.json({"fields": [[key.lower(), value] for key, value in self.headers.items()]})
            case _:
                self.json({"error": "not found"}, 404)

    def do_POST(self):
        if self.path.endswith("/refuse"):
            self.send_response(413)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            return
        digest, length, chunks = hashlib.sha256(), 0, 0
        for chunk in self.body():
            digest.update(chunk)
            length += len(chunk)
            chunks += 1
        self.json({
            "sha256": digest.hexdigest(), "length": length, "method": self.command,
            "chunked": "transfer-encoding" in self.headers, "expect": self.headers.get("expect"),
        })

    do_PUT = do_POST

    def handle_expect_100(self):
        return True if self.path.endswith("/refuse") else super().handle_expect_100()

    def body(self):
        """The request body in pieces, whatever its framing."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                pass
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def json(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def trailers(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Checksum")
        self.end_headers()
        for piece in TRAILED:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        digest = hashlib.sha256(b"".join(TRAILED)).hexdigest()
        self.wfile.write(b"0\r\nX-Checksum: %s\r\n\r\n" % digest.encode())

    def events(self, name):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        # Lets a cache store it: a stream that is being stored must not be delayed either.
        self.send_header("Cache-Control", "max-age=60" if "cached" in self.path else "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.event(b"data: first\n\n")
        if self.server.go[name].wait(30):
            self.event(b"data: second\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, event):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def websocket(self):
        key = self.headers.get("sec-websocket-key")
        if self.headers.get("upgrade", "").lower() != "websocket" or not key:
            self.json({"error": "this is a WebSocket"}, 426)
            return
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(key))
        self.end_headers()
        self.close_connection = True
        while True:
            opcode, payload = read_frame(self.rfile)
            self.wfile.write(frame(opcode, payload))
            if opcode == CLOSE:
                self.server.closed["ws"].set()
                return

    def log_message(self, *_):
        pass


def accept_key(key):
    """RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def frame(opcode, payload, mask=b""):
    """One final frame, RFC 6455 section 5.2; clients give a mask of four bytes."""
    size = len(payload)
    flag = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, flag | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, flag | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, flag | 127, size)
    return head + mask + masked(payload, mask)


def read_frame(stream):
    """(opcode, payload) of the next frame; ends like a connection that breaks off."""
    head = stream.read(2)
    if len(head) < 2:
        return CLOSE, b""
    size = head[1] & 0x7F
    if size == 126:
        size, = struct.unpack("!H", stream.read(2))
    elif size == 127:
        size, = struct.unpack("!Q", stream.read(8))
    mask = stream.read(4) if head[1] & 0x80 else b""
    return head[0] & 0x0F, masked(stream.read(size), mask)


def masked(payload, mask):
    if not mask:
        return payload
    repeated = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
