"""The request that a command line describes: from its arguments to the message that Envoy would send."""

from extauth.errors import CommandError
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
