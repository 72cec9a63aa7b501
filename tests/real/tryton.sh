#!/usr/bin/env bash
# A real ERP through Vaxel. Installs Tryton (Python packages only) below target/real/venv, then runs tryton.py there.
# Arguments are passed on: --direct leaves Vaxel out. $VAXEL names the binary under test.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/real/venv
packages=("trytond~=7.0.0" "trytond-sale~=7.0.0" "proteus~=7.0.0")

# The marker is written last, so that an install that broke off is done again.
marker="$venv/.vaxel-$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-12)"
if [[ ! -e $marker ]]; then
    rm -rf "$venv"
    mkdir -p target/real
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    touch "$marker"
fi

"$venv/bin/python" tests/real/tryton.py "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true' EXIT INT TERM
wait "$child"
