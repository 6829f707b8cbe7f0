"""Rules in compact pieces, so that another process can read them: `pack` writes, `unpack` builds them in steps.

A piece is of the types that `marshal` has, and takes well below a millisecond to load: while a C function runs, no call
is answered. Limits come once each, before the first piece that refers to them.
"""

import marshal
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from sys import intern
from typing import Any

from extauth.errors import Diagnostic, Place, Severity
from extauth.rules.masking import SecretKeys
from extauth.rules.model import CARRIED, Algorithm, Domain, Kind, Limit, OnStoreFailure, Rule, RuleSet, Tier, Unit

PIECE_RULES = 100
_KINDS = tuple(Kind)
_UNITS = tuple(Unit)

Piece = tuple[Any, ...]


def pack(rules: RuleSet, *, whole: bool = False) -> Iterator[bytes]:
    """The pieces of a rule set; the last one is what all of its domains have in common.

    Of domains that are retained, only the names are packed, or with `whole` their rules as well.
    """
    packer = _Packer()
    for domain in rules.domains.values():
        retained = domain.name in rules.retained
        yield from packer.domain(domain, retained=retained and not whole)
        if retained and whole:
            yield marshal.dumps(("kept", domain.name))
    shared = [list(map(_diagnostic, diagnostics)) for diagnostics in (rules.warnings, rules.problems)]
    yield marshal.dumps(("set", *shared))


def unpack(pieces: Iterable[bytes], old: Mapping[str, Domain]) -> RuleSet:
    """The rule set of the pieces; raises EOFError where the last one is missing.

    `old` has the domains of which only the names are packed.
    """
    unpacker = _Unpacker(old)
    for piece in pieces:
        unpacker.take(marshal.loads(piece))  # noqa: S302 - what our own process wrote
    if unpacker.rules is None:
        raise EOFError
    return unpacker.rules


class _Packer:
    """Packs domains; `_limits` are the numbers of those that were packed."""

    def __init__(self) -> None:
        self._limits: dict[Limit, int] = {}
        self._new: list[Piece] = []

    def domain(self, domain: Domain, *, retained: bool) -> Iterator[bytes]:
        if retained:
            yield marshal.dumps(("retained", domain.name))
            return
        rules = iter(domain.rules)
        while part := list(islice(rules, PIECE_RULES)):
            packed = [self._rule(rule) for rule in part]
            yield marshal.dumps(("rules", self._taken(), packed))
        tiers = [(tier.name, self._limit(tier.limit)) for tier in domain.tiers]
        head = (
            domain.name,
            tiers,
            domain.labels,
            domain.files,
            str(domain.algorithm.value),
            domain.count_denied,
            _text(domain.on_store_failure),
            (tuple(domain.secret.keys), domain.secret.by_name),
            domain.together,
            domain.digest,
        )
        yield marshal.dumps(("domain", self._taken(), head))

    def _taken(self) -> list[Piece]:
        new, self._new = self._new, []
        return new

    def _rule(self, rule: Rule) -> Piece:
        return (
            rule.key,
            rule.value,
            _KINDS.index(rule.kind),
            rule.values,
            tuple([self._limit(limit) for limit in rule.limits]),
            rule.tier,
            tuple([self._rule(inner) for inner in rule.rules]),
            tuple(rule.place),
            {name: carried for name in CARRIED if (carried := getattr(rule, name))},
        )

    def _limit(self, limit: Limit) -> int:
        number = self._limits.get(limit)
        if number is None:
            number = self._limits[limit] = len(self._limits)
            self._new.append(
                (
                    limit.requests_per_unit,
                    _UNITS.index(limit.unit),
                    str(limit.algorithm.value),
                    limit.count_denied,
                    limit.name,
                    limit.replaces,
                    limit.unit_multiplier,
                    limit.burst,
                    limit.unlimited,
                    _text(limit.on_store_failure),
                )
            )
        return number


class _Unpacker:
    """Builds a rule set, piece by piece."""

    def __init__(self, old: Mapping[str, Domain]) -> None:
        self.rules: RuleSet | None = None
        self._old = old
        self._domains: dict[str, Domain] = {}
        self._retained: set[str] = set()
        self._limits: list[tuple[Limit, ...]] = []  # each as the limits of a rule that has no other
        self._rules: list[Rule] = []
        self._files: dict[str, str] = {}

    def take(self, piece: Piece) -> None:
        match piece:
            case "rules", limits, packed:
                self._add(limits)
                self._rules += map(self._rule, packed)
            case "domain", limits, head:
                self._add(limits)
                domain = self._domain(head)
                self._domains[domain.name] = domain
            case "retained", name:
                self._domains[name] = self._old[name]
                self._retained.add(name)
            case "kept", name:
                self._retained.add(name)
            case "set", warnings, problems:
                self.rules = RuleSet(
                    self._domains,
                    warnings=tuple(map(_undiagnostic, warnings)),
                    problems=tuple(map(_undiagnostic, problems)),
                    retained=frozenset(self._retained),
                )

    def _add(self, limits: Iterable[Piece]) -> None:
        for requests, unit, algorithm, count_denied, name, replaces, multiplier, burst, unlimited, policy in limits:
            limit = Limit(
                requests,
                _UNITS[unit],
                Algorithm(algorithm),
                count_denied=count_denied,
                name=name,
                replaces=replaces,
                unit_multiplier=multiplier,
                burst=burst,
                unlimited=unlimited,
                on_store_failure=_policy(policy),
            )
            self._limits.append((limit,))

    def _rule(self, packed: Piece) -> Rule:
        key, value, kind, values, limits, tier, inner, (file, line, column), carried = packed
        own = self._limits[limits[0]] if len(limits) == 1 else tuple([self._limits[each][0] for each in limits])
        return Rule(
            intern(key),
            value=value,
            kind=_KINDS[kind],
            values=values,
            limits=own,
            tier=None if tier is None else intern(tier),
            rules=tuple(map(self._rule, inner)),
            place=Place(self._files.setdefault(file, file), line, column),
            **carried,
        )

    def _domain(self, head: Piece) -> Domain:
        name, tiers, labels, files, algorithm, count_denied, policy, (secret, by_name), together, digest = head
        rules, self._rules = self._rules, []
        return Domain(
            name,
            rules=tuple(rules),
            tiers=tuple([Tier(tier, self._limits[limit][0]) for tier, limit in tiers]),
            labels=labels,
            files=files,
            algorithm=Algorithm(algorithm),
            count_denied=count_denied,
            on_store_failure=_policy(policy),
            secret=SecretKeys(frozenset(secret), by_name=by_name),
            together=together,
            digest=digest,
        )


def _text(policy: OnStoreFailure | None) -> str | None:
    return None if policy is None else str(policy.value)


def _policy(text: str | None) -> OnStoreFailure | None:
    return None if text is None else OnStoreFailure(text)


def _diagnostic(diagnostic: Diagnostic) -> Piece:
    return str(diagnostic.severity.value), tuple(diagnostic.place), diagnostic.message, diagnostic.hint


def _undiagnostic(packed: Piece) -> Diagnostic:
    severity, place, message, hint = packed
    return Diagnostic(Severity(severity), Place(*place), message, hint)
