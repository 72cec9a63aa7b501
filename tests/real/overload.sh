#!/usr/bin/env bash
# A fragile box at five times its capacity behind Vaxel, a stampede, and whatever else may go wrong. $VAXEL names the
# binary under test; any build will do, as the box is what limits, not the machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

run python3 tests/real/overload.py "$@"
