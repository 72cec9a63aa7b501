"""What a collector gets of Vaxel's traces, decoded by the messages of the OpenTelemetry project itself.

A simulated box, Vaxel before it, and a receiver that answers as a collector does; then the receiver dies.
"""

import collections
import http.server
import sys
import threading
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness import Test, fetch, free_ports, listening, scrape, settled, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPANS = []


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    dead = False

    def do_POST(self):
        if Receiver.dead:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        export = ExportTraceServiceRequest.FromString(body)
        assert export.SerializeToString(), "it is not empty"
        unknown = body != export.SerializeToString(deterministic=True)
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                SPANS.extend((resource.resource, span, unknown) for span in scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(of):
    values = ((each.key, each.value) for each in of.attributes)
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values}


def trace(of):
    return [span for _, span, _ in SPANS if span.trace_id.hex() == of]


def main(test):
    box, port, admin = free_ports(3)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = test.write("vaxel.toml", f"""
        [admin]
        listen = "127.0.0.1:{admin}"
        [log]
        access = "{test.dir}/access.log"
        [traces]
        otlp = "http://127.0.0.1:{server.server_port}"
        sample = 0.0
        service = "facade"
        [[listener]]
        listen = "127.0.0.1:{port}"
        [upstream.box]
        endpoints = "http://127.0.0.1:{box}"
        slots = 1
        queue = {{ max = 1 }}
        [[route]]
        name = "all"
        match = {{ path = "/{{*rest}}" }}
        upstream = "box"
        cache = true
        """)
    sim = test.vaxel("sim", "--listen", f"127.0.0.1:{box}", "--processes", "2", "--service", "100ms", name="sim")
    listening(box, sim)
    vaxel = test.vaxel("run", "--config", config)
    listening(port, vaxel)
    recorded = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

    with test.part("a pass"):
        status, _, _ = fetch(port, "/account/7;jsessionid=GEHEIM?token=GEHEIM", headers=recorded)
        until("its spans", lambda: trace(TRACE))
        spans = trace(TRACE)
        whole = spans[0]
        test.equal("the resource names the service", attributes(SPANS[0][0])["service.name"], "facade")
        test.check("nothing was sent that the messages do not know", not SPANS[0][2])
        test.equal("the server span's parent is the caller's", whole.parent_span_id.hex(), PARENT)
        test.equal("its kind", whole.kind, Span.SPAN_KIND_SERVER)
        test.equal("its name", whole.name, "GET /{*rest}")
        test.equal("its status", attributes(whole)["http.response.status_code"], status)
        names = collections.Counter(span.name for span in spans)
        test.check("every step has one", all(names[step] == 1 for step in ("admit", "lookup", "gate", "GET", "body")), names)
        ids = {span.span_id for span in spans}
        test.equal("every span has an id of its own", len(ids), len(spans))
        test.check("all parents but the first are there", all(span.parent_span_id in ids for span in spans[1:]))
        inside = all(
            whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= whole.end_time_unix_nano
            for span in spans)
        test.check("all lie within the whole", inside)
        test.check("the time is now", abs(time.time() - whole.end_time_unix_nano / 1e9) < 60)
        attempt = next(span for span in spans if span.name == "GET")
        test.equal("the attempt is a client span", attempt.kind, Span.SPAN_KIND_CLIENT)
        test.equal("of this server", (attributes(attempt)["server.address"], attributes(attempt)["server.port"]), ("127.0.0.1", box))
        test.check("no secret is in it", b"GEHEIM" not in b"".join(span.SerializeToString() for span in spans))

    with test.part("a stampede"):
        SPANS.clear()
        paths = [threading.Thread(target=fetch, args=(port, "/catalog/9"), kwargs={"headers": recorded}) for _ in range(4)]
        [each.start() for each in paths]
        [each.join() for each in paths]
        until("their spans", lambda: sum(span.kind == Span.SPAN_KIND_SERVER for span in trace(TRACE)) == 4)
        spans = trace(TRACE)
        names = collections.Counter(span.name for span in spans)
        test.equal("one of them asked the box, on behalf of all", (names["GET"], names["fill"]), (1, 1))
        test.equal("and the others waited, or came later", names["wait"] + sum(
            attributes(span).get("vaxel.cache") == "hit" for span in spans if span.kind == Span.SPAN_KIND_SERVER), 3)
        fill = next(span for span in spans if span.name == "fill")
        attempt = next(span for span in spans if span.name == "GET")
        test.equal("its attempt is below the fill", attempt.parent_span_id, fill.span_id)

    with test.part("a refusal"):
        SPANS.clear()
        paths = [threading.Thread(target=fetch, args=(port, f"/account/{n}"), kwargs={"headers": recorded}) for n in range(8)]
        [each.start() for each in paths]
        [each.join() for each in paths]
        until("their spans", lambda: sum(span.kind == Span.SPAN_KIND_SERVER for span in trace(TRACE)) == 8)
        refused = [span for span in trace(TRACE) if attributes(span).get("vaxel.reason") == "queue.full"]
        test.check("who found no place is told so", len(refused) > 0)
        test.check("as an error", all(span.status.code == Status.STATUS_CODE_ERROR for span in refused))
        gates = [span for span in trace(TRACE) if span.name == "gate" and span.status.code == Status.STATUS_CODE_ERROR]
        test.equal("and at the gate", len(gates), len(refused))

    with test.part("who is not traced"):
        SPANS.clear()
        fetch(port, "/account/1")
        fetch(port, "/account/1", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        fetch(port, "/account/1", headers={"traceparent": "nonsense"})
        fetch(port, "/catalog/1", headers=recorded)
        until("the spans of the one that is", lambda: SPANS)
        test.equal("nobody else is", sum(span.kind == Span.SPAN_KIND_SERVER for _, span, _ in SPANS), 1)

    with test.part("the collector dies"):
        Receiver.dead = True
        server.shutdown()
        server.server_close()
        before = time.monotonic()
        for number in range(20):
            test_status, _, _ = fetch(port, "/catalog/1", headers=recorded)
            assert test_status == 200
        test.check("no request notices", time.monotonic() - before < 5)
        metrics = settled(admin, "the loss is counted", lambda m: m.sum("vaxel_trace_spans_total", result="failed") > 0, timeout=40)
        test.check("the loss is counted", metrics.sum("vaxel_trace_spans_total", result="failed") > 0)
        test.check("and told once", vaxel.text().count("the collector does not take traces") == 1, vaxel.text()[-500:])
    test.check("nothing panicked", scrape(admin).sum("vaxel_worker_panics_total") == 0)


with Test("traces") as test:
    main(test)
sys.exit(test.code)
