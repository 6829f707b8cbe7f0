"""What may stand in a config file.

The models take a file as `document.py` reads it: mappings, lists and `Scalar`s. A scalar keeps the text that stands in
the file, so that each field decides what it means: `value: 10` is the string "10", `requests_per_unit: 10` a number.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, NoReturn, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from extauth.config.diagnostics import quoted
from extauth.config.yaml_document import TRUE, Mapping, Scalar, Sequence, to_float, to_int
from extauth.errors import nearest
from extauth.rules.model import Algorithm

MAX_COUNT = 2**32 - 1  # RateLimitResponse.RateLimit.requests_per_unit is a uint32
MAX_MULTIPLIER = 10_000

# envoyproxy/ratelimit checks keys against one list, wherever they stand, and ignores those that mean nothing there.
REFERENCE_KEYS = frozenset(
    [
        "domain",
        "key",
        "value",
        "descriptors",
        "rate_limit",
        "unit",
        "requests_per_unit",
        "unlimited",
        "shadow_mode",
        "quota_mode",
        "name",
        "replaces",
        "detailed_metric",
        "value_to_metric",
        "share_threshold",
        "metadata",
    ]
)


def _fail(message: str, hint: str = "") -> NoReturn:
    raise PydanticCustomError("extauth", "{message}", {"message": message, "fix": hint})


_KINDS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else _KINDS.get(getattr(value, "tag", ""), "a string")


def _text(value: object) -> str:
    if not isinstance(value, str):
        _fail(f"must be a string, not {_kind(value)}")
    if getattr(value, "tag", "") == "float":
        _fail("must be a string, not a number with a fraction or exponent", "quote it")  # which may be an API key
    return str(value)


def _name(value: object) -> str:
    return _text(value) or _fail("must not be empty")


def _whole(value: object) -> int:
    if getattr(value, "tag", "") != "int":
        if re.fullmatch(r"\+?[0-9_]+", str(value)) and getattr(value, "tag", "") == "float":
            _fail(f"must be at most {MAX_COUNT}")
        kind = "a number with a fraction or exponent" if getattr(value, "tag", "") == "float" else _kind(value)
        _fail(f"must be a whole number, not {kind}", "write digits, without quotes")
    return to_int(str(value))


def _count(value: object) -> int:
    number = _whole(value)
    if number < 0:
        _fail("must be 0, 1, 2, …, not a negative number")
    if number > MAX_COUNT:
        _fail(f"must be at most {MAX_COUNT}")
    return number


def _positive(value: object) -> int:
    return _count(value) or _fail("must be at least 1")


def _multiplier(value: object) -> int:
    number = _positive(value)
    if number > MAX_MULTIPLIER:
        _fail(f"must be at most {MAX_MULTIPLIER}", "use a longer unit")
    return number


def _flag(value: object) -> bool:
    if getattr(value, "tag", "") != "bool":
        _fail(f"must be true or false, not {_kind(value)}", "write true or false, without quotes")
    return str(value) in TRUE


def _algorithm(value: object) -> Algorithm:
    text = _text(value)
    try:
        return Algorithm(text)
    except ValueError:
        _fail(f"unknown algorithm{quoted(text, Algorithm)}", "write one of " + ", ".join(Algorithm))


def _label(value: object) -> str:
    if (text := _text(value)) != "path":
        _fail(f"unknown label{quoted(text, ('path',))}", "the metrics have one label to fill: path")
    return text


def _digest(value: object) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text := _text(value)):
        _fail("must be a SHA-256 in 64 hexadecimal digits", "print it with `extauth hash`")
    return text.lower()


def _metadata(value: object) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict):
        _fail(f"must be a mapping, not {_kind(value)}")
    return plain(value)


def plain(value: object) -> Any:  # noqa: ANN401, PLR0911 - any JSON
    """A part of a document as JSON's data: a google.protobuf.Struct can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    match getattr(value, "tag", "null"):
        case "int":
            return to_int(str(value))
        case "float":
            return _float(str(value))
        case "bool":
            return str(value) in TRUE
        case "null":
            return None
    return str(value)


def _float(text: str) -> float:
    number = to_float(text)
    return number if number == number and abs(number) != float("inf") else _fail("must be finite where it is a number")  # noqa: PLR0124


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]
Count = Annotated[int, BeforeValidator(_count), Field(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, BeforeValidator(_positive), Field(ge=1, le=MAX_COUNT)]
Multiplier = Annotated[int, BeforeValidator(_multiplier), Field(ge=1, le=MAX_MULTIPLIER)]
Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]
AlgorithmName = Annotated[Algorithm, BeforeValidator(_algorithm)]
Label = Annotated[Literal["path"], BeforeValidator(_label)]
Digest = Annotated[str, BeforeValidator(_digest), Field(pattern="^[0-9a-fA-F]{64}$")]
Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]


class Model(BaseModel):
    """A mapping. A key with nothing after it counts as absent, unless it is one of `never_empty`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    never_empty: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        if isinstance(data, dict) and None in data.values():
            nothing = Scalar("", "null")
            return {
                key: nothing if value is None and key in cls.never_empty else value
                for key, value in data.items()
                if value is not None or key in cls.never_empty or key not in cls.model_fields
            }
        return data


class ReplacesModel(Model):
    """`{name: NAME}`: a limit by that name does not apply where this one does."""

    never_empty = frozenset({"name"})

    name: Name = Field(description="The name of a limit or tier.")


class RateLimitModel(Model):
    """A limit: `rate_limit`, an item of `rate_limits`, or one of `tiers`."""

    unit: Text = Field("", description="second, minute, hour, day, week, month (30 days) or year (365 days).")
    requests_per_unit: Count = Field(0, description="How many requests a unit; 0 denies all.")
    unlimited: Flag = Field(False, description="Count nothing and admit all; takes no unit.")
    name: Text = Field("", description="The name by which another limit's `replaces` refers to this one.")
    replaces: list[ReplacesModel] = Field(
        default_factory=list, description="Limits that do not apply to a request to which this one does."
    )
    unit_multiplier: Multiplier = Field(1, description="The window is so many units long.")
    algorithm: AlgorithmName | None = Field(None, description="How to count; by default the file's.")
    burst: Positive | None = Field(
        None, description="gcra: how many requests at one instant after a rest; by default requests_per_unit."
    )
    count_denied: Flag | None = Field(
        None, description="Whether hits count even when the request is denied; by default only in fixed windows."
    )


class RangeModel(Model):
    """Whole numbers from `start` to before `end`, as Envoy's Int64Range."""

    start: Whole = Field(description="The first number that matches.")
    end: Whole = Field(description="The first number that matches no more.")


class DescriptorModel(Model):
    """A descriptor: what it matches, its limits or tier, and the descriptors under it."""

    never_empty = frozenset({"tier", "value_sha256", "value_regex", "value_range", "values"})  # which would match all

    key: Name = Field(description="The entry's key.")
    value: Text = Field(
        "", description="The entry's value, in which each * stands for any text; without one, any value."
    )
    values: list[Name] | None = Field(None, description="The entry's value is one of these.")
    value_sha256: Digest | None = Field(None, description="The SHA-256 of the entry's value: `extauth hash` prints it.")
    value_regex: Name | None = Field(None, description="An RE2 regex that the whole of the entry's value matches.")
    value_range: RangeModel | None = Field(None, description="The entry's value is a whole number in this range.")
    rate_limit: RateLimitModel | None = Field(None, description="The limit.")
    rate_limits: list[RateLimitModel] | None = Field(None, description="Several limits, which must all admit.")
    tier: Name = Field("", description="The name of one of the file's tiers, whose limit applies.")
    descriptors: list["DescriptorModel"] = Field(default_factory=list, description="What the next entry may match.")
    shadow_mode: Flag = Field(False, description="Count and report, and never deny.")
    quota_mode: Flag = Field(False, description="Deny only where all quotas that apply are used up.")
    share_threshold: Flag = Field(False, description="All values that match the wildcard share one counter.")
    detailed_metric: Flag = Field(False, description="The metric names all entries with their values.")
    value_to_metric: Flag = Field(False, description="The metric names the entry's value.")
    metadata: Metadata | None = Field(None, description="Goes into the answer's dynamic metadata.")


class FileModel(Model):
    """A config file of extauth: a superset of envoyproxy/ratelimit's."""

    domain: Name = Field(description="Which requests the rules are for: the rate-limit filter's `domain`.")
    algorithm: AlgorithmName = Field(Algorithm.FIXED_WINDOW, description="How limits count, where they do not say.")
    count_denied: Flag | None = Field(None, description="The default of limits that do not say.")
    labels: list[Label] = Field(
        default_factory=list, description="Keys whose descriptors limit nothing: their values label the metrics."
    )
    secret: list[Name] | None = Field(
        None,
        description="Keys whose values are shown only masked, besides those whose names look so; `[]`: no key's are.",
    )
    tiers: dict[Name, RateLimitModel] = Field(default_factory=dict, description="Named limits, by name.")
    descriptors: list[DescriptorModel] = Field(default_factory=list, description="The rules.")


# What others call our keys, where the nearest of ours would mislead.
_OTHER_WORDS: dict[type[Model], dict[str, str]] = {
    RateLimitModel: {
        **dict.fromkeys(("limit", "limits", "rate", "requests", "count", "max", "quota"), "requests_per_unit"),
        **dict.fromkeys(("per", "period", "interval", "window"), "unit"),
        "multiplier": "unit_multiplier",
    },
    DescriptorModel: {"regex": "value_regex", "range": "value_range", "sha256": "value_sha256"},
}
LIMIT_WORDS = frozenset(
    {"limit", "limits", "rate", "rates", "ratelimit", "ratelimits", "rateLimit", "rateLimits", "quota"}
)
WORDS = (
    LIMIT_WORDS
    | REFERENCE_KEYS
    | {
        word
        for model in (FileModel, DescriptorModel, RateLimitModel, ReplacesModel, RangeModel)
        for word in (*model.model_fields, *_OTHER_WORDS.get(model, ()))
    }
)


def model_under(model: type[Model] | None, key: str) -> type[Model] | None:
    """The model of the mappings that may stand under `key` of a `model`'s mapping; None where there is none."""
    if model is None or key not in model.model_fields or key == "tiers":
        return None
    inner = model.model_fields[key].annotation
    pending: list[Any] = [inner]
    while pending:
        candidate = pending.pop()
        if isinstance(candidate, type) and issubclass(candidate, Model):
            return candidate
        pending += get_args(candidate)
    return None


def model_at(location: tuple[str | int, ...]) -> type[Model]:
    """The model of the mapping at `location`, to name the nearest of its keys to a misspelt one."""
    model: type[Model] = FileModel
    steps = iter(location)
    for step in steps:
        if step == "tiers" and model is FileModel:
            next(steps, None)  # the tier's name, which may be any
            model = RateLimitModel
        elif isinstance(step, str):
            model = model_under(model, step) or model
    return model


def meant(key: str, model: type[Model], value: object) -> str:
    """The key that was perhaps meant by one that the `model` does not know, and which `value` follows, or nothing."""
    if key in LIMIT_WORDS and model in {FileModel, DescriptorModel}:
        if model is DescriptorModel and isinstance(value, Mapping | Sequence):
            return "rate_limit" if isinstance(value, Mapping) else "rate_limits"
        return ""
    return _OTHER_WORDS.get(model, {}).get(key) or nearest(key, model.model_fields)
