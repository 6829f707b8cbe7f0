"""The request that a command line speaks of: from its arguments to the message that Envoy would send."""

from collections.abc import Sequence

from extauth.errors import CommandError
from extauth.rls.protobuf import bytes_field, number_field
from extauth.rls.request import Descriptor, Entry


def read_descriptor(argument: str) -> Descriptor:
    """A descriptor from `KEY=VALUE[,KEY=VALUE…]`; raises CommandError.

    The first = of an entry parts key and value. A backslash before a comma or a backslash makes it part of the value;
    before anything else it stands for itself.
    """
    entries = []
    for text in _parted(argument):
        key, equals, value = text.partition("=")
        if not key or not equals:
            example = "write KEY=VALUE, entries parted by commas, and \\, for a comma in a value"
            raise CommandError(f"{argument!r} is no descriptor: {text!r} is no entry; {example}")
        entries.append(Entry(key, value))
    return Descriptor(tuple(entries))


def _parted(argument: str) -> list[str]:
    parts = [""]
    chars = iter(argument)
    for char in chars:
        if char == ",":
            parts.append("")
        elif char == "\\":
            following = next(chars, "")
            parts[-1] += following if following in {",", "\\"} else char + following
        else:
            parts[-1] += char
    return parts


def write_descriptor(descriptor: Descriptor) -> str:
    """What `read_descriptor` reads."""
    escaped = (f"{entry.key}={entry.value}".replace("\\", "\\\\").replace(",", "\\,") for entry in descriptor.entries)
    return ",".join(escaped)


def encode_request(domain: str, descriptors: Sequence[Descriptor], hits: int = 0) -> bytes:
    """A `RateLimitRequest`; of the descriptors only their entries. `hits` of 0 are left to the server: it takes 1."""
    message = bytes_field(1, _bytes(domain))
    for descriptor in descriptors:
        entries = (
            bytes_field(1, _bytes(entry.key)) + bytes_field(2, _bytes(entry.value)) for entry in descriptor.entries
        )
        message += bytes_field(2, b"".join(bytes_field(1, entry) for entry in entries))
    return message + number_field(3, hits)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
