#!/usr/bin/env python3
"""Writes the dashboards of this folder: one call makes one panel, so that all of them look and behave the same.

    config/grafana/make.py            writes dashboards/*.json
    config/grafana/make.py --check    fails if they are not what it would write
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What the variables select. A panel takes the narrowest that fits its metric.
I = 'instance=~"$instance"'
R = I + ',route=~"$route"'
U = I + ',upstream=~"$upstream"'
C = I + ',consumer=~"$consumer"'

GREEN, ORANGE, RED, BLUE, PURPLE, GREY = "green", "orange", "red", "blue", "purple", "#808080"
BREAKER = {0: ("closed", GREEN), 1: ("half open", BLUE), 2: ("open", RED), 3: ("forced open", PURPLE),
           4: ("forced closed", ORANGE)}
GEARS = {0: ("drive", GREEN), 1: ("eco", BLUE), 2: ("limp", ORANGE), 3: ("park", RED)}


def rate(metric, labels, by=""):
    """The rate per second of a counter, summed up by some labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def share(part, whole, match=""):
    """A ratio that has no value where nothing happens; `match` says which parts belong to which whole."""
    return f"{part} / {match}({whole} > 0)"


def quantile(q, metric, labels, by=""):
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(metric + '_bucket', labels, ', '.join(filter(None, (by, 'le'))))})"


class Dashboard:
    """Panels in the order in which they are read: they flow from left to right, and a row begins a new line."""

    def __init__(self, uid, title, description, variables):
        self.uid, self.title, self.description, self.variables = uid, title, description, variables
        self.panels, self.x, self.y, self.line = [], 0, 0, 0

    def place(self, width, height):
        if self.x + width > 24:
            self.x, self.y, self.line = 0, self.y + self.line, 0
        place = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x, self.line = self.x + width, max(self.line, height)
        return place

    def row(self, title):
        self.x = 24
        self.panels.append({"id": len(self.panels) + 1, "type": "row", "title": title, "collapsed": False,
                            "gridPos": self.place(24, 1), "panels": []})

    def panel(self, kind, title, unit, description, queries, width, height, defaults, options, exemplars=False,
              instant=False, **more):
        targets = [{"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend,
                    "editorMode": "code", "range": not instant, "instant": instant, "exemplar": exemplars,
                    **({"format": "table"} if kind == "table" else {}),
                    **({"format": "heatmap"} if kind == "heatmap" else {})}
                   for number, (legend, expression) in enumerate(queries.items())]
        self.panels.append({
            "id": len(self.panels) + 1, "type": kind, "title": title, "description": description, "datasource": SOURCE,
            "gridPos": self.place(width, height), "targets": targets,
            "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": more.pop("overrides", [])},
            "options": options, **more})

    def stat(self, title, unit, description, expression, steps=None, decimals=None, states=None, width=4):
        """One number, with its course behind it."""
        self.panel("stat", title, unit, description, {"__auto": expression}, width, 4,
                   {**thresholds(steps), **({} if decimals is None else {"decimals": decimals}), **mappings(states),
                    "noValue": "–"},
                   {"colorMode": "value" if steps or states else "none", "graphMode": "area", "textMode": "value",
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}})

    def series(self, title, unit, description, queries, stack=False, steps=None, top=None, width=8, exemplars=False):
        """Lines over time; `top` is the end of the scale."""
        custom = {"lineWidth": 1, "fillOpacity": 30 if stack else 8, "showPoints": "never", "spanNulls": False,
                  "stacking": {"mode": "normal" if stack else "none", "group": "A"},
                  "thresholdsStyle": {"mode": "dashed" if steps else "off"}}
        self.panel("timeseries", title, unit, description, queries, width, 8,
                   {"min": 0, **({} if top is None else {"max": top}), "custom": custom,
                    "color": {"mode": "palette-classic"}, **thresholds(steps)},
                   {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True,
                               "calcs": ["mean", "max", "lastNotNull"]},
                    "tooltip": {"mode": "multi", "sort": "desc"}}, exemplars)

    def heat(self, title, description, metric, labels, width=8):
        """The distribution of a histogram over time."""
        self.panel("heatmap", title, "s", description, {"{{le}}": rate(metric + "_bucket", labels, "le")}, width, 8,
                   {"custom": {"scaleDistribution": {"type": "linear"}}},
                   {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                    "yAxis": {"unit": "s", "axisPlacement": "left"}, "filterValues": {"le": 1e-9},
                    "exemplars": {"color": "rgba(90,160,255,0.8)"}, "legend": {"show": True},
                    "tooltip": {"show": True, "mode": "single", "yHistogram": True}}, exemplars=True)

    def states(self, title, description, legend, expression, states, width=12):
        """What something was, over time."""
        self.panel("state-timeline", title, "none", description, {legend: expression}, width, 8,
                   {"custom": {"fillOpacity": 80, "lineWidth": 0}, **mappings(states), **thresholds(None)},
                   {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "alignValue": "left",
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                    "tooltip": {"mode": "single"}})

    def table(self, title, description, queries, join=None, columns=None, hidden=(), width=24, height=7):
        """What is true now. `columns` is a unit (and mappings) for each query, by the name that it gets."""
        shown = {"Time", *(f"Time {number + 1}" for number in range(len(queries))), "__name__", *hidden}
        names = {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(queries)}
        transformations = [{"id": "joinByField", "options": {"byField": join, "mode": "outer"}}] if join else []
        transformations.append({"id": "organize", "options": {
            "excludeByName": {name: True for name in sorted(shown)}, "renameByName": names if join else {}}})
        overrides = [{"matcher": {"id": "byName", "options": name}, "properties": properties}
                     for name, properties in (columns or {}).items()]
        self.panel("table", title, "none", description, queries, width, height, {"noValue": "–", **thresholds(None)},
                   {"showHeader": True, "cellHeight": "sm"}, instant=True, transformations=transformations,
                   overrides=overrides)

    def json(self):
        """One line for each panel, so that a change can be read."""
        head = {
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["vaxel"],
            "schemaVersion": 38, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
            "links": [{"type": "dashboards", "title": "Vaxel", "tags": ["vaxel"], "asDropdown": False, "icon":
                       "external link", "includeVars": True, "keepTime": True, "targetBlank": False}],
            "annotations": {"list": [annotation(*each) for each in ANNOTATIONS]},
            "templating": {"list": [DATASOURCE, *(variable(name) for name in self.variables)]},
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        panels = ",\n    ".join(json.dumps(panel, ensure_ascii=False) for panel in self.panels)
        return "{\n" + ",\n".join([*lines, f'  "panels": [\n    {panels}\n  ]']) + "\n}\n"


def thresholds(steps):
    """Colours from these values on: `{0.8: ORANGE}`."""
    steps = [{"color": GREEN, "value": None}, *({"color": color, "value": at} for at, color in (steps or {}).items())]
    return {"thresholds": {"mode": "absolute", "steps": steps}}


def mappings(states):
    """Words and colours for numbers."""
    options = {str(value): {"text": text, "color": color, "index": value} for value, (text, color) in (states or {}).items()}
    return {"mappings": [{"type": "value", "options": options}]} if options else {}


def numbered(metric, labels, label, states):
    """The number of the state a thing is in, of a metric that has a series for each state."""
    each = " or ".join(f'({metric}{{{labels},{label}="{text.replace(" ", "_")}"}} == 1) * {value}'
                       for value, (text, _) in states.items())
    return f"max by (instance, upstream) ({each})"


DATASOURCE = {"name": "datasource", "type": "datasource", "label": "Source", "query": "prometheus", "refresh": 1,
              "hide": 0, "includeAll": False, "multi": False, "current": {}, "regex": ""}

# No `allValue`: "All" is the list of what there is, so that the metrics of other processes do not come in.
VARIABLES = {
    "instance": ("Instance", "label_values(vaxel_build_info, instance)"),
    "route": ("Route", f"label_values(vaxel_route_info{{{I}}}, route)"),
    "upstream": ("Upstream", f"label_values(vaxel_slots{{{I}}}, upstream)"),
    "consumer": ("Consumer", f"label_values(vaxel_consumer_requests_total{{{I}}}, consumer)"),
}


def variable(name):
    label, query = VARIABLES[name]
    return {"name": name, "type": "query", "label": label, "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": "variable"}, "refresh": 2, "sort": 1, "hide": 0, "includeAll": True,
            "multi": True, "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "regex": ""}


ANNOTATIONS = [
    ("Configuration loaded", BLUE, f"vaxel_config_last_reload_timestamp_seconds{{{I}}} * 1000",
     "configuration loaded", "{{instance}}", True),
    ("Breaker changed", RED, f"changes(vaxel_breaker_shifts_total{{{I}}}[$__rate_interval]) > 0",
     "breaker of {{upstream}}: {{to}}", "{{instance}}", False),
    ("Gear shifted", ORANGE, f"changes(vaxel_gear_shifts_total{{{I}}}[$__rate_interval]) > 0",
     "{{upstream}} in {{to}}", "{{instance}}", False),
]


def annotation(name, color, expression, title, text, timed):
    return {"name": name, "datasource": SOURCE, "enable": True, "hide": False, "iconColor": color, "expr": expression,
            "step": "15s", "titleFormat": title, "textFormat": text, "tagKeys": "", "useValueForTime": timed}


REQUESTS, DURATION = "vaxel_responses_total", "vaxel_request_duration_seconds"
CACHE, STORED = "vaxel_cache_requests_total", 'result=~"hit|stale|stale_error|revalidated|collapsed"'
ATTEMPTS, UPSTREAM_DURATION = "vaxel_upstream_attempts_total", "vaxel_upstream_duration_seconds"
BY_CONSUMER, BACKEND_TIME = "vaxel_consumer_requests_total", "vaxel_consumer_upstream_seconds_total"
TAKEN = f"(vaxel_slots_busy{{{U}}} + vaxel_slots_zombie{{{U}}}) / (vaxel_slots{{{U}}} > 0)"
FULL = {0.8: ORANGE, 1: RED}
ANSWERED = share(rate(CACHE, f"{R},{STORED}"), rate(CACHE, f'{R},result!="off"'))


def overview():
    d = Dashboard("vaxel-overview", "Vaxel: overview", "Traffic, errors, latency, saturation; who runs what.",
                  ["instance", "route", "upstream"])
    d.row("Now")
    d.stat("Requests", "reqps", "Finished requests a second.", rate(REQUESTS, R), width=3)
    d.stat("Errors", "percentunit", "Share of answers of class 5xx, Vaxel's own 503 and 504 among them.",
           share(rate(REQUESTS, R + ',code="5xx"'), rate(REQUESTS, R)), {0.005: ORANGE, 0.05: RED}, 2, width=3)
    d.stat("99th percentile", "s", "99 of 100 requests took at most this long, body included.",
           quantile(0.99, DURATION, R), {2.5: ORANGE, 10: RED}, width=3)
    d.stat("Answered without the backend", "percentunit", "Of what the cache was asked for, this share came from it.", ANSWERED, width=3)
    d.stat("Fullest upstream", "percentunit", "Slots taken, of all that the upstream has.", f"max({TAKEN})", FULL, width=3)
    d.stat("Open breakers", "none", "Upstreams that get no requests.",
           f'count(vaxel_breaker_state{{{U},state=~"open|forced_open"}} == 1) or vector(0)', {1: RED}, width=3)
    d.stat("Most careful gear", "none", "Of all upstreams.", f"max({numbered('vaxel_gear_state', U, 'gear', GEARS)})", states=GEARS, width=3)
    d.stat("Alerts", "none", "How many fire.", 'count(ALERTS{alertname=~"Vaxel.*",alertstate="firing"}) or vector(0)', {1: RED}, width=3)
    d.row("Traffic")
    d.series("Requests by route", "reqps", "Finished requests a second.", {"{{route}}": rate(REQUESTS, R, "route")}, stack=True)
    d.series("Requests by class", "reqps", "Finished requests a second, by class of the status.",
             {"{{code}}": rate(REQUESTS, R, "code")}, stack=True)
    d.series("Requests by method", "reqps", "Methods that are not in common use are _other.",
             {"{{method}}": rate("vaxel_requests_total", R, "method")}, stack=True)
    d.series("Bodies", "Bps", "Bytes of bodies a second.",
             {"to clients": rate("vaxel_response_bytes_total", R), "from clients": rate("vaxel_request_bytes_total", R)})
    d.series("Connections", "none", "Open connections of clients.",
             {"{{listener}}": f"sum by (listener) (vaxel_listener_connections{{{I}}})"})
    d.series("New connections", "cps", "Connections taken and turned away, and TLS handshakes, a second.",
             {"taken": rate("vaxel_listener_accepted_total", I),
              "turned away: {{reason}}": rate("vaxel_listener_refused_total", I, "reason"),
              "TLS {{result}}": rate("vaxel_tls_handshakes_total", I, "result")})
    d.row("Errors")
    d.series("Errors by route", "percentunit", "Share of answers of class 5xx.",
             {"{{route}}": share(rate(REQUESTS, R + ',code="5xx"', "route"), rate(REQUESTS, R, "route"))},
             steps={0.005: ORANGE, 0.05: RED})
    d.series("Refusals by reason", "reqps", "What Vaxel answered by itself. The README says what each reason means.",
             {"{{reason}}": rate("vaxel_refusals_total", R, "reason")}, stack=True)
    d.series("Burn rate", "none", "How many times faster than allowed the error budget of thirty days is used up, over one hour. "
             "At 14.4 somebody is called.",
             {"{{route}}": 'route:vaxel_errors:ratio_rate1h{route=~"$route"} / on (route) route:vaxel_errors:allowed'},
             steps={1: ORANGE, 14.4: RED})
    d.series("Clients that left", "reqps", "Requests whose client left before the response had ended.",
             {"{{route}}": rate("vaxel_client_aborts_total", R, "route")})
    d.series("Lost", "none", "Lines of the access log lost, and panics caught, a second. Both should be nothing.",
             {"log lines": rate("vaxel_access_log_dropped_total", I), "panics": rate("vaxel_worker_panics_total", I),
              "spans": rate("vaxel_trace_spans_total", I + ',result!="sent"')})
    d.series("Slow answers", "percentunit", "Share of answers that took more than 2.5 s.",
             {"{{route}}": 'route:vaxel_slow:ratio_rate5m{route=~"$route"}'}, top=1)
    d.row("Latency")
    d.series("Latency", "s", "From the head of a request to the end of its response body. Diamonds are recorded traces.",
             {"p50": quantile(0.5, DURATION, R), "p90": quantile(0.9, DURATION, R), "p99": quantile(0.99, DURATION, R)},
             exemplars=True)
    d.series("99th percentile by route", "s", "99 of 100 requests took at most this long.",
             {"{{route}}": quantile(0.99, DURATION, R, "route")})
    d.heat("Distribution", "How many requests a second took how long.", DURATION, R)
    d.row("Saturation")
    d.series("Slots taken", "percentunit", "Of the slots an upstream has: busy and zombie.",
             {"{{upstream}} {{instance}}": TAKEN}, steps=FULL)
    d.series("Waiting", "none", "Requests that wait for a slot.", {"{{upstream}}": f"sum by (upstream) (vaxel_queue_length{{{U}}})"})
    d.series("Event loops", "percentunit", "Share of the time an event loop works. At one it is saturated.",
             {"{{instance}} {{worker}}": f"rate(vaxel_worker_busy_seconds_total{{{I}}}[$__rate_interval])"}, steps={0.9: RED}, top=1)
    d.series("Event loop lag", "s", "99th percentile of how late an event loop comes to what is due.",
             {"{{instance}} {{worker}}": quantile(0.99, "vaxel_worker_lag_seconds", I, "instance, worker")}, steps={0.1: RED})
    d.series("Memory", "bytes", "Resident memory, and what of it the stored answers weigh.",
             {"{{instance}} resident": f"process_resident_memory_bytes{{{I}}}", "{{instance}} cache": f"vaxel_cache_bytes{{{I}}}"})
    d.series("CPU", "none", "Cores used.", {"{{instance}}": f"rate(process_cpu_seconds_total{{{I}}}[$__rate_interval])"})
    d.series("File descriptors", "percentunit", "Of those the process may open.",
             {"{{instance}}": f"process_open_fds{{{I}}} / process_max_fds{{{I}}}"}, steps={0.8: RED}, top=1)
    d.row("State")
    d.series("Certificates", "s", "Time until a certificate ends.",
             {"{{certificate}} {{instance}}": f"vaxel_certificate_expiry_timestamp_seconds{{{I}}} - time()"})
    d.table("Firing", "Alerts that fire.", {"alerts": 'ALERTS{alertname=~"Vaxel.*",alertstate="firing"}'},
            hidden=["alertstate", "job", "Value"], width=16, height=8)
    d.table("Instances", "What runs where. Instances that do the same should have the same hash.", {
        "build": f"vaxel_build_info{{{I}}}", "up for": f"time() - process_start_time_seconds{{{I}}}",
        "configuration loaded": f"vaxel_config_last_reload_timestamp_seconds{{{I}}} * 1000",
        "last load": f"vaxel_config_last_reload_successful{{{I}}}", "hash": f"vaxel_config_hash{{{I}}}",
        "loads": f"sum by (instance) (vaxel_config_reloads_total{{{I}}})",
        "threads": f"process_threads{{{I}}}"}, join="instance",
        columns={"up for": [{"id": "unit", "value": "s"}],
                 "configuration loaded": [{"id": "unit", "value": "dateTimeFromNow"}],
                 "hash": [{"id": "unit", "value": "hex"}],
                 "last load": [{"id": "mappings", "value": [{"type": "value", "options": {
                     "0": {"text": "failed", "color": RED, "index": 0}, "1": {"text": "good", "color": GREEN, "index": 1}}}]}]},
        hidden=["Value #A", "job", *(f"job {number}" for number in range(1, 8))])
    return d


def cache():
    d = Dashboard("vaxel-cache", "Vaxel: cache", "What the cache takes off the backend, how old it is, and what it costs.",
                  ["instance", "route"])
    d.row("Now")
    d.stat("Answered without the backend", "percentunit", "Of what the cache was asked for, this share came from it.", ANSWERED)
    d.stat("Spared", "reqps", "Requests a second that the backend did not get.", rate(CACHE, f"{R},{STORED}"))
    d.stat("Stale", "percentunit", "Share of answers that were past their time.",
           share(rate(CACHE, R + ',result=~"stale|stale_error"'), rate(CACHE, R + ',result!="off"')), {0.2: ORANGE})
    d.stat("Memory", "percentunit", "Of what the stored answers may weigh.",
           f"sum(vaxel_cache_bytes{{{I}}}) / sum(vaxel_cache_capacity_bytes{{{I}}})")
    d.stat("Entries", "short", "Stored answers.", f"sum(vaxel_cache_entries{{{I}}})", decimals=0)
    d.stat("Evicted", "short", "Entries a second that had to go to make room.", rate("vaxel_cache_evictions_total", I))
    d.row("Effect")
    d.series("Answered without the backend", "percentunit", "By route: of what the cache was asked for.",
             {"{{route}}": share(rate(CACHE, f"{R},{STORED}", "route"), rate(CACHE, R + ',result!="off"', "route"))}, top=1)
    d.series("Results", "reqps", "Finished requests a second, by what the cache did.",
             {"{{result}}": rate(CACHE, R + ',result!="off"', "result")}, stack=True)
    d.series("Time by whom the client waited for", "s", "90th percentile: hit is the store alone, miss the upstream on its behalf, pass all "
             "others.", {"{{cache}}": quantile(0.9, DURATION, R, "cache")}, exemplars=True)
    d.series("Stale answers", "percentunit", "By route. stale: refreshed in the background. stale_error: the upstream failed.",
             {"{{route}} {{result}}": share(rate(CACHE, R + ',result=~"stale|stale_error"', "route, result"),
                                            rate(CACHE, R + ',result!="off"', "route"), "on (route) group_left () ")})
    d.series("Collapsed", "reqps", "Requests a second that shared the answer to another one under way.",
             {"{{route}}": rate(CACHE, R + ',result="collapsed"', "route")})
    d.series("Rules", "reqps", "What rules of the cache did beside answering: unproven, withdrawn and forgotten are about identities, "
             "invalidated, outdated and fenced about writes.", {"{{route}} {{event}}": rate("vaxel_cache_events_total", R, "route, event")})
    d.series("Past the store", "reqps", "Requests a second that could not be answered from the store for everybody, or asked to go past it.",
             {"{{route}} {{result}}": rate(CACHE, R + ',result=~"pass|bypass"', "route, result")})
    d.row("What it costs")
    d.series("Memory of entries", "bytes", "What the stored answers weigh, and may weigh.",
             {"{{instance}}": f"vaxel_cache_bytes{{{I}}}", "{{instance}} at most": f"vaxel_cache_capacity_bytes{{{I}}}"})
    d.series("Entries", "short", "Stored answers.", {"{{instance}}": f"vaxel_cache_entries{{{I}}}"})
    d.series("Evicted", "short", "Entries a second that had to go to make room: more memory would keep them.",
             {"{{instance}}": rate("vaxel_cache_evictions_total", I, "instance")})
    d.series("Memory of fills", "bytes", "Bodies on their way into the store.", {"{{instance}}": f"vaxel_cache_fills_bytes{{{I}}}"})
    d.series("Purged", "short", "Orders to purge, and the entries taken out or made stale by them, a second.",
             {"orders: {{extent}}": rate("vaxel_cache_purges_total", I, "extent"),
              "entries: {{depth}}": rate("vaxel_cache_purged_entries_total", I, "depth")})
    d.series("Saved", "short", "Writings of the stored answers to disk a second, where that is configured.",
             {"{{instance}} {{result}}": rate("vaxel_cache_saves_total", I, "instance, result")})
    d.series("Age of what is saved", "s", "After a restart, answers are as old as this.",
             {"{{instance}}": f"time() - (vaxel_cache_saved_timestamp_seconds{{{I}}} > 0)"})
    d.series("Size of what is saved", "bytes", "The file that a restart reads.", {"{{instance}}": f"vaxel_cache_saved_bytes{{{I}}}"})
    d.series("Restored", "short", "Entries read from disk at the start.", {"{{instance}}": f"vaxel_cache_restored_entries_total{{{I}}}"})
    d.series("Harvested", "short", "Answers a second that came too late for their client and were stored all the same.",
             {"{{route}}": rate("vaxel_cache_harvests_total", R, "route")})
    return d


def protection():
    d = Dashboard("vaxel-protection", "Vaxel: protection", "Slots, queue, refusals, breaker, gear, fairness: what stands before the backend.",
                  ["instance", "upstream", "route", "consumer"])
    d.row("Slots and queue")
    d.series("Slots", "none", "Requests at the backend: busy ones somebody waits for, zombies nobody does.",
             {"{{upstream}} busy": f"sum by (upstream) (vaxel_slots_busy{{{U}}})",
              "{{upstream}} zombie": f"sum by (upstream) (vaxel_slots_zombie{{{U}}})",
              "{{upstream}} free": f"sum by (upstream) (vaxel_slots{{{U}}} - vaxel_slots_busy{{{U}}} - vaxel_slots_zombie{{{U}}})"},
             stack=True)
    d.series("Waiting", "none", "Requests that wait for a slot.", {"{{upstream}}": f"sum by (upstream) (vaxel_queue_length{{{U}}})"})
    d.series("Wait for a slot", "s", "How long requests waited, those that got none included.",
             {"{{upstream}} p50": quantile(0.5, "vaxel_queue_wait_seconds", U, "upstream"),
              "{{upstream}} p99": quantile(0.99, "vaxel_queue_wait_seconds", U, "upstream")})
    d.heat("Waits", "How many requests a second waited how long.", "vaxel_queue_wait_seconds", U)
    d.series("Zombies", "short", "Requests a second whose client left or timed out while the backend worked on.",
             {"{{upstream}}": rate("vaxel_zombies_total", U, "upstream")})
    d.series("Zombie share", "percentunit", "Of the slots: work nobody waits for.",
             {"{{upstream}} {{instance}}": f"vaxel_slots_zombie{{{U}}} / (vaxel_slots{{{U}}} > 0)"}, steps={0.25: ORANGE, 0.5: RED}, top=1)
    d.row("Adaptive limit")
    d.series("Slots suggested", "none", "What an adaptive limit finds right, and what is in force: in shadow mode they differ.",
             {"{{upstream}} suggested": f"max by (upstream) (vaxel_limit_suggested{{{U}}})",
              "{{upstream}} in force": f"max by (upstream) (vaxel_slots{{{U}}} and on (instance, upstream) vaxel_limit_suggested{{{U}}})"})
    d.series("Latency against the baseline", "none", "How many times their usual time answers take. More than once or twice: they wait for each "
             "other in the backend.", {"{{upstream}} {{instance}}": f"vaxel_limit_latency_ratio{{{U}}}"}, steps={2: ORANGE})
    d.series("Overload", "short", "Attempts a second that the backend refused as too much, or did not answer in time.",
             {"{{upstream}}": rate("vaxel_limit_drops_total", U, "upstream")})
    d.row("Refusals")
    d.series("Refusals by reason", "reqps", "Requests a second that Vaxel answered by itself.",
             {"{{reason}}": rate("vaxel_refusals_total", R, "reason")}, stack=True)
    d.series("Refused for the backend's sake", "percentunit", "By route: queue, breaker and upstream, not what a client did wrong.",
             {"{{route}}": 'route:vaxel_refusals:ratio_rate5m{route=~"$route"}'}, steps={0.05: RED})
    d.series("Refusals in shadow", "reqps", "What policies in shadow mode would have refused.",
             {"{{route}} {{reason}}": rate("vaxel_shadow_refusals_total", R, "route, reason")})
    d.series("Waits in shadow", "reqps", "What policies in shadow mode would have let wait: for a turn at a rate, or for a slot.",
             {"{{route}} {{policy}}": rate("vaxel_shadow_waits_total", R, "route, policy")})
    d.row("Rates")
    d.series("Held back", "none", "Requests that wait for their turn at a rate, on average.",
             {"{{route}}": rate("vaxel_rate_delay_seconds_total", R, "route")})
    d.series("Delay", "s", "How long a request that is over a rate is held back, on average.",
             {"{{route}}": f"{rate('vaxel_rate_delay_seconds_total', R, 'route')} / ({rate('vaxel_rate_delays_total', R, 'route')} > 0)"})
    d.row("Breaker")
    d.states("Breaker", "Open: no requests but trials. Half open: it tries.", "{{upstream}} {{instance}}",
             numbered("vaxel_breaker_state", U, "state", BREAKER), BREAKER)
    d.series("Changes", "short", "Changes of the breaker's state a second.",
             {"{{upstream}} → {{to}}": rate("vaxel_breaker_shifts_total", U, "upstream, to")}, width=12)
    d.row("Gear")
    d.states("Gear", "eco: no retries, few refreshes. limp: half of the slots, nothing but what is urgent. park: nothing is sent.",
             "{{upstream}} {{instance}}", numbered("vaxel_gear_state", U, "gear", GEARS), GEARS, width=8)
    d.states("Strain", "The gear that strain alone asks for; in shadow mode it is not shifted to.", "{{upstream}} {{instance}}",
             numbered("vaxel_gear_strain", U, "gear", GEARS), GEARS, width=8)
    d.series("Shifts", "short", "Changes of gear a second.",
             {"{{upstream}} → {{to}}": rate("vaxel_gear_shifts_total", U, "upstream, to")})
    d.row("Fairness")
    d.series("Shares of the backend", "percentunit", "Who has the backend's time.",
             {"{{consumer}}": f"{rate(BACKEND_TIME, C, 'consumer')} / scalar({rate(BACKEND_TIME, I)} > 0)"}, stack=True, top=1)
    d.series("Requests at the backend", "none", "How many requests of a consumer are at the backend, on average.",
             {"{{consumer}}": rate(BACKEND_TIME, C, "consumer")})
    d.series("Requests in the queue", "none", "How many requests of a consumer wait for a slot, on average.",
             {"{{consumer}}": rate("vaxel_consumer_queue_seconds_total", C, "consumer")})
    return d


def upstream():
    d = Dashboard("vaxel-upstream", "Vaxel: upstreams", "How the backends answer, and the connections to them.", ["instance", "upstream"])
    failed = share(rate(ATTEMPTS, U + ',outcome=~"broken|overloaded"'), rate(ATTEMPTS, U))
    d.row("Now")
    d.stat("Attempts", "reqps", "Requests sent to the backends a second, repeated ones included.", rate(ATTEMPTS, U))
    d.stat("Failed", "percentunit", "Share of attempts that were broken or overloaded.", failed, {0.05: ORANGE, 0.5: RED}, 1)
    d.stat("Time to the head, p50", "s", "Half of the answers began within this time.", quantile(0.5, UPSTREAM_DURATION, U))
    d.stat("Time to the head, p99", "s", "99 of 100 answers began within this time.", quantile(0.99, UPSTREAM_DURATION, U))
    d.stat("Endpoints out", "none", "Endpoints that take no requests.", f"count(vaxel_endpoint_up{{{U}}} == 0) or vector(0)", {1: RED})
    d.stat("Reused", "percentunit", "Share of attempts that found a connection.",
           share(rate("vaxel_upstream_connections_total", U + ',kind="reused"'), rate("vaxel_upstream_connections_total", U)))
    d.row("Answers")
    d.series("Attempts by outcome", "reqps", "business: an error of the application, a success of the backend. ignored: nothing was learnt.",
             {"{{upstream}} {{outcome}}": rate(ATTEMPTS, U, "upstream, outcome")}, stack=True)
    d.series("Failures", "percentunit", "Share of attempts that were broken or overloaded.",
             {"{{upstream}}": share(rate(ATTEMPTS, U + ',outcome=~"broken|overloaded"', "upstream"), rate(ATTEMPTS, U, "upstream"))},
             steps={0.5: RED})
    d.series("Retries", "percentunit", "Share of attempts that repeated one before.",
             {"{{upstream}}": share(rate("vaxel_upstream_retries_total", U, "upstream"), rate(ATTEMPTS, U, "upstream"))})
    d.series("Time to the head", "s", "From the begin of an attempt to the head of its answer. Diamonds are recorded traces.",
             {"{{upstream}} p50": quantile(0.5, UPSTREAM_DURATION, U, "upstream"),
              "{{upstream}} p99": quantile(0.99, UPSTREAM_DURATION, U, "upstream")}, exemplars=True)
    d.heat("Distribution", "How many answers a second began after how long.", UPSTREAM_DURATION, U)
    d.series("Requests by route", "reqps", "Requests for the upstream a second, before cache and queue.",
             {"{{upstream}} {{route}}": f"sum by (upstream, route) (rate({REQUESTS}{{{I}}}[$__rate_interval]) * on (instance, route) "
              f"group_left (upstream) vaxel_route_info{{{U}}})"})
    d.row("Endpoints and connections")
    d.states("Endpoints", "Out: its probe or its failures took it out.", "{{endpoint}} {{instance}}", f"vaxel_endpoint_up{{{U}}}",
             {0: ("out", RED), 1: ("up", GREEN)}, width=8)
    d.series("Requests at the endpoints", "none", "Requests that are there now.",
             {"{{endpoint}}": f"sum by (upstream, endpoint) (vaxel_endpoint_requests{{{U}}})"})
    d.series("Connections", "cps", "Connections taken for an attempt, a second.",
             {"{{upstream}} {{kind}}": rate("vaxel_upstream_connections_total", U, "upstream, kind")})
    d.series("Idle connections", "none", "Connections that wait in the pool.",
             {"{{upstream}}": f"sum by (upstream) (vaxel_upstream_connections_idle{{{U}}})"})
    return d


def consumers():
    d = Dashboard("vaxel-consumers", "Vaxel: consumers", "Who asks for how much, gets it, and costs the backend what.",
                  ["instance", "consumer"])
    refused = share(rate(BY_CONSUMER, C + ',result="refused"', "consumer"), rate(BY_CONSUMER, C, "consumer"))
    d.row("Consumers")
    d.series("Requests by consumer", "reqps", "Finished requests a second. _anonymous is everybody who is no configured consumer.",
             {"{{consumer}}": rate(BY_CONSUMER, C, "consumer")}, stack=True)
    d.series("Refused, by consumer", "percentunit", "Share of a consumer's requests that Vaxel refused.", {"{{consumer}}": refused},
             steps={0.2: ORANGE})
    d.series("Shares of the backend", "percentunit", "Who has the backend's time.",
             {"{{consumer}}": 'consumer:vaxel_upstream_time:ratio_rate5m{consumer=~"$consumer"}'}, stack=True, top=1)
    d.series("Backend time per request", "s", "What a request of a consumer costs the backend on average, hits included.",
             {"{{consumer}}": share(rate(BACKEND_TIME, C, "consumer"), rate(BY_CONSUMER, C, "consumer"))})
    d.series("Wait per request", "s", "How long a request of a consumer waited for a slot on average, hits included.",
             {"{{consumer}}": share(rate("vaxel_consumer_queue_seconds_total", C, "consumer"), rate(BY_CONSUMER, C, "consumer"))})
    d.series("Requests at the backend", "none", "How many requests of a consumer are at the backend, on average.",
             {"{{consumer}}": rate(BACKEND_TIME, C, "consumer")})
    d.series("Quotas used", "percentunit", "What a consumer has used of its quota in the present hour, day or month.",
             {"{{consumer}} per {{per}}": f"max by (consumer, per) (vaxel_quota_used{{{C}}} / vaxel_quota_limit{{{C}}})"},
             steps={0.9: ORANGE, 1: RED})
    d.series("State file", "short", "Writings a second of the file that keeps what was used of quotas and what limits have learned.",
             {"{{instance}} {{result}}": rate("vaxel_state_saves_total", I, "instance, result")})
    over = "[$__range]"
    total = lambda metric, more="": f"sum by (consumer) (increase({metric}{{{C}{more}}}{over}))"
    d.table("In the time shown", "Sums over the whole time of the dashboard.", {
        "requests": total(BY_CONSUMER), "refused": total(BY_CONSUMER, ',result="refused"'),
        "backend time": total(BACKEND_TIME), "waited": total("vaxel_consumer_queue_seconds_total")}, join="consumer",
        columns={"requests": [{"id": "unit", "value": "short"}], "refused": [{"id": "unit", "value": "short"}],
                 "backend time": [{"id": "unit", "value": "s"}], "waited": [{"id": "unit", "value": "s"}]}, height=9)
    return d


def main():
    stale = []
    for dashboard in (overview(), cache(), protection(), upstream(), consumers()):
        path, text = HERE / f"{dashboard.uid}.json", dashboard.json()
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"not current: {', '.join(stale)}; run config/grafana/make.py")


if __name__ == "__main__":
    main()
