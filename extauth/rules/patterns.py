"""Patterns that a rule may have for an entry's value: wildcards, RE2 regexes and ranges of whole numbers."""

import re
from collections.abc import Callable
from typing import Any

from extauth.rules.model import Kind, Rule

# What RE2 may need for a regex, and what values that are matched with it may make it keep. A larger one gets more.
_USUAL_REGEX_BYTES = 1 << 20
_MAX_REGEX_BYTES = 8 << 20

Test = Callable[[str, str], bool]
"""(key, value) of an entry → whether the pattern matches it."""


class RegexError(ValueError):
    """A text is not an RE2 regex; the message says why, and shows nothing of it except punctuation."""


def compile_regex(regex: str) -> Any:  # noqa: ANN401 - re2 has no types
    """An RE2 regex over UTF-8 bytes: it takes time linear in what it is matched with. Raises RegexError."""
    import re2  # noqa: PLC0415 - 2.4 MB that configs without a regex spare

    options = re2.Options()
    options.log_errors = False
    for options.max_mem in (_USUAL_REGEX_BYTES, _MAX_REGEX_BYTES):
        try:
            return re2.compile(regex.encode(), options)
        except (re2.error, UnicodeError) as error:
            wrong = error
    reason = wrong.args[0]
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    what, _, part = text.partition(": ")
    raise RegexError(what if re.search(r"\w\w", part) else text) from None  # the regex may hold an API key


def shared_pattern(rule: Rule) -> str:
    """What represents all values of a wildcard: key and value apart where the key has a * of its own."""
    return f"{rule.key}\0{rule.value or ''}" if "*" in rule.key else rule.value or ""


def wildcard(rule: Rule) -> str:
    """The pattern of a wildcard rule: its value, or key and value where the key has a * of its own."""
    return f"{rule.key}_{rule.value}" if "*" in rule.key and rule.value else rule.value or rule.key


def compile_pattern(rule: Rule) -> Test:
    """The test for a rule whose kind is WILDCARD, REGEX or RANGE."""
    match rule.kind:
        case Kind.REGEX:
            regex = compile_regex(rule.value or "")
            return lambda _key, value: regex.fullmatch(value.encode("utf-8", "surrogateescape")) is not None
        case Kind.RANGE:
            start, end = (int(value) for value in rule.values)
            return lambda _key, value: (number := _number(value)) is not None and start <= number < end
    parts = wildcard(rule).split("*")
    if "*" in rule.key:  # as in the reference, which looks at `key_value`
        return lambda key, value: _glob(parts, f"{key}_{value}")
    return lambda _key, value: _glob(parts, value)


def _glob(parts: list[str], text: str) -> bool:
    """Whether the parts are in the text in order, the first at its beginning and the last at its end."""
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _number(text: str) -> int | None:
    """As Envoy reads one for a range match: an optional sign and digits, in 64 bits."""
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    return int(text)
