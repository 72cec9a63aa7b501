#!/usr/bin/env bash
# Traces by OTLP, read by the messages that the OpenTelemetry project itself publishes. Installs opentelemetry-proto (Python
# packages only) below target/real/venv-otlp, then runs traces.py there. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

virtualenv venv-otlp "opentelemetry-proto~=1.27"

run "$venv/bin/python" tests/real/traces.py "$@"
