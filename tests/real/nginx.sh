#!/usr/bin/env bash
# Debian's nginx through Vaxel to curl, wrk, h2load and others. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

for tool in nginx curl wrk h2load nghttp python3; do
    command -v "$tool" >/dev/null || { echo "FAIL $tool is missing: apt-get install nginx curl wrk nghttp2-client python3"; exit 1; }
done

run python3 tests/real/nginx.py "$@"
