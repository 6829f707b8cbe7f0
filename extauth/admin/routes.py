"""The routes of the admin server, as data."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias, runtime_checkable

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json; charset=utf-8"
BODY_BYTES: Final = 1024


class Audience(Enum):
    """Who requests a path.

    Pages for PEOPLE are refused under a foreign host name and when places are short. MACHINES are probes and scrapes:
    they are always served, whatever name they ask for. So are CALLERS, who want calls decided, while that keeps no
    machine waiting.
    """

    PEOPLE = "people"
    CALLERS = "callers"
    MACHINES = "machines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A complete request; `query` is the text after the `?`, as it was sent."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    content_type: str = ""
    accept: str = ""
    accept_encoding: str = ""


@runtime_checkable
class Stream(Protocol):
    """A body that must be waited for, or that lasts: one part after the other."""

    async def next(self) -> Iterator[bytes] | None:
        """The pieces of the next part, once there is one; None where there is no other."""

    def close(self) -> None:
        """Called once the last part was sent, or the client is gone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request.

    A `body` of bytes is sent with its length. An iterator's pieces are made and sent as the client reads them; each
    should take less than a millisecond to make, since nothing else runs meanwhile. An empty piece is allowed. The next
    part of a stream is asked for once the client has read the previous one.
    """

    body: bytes | Iterator[bytes] | Stream
    content_type: str = TEXT
    status: int = HTTPStatus.OK
    headers: Iterable[tuple[str, str]] = ()


MadeLater: TypeAlias = Callable[[], Awaitable[Answer]]
"""Makes an answer that must be waited for, down to its status."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a path is served; `handler` returns at once, and HEAD gets the head of GET's answer.

    A request's body may have `body_bytes`. A `lasting` answer is one that may never end.
    """

    handler: Callable[[Request], Answer | MadeLater]
    audience: Audience
    methods: tuple[str, ...] = ("GET", "HEAD")
    body_bytes: int = BODY_BYTES
    lasting: bool = False


def refusal(status: HTTPStatus, hint: str = "", headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """An error as text, with a hint for the client."""
    return Answer(f"{status}: {status.phrase}\n{hint}".encode(), status=status, headers=headers)
