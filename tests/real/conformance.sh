#!/usr/bin/env bash
# The public suite for HTTP caches (npm http-cache-tests) through Vaxel, held against tests/real/conformance.json.
# $VAXEL names the binary under test. docs/CONFORMANCE.md has the options and what the results mean.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "FAIL $tool is missing: apt-get install nodejs npm"; exit 1; }
done

run node --no-warnings tests/real/conformance.mjs "$@"
