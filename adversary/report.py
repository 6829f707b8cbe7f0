"""What came of a hostile client."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median

MAX_RSS_MB = 200


@dataclass(frozen=True)
class Row:
    """One round of one client, or the medians of several; times in milliseconds.

    `passed` are requests of callers without room that were let through, the hostile one's own among them; `failed`
    those of a caller with room that were not, and those of any honest caller without an answer. `timeouts` and
    `overflows` are Envoy's own counts for extauth's cluster: calls that got no answer in the filter's timeout, and
    those that it did not even send. `errors` are all calls that failed for its filter, on a connection that ended for
    example, `allowed` the requests that it let through therefore. `shed` are the calls that extauth answered by its
    failure policy, the hostile client's among them.
    """

    client: str
    sent: float
    asked: float
    passed: float
    failed: float
    timeouts: float
    overflows: float
    errors: float
    allowed: float
    shed: float
    p99_ms: float
    alone_ms: float
    rss_mb: float

    @property
    def explained(self) -> float:
        """Requests that Envoy's counters account for."""
        return self.timeouts + self.overflows

    def __str__(self) -> str:
        numbers = (getattr(self, name) for name in COLUMNS)
        digits = (1 if name.endswith("_ms") else 0 for name in COLUMNS)
        return f"{self.client:<16}" + "".join(f"{number:>9.{n}f}" for number, n in zip(numbers, digits, strict=True))


COLUMNS = tuple(each.name for each in fields(Row) if each.name != "client")
HEADING = f"{'client':<16}" + "".join(f"{name:>9}" for name in COLUMNS)


def medians(rounds: Sequence[Row]) -> Row:
    """One row of several."""
    return Row(rounds[0].client, **{name: float(median(getattr(row, name) for row in rounds)) for name in COLUMNS})


def table(rows: Sequence[Row]) -> str:
    """All rows under a heading."""
    return "\n".join((HEADING, *map(str, rows)))


def wrong(rows: Sequence[Row], *, strict: bool) -> list[str]:
    """What must not be; `strict`: what Envoy's own counters explain must not either."""
    found = []
    for row in rows:
        explained = 0 if strict else row.explained
        if row.passed > explained:
            found.append(
                f"{row.client}: {row.passed:.0f} requests passed without room, {explained:.0f} of them explained"
            )
        if row.failed > explained:
            found.append(
                f"{row.client}: {row.failed:.0f} requests failed that had room, {explained:.0f} of them explained"
            )
        if row.rss_mb > MAX_RSS_MB:
            found.append(f"{row.client}: extauth grew to {row.rss_mb:.0f} MB")
    return found
