"""Compressed answers."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from extauth.admin.routes import Answer, Request

LEVEL: Final = 1
"""Metrics are a tenth of their size even so, and a higher level takes several times as long."""

_GZIP: Final = 31  # zlib's window bits for the format of RFC 1952
_CODING: Final = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q\s*=\s*(\d(?:\.\d*)?)\s*)?", re.IGNORECASE)


def compress(answer: Answer, request: Request) -> Answer:
    """The answer, compressed piece by piece if its body comes in pieces and the client takes gzip."""
    if not isinstance(answer.body, Iterator):
        return answer
    headers = (*answer.headers, ("Vary", "Accept-Encoding"))
    if not accepts_gzip(request.accept_encoding):
        return replace(answer, headers=headers)
    return replace(answer, body=_compressed(answer.body), headers=(*headers, ("Content-Encoding", "gzip")))


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client with this Accept-Encoding header takes gzip (RFC 9110 §12.5.3)."""
    qualities = {
        match[1].lower(): float(match[2] or 1)
        for item in accept_encoding.split(",")
        if (match := _CODING.fullmatch(item))
    }
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL, wbits=_GZIP)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
