"""What came of a hostile client."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median

MAX_RSS_MB = 200


@dataclass(frozen=True)
class Row:
    """One round of one client, or the medians of several; times in milliseconds.

    `passed` are requests of callers without room that were let through, the hostile one's own among them; `failed`
    those of a caller with room that were not. `timeouts` and `overflows` are Envoy's own counts for extauth's cluster:
    calls that got no answer in the filter's timeout, and those that it did not even send.
    """

    client: str
    sent: float
    asked: float
    passed: float
    failed: float
    timeouts: float
    overflows: float
    p99_ms: float
    alone_ms: float
    rss_mb: float

    @property
    def explained(self) -> float:
        """Requests that Envoy's counters account for."""
        return self.timeouts + self.overflows

    def __str__(self) -> str:
        return (
            f"{self.client:<16}{self.sent:>9.0f}{self.asked:>8.0f}{self.passed:>8.0f}{self.failed:>8.0f}"
            f"{self.timeouts:>10.0f}{self.overflows:>10.0f}{self.p99_ms:>9.1f}{self.alone_ms:>9.1f}{self.rss_mb:>8.0f}"
        )


HEADING = (
    f"{'client':<16}{'sent':>9}{'asked':>8}{'passed':>8}{'failed':>8}{'timeouts':>10}{'overflow':>10}"
    f"{'p99 ms':>9}{'alone':>9}{'RSS MB':>8}"
)


def medians(rounds: Sequence[Row]) -> Row:
    """One row of several."""
    names = [each.name for each in fields(Row) if each.name != "client"]
    return Row(rounds[0].client, *(float(median(getattr(row, name) for row in rounds)) for name in names))


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
