#!/usr/bin/env bash
# A real ERP through Vaxel. Installs Tryton (Python packages only) below target/real/venv, then runs tryton.py there.
# Arguments are passed on: --direct leaves Vaxel out. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/real/common.sh

virtualenv venv "trytond~=7.0.0" "trytond-sale~=7.0.0" "proteus~=7.0.0"

run "$venv/bin/python" tests/real/tryton.py "$@"
