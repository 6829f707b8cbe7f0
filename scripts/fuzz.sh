#!/bin/sh
# fuzz.sh [--seconds N] [TARGET…]: fuzzing with atheris, which has a venv of its own, for nothing else needs it.
set -eu
cd -- "$(dirname -- "$0")/.."
. scripts/own_venv.sh
own_venv fuzz "atheris, without which nothing fuzzes, has wheels for Linux on x86-64 alone, up to Python 3.14." atheris
exec "$venv/bin/python" -m fuzz "$@"
