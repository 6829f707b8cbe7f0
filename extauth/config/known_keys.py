"""Which keys a mapping of a config may have, what its values are, and which key a misspelt one was meant to be."""

from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from extauth.config.schema import (
    REFERENCE_KEYS,
    DescriptorModel,
    FileModel,
    Model,
    RangeModel,
    RateLimitModel,
    ReplacesModel,
)
from extauth.errors import nearest

Location = tuple[str | int, ...]
"""A path of keys and indices, from the root of a config."""

# What others call our keys, where the nearest of ours would mislead.
_POLICY_WORDS = dict.fromkeys(("failure_mode", "failure_policy", "on_failure", "on_error"), "on_store_failure")
_OTHER_WORDS: dict[type[Model], dict[str, str]] = {
    FileModel: _POLICY_WORDS,
    RateLimitModel: {
        **_POLICY_WORDS,
        **dict.fromkeys(("limit", "limits", "rate", "requests", "count", "max", "quota"), "requests_per_unit"),
        **dict.fromkeys(("per", "period", "interval", "window"), "unit"),
        "multiplier": "unit_multiplier",
    },
    DescriptorModel: {
        "regex": "value_regex",
        "range": "value_range",
        "sha256": "value_sha256",
        **dict.fromkeys(("cidr", "network", "networks"), "value_cidr"),
    },
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


class Shape(NamedTuple):
    """What may be the value of a key, or an item of its list.

    It is a string if `text`, a mapping that fits the `model`, or with `by_name` a mapping from names to such mappings.
    """

    text: bool = False
    model: type[Model] | None = None
    by_name: bool = False


ANYTHING = Shape()
A_FILE = Shape(model=FileModel)


@cache
def shapes(model: type[Model]) -> dict[str, Shape]:
    """The shape of each key's value in a `model`'s mapping."""
    return {key: _shape(field.annotation) for key, field in model.model_fields.items()}


def _shape(annotation: Any) -> Shape:  # noqa: ANN401 - a type
    types: set[Any] = set()
    pending = [annotation]
    while pending:
        each = pending.pop()
        types.add(each if get_origin(each) is None else get_origin(each))
        pending += get_args(each) if get_origin(each) is not Literal else ()
    model = next((each for each in types if isinstance(each, type) and issubclass(each, Model)), None)
    text = model is None and types.isdisjoint({int, bool, dict})
    return Shape(text, model, by_name=model is not None and dict in types)


def model_under(model: type[Model] | None, key: str) -> type[Model] | None:
    """The model of the mappings that may be under `key` of a `model`'s mapping; None where there is none."""
    shape = ANYTHING if model is None else shapes(model).get(key, ANYTHING)
    return None if shape.by_name else shape.model


def model_at(location: Location) -> type[Model]:
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
        if model is DescriptorModel and isinstance(value, dict | list):
            return "rate_limit" if isinstance(value, dict) else "rate_limits"
        return ""
    return _OTHER_WORDS.get(model, {}).get(key) or nearest(key, model.model_fields)
