#!/usr/bin/env bash
# Reads the dashboards with Grafana's own model of them (its foundation SDK, a Python package), installed below
# target/real/grafana. What Grafana would not know, such as a misspelt key, is lost on the way through it, and found.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/real/grafana
package='grafana-foundation-sdk==1769699379!11.6.0' # the last part is Grafana's version

marker="$venv/.vaxel-$(sha256sum <<<"$package" | cut -c1-12)"
if [[ ! -e $marker ]]; then
    rm -rf "$venv"
    mkdir -p target/real
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$package"
    touch "$marker"
fi
exec "$venv/bin/python" tests/real/dashboards.py
