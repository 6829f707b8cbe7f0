"""What the schema refuses, from pydantic's errors to messages in a config's own words."""

from collections.abc import Iterator

from pydantic_core import ErrorDetails

from extauth.config.diagnostics import MAX_PROBLEMS, Diagnostics, limit_for, quoted
from extauth.config.known_keys import LIMIT_WORDS, WORDS, Location, meant, model_at
from extauth.config.schema import DescriptorModel, FileModel, RateLimitModel

MAX_RENAMED = 1000  # misspelt keys of a file for which the meant one is looked for


def add_refusal(found: Diagnostics, detail: ErrorDetails) -> None:
    """Add the problem that a detail of a ValidationError is about."""
    if len(found.problems) > MAX_PROBLEMS:
        found.error((), "")  # is only counted
        return
    *parents, last = location = detail["loc"] or ("",)
    if last == "[key]":
        *parents, last = location = location[:-1]
        found.error(location, f"a key of {_what(tuple(parents))} {_message(detail)}", at_key=True)
        return
    match detail["type"]:
        case "extra_forbidden":
            key = str(last)
            hint = _fix_for(key, tuple(parents), detail["input"])
            found.error(location, f"unknown key{quoted(key, WORDS)}", hint, at_key=True)
        case "missing":
            found.error(tuple(parents), f"{last!r} is missing", f"add {last}: …")
        case "model_type" | "dict_type":
            found.error(location, f"{_what(location)} must be a mapping", _mapping_fix(location, detail["input"]))
        case "list_type":
            found.error(location, f"{_what(location)} must be a list", "start each item with '- '")
        case _:
            message = _message(detail)
            if message.startswith("must "):
                message = f"{_what(location)} {message}"
            found.error(location, message, detail.get("ctx", {}).get("fix", ""))


def renamed_keys(details: list[ErrorDetails]) -> dict[Location, str]:
    """The key that was perhaps meant, for each location that ends in an unknown one."""
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"][:MAX_RENAMED]
    return {
        detail["loc"]: key
        for detail in unknown
        if (key := meant(str(detail["loc"][-1]), model_at(detail["loc"][:-1]), detail["input"]))
    }


def _fix_for(key: str, parents: Location, value: object) -> str:
    """The hint for an unknown key."""
    model = model_at(parents)
    near = meant(key, model, value)
    if near:
        return f"did you mean {near!r}?"
    if key in LIMIT_WORDS and model in {FileModel, DescriptorModel}:
        where = ", in a descriptor" if model is FileModel else ""
        return f"write `rate_limit: {limit_for(value)}`{where}"
    if model is DescriptorModel and key in RateLimitModel.model_fields:
        return "it belongs to rate_limit"
    return "the keys here are " + ", ".join(model.model_fields)


def _mapping_fix(location: Location, value: object) -> str:
    """The hint for a value that should be a mapping."""
    match location:
        case ("tiers",):
            return "write each as `NAME: {unit: …, requests_per_unit: …}`"
        case ("tiers", _) | (*_, "rate_limit") | (*_, "rate_limits", int()):
            return f"write `{limit_for(value)}`"
        case (*_, "replaces", int()):
            return "write `{name: …}`"
        case (*_, "descriptors", int()):
            return "write `{key: …}`"
        case (*_, "value_range"):
            return "write `{start: …, end: …}`"
    return ""


def _message(detail: ErrorDetails) -> str:
    return str(detail.get("ctx", {}).get("message", detail["msg"]))


def _what(location: Location) -> str:
    """How messages call the value at `location`: its key, or its place in a list."""
    names: Iterator[str] = (step for step in reversed(location) if isinstance(step, str) and step)
    name = next(names, "")
    if location[:1] == ("tiers",) and len(location) == 2:
        return "a tier"  # whose name may be anything
    if not name:
        return "the file"
    return f"each item of {name!r}" if isinstance(location[-1], int) else repr(name)
