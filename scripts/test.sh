#!/usr/bin/env bash
# Asks as each of the shipped tiers and compares what came with what should: 3 requests without a key, 11 as free, 21 as
# premium, in turn to each of the API's routes, which share a caller's limit. Each is one more than the tier's burst, so
# the last of a fresh run is a 429. Exit code 1 where a tier misbehaves.
#
#   BASE_URL, FREE_KEY, PREMIUM_KEY   override where to ask, and with which keys
#
# A tier refills evenly, one request every (its window / its limit). So a run soon after another starts with less than
# a full burst, and a slow one gets more than a burst; x-ratelimit-remaining and -reset of the first answer tell how much.
# Written for bash 3.2, which is what macOS has, and for curl or, without it, Python 3.
set -euo pipefail

base_url=${BASE_URL:-http://localhost:8080}
routes=(/hello /orders /search)
table=
misbehaved=

now_ms() {
  if [[ -n ${EPOCHREALTIME-} ]]; then
    local us=${EPOCHREALTIME//[!0-9]/}
    echo $((us / 1000))
  else
    echo $(($(date +%s) * 1000))
  fi
}

# The first whole number of a header's value, empty where it is absent; the second argument picks what stands before it.
header() { # name [prefix]
  sed -nE "s/^$1: *${2-}([0-9]+).*/\1/p" <<<"$answer" | head -n 1
}

if command -v curl >/dev/null; then
  head_of() { # url [header]
    curl -sS -m 10 -o /dev/null -D - ${2+-H "$2"} "$1"
  }
else
  python=$(command -v python3 || command -v "$(dirname -- "$0")/../.venv/bin/python") || {
    echo "To ask, this needs curl or Python 3, and finds neither. Install one (Debian and Ubuntu: apt install curl)." >&2
    exit 1
  }
  head_of() {
    "$python" -c '
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
try:
    connection = connect(url.netloc, timeout=10)
    connection.request("GET", url.path, headers=dict(each.split(": ", 1) for each in sys.argv[2:]))
    answer = connection.getresponse()
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("HTTP/1.1", answer.status)
for name, value in answer.getheaders():
    print(name.lower() + ": " + value)
' "$@"
  }
fi

ask() { # path key
  answer=$(head_of "$base_url$1" ${2:+"x-api-key: $2"}) || {
    echo >&2
    echo "No answer from $base_url. Is it up? ./dev up" >&2
    exit 1
  }
  answer=${answer//$'\r'/}
  status=$(sed -nE '1s/^HTTP\/[0-9.]+ ([0-9]+).*/\1/p' <<<"$answer")
}

tier() { # name key limit-a-minute requests
  local name=$1 key=$2 limit=$3 count=$4
  local ok=0 denied=0 other=0 verdict=ok note=''
  local started elapsed_ms first told window left reset low high expected
  echo "$name: $limit a minute, $count requests"
  printf ' '
  started=$(now_ms)
  for ((n = 1; n <= count; n++)); do
    ask "${routes[n % ${#routes[@]}]}" "$key"
    printf ' %s' "$status"
    case $status in
      200) ok=$((ok + 1)) ;;
      429) denied=$((denied + 1)) ;;
      *) other=$((other + 1)) ;;
    esac
    if ((n == 1)); then
      first=$ok
      told=$(header x-ratelimit-limit)
      window=$(header x-ratelimit-limit '.*;w=')
      left=$(header x-ratelimit-remaining)
      reset=$(header x-ratelimit-reset)
    fi
  done
  echo
  elapsed_ms=$(($(now_ms) - started))
  [[ -n ${EPOCHREALTIME-} ]] || elapsed_ms=$((elapsed_ms + 1000)) # a clock of whole seconds

  if [[ -z $told || -z $left || -z $reset ]]; then
    expected=$limit verdict=BAD note="no x-ratelimit headers: is anything limiting?"
  elif ((told != limit || ${window:-60} != 60)); then
    expected=$limit verdict=BAD note="limited to $told in ${window:-?} s: was envoy/descriptors/api.yaml edited?"
  else
    if ((first == 1 && left == limit - 1)); then
      # It was full, so what came in addition was refilled since the first request.
      low=$limit high=$((limit + elapsed_ms * limit / 60000))
    else
      # The bucket is full again in reset seconds, rounded up: it held limit - reset/interval, or as much as a second
      # refills more.
      note="used before: $((first + left)) of $limit were left"
      low=$((first + (60 - reset > 0 ? (60 - reset) * limit / 60 : 0)))
      high=$((first + ((61 - reset) * 1000 + elapsed_ms) * limit / 60000))
    fi
    ((low <= count)) || low=$count
    ((high <= count)) || high=$count
    expected=$low
    ((low == high)) || expected="$low to $high"
    ((low <= ok && ok <= high)) || verdict=BAD
  fi
  if ((other > 0)); then verdict=BAD note="$other answered neither 200 nor 429"; fi
  [[ $verdict == ok ]] || misbehaved=1
  local row
  row=$(printf '%-10s %5d %5d %5d   %-13s %-4s %s' "$name" "$count" "$ok" "$denied" "$expected" "$verdict" "$note")
  table+="${row%"${row##*[! ]}"}"$'\n'
}

tier anonymous "" 2 3
tier free "${FREE_KEY:-free-tier-key}" 10 11
tier premium "${PREMIUM_KEY:-premium-tier-key}" 20 21

printf '\n%-10s %5s %5s %5s   %s\n%s' tier sent 200 429 "200s expected" "$table"
[[ -z $misbehaved ]]
