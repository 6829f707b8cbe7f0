"""Asks a RateLimitService, whoever wrote it, and reads its answer."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Before grpc is imported, which says on stderr what the error says anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf import json_format, message, struct_pb2

from extauth.errors import CommandError, InvalidRequestError
from extauth.rls.protobuf import fields, text_of
from extauth.rls.request import SERVICE
from extauth.rls.response import SOURCE_HEADER, Code
from extauth.rules.model import Unit

_UNITS = {unit.number: unit for unit in Unit}
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED


class Status(NamedTuple):
    """One of the answer's statuses; `limit` is None where no limit applied."""

    code: str
    limit: str | None
    name: str
    remaining: int
    reset_s: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A `RateLimitResponse`: codes by name, headers as (name, value), the body as text."""

    code: str
    statuses: list[Status]
    response_headers: list[tuple[str, str]]
    request_headers: list[tuple[str, str]]
    body: str
    metadata: dict[str, Any] | None

    @property
    def source(self) -> str | None:
        """Who decided, if extauth did so without its store."""
        return dict(self.response_headers).get(SOURCE_HEADER)

    @property
    def ok(self) -> bool:
        """Whether the request is admitted."""
        return self.code == Code.OK.name


class TlsOptions(NamedTuple):
    """PEM files: the CAs of the server, and the client's own certificate with its key; `name` is the server's."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None


class RateLimitClient:
    """A connection to a RateLimitService at `address`."""

    def __init__(self, channel: grpc.Channel, address: str, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")

    def ask(self, request: bytes) -> Answer:
        """The answer to a `RateLimitRequest`; raises CommandError where there is none."""
        try:
            reply = self._call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), " ".join((error.details() or "").split())
            said = f"no answer within {self._timeout_s:g} s" if code is _LATE else f"{code.name}: {details}"
            raise CommandError(f"cannot ask {self._address}: {said}") from error
        try:
            return read_answer(reply)
        except (InvalidRequestError, message.DecodeError) as error:
            raise CommandError(f"{self._address} answered with no RateLimitResponse") from error


@contextmanager
def connected(address: str, timeout_s: float, tls: TlsOptions | None) -> Iterator[RateLimitClient]:
    """A RateLimitClient for HOST:PORT, [IPV6]:PORT or unix:PATH; raises CommandError where that is no use."""
    if not re.fullmatch(r"unix:.+|(?:[^\[\]:/\s]+|\[[0-9a-fA-F:.%\w]+\]):\d{1,5}", address):
        raise CommandError(f"{address!r} is no address; write HOST:PORT, [IPV6]:PORT or unix:PATH")
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if tls is None:
        channel = grpc.insecure_channel(address, options)
    else:
        if tls.name is not None:
            options.append(("grpc.ssl_target_name_override", tls.name))
        channel = grpc.secure_channel(address, _credentials(tls), options)
    with channel:
        yield RateLimitClient(channel, address, timeout_s)


def _credentials(tls: TlsOptions) -> grpc.ChannelCredentials:
    if (tls.cert is None) != (tls.key is None):
        raise CommandError("--tls-cert and --tls-key go together")
    pems = []
    for path in (tls.ca, tls.key, tls.cert):
        try:
            pems.append(None if path is None else path.read_bytes())
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    return grpc.ssl_channel_credentials(*pems)


def read_answer(reply: bytes) -> Answer:
    """Read a `RateLimitResponse`; raises InvalidRequestError, or protobuf's DecodeError, where it is none."""
    code, body = 0, b""
    statuses: list[Status] = []
    headers: dict[int, list[tuple[str, str]]] = {3: [], 4: []}
    metadata = None
    for number, value in fields(reply):
        if number == 1 and isinstance(value, int):
            code = value
        elif number == 2:
            statuses.append(_status(_bytes(value)))
        elif number in headers:
            headers[number].append(_header(_bytes(value)))
        elif number == 5:
            body = _bytes(value)
        elif number == 6:
            metadata = json_format.MessageToDict(struct_pb2.Struct.FromString(_bytes(value)))
    return Answer(_code(code), statuses, headers[3], headers[4], body.decode("utf-8", "surrogateescape"), metadata)


def _code(number: int) -> str:
    return {0: "UNKNOWN", **{code.value: code.name for code in Code}}.get(number, str(number))


def _status(encoded: bytes) -> Status:
    code, remaining = 0, 0
    limit, name, reset_s = None, "", None
    for number, value in fields(encoded):
        match number, value:
            case 1, int():
                code = value
            case 2, bytes():
                limit, name = _limit(value)
            case 3, int():
                remaining = value
            case 4, bytes():
                numbers = {n: v for n, v in fields(value) if isinstance(v, int)}
                reset_s = numbers.get(1, 0) + numbers.get(2, 0) / 1e9
    return Status(_code(code), limit, name, remaining, reset_s)


def _limit(encoded: bytes) -> tuple[str, str]:
    requests, unit, name = 0, None, ""
    for number, value in fields(encoded):
        match number, value:
            case 1, int():
                requests = value
            case 2, int():
                unit = _UNITS.get(value)
            case 3, bytes():
                name = _text(value)
    return f"{requests} per {unit}" if unit else str(requests), name


def _header(encoded: bytes) -> tuple[str, str]:
    told = dict(fields(encoded))
    return _text(told.get(1, b"")), _text(told.get(2) or told.get(3) or b"")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise InvalidRequestError("malformed message: a number where a string or message belongs")
    return value


def _text(value: int | bytes) -> str:
    return text_of(_bytes(value))
