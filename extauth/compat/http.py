"""The HTTP port of envoyproxy/ratelimit: `/healthcheck`, and `/json`, a rate limit call in JSON."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from extauth.admin.http import HttpServer
from extauth.admin.routes import TEXT, Answer, Audience, MadeLater, Request, Route, refusal
from extauth.errors import InvalidRequestError
from extauth.limiter import templates
from extauth.limiter.counters import Uncounted
from extauth.rls.json_request import encode_json_request
from extauth.rls.json_response import json_of_response
from extauth.rls.response import Code, code_of

BODY_BYTES: Final = 32_768
"""Of a call in JSON: while it is read, no other is answered."""

Decide = Callable[[bytes], Awaitable[templates.Answer]]
"""Answers a call, a `RateLimitRequest`; raises InvalidRequestError."""


def http_server(listen: str, *, decide: Decide, healthy: Callable[[], bool]) -> HttpServer:
    """The server on `listen`, HOST:PORT: `/healthcheck` is 200 or 500, and depends on no store."""

    def check(_request: Request) -> Answer:
        if healthy():
            return Answer(b"OK")
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR)

    def call(request: Request) -> Answer | MadeLater:
        try:
            message = encode_json_request(request.body)
        except InvalidRequestError as error:
            return _invalid(error)

        async def answer() -> Answer:
            try:
                return _in_json(await decide(message))
            except InvalidRequestError as error:
                return _invalid(error)

        return answer

    routes = {
        "/healthcheck": Route(check, Audience.MACHINES),
        "/json": Route(call, Audience.CALLERS, ("POST",), body_bytes=BODY_BYTES),
    }
    return HttpServer(listen, routes, setting="EXTAUTH_HTTP_LISTEN")


def _invalid(error: InvalidRequestError) -> Answer:
    return Answer(f"{error}\n".encode("utf-8", "replace"), TEXT, HTTPStatus.BAD_REQUEST)


def _in_json(decided: templates.Answer) -> Answer:
    if isinstance(decided, Uncounted):
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the counters' store does not answer\n")
    denied = code_of(decided) is Code.OVER_LIMIT
    status = HTTPStatus.TOO_MANY_REQUESTS if denied else HTTPStatus.OK
    return Answer(json_of_response(decided), "application/json", status)
