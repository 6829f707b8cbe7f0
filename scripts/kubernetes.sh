#!/bin/sh
# kubernetes.sh [--write]: check deploy/, or write deploy/kubernetes. Kubernetes' schemas have a venv of their own, because
# they are 17,000 files that nothing else needs.
set -eu
cd -- "$(dirname -- "$0")/.."
. scripts/own_venv.sh
own_venv kubernetes ""
exec "$venv/bin/python" scripts/kubernetes_check.py "$@"
