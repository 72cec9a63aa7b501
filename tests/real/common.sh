# For the scripts beside it, which read it in after they have gone to the project's root.

# Makes a virtual environment at target/real/NAME with these Python packages, once; `venv` is its folder.
# The marker is written last, so that an install that broke off is done again.
virtualenv() { # NAME PACKAGE...
    venv=target/real/$1
    shift
    local marker="$venv/.vaxel-$(printf '%s\n' "$@" | sha256sum | cut -c1-12)"
    [[ -e $marker ]] && return
    rm -rf "$venv"
    mkdir -p target/real
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    touch "$marker"
}

# Runs a command and ends it when the script ends, so that it can end what it has started.
run() {
    "$@" &
    child=$!
    trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true' EXIT INT TERM
    wait "$child"
}
