# The Python environment of this checkout, for the other scripts: they source this file.
# It sets `root`, the checkout, and `venv`, where the environment is; `prepare runtime` or
# `prepare dev` makes sure that all that requirements/*.txt pins is installed there, and the
# project itself. Nothing outside of `venv` is changed.
# shellcheck shell=sh

script=$(readlink -f -- "$0" 2>/dev/null) || script=$0
root=$(CDPATH='' cd -- "$(dirname -- "$script")/.." && pwd -P) || exit 1
venv=$root/.venv
unset PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIREMENT PIP_CONSTRAINT
# Many processes are started: none is to compile everything anew.
unset PYTHONDONTWRITEBYTECODE
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Prints what decides whether the environment is up to date. Fails if its Python does not run, is
# too old, or has no pip that fits to it.
fingerprint() {
    "$venv/bin/python" -I - "$root" 2>/dev/null <<'PYTHON'
import hashlib, importlib.util, pathlib, sys
if sys.version_info < (3, 11) or sys.prefix == sys.base_prefix or importlib.util.find_spec("pip") is None:
    sys.exit(1)
root = pathlib.Path(sys.argv[1])
files = ["pyproject.toml", "requirements/runtime.txt", "requirements/dev.txt"]
seen = [sys.version.encode(), bytes(root), *((root / name).read_bytes() for name in files)]
print(hashlib.sha256(b"\0".join(seen)).hexdigest())
PYTHON
}

# is_ready KIND: whether the last installation of KIND was finished and nothing has changed since.
is_ready() {
    [ -r "$venv/stamp-$1" ] && [ ! -e "$venv/unfinished" ] && wanted=$(fingerprint) &&
        [ "$wanted" = "$(cat "$venv/stamp-$1")" ]
}

# Prints the command of a Python that can make an environment.
find_python() {
    lacking=
    for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
        lacking=${lacking:-$candidate}
    done
    if [ -n "$lacking" ]; then
        say "$lacking is here, but it lacks the modules venv and ensurepip."
        say "On Debian and Ubuntu: apt install python3-venv"
    else
        say "Python 3.11 or newer is needed and was not found."
        say "On Debian and Ubuntu: apt install python3 python3-venv"
    fi
    return 1
}

# pip COMMAND…: pip with its own progress on a terminal, with nothing but errors elsewhere.
pip() {
    if [ -t 2 ]; then
        "$venv/bin/python" -I -m pip "$@" >&2
    else
        "$venv/bin/python" -I -m pip -qq "$@" >&2
    fi
}

# A moved checkout or an interrupted installation leaves an environment that cannot be trusted.
remove_if_broken() {
    [ -e "$venv" ] || [ -L "$venv" ] || return 0
    if [ -e "$venv/unfinished" ]; then
        say "the last installation was not finished; starting it anew"
    elif [ -r "$venv/checkout" ] && [ "$(cat "$venv/checkout")" != "$root" ]; then
        say "the checkout has moved; making its environment anew"
    elif ! fingerprint >/dev/null; then
        say "the environment in .venv does not work; making it anew"
    else
        return 0
    fi
    rm -rf -- "$venv"
}

install() {
    kind=$1
    remove_if_broken || return 1
    if [ ! -e "$venv" ]; then
        python=$(find_python) || return 1
        say "making .venv with $("$python" --version 2>&1) (1/3)"
        mkdir -- "$venv" && : >"$venv/unfinished" && "$python" -m venv "$venv" >&2 || return 1
    fi
    : >"$venv/unfinished" && rm -f -- "$venv/stamp-runtime" "$venv/stamp-dev" || return 1
    printf '%s\n' "$root" >"$venv/checkout" || return 1
    say "installing what requirements/$kind.txt pins; the first time this takes a minute (2/3)"
    pip install --require-hashes --requirement "$root/requirements/$kind.txt" || return 1
    say "installing the project (3/3)"
    (cd -- "$root" && pip install --no-deps --no-build-isolation --no-index --editable .) || return 1
    # What dev.txt pins includes all that runtime.txt pins, in the same versions.
    wanted=$(fingerprint) && printf '%s\n' "$wanted" >"$venv/stamp-runtime" || return 1
    [ "$kind" = runtime ] || cp -- "$venv/stamp-runtime" "$venv/stamp-$kind" || return 1
    rm -f -- "$venv/unfinished"
}

# prepare KIND: returns at once if nothing has changed. Several at a time wait for each other.
prepare() {
    is_ready "$1" && return 0
    exec 9<"$root/scripts/environment.sh" || return 1
    if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
        say "waiting for another installation in this checkout"
        flock 9 || return 1
    fi
    is_ready "$1" || install "$1" || {
        say "the environment could not be made; see above. Run this again to try again."
        return 1
    }
    exec 9<&-
}
