#!/usr/bin/env bash
# A backend of eight work processes, offered five times what it can do, through Vaxel. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."

python3 tests/real/overload.py "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null; wait "$child" 2>/dev/null || true' EXIT INT TERM
wait "$child"
