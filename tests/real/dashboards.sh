#!/usr/bin/env bash
# Reads the dashboards with Grafana's own model of them (its foundation SDK, a Python package), installed below
# target/real/grafana. What Grafana would not know, such as a misspelt key, is lost on the way through it, and found.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

virtualenv grafana 'grafana-foundation-sdk==1769699379!11.6.0' # the last part is Grafana's version
exec "$venv/bin/python" tests/real/dashboards.py
