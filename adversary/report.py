"""What came of a hostile client."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import median

MAX_RSS_MB = 200


@dataclass(frozen=True)
class Row:
    """One round of one client, or several as one; times in milliseconds.

    `passed` are requests of callers without room that were let through, the hostile one's own among them; `failed`
    those of a caller with room that were not, and those of any honest caller without an answer. `timeouts` and
    `overflows` are Envoy's own counts for extauth's cluster: calls that got no answer in the filter's timeout, and
    those that it did not even send. `errors` are all calls that failed for its filter, on a connection that ended for
    example, `allowed` the requests that it let through therefore. `shed` are the calls that extauth answered by its
    failure policy, the hostile client's among them. `worst` is the largest `surplus` of several rounds: of `passed` or
    `failed`, what timeouts and overflows do not explain.
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
    worst: float = 0

    @property
    def surplus(self) -> float:
        """What nothing explains, of this round or of the worst one."""
        return max(self.passed - self.explained, self.failed - self.explained, self.worst, 0)

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


def summary(rounds: Sequence[Row]) -> Row:
    """One row of several: their medians, but the largest `rss_mb` and `worst`, as these may not be in any round."""
    middle = {name: float(median(getattr(row, name) for row in rounds)) for name in COLUMNS}
    row = Row(rounds[0].client, **middle)
    return replace(row, rss_mb=max(each.rss_mb for each in rounds), worst=max(each.surplus for each in rounds))


def table(rows: Sequence[Row]) -> str:
    """All rows under a heading."""
    return "\n".join((HEADING, *map(str, rows)))


def wrong(rows: Sequence[Row], *, strict: bool) -> list[str]:
    """What must not be; `strict`: in the median of the rounds, what Envoy's own counters explain must not either."""
    found = []
    for row in rows:
        if not row.sent or not row.asked:
            found.append(f"{row.client}: {row.sent:.0f} sent and {row.asked:.0f} asked beside it, which shows nothing")
        if row.surplus:
            found.append(f"{row.client}: in a round {row.surplus:.0f} requests passed or failed without explanation")
        if strict and row.passed:
            found.append(f"{row.client}: {row.passed:.0f} requests passed without room")
        if strict and row.failed:
            found.append(f"{row.client}: {row.failed:.0f} requests failed that had room")
        if row.rss_mb > MAX_RSS_MB:
            found.append(f"{row.client}: extauth grew to {row.rss_mb:.0f} MB")
    return found
