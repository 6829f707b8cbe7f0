"""From the texts of config files to a RuleSet, or to every problem in them with its place and fix."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from extauth.errors import ConfigError, Problem
from extauth.rules.document import DocumentError, Place, read_document
from extauth.rules.document import Mapping as MappingNode
from extauth.rules.document import Sequence as SequenceNode
from extauth.rules.grammar import DescriptorModel, FileModel, RateLimitModel, keys_at, shown
from extauth.rules.model import Domain, Limit, Rule, RuleSet, Tier

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_PROBLEMS = 50  # told of a file

Location = tuple[str | int, ...]


def load_rules(texts: Mapping[str, str]) -> RuleSet:
    """Read config files, given as name → text; raises ConfigError with all problems of all files."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    domains: dict[str, Domain] = {}
    for file, text in sorted(texts.items()):
        reader = _Reader(file)
        domain = reader.read(text)
        if domain is not None and domain.name in domains:
            first = domains[domain.name].file
            reader.problem(("domain",), f"domain {domain.name!r} already stands in {first}", "merge the two files")
        elif domain is not None:
            domains[domain.name] = domain
        problems += _bounded(file, reader.problems, "problems")
        warnings += _bounded(file, reader.warnings, "warnings")
    if problems:
        raise ConfigError(problems)
    return RuleSet(domains, tuple(warnings))


def _bounded(file: str, problems: list[Problem], what: str) -> list[Problem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    message = f"{len(problems)} {what}, of which {MAX_PROBLEMS} are told"
    return [*problems[:MAX_PROBLEMS], Problem(file, 0, 0, message)]


class _Reader:
    """Reads one file; what is wrong gathers in `problems`, what looks wrong in `warnings`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._root: Any = None
        self._names: set[str] = set()  # of limits
        self._replaced: list[tuple[Location, str]] = []

    def read(self, text: str) -> Domain | None:
        """The file's domain, or None where there are problems."""
        try:
            self._root, flaws = read_document(text)
            self.problems += [Problem(self.file, *flaw.place, flaw.message, flaw.fix) for flaw in flaws]
            if self._root is None and not flaws:
                raise DocumentError("the file is empty", Place(1, 1), "write `domain: NAME` and `descriptors:`")  # noqa: TRY301
            model = FileModel.model_validate(self._root)
        except DocumentError as error:
            self.problems.append(Problem(self.file, *error.place, str(error), error.fix))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._invalid(detail)
        else:
            domain = self._domain(model)
            return None if self.problems else domain
        return None

    def problem(self, location: Location, message: str, fix: str = "", *, at_key: bool = False) -> None:
        """Note what is wrong at `location`, a path of keys and indices; `at_key` points at the last key itself."""
        self.problems.append(Problem(self.file, *self._place(location, at_key=at_key), message, fix))

    def _place(self, location: Location, *, at_key: bool = False) -> Place:
        node = self._root
        place: Place = getattr(node, "place", Place(1, 1))
        for i, step in enumerate(location, 1):
            if not isinstance(node, MappingNode | SequenceNode):
                break
            parent = node
            try:
                node = parent[step]  # type: ignore[index]  # a key or an index, as fits the parent
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(parent, MappingNode) and (node is None or (at_key and i == len(location))):
                place = next(key.place for key in parent if key == step)
            else:
                place = getattr(node, "place", place)
        return place

    # From pydantic's errors to ours

    def _invalid(self, detail: ErrorDetails) -> None:
        *parents, last = location = detail["loc"] or ("",)
        if last == "[key]":
            *parents, last = location = location[:-1]
            self.problem(location, f"a key of {_what(tuple(parents))} {_message(detail)}", at_key=True)
            return
        match detail["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(str(last), keys := keys_at(tuple(parents)), 1)
                fix = f"did you mean {near[0]!r}?" if near else "the keys here are " + ", ".join(keys)
                self.problem(location, f"unknown key {shown(str(last))!r}", fix, at_key=True)
            case "missing":
                self.problem(tuple(parents), f"{last!r} is missing", f"add {last}: …")
            case "model_type" | "dict_type":
                self.problem(location, f"{_what(location)} must be a mapping")
            case "list_type":
                self.problem(location, f"{_what(location)} must be a list", "start each item with '- '")
            case _:
                message = _message(detail)
                if message.startswith("must "):
                    message = f"{_what(location)} {message}"
                self.problem(location, message, detail.get("ctx", {}).get("fix", ""))

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
        self._warn_of_replacing_nothing()
        return Domain(model.domain, rules, tuple(tiers.values()), tuple(model.labels), self.file)

    def _warn_of_replacing_nothing(self) -> None:
        for at, name in self._replaced:
            if name not in self._names:
                near = difflib.get_close_matches(name, self._names, 1)
                fix = f"did you mean {near[0]!r}?" if near else "remove it, or name a limit so"
                message = f"no limit is named {shown(name)!r}, so nothing is replaced"
                self.warnings.append(Problem(self.file, *self._place(at), message, fix))

    def _rules(
        self, model: FileModel, tiers: Mapping[str, Tier], descriptors: list[DescriptorModel], at: Location
    ) -> tuple[Rule, ...]:
        first: dict[tuple[str, str], int] = {}
        rules = []
        for i, descriptor in enumerate(descriptors):
            here = (*at, i)
            entry = (descriptor.key, descriptor.value)
            if entry in first:
                line = self._place((*at, first[entry])).line
                what = shown(descriptor.key) + (" with this value" if descriptor.value else "")  # perhaps an API key
                self.problem(here, f"the descriptor {what} already stands on line {line}", "keep one of the two")
            first.setdefault(entry, i)
            rules.append(
                Rule(
                    descriptor.key,
                    descriptor.value or None,
                    self._limit_of(model, tiers, descriptor, here),
                    descriptor.tier or None,
                    self._rules(model, tiers, descriptor.descriptors, (*here, "descriptors")),
                    self.file,
                    self._place(here).line,
                )
            )
        return tuple(rules)

    def _limit_of(
        self, model: FileModel, tiers: Mapping[str, Tier], descriptor: DescriptorModel, at: Location
    ) -> Limit | None:
        if not descriptor.tier:
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
        self._names.add(name)
        for i, replaced in enumerate(model.replaces):
            self._replaced.append(((*at, "replaces", i, "name"), replaced.name))
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


def _message(detail: ErrorDetails) -> str:
    return str(detail.get("ctx", {}).get("message", detail["msg"]))


def _what(location: Location) -> str:
    """How to speak of the value at `location`: its key, or its place in a list."""
    names: Iterator[str] = (step for step in reversed(location) if isinstance(step, str) and step)
    name = next(names, "")
    if not name:
        return "the file"
    return f"each item of {name!r}" if isinstance(location[-1], int) else repr(name)
