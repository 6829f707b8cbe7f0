"""gRPC server reflection, v1 and v1alpha, which differ by their names alone: what each request is answered with.

Messages: grpc/reflection/v1/reflection.proto. An answer is some hundred times as long as its request, so all clients of
a server together get at most ANSWERS_PER_S a second, and the requests are short. Envoy never calls this, so a refusal
here lets no request pass.
"""

from typing import Final

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import bytes_field, fields, number_field, text_field, varint
from extauth.transport.descriptors import descriptors
from extauth.transport.engine import TokenBucket

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHOD: Final = "ServerReflectionInfo"

MAX_REQUEST_BYTES: Final = 1024
"""The size of a request: a name and a host."""
MAX_HELD_BYTES: Final = 262_144
"""Bytes of answers that a client has not read yet, on one stream, past which the call ends."""
ANSWERS_PER_S: Final = 20
"""Answers that a server gives a second; ten seconds' worth may be given at once."""

TOO_MANY: Final = "reflection answers few requests a second; try again later"
TOO_LARGE: Final = f"a request for reflection has at most {MAX_REQUEST_BYTES} bytes"
UNREAD: Final = "the client does not read the answers"
IDLE: Final = "no request for a while; call again"

_STRINGS: Final = frozenset((1, 3, 4, 6, 7))
_NOT_FOUND: Final = 5
_INVALID_ARGUMENT: Final = 3


class Reflection:
    """Answers the requests to one server, on all its connections."""

    def __init__(self) -> None:
        descriptors()  # the first time this takes some milliseconds, for which no call should wait
        self._answers = TokenBucket(ANSWERS_PER_S)

    def admits(self, now: float) -> bool:
        """Whether a request may be answered at `now`; if so, it counts."""
        return self._answers.spend(now)


def respond(message: bytes) -> bytes:
    """The ServerReflectionResponse to a ServerReflectionRequest; raises InvalidRequestError."""
    host, asked, value = "", 0, b""
    for number, content in fields(message):
        if isinstance(content, bytes) and number in _STRINGS:
            text = _text(content)
            if number == 1:
                host = text
            else:
                asked, value = number, content  # a oneof: the last one counts, but the answer repeats all of them
        elif isinstance(content, bytes) and number == 5:
            _extension(content)
            asked, value = number, content
    return text_field(1, host) + bytes_field(2, message) + _answer(asked, value)


def _answer(asked: int, value: bytes) -> bytes:
    """The field `message_response`, to the request's field `asked` of this value."""
    known = descriptors()
    match asked:
        case 3:
            return _file(known.file(_text(value)))
        case 4:
            return _file(known.file_of(_text(value)))
        case 5:
            return _file(known.file_of_extension(*_extension(value)))
        case 6:
            return _extensions(value, known.extensions(_text(value)))
        case 7:
            return bytes_field(6, b"".join(bytes_field(1, text_field(1, name)) for name in known.services))
    return _error(_INVALID_ARGUMENT, "the request asks for nothing that this server knows")


def _extension(value: bytes) -> tuple[str, int]:
    """The message and the number of an ExtensionRequest."""
    message, extension = "", 0
    for number, content in fields(value):
        if number == 1 and isinstance(content, bytes):
            message = _text(content)
        elif number == 2 and isinstance(content, int):
            extension = content
    return message, extension


def _text(value: bytes) -> str:
    """The value of a string field."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError("malformed message: a string is not UTF-8") from error


def _file(response: bytes | None) -> bytes:
    return _error(_NOT_FOUND, "no such file, symbol or extension") if response is None else bytes_field(4, response)


def _extensions(message: bytes, numbers: list[int] | None) -> bytes:
    if numbers is None:
        return _error(_NOT_FOUND, "no such message")
    packed = b"".join(varint(number) for number in numbers)
    return bytes_field(5, bytes_field(1, message) + (bytes_field(2, packed) if packed else b""))


def _error(code: int, text: str) -> bytes:
    return bytes_field(7, number_field(1, code) + text_field(2, text))
