#!/usr/bin/env bash
# Debian's nginx through Vaxel to curl, wrk, h2load and others. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in nginx curl wrk h2load nghttp python3; do
    command -v "$tool" >/dev/null || { echo "FAIL $tool is missing: apt-get install nginx curl wrk nghttp2-client python3"; exit 1; }
done

python3 tests/real/nginx.py "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true' EXIT INT TERM
wait "$child"
