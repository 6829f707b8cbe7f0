"""The types of a config's values. Each refuses what does not fit it in words that an operator understands.

They take plain data, as JSON has it: strings, numbers, booleans, lists and dicts.
"""

import re
from math import isfinite
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from extauth.config.diagnostics import quoted
from extauth.errors import nearest
from extauth.rules.model import Algorithm, OnStoreFailure
from extauth.rules.networks import Network, read_network

MAX_COUNT = 2**32 - 1  # RateLimitResponse.RateLimit.requests_per_unit is a uint32
MAX_MULTIPLIER = 10_000
MAX_INT64 = 2**63 - 1
# What others call our policies for store failures, in lower case and with _ between the words.
_OTHER_POLICIES = {
    **dict.fromkeys(("open", "fail_open", "pass", "permit", "admit", "ok"), OnStoreFailure.ALLOW),
    **dict.fromkeys(("close", "closed", "fail_closed", "fail_close", "block", "reject", "refuse"), OnStoreFailure.DENY),
    **dict.fromkeys(("fail", "failure", "unavailable", "raise"), OnStoreFailure.ERROR),
    **dict.fromkeys(("memory", "in_memory", "fallback", "local_fallback"), OnStoreFailure.LOCAL),
    **{policy.value: policy for policy in OnStoreFailure},  # in another case
}


def _fail(message: str, hint: str = "") -> NoReturn:
    raise PydanticCustomError("extauth", "{message}", {"message": message, "fix": hint})


def _kind(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
    return "a string"


def _text(value: object) -> str:
    if isinstance(value, float):
        _fail("must be a string, not a number with a fraction or exponent", "quote it")  # which may be an API key
    if not isinstance(value, str):
        _fail(f"must be a string, not {_kind(value)}")
    return value


def _name(value: object) -> str:
    return _text(value) or _fail("must not be empty")


def _whole(value: object, most: int = MAX_INT64) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, float) and value > MAX_INT64:
            _fail(f"must be at most {most}")  # YAML's integers of more than 64 bits are floats
        kind = "a number with a fraction or exponent" if isinstance(value, float) else _kind(value)
        _fail(f"must be a whole number, not {kind}", "write digits, without quotes")
    if value > most:
        _fail(f"must be at most {most}")
    if value < -MAX_INT64 - 1:
        _fail(f"must be at least {-MAX_INT64 - 1}")
    return value


def _count(value: object) -> int:
    number = _whole(value, MAX_COUNT)
    return number if number >= 0 else _fail("must be 0, 1, 2, …, not a negative number")


def _positive(value: object) -> int:
    return _count(value) or _fail("must be at least 1")


def _multiplier(value: object) -> int:
    number = _positive(value)
    return number if number <= MAX_MULTIPLIER else _fail(f"must be at most {MAX_MULTIPLIER}", "use a longer unit")


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        _fail(f"must be true or false, not {_kind(value)}", "write true or false, without quotes")
    return value


def _algorithm(value: object) -> Algorithm:
    text = _text(value)
    try:
        return Algorithm(text)
    except ValueError:
        _fail(f"unknown algorithm{quoted(text, Algorithm)}", "write one of " + ", ".join(Algorithm))


def _policy(value: object) -> OnStoreFailure:
    text = _text(value)
    try:
        return OnStoreFailure(text)
    except ValueError:
        word = text.lower().replace("-", "_")
        near = _OTHER_POLICIES.get(word) or nearest(word, OnStoreFailure)
        hint = f"did you mean {str(near)!r}?" if near else "write one of " + ", ".join(OnStoreFailure)
        _fail(f"unknown policy{quoted(text, (*OnStoreFailure, *_OTHER_POLICIES))}", hint)


def _label(value: object) -> str:
    if (text := _text(value)) != "path":
        _fail(f"unknown label{quoted(text, ('path',))}", "the metrics have one label to fill: path")
    return text


def _digest(value: object) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text := _text(value)):
        _fail("must be a SHA-256 in 64 hexadecimal digits", "print it with `extauth hash`")
    return text.lower()


def _network(value: object) -> str:
    network = read_network(text := _text(value))
    if network is None:
        _fail("must be an IP network, such as 10.0.0.0/8 or 2001:db8::/32")
    address = read_network(text.partition("/")[0])
    if address is None or address != Network(
        network.bits, network.bits, network.prefix << network.bits - network.length
    ):
        _fail("must have no bits behind its prefix", f"write {network.text}")
    return network.text


def _metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(f"must be a mapping, not {_kind(value)}")
    _check_json(value)
    return value


def _check_json(value: object) -> None:
    """A google.protobuf.Struct, into which metadata goes, must be able to hold it."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_json(item)
    if isinstance(value, float) and not isfinite(value):
        _fail("must be finite where it is a number")


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]
Count = Annotated[int, BeforeValidator(_count), Field(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, BeforeValidator(_positive), Field(ge=1, le=MAX_COUNT)]
Multiplier = Annotated[int, BeforeValidator(_multiplier), Field(ge=1, le=MAX_MULTIPLIER)]
Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]
AlgorithmName = Annotated[Algorithm, BeforeValidator(_algorithm)]
PolicyName = Annotated[OnStoreFailure, BeforeValidator(_policy)]
Label = Annotated[Literal["path"], BeforeValidator(_label)]
Digest = Annotated[str, BeforeValidator(_digest), Field(pattern="^[0-9a-fA-F]{64}$")]
NetworkText = Annotated[str, BeforeValidator(_network)]
Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]
