"""Counters of many label values, which are cheap to count in and are rendered in pieces."""

from collections import defaultdict
from collections.abc import Collection, Container, Iterator
from itertools import chain, islice
from typing import Any

from prometheus_client.utils import floatToGoString

from extauth.telemetry.catalogue import Metric

PIECE_LINES = 250  # lines of a scrape that are rendered well within 5 ms
PIECE_CELLS = 2000  # series that are looked at well within a millisecond
MAX_STALE = 1000
OTHER = "other"


class Cell:
    """One series; add to `value`. Of that, `sampled` was read by `CounterTable.changes` or `take` before."""

    __slots__ = ("head", "sampled", "value")

    def __init__(self, head: str) -> None:
        self.head = head
        self.value = self.sampled = 0


_Cells = defaultdict[str, dict[tuple[str, ...], Cell]]
"""By domain, or by nothing where series have none."""


class CounterTable:
    """A counter in Prometheus' text format, whose series are made by `cell`.

    A reload of the rules makes all series stale, each until its cell is asked for again. Of the series that are still
    stale at the next reload, the newest MAX_STALE are kept.

    Each series is in one of three tables: `_asked` for since the latest reload, `_stale` since that, and `_kept` from
    earlier ones. All series of a domain can be forgotten, or all at all.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._labels = metric.labels
        self._domain_at = self._labels.index("domain") if "domain" in self._labels else None
        self._asked, self._stale, self._kept = _no_cells(), _no_cells(), _no_cells()
        self._forgotten = 0  # how often series were forgotten
        self._new: list[tuple[str, ...]] | None = None

    def cell(self, *values: str) -> Cell:
        """The series of these label values."""
        domain = self._domain(values)
        cell = self._asked[domain].get(values)
        if cell is None:
            cell = self._stale[domain].pop(values, None) or self._kept[domain].pop(values, None)
            if cell is None:
                labels = zip(self._labels, values, strict=True)
                pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
                cell = Cell(f"{self._metric.series}{{{pairs}}} ")
                if self._new is not None:
                    self._new.append(values)
            self._asked[domain][values] = cell
        return cell

    def age(self) -> list[dict[Any, Any]]:
        """Make the series stale, for other rules are in force: whoever holds a cell must ask for it again.

        Only series that nobody has asked for since the previous call may be forgotten. However many there are, this
        takes well below a millisecond: it returns tables that are no longer used, to be emptied bit by bit.
        """
        older = chain(reversed(self._stale.values()), reversed(self._kept.values()))
        newest = list(islice(chain.from_iterable(reversed(cells.items()) for cells in older), MAX_STALE))
        unused: list[dict[Any, Any]] = [*self._stale.values(), *self._kept.values()]
        self._kept = _no_cells()
        for values, cell in reversed(newest):
            self._kept[self._domain(values)][values] = cell
        self._stale, self._asked = self._asked, _no_cells()
        return unused

    def forget(self, domains: Collection[str] | None = None) -> list[dict[Any, Any]]:
        """Forget the series of these domains, or of all; whoever holds a cell must ask for it again.

        Takes well below a millisecond: it returns tables that are no longer used, to be emptied bit by bit.
        """
        self._forgotten += 1
        unused: list[dict[Any, Any]] = []
        for cells in (self._asked, self._stale, self._kept):
            if domains is None:
                wanted: list[str] = list(cells)
            elif len(domains) < len(cells):
                wanted = [domain for domain in domains if domain in cells]
            else:
                wanted = [domain for domain in cells if domain in domains]
            unused += map(cells.pop, wanted)
        return unused

    def _domain(self, values: tuple[str, ...]) -> str:
        return "" if self._domain_at is None else values[self._domain_at]

    def _find(self, values: tuple[str, ...]) -> Cell | None:
        domain = self._domain(values)
        for cells in (self._asked, self._stale, self._kept):
            cell = cells[domain].get(values) if domain in cells else None
            if cell is not None:
                return cell
        return None

    def _pieces(self, most: int) -> Iterator[list[tuple[tuple[str, ...], Cell]]]:
        """All series that there are now but those that are forgotten meanwhile, `most` at a time."""
        forgotten = self._forgotten
        cells = _each(self._kept, self._stale, self._asked)
        while piece := list(islice(cells, most)):
            yield piece if self._forgotten == forgotten else [each for each in piece if self._find(each[0]) is each[1]]

    def pieces(self, *, as_openmetrics: bool = False) -> Iterator[str]:
        """The text, in pieces of at most PIECE_LINES lines; OpenMetrics gives a counter a name without its suffix."""
        name = self._metric.name if as_openmetrics else self._metric.series
        yield f"# HELP {name} {self._metric.meaning}\n# TYPE {name} counter\n"
        for piece in self._pieces(PIECE_LINES):
            yield "".join([f"{cell.head}{_number(cell.value)}\n" for _, cell in piece])

    def value(self, *values: str) -> int:
        """What the series of these label values has counted."""
        cell = self._find(values)
        return 0 if cell is None else cell.value

    def new(self) -> Iterator[list[tuple[str, ...]]]:
        """The label values of the series that were made since this was called before, or of all the first time.

        In pieces that are quick to make, without those that are forgotten meanwhile.
        """
        new = iter(
            [values for values, _ in _each(self._kept, self._stale, self._asked)] if self._new is None else self._new
        )
        self._new = []
        while piece := list(islice(new, PIECE_CELLS)):
            yield [values for values in piece if self._find(values) is not None]

    def values(self) -> Iterator[list[tuple[tuple[str, ...], int]]]:
        """All series but those that are forgotten meanwhile, in pieces: (label values, value)."""
        for piece in self._pieces(PIECE_CELLS):
            yield [(values, cell.value) for values, cell in piece]

    def in_force(self) -> Iterator[list[tuple[tuple[str, ...], int]]]:
        """The series that were asked for since the rules were reloaded: (label values, value), in pieces.

        Each is of at most PIECE_LINES series, for there is more to look up about them.
        """
        cells = _each(self._asked)
        while piece := list(islice(cells, PIECE_LINES)):
            yield [(values, cell.value) for values, cell in piece if values in self._asked[self._domain(values)]]

    def changes(
        self, names: Container[tuple[str, ...]] | None = None
    ) -> Iterator[tuple[list[tuple[tuple[str, ...], int]], int]]:
        """The series that have changed since this was called before: (label values, by how much).

        With `names`, only of series with these label values; and by how much all others have changed together. In
        pieces, for each of which at most PIECE_CELLS series are looked at.
        """
        for piece in self._pieces(PIECE_CELLS):
            changed, others = [], 0
            for values, cell in piece:
                value = cell.value
                if value != cell.sampled:
                    if names is None or values in names:
                        changed.append((values, value - cell.sampled))
                    else:
                        others += value - cell.sampled
                    cell.sampled = value
            yield changed, others

    def others(self, names: Container[tuple[str, ...]]) -> Iterator[int]:
        """By how much the series without these label values have changed since they were read, in pieces."""
        for piece in self._pieces(PIECE_CELLS):
            others = 0
            for values, cell in piece:
                if cell.value != cell.sampled and values not in names:
                    others += cell.value - cell.sampled
                    cell.sampled = cell.value
            yield others

    def take(self, values: tuple[str, ...], most: int) -> int:
        """By how much a series has changed since it was read by `changes` or by this, but at most by `most`."""
        cell = self._find(values)
        taken = 0 if cell is None else min(cell.value - cell.sampled, most)
        if cell is not None:
            cell.sampled += taken
        return taken


def named_first(seen: set[str], value: str, most: int) -> str:
    """The value if it is one of the first `most` that were `seen`, else `other`."""
    if value not in seen:
        if len(seen) >= most:
            return OTHER
        seen.add(value)
    return value


def _no_cells() -> _Cells:
    return defaultdict(dict)


def _each(*tables: _Cells) -> Iterator[tuple[tuple[str, ...], Cell]]:
    """All series that there are now."""
    return iter(list(chain.from_iterable(cells.items() for table in tables for cells in table.values())))


def _number(value: int) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
