"""The API behind Envoy: answers any request with what it saw, as JSON. `/healthz` says that it lives.

It has the routes of ROUTES, which envoy.yaml names too and labels the metrics by; all others are answered as `/`.
"""

import asyncio
import os
import signal
import sys

from aiohttp import web

MAX_BODY_BYTES = 64 * 1024
ROUTES = ("/hello", "/orders", "/search")  # and what is below /orders


def address(listen: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host may stand in brackets."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        msg = f"ECHO_LISTEN={listen!r}: expected host:port, such as 127.0.0.1:8000"
        raise ValueError(msg)
    return host.strip("[]"), int(port)


def pairs(items: list[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Names to values: a string where a name stands once, a list where it is repeated."""
    seen: dict[str, list[str]] = {}
    for name, value in items:
        seen.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in seen.items()}


def route(path: str) -> str:
    """The route that a path belongs to."""
    if path.startswith("/orders/"):
        return "/orders"
    return path if path in ROUTES else "/"


async def echo(request: web.Request) -> web.Response:
    """What arrived. A body that is not UTF-8 is shown with replacement characters."""
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "route": route(request.path),
            "path": request.path,
            "query": pairs(list(request.query.items())),
            "headers": pairs([(name.lower(), value) for name, value in request.headers.items()]),
            "body": body.decode("utf-8", "replace"),
        }
    )


async def healthz(_: web.Request) -> web.Response:
    """Alive."""
    return web.json_response({"status": "ok"})


def application() -> web.Application:
    """Build the app; a body over MAX_BODY_BYTES is answered 413."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/healthz", healthz)
    app.router.add_route("*", "/{path:.*}", echo)
    return app


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        sys.stderr.write(f"echo: listening on {host}:{port}\n")
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    """Run the service; returns the exit code."""
    try:
        host, port = address(os.environ.get("ECHO_LISTEN", "127.0.0.1:8000"))
        asyncio.run(serve(host, port))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"echo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
