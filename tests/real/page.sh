#!/usr/bin/env bash
# The live page in Debian's Chromium under load, with axe-core's accessibility rules. $VAXEL names the binary under test;
# `--pictures FOLDER` keeps the screenshots.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in chromium chromedriver python3 npm; do
    command -v "$tool" >/dev/null || { echo "FAIL $tool is missing: apt-get install chromium chromium-driver python3 npm"; exit 1; }
done
# Debian's own Python is the one that finds Debian's packages.
python=/usr/bin/python3
"$python" -c 'import jsonschema' || { echo "FAIL apt-get install python3-jsonschema"; exit 1; }

axe=$(mktemp -d)
trap 'rm -rf "$axe"' EXIT
npm install --silent --no-save --prefix "$axe" axe-core@4.14.1 >/dev/null
AXE="$axe/node_modules/axe-core/axe.min.js" "$python" tests/real/page.py "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; rm -rf "$axe"' EXIT INT TERM
wait "$child"
