"""A fragile box (`vaxel sim`, eight work processes) at five times its capacity behind `vaxel run`, over real sockets.

What is asserted follows from the box's own profile and its own counts, so that neither the build nor the speed of the
machine decides: a trip costs a few milliseconds, the box takes nearly two tenths of a second. After each part nothing is
left over: no slot, no zombie, nobody in the queue, no connection, no fill.
"""

import asyncio
import collections
import contextlib
import hashlib
import json
import math
import os
import resource
import signal
import sys
import time

from harness import ROOT, Test, fetch, free_ports, listening, scrape, settled, until

PROCESSES = 8
SERVICE = 0.2
# How much work the operations are, and how much service times differ (src/sim/profile.rs).
COSTS = {"catalog": 1.0, "account": 0.8}
SPREAD = 0.5
QUEUE_TIMEOUT = 2.0
# What the machine may add to the bound of a latency.
ALLOWANCE = 0.75
OVERLOAD, LENGTH = 5, 15.0
STAMPEDE = 1000
REFUSALS = {"queue.full", "queue.timeout", "queue.hopeless"}


class Answer:
    """What a client got; `broken` if the connection ended before the answer did, `at` and `latency` in seconds."""

    def __init__(self, status=None, fields=None, body=b"", broken=False):
        self.status, self.fields, self.body, self.broken = status, fields or {}, body, broken
        self.at = self.latency = 0.0

    @property
    def problem(self):
        """The problem details, if it is some (RFC 9457)."""
        if self.fields.get("content-type") != "application/problem+json":
            return {}
        return json.loads(self.body)

    @property
    def is_honest(self):
        """A refusal that says why, and when to come back."""
        says_when = self.fields.get("retry-after", "").isdigit() and int(self.fields["retry-after"]) >= 1
        return self.problem.get("reason") in REFUSALS and self.problem["status"] == self.status and says_when

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body[:200]} broken={self.broken}"


class Clients:
    """Connections to one port, each used by one request at a time, and again if it can be."""

    def __init__(self, port):
        self.port = port
        self.idle = []

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, path, method="GET", fields="", pair=None):
        """One request, from now on."""
        begun = time.monotonic()
        try:
            pair = pair or (self.idle.pop() if self.idle else await self.connect())
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            pair[1].write(f"{method} {path} HTTP/1.1\r\nHost: erp.example\r\n{length}{fields}\r\n".encode())
            answer = await asyncio.wait_for(read(pair[0]), 30)
        except (OSError, asyncio.IncompleteReadError):
            answer = Answer(broken=True)
        answer.at = time.monotonic()
        answer.latency = answer.at - begun
        if pair:
            if answer.broken or answer.fields.get("connection") == "close":
                pair[1].close()
            else:
                self.idle.append(pair)
        return answer

    def close(self):
        """All connections that nobody uses."""
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


async def read(reader):
    """One whole answer; a body that breaks off makes it broken."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    answer = Answer(int(head[0].split(" ", 2)[1]), fields)
    try:
        answer.body = await reader.readexactly(int(fields["content-length"]))
    except (OSError, asyncio.IncompleteReadError) as error:
        answer.body, answer.broken = getattr(error, "partial", b""), True
    return answer


class World:
    """The box, the frail server, Vaxel before both, and what all clients together have been answered."""

    def __init__(self, test):
        self.test = test
        self.plain, self.admin, self.box_port, self.frail_port = free_ports(4)
        self.access = test.dir / "access.log"
        self.config = test.dir / "overload.toml"
        self.template = (ROOT / "tests/real/overload.toml").read_text()
        self.configure(0)
        self.answers = []
        self.left = 0
        self.generation = 0
        self.box = test.vaxel("sim", "--listen", f"127.0.0.1:{self.box_port}", "--processes", str(PROCESSES),
                              "--service", f"{round(SERVICE * 1000)}ms", "--errors", "0", name="box")
        self.start_frail()
        self.vaxel = test.vaxel("run", "--config", self.config, env=os.environ | {
            "PLAIN": f"127.0.0.1:{self.plain}", "ADMIN": f"127.0.0.1:{self.admin}", "ACCESS": str(self.access),
            "BOX": f"http://127.0.0.1:{self.box_port}", "FRAIL": f"http://127.0.0.1:{self.frail_port}"})
        listening(self.box_port, self.box)
        for port in (self.plain, self.admin):
            listening(port, self.vaxel)

    def start_frail(self):
        self.frail = self.test.start("frail", [sys.executable, ROOT / "tests/real/frail.py", str(self.frail_port)])
        listening(self.frail_port, self.frail)

    def configure(self, generation, text=None):
        self.config.write_text(text or self.template.replace("GENERATION", str(generation)))

    def counts(self):
        """The box's own."""
        return json.loads(fetch(self.box_port, "/_sim/stats")[2])

    def slow(self, factor):
        fetch(self.box_port, f"/_sim/slow?factor={factor}", method="POST")

    def calms(self):
        """The box works at its usual pace again, and Vaxel has seen it: nobody's wait looks hopeless any more."""
        self.slow(1)

        async def scene(clients):
            rounds = [await asyncio.gather(*(clients.ask(f"/account/calm-{number}") for number in range(PROCESSES)))
                      for _ in range(5)]
            return sum(rounds, [])
        statuses = collections.Counter(answer.status for answer in self.run(scene))
        self.test.equal("then the box is calm again", statuses, {200: 5 * PROCESSES})

    def run(self, scene):
        """A scene of clients, in an event loop of its own; all its answers are remembered."""
        async def whole():
            clients = Clients(self.plain)
            answers = await scene(clients)
            clients.close()
            return answers
        answers = asyncio.run(asyncio.wait_for(whole(), 60))
        self.answers += answers
        return answers

    def rests(self, what):
        """Nothing is left over, and the box was never asked for more than it has."""
        gauges = ("vaxel_slots_busy", "vaxel_slots_zombie", "vaxel_queue_length", "vaxel_listener_connections",
                  "vaxel_cache_fills_bytes", "vaxel_worker_panics_total")
        found = settled(self.admin, what, lambda metrics: not any(metrics.sum(gauge) for gauge in gauges))
        self.test.equal(f"{what}: nothing is left over", {gauge: found.sum(gauge) for gauge in gauges},
                        dict.fromkeys(gauges, 0.0))
        counts = self.counts()
        self.test.check(f"{what}: the box never had more than {PROCESSES} inside",
                        counts["max_present"] <= PROCESSES and counts["present"] == 0, counts)

    def lines(self, count):
        """The access log, once it has so many lines, or after a while."""
        def written():
            found = [json.loads(line) for line in self.access.read_text().splitlines()]
            return found if len(found) >= count else None
        with contextlib.suppress(TimeoutError):
            until("the access log is written", written, 10)
        return [json.loads(line) for line in self.access.read_text().splitlines()]

    def metric(self, name, **labels):
        return scrape(self.admin).sum(name, **labels)


def main():
    # The stampede takes a descriptor for each client, here and in Vaxel.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard == resource.RLIM_INFINITY else min(hard, 8192), hard))
    with Test("overload") as test:
        world = World(test)
        for title, part in PARTS:
            with test.part(title):
                part(test, world)
    sys.exit(test.code)


def overload(test, world):
    """Five times what the box can do, evenly, whether answered or not."""
    operations = list(COSTS)
    capacity = PROCESSES / (SERVICE * sum(COSTS.values()) / len(COSTS))
    rate = OVERLOAD * capacity
    sent = []

    async def scene(clients):
        begun = time.monotonic()
        for number in range(int(rate * LENGTH)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            operation = operations[number % len(operations)]
            # No two alike: the cache is no help here.
            sent.append((operation, asyncio.ensure_future(clients.ask(f"/{operation}/{number}"))))
        ended = time.monotonic()
        answers = [await task for _, task in sent]
        # From when all processes are busy until the last request was sent.
        window = (begun + 1, ended)
        good = [operation for (operation, task) in sent
                if task.result().status == 200 and window[0] <= task.result().at <= window[1]]
        offered = len(sent) / (ended - begun) / capacity
        work = sum(COSTS[operation] for operation in good) * SERVICE
        report(offered, work / (PROCESSES * (window[1] - window[0])))
        return answers

    def report(offered, share):
        print(f"     capacity {capacity:.0f}/s, offered {offered:.2f} x, goodput {share:.1%} of capacity", flush=True)
        test.check("it was offered five times its capacity", offered > 0.95 * OVERLOAD, offered)
        test.check("goodput is at least 90 % of capacity", share >= 0.9, share)

    answers = world.run(scene)
    served = sorted(answer.latency for answer in answers if answer.status == 200)
    refused = [answer for answer in answers if answer.status != 200]
    slowest = SERVICE * math.exp(2.326 * SPREAD - SPREAD ** 2 / 2)
    p99 = served[int(len(served) * 0.99)]
    print(f"     {len(served)} served, p50 {served[len(served) // 2]:.3f} s, p99 {p99:.3f} s; {len(refused)} refused:"
          f" {dict(collections.Counter(answer.problem.get('reason') for answer in refused))}", flush=True)
    test.check(f"p99 is below queue timeout + p99 of the service ({QUEUE_TIMEOUT} + {slowest:.2f} s) + {ALLOWANCE} s",
               p99 <= QUEUE_TIMEOUT + slowest + ALLOWANCE, p99)
    dishonest = [answer for answer in refused if answer.status != 503 or not answer.is_honest]
    test.check("everybody refused was told why, and when to come back", refused and not dishonest, dishonest[:3])
    counts = world.counts()
    test.equal("all processes of the box were used, and no more", counts["max_working"], PROCESSES)
    test.equal("what the box answered is what clients got", counts["answered"], len(served))
    test.equal("it neither turned away, failed nor crashed",
               [counts[name] for name in ("turned_away", "failed", "reset", "crashes")], [0] * 4)
    world.rests("overload")
    accounts(test, world)


def accounts(test, world):
    """Metrics and access log tell of every request what its client saw."""
    total = len(world.answers) + world.left
    lines = world.lines(total)
    test.equal("the access log has a line for every request", len(lines), total)
    metrics = scrape(world.admin)
    test.equal("the metrics count every request", metrics.sum("vaxel_requests_total"), total)
    seen = collections.Counter(answer.status for answer in world.answers if answer.status)
    logged = collections.Counter(line["status"] for line in lines if not line["aborted"])
    test.equal("the log tells each status as often as clients saw it", logged, seen)
    classes = collections.Counter(f"{line['status'] // 100}xx" for line in lines)
    test.equal("metrics and log agree on the classes", classes,
               {code: metrics.sum("vaxel_requests_total", code=code) for code in classes})
    reasons = collections.Counter(answer.problem["reason"] for answer in world.answers if answer.problem)
    for reason, count in sorted(reasons.items()):
        test.equal(f"{count} refusals by {reason} in the metrics", metrics.sum("vaxel_refusals_total", reason=reason), count)
        test.equal(f"{count} refusals by {reason} in the log",
                   sum(line.get("reason") == reason for line in lines), count)
    test.equal("every attempt is one arrival at the box",
               metrics.sum("vaxel_upstream_attempts_total", upstream="box"), world.counts()["arrived"])
    test.equal("the log tells who left, and what broke off",
               (sum(line["aborted"] for line in lines), sum(line.get("broken", False) for line in lines)),
               (world.left, sum(answer.broken for answer in world.answers)))


def stampede(test, world):
    """A thousand at once for what is not stored yet."""
    before = world.counts()["arrived"]
    world.slow(10)

    async def scene(clients):
        pairs = [await clients.connect() for _ in range(STAMPEDE)]
        return await asyncio.gather(*(clients.ask("/catalog/stampede", pair=pair) for pair in pairs))

    answers = world.run(scene)
    test.equal("all are served", collections.Counter(answer.status for answer in answers), {200: STAMPEDE})
    test.equal("the box was asked once", world.counts()["arrived"] - before, 1)
    test.equal("all get the same bytes", len({hashlib.sha256(answer.body).digest() for answer in answers}), 1)
    test.equal("whole ones, with one tag", ({answer.fields["etag"] for answer in answers} == {answers[0].fields["etag"]},
                                            json.loads(answers[0].body)["id"]), (True, "stampede"))
    waited = sum("collapsed" in answer.fields["cache-status"] for answer in answers)
    test.check("nearly all waited for the one answer", waited >= STAMPEDE * 0.9, waited)
    world.rests("stampede")
    world.calms()


def leaving(test, world):
    """Fifty clients leave, some from the box, some from the queue."""
    # Long enough to be seen inside, and to leave before the first is answered or the queue's timeout.
    world.slow(10)
    before = world.counts()["arrived"]

    async def scene(clients):
        pairs = [await clients.connect() for _ in range(50)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(f"GET /account/leaving-{number} HTTP/1.1\r\nHost: erp.example\r\n\r\n".encode())
        await asyncio.to_thread(until, "all are inside", lambda: world.metric("vaxel_slots_busy") == PROCESSES
                                and world.metric("vaxel_queue_length") == 50 - PROCESSES)
        for _, writer in pairs:
            writer.transport.abort()
        await asyncio.to_thread(until, "the queue is empty", lambda: world.metric("vaxel_queue_length") == 0)
        # The box works on: its processes are not free, and nobody else gets in.
        taken = world.metric("vaxel_slots_busy") + world.metric("vaxel_slots_zombie")
        present = world.counts()["present"]
        test.check("what the box still works on keeps its slot", taken >= present > 0, (taken, present))
        world.slow(1)
        return [await clients.ask("/account/after-them")]

    after = world.run(scene)
    world.left += 50
    test.equal("the next one is served", after[0].status, 200)
    test.equal("those who left the queue never reached the box", world.counts()["arrived"] - before, PROCESSES + 1)
    test.equal("fifty have left, the metrics say", world.metric("vaxel_client_aborts_total"), 50)
    world.rests("leaving")
    world.calms()


def full_and_hanging(test, world):
    """Two hang at the server, four wait, and there is no room for ten more."""
    async def scene(clients):
        inside = [asyncio.ensure_future(clients.ask("/frail/hang")) for _ in range(6)]
        await asyncio.to_thread(until, "the queue is full", lambda: world.metric("vaxel_queue_length") == 4)
        outside = await asyncio.gather(*(clients.ask("/frail/hang") for _ in range(10)))
        test.check("a full queue refuses while the others still wait", not inside[-1].done())
        test.equal("and says so", {answer.problem.get("reason") for answer in outside}, {"queue.full"})
        test.check("and when to come back", all(answer.is_honest for answer in outside), outside[0])
        return await asyncio.gather(*inside) + outside

    answers = world.run(scene)
    reasons = collections.Counter(answer.problem.get("reason") for answer in answers)
    test.equal("who hung was told after the timeout", reasons["upstream.timeout"], 2)
    test.equal("who waited behind was told after the queue's", reasons["queue.timeout"] + reasons["queue.hopeless"], 4)
    world.rests("a hanging server and a full queue")
    test.equal("then it is asked again", world.run(once("/frail/well"))[0].body, b"well")


def killed(test, world):
    """The server dies in the middle of two bodies; two more wait."""
    async def scene(clients):
        pairs = [await clients.connect() for _ in range(2)]
        halves = [asyncio.ensure_future(clients.ask("/frail/half", pair=pair)) for pair in pairs]
        await asyncio.to_thread(until, "both are under way", lambda: world.metric("vaxel_slots_busy") == 2)
        waiting = [asyncio.ensure_future(clients.ask("/frail/well")) for _ in range(2)]
        await asyncio.to_thread(until, "two wait", lambda: world.metric("vaxel_queue_length") == 2)
        world.frail.kill(signal.SIGKILL)
        world.frail.wait(5)
        return await asyncio.gather(*halves, *waiting)

    answers = world.run(scene)
    test.equal("half an answer breaks off and never looks whole",
               [(answer.status, answer.broken, len(answer.body)) for answer in answers[:2]], [(200, True, 1000)] * 2)
    # A server that is just being killed may still have accepted the one, and lets it down then.
    told = [(answer.status, answer.problem.get("reason")) for answer in answers[2:]]
    test.check("who waited is told", set(told) <= {(502, "upstream.connect"), (502, "upstream.reset")}, told)
    world.rests("a killed server")
    world.start_frail()
    test.equal("once it is back, it is asked again", world.run(once("/frail/well"))[0].status, 200)
    world.rests("a server that came back")


def once(path):
    """A scene with one request."""
    async def scene(clients):
        return [await clients.ask(path)]
    return scene


def reloading(test, world):
    """The configuration changes ten times under load that needs no queue, and is broken once."""
    done = asyncio.Event()

    async def load(clients, name):
        answers = []
        while not done.is_set():
            answers.append(await clients.ask(f"/account/{name}-{len(answers)}"))
            answers.append(await clients.ask("/catalog/popular"))
        return answers

    def reload(generation, result, text=None):
        before = world.metric("vaxel_config_reloads_total", result=result)
        world.configure(generation, text)
        world.vaxel.kill(signal.SIGHUP)
        until("it has reloaded", lambda: world.metric("vaxel_config_reloads_total", result=result) == before + 1)

    async def scene(clients):
        others = [asyncio.ensure_future(load(clients, name)) for name in range(PROCESSES - 2)]
        for generation in range(1, 11):
            await asyncio.to_thread(reload, generation, "ok")
            probe = await clients.ask(f"/account/generation-{generation}")
            test.equal(f"reload {generation} is in force", probe.fields.get("x-generation"), str(generation))
            world.answers.append(probe)
        await asyncio.to_thread(reload, 11, "failed", "[upstream.box]\nslots = -1\n")
        probe = await clients.ask("/account/broken")
        test.equal("a broken configuration changes nothing", probe.fields.get("x-generation"), "10")
        done.set()
        return [probe] + [answer for other in others for answer in await other]

    answers = world.run(scene)
    statuses = collections.Counter(answer.status for answer in answers)
    test.check("no request failed", set(statuses) == {200} and statuses[200] > 50, statuses)
    world.rests("reloads")
    accounts(test, world)


def draining(test, world):
    """SIGTERM while eight are at the box and forty wait."""
    before = world.counts()["answered"]
    inside = PROCESSES + 40

    async def scene(clients):
        visits = [asyncio.ensure_future(clients.ask(f"/account/drain-{number}")) for number in range(inside)]
        await asyncio.to_thread(until, "all are inside", lambda: world.metric("vaxel_slots_busy") == PROCESSES
                                and world.metric("vaxel_slots_busy") + world.metric("vaxel_queue_length") >= inside - 16)
        known = sum(visit.done() for visit in visits)
        world.vaxel.kill(signal.SIGTERM)
        answers = await asyncio.gather(*visits)
        test.check("most were under way when it came", known < inside / 2, known)
        return answers

    answers = world.run(scene)
    test.equal("whoever was inside is served", collections.Counter(answer.status for answer in answers), {200: inside})
    test.equal("it ends, and ends well", world.vaxel.wait(20), 0)
    test.check("it did not wait for the end of its patience", "all connections ended" in world.vaxel.text())
    counts = world.counts()
    test.equal("the box has answered them, and has nobody inside", (counts["answered"] - before, counts["present"]), (inside, 0))
    total = len(world.answers) + world.left
    test.equal("the access log is whole", len(world.lines(total)), total)


PARTS = [
    ("five times the capacity", overload),
    ("a stampede", stampede),
    ("clients that leave", leaving),
    ("a hanging server and a full queue", full_and_hanging),
    ("a server killed in the middle of a body", killed),
    ("reloads under load", reloading),
    ("a drain under load", draining),
]

if __name__ == "__main__":
    main()
