"""Whether Grafana knows every key of the dashboards."""

import json
import re
import sys
from pathlib import Path

from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).resolve().parents[2] / "config" / "grafana" / "dashboards"

# Known to Grafana, but not to its model of a dashboard.
ELSEWHERE = [
    # The Prometheus data source's own, for annotations and for its editor of variables.
    r"\.annotations\.list\[\d+\]\.(step|titleFormat|textFormat|tagKeys|useValueForTime)",
    r"\.templating\.list\[\d+\]\.definition",
    # How a heatmap's tooltip was switched on before Grafana 10.4; since then it is `mode`.
    r"\.panels\[\d+\]\.options\.tooltip\.show",
]


def lost(written, known, place=""):
    """The places in `written` that are not in `known`, or are something else there."""
    if isinstance(written, dict) and isinstance(known, dict):
        for key, value in written.items():
            there = f"{place}.{key}"
            if key in known:
                yield from lost(value, known[key], there)
            else:
                yield there
    elif isinstance(written, list) and isinstance(known, list) and len(written) == len(known):
        for index, pair in enumerate(zip(written, known)):
            yield from lost(*pair, f"{place}[{index}]")
    elif written != known:
        yield place


def unknown(written):
    """What Grafana would not know of a dashboard."""
    known = json.loads(json.dumps(Dashboard.from_json(written), cls=encoder.JSONEncoder))
    return [place for place in lost(written, known) if not any(re.fullmatch(rule, place) for rule in ELSEWHERE)]


def main():
    plugins.register_default_plugins()
    failed = False
    boards = sorted(FOLDER.glob("*.json"))
    for path in boards:
        written = json.loads(path.read_text())
        places = unknown(written)
        failed |= bool(places)
        print("FAIL" if places else "ok  ", f"{path.name}: {len(written['panels'])} panels", *places)
        # A check that finds nothing must be able to.
        panel = next(panel for panel in written["panels"] if panel["type"] != "row")
        panel["gridPoss"] = panel.pop("gridPos")
        if not any(place.endswith(".gridPoss") for place in unknown(written)):
            failed = True
            print("FAIL", f"{path.name}: a misspelt key was not found")
    if not boards:
        failed = True
        print("FAIL", f"no dashboards in {FOLDER}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
