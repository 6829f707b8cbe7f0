#!/bin/sh
# mutants.sh [lua|python] [OPTION…]: mutation testing. mutmut has a venv of its own, because nothing else needs it.
set -eu
cd -- "$(dirname -- "$0")/.."
fail() { printf 'mutants: %s\n' "$*" >&2 && exit 1; }

venv=.run/mutants/venv
stamp="$(pwd -P) $(.venv/bin/python -V) $(cksum <requirements/mutants.txt)"
if [ "${1-}" != lua ] && [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  printf 'mutants: making %s, which takes a minute the first time\n' "$venv" >&2
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --require-hashes --only-binary :all: \
    -r requirements/mutants.txt || fail "pip could not install requirements/mutants.txt; its reason stands above."
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --no-deps --no-build-isolation --editable . ||
    fail "pip could not install the project itself; its reason stands above."
  printf '%s\n' "$stamp" >"$venv/stamp"
fi
exec .venv/bin/python -m scripts.mutants "$@"
