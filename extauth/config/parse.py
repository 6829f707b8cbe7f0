"""One config file: from its text to a Domain, or to every problem in it with its place and fix."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from extauth.config.diagnostics import limit_for, quoted, shown
from extauth.config.recovery import mend
from extauth.config.schema import (
    LIMIT_WORDS,
    REFERENCE_KEYS,
    WORDS,
    DescriptorModel,
    FileModel,
    Model,
    RateLimitModel,
    meant,
    model_at,
    model_under,
)
from extauth.config.yaml_document import DocumentError, Place, Scalar, read_document
from extauth.config.yaml_document import Mapping as MappingNode
from extauth.config.yaml_document import Sequence as SequenceNode
from extauth.errors import Diagnostic, nearest
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.matcher import RegexError, compile_regex
from extauth.rules.model import Algorithm, Domain, Kind, Limit, Rule, Tier, Unit

MAX_PROBLEMS = 50  # told of a file
MOUNT_IT = "mount the ConfigMap as a folder, and set EXTAUTH_CONFIG to that; `extauth validate FILE` reads it as it is"
_UNIT_WORDS = (*(str(unit) for unit in Unit), "unknown")  # the last is Envoy's own
MAX_RENAMED = 1000  # misspelt keys of a file that are looked beyond
MAX_MENDINGS = 3  # a key that is mended may hold a misspelt one, and so on
MAX_YEARS = 100
TIER_NAME = r"[A-Za-z0-9_.-]{1,64}"
MAX_PERIOD_US = MAX_YEARS * Unit.YEAR.seconds * 1_000_000  # microseconds since the epoch stay exact in a double

Location = tuple[str | int, ...]


@dataclass(slots=True)
class ParsedFile:
    """What one file says.

    `name` is its domain's, None where even that cannot be read; `domain` is None where there are `problems`. `names`
    are those of its limits, `replaced` are the names that limits replace, each with its place.
    """

    file: str
    name: str | None = None
    domain: Domain | None = None
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    replaced: list[tuple[Place, str]] = field(default_factory=list)
    domain_place: Place = Place(1, 1)  # noqa: RUF009 - a constant


def parse_file(file: str, text: str) -> ParsedFile:
    """Parse a file's text."""
    parser = _Parser(file)
    parser.parse(text)
    parsed = parser.parsed
    parsed.problems = bounded(file, parsed.problems, "problems")
    parsed.warnings = bounded(file, parsed.warnings, "warnings")
    return parsed


def is_manifest(root: object) -> bool:
    """Whether a document is one of Kubernetes's, which a folder of configs cannot hold."""
    return isinstance(root, MappingNode) and {"apiVersion", "kind"} <= root.keys()


def bounded(file: str, problems: list[Diagnostic], what: str) -> list[Diagnostic]:
    """As many as are told."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    message = f"{len(problems)} {what}; showing the first {MAX_PROBLEMS}"
    return [*problems[:MAX_PROBLEMS], Diagnostic(file, 0, 0, message)]


class _Parser:
    def __init__(self, file: str) -> None:
        self.parsed = ParsedFile(file)
        self._root: Any = None
        self._file_model: FileModel
        self._digest = ""
        self._secret = NAMED_SO
        self._is_secret: Callable[[str], bool] = NAMED_SO.cover
        self._tiers: dict[str, Tier] = {}
        self._tiers_told = True  # they are all known

    def parse(self, text: str) -> None:
        parsed = self.parsed
        self._digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            self._root, flaws = read_document(text, WORDS)
            for flaw in flaws:
                problem = Diagnostic(parsed.file, *flaw.place, flaw.message, flaw.hint)
                (parsed.warnings if flaw.harmless else parsed.problems).append(problem)
            if self._root is None and not flaws:
                raise DocumentError("the file is empty", Place(1, 1), "write `domain: NAME` and `descriptors:`")  # noqa: TRY301
            if is_manifest(self._root):
                raise DocumentError("this is a Kubernetes manifest, and no config", self._root.place, MOUNT_IT)  # noqa: TRY301
            if isinstance(self._root, MappingNode) and isinstance(name := self._root.get(Scalar("domain")), str):
                parsed.name = str(name) or None
            parsed.domain_place = self._place(("domain",))
            self._drop_ignored(self._root, FileModel)
            self._file_model = FileModel.model_validate(self._root)
        except DocumentError as error:
            parsed.problems.append(Diagnostic(parsed.file, *error.place, str(error), error.hint))
        except ValidationError as error:
            self._refused(error.errors(include_url=False))
        else:
            domain = self._domain()
            parsed.domain = None if parsed.problems else domain

    def _refused(self, details: list[ErrorDetails]) -> None:
        """Tell what the grammar refused, and what is wrong besides: all problems in one go."""
        warnings = list(self.parsed.warnings)
        for _ in range(MAX_MENDINGS):
            renamed = _renamed(details)
            given = {(*location[:-1], key) for location, key in renamed.items()}
            details = [d for d in details if d["type"] != "missing" or d["loc"] not in given]
            for detail in details:
                self._invalid(detail)
            self._tiers_told &= not any(detail["loc"][:1] == ("tiers",) for detail in details)
            mend(self._root, details, renamed)
            self._drop_ignored(self._root, FileModel)  # of what stands under a key that was mended
            try:
                self._file_model = FileModel.model_validate(self._root)
            except ValidationError as error:
                details = error.errors(include_url=False)
                if not any(detail["loc"] for detail in details):
                    break  # the file is no mapping
            else:
                self._domain()
                break
        self.parsed.warnings = warnings  # others may be of what was taken out

    def _problem(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note what is wrong at `location`, a path of keys and indices; `at_key` points at the last key itself."""
        place = self._place(location, at_key=at_key)
        self.parsed.problems.append(Diagnostic(self.parsed.file, *place, message, hint))

    def _warn(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        place = self._place(location, at_key=at_key)
        self.parsed.warnings.append(Diagnostic(self.parsed.file, *place, message, hint))

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

    def _drop_ignored(self, node: Any, model: type[Model] | None) -> None:  # noqa: ANN401 - a tree of any shape
        """Drop the reference's keys where they mean nothing to it: it knows them, so their file must load."""
        if isinstance(node, SequenceNode):
            for item in node:
                self._drop_ignored(item, model)
            return
        if not isinstance(node, MappingNode):
            return
        fields = model.model_fields if model else {}
        for key in list(node):
            if key in fields:
                if key == "tiers" and isinstance(node[key], MappingNode):
                    for tier in node[key].values():
                        self._drop_ignored(tier, RateLimitModel)
                elif key != "metadata":
                    self._drop_ignored(node[key], model_under(model, key))
            elif key in REFERENCE_KEYS:
                if key != "metadata":
                    self._check_ignored(node[key])
                message = f"{str(key)!r} has no effect here (envoyproxy/ratelimit ignores it too)"
                self.parsed.warnings.append(Diagnostic(self.parsed.file, *key.place, message, _home(key)))
                del node[key]

    def _check_ignored(self, node: Any) -> None:  # noqa: ANN401
        """What is ignored must still be made of known keys."""
        for item in node if isinstance(node, SequenceNode) else [node]:
            in_list = isinstance(node, SequenceNode) and not isinstance(item, MappingNode)
            if in_list or getattr(item, "tag", "") == "float":
                place: Place = getattr(item, "place", getattr(node, "place", Place(1, 1)))
                message = "envoyproxy/ratelimit takes only mappings in lists, and no numbers with a fraction"
                self.parsed.problems.append(Diagnostic(self.parsed.file, *place, message, "remove it"))
            for key in item if isinstance(item, MappingNode) else ():
                if key not in REFERENCE_KEYS:
                    message = f"unknown key{quoted(key, REFERENCE_KEYS)}"
                    self.parsed.problems.append(Diagnostic(self.parsed.file, *key.place, message, "remove it"))
                elif key != "metadata":
                    self._check_ignored(item[key])

    # From pydantic's errors to ours

    def _invalid(self, detail: ErrorDetails) -> None:
        if len(self.parsed.problems) > MAX_PROBLEMS:
            self._problem((), "")  # is only counted
            return
        *parents, last = location = detail["loc"] or ("",)
        if last == "[key]":
            *parents, last = location = location[:-1]
            self._problem(location, f"a key of {_what(tuple(parents))} {_message(detail)}", at_key=True)
            return
        match detail["type"]:
            case "extra_forbidden":
                key = str(last)
                hint = _fix_for(key, tuple(parents), detail["input"])
                self._problem(location, f"unknown key{quoted(key, WORDS)}", hint, at_key=True)
            case "missing":
                self._problem(tuple(parents), f"{last!r} is missing", f"add {last}: …")
            case "model_type" | "dict_type":
                self._problem(location, f"{_what(location)} must be a mapping", _mapping_fix(location, detail["input"]))
            case "list_type":
                self._problem(location, f"{_what(location)} must be a list", "start each item with '- '")
            case _:
                message = _message(detail)
                if message.startswith("must "):
                    message = f"{_what(location)} {message}"
                self._problem(location, message, detail.get("ctx", {}).get("fix", ""))

    # From the file's model to rules

    def _domain(self) -> Domain:
        model = self._file_model
        self._secret = SecretKeys(frozenset(model.secret or ()), by_name=model.secret != [])
        self._is_secret = lru_cache(maxsize=1000)(self._secret.cover)
        for name, tier in model.tiers.items():
            at: Location = ("tiers", name)
            if not re.fullmatch(TIER_NAME, name):
                message = "this cannot be a tier's name, because the name appears in headers"
                self._problem(at, message, "use up to 64 of A-Z a-z 0-9 _ . -", at_key=True)
            if tier.name:
                self._problem((*at, "name"), "a tier's name is its key", "remove `name`", at_key=True)
            self._tiers[name] = Tier(name, self._limit(tier, at, name))
        return Domain(
            model.domain,
            self._rules(model.descriptors, ("descriptors",)),
            tuple(self._tiers.values()),
            tuple(model.labels),
            (self.parsed.file,),
            model.algorithm,
            self._count_denied(model.algorithm, None),
            self._secret,
            self._digest,
        )

    def _rules(self, descriptors: list[DescriptorModel], at: Location) -> tuple[Rule, ...]:
        first: dict[tuple[object, ...], int] = {}
        rules: list[Rule] = []
        for i, descriptor in enumerate(descriptors):
            rule = self._rule(descriptor, (*at, i))
            entries = identities(rule)
            for entry in entries:
                if entry in first:
                    what = "key and value" if rule.kind is not Kind.ANY else "key"
                    message = f"a descriptor with this {what} is already defined on line {rules[first[entry]].line}"
                    self._problem((*at, i), message, "keep one of the two")
                    break
            for entry in entries:
                first.setdefault(entry, i)
            rules.append(rule)
        return tuple(rules)

    def _rule(self, model: DescriptorModel, at: Location) -> Rule:
        kind, value, values = self._match(model, at)
        limits = self._limits(model, at)
        if model.share_threshold and kind is not Kind.WILDCARD:
            message = "share_threshold needs a value with a wildcard, such as `value: api/*`"
            self._problem((*at, "share_threshold"), message, "add one, or remove share_threshold", at_key=True)
        if not limits:
            for flag in ("shadow_mode", "quota_mode", "detailed_metric"):
                if getattr(model, flag):
                    self._warn((*at, flag), f"{flag} has no effect without a limit", "remove it", at_key=True)
        line, column = self._place(at)
        return Rule(
            model.key,
            value,
            limits,
            model.tier or None,
            self._rules(model.descriptors, (*at, "descriptors")) if model.descriptors else (),
            self.parsed.file,
            line,
            column,
            kind,
            values,
            model.shadow_mode,
            model.quota_mode,
            model.share_threshold,
            model.detailed_metric,
            model.value_to_metric,
            model.metadata or None,
            self._is_secret(model.key),
        )

    def _match(
        self, model: DescriptorModel, at: Location
    ) -> tuple[Kind, str | None, tuple[str, ...] | tuple[int, int]]:
        given = [
            key for key in ("value", "values", "value_sha256", "value_regex", "value_range") if getattr(model, key)
        ]
        if len(given) > 1:
            self._problem(
                (*at, given[1]), f"a descriptor has {given[0]} or {given[1]}, not both", "remove one", at_key=True
            )
        if "*" in model.key and given and given[0] != "value":
            self._problem(
                (*at, given[0]), f"a key with a * takes no {given[0]}", "name the key, or use `value`", at_key=True
            )
        if model.value or (not given and "*" in model.key):
            wild = "*" in model.key + model.value
            return Kind.WILDCARD if wild else Kind.VALUE, model.value or None, ()
        if model.values is not None:
            if not model.values:
                self._problem((*at, "values"), "'values' must not be empty", "name a value")
            if len(set(model.values)) < len(model.values):
                self._problem((*at, "values"), "'values' names a value twice", "keep one of the two")
            return Kind.VALUES, None, tuple(model.values)
        if model.value_sha256 is not None:
            return Kind.SHA256, model.value_sha256, ()
        if model.value_regex is not None:
            self._check_regex(model.value_regex, (*at, "value_regex"))
            return Kind.REGEX, model.value_regex, ()
        if model.value_range is not None:
            start, end = model.value_range.start, model.value_range.end
            if start >= end:
                self._problem((*at, "value_range"), "no number is at least 'start' and less than 'end'", "raise `end`")
            return Kind.RANGE, None, (start, end)
        return Kind.ANY, None, ()

    def _check_regex(self, regex: str, at: Location) -> None:
        try:
            compile_regex(regex)
        except RegexError as error:
            self._problem(at, f"not an RE2 regex: {error}", "RE2 has no look-around and no back-references")

    def _limits(self, model: DescriptorModel, at: Location) -> tuple[Limit, ...]:
        given = [key for key in ("rate_limit", "rate_limits", "tier") if getattr(model, key)]
        if len(given) > 1:
            self._problem(
                (*at, given[1]), f"a descriptor has {given[0]} or {given[1]}, not both", "remove one", at_key=True
            )
        if model.tier:
            return self._tier_limits(model.tier, (*at, "tier"))
        if model.rate_limits is not None:
            if not model.rate_limits:
                self._problem(
                    (*at, "rate_limits"), "'rate_limits' must not be empty", "add a limit, or use `rate_limit`"
                )
            here = (*at, "rate_limits")
            limits = tuple(self._limit(limit, (*here, i), limit.name) for i, limit in enumerate(model.rate_limits))
            for i, limit in enumerate(limits):
                if limit.unlimited:
                    self._problem((*here, i), "one of several limits cannot be unlimited", "remove it")
            return limits
        return (
            ()
            if model.rate_limit is None
            else (self._limit(model.rate_limit, (*at, "rate_limit"), model.rate_limit.name),)
        )

    def _tier_limits(self, name: str, at: Location) -> tuple[Limit, ...]:
        if name in self._tiers:
            return (self._tiers[name].limit,)
        if not self._tiers_told:
            return ()
        few = len(self.parsed.problems) < MAX_PROBLEMS
        near = nearest(name, self._tiers) if few else ""
        hint = f"did you mean {near!r}?" if near else self._tiers_there_are() if few else ""
        self._problem(at, f"unknown tier{quoted(name, self._tiers if few else ())}", hint)
        return ()

    def _tiers_there_are(self) -> str:
        names = ", ".join(name for name in self._tiers if re.fullmatch(TIER_NAME, name))
        return f"the tiers are {shown(names)}" if names else "no tier is defined"

    def _limit(self, model: RateLimitModel, at: Location, name: str) -> Limit:
        self.parsed.names.add(name)
        for i, replaced in enumerate(model.replaces):
            self.parsed.replaced.append((self._place((*at, "replaces", i, "name")), replaced.name))
            if replaced.name == name:
                self._problem((*at, "replaces", i), "this limit replaces itself", "remove this item")
        replaces = tuple(replaced.name for replaced in model.replaces)
        unit = Unit.__members__.get(model.unit.upper())
        if model.unlimited:
            return self._unlimited(model, unit, at, Limit(0, Unit.SECOND, name=name, replaces=replaces, unlimited=True))
        if unit is None:
            if "unit" in model.model_fields_set:
                hint = "write one of " + ", ".join(map(str, Unit))
                self._problem((*at, "unit"), f"invalid unit{quoted(model.unit.lower(), _UNIT_WORDS)}", hint)
            else:
                self._problem(at, "'unit' is missing", "add unit: …")
            unit = Unit.SECOND
        if "requests_per_unit" not in model.model_fields_set:
            self._warn(at, "'requests_per_unit' is missing, so everything is denied", "add requests_per_unit: …")
        algorithm = model.algorithm or self._file_model.algorithm
        if model.burst is not None and algorithm is not Algorithm.GCRA:
            self._problem(
                (*at, "burst"), f"burst is for gcra, and this limit is a {algorithm}", "remove it", at_key=True
            )
        if model.burst and model.requests_per_unit and algorithm is Algorithm.GCRA:
            years = model.burst * unit.seconds * model.unit_multiplier / model.requests_per_unit / Unit.YEAR.seconds
            if years > MAX_YEARS:
                self._problem((*at, "burst"), f"a bucket that refills in more than {MAX_YEARS} years", "lower burst")
        if unit.seconds * model.unit_multiplier * 1_000_000 > MAX_PERIOD_US:
            self._problem(
                (*at, "unit_multiplier"), f"the window is longer than {MAX_YEARS} years", "lower unit_multiplier"
            )
            return Limit(0, unit)
        return Limit(
            model.requests_per_unit,
            unit,
            algorithm,
            self._count_denied(algorithm, model.count_denied),
            name,
            replaces,
            model.unit_multiplier,
            model.burst,
        )

    def _unlimited(self, model: RateLimitModel, unit: Unit | None, at: Location, limit: Limit) -> Limit:
        if unit is not None:
            self._problem((*at, "unit"), "an unlimited limit has no unit", "remove `unit`, or `unlimited`", at_key=True)
        for key in ("unit_multiplier", "algorithm", "burst", "count_denied"):
            if key in model.model_fields_set:
                self._problem((*at, key), f"an unlimited limit has no {key}", "remove it", at_key=True)
        return limit

    def _count_denied(self, algorithm: Algorithm, own: bool | None) -> bool:
        default = self._file_model.count_denied
        return own if own is not None else default if default is not None else algorithm.counts_denied


def identities(rule: Rule) -> list[tuple[object, ...]]:
    """What no other rule beside this one may be, too."""
    if rule.kind is Kind.VALUES:
        return [(rule.key, Kind.VALUE, value) for value in rule.values]
    return [(rule.key, rule.kind, rule.value, rule.values)] if rule.values else [(rule.key, rule.kind, rule.value)]


def _home(key: str) -> str:
    """Where a key of the reference belongs."""
    for name, model in (("rate_limit", RateLimitModel), ("a descriptor", DescriptorModel), ("the file", FileModel)):
        if key in model.model_fields:
            return f"it belongs to {name}"
    return "remove it"


def _renamed(details: list[ErrorDetails]) -> dict[Location, str]:
    """The key that was perhaps meant, for each location that ends in an unknown one."""
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"][:MAX_RENAMED]
    return {
        detail["loc"]: key
        for detail in unknown
        if (key := meant(str(detail["loc"][-1]), model_at(detail["loc"][:-1]), detail["input"]))
    }


def _fix_for(key: str, parents: Location, value: object) -> str:
    """What to write for an unknown key."""
    model = model_at(parents)
    near = meant(key, model, value)
    if near:
        return f"did you mean {near!r}?"
    if key in LIMIT_WORDS and model in {FileModel, DescriptorModel}:
        where = ", in a descriptor" if model is FileModel else ""
        return f"write `rate_limit: {limit_for(value)}`{where}"
    return "the keys here are " + ", ".join(model.model_fields)


def _mapping_fix(location: Location, value: object) -> str:
    """What to write where there is no mapping."""
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
    """How to speak of the value at `location`: its key, or its place in a list."""
    names: Iterator[str] = (step for step in reversed(location) if isinstance(step, str) and step)
    name = next(names, "")
    if location[:1] == ("tiers",) and len(location) == 2:
        return "a tier"  # whose name may be anything
    if not name:
        return "the file"
    return f"each item of {name!r}" if isinstance(location[-1], int) else repr(name)
