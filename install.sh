#!/bin/sh
# ./install.sh quickstart sets everything up in .venv and fine-tunes a small model; ./install.sh test runs the tests.
#
# This part finds a Python and hands over to mlxops/projects/install.py. It uses no program but Python and, where they
# are there, uname and xcode-select, so that it works with a bare PATH.

case $(uname -s 2>/dev/null || /usr/bin/uname -s 2>/dev/null) in
    Darwin) system=macos ;;
    Linux) system=linux ;;
    MINGW* | MSYS* | CYGWIN*)
        echo 'MLX runs on macOS and on Linux, not on Windows' >&2
        echo 'hint: WSL has a Linux: wsl --install' >&2
        exit 1
        ;;
    *) system=unknown ;;
esac

# A Python says nothing and ends with 0 if it will do. Also old ones must be able to read this.
check='
import os, sys
if sys.version_info < (3, 11):
    sys.stdout.write("%s is Python %d.%d, and mlxops needs 3.11 or newer" % ((sys.executable,) + sys.version_info[:2]))
    sys.exit(1)
sys.path.insert(0, os.path.dirname(os.path.realpath(sys.argv[1])))
try:
    from mlxops.projects import install
except ImportError:
    sys.stdout.write("%s is not in a clone of mlxops\nhint: start it as ./install.sh there" % sys.argv[1])
    sys.exit(4)
sys.exit(install.check())
'

# An interrupt while modules load is no reason for a traceback; `main` then listens itself.
work='
import signal
quiet = [number for number in (signal.SIGINT,) if signal.getsignal(number) is not signal.SIG_IGN]
for number in quiet: signal.signal(number, signal.SIG_DFL)
import os, pathlib, sys
checkout = os.path.dirname(os.path.realpath(sys.argv[1]))
sys.path.insert(0, checkout)
from mlxops.projects import install
sys.exit(install.main(pathlib.Path(checkout), sys.argv[2:]))
'

# Isolated from PYTHONHOME, PYTHONPATH and site packages, and leaving no __pycache__ behind.
flags=-ISB

python=
reason=

# Take the Python $1 if it will do; else keep the most telling reason why not.
try() {
    [ -z "$python" ] || return 0
    found=$(command -v "$1" 2>/dev/null) || return 0
    # Without the developer tools, this one of macOS is a stub that opens a window.
    if [ "$system:$found" = macos:/usr/bin/python3 ] && ! /usr/bin/xcode-select -p >/dev/null 2>&1; then
        return 0
    fi
    said=$("$found" $flags -c "$check" "$script" 2>/dev/null </dev/null)
    case $? in
        0) python=$found ;;
        3 | 4) unfit=${unfit:-$said} ;;
        *) reason=${reason:-$said} ;;
    esac
}

script=$0
unfit=
if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
    if [ -z "$python" ]; then
        printf 'PYTHON=%s will not do: %s\n' "$PYTHON" "${unfit:-${reason:-there is no Python of that name that runs}}" >&2
        exit 2
    fi
else
    # The environment that is there comes first, so that another PATH does not mean another Python.
    case $script in
        */*) try "${script%/*}/.venv/bin/python" ;;
        *) try ./.venv/bin/python ;;
    esac
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        try "$name"
    done
    for folder in /opt/homebrew/bin /usr/local/bin /usr/bin /bin; do
        for name in python3 python3.14 python3.13 python3.12 python3.11; do
            try "$folder/$name"
        done
    done
    for version in 3.14 3.13 3.12 3.11; do
        try "/Library/Frameworks/Python.framework/Versions/$version/bin/python3"
    done
fi

if [ -z "$python" ]; then
    if [ -n "$unfit" ]; then
        printf '%s\n' "$unfit" >&2
        exit 1
    fi
    printf '%s\n' "${reason:-there is no Python here, and mlxops needs 3.11 or newer}" >&2
    if [ "$system" = macos ]; then
        echo 'hint: brew install python@3.13, or https://www.python.org/downloads/macos/' >&2
    else
        echo 'hint: Debian, Ubuntu: sudo apt install python3-venv (Ubuntu 22.04: python3.11-venv); Fedora: sudo dnf install python3 (RHEL: python3.12); PYTHON=/path/to/python3 names one elsewhere' >&2
    fi
    exit 1
fi

exec "$python" $flags -c "$work" "$script" "$@"
