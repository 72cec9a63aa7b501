#!/usr/bin/env bash
# Debian's Prometheus watches Vaxel under load, and every expression of the dashboards and rules is evaluated there.
# $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

for tool in prometheus promtool python3; do
    command -v "$tool" >/dev/null || { echo "FAIL $tool is missing: apt-get install prometheus python3"; exit 1; }
done
# Debian's own Python is the one that finds Debian's packages.
python=/usr/bin/python3
"$python" -c 'import prometheus_client.openmetrics.parser' || { echo "FAIL apt-get install python3-prometheus-client"; exit 1; }

run "$python" tests/real/watch.py "$@"
