#!/bin/sh
# python.sh VERSION [PYTEST ARGUMENT…]: runs the tests on another Python, in a venv of its own. uv finds that Python on this
# machine, or fetches it.
set -eu
cd -- "$(dirname -- "$0")/.."
fail() { printf 'python: %s\n' "$*" >&2 && exit 1; }

case ${1-} in
  3.[0-9]*) version=$1 ;;
  *) fail "say which version: ./dev python 3.13 [PYTEST ARGUMENT…]" ;;
esac
shift

venv=.run/python/$version
stamp="$(pwd -P) $(cat requirements/dev.txt pyproject.toml | cksum)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  printf 'python: making %s\n' "$venv" >&2
  uv venv --quiet --clear --python "$version" "$venv" || fail "there is no Python $version here, and uv could not fetch one; \
its reason stands above."
  uv pip install --quiet --python "$venv/bin/python" --require-hashes --only-binary :all: -r requirements/dev.txt ||
    fail "uv could not install requirements/dev.txt; its reason stands above."
  uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable . ||
    fail "uv could not install the project itself; its reason stands above."
  printf '%s\n' "$stamp" >"$venv/stamp"
fi
PATH=$PWD/$venv/bin:$PATH
export PATH
exec "$venv/bin/python" -m pytest "$@"
