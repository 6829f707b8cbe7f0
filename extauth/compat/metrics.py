"""Metrics under envoyproxy/ratelimit's names, made from what is counted when they are asked for."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from extauth.compat import names
from extauth.compat.hits import Stat
from extauth.telemetry import catalogue
from extauth.telemetry.exposition import TEXT_TYPE
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.tables import PIECE_LINES, CounterTable

_PREFIX: Final = "ratelimit_service_"
_METHOD: Final = 'grpc_method="ShouldRateLimit"'
_MEANINGS: Final = {
    Stat.TOTAL_HITS: "Hits that a rule's limits were asked about.",
    Stat.WITHIN_LIMIT: "Hits of calls that were within a rule's limits.",
    Stat.OVER_LIMIT: "Hits over a rule's limits, denied or not.",
    Stat.NEAR_LIMIT: "Hits up to a rule's limits that left a counter above NEAR_LIMIT_RATIO of its limit.",
    Stat.SHADOW_MODE: "Hits over the limits of rules in shadow mode.",
}


class Totals(NamedTuple):
    """What was counted since the start, all calls together.

    `buckets` are (upper bound in seconds as Prometheus writes it, calls up to it).
    """

    requests: int = 0
    seconds: float = 0.0
    buckets: tuple[tuple[str, int], ...] = ()
    redis_errors: int = 0
    service_errors: int = 0
    config_loads: int = 0
    config_errors: int = 0


class ReferenceMetrics:
    """The metrics that envoyproxy/ratelimit has, from `metrics`, and from `hits`, which ReferenceHits counts.

    `loaded` says whether there were rules to begin with, which no reload counts.
    """

    def __init__(self, metrics: Metrics, hits: CounterTable, *, loaded: bool = True) -> None:
        self.hits = hits
        self._loaded = int(loaded)
        self._metrics = metrics
        metrics.others_tables.append(hits)

    def scrape(self, accept: str = "") -> tuple[str, Iterator[bytes]]:
        """The content type and the text that Prometheus scrapes, in pieces, some of which are empty.

        It is text whatever a scraper prefers: in OpenMetrics each counter's name ends in `_total`.
        """
        return TEXT_TYPE, self._render()

    def stats(self) -> Iterator[list[tuple[str, int]]]:
        """All counters by their names in statsd, in pieces."""
        yield list(self.service_stats(self.totals()))
        for piece in self.hits.values():
            yield [(names.statsd_name(*values), value) for values, value in piece if value]

    @staticmethod
    def service_stats(totals: Totals) -> Iterator[tuple[str, int]]:
        """The counters that are of no rule by their names in statsd, except for those that are 0."""
        for name, value in (
            (names.REQUESTS, totals.requests),
            (f"{names.ERRORS}.redis_error", totals.redis_errors),
            (f"{names.ERRORS}.service_error", totals.service_errors),
            (f"{names.CONFIG_LOAD}_success", totals.config_loads),
            (f"{names.CONFIG_LOAD}_error", totals.config_errors),
        ):
            if value:
                yield name, value

    def totals(self) -> Totals:
        """What was counted of all rules together."""
        return _totals(self._metrics.families(), self._loaded)

    def _render(self) -> Iterator[bytes]:
        families = list(self._metrics.families())
        yield from self._of_rules()
        yield from self._of_service(_totals(families, self._loaded))
        for family in families:
            if family.name.startswith("process_"):
                yield generate_latest(_Only(family))

    def _of_rules(self) -> Iterator[bytes]:
        sums: dict[Stat, dict[str, int]] = {stat: {} for stat in names.SHOWN}
        for piece in self.hits.values():
            for at in range(0, len(piece), PIECE_LINES):
                for (domain, rule, stat), value in piece[at : at + PIECE_LINES]:
                    found = sums.get(Stat(stat))
                    if found is not None and value:
                        labels = names.labels(domain, rule)
                        found[labels] = found.get(labels, 0) + value
                yield b""
        for stat, found in sums.items():
            name = f"{_PREFIX}rate_limit_{stat}"
            if found:
                yield _head(name, _MEANINGS[stat], "counter")
            lines = list(found.items())
            for at in range(0, len(lines), PIECE_LINES):
                piece_lines = lines[at : at + PIECE_LINES]
                yield "".join([f"{name}{{{labels}}} {_number(value)}\n" for labels, value in piece_lines]).encode()

    def _of_service(self, totals: Totals) -> Iterator[bytes]:
        yield from _counter("config_load_success", "Rules that were put in force.", {"": totals.config_loads})
        yield from _counter("config_load_error", "Rules that were not.", {"": totals.config_errors})
        errors = {'err_type="redis_error"': totals.redis_errors, 'err_type="service_error"': totals.service_errors}
        yield from _counter("should_rate_limit_error", "Calls that could not be decided as usual.", errors)
        if not totals.requests:
            return
        yield from _counter("total_requests", "Calls.", {_METHOD: totals.requests})
        name = f"{_PREFIX}response_time_seconds"
        yield _head(name, "The time from a call's arrival to its answer.", "histogram")
        for bound, calls in totals.buckets:
            yield f'{name}_bucket{{{_METHOD},le="{bound}"}} {calls}\n'.encode()
        yield f"{name}_sum{{{_METHOD}}} {_number(totals.seconds)}\n".encode()
        yield f"{name}_count{{{_METHOD}}} {totals.requests}\n".encode()


class _Only:
    """A registry of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return (self._family,)


def _totals(families: Iterable[Family], loads: int) -> Totals:
    totals = Totals(config_loads=loads)
    for family in families:
        match family.name:
            case catalogue.DECISION_DURATION.name:
                values = {sample.name.removeprefix(family.name): sample.value for sample in family.samples}
                buckets = tuple(
                    (str(sample.labels["le"]), int(sample.value)) for sample in family.samples if "le" in sample.labels
                )
                totals = totals._replace(
                    requests=int(values.get("_count", 0)), seconds=values.get("_sum", 0.0), buckets=buckets
                )
            case catalogue.STORE_FAILURE_DECISIONS.name:
                totals = totals._replace(redis_errors=_sum(family))
            case catalogue.GUARD_TRIPS.name:
                totals = totals._replace(service_errors=_sum(family, guard="invalid_call"))
            case catalogue.CONFIG_RELOADS.name:
                loaded = totals.config_loads + _sum(family, outcome="ok")
                totals = totals._replace(config_loads=loaded, config_errors=_sum(family, outcome="error"))
    return totals


def _sum(family: Family, **labels: str) -> int:
    return int(
        sum(
            sample.value
            for sample in family.samples
            if not sample.name.endswith("_created") and labels.items() <= dict(sample.labels).items()
        )
    )


def _counter(name: str, meaning: str, values: dict[str, int]) -> Iterator[bytes]:
    """A counter, of which only those series are shown that have counted anything, as there."""
    lines = [
        f"{_PREFIX}{name}{f'{{{labels}}}' if labels else ''} {_number(value)}\n"
        for labels, value in values.items()
        if value
    ]
    if lines:
        yield _head(_PREFIX + name, meaning, "counter") + "".join(lines).encode()


def _head(name: str, meaning: str, kind: str) -> bytes:
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n".encode()


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
