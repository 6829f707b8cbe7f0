"""`python -m bench.replay [LINES]`: what `extauth replay` costs for a log of so many lines, a million by default.

The log is as envoy.yaml writes it: 10,000 callers over half an hour, some of whom send much; a tenth has a key.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from extauth.rules.masking import Masking

ROOT = Path(__file__).resolve().parents[1]
CALLERS = 10_000
MINUTES = 30
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATHS = ("/hello", "/orders", "/search", "/")
KEYS = [Masking().hashed(key) for key in ("free-tier-key", "premium-tier-key", *map(str, range(1000)))]
CONFIGS = {
    "one config": ["--config", "envoy/descriptors"],
    "two configs": ["--config", "examples/replay/descriptors.yaml", "--config-before", "envoy/descriptors"],
}


def write_log(out: TextIO, lines: int) -> None:
    """Write a log."""
    chance = random.Random(lines)
    for number in range(lines):
        at = BEGIN + timedelta(minutes=MINUTES) * (number / lines)
        caller = int(chance.paretovariate(0.3)) % CALLERS
        address, path = f"10.0.{caller >> 8}.{caller & 255}", PATHS[chance.randrange(len(PATHS))]
        key = [{"entries": [["api_key", None, KEYS[caller % len(KEYS)]]]}] if caller % 10 == 0 else []
        entries = [["masked_remote_address", f"{address}/32"]], [["path", path]]
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": f"{number:08x}-7d5c-4c1b-9a37-0c0ffee0beef",
            "client": address,
            "method": "GET",
            "path": path,
            "protocol": "HTTP/1.1",
            "status": 200,
            "details": "via_upstream",
            "flags": "-",
            "tier": "anonymous",
            "limit": '2, 2;w=60;name="anonymous"',
            "ratelimit": {"domain": "api", "descriptors": [*key, *({"entries": each} for each in entries)]},
            "duration_ms": chance.randrange(200),
            "bytes_in": 0,
            "bytes_out": 312,
            "upstream": "10.1.2.3:8090",
            "user_agent": "curl/8.5.0",
        }
        out.write(json.dumps(line, separators=(",", ":")) + "\n")


def measure(log: Path, arguments: list[str]) -> tuple[dict[str, int], float]:
    """What the log would have met, and the CPU seconds that this took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-m", "extauth", "replay", "--json", *arguments, str(log)]
    view = json.loads(subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {name: view["after"][name] for name in ("allowed", "denied")}, cpu_s


def main() -> None:
    """Measure."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.log"
        with log.open("w") as out:
            write_log(out, lines)
        print(f"{lines} lines, {log.stat().st_size / 1e6:.0f} MB")
        for name, arguments in CONFIGS.items():
            counts, cpu_s = measure(log, arguments)
            print(f"{name}: {cpu_s:.1f} s of CPU; {counts['allowed']} allowed, {counts['denied']} denied")
    # Kilobytes on Linux, bytes on macOS.
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"at most {largest:.0f} MB of memory")


if __name__ == "__main__":
    main()
