"""The ports beside those of gRPC and admin: HTTP, and one for metrics alone."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

from extauth.admin.http import HttpServer
from extauth.admin.server import metrics_route
from extauth.compat.http import Decide, http_server
from extauth.settings import Settings


class Ports:
    """Those that the settings ask for.

    `decide` answers calls in JSON, `healthy` says whether calls are taken. `scrape` is what is shown of metrics, for an
    Accept header, and `gather`, if given, is awaited before.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        decide: Decide,
        healthy: Callable[[], bool],
        scrape: Callable[[str], tuple[str, Iterator[bytes]]],
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._servers: list[HttpServer] = []
        if settings.http_listen is not None:
            self._servers.append(http_server(settings.http_listen, decide=decide, healthy=healthy))
        if settings.metrics_listen is not None:
            routes = {settings.metrics_path: metrics_route(scrape, gather)}
            self._servers.append(HttpServer(settings.metrics_listen, routes, setting="EXTAUTH_METRICS_LISTEN"))

    async def start(self, stack: AsyncExitStack) -> None:
        """Listen; raises SettingsError if that is not possible."""
        for server in self._servers:
            await server.start()
            stack.push_async_callback(server.stop)
