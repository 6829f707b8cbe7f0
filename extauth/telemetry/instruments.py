"""Makes prometheus-client's instruments from the catalogue, and adds two kinds that it does not have."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from extauth.telemetry.catalogue import Metric


def counter(metric: Metric, registry: CollectorRegistry, values: Iterable[str] = ()) -> Counter:
    """A counter; of one with a label, the series of these `values` begin with 0."""
    made = Counter(metric.name, metric.meaning, metric.labels, registry=registry)
    for value in values:
        made.labels(value)
    return made


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """A gauge."""
    return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)


class Computed(Collector):
    """A counter whose value is counted elsewhere and read by `value`."""

    def __init__(self, metric: Metric, value: Callable[[], int], registry: CollectorRegistry) -> None:
        self._metric = metric
        self._value = value
        registry.register(self)

    def collect(self) -> Iterator[Family]:
        """As Collector.collect."""
        yield CounterMetricFamily(self._metric.name, self._metric.meaning, self._value())


class Histogram(Collector):
    """A histogram that takes many equal observations at once, as prometheus-client's own does not."""

    def __init__(self, metric: Metric, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._metric = metric
        self._buckets = (*buckets, float("inf"))
        self._counts = [0] * len(self._buckets)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`."""
        self._counts[bisect_left(self._buckets, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[Family]:
        """As Collector.collect."""
        buckets = zip(map(floatToGoString, self._buckets), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self._metric.name, self._metric.meaning, list(buckets), self._sum)
