"""The metrics of a service of several workers: what each has counted, put together as the catalogue says."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import Any, Final, NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric as Family

from extauth.telemetry import catalogue
from extauth.telemetry.catalogue import DESCRIBED, Across, Kind
from extauth.telemetry.exposition import render
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.tables import CounterTable

PARENT: Final = "parent"

_COMBINE: Final[Mapping[Across, Callable[[float, float], float]]] = {
    Across.SUM: add,
    Across.LARGEST: max,
    Across.SMALLEST: min,
}
_INCIDENTS: Final = {
    catalogue.GUARD_TRIPS.name: "guards",
    catalogue.SHED_CALLS.name: "shed",
    catalogue.STORE_FAILURE_DECISIONS.name: "without_store",
}

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, Labels]
"""The names of a family and of a sample in it, and the sample's labels."""


class Changes(NamedTuple):
    """By how much some series of the `table`-th of the tables have changed."""

    table: int
    counts: Sequence[tuple[tuple[str, ...], int]]


def changes_of(metrics: Metrics) -> Iterator[Changes]:
    """What was counted in the tables since this was called before, in pieces that are quick to make; some are empty.

    Series that are new are among them, even those that have counted nothing yet.
    """
    for _ in metrics.before_rules():
        yield Changes(0, ())
    for i, table in enumerate(_tables(metrics)):
        for new in table.new():
            yield Changes(i, [(_plain(values), 0) for values in new])
        for changed, _ in table.changes():
            yield Changes(i, [(_plain(values), count) for values, count in changed])


def _tables(metrics: Metrics) -> tuple[CounterTable, ...]:
    return *metrics.tables, *metrics.others_tables


def _plain(values: tuple[str, ...]) -> tuple[str, ...]:
    """As plain strings, which some enumerations are not."""
    return tuple(map(str, values))


def samples_of(metrics: Metrics) -> Iterator[tuple[Key, float]]:
    """The values of all other metrics that are put together from those of several workers."""
    for family in metrics.registry.collect():
        metric = DESCRIBED.get(family.name)
        if metric is not None and metric.across is not Across.SAME:
            for sample in family.samples:
                labels = tuple((str(name), str(value)) for name, value in sample.labels.items())
                yield (family.name, sample.name, labels), float(sample.value)


class GatheredMetrics(Metrics):
    """Metrics of the parent, to which those of its workers are added.

    What a worker had counted when it was last asked stays after its end.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as Metrics
        super().__init__(*arguments, **options)
        self._all = _AllFamilies(self)
        self.families = self._all.collect

    def add(self, changes: Changes) -> None:
        """Add what a worker has counted in a table."""
        cell = _tables(self)[changes.table].cell
        for values, count in changes.counts:
            cell(*values).value += count

    def set(self, worker: int, samples: Iterable[tuple[Key, float]]) -> None:
        """Note the other values of a worker."""
        self._all.latest[worker] = dict(samples)

    def worker_began(self, worker: int, pid: int) -> None:
        """Show the process of a worker."""
        self._all.processes[str(worker)] = ProcessCollector(pid=lambda: pid, registry=None)

    def worker_ended(self, worker: int) -> None:
        """Keep what the worker has counted, and nothing else of it."""
        self._all.processes.pop(str(worker), None)
        self._all.of_processes.pop(str(worker), None)
        for key, value in self._all.latest.pop(worker, {}).items():
            if DESCRIBED[key[0]].kind is not Kind.GAUGE:
                self._all.ended[key] = self._all.ended.get(key, 0) + value

    def read_processes(self) -> Iterator[None]:
        """Read what the system knows of the processes, in steps."""
        for worker, collector in list(self._all.processes.items()):
            families = list(collector.collect())
            if worker in self._all.processes:
                self._all.of_processes[worker] = families
            yield

    def render(self, *, as_openmetrics: bool = False) -> Iterator[bytes]:
        """As Metrics.render."""
        yield from render(self._all, self.tables, as_openmetrics=as_openmetrics)

    def incidents(self) -> dict[str, dict[str, int]]:
        """As Metrics.incidents."""
        found: dict[str, dict[str, int]] = {name: {} for name in _INCIDENTS.values()}
        for (family, _, labels), value in self._all.values().items():
            if family in _INCIDENTS and labels:
                found[_INCIDENTS[family]][labels[0][1]] = int(value)
        return found


class _AllFamilies:
    """The families of the parent and those of its workers, as a registry has them."""

    def __init__(self, metrics: Metrics) -> None:
        self.latest: dict[int, Mapping[Key, float]] = {}
        self.ended: dict[Key, float] = {}
        self.processes = {PARENT: ProcessCollector(registry=None)}
        self.of_processes: dict[str, list[Family]] = {}
        self._registry = metrics.registry

    def values(self) -> dict[Key, float]:
        """The samples of all workers together."""
        values = dict(self.ended)
        for samples in self.latest.values():
            for key, value in samples.items():
                known = values.get(key)
                values[key] = value if known is None else _COMBINE[DESCRIBED[key[0]].across](known, value)
        return values

    def collect(self) -> Iterator[Family]:
        """As CollectorRegistry.collect."""
        for family in self._registry.collect():
            metric = DESCRIBED.get(family.name)
            if metric is not None and metric.across is Across.SAME:
                yield family
        families: dict[str, Family] = {}
        for (name, sample, labels), value in self.values().items():
            metric = DESCRIBED[name]
            family = families.setdefault(name, Family(name, metric.meaning, str(metric.kind)))
            family.add_sample(sample, dict(labels), value)
        yield from families.values()
        yield from self._processes()

    def _processes(self) -> Iterable[Family]:
        """The metrics of each process, by the label `worker`."""
        families: dict[str, Family] = {}
        for worker, told in self.of_processes.items():
            for family in told:
                known = families.setdefault(family.name, Family(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        return families.values()
