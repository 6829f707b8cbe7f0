#!/bin/sh
# Locks the dependencies anew: `just lock`, or `just lock --upgrade`. No index address is written. Extras are, for without
# them pip does not see that `coverage[toml]` is pinned by `coverage==…` once a newer version is out.
set -eu
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-header --no-annotate "$@"; }
compile pyproject.toml -o requirements/extauth.txt "$@"
# What the image holds.
compile pyproject.toml --extra tracing -c requirements/extauth.txt -o requirements/image.txt "$@"
compile services/echo/requirements.in -o services/echo/requirements.txt -c requirements/extauth.txt "$@"
compile pyproject.toml --group dev -c requirements/image.txt -c services/echo/requirements.txt -o requirements/dev.txt "$@"
compile pyproject.toml --group dev --group mutants -c requirements/dev.txt -o requirements/mutants.txt "$@"
compile --group kubernetes -o requirements/kubernetes.txt "$@"
compile pyproject.toml --group fuzz -c requirements/extauth.txt -o requirements/fuzz.txt "$@"
# The image builds the package without an index: its build backend is locked too.
echo hatchling | compile - -c requirements/dev.txt -o requirements/build.txt "$@"
