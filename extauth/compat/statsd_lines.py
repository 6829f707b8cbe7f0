"""The lines that statsd and DogStatsD get: a metric's name, its value and its tags."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from extauth.telemetry.statsd_settings import Renaming

Line = Callable[[str, str, str], bytes]
"""(a metric's name in envoyproxy/ratelimit, its value, its type and the rest) → its line."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_IN_NAMES: Final = re.compile(r"[\x00-\x1f\x7f:|]")
_IN_TAGS: Final = re.compile(r"[\x00-\x1f\x7f,|]")
_RESERVED: Final = str.maketrans(".:|", "___")


def statsd_lines(tags: Mapping[str, str]) -> Line:
    """Lines of statsd, which knows no tags: they are a part of all names."""
    in_names = "".join([f".__{key}={value.translate(_RESERVED)}" for key, value in sorted(tags.items())])

    def line(name: str, value: str, kind: str) -> bytes:
        return _encoded(f"{_CONTROL.sub('_', name)}{in_names}:{value}|{kind}\n")

    return line


def dogstatsd_lines(tags: Mapping[str, str], renamings: Sequence[Renaming]) -> Line:
    """Lines of DogStatsD, with tags after the type. Of the renamings, the first that applies names a metric."""
    of_all = list(tags.items())

    def line(name: str, value: str, kind: str) -> bytes:
        own: list[tuple[str, str]] = []
        metric = _encoded(name)
        for renaming in renamings:
            renamed = renaming.apply(metric)
            if renamed is not None:
                name, own = renamed
                break
        pairs = ",".join([_IN_TAGS.sub("_", f"{key}:{text}") for key, text in (*of_all, *own)])
        return _encoded(f"{_IN_NAMES.sub('_', name)}:{value}|{kind}{'|#' if pairs else ''}{pairs}\n")

    return line


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
