"""The message `ratelimit.config.ratelimit.v3.RateLimitConfig`: its bytes to plain values."""

from math import isfinite
from typing import Any, Final, NamedTuple

from extauth.config.sources.wire import DOUBLE, fields_of
from extauth.errors import InvalidRequestError, RequestTooLargeError

MAX_DESCRIPTORS: Final = 300_000
"""Of a message, replaced limits and values of metadata among them, and fields of each message in it."""
MAX_DEPTH: Final = 100
"""How deep messages may nest."""

# Tags: a field's number times 8, plus its wire type.
_TEXT_1, _TEXT_2, _PART_3, _PART_4, _TEXT_4, _PART_5 = 0x0A, 0x12, 0x1A, 0x22, 0x22, 0x2A
_NUMBER_1, _NUMBER_2, _NUMBER_3, _SHADOW, _DETAILED, _QUOTA, _METADATA = 0x08, 0x10, 0x18, 0x28, 0x30, 0x38, 0x42
_NULL, _DOUBLE, _STRING, _BOOL, _STRUCT, _LIST = 0x08, 0x11, 0x1A, 0x20, 0x2A, 0x32

_MAX_EXACT = 2.0**53
_MANY = f"more than {MAX_DESCRIPTORS} descriptors, limits that they replace, and values of metadata"


class Policy(NamedTuple):
    """A `RateLimitPolicy`; `unit` is the number of a `RateLimitUnit`."""

    unit: int
    requests_per_unit: int
    unlimited: bool
    name: str
    replaces: tuple[str, ...]


class Descriptor(NamedTuple):
    """A `RateLimitDescriptor`; `metadata` is JSON's data."""

    key: str
    value: str
    policy: Policy | None
    descriptors: tuple["Descriptor", ...]
    shadow_mode: bool
    detailed_metric: bool
    quota_mode: bool
    metadata: dict[str, Any] | None


class Config(NamedTuple):
    """A `RateLimitConfig`."""

    name: str
    domain: str
    descriptors: tuple[Descriptor, ...]


class ConfigDecoder:
    """Decodes one message; `name` is what is known of its name when an error is raised.

    `parts` are those that take memory: descriptors, the limits that they replace, and values of metadata.
    """

    def __init__(self, message: bytes) -> None:
        self.name = _name_of(message)
        self._message = message
        self._texts: dict[bytes, str] = {}  # keys and values of generated rules repeat
        self._policies: dict[bytes, Policy] = {}
        self.parts = 0

    def config(self) -> Config:
        """The message; raises InvalidRequestError, or UnicodeDecodeError for a text that is not UTF-8."""
        message = self._message
        domain = ""
        descriptors = []
        for tag, at, end in fields_of(message, 0, len(message), MAX_DESCRIPTORS):
            if tag == _TEXT_1:
                self.name = self._text(message[at:end])
            elif tag == _TEXT_2:
                domain = self._text(message[at:end])
            elif tag == _PART_3:
                descriptors.append((at, end))
        return Config(self.name, domain, tuple([self._descriptor(at, end, 1) for at, end in descriptors]))

    def _text(self, value: bytes) -> str:
        text = self._texts.get(value)
        if text is None:
            text = self._texts[value] = value.decode()
        return text

    def _descriptor(self, at: int, end: int, depth: int) -> Descriptor:
        self._count(1)
        _check(depth)
        message = self._message
        key = value = ""
        policy: list[bytes] = []
        metadata: list[bytes] = []
        inner: list[Descriptor] = []
        shadow_mode = detailed_metric = quota_mode = False
        for tag, begin, stop in fields_of(message, at, end, MAX_DESCRIPTORS):
            if tag == _TEXT_1:
                key = self._text(message[begin:stop])
            elif tag == _TEXT_2:
                value = self._text(message[begin:stop])
            elif tag == _PART_3:  # of a message that comes twice the parts are merged: as if they were one
                policy.append(message[begin:stop])
            elif tag == _PART_4:
                inner.append(self._descriptor(begin, stop, depth + 1))
            elif tag == _SHADOW:
                shadow_mode = begin != 0
            elif tag == _DETAILED:
                detailed_metric = begin != 0
            elif tag == _QUOTA:
                quota_mode = begin != 0
            elif tag == _METADATA:
                metadata.append(message[begin:stop])
        return Descriptor(
            key,
            value,
            self._policy(b"".join(policy)) if policy else None,
            tuple(inner),
            shadow_mode,
            detailed_metric,
            quota_mode,
            self._metadata(b"".join(metadata), depth + 1) if metadata else None,
        )

    def _metadata(self, message: bytes, depth: int) -> dict[str, Any]:
        decoder = _StructDecoder(message, MAX_DESCRIPTORS - self.parts)
        found = decoder.whole(depth)
        self._count(decoder.values)
        return found

    def _count(self, parts: int) -> None:
        self.parts += parts
        if self.parts > MAX_DESCRIPTORS:
            raise RequestTooLargeError(_MANY)

    def _policy(self, message: bytes) -> Policy:
        known = self._policies.get(message)
        if known is not None:
            return known
        unit = requests = 0
        unlimited = False
        name = ""
        replaces = []
        for tag, at, end in fields_of(message, 0, len(message), MAX_DESCRIPTORS):
            if tag == _NUMBER_1:
                unit = at & 0xFFFFFFFF
            elif tag == _NUMBER_2:
                requests = at & 0xFFFFFFFF
            elif tag == _NUMBER_3:
                unlimited = at != 0
            elif tag == _TEXT_4:
                name = self._text(message[at:end])
            elif tag == _PART_5:
                names = [message[a:b] for t, a, b in fields_of(message, at, end, MAX_DESCRIPTORS) if t == _TEXT_1]
                replaces.append("" if not names else [self._text(each) for each in names][-1])
        self._count(len(replaces))
        policy = self._policies[message] = Policy(unit, requests, unlimited, name, tuple(replaces))
        return policy


def _name_of(message: bytes) -> str:
    """The name that a message begins with, if it does, although the rest may make no sense."""
    usual = len(message) > 1 and message[0] == _TEXT_1 and message[1] < 0x80
    return message[2 : 2 + message[1]].decode("utf-8", "replace") if usual else ""


class _StructDecoder:
    """Decodes one google.protobuf.Struct, which has so many `values`, at most `most`."""

    def __init__(self, message: bytes, most: int) -> None:
        self.values = 0
        self._message = message
        self._most = most

    def whole(self, depth: int) -> dict[str, Any]:
        return self._struct(0, len(self._message), depth)

    def _struct(self, at: int, end: int, depth: int) -> dict[str, Any]:
        _check(depth)
        message = self._message
        found: dict[str, Any] = {}
        for tag, begin, stop in fields_of(message, at, end, MAX_DESCRIPTORS):
            if tag != _TEXT_1:
                continue
            key, values = "", []
            for inner, first, last in fields_of(message, begin, stop, MAX_DESCRIPTORS):
                if inner == _TEXT_1:
                    key = message[first:last].decode()
                elif inner == _TEXT_2:
                    values.append((first, last))
            if len(values) > 1:
                raise InvalidRequestError("malformed message: a value in metadata comes twice")
            found[key] = self._value(*values[0], depth + 1) if values else None
        return found

    def _value(self, at: int, end: int, depth: int) -> Any:  # noqa: ANN401 - any JSON
        """A google.protobuf.Value; of several kinds the last one counts."""
        self.values += 1
        if self.values > self._most:
            raise RequestTooLargeError(_MANY)
        _check(depth)
        message = self._message
        found: Any = None
        for tag, begin, stop in fields_of(message, at, end, MAX_DESCRIPTORS):
            if tag == _NULL:
                found = None
            elif tag == _DOUBLE:
                found = _number(DOUBLE.unpack_from(message, begin)[0])
            elif tag == _STRING:
                found = message[begin:stop].decode()
            elif tag == _BOOL:
                found = begin != 0
            elif tag == _STRUCT:
                found = self._struct(begin, stop, depth + 1)
            elif tag == _LIST:
                items = fields_of(message, begin, stop, MAX_DESCRIPTORS)
                found = [self._value(first, last, depth + 1) for inner, first, last in items if inner == _TEXT_1]
        return found


def _number(value: float) -> float | int:
    if not isfinite(value):
        raise InvalidRequestError("a number in metadata is not finite")
    return int(value) if value.is_integer() and abs(value) < _MAX_EXACT else value


def _check(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RequestTooLargeError(f"it nests deeper than {MAX_DEPTH} levels")
