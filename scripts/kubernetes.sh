#!/bin/sh
# kubernetes.sh [--write]: check deploy/, or write deploy/kubernetes. Kubernetes' schemas have a venv of their own, because
# they are 17,000 files that nothing else needs.
set -eu
cd -- "$(dirname -- "$0")/.."
fail() { printf 'kubernetes: %s\n' "$*" >&2 && exit 1; }

venv=.run/kubernetes/venv
stamp="$(pwd -P) $(.venv/bin/python -V) $(cksum <requirements/kubernetes.txt)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  printf 'kubernetes: making %s, which takes a minute the first time\n' "$venv" >&2
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --require-hashes --only-binary :all: \
    --no-compile -r requirements/kubernetes.txt ||
    fail "pip could not install requirements/kubernetes.txt; its reason stands above."
  printf '%s\n' "$stamp" >"$venv/stamp"
fi
exec "$venv/bin/python" scripts/kubernetes_check.py "$@"
