"""Prometheus watches Vaxel under load: the metrics are valid, and every expression of every panel, variable, annotation,
rule and alert has an answer there.

    tests/real/watch.sh
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harness import ROOT, Test, binary, fetch, free_ports, listening, until

GRAFANA, PROMETHEUS = ROOT / "config" / "grafana", ROOT / "config" / "prometheus"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
WEBSHOP = {"x-api-key": "webshop-0123456789abcdef0123456789"}
EXPORT = {"x-api-key": "export-0123456789abcdef0123456789"}
MOBILE = {"x-api-key": "mobile-0123456789abcdef0123456789"}
NEWCOMER = {"x-api-key": "newcomer-0123456789abcdef0123456789"}

# What has no data in this test, by the title of the panel, and why. Everything else must have some.
MAY_BE_EMPTY = {
    "Firing": "nothing fires within the time of the test: the shortest alert waits for a minute",
}

def main():
    with Test("watch") as test:
        for title, part in STATIC:
            with test.part(title):
                part(test)
        with World(test) as world:
            for title, part in PARTS:
                with test.part(title):
                    part(test, world)
    sys.exit(test.code)


class World:
    """Three boxes, Vaxel, Prometheus, and clients that do everything that can be counted."""

    def __init__(self, test):
        self.stop, self.threads = threading.Event(), []
        self.chosen = {}  # the values of each variable
        names = ("erp", "crm", "archive", "plain", "secure", "admin", "prometheus", "collector")
        ports = dict(zip(names, free_ports(len(names))))
        self.__dict__.update(ports)
        certs = test.dir / "certs"
        subprocess.run([binary(), "certs", "--dir", str(certs)], check=True, capture_output=True)
        for name, options in (("erp", ["--service", "30ms"]), ("crm", ["--service", "5ms", "--processes", "16"]),
                              ("archive", ["--service", "20ms"])):
            test.vaxel("sim", "--listen", f"127.0.0.1:{ports[name]}", *options, name=name)
        self.config = test.write("vaxel.toml", (ROOT / "tests/real/watch.toml").read_text())
        addresses = {name.upper(): f"127.0.0.1:{ports[name]}" for name in ("plain", "secure", "admin")}
        boxes = {name.upper(): f"http://127.0.0.1:{ports[name]}" for name in ("erp", "crm", "archive", "collector")}
        self.vaxel = test.vaxel("run", "--config", self.config, env={
            **os.environ, **addresses, **boxes, "CERTS": str(certs), "ACCESS": str(test.dir / "access.log"),
            "SAVED": str(test.dir / "cache")})
        for name in ("erp", "crm", "archive", "plain", "admin"):
            listening(ports[name])
        # The configuration that is shipped, only faster and at this address.
        shipped = (PROMETHEUS / "prometheus.yml").read_text()
        fast = shipped.replace("15s", "1s").replace("127.0.0.1:9900", f"127.0.0.1:{self.admin}")
        test.write("prometheus.yml", fast)
        for name in ("recording.yml", "alerts.yml"):
            test.write(name, (PROMETHEUS / name).read_text())
        test.start("prometheus", ["prometheus", "--config.file", test.dir / "prometheus.yml",
                                  "--web.listen-address", f"127.0.0.1:{self.prometheus}",
                                  "--storage.tsdb.path", test.dir / "data", "--enable-feature=exemplar-storage"])
        listening(self.prometheus)
        until("Prometheus is ready", lambda: fetch(self.prometheus, "/-/ready")[0] == 200)

    def __enter__(self):
        self.began = time.time()
        loads = [self.readers, self.traced, self.exporter, self.shaped, self.newcomer, self.customers, self.archivist, self.impatient, self.strangers,
                 self.secured, *[self.crowd] * 8]
        for load in loads:
            thread = threading.Thread(target=self.keep, args=(load(),), daemon=True)
            thread.start()
            self.threads.append(thread)
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(5)

    def keep(self, steps):
        """Takes the steps of a load until the end; a request that fails is part of it."""
        while not self.stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                next(steps)

    def get(self, path, headers=None, method="GET"):
        with contextlib.suppress(OSError, http.client.HTTPException):
            fetch(self.plain, path, method, headers or {}, timeout=5)

    def readers(self):
        for number in itertools.count():
            self.get(f"/catalog/{number % 40}", WEBSHOP)
            yield time.sleep(0.01)

    def traced(self):
        for number in itertools.count():
            self.get(f"/catalog/{number % 40}", {**WEBSHOP, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
            yield time.sleep(0.1)

    def exporter(self):
        while True:
            self.get("/catalog/1", EXPORT)
            yield time.sleep(0.05)

    def shaped(self):
        while True:
            yield self.get("/catalog/2", MOBILE)

    def newcomer(self):
        while True:
            self.get("/catalog/3", NEWCOMER)
            yield time.sleep(0.05)

    def customers(self):
        for number in itertools.count():
            self.get(f"/crm/catalog/{number % 5}")
            self.get("/crm/order", method="POST")
            yield time.sleep(0.02)

    def archivist(self):
        for number in itertools.count():
            self.get(f"/archive/report?{number}", WEBSHOP)
            yield time.sleep(0.3)

    def crowd(self):
        while True:
            yield self.get("/order", method="POST")

    def impatient(self):
        while True:
            with socket.create_connection(("127.0.0.1", self.plain), timeout=5) as client:
                client.sendall(b"GET /account/7 HTTP/1.1\r\nHost: erp\r\n\r\n")
                time.sleep(0.05)
            yield time.sleep(0.3)

    def strangers(self):
        for host in itertools.cycle(("a", "")):
            self.get("/account/7", method="PROPFIND")
            yield self.get("/../..", {"Host": host}) or time.sleep(0.3)

    def secured(self):
        context = ssl._create_unverified_context()  # whose certificate it is, is another test's question
        while True:
            client = http.client.HTTPSConnection("127.0.0.1", self.secure, timeout=5, context=context)
            client.request("GET", "/catalog/3")
            client.getresponse().read()
            client.close()
            yield time.sleep(0.2)

    def box(self, name, order):
        """Gives an order to a simulated box."""
        fetch(getattr(self, name), f"/_sim/{order}", "POST")

    def reload(self):
        return fetch(self.admin, "/reload", "POST")[0]

    def scrape(self, accept):
        status, headers, body = fetch(self.admin, "/metrics", headers={"Accept": accept})
        return status, headers["content-type"], body.decode()

    def ask(self, path, **parameters):
        """The data of an answer of Prometheus; what it says against it where there is none."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        _, _, body = fetch(self.prometheus, f"/api/v1/{path}?{query}", timeout=30)
        answer = json.loads(body)
        if answer["status"] != "success":
            raise ValueError(f"{answer.get('errorType')}: {answer.get('error')}")
        return answer["data"]

    def instant(self, expression):
        return self.ask("query", query=expression)["result"]

    def has_data(self, expression):
        """Whether there is any number, and not only NaN, since the load began."""
        found = self.ask("query_range", query=expression, start=self.began, end=time.time(), step=1)["result"]
        return any(value != "NaN" for series in found for _, value in series["values"])


# ---- What can be checked by reading -----------------------------------------------------------------------------------


def generated(test):
    done = subprocess.run([sys.executable, GRAFANA / "make.py", "--check"], capture_output=True, text=True)
    test.check("the dashboards are what make.py writes", done.returncode == 0, done.stdout + done.stderr)


def schema(test):
    """What Grafana expects of a dashboard, as far as it can be known without one."""
    found = dashboards()
    test.equal("no two dashboards have one uid", len({each["uid"] for each in found}), len(found))
    test.check("there are five dashboards or more", len(found) >= 5, len(found))
    for dashboard in found:
        title, faults = dashboard["title"], []
        fault = lambda wrong, what: faults.append(what) if wrong else None
        panels, names = dashboard["panels"], [each["name"] for each in dashboard["templating"]["list"]]
        fault(len({panel["id"] for panel in panels}) != len(panels), "two panels have one id")
        fault(overlapping(panels), f"panels overlap: {overlapping(panels)}")
        fault(names[0] != "datasource" or "instance" not in names, "no datasource or no instance to choose")
        for panel in panels:
            name, place = panel["title"], panel["gridPos"]
            fault(place["x"] + place["w"] > 24, f"{name} does not fit")
            if panel["type"] == "row":
                continue
            fault(panel["type"] not in KINDS, f"{name}: unknown type {panel['type']}")
            fault(len(panel.get("description", "")) < 10, f"{name} has no description")
            fault(not panel["fieldConfig"]["defaults"].get("unit"), f"{name} has no unit")
            fault(not panel["targets"], f"{name} asks for nothing")
            fault(len({each["refId"] for each in panel["targets"]}) != len(panel["targets"]), f"{name}: two refIds are one")
            for source in (panel, *panel["targets"]):
                fault(source["datasource"] != {"type": "prometheus", "uid": "${datasource}"}, f"{name}: another data source")
        text = json.dumps([panels, dashboard["annotations"], dashboard["templating"]])
        used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range", "__all"}
        fault(used != set(names), f"variables used {used}, defined {names}")
        test.check(f"{title}: ids, places, units, descriptions, variables", not faults, faults)


def overlapping(panels):
    """Two panels that lie on one another, if there are any."""
    for one, other in itertools.combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        if all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in (("x", "w"), ("y", "h"))):
            return one["title"], other["title"]
    return None


def rules(test):
    for command in (["check", "rules", PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml"],
                    ["check", "config", PROMETHEUS / "prometheus.yml"], ["test", "rules", ROOT / "tests/real/rules.yml"]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        test.check(f"promtool {command[0]} {command[1]}", done.returncode == 0, done.stdout + done.stderr)
    alerts = (PROMETHEUS / "alerts.yml").read_text()
    tested = (ROOT / "tests/real/rules.yml").read_text()
    names = re.findall(r"alert: (\w+)", alerts)
    missing = [name for name in names if not re.search(rf"\b{name}\b", tested)]
    test.check(f"each of the {len(names)} alerts has a test", names and not missing, missing)
    for block in alerts.split("- alert: ")[1:]:
        missing = [word for word in ("severity:", "summary:", "description:", "runbook:") if word not in block]
        test.check(f"{block.split()[0]} says what it is and what to do", not missing, missing)


# ---- What needs them all to run ---------------------------------------------------------------------------------------


def story(test, world):
    """A bad time for the CRM, and three loads of the configuration, one of them broken."""
    until("Prometheus has scraped", lambda: world.instant('up{job="vaxel"} == 1'))
    time.sleep(4)  # the load is the test's clock: rates need some seconds of it
    test.equal("a reload", world.reload(), 200)
    world.box("crm", "errors?rate=1")
    opened = until("the breaker of the CRM opens", lambda: world.instant('vaxel_breaker_state{upstream="crm",state="open"} == 1'))
    test.equal("Prometheus sees the open breaker", opened[0]["metric"]["upstream"], "crm")
    pending = until("the alert is pending", lambda: world.instant('ALERTS{alertname="VaxelBreakerOpen"}'))
    test.equal("an alert comes of it", pending[0]["metric"]["upstream"], "crm")
    test.equal("a purge", fetch(world.admin, "/purge", "POST", body='{"route": "catalog"}')[0], 200)
    good = world.config.read_text()
    world.config.write_text(good.replace("slots = 3", "slot = 3"))
    test.equal("a reload of a broken file", world.reload(), 422)
    failed = until("the alert is pending", lambda: world.instant('ALERTS{alertname="VaxelConfigReloadFailed"}'))
    test.check("an alert comes of that, too", failed)
    before = world.instant("vaxel_config_hash")[0]["value"][1]
    world.config.write_text(good.replace("slots = 3", "slots = 2"))
    test.equal("a reload of another file", world.reload(), 200)
    until("the hash changes", lambda: world.instant("vaxel_config_hash")[0]["value"][1] != before)
    world.box("crm", "reset")
    until("the breaker closes", lambda: world.instant('vaxel_breaker_state{upstream="crm",state="closed"} == 1'), 40)
    time.sleep(3)


def exposition(test, world):
    """Both formats, judged by those who define them."""
    status, kind, text = world.scrape("*/*")
    test.equal("plain text for who does not ask", (status, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    test.check("promtool check metrics", done.returncode == 0 and not done.stderr, done.stdout + done.stderr)
    status, kind, text = world.scrape(OPENMETRICS)
    test.equal("OpenMetrics for who asks", (status, kind), (200, OPENMETRICS + "; charset=utf-8"))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    test.check("a strict parser reads it", len(families) > 40, len(families))
    test.equal("units are declared", families["vaxel_request_duration_seconds"].unit, "seconds")
    marked = [sample for sample in families["vaxel_upstream_duration_seconds"].samples if sample.exemplar]
    test.check("exemplars carry the trace that clients sent",
               marked and all(sample.exemplar.labels == {"trace_id": TRACE} for sample in marked), marked)
    lines = text.splitlines()
    test.check(f"{len(lines)} lines are within bounds", len(lines) < 2500, len(lines))
    targets = world.ask("targets")["activeTargets"]
    test.equal("Prometheus takes it", [(each["health"], each["lastError"]) for each in targets], [("up", "")])
    for histogram in ("vaxel_request_duration_seconds_bucket", "vaxel_upstream_duration_seconds_bucket"):
        found = world.ask("query_exemplars", query=histogram, start=world.began, end=time.time())
        traces = {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}
        test.equal(f"and keeps the exemplars of {histogram}", traces, {TRACE})


def variables(test, world):
    for name, query in {each["name"]: each["definition"] for dashboard in dashboards()
                        for each in dashboard["templating"]["list"] if each["type"] == "query"}.items():
        metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
        found = world.ask(f"label/{label}/values", **{"match[]": substituted(metric, world.chosen)})
        test.check(f"${name} has values", found, query)
        world.chosen[name] = found


def panels(test, world):
    """Every expression of every panel and annotation."""
    asked = []
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            asked += [(dashboard["title"], panel["title"], target["expr"]) for target in panel.get("targets", [])]
        asked += [(dashboard["title"], each["name"], each["expr"]) for each in dashboard["annotations"]["list"]]

    def answer(one):
        expression = substituted(one[2], world.chosen)
        try:
            return world.has_data(expression), expression
        except ValueError as error:
            return error, expression

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(answer, asked))
    seen = set()
    for (dashboard, title, _), (found, expression) in zip(asked, answers):
        if isinstance(found, ValueError):
            test.check(f"{dashboard}, {title}", False, f"{found} in {expression}")
        elif title in MAY_BE_EMPTY:
            seen.add(title)
        else:
            test.check(f"{dashboard}, {title}", found, f"nothing for {expression}")
    test.equal("what may be empty is still there", seen, set(MAY_BE_EMPTY))
    test.check("there are a hundred expressions or more", len(asked) >= 100, len(asked))


def documented(test, world):
    """The questions of docs/METRICS.md."""
    text = (ROOT / "docs" / "METRICS.md").read_text()
    rows = re.findall(r"^\| ([^|`]+) \| `(.*)` \|$", text.split("## Some questions")[1].split("## All")[0], re.M)
    test.check("there are some", len(rows) >= 9, rows)
    for question, query in rows:
        query = query.replace("\\|", "|")
        test.check(f"docs/METRICS.md, {question}", world.has_data(query), query)


def evaluated(test, world):
    """Prometheus's own verdict on each rule, and whether what an alert looks at is there."""
    found = [rule for group in world.ask("rules")["groups"] for rule in group["rules"]]
    bad = [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"]
    test.check(f"all {len(found)} rules are evaluated without error", len(found) > 40 and not bad, bad)
    for rule in found:
        if rule["type"] == "recording":
            test.check(f"{rule['name']} has a value", world.has_data(rule["name"]), rule["query"])
        else:
            for selector in sorted(set(SELECTOR.findall(rule["query"]))):
                test.check(f"{rule['name']} looks at something: {selector}", world.has_data(selector), rule["query"])


def complete(test, world):
    """Whatever is counted can be seen somewhere."""
    _, _, text = world.scrape("*/*")
    exposed = set(re.findall(r"^# TYPE (vaxel_\w+)", text, re.M))
    shown = " ".join(target["expr"] for dashboard in dashboards() for panel in dashboard["panels"]
                     for target in panel.get("targets", []))
    missing = sorted(name for name in exposed if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", shown))
    test.check(f"each of the {len(exposed)} metrics is on a panel", len(exposed) > 40 and not missing, missing)


# ---- Helpers ----------------------------------------------------------------------------------------------------------


def dashboards():
    return [json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))]


def substituted(expression, chosen):
    """As Grafana does it: a list becomes a regular expression, in a string of PromQL."""
    for name, found in chosen.items():
        regex = "|".join(re.sub(r"([.*+?^${}()|\[\]\\/])", r"\\\\\1", value) for value in found)
        expression = expression.replace(f"${name}", f"({regex})")
    expression = expression.replace("$__rate_interval", "10s").replace("$__range", "30s")
    if "$" in expression.replace("($|", ""):
        raise ValueError(f"a variable is left in {expression}")
    return expression


KINDS = {"row", "stat", "timeseries", "heatmap", "state-timeline", "table"}
# A metric with its labels, within a rule.
SELECTOR = re.compile(r"\b(?:(?:vaxel_|process_|(?:route|upstream|consumer):)[\w:]+(?:\{[^}]*\})?|up\{[^}]*\})")

STATIC = [("the dashboards are current", generated), ("the dashboards are well formed", schema), ("the rules", rules)]
PARTS = [
    ("a story", story),
    ("the exposition", exposition),
    ("the variables", variables),
    ("the panels", panels),
    ("the documented questions", documented),
    ("the rules, evaluated", evaluated),
    ("completeness", complete),
]

if __name__ == "__main__":
    main()
