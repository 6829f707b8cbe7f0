"""A YAML document as the plain data that the schema takes, and the place of each of its parts."""

from typing import Any

from extauth.config.known_keys import ANYTHING, Location, Shape, shapes
from extauth.config.yaml_document import Mapping, Sequence
from extauth.config.yaml_scalars import Scalar, value_of
from extauth.errors import Place


def typed(node: Any, shape: Shape = ANYTHING) -> Any:  # noqa: ANN401 - a tree of any shape
    """The node as plain data. Where a string belongs, a scalar is its text, whatever it looks like: 010, yes, 2026.

    Numbers with a fraction or exponent stay numbers even there, so that the schema refuses them.
    """
    if isinstance(node, Scalar):
        return str(node) if shape.text and node.tag != "float" else value_of(node)
    if isinstance(node, Mapping):
        if shape.by_name:
            named = Shape(model=shape.model)
            return {str(key): typed(item, named) for key, item in node.items()}
        known = shapes(shape.model) if shape.model is not None else {}
        return {
            str(key): str(item)
            if type(item) is Scalar and item.tag == "str"  # as most are, and so for speed
            else typed(item, known.get(key, ANYTHING))
            for key, item in node.items()
        }
    if isinstance(node, Sequence):
        return [typed(item, shape) for item in node]
    return None


class Places:
    """Looks up where the parts of a document are."""

    def __init__(self, file: str, root: Any) -> None:  # noqa: ANN401 - a tree of any shape
        self._root = root
        self._start = getattr(root, "place", Place(file, 1, 1))

    def __call__(self, location: Location, *, at_key: bool = False) -> Place:
        """The place of the value at `location`, or with `at_key` of the key before it.

        Where there is no such part, or it is empty, the nearest place before it.
        """
        node, place = self._root, self._start
        for i, step in enumerate(location, 1):
            if not isinstance(node, Mapping | Sequence):
                break
            parent = node
            try:
                node = parent[step]  # type: ignore[index]  # a key or an index, as fits the parent
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(parent, Mapping) and (node is None or (at_key and i == len(location))):
                place = next(key.place for key in parent if key == step)
            else:
                place = getattr(node, "place", place)
        return place
