"""Traffic whose every count is known, through Envoy."""

import http.client
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

RULES = """
domain: api
labels: [path]
algorithm: fixed_window
tiers:
  steady: { unit: year, requests_per_unit: 100000 }
  used_up: { unit: year, requests_per_unit: 5 }
  near: { unit: year, requests_per_unit: 1000 }
descriptors:
  - { key: api_key, value: steady-key, tier: steady }
  - { key: api_key, value: used-up-key, tier: used_up }
  - { key: api_key, value: near-key, tier: near }
  - { key: api_key, value: shadowed-key, rate_limit: { unit: year, requests_per_unit: 3 }, shadow_mode: true }
"""
SETTINGS = {
    # So that `near` is near its limit from its 11th call on, `used_up` and `shadowed` as long as their calls fit.
    "EXTAUTH_NEAR_LIMIT_RATIO": "0.01",
    # Of a machine that stalls for a moment, no call may be counted without Redis.
    "EXTAUTH_REDIS_TIMEOUT": "10",
}
EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who asks for one path again and again; of their calls the first `limit` fit, from `near` on near it."""

    key: str | None
    path: str
    tier: str = "none"
    limit: int = 100_000
    near: int = 100_000
    denied: bool = True


STEADY = Caller(key="steady-key", path="/hello", tier="steady", near=1001)
USED_UP = Caller(key="used-up-key", path="/hello", tier="used_up", limit=5, near=1)
NEAR = Caller(key="near-key", path="/orders", tier="near", limit=1000, near=11)
SHADOWED = Caller(key="shadowed-key", path="/search", limit=3, near=1, denied=False)
KEYLESS = Caller(key=None, path="/")  # no rule matches
CALLERS = (STEADY, USED_UP, NEAR, SHADOWED, KEYLESS)


@dataclass(frozen=True, slots=True)
class Event:
    """A call that was answered at a Unix time, the `number`-th of its caller."""

    at: float
    caller: Caller
    number: int

    @property
    def over(self) -> bool:
        """Whether the rule's limit had no room for it."""
        return self.number > self.caller.limit

    @property
    def near(self) -> bool:
        """Whether it fitted and left the counter near its limit."""
        return not self.over and self.number >= self.caller.near

    @property
    def denied(self) -> bool:
        """Whether it got 429."""
        return self.over and self.caller.denied


class Traffic:
    """What was sent to the edge at `port`, a call after the other on one connection."""

    def __init__(self, port: int) -> None:
        self.events: list[Event] = []
        self.wrong: list[str] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._calls = dict.fromkeys(CALLERS, 0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, callers: Iterable[Caller] = CALLERS) -> None:
        """One call of each caller."""
        for caller in callers:
            self._calls[caller] += 1
            self._connection.request("GET", caller.path, headers={"x-api-key": caller.key} if caller.key else {})
            response = self._connection.getresponse()
            response.read()
            event = Event(time.time(), caller, self._calls[caller])
            if response.status != (429 if event.denied else 200):
                self.wrong.append(f"{event} got {response.status}")
            self.events.append(event)

    def within(self, first: float, last: float) -> Sequence[Event]:
        """What was answered between two Unix times."""
        return [event for event in list(self.events) if first < event.at <= last]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send a call of each caller every EVERY_S, at a steady pace."""
        stopped = threading.Event()

        def flow() -> None:
            began = time.monotonic()
            rounds = 0
            while not stopped.wait(max(0.0, began + rounds * EVERY_S - time.monotonic())):
                self.send()
                rounds += 1

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
