#!/usr/bin/env bash
# Traces by OTLP, read by the messages that the OpenTelemetry project itself publishes. Installs opentelemetry-proto (Python
# packages only) below target/real/venv-otlp, then runs traces.py there. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/real/venv-otlp
packages=("opentelemetry-proto~=1.27")

# The marker is written last, so that an install that broke off is done again.
marker="$venv/.vaxel-$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-12)"
if [[ ! -e $marker ]]; then
    rm -rf "$venv"
    mkdir -p target/real
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    touch "$marker"
fi

"$venv/bin/python" tests/real/traces.py "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true' EXIT INT TERM
wait "$child"
