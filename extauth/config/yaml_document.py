"""A YAML text as a tree in which every value knows its place.

It is built from the parser's events, in Python: composing in the C library would hold the interpreter, and with it
every call under way, for as long as a large file takes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from extauth.config.diagnostics import quoted
from extauth.config.yaml_errors import DocumentError, explained, not_yaml, place_of
from extauth.config.yaml_scalars import Scalar, explicit_tag, fits, key_text, plain_tag
from extauth.errors import Diagnostic, Place

MAX_NODES = 2_000_000  # after aliases are followed: 100,000 rules take about 700,000
MAX_ALIASED_NODES = 10_000  # beyond what a text of that length can hold without aliases
MAX_DEPTH = 200
MAX_NAMED = 50  # repeated keys that diagnostics name


class Mapping(dict[Scalar, Any]):
    """A YAML mapping; its keys are Scalars."""

    __slots__ = ("place",)
    place: Place


class Sequence(list[Any]):
    """A YAML sequence."""

    __slots__ = ("place",)
    place: Place


@dataclass(slots=True)
class _Open:
    """A collection that has not ended yet."""

    into: Mapping | Sequence
    anchor: str | None
    nodes: int = 1
    height: int = 1
    key: Scalar | None = None
    awaits_key: bool = True
    merged: set[str] = field(default_factory=set)  # keys that came by <<


@dataclass(slots=True)
class _Anchored:
    """The target of an alias: `value` is complete; `nodes` and `height` count it with its own aliases written out."""

    value: Any
    nodes: int
    height: int


@dataclass(slots=True)
class _Builder:
    """Puts events together."""

    file: str
    most_nodes: int
    words: Collection[str] = ()
    diagnostics: list[Diagnostic] = field(default_factory=list)
    root: Any = None
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, _Anchored | None] = field(default_factory=dict)

    def add(self, event: yaml.Event) -> None:
        mark = event.start_mark
        place = Place(self.file, 1, 1) if mark is None else Place(self.file, mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.tag is None and event.implicit[0]
            value = Scalar(event.value, plain_tag(event.value) if plain else self._tag(event, place), place)
            if event.anchor is not None:
                self._anchors[event.anchor] = _Anchored(value, 1, 1)
            self._put(value, place, 1, 1)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            into = Mapping() if isinstance(event, yaml.MappingStartEvent) else Sequence()
            into.place = place
            if event.anchor is not None:
                self._anchors[event.anchor] = None
            self._open.append(_Open(into, event.anchor))
            self._check_depth(len(self._open), place)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            if done.anchor is not None:
                self._anchors[done.anchor] = _Anchored(done.into, done.nodes, done.height)
            self._put(done.into, done.into.place, done.nodes, done.height)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", place)

    def _alias(self, anchor: str, place: Place) -> None:
        if anchor not in self._anchors:
            hint = (
                'quote a text that begins with *, as in `value: "*"`, or put & and its name before what it stands for'
            )
            raise not_yaml(place, "this alias refers to no anchor", hint)
        anchored = self._anchors[anchor]
        if anchored is None:
            raise DocumentError(place, "this alias is inside the value that it refers to", "write it out")
        self._check_depth(len(self._open) + anchored.height, place)
        self._put(anchored.value, place, anchored.nodes, anchored.height)

    def _put(self, value: Any, place: Place, nodes: int, height: int) -> None:  # noqa: ANN401 - a tree of any shape
        if isinstance(value, Scalar) and value.tag == "null":
            value = None
        if not self._open:
            self.root = value
            return
        parent = self._open[-1]
        parent.nodes += nodes
        parent.height = max(parent.height, height + 1)
        if parent.nodes > self.most_nodes:
            message = f"the file holds more than {self.most_nodes} values once its aliases are followed"
            raise DocumentError(place, message, "write it flatter, without nested aliases")
        into = parent.into
        if isinstance(into, Sequence):
            into.append(value)
        elif parent.awaits_key:
            parent.key = self._key(into, value, place)
            parent.awaits_key = False
        else:
            if parent.key is not None and parent.key.tag == "merge":
                self._merge(parent, into, value, place)
            elif parent.key is not None:
                _assign(into, parent.key, value)
                parent.merged.discard(parent.key)
            parent.awaits_key = True

    def _key(self, into: Mapping, value: Any, place: Place) -> Scalar | None:  # noqa: ANN401
        if not isinstance(value, Scalar) or value.tag not in {"str", "merge"}:
            if not isinstance(value, dict | list) and any(level.key == "metadata" for level in self._open[:-1]):
                top = len(self._open) > 1 and self._open[-2].key == "metadata"
                return Scalar(key_text(value, top=top), "str", place)  # anything goes there
            self.diagnostics.append(Diagnostic.error(place, "a key must be a string", "quote it"))
            return None
        if value in into and value not in self._open[-1].merged:
            words = self.words if len(self.diagnostics) < MAX_NAMED else ()  # to look for the nearest takes time
            message = f"the key{quoted(value, words)} appears twice in one mapping; the last one applies"
            self.diagnostics.append(Diagnostic.warning(place, message, "keep one of the two"))
        return value

    def _merge(self, parent: _Open, into: Mapping, value: Any, place: Place) -> None:  # noqa: ANN401
        """Merge keys (YAML 1.1): in a list, the earlier mapping wins; all win over what precedes the key."""
        sources = value if isinstance(value, Sequence) else [value]
        if not all(isinstance(source, Mapping) for source in sources):
            self.diagnostics.append(
                Diagnostic.error(place, "<< takes a mapping, or a list of mappings", "name one by an alias")
            )
            return
        for source in reversed(sources):
            for key, item in source.items():
                _assign(into, key, item)
                parent.merged.add(key)

    def _tag(self, event: yaml.ScalarEvent, place: Place) -> str:
        tag = explicit_tag(event)
        if event.tag is not None and not fits(event.value, tag):
            self.diagnostics.append(
                Diagnostic.error(place, f"this value does not fit its tag, {tag}", "remove the tag")
            )
            return "str"
        return tag

    def _check_depth(self, depth: int, place: Place) -> None:
        if depth > MAX_DEPTH:
            raise DocumentError(place, f"the file nests deeper than {MAX_DEPTH} levels", "write it flatter")


def read_document(file: str, text: str, words: Collection[str] = ()) -> tuple[Any, list[Diagnostic]]:
    """The text as Mapping, Sequence, Scalar or None (for nothing and for null); raises DocumentError.

    YAML 1.1, as gopkg.in/yaml.v2 reads it: only the first document counts, and of a repeated key the last. The
    diagnostics warn of both, and report keys that are not strings, which are left out. `words` are keys that messages
    may show.
    """
    builder = _builder(file, text, words)
    ended = False
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if ended and isinstance(event, yaml.DocumentStartEvent):
                builder.diagnostics.append(_another(place_of(file, event.start_mark)))
                break
            builder.add(event)
            ended = ended or isinstance(event, yaml.DocumentEndEvent)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        place, what = explained(error, file, text)
        if not ended:
            raise not_yaml(place, what) from error
        builder.diagnostics.append(_another(place))
    return builder.root, builder.diagnostics


def read_documents(file: str, text: str) -> Iterator[Any]:
    """All documents of the text, each as `read_document` gives it; raises DocumentError."""
    builder = _builder(file, text)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.add(event)
            if isinstance(event, yaml.DocumentEndEvent):
                yield builder.root
                builder = _builder(file, text)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        raise not_yaml(*explained(error, file, text)) from error


def _builder(file: str, text: str, words: Collection[str] = ()) -> _Builder:
    return _Builder(file, min(MAX_NODES, len(text) + MAX_ALIASED_NODES), words)


def _another(place: Place) -> Diagnostic:
    hint = "remove the line ---, or split the file"
    return Diagnostic.warning(place, "only the file's first document is read", hint)


def _assign(into: Mapping, key: Scalar, value: Any) -> None:  # noqa: ANN401 - a tree of any shape
    """Set a key as gopkg.in/yaml.v2 does: a limit or metadata keeps what its new value does not name."""
    old = into.pop(key, None)  # with its place
    if isinstance(old, Mapping) and isinstance(value, Mapping) and key in {"rate_limit", "metadata"}:
        both = Mapping(old)
        both.place = value.place
        for inner, item in value.items():
            both.pop(inner, None)
            both[inner] = item
        value = both
    into[key] = value
