"""Keys of envoyproxy/ratelimit where they have no effect: a file that has them there must load all the same."""

from collections.abc import Iterator
from typing import Any

from extauth.config.diagnostics import quoted
from extauth.config.known_keys import A_FILE, Shape, shapes
from extauth.config.schema import REFERENCE_KEYS, DescriptorModel, FileModel, RateLimitModel
from extauth.config.yaml_document import Mapping, Sequence
from extauth.errors import Diagnostic, Place


def drop_ignored(node: Any, file: str, shape: Shape = A_FILE) -> Iterator[Diagnostic]:  # noqa: ANN401 - a tree of any shape
    """Remove these keys from a document, with a warning for each and an error for what even the reference refuses."""
    if isinstance(node, Sequence):
        for item in node:
            yield from drop_ignored(item, file, shape)
    if not isinstance(node, Mapping):
        return
    if shape.by_name:
        for item in node.values():
            yield from drop_ignored(item, file, Shape(model=shape.model))
        return
    known = shapes(shape.model) if shape.model is not None else {}
    for key in list(node):
        if key in known:
            if key != "metadata":
                yield from drop_ignored(node[key], file, known[key])
        elif key in REFERENCE_KEYS:
            if key != "metadata":
                yield from _refused(node[key], file)
            message = f"{str(key)!r} has no effect here (envoyproxy/ratelimit ignores it too)"
            yield Diagnostic.warning(key.place, message, _home(key))
            del node[key]


def _refused(node: Any, file: str) -> Iterator[Diagnostic]:  # noqa: ANN401
    """Even what is ignored must have only known keys."""
    for item in node if isinstance(node, Sequence) else [node]:
        in_list = isinstance(node, Sequence) and not isinstance(item, Mapping)
        if in_list or getattr(item, "tag", "") == "float":
            place: Place = getattr(item, "place", getattr(node, "place", Place(file, 1, 1)))
            message = "envoyproxy/ratelimit takes only mappings in lists, and no numbers with a fraction"
            yield Diagnostic.error(place, message, "remove it")
        for key in item if isinstance(item, Mapping) else ():
            if key not in REFERENCE_KEYS:
                yield Diagnostic.error(key.place, f"unknown key{quoted(key, REFERENCE_KEYS)}", "remove it")
            elif key != "metadata":
                yield from _refused(item[key], file)


def _home(key: str) -> str:
    """Where a key of the reference belongs."""
    for name, model in (("rate_limit", RateLimitModel), ("a descriptor", DescriptorModel), ("the file", FileModel)):
        if key in model.model_fields:
            return f"it belongs to {name}"
    return "remove it"
