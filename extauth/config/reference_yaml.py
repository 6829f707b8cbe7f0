"""Says a config in plain envoyproxy/ratelimit YAML, where it can be said there."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import yaml

from extauth.config.schema import REFERENCE_KEYS
from extauth.errors import Diagnostic, Place
from extauth.rules.model import FLAGS, Domain, Kind, Limit, Rule, RuleSet, Unit

_UNITS = {unit.seconds * 1_000_000: unit for unit in Unit}
_PATTERNS = {Kind.SHA256: "a digest", Kind.REGEX: "a regex", Kind.RANGE: "a range", Kind.CIDR: "a network"}


class Expansion(NamedTuple):
    """`documents` are YAML texts by domain; `unsupported` is what keeps the other domains from being expressed."""

    documents: dict[str, str]
    unsupported: tuple[Diagnostic, ...]


def expand(rules: RuleSet) -> Expansion:
    """Say each domain, whole or not at all: a part of its rules would mean something else."""
    documents: dict[str, str] = {}
    unsupported: list[Diagnostic] = []
    for domain in rules.domains.values():
        expander = _Expander()
        said = expander.domain(domain)
        unsupported += expander.unsupported
        if not expander.unsupported:
            documents[domain.name] = "".join(_comments(domain)) + _write(said)
    return Expansion(documents, tuple(unsupported))


class _Expander:
    def __init__(self) -> None:
        self.unsupported: list[Diagnostic] = []

    def domain(self, domain: Domain) -> dict[str, Any]:
        self._check_overrides(domain)
        for rule in domain.rules:
            self._check_labels(domain, rule)
        return {"domain": domain.name, "descriptors": self._rules(domain.rules)}

    def _cannot(self, rule: Rule, message: str, hint: str = "") -> None:
        self.unsupported.append(Diagnostic.error(rule.place, message, hint))

    def _check_overrides(self, domain: Domain) -> None:
        plain = Limit(1, Unit.SECOND)
        if (domain.algorithm, domain.count_denied) != (plain.algorithm, plain.count_denied):
            how = str(domain.algorithm) if domain.algorithm is not plain.algorithm else "count_denied: false"
            message = f"limits that requests bring with them are {how} in the domain {domain.name!r}"
            self.unsupported.append(
                Diagnostic.error(Place(domain.files[0]), message, "the reference counts in fixed windows")
            )
        if domain.on_store_failure is not None:
            message = f"the domain {domain.name!r} has on_store_failure, which the reference does not know"
            self.unsupported.append(Diagnostic.error(Place(domain.files[0]), message, "remove it"))
        if domain.together:
            message = f"the domain {domain.name!r} has together, which the reference does not know"
            self.unsupported.append(Diagnostic.error(Place(domain.files[0]), message, "remove it"))

    def _check_labels(self, domain: Domain, rule: Rule) -> None:
        """A label limits nothing in the reference because it has no rule; a pattern of keys could be one."""
        prefix = rule.key.partition("*")[0]
        for label in domain.labels if "*" in rule.key else ():
            if label.startswith(prefix) or prefix.startswith(label):
                self._cannot(rule, f"the reference would match the label {label!r}, too", "name the keys")

    def _rules(self, rules: Iterable[Rule]) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        first: dict[str, Rule] = {}  # by what the reference knows a descriptor by
        for rule in rules:
            for descriptor in self._descriptors(rule):
                name = f"{descriptor['key']}_{descriptor['value']}" if "value" in descriptor else descriptor["key"]
                other = first.setdefault(name, rule)
                if other is not rule:
                    message = (
                        f"the reference takes this for the same as line {other.place.line}: it joins key and value"
                    )
                    self._cannot(rule, message, "rename a key")
                said.append(descriptor)
        return said

    def _descriptors(self, rule: Rule) -> Iterator[dict[str, Any]]:
        if rule.kind in _PATTERNS:
            self._cannot(rule, f"the reference cannot match {_PATTERNS[rule.kind]} ({rule.kind})", "list the values")
        elif rule.kind is not Kind.WILDCARD and any("*" in text for text in (rule.key, *map(str, rule.values))):
            self._cannot(rule, "the reference takes a * in a key or value for a wildcard")
        rest = self._rest(rule)
        if rule.kind is Kind.VALUES:
            for value in rule.values:
                yield {"key": rule.key, "value": value, **rest}
        elif rule.value is not None:
            yield {"key": rule.key, "value": rule.value, **rest}
        else:
            yield {"key": rule.key, **rest}

    def _rest(self, rule: Rule) -> dict[str, Any]:
        rest: dict[str, Any] = {}
        if len(rule.limits) > 1:
            self._cannot(rule, f"the reference has one limit a descriptor, not {len(rule.limits)}")
        for limit in rule.limits:
            self._check_limit(rule, limit)
            rest["rate_limit"] = _rate_limit(limit)
        for flag in FLAGS:
            if getattr(rule, flag):
                rest[flag] = True
                if flag not in REFERENCE_KEYS:
                    self._cannot(rule, f"the reference has no {flag}", "remove it")
        if rule.metadata is not None:
            rest["metadata"] = rule.metadata
        if rule.rules:
            rest["descriptors"] = self._rules(rule.rules)
        return rest

    def _check_limit(self, rule: Rule, limit: Limit) -> None:
        if limit.unlimited:
            return
        if not limit.algorithm.in_reference:
            burst = "" if limit.burst is None else " and no burst"
            self._cannot(rule, f"the reference has no {limit.algorithm}{burst}", "use algorithm: fixed_window")
        elif not limit.count_denied:
            self._cannot(rule, "the reference counts denied hits, too", "use count_denied: true")
        if limit.on_store_failure is not None:
            self._cannot(rule, "the reference has no on_store_failure", "remove it")
        if limit.period_us not in _UNITS:
            self._cannot(rule, f"the reference has no window of {limit.period}", "use one unit of time")


def _rate_limit(limit: Limit) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if limit.name:
        said["name"] = limit.name
    if limit.unlimited:
        said["unlimited"] = True
    else:
        said["unit"] = str(_UNITS.get(limit.period_us, limit.unit))
        said["requests_per_unit"] = limit.requests_per_unit
    if limit.replaces:
        said["replaces"] = [{"name": name} for name in limit.replaces]
    return said


def _comments(domain: Domain) -> Iterator[str]:
    for label in domain.labels:
        yield f"# Left out: the label {label}. A descriptor without a rule limits nothing here either.\n"
    if domain.tiers:
        yield "# Tiers are named limits here, and go upstream in no header.\n"


class _Dumper(yaml.SafeDumper):
    """Quotes whatever some reader of YAML could take for no string, and writes no aliases."""

    def ignore_aliases(self, _data: Any) -> bool:  # noqa: ANN401
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_WORDS = {"y", "yes", "true", "on", "n", "no", "false", "off", "null"}
_Dumper.add_representer(str, _Dumper.represent_text)


def _write(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
