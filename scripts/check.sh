#!/bin/sh
# Every static check, each whether or not the ones before it passed. A tool that this machine lacks is named and passed
# over; where CI=true that fails.
set -eu
cd -- "$(dirname -- "$0")/.."
PATH=$PWD/.venv/bin:$PATH
failed=

step() { # name command…
  name=$1
  shift
  printf '== %s\n' "$name"
  "$@" || failed="$failed\n  $name"
}

lacks() { # tool what-for
  printf '== %s: SKIPPED, no %s here\n' "$2" "$1"
  if [ "${CI-}" = true ]; then failed="$failed\n  $2 (no $1)"; fi
}

have() { # tool what-for
  command -v "$1" >/dev/null && return
  lacks "$1" "$2"
  return 1
}

validate_envoy() { (cd "envoy/$1" && "$envoy" --mode validate -c ../envoy.yaml --log-level error); }

step "ruff check" ruff check
step "ruff format" ruff format --check
step mypy mypy extauth scripts services tests observability adversary chaos simulation bench fuzz
step import-linter lint-imports --no-logo
step shellcheck shellcheck dev .ci/run scripts/*.sh requirements/*.sh deploy/image/ratelimit

envoy=$(python -c 'from scripts.stack import programs; print(programs.envoy())')
for mode in local compose; do
  step "envoy, $mode" validate_envoy "$mode"
done
step "envoy, examples/usage" "$envoy" --mode validate -c examples/usage/envoy.yaml --log-level error
step "envoy, extauth init" "$envoy" --mode validate -c extauth/commands/starter/envoy.yaml --log-level error
step "config, extauth init" extauth validate --strict extauth/commands/starter/descriptors

if have promtool "prometheus configuration"; then
  step "prometheus configuration" promtool check config --syntax-only observability/prometheus.yml
  step "alert rules" promtool test rules observability/tests/*.yml
fi

if have helm "deploy/"; then
  step deploy/ scripts/kubernetes.sh
fi

# Reads the file alone: no engine is asked.
if [ "${EXTAUTH_COMPOSE-}" = 0 ]; then
  printf '== compose.yml: SKIPPED, EXTAUTH_COMPOSE=0\n'
elif have docker compose.yml; then
  if docker compose version >/dev/null 2>&1; then
    step compose.yml docker compose config --quiet
  else
    lacks "Compose v2 in docker" compose.yml
  fi
fi

[ -z "$failed" ] || { printf '\nFailed:%b\n' "$failed" >&2 && exit 1; }
printf '\nAll checks passed.\n'
