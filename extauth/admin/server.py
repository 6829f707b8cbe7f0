"""The admin HTTP server."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiohttp import web

from extauth.address import listen_everywhere, split_address
from extauth.errors import SettingsError

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` tells: 200 where `ready`, else 503, with `detail` as JSON."""

    ready: bool
    detail: dict[str, Any]


class AdminServer:
    """Serves `/metrics`, `/healthz`, `/readyz` and `/rules` on `listen`, HOST:PORT."""

    def __init__(
        self,
        listen: str,
        *,
        metrics: Callable[[], bytes],
        metrics_type: str,
        readiness: Callable[[], Readiness],
        rules: Callable[[], Iterator[str]],
    ) -> None:
        self._listen = listen
        self._metrics = metrics
        self._metrics_type = metrics_type
        self._readiness = readiness
        self._rules = rules
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/", self._get_index),
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_healthz),
                web.get("/readyz", self._get_readyz),
                web.get("/rules", self._get_rules),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)

    async def start(self) -> None:
        """Listen; raises SettingsError where the address cannot be had."""
        await self._runner.setup()
        host, port = split_address(self._listen)
        try:
            if host == "::":
                await web.SockSite(self._runner, listen_everywhere(port, BACKLOG)).start()
            else:
                await web.TCPSite(self._runner, host, port).start()
        except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
            await self._runner.cleanup()
            reason = getattr(error, "strerror", None) or error
            message = f"EXTAUTH_ADMIN_LISTEN={self._listen}: cannot listen there: {reason}"
            raise SettingsError(message) from error

    async def stop(self) -> None:
        """Close the listener and its connections."""
        await self._runner.cleanup()

    async def _get_index(self, _request: web.Request) -> web.Response:
        return web.Response(text="extauth: /metrics /healthz /readyz /rules\n")

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": self._metrics_type})

    async def _get_healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get_readyz(self, _request: web.Request) -> web.Response:
        readiness = self._readiness()
        return web.json_response(readiness.detail, status=200 if readiness.ready else 503)

    async def _get_rules(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        await response.prepare(request)
        pieces = self._rules()
        while chunk := "".join(islice(pieces, 100)):
            await response.write(chunk.encode())
            await asyncio.sleep(0)  # let calls through
        await response.write_eof()
        return response
