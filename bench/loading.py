"""How long reading a config takes, compiling it included."""

import time
from dataclasses import dataclass

from extauth.config.merge import load_rules
from extauth.rules.matcher import Matcher

SIZES = {10_000: 1.0, 100_000: 10.0}
"""Rules → the seconds that they may take."""


@dataclass(frozen=True)
class Loading:
    """Seconds by number of rules."""

    seconds: dict[int, float]


def loading() -> Loading:
    """Read files of API keys that each name a tier."""
    seconds = {}
    for size in SIZES:
        rules = "".join(f"  - {{key: api_key, value: key-{i:08d}-abcdef, tier: free}}\n" for i in range(size))
        text = f"domain: api\ntiers: {{free: {{unit: minute, requests_per_unit: 10}}}}\ndescriptors:\n{rules}"
        begin = time.perf_counter()
        matcher = Matcher(load_rules({"api.yaml": text}))
        seconds[size] = time.perf_counter() - begin
        if matcher.size != size:
            raise SystemExit(f"{matcher.size} rules were read instead of {size}")
    return Loading(seconds)
