#!/bin/sh
# fuzz.sh [--seconds N] [TARGET…]: fuzzing with atheris, which has a venv of its own, for nothing else needs it.
set -eu
cd -- "$(dirname -- "$0")/.."
fail() { printf 'fuzz: %s\n' "$*" >&2 && exit 1; }

venv=.run/fuzz/venv
stamp="$(pwd -P) $(.venv/bin/python -V) $(cksum <requirements/fuzz.txt)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  printf 'fuzz: making %s, which takes a minute the first time\n' "$venv" >&2
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --require-hashes --only-binary :all: \
    -r requirements/fuzz.txt || fail "pip could not install requirements/fuzz.txt; its reason stands above. \
atheris has wheels for Linux on x86-64 alone, up to Python 3.14."
  "$venv/bin/python" -c 'import atheris' || fail "there is no atheris here, for which the reason stands \
above, and without it nothing fuzzes. It has wheels for Linux on x86-64 alone."
  printf '%s\n' "$stamp" >"$venv/stamp"
fi
exec "$venv/bin/python" -m fuzz "$@"
