"""The admin HTTP server."""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from extauth.admin.encoding import compress
from extauth.admin.explain import BODY_BYTES, Explainer
from extauth.admin.http import CHECK_S, HttpServer
from extauth.admin.live import LiveStreams
from extauth.admin.page import page
from extauth.admin.routes import JSON, Answer, Audience, MadeLater, Request, Route


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of `/readyz`: 200 if `ready`, else 503, with `detail` as JSON."""

    ready: bool
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LivePage:
    """What the page at `/` needs: the streams of `/live`, and what explains at `/explain`."""

    streams: LiveStreams
    explainer: Explainer


class Later:
    """The body of an answer that is a text which must be waited for."""

    def __init__(self, make: Callable[[], Awaitable[Iterator[str]]]) -> None:
        self._make: Callable[[], Awaitable[Iterator[str]]] | None = make

    async def next(self) -> Iterator[bytes] | None:
        """The text, the first time."""
        make, self._make = self._make, None
        return None if make is None else map(str.encode, await make())

    def close(self) -> None:
        """Nothing is held."""


def metrics_route(
    metrics: Callable[[str], tuple[str, Iterator[bytes]]], gather: Callable[[], Awaitable[None]] | None
) -> Route:
    """How metrics are served; `gather`, if given, is awaited before they are made."""

    def make(request: Request) -> Answer:
        content_type, pieces = metrics(request.accept)
        return compress(Answer(pieces, content_type, headers=[("Vary", "Accept")]), request)

    def answer(request: Request) -> Answer | MadeLater:
        async def later() -> Answer:
            assert gather is not None  # noqa: S101
            await gather()
            return make(request)

        return make(request) if gather is None else later

    return Route(answer, Audience.MACHINES)


class AdminServer(HttpServer):
    """Serves `/metrics`, `/healthz`, `/readyz`, and for people `/`, `/rules` and `/top`, on `listen`, HOST:PORT.

    `metrics` gives, for an Accept header, the content type and the text; that, `rules` and `top` (JSON) are made and
    sent in pieces. `gather`, if given, is awaited before metrics are made. `hosts` are further names, beside
    `localhost` and the host of `listen`, under which the pages for people are served. With `live` there is the live
    page at `/`, with `/live` and `/explain`, else one line that names the paths. Without `top` there is no `/top`, and
    `more` are further routes, or others in the place of these.
    """

    def __init__(
        self,
        listen: str,
        *,
        metrics: Callable[[str], tuple[str, Iterator[bytes]]],
        readiness: Callable[[], Readiness],
        rules: Callable[[], Iterator[str]],
        top: Callable[[], Awaitable[Iterator[str]]] | None,
        live: LivePage | None = None,
        more: Mapping[str, Route] = MappingProxyType({}),
        hosts: Iterable[str] = (),
        gather: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        check_s: float = CHECK_S,
    ) -> None:
        def answer_readiness(_request: Request) -> Answer:
            ready = readiness()
            return Answer(json.dumps(ready.detail).encode(), JSON, 200 if ready.ready else 503)

        routes = {
            "/": Route(lambda _: Answer(b"extauth: /metrics /healthz /readyz /rules /top\n"), Audience.PEOPLE),
            "/rules": Route(lambda _: Answer(map(str.encode, rules()), JSON), Audience.PEOPLE),
            "/metrics": metrics_route(metrics, gather),
            "/healthz": Route(lambda _: Answer(b"ok\n"), Audience.MACHINES),
            "/readyz": Route(answer_readiness, Audience.MACHINES),
        }
        if top is not None:
            routes["/top"] = Route(lambda _: Answer(Later(top), JSON), Audience.PEOPLE)
        self._live = live
        if live is not None:
            explain = live.explainer.answer
            routes["/"] = Route(lambda _: page(), Audience.PEOPLE)
            routes["/live"] = Route(live.streams.answer, Audience.PEOPLE, ("GET",), lasting=True)
            routes["/explain"] = Route(explain, Audience.PEOPLE, ("POST",), body_bytes=BODY_BYTES)
        routes |= more
        super().__init__(listen, routes, hosts=hosts, clock=clock, check_s=check_s)

    async def stop(self) -> None:
        """End the streams, and stop as HttpServer does."""
        if self._live is not None:
            self._live.streams.end()
        await super().stop()
