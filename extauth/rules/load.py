"""From the texts of config files to a RuleSet, or to every problem in them with its place and fix."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from extauth.errors import ConfigError, Problem
from extauth.rules.grammar import DescriptorModel, FileModel, RateLimitModel, Scalar, keys_at
from extauth.rules.model import Domain, Limit, Rule, RuleSet, Tier

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_NODES = 2_000_000  # after aliases are followed: 100,000 rules take about 700,000
MAX_ALIASED_NODES = 10_000  # beyond what a text of that length can hold without aliases
MAX_DEPTH = 200
MAX_PROBLEMS = 50  # told of a file

Location = tuple[str | int, ...]


def load_rules(texts: Mapping[str, str]) -> RuleSet:
    """Read config files, given as name → text; raises ConfigError with all problems of all files."""
    problems: list[Problem] = []
    domains: dict[str, Domain] = {}
    for file, text in sorted(texts.items()):
        reader = _Reader(file)
        domain = reader.read(text)
        if domain is not None and domain.name in domains:
            first = domains[domain.name].file
            reader.problem(("domain",), f"domain {domain.name!r} already stands in {first}", "merge the two files")
        elif domain is not None:
            domains[domain.name] = domain
        problems += reader.problems[:MAX_PROBLEMS]
        if len(reader.problems) > MAX_PROBLEMS:
            message = f"{len(reader.problems)} problems, of which {MAX_PROBLEMS} are told"
            problems.append(Problem(file, 0, 0, message))
    if problems:
        raise ConfigError(problems)
    return RuleSet(domains)


class _TooLargeError(Exception):
    """The document has more nodes or levels than are allowed."""


class _Reader:
    """Reads one file; what is wrong gathers in `problems`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._root: yaml.Node | None = None
        self._nodes = 0
        self._most_nodes = MAX_NODES

    def read(self, text: str) -> Domain | None:
        """The file's domain, or None where there are problems."""
        if len(text) > MAX_FILE_BYTES:
            self.problem((), f"the file is larger than {MAX_FILE_BYTES} bytes", "split it by domain")
            return None
        try:
            _check_depth(text)
            self._most_nodes = min(MAX_NODES, len(text) + MAX_ALIASED_NODES)
            self._root = yaml.compose(text, Loader=yaml.CSafeLoader)
            data = self._plain(self._root, ())
            model = FileModel.model_validate(data)
        except yaml.MarkedYAMLError as error:
            self._yaml_problem(error)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            if not isinstance(error, ValidationError):
                self.problem((), f"not YAML: {error}")
            else:
                for detail in error.errors(include_url=False):
                    self._invalid(detail)
        except _TooLargeError as error:
            self.problem((), str(error), "write it flatter, without nested aliases")
        else:
            domain = self._domain(model)
            return None if self.problems else domain
        return None

    def problem(self, location: Location, message: str, fix: str = "", *, at_key: bool = False) -> None:
        """Note what is wrong at `location`, a path of keys and indices; `at_key` points at the last key itself."""
        mark = self._mark(location, at_key=at_key)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        self.problems.append(Problem(self.file, line, column, message, fix))

    def _yaml_problem(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        what = " ".join(filter(None, (error.context, error.problem)))
        self.problems.append(Problem(self.file, line, column, f"not YAML: {what}"))

    # From nodes to plain data

    def _plain(self, node: yaml.Node | None, at: Location) -> Any:  # noqa: ANN401 - a tree of any shape
        self._nodes += 1
        if self._nodes > self._most_nodes:
            raise _TooLargeError(f"the file holds more than {self._most_nodes} values once its aliases are followed")
        if len(at) > MAX_DEPTH:
            raise _TooLargeError("an alias stands inside what it names")
        if isinstance(node, yaml.ScalarNode):
            tag = node.tag.rpartition(":")[2]
            return None if tag == "null" else Scalar(node.value, tag)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*at, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        return None

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode) or key.tag.rpartition(":")[2] not in {"str", "merge"}:
                self._at(key, "a key must be a string", "quote it")
            elif name in data:
                self._at(key, f"the key {name!r} stands twice in one mapping", "keep one of the two")
            elif (plain := self._plain(value, (*at, name))) is not None:
                data[name] = plain  # a key with nothing after it counts as absent
        return data

    def _at(self, node: yaml.Node, message: str, fix: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message, fix))

    def _mark(self, location: Location, *, at_key: bool) -> yaml.Mark | None:
        node = self._root
        mark = node.start_mark if node else None
        for step in location:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == step), None)
                if pair is None:
                    break
                node = pair[1]
                mark = pair[0].start_mark if at_key and step == location[-1] else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        return mark

    # From pydantic's errors to ours

    def _invalid(self, detail: ErrorDetails) -> None:
        *parents, last = location = detail["loc"] or ("",)
        match detail["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(str(last), keys := keys_at(tuple(parents)), 1)
                fix = f"did you mean {near[0]!r}?" if near else "the keys here are " + ", ".join(keys)
                self.problem(location, f"unknown key {last!r}", fix, at_key=True)
            case "missing":
                self.problem(tuple(parents), f"{last!r} is missing", f"add {last}: …")
            case "model_type" | "dict_type":
                self.problem(location, f"{_what(location)} must be a mapping")
            case "list_type":
                self.problem(location, f"{_what(location)} must be a list", "start each item with '- '")
            case _:
                context = detail.get("ctx", {})
                message = context.get("message", detail["msg"])
                if message.startswith("must "):
                    message = f"{_what(location)} {message}"
                self.problem(location, message, context.get("fix", ""))

    # From the file's model to rules

    def _domain(self, model: FileModel) -> Domain:
        tiers: dict[str, Tier] = {}
        for name, tier in model.tiers.items():
            at: Location = ("tiers", name)
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
                message = f"{name!r} cannot name a tier, which stands in headers"
                self.problem(at, message, "use up to 64 of A-Z a-z 0-9 _ . -", at_key=True)
            if tier.name:
                self.problem((*at, "name"), "a tier's name is its key", "remove `name`", at_key=True)
            tiers[name] = Tier(name, self._limit(model, tier, at, name))
        rules = self._rules(model, tiers, model.descriptors, ("descriptors",))
        for i, descriptor in enumerate(model.descriptors):
            if descriptor.key in model.labels:
                message = f"{descriptor.key!r} is one of `labels`, so no rule of its own can apply"
                self.problem(("descriptors", i, "key"), message, "remove the rule, or the label")
        return Domain(model.domain, rules, tuple(tiers.values()), tuple(model.labels), self.file)

    def _rules(
        self, model: FileModel, tiers: Mapping[str, Tier], descriptors: list[DescriptorModel], at: Location
    ) -> tuple[Rule, ...]:
        first: dict[tuple[str, str], int] = {}
        rules = []
        for i, descriptor in enumerate(descriptors):
            here = (*at, i)
            entry = (descriptor.key, descriptor.value)
            if entry in first:
                line = self._line((*at, first[entry]))
                shown = descriptor.key + (" with this value" if descriptor.value else "")  # which may be an API key
                self.problem(here, f"the descriptor {shown} already stands on line {line}", "keep one of the two")
            first.setdefault(entry, i)
            rules.append(
                Rule(
                    descriptor.key,
                    descriptor.value or None,
                    self._limit_of(model, tiers, descriptor, here),
                    descriptor.tier,
                    self._rules(model, tiers, descriptor.descriptors, (*here, "descriptors")),
                    self.file,
                    self._line(here),
                )
            )
        return tuple(rules)

    def _limit_of(
        self, model: FileModel, tiers: Mapping[str, Tier], descriptor: DescriptorModel, at: Location
    ) -> Limit | None:
        if descriptor.tier is None:
            limit = descriptor.rate_limit
            return None if limit is None else self._limit(model, limit, (*at, "rate_limit"), limit.name)
        if descriptor.rate_limit is not None:
            self.problem((*at, "tier"), "a descriptor has a tier or a rate_limit, not both", "remove one", at_key=True)
        if descriptor.tier not in tiers:
            near = difflib.get_close_matches(descriptor.tier, tiers, 1)
            fix = f"did you mean {near[0]!r}?" if near else "the tiers are " + (", ".join(tiers) or "none yet")
            self.problem((*at, "tier"), f"unknown tier {descriptor.tier!r}", fix)
            return None
        return tiers[descriptor.tier].limit

    def _limit(self, file: FileModel, model: RateLimitModel, at: Location, name: str) -> Limit:
        for i, replaced in enumerate(model.replaces):
            if replaced.name == name:
                self.problem((*at, "replaces", i), f"the limit {name!r} replaces itself", "remove this item")
        algorithm = model.algorithm or file.algorithm
        count_denied = model.count_denied if model.count_denied is not None else file.count_denied
        return Limit(
            model.requests_per_unit,
            model.unit,
            algorithm,
            algorithm.counts_denied if count_denied is None else count_denied,
            name,
            tuple(replaced.name for replaced in model.replaces),
        )

    def _line(self, location: Location) -> int:
        mark = self._mark(location, at_key=False)
        return mark.line + 1 if mark else 0


def _check_depth(text: str) -> None:
    """Refuse deep nesting before `compose`, which recurses on the C stack without a limit."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooLargeError(f"the file nests deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _what(location: Location) -> str:
    """How to speak of the value at `location`: its key, or its place in a list."""
    names: Iterator[str] = (step for step in reversed(location) if isinstance(step, str) and step)
    name = next(names, "")
    if not name:
        return "the file"
    return f"each item of {name!r}" if isinstance(location[-1], int) else repr(name)
