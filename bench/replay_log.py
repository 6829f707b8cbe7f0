"""`python -m bench.replay_log LINES FILE`: an access log as envoy.yaml writes it, of many callers over half an hour."""

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

CALLERS = 10_000
MINUTES = 30
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATHS = ("/hello", "/orders", "/search", "/")


def write_log(out: TextIO, lines: int) -> None:
    """Write the lines; a tenth of the requests have a key, of which the shipped config knows none."""
    chance = random.Random(lines)
    for number in range(lines):
        at = BEGIN + timedelta(minutes=MINUTES) * (number / lines)
        caller = int(chance.paretovariate(0.5)) % CALLERS  # a few send much
        path = PATHS[chance.randrange(len(PATHS))]
        key = [{"entries": [["api_key", None, f"{caller:016x}"]]}] if caller % 10 == 0 else []
        address = {"entries": [["masked_remote_address", f"10.0.{caller >> 8}.{caller & 255}/32"]]}
        asked = {"domain": "api", "descriptors": [*key, address, {"entries": [["path", path]]}]}
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": f"{number:08x}-7d5c-4c1b-9a37-0c0ffee0beef",
            "client": f"10.0.{caller >> 8}.{caller & 255}",
            "method": "GET",
            "path": path,
            "protocol": "HTTP/1.1",
            "status": 200,
            "details": "via_upstream",
            "flags": "-",
            "tier": "anonymous",
            "limit": '2, 2;w=60;name="anonymous"',
            "ratelimit": asked,
            "duration_ms": chance.randrange(200),
            "bytes_in": 0,
            "bytes_out": 312,
            "upstream": "10.1.2.3:8090",
            "user_agent": "curl/8.5.0",
        }
        out.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with Path(sys.argv[2]).open("w") as out:
        write_log(out, int(sys.argv[1]))
