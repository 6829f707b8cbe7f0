"""Values of environment variables, as Go reads them: strconv, time.ParseDuration and kelseyhightower/envconfig."""

import re
from fractions import Fraction
from typing import Final

_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_INTEGER: Final = re.compile(
    r"([+-]?)(0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|[1-9](?:_?\d)*|0)", re.ASCII
)
_FLOAT: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DURATION: Final = re.compile(r"([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)", re.ASCII)
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LONGEST_NS: Final = 2**63 - 1
_LONGEST_TEXT: Final = 100
"""Characters of a number: Python takes long ones apart at a cost that grows with the square of their length."""


def read_bool(text: str) -> bool:
    """As strconv.ParseBool; raises ValueError."""
    if text not in _TRUE | _FALSE:
        raise ValueError("true or false, written 1, t, T, true, True, TRUE, 0, f, F, false, False or FALSE")
    return text in _TRUE


def read_int(text: str) -> int:
    """As strconv.ParseInt with base 0 and 64 bits; raises ValueError."""
    match = _INTEGER.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None or ("_" in text and not match[2].startswith("0")):
        raise ValueError("a whole number, such as 8081")
    digits = match[2].replace("_", "")
    octal = re.fullmatch(r"0[0-7]+", digits) is not None
    number = int(match[1] + digits, 8 if octal else 0)
    if not -(2**63) <= number < 2**63:
        raise ValueError("a whole number of 64 bits")
    return number


def read_float(text: str) -> float:
    """As strconv.ParseFloat, of finite decimal numbers; raises ValueError."""
    if len(text) > _LONGEST_TEXT or not _FLOAT.fullmatch(text) or abs(number := float(text)) == float("inf"):
        raise ValueError("a number, such as 0.8")
    return number


def read_duration_s(text: str) -> float:
    """As time.ParseDuration, in seconds; raises ValueError."""
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise ValueError("a duration with a unit, such as 150us, 10s or 1h30m")
    total = sum(Fraction(number.rstrip(".")) * _NS[unit] for number, unit in _PART.findall(match[2]))
    if total > _LONGEST_NS:
        raise ValueError("a duration of at most 290 years")
    return float(Fraction(total, 1_000_000_000)) * (-1 if match[1] == "-" else 1)


def read_map(text: str) -> dict[str, str]:
    """As envconfig reads map[string]string, k:v,k2:v2; raises ValueError."""
    if not text.strip():
        return {}
    pairs = [pair.split(":") for pair in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("pairs, as in key:value,key2:value2")
    return {pair[0]: pair[1] for pair in pairs}
