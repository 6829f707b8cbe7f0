"""What `extauth validate` is given: a folder, a file, a pipe, standard input; as config files or as a ConfigMap."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from extauth.config.merge import MAX_FILE_BYTES, load_valid_domains
from extauth.config.parse import is_manifest
from extauth.config.sources.files import not_utf8, read_valid_domains, too_large
from extauth.config.sources.selection import SUFFIXES
from extauth.config.yaml_document import Mapping, Sequence, read_documents
from extauth.config.yaml_errors import DocumentError
from extauth.config.yaml_scalars import Scalar
from extauth.errors import ConfigError, Diagnostic, Place
from extauth.rules.model import RuleSet

STDIN = Path("-")


class Entry(NamedTuple):
    """An entry of a ConfigMap's `data`: `place` is where its value begins.

    `indent` is that of a literal block (`|`), whose lines are lines of the file; None for any other scalar.
    """

    name: str
    text: str
    place: Place
    indent: int | None

    def locate(self, problem: Diagnostic) -> Diagnostic:
        """A problem of the entry's text as one of the file."""
        where, place = f"in {self.name}", self.place
        _, line, column = problem.place
        if self.indent is None and line:
            where += f", line {line}, column {column}"
        elif self.indent is not None and line > place.line:
            place = Place(place.file, line, column + self.indent)
        return replace(problem, place=place, message=f"{where}: {problem.message}")

    @property
    def padded(self) -> str:
        """The text after as many empty lines as precede it in the file."""
        return self.text if self.indent is None else "\n" * self.place.line + self.text


@dataclass(slots=True)
class Given:
    """What was read: `rules` with their problems, and the files of a folder that are `unread`."""

    rules: RuleSet
    unread: list[str] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def problems(self) -> list[Diagnostic]:
        """What is wrong, each with its place in what was given."""
        return self.located(self.rules.problems)

    @property
    def warnings(self) -> list[Diagnostic]:
        """What looks wrong, each with its place in what was given."""
        return self.located(self.rules.warnings)

    def located(self, problems: "tuple[Diagnostic, ...] | list[Diagnostic]") -> list[Diagnostic]:
        """The problems where a reader finds them."""
        if not self.entries:
            return list(problems)
        found = [self.entries[p.place.file].locate(p) if p.place.file in self.entries else p for p in problems]
        return sorted(found, key=lambda problem: problem.place[1:])


def read_given(path: Path, *, merge: bool) -> list[Given]:
    """Read it, each config by itself: of several ConfigMaps in a file, each is one."""
    try:
        if path == STDIN:
            return _from_text("<stdin>", _text("<stdin>", sys.stdin.buffer.read(MAX_FILE_BYTES + 1)), merge=merge)
        if path.is_fifo() or path.is_char_device():
            with path.open("rb") as pipe:
                return _from_text(str(path), _text(str(path), pipe.read(MAX_FILE_BYTES + 1)), merge=merge)
        rules = read_valid_domains(path, RuleSet(), merge=merge)
        if rules.problems and path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            manifest = _from_manifest(str(path), path.read_bytes().decode("utf-8", "replace"), merge=merge)
            if manifest:
                return manifest
        return [Given(rules, _unread(path))]
    except ConfigError as error:
        return [Given(RuleSet(problems=error.problems), _unread(path))]
    except OSError as error:
        return [Given(RuleSet(problems=(Diagnostic.error(Place(str(path)), f"cannot be read: {error.strerror}"),)))]


def _text(file: str, data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([too_large(file)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([not_utf8(file, error)]) from error


def _from_text(file: str, text: str, *, merge: bool) -> list[Given]:
    rules = load_valid_domains({file: text}, RuleSet(), merge=merge)
    return (_from_manifest(file, text, merge=merge) if rules.problems else []) or [Given(rules)]


def _from_manifest(file: str, text: str, *, merge: bool) -> list[Given]:
    """The ConfigMaps among the manifests of a file; none where it holds no manifest."""
    if "apiVersion" not in text:
        return []
    manifests: list[Mapping] = []
    problems: list[Diagnostic] = []
    try:
        for root in read_documents(file, text):
            manifests += _manifests(root)
    except DocumentError as error:
        problems.append(error.diagnostic)
    if not manifests:
        return []
    lines = text.split("\n")
    maps = [each for each in manifests if each.get(Scalar("kind")) == "ConfigMap"]
    given = [_from_map(file, lines, each, merge=merge) for each in maps]
    if not given and not problems:
        hint = "give the one whose `data` holds the config"
        problems.append(Diagnostic.error(manifests[0].place, "no ConfigMap is among these Kubernetes manifests", hint))
    elif not problems and not any(each.entries or each.rules.problems for each in given):
        message = "no entry of the ConfigMap's `data` is named *.yaml or *.yml"
        problems.append(Diagnostic.error(maps[0].place, message, "give one such a name"))
    return [*given, *([Given(RuleSet(problems=tuple(problems)))] if problems else [])]


def _manifests(root: Any) -> Iterator[Mapping]:  # noqa: ANN401 - any YAML
    """The manifest, or those of a List."""
    if not is_manifest(root):
        return
    items = root.get(Scalar("items"))
    if isinstance(items, Sequence):
        for item in items:
            yield from _manifests(item)
    else:
        yield root


def _from_map(file: str, lines: list[str], manifest: Mapping, *, merge: bool) -> Given:
    entries: dict[str, Entry] = {}
    problems: list[Diagnostic] = []
    unread: list[str] = []
    data = manifest.get(Scalar("data"))
    for name, value in data.items() if isinstance(data, Mapping) else ():
        if not name.endswith(SUFFIXES):
            unread.append(f"{name} of {file}")
        elif not isinstance(value, Scalar):
            message = f"in {name}: an entry of `data` must be a string"
            problems.append(
                Diagnostic.error(name.place, message, f"write `{name}: |`, and the config under it, indented")
            )
        else:
            entries[f"{name} of {file}"] = Entry(name, str(value), value.place, _indent(value, lines))
    binary = manifest.get(Scalar("binaryData"))
    unread += [f"{name} of {file} (binaryData)" for name in binary] if isinstance(binary, Mapping) else []
    rules = load_valid_domains(
        {name: entry.padded for name, entry in entries.items()}, RuleSet(), problems, merge=merge
    )
    return Given(rules, unread, entries)


def _indent(value: Scalar, lines: list[str]) -> int | None:
    """The indentation of a literal block; None where its lines are not the file's."""
    _, line, column = value.place
    if lines[line - 1][column - 1 : column] != "|":
        return None
    for i, text in enumerate(value.split("\n")):
        if text.strip():
            raw = lines[line + i].rstrip("\r") if line + i < len(lines) else ""
            return len(raw) - len(text) if raw.endswith(text) else None
    return 0


def _unread(path: Path) -> list[str]:
    """Files of a folder that are no YAML by their names, or hidden YAML; of what else looks like YAML, rules warn."""
    if not path.is_dir():
        return []
    return [
        str(entry)
        for entry in sorted(path.iterdir())
        if entry.is_file()
        and (entry.suffix in SUFFIXES if entry.name[0] == "." else entry.suffix.lower() not in {"", *SUFFIXES})
    ]
