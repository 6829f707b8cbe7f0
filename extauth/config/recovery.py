"""Removes from a document what the schema has refused, so that the rest can be checked all the same."""

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence as AnySequence
from itertools import count
from typing import Any

from pydantic_core import ErrorDetails

from extauth.config.yaml_document import Mapping, Sequence
from extauth.config.yaml_scalars import Scalar

_WHOLE = ("value_range", "replaces")  # no part of these makes sense by itself


def mend(
    root: Any,  # noqa: ANN401 - a tree of any shape
    details: AnySequence[ErrorDetails],
    renamed: AnyMapping[tuple[str | int, ...], str],
) -> None:
    """Remove what the errors are about, in place; what is missing gets a stand-in that clashes with nothing.

    The keys that are `renamed`, by their locations, are taken for those that were meant.
    """
    names = (f"\0{number}" for number in count())
    for detail in details:
        location = [step for step in detail["loc"] if step != "[key]"]
        missing, unknown = detail["type"] == "missing", detail["type"] == "extra_forbidden"
        for whole in _WHOLE:
            if whole in location:
                del location[location.index(whole) + 1 :]
                missing = unknown = False
        if not location:
            continue
        *steps, last = location
        parent = _walk(root, steps)
        key = next((key for key in parent if key == last), None) if isinstance(parent, Mapping) else None
        if isinstance(parent, Mapping) and unknown:
            if key is None:
                continue
            value, name = parent.pop(key), renamed.get(detail["loc"], "")
            if name and name not in parent and value is not None:
                parent[Scalar(name, place=key.place)] = value
        elif isinstance(parent, Mapping):
            parent.pop(last, None)  # type: ignore[call-overload]  # keys are strings that know their place
            if missing or last in {"key", "domain"}:
                parent[Scalar(str(last))] = Scalar(next(names))
        elif isinstance(parent, Sequence) and isinstance(last, int) and last < len(parent):
            parent[last] = _stand_in(steps[-1], next(names))


def _walk(node: Any, steps: list[str | int]) -> Any:  # noqa: ANN401
    for step in steps:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def _stand_in(within: str | int, name: str) -> Any:  # noqa: ANN401
    """An item of a list."""
    if within == "descriptors":
        return Mapping({Scalar("key"): Scalar(name)})
    if within == "rate_limits":
        return Mapping({Scalar("unit"): Scalar("day")})
    if within == "value_cidr":
        return Scalar(f"::{int(name[1:]):x}/128")
    return Scalar("path" if within == "labels" else name)
