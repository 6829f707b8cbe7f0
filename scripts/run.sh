#!/bin/sh
# run.sh up [local | docker [SERVICE…]] | down | status | logs [-f] [PART…]: the stack, in containers or as processes.
set -eu
cd -- "$(dirname -- "$0")/.."

say() { printf '%s\n' "$@"; }
fail() { printf '%s\n' "$*" >&2 && exit 1; }

engine_answers() { command -v docker >/dev/null && docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; }
runs_local() { ls .run/*.pid >/dev/null 2>&1; }
runs_docker() { engine_answers && [ -n "$(docker compose ps --all --quiet 2>/dev/null)" ]; }
stack() { ./dev --venv && .venv/bin/python -m scripts.stack "$@"; }

up_docker() {
  ! runs_local || fail "The local stack runs, and holds the same ports. Stop it first: ./dev down"
  docker compose up --build --detach --wait "$@" || {
    if ! runs_docker; then fail "
Docker started nothing; its reason is above. The same stack as local processes: ./dev up local"; fi
    say "" "Not everything came up. The last words of extauth and Envoy (more: ./dev logs):" >&2
    docker compose logs --no-log-prefix --tail 3 extauth envoy >&2
    return 1
  }
  say ""
  case " $* " in "  " | *" envoy "*) say "API:        http://localhost:8080    try: curl -i http://localhost:8080/hello   ./scripts/test.sh" ;; esac
  case " $* " in "  " | *" extauth "*) say "Who is limited, live: http://localhost:6070 (the second replica: 6071)" ;; esac
  case " $* " in "  " | *" prometheus "*) say "Prometheus: http://localhost:9090" ;; esac
  case " $* " in "  " | *" grafana "*) say "Grafana:    http://localhost:3000" ;; esac
  say "Stop:       ./dev down"
}

up() {
  case ${1-} in
    local)
      [ $# -eq 1 ] || fail "up local takes no more words"
      stack up ;;
    docker)
      shift
      engine_answers || fail "No Docker engine with Compose v2 answers (docker info; docker compose version). Without: ./dev up local"
      up_docker "$@" ;;
    "")
      if engine_answers; then
        up_docker
      else
        say "No Docker engine with Compose v2 answers: starting local processes."
        stack up
      fi ;;
    *) fail "up: nothing, 'local' or 'docker [SERVICE…]', not '$1'" ;;
  esac
}

down() {
  stopped=
  if runs_local; then stack down && stopped=1; fi
  if runs_docker; then docker compose down && stopped=1; fi
  [ -n "$stopped" ] || say "Nothing runs."
}

status() {
  if runs_local; then
    stack status
  elif runs_docker; then
    docker compose ps --all
  else
    say "Nothing runs. Start with: ./dev up"
    return 1
  fi
}

logs() {
  if runs_local || ! runs_docker; then
    stack logs "$@"
  else
    docker compose logs --tail 20 "$@"
  fi
}

command=${1-}
case $command in
  up | down | status | logs)
    shift
    "$command" "$@" ;;
  *) fail "run.sh up|down|status|logs" ;;
esac
