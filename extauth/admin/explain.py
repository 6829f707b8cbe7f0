"""The explain box of the live page: why a request would be limited, and what is left. Nothing is counted."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from extauth.admin.routes import JSON, Answer, MadeLater, Request, refusal
from extauth.errors import CommandError, InvalidRequestError, StoreError
from extauth.explain.explanation import explain_descriptor, summary, view
from extauth.explain.preview import Planned, plan_request
from extauth.explain.request import read_descriptor
from extauth.explain.usage import look, view_standings
from extauth.limiter.counters import Counters
from extauth.limiter.planner import Planner

BODY_BYTES: Final = 8192
MOST_DESCRIPTORS: Final = 20

_FORM: Final = 'send {"domain": "…", "descriptors": ["KEY=VALUE[,KEY=VALUE…]", …]}'
# Pages of other sites may not send that type without asking first, which is refused.
_NOT_JSON: Final = "The body must be JSON, with Content-Type: application/json.\n"


class Explainer:
    """Explains requests by the planner's rules, one after the other, and looks at their counters.

    `away` returns why the store cannot be asked now, or None.
    """

    def __init__(self, planner: Planner, counters: Counters, away: Callable[[], str | None]) -> None:
        self._planner = planner
        self._counters = counters
        self._away = away
        self._one_at_a_time = asyncio.Lock()

    def answer(self, request: Request) -> Answer | MadeLater:
        """The explanation of a request of the body's form."""
        if request.content_type.partition(";")[0].strip().lower() != "application/json":
            return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _NOT_JSON)
        try:
            domain, texts = _read(request.body)
        except CommandError as error:
            return _mistake(error)
        return partial(self._answer, domain, texts)

    async def _answer(self, domain: str, texts: list[str]) -> Answer:
        async with self._one_at_a_time:
            try:
                # A body may hold thousands of entries, and among very many rules it takes a while to find why the
                # others are not hit: calls are decided meanwhile.
                planned, told = await asyncio.to_thread(self._explain, domain, texts)
            except (CommandError, InvalidRequestError) as error:
                return _mistake(error)
            told |= await self._left(planned)
            return Answer(json.dumps(told).encode(), JSON, headers=[("Cache-Control", "no-store")])

    def _explain(self, domain: str, texts: list[str]) -> tuple[Planned, dict[str, Any]]:
        """The plan of the request, and what is told of it; raises CommandError and InvalidRequestError."""
        planned = plan_request(self._planner.apart(), domain, tuple(map(read_descriptor, texts)))
        return planned, _told(planned)

    async def _left(self, planned: Planned) -> dict[str, Any]:
        away = self._away()
        if away is None:
            try:
                return {"left": view_standings(await look(self._counters, planned.plan)), "left_unknown": None}
            except StoreError as error:
                away = str(error)
        return {"left": None, "left_unknown": away}


def _mistake(error: Exception) -> Answer:
    return Answer(json.dumps({"error": str(error)}).encode(), JSON, HTTPStatus.BAD_REQUEST)


def _told(planned: Planned) -> dict[str, Any]:
    told = [explain_descriptor(planned, i) for i in range(len(planned.descriptors))]
    return view(planned, told) | {"summary": summary(planned)}


def _read(body: bytes) -> tuple[str, list[str]]:
    try:
        asked = json.loads(body)
        json.dumps(asked, ensure_ascii=False).encode()  # JSON can write halves of characters, which no request can have
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the body is no JSON ({error}); {_FORM}") from error
    domain = asked.get("domain") if isinstance(asked, dict) else None
    texts = asked.get("descriptors") if isinstance(asked, dict) else None
    if not isinstance(domain, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CommandError(f"the body has not the form that is needed; {_FORM}")
    if len(texts) > MOST_DESCRIPTORS:
        raise CommandError(f"{len(texts)} descriptors are too many; send at most {MOST_DESCRIPTORS}")
    return domain, texts
