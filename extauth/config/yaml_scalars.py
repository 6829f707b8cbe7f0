"""YAML scalars: the type of a plain one, and its value, as gopkg.in/yaml.v2 reads them.

That library reads the files of envoyproxy/ratelimit.
"""

import re
from typing import Self

import yaml

from extauth.errors import NOWHERE, Place

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), "null"),
    **dict.fromkeys(
        [
            "y",
            "Y",
            "yes",
            "Yes",
            "YES",
            "true",
            "True",
            "TRUE",
            "on",
            "On",
            "ON",
            "n",
            "N",
            "no",
            "No",
            "NO",
            "false",
            "False",
            "FALSE",
            "off",
            "Off",
            "OFF",
        ],
        "bool",
    ),
    **dict.fromkeys(
        [".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF"], "float"
    ),
    "<<": "merge",
}
TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_INT = re.compile(r"[-+]?(?:0[bB][01]+|0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_CHECKED = {"int": ("int",), "float": ("int", "float"), "bool": ("bool",), "null": ("null",)}
_NUMERIC = frozenset("0123456789+-.")
_MAX_DIGITS = 70  # 64 of a binary number, its sign and prefix


class Scalar(str):
    """A YAML scalar: its text, its `place`, and its `tag`: `str`, `int` (of 64 bits), `float`, `bool`, `null`, `merge`.

    Integers that are too large are floats. A date is a string.
    """

    __slots__ = ("place", "tag")
    place: Place
    tag: str

    def __new__(cls, text: str, tag: str = "str", place: Place = NOWHERE) -> Self:
        """Wrap `text`."""
        self = super().__new__(cls, text)
        self.tag = tag
        self.place = place
        return self


def value_of(scalar: Scalar) -> object:
    """The scalar's value."""
    match scalar.tag:
        case "int":
            return to_int(scalar)
        case "float":
            return to_float(scalar)
        case "bool":
            return scalar in TRUE
        case "null":
            return None
    return str(scalar)


def fits(text: str, tag: str) -> bool:
    """Whether a scalar with this explicit tag may have this text."""
    return tag not in _CHECKED or plain_tag(text) in _CHECKED[tag]


def key_text(value: Scalar | None, *, top: bool) -> str:
    """A key that is not a string, as the reference writes it: at the `top` its text, below that what Go prints."""
    if top:
        return "" if value is None else str(value)
    if value is None:
        return "<nil>"
    if value.tag == "float":
        number = to_float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e21 else repr(number)
    if value.tag == "bool":
        return "true" if value in TRUE else "false"
    return str(to_int(value)) if value.tag == "int" else str(value)


def explicit_tag(event: yaml.ScalarEvent) -> str:
    """The tag of a scalar that is quoted or tagged."""
    return "str" if event.tag is None or event.tag == "!" else str(event.tag.rpartition(":")[2])


def plain_tag(text: str) -> str:
    """The tag of a scalar that is neither quoted nor tagged."""
    first = text[:1]
    if not first or first in "yYnNtTfFoO~<.+-":
        tag = _WORDS.get(text)
        if tag is not None:
            return tag
    if first in _NUMERIC and len(text) < _MAX_DIGITS:
        digits = text.replace("_", "") if "_" in text else text
        if _INT.fullmatch(digits):
            return "int" if -(2**63) <= to_int(digits) < 2**63 else "float"
        if _FLOAT.fullmatch(text if first == "." else digits) and abs(float(digits)) != float("inf"):
            return "float"
    elif first in _NUMERIC and re.fullmatch(r"[-+]?[0-9]+", text.replace("_", "")):
        return "float"
    return "str"


def to_int(text: str) -> int:
    """The value of a scalar tagged `int`: 10, +10, 0x0a, 0b1010, 012, 0o12, 1_0."""
    digits = text.replace("_", "")
    octal = re.fullmatch(r"([-+]?)0[oO]?([0-7]+)", digits)
    return int(octal[1] + octal[2], 8) if octal else int(digits, 0)


def to_float(text: str) -> float:
    """The value of a scalar tagged `float`: 1.5, 1e3, .inf, .nan, 1_0.5."""
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
