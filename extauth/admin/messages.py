"""From h11's events to requests, and from answers to h11's events."""

import re
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

from extauth.admin.lane import TURN_S
from extauth.admin.routes import Answer, Request, Stream

BLOCK_BYTES: Final = 16_384

_TARGET: Final = re.compile(r"(?:https?://(?P<host>[^/?]*))?(?P<path>[^?]*)\??(?P<query>.*)")  # RFC 9112 §3.2


def header(head: h11.Request, name: bytes) -> str:
    """The value of a header, whose name is in lower case; empty where it is absent."""
    return next((value.decode("latin-1") for known, value in head.headers if known == name), "")


def list_header(head: h11.Request, name: bytes) -> str:
    """The value of a header that may come in several lines (RFC 9110 §5.3)."""
    return ", ".join([value.decode("latin-1") for known, value in head.headers if known == name])


def path_of(head: h11.Request) -> str:
    """The path that is requested."""
    return _target(head)["path"] or "/"


def _target(head: h11.Request) -> re.Match[str]:
    target = _TARGET.fullmatch(head.target.decode("latin-1"))
    assert target is not None  # noqa: S101 - it matches anything that is one line
    return target


def read_request(head: h11.Request, body: bytes) -> tuple[Request, str]:
    """The request and its host; a target in absolute form overrides the Host header (RFC 9112 §3.2.2)."""
    target = _target(head)
    host = target["host"]
    request = Request(
        method=head.method.decode("latin-1"),
        path=path_of(head),
        query=target["query"],
        body=body,
        content_type=header(head, b"content-type"),
        accept=list_header(head, b"accept"),
        accept_encoding=list_header(head, b"accept-encoding"),
    )
    return request, header(head, b"host") if host is None else host


def begin(
    answer: Answer, clock: Callable[[], float], *, head_only: bool
) -> tuple[Answer, Iterator[bytes], bytes | None]:
    """An answer, its remaining blocks, and its first block, so that errors are raised before anything is sent.

    A stream has no blocks yet.
    """
    body = answer.body
    if head_only or isinstance(body, Stream):
        pieces: Iterator[bytes] = iter(())
    else:
        pieces = iter((body,)) if isinstance(body, bytes) else body
    blocks = in_blocks(pieces, clock)
    return answer, blocks, next(blocks, None)


def in_blocks(pieces: Iterator[bytes], clock: Callable[[], float]) -> Iterator[bytes]:
    """The pieces joined or cut to blocks of BLOCK_BYTES; a block is shorter, or empty, if TURN_S has passed."""
    gathered = bytearray()
    began = clock()
    for piece in pieces:
        gathered += piece
        while len(gathered) >= BLOCK_BYTES or clock() - began >= TURN_S:
            yield bytes(gathered[:BLOCK_BYTES])
            del gathered[:BLOCK_BYTES]
            began = clock()
    if gathered:
        yield bytes(gathered)


def response(answer: Answer, *, close: bool) -> h11.Response:
    """The head of an answer."""
    headers = [("Content-Type", answer.content_type), ("Date", formatdate(usegmt=True)), *answer.headers]
    if isinstance(answer.body, bytes):
        headers.append(("Content-Length", str(len(answer.body))))
    if close:
        headers.append(("Connection", "close"))
    return h11.Response(status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase)
