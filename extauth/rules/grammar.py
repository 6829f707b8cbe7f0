"""What may stand in a config file.

The models take a file as `document.py` reads it: mappings, lists and `Scalar`s. A scalar keeps the text that stands in
the file, so that each field decides what it means: `value: 10` is the string "10", `requests_per_unit: 10` a number.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from extauth.rules.model import Algorithm, Unit

MAX_REQUESTS_PER_UNIT = 2**32 - 1  # RateLimitResponse.RateLimit.requests_per_unit is a uint32


def _fail(message: str, fix: str = "") -> NoReturn:
    raise PydanticCustomError("extauth", "{message}", {"message": message, "fix": fix})


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(shown(str(value)))


def shown(text: str) -> str:
    """As much of a text from a file as a message has room for."""
    return text if len(text) <= 60 else text[:60] + "…"


def _text(value: object) -> str:
    if not isinstance(value, str):
        _fail(f"must be a string, not {_kind(value)}")
    return str(value)


def _name(value: object) -> str:
    return _text(value) or _fail("must not be empty")


def _value(value: object) -> str:
    if "*" in (text := _text(value)):
        _fail("wildcards (a value with *) are not supported", "name the values one by one")
    return text


def _count(value: object) -> int:
    text = str(value).replace("_", "")
    if getattr(value, "tag", "") != "int" or not re.fullmatch(r"\+?\d+", text) or (len(text) > 1 and text[0] == "0"):
        _fail(f"must be 0, 1, 2, …, not {_kind(value)}", "write digits, without quotes")
    if len(text) > 11 or int(text) > MAX_REQUESTS_PER_UNIT:
        _fail(f"must be at most {MAX_REQUESTS_PER_UNIT}, not {shown(text)}")
    return int(text)


def _flag(value: object) -> bool:
    if getattr(value, "tag", "") != "bool":
        _fail(f"must be true or false, not {_kind(value)}")
    return str(value).lower() in {"true", "yes", "on"}


def _unit(value: object) -> Unit:
    try:
        return Unit[_text(value).upper()]
    except KeyError:
        _fail(f"invalid unit {_kind(value)}", "write one of " + ", ".join(map(str, Unit)))


def _algorithm(value: object) -> Algorithm:
    try:
        return Algorithm(_text(value))
    except ValueError:
        _fail(f"unknown algorithm {_kind(value)}", "write one of " + ", ".join(Algorithm))


def _label(value: object) -> str:
    if (text := _text(value)) != "path":
        _fail(f"unknown label {_kind(value)}", "the metrics have one label to fill: path")
    return text


Text = Annotated[str, BeforeValidator(_text)]
Value = Annotated[str, BeforeValidator(_value)]
Name = Annotated[str, BeforeValidator(_name)]
Count = Annotated[int, BeforeValidator(_count)]
Flag = Annotated[bool, BeforeValidator(_flag)]
UnitName = Annotated[Unit, BeforeValidator(_unit)]
AlgorithmName = Annotated[Algorithm, BeforeValidator(_algorithm)]
Label = Annotated[Literal["path"], BeforeValidator(_label)]


class _Model(BaseModel):
    """A mapping. A key with nothing after it counts as absent, unless it is one of `never_empty`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    never_empty: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        if isinstance(data, dict) and None in data.values():
            kept = cls.never_empty
            return {k: v for k, v in data.items() if v is not None or k in kept or k not in cls.model_fields}
        return data


class ReplacesModel(_Model):
    """`{name: NAME}`: a limit by that name does not apply where this one does."""

    name: Name


class RateLimitModel(_Model):
    """`rate_limit`, and each of `tiers`."""

    unit: UnitName
    requests_per_unit: Count
    name: Text = ""
    replaces: list[ReplacesModel] = Field(default_factory=list)
    algorithm: AlgorithmName | None = None
    count_denied: Flag | None = None


class DescriptorModel(_Model):
    """A descriptor: what it matches, its limit or tier, and the descriptors under it."""

    never_empty = frozenset({"tier"})  # which would take the limit away

    key: Name
    value: Value = ""
    rate_limit: RateLimitModel | None = None
    tier: Name = ""
    descriptors: list["DescriptorModel"] = Field(default_factory=list)


class FileModel(_Model):
    """A whole file."""

    domain: Name
    algorithm: AlgorithmName = Algorithm.FIXED_WINDOW
    count_denied: Flag | None = None
    labels: list[Label] = Field(default_factory=list)
    tiers: dict[Name, RateLimitModel] = Field(default_factory=dict)
    descriptors: list[DescriptorModel] = Field(default_factory=list)


def keys_at(location: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the mapping at `location`, to name the nearest to a misspelt one."""
    model: type[_Model] = FileModel
    steps = iter(location)
    for step in steps:
        if step == "tiers" and model is FileModel:
            next(steps, None)  # the tier's name, which may be any
            model = RateLimitModel
        elif isinstance(step, str):
            model = _MODELS.get(step, model)
    return list(model.model_fields)


_MODELS: dict[str, type[_Model]] = {
    "descriptors": DescriptorModel,
    "rate_limit": RateLimitModel,
    "replaces": ReplacesModel,
}
