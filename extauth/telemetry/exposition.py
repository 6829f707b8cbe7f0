"""The text that Prometheus scrapes: in its own format or in OpenMetrics, in steps."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client import generate_latest, openmetrics
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from extauth.telemetry.tables import CounterTable

TEXT_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0
OPENMETRICS_TYPE: Final = CONTENT_TYPE_LATEST

_END: Final = b"# EOF\n"
_VERSIONS: Final = re.compile(r"0\..*|1\..*")  # a scraper of 0.0.1 reads 1.0.0, too
_RANGE: Final = re.compile(r"\s*([\w.+*-]+/[\w.+*-]+)\s*((?:;[^,]*)?)")
_PARAMETER: Final = re.compile(r';\s*(\w+)\s*=\s*"?([^;"\s]*)"?')


class Registry(Protocol):
    """As CollectorRegistry."""

    def collect(self) -> Iterable[Family]:
        """All families."""
        ...


class _Only:
    """A registry of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        """As CollectorRegistry.collect."""
        return (self._family,)


def prefers_openmetrics(accept: str) -> bool:
    """Whether a request with this Accept header gets OpenMetrics: it must name that, and not prefer text.

    Source: RFC 9110 §12.5.1.
    """
    qualities = {"openmetrics": 0.0, "text": 0.0}
    for item in accept.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            continue
        parameters = dict(_PARAMETER.findall(match[2].lower()))
        quality = _quality(parameters.get("q", "1"))
        kind = match[1].lower()
        if kind == "application/openmetrics-text" and _VERSIONS.fullmatch(parameters.get("version", "1.0.0")):
            qualities["openmetrics"] = max(qualities["openmetrics"], quality)
        elif kind in {"text/plain", "text/*", "*/*"}:
            qualities["text"] = max(qualities["text"], quality)
    return qualities["openmetrics"] > 0 and qualities["openmetrics"] >= qualities["text"]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def render(registry: Registry, tables: Iterable[CounterTable], *, as_openmetrics: bool) -> Iterator[bytes]:
    """The text, in pieces of a family, or of some lines of a table; each takes well below a millisecond."""
    for family in registry.collect():
        if as_openmetrics:
            yield openmetrics.exposition.generate_latest(_Only(family)).removesuffix(_END)  # type: ignore[no-untyped-call]
        else:
            yield generate_latest(_Only(family))
    for table in tables:
        yield from map(str.encode, table.pieces(as_openmetrics=as_openmetrics))
    if as_openmetrics:
        yield _END
