"""A YAML text as plain data in which every value knows its place.

It is built from the parser's events, in Python: composing in the C library would hold the interpreter, and with it
every call under way, for as long as a large file takes.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import yaml

from extauth.config.diagnostics import quoted

MAX_NODES = 2_000_000  # after aliases are followed: 100,000 rules take about 700,000
MAX_ALIASED_NODES = 10_000  # beyond what a text of that length can hold without aliases
MAX_DEPTH = 200
MAX_NAMED = 50  # keys that stand twice, which flaws name

# What plain scalars mean to gopkg.in/yaml.v2, which reads envoyproxy/ratelimit's files.
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
_FIXES = {
    "cannot start any token": "indent with spaces, and quote a value that begins with a sign",
    "tab character": "indent with spaces",
    "mapping values are not allowed": "write `key: value`, each key on its own line; quote a value that holds ': '",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "did not find expected ',' or": "close the bracket",
    "unexpected end of stream": "close the quote or bracket",
    "unknown escape character": "write \\\\ for a backslash, or use single quotes",
    "scanning an alias": 'quote a text that begins with *, as in `value: "*"`',
    "unacceptable character": "remove it, or write it as an escape between double quotes",
}
_ANY_FIX = "check the indentation, brackets and quotes here and on the lines above"


class _Mark(Protocol):
    line: int
    column: int


class Place(NamedTuple):
    """Where something stands; line and column count from 1."""

    line: int
    column: int


class Scalar(str):
    """A YAML scalar: its text, its `place`, and its `tag`: `str`, `int` (of 64 bits), `float`, `bool`, `null`, `merge`.

    Integers that are too large are floats. A date is a string.
    """

    __slots__ = ("place", "tag")
    place: Place
    tag: str

    def __new__(cls, text: str, tag: str = "str", place: Place = Place(1, 1)) -> Self:  # noqa: B008 - a constant
        """Wrap `text`."""
        self = super().__new__(cls, text)
        self.tag = tag
        self.place = place
        return self


class Mapping(dict[Scalar, Any]):
    """A YAML mapping; its keys are Scalars."""

    __slots__ = ("place",)
    place: Place


class Sequence(list[Any]):
    """A YAML sequence."""

    __slots__ = ("place",)
    place: Place


class DocumentError(Exception):
    """The text is no YAML, or too large or deep; the text says why."""

    def __init__(self, message: str, place: Place, hint: str) -> None:
        self.place = place
        self.hint = hint
        super().__init__(message)


class Flaw(NamedTuple):
    """What does not keep the rest from being read: a mistake, or where it is `harmless`, what looks like one."""

    place: Place
    message: str
    hint: str
    harmless: bool = False


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    into: Mapping | Sequence
    anchor: str | None
    nodes: int = 1
    height: int = 1
    key: Scalar | None = None
    awaits_key: bool = True
    merged: set[str] = field(default_factory=set)  # keys that came by <<


@dataclass(slots=True)
class _Anchored:
    """What an alias may name; `value` is complete, `nodes` and `height` as if its own aliases were written out."""

    value: Any
    nodes: int
    height: int


@dataclass(slots=True)
class _Builder:
    """Puts events together."""

    most_nodes: int
    words: Collection[str] = ()
    flaws: list[Flaw] = field(default_factory=list)
    root: Any = None
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, _Anchored | None] = field(default_factory=dict)

    def add(self, event: yaml.Event) -> None:
        place = _place(event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            value = Scalar(event.value, self._tag(event, place), place)
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
            raise _not_yaml("this alias refers to no anchor", place, hint)
        anchored = self._anchors[anchor]
        if anchored is None:
            raise DocumentError("this alias is inside the value that it refers to", place, "write it out")
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
            raise DocumentError(message, place, "write it flatter, without nested aliases")
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
                return Scalar(_key_text(value, top=top), "str", place)  # anything goes there
            self.flaws.append(Flaw(place, "a key must be a string", "quote it"))
            return None
        if value in into and value not in self._open[-1].merged:
            words = self.words if len(self.flaws) < MAX_NAMED else ()  # to look for the nearest takes time
            message = f"the key{quoted(value, words)} appears twice in one mapping; the last one applies"
            self.flaws.append(Flaw(place, message, "keep one of the two", harmless=True))
        return value

    def _merge(self, parent: _Open, into: Mapping, value: Any, place: Place) -> None:  # noqa: ANN401
        """Merge keys (YAML 1.1): of a list the earlier mapping wins; over what stands before the key, all do."""
        sources = value if isinstance(value, Sequence) else [value]
        if not all(isinstance(source, Mapping) for source in sources):
            self.flaws.append(Flaw(place, "<< takes a mapping, or a list of mappings", "name one by an alias"))
            return
        for source in reversed(sources):
            for key, item in source.items():
                _assign(into, key, item)
                parent.merged.add(key)

    def _tag(self, event: yaml.ScalarEvent, place: Place) -> str:
        tag = _resolve(event)
        if event.tag is not None and tag in _CHECKED and _plain_tag(event.value) not in _CHECKED[tag]:
            self.flaws.append(Flaw(place, f"this value does not fit its tag, {tag}", "remove the tag"))
            return "str"
        return tag

    def _check_depth(self, depth: int, place: Place) -> None:
        if depth > MAX_DEPTH:
            raise DocumentError(f"the file nests deeper than {MAX_DEPTH} levels", place, "write it flatter")


def read_document(text: str, words: Collection[str] = ()) -> tuple[Any, list[Flaw]]:
    """The text as Mapping, Sequence, Scalar or None, which stands for nothing and null; raises DocumentError.

    YAML 1.1, as gopkg.in/yaml.v2 reads it: only the first document counts, and of a key that comes again the last.
    Both are flaws, as are keys that are no strings, which are left out. `words` are keys that messages may show.
    """
    builder = _builder(text, words)
    ended = False
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if ended and isinstance(event, yaml.DocumentStartEvent):
                builder.flaws.append(_more(_place(event.start_mark)))
                break
            builder.add(event)
            ended = ended or isinstance(event, yaml.DocumentEndEvent)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        what, place = _said(error, text)
        if not ended:
            raise _not_yaml(what, place) from error
        builder.flaws.append(_more(place))
    return builder.root, builder.flaws


def read_documents(text: str) -> Iterator[Any]:
    """All documents of the text, each as `read_document` gives it; raises DocumentError."""
    builder = _builder(text)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.add(event)
            if isinstance(event, yaml.DocumentEndEvent):
                yield builder.root
                builder = _builder(text)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        raise _not_yaml(*_said(error, text)) from error


def _builder(text: str, words: Collection[str] = ()) -> _Builder:
    return _Builder(min(MAX_NODES, len(text) + MAX_ALIASED_NODES), words)


def _said(error: yaml.MarkedYAMLError | yaml.reader.ReaderError, text: str) -> tuple[str, Place]:
    if isinstance(error, yaml.reader.ReaderError):
        place = place_of_byte(text.encode("utf-8", "surrogatepass"), error.position)
        return f"unacceptable character {_character(text, place)!r}", place
    place = _place(error.problem_mark or error.context_mark)
    what = " ".join(filter(None, (error.context, error.problem)))
    if "cannot start any token" in what:
        what = what.replace("character that", f"{_character(text, place)!r}, which")
    return what, place


def _more(place: Place) -> Flaw:
    return Flaw(
        place, "only the file's first document is read", "remove the line ---, or split the file", harmless=True
    )


def place_of_byte(data: bytes, index: int) -> Place:
    """The place of the byte at `index` of a text in UTF-8."""
    before = data[:index]
    line_start = before.rfind(b"\n") + 1
    return Place(before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1)


def _character(text: str, place: Place) -> str:
    lines = text.split("\n")
    return lines[place.line - 1][place.column - 1 : place.column] if place.line <= len(lines) else ""


def _not_yaml(what: str, place: Place, hint: str = "") -> DocumentError:
    hint = hint or next((hint for part, hint in _FIXES.items() if part in what), _ANY_FIX)
    return DocumentError(f"not YAML: {what}", place, hint)


def _assign(into: Mapping, key: Scalar, value: Any) -> None:  # noqa: ANN401 - a tree of any shape
    """Over what stands there already, as gopkg.in/yaml.v2 does: what a limit or metadata does not name stays."""
    old = into.pop(key, None)  # with its place
    if isinstance(old, Mapping) and isinstance(value, Mapping) and key in {"rate_limit", "metadata"}:
        both = Mapping(old)
        both.place = value.place
        for inner, item in value.items():
            both.pop(inner, None)
            both[inner] = item
        value = both
    into[key] = value


def _key_text(value: Scalar | None, *, top: bool) -> str:
    """A key that is no string, as the reference writes it: at the `top` as it stands there, below as Go prints it."""
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


def _resolve(event: yaml.ScalarEvent) -> str:
    tag = event.tag
    if tag is None and event.implicit[0]:
        return _plain_tag(event.value)
    return "str" if tag is None or tag == "!" else str(tag.rpartition(":")[2])


def _plain_tag(text: str) -> str:
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
    """The number that a scalar tagged `int` stands for: 10, +10, 0x0a, 0b1010, 012, 0o12, 1_0."""
    digits = text.replace("_", "")
    octal = re.fullmatch(r"([-+]?)0[oO]?([0-7]+)", digits)
    return int(octal[1] + octal[2], 8) if octal else int(digits, 0)


def to_float(text: str) -> float:
    """The number that a scalar tagged `float` stands for: 1.5, 1e3, .inf, .nan, 1_0.5."""
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _place(mark: _Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
