"""Values that a log has hashed: those that the config names are known again, the others are told apart.

A value that the config names in clear is put back. In place of any other there is HASHED_SIGN and its hash, which no
request's value in the log begins with. Such a value is matched by `value_sha256` and by bare keys; whether a pattern
matches it cannot be told, unless the pattern takes any value or none.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from extauth.limiter.descriptor_log import HASHED_SIGN
from extauth.replay.log_line import LoggedEntry, LoggedRequest
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry
from extauth.rules.masking import Masking
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Kind, Rule, RuleSet
from extauth.rules.patterns import wildcard


class CannotTellError(Exception):
    """Whether the rule's pattern matches a hashed value cannot be told."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.key)
        self.rule = rule


class HashesSeen(NamedTuple):
    """By key, the hashed values of requests: how many there were, and how many of these the config names."""

    seen: Counter[str]
    known: Counter[str]


class HashedMatcher(Matcher):
    """A Matcher for requests of a log."""

    def __init__(self, rules: RuleSet, masking: Masking) -> None:
        super().__init__(rules, masking)
        self.hashes = HashesSeen(Counter(), Counter())
        self._values: dict[tuple[str, str], str] = {}
        self._digests: dict[tuple[str, str], str] = {}
        for rule in rules:
            if rule.kind is Kind.SHA256:
                self._digests[rule.key, masking.hashed_digest(rule.value or "")] = rule.value or ""
            for value in _values_of(rule):
                self._values[rule.key, masking.hashed(value)] = value

    def unknown_keys(self) -> list[str]:
        """Keys of which the config names values, and the log has hashed ones, but none that the config names."""
        named = {rule.key for rule in self.rules if rule.kind in {Kind.VALUE, Kind.VALUES, Kind.SHA256}}
        return [key for key in self.hashes.seen if key in named and not self.hashes.known[key]]

    def encode(self, request: LoggedRequest) -> bytes:
        """The message that asks the same."""
        descriptors = [
            Descriptor(tuple([Entry(each.key, self._value(each)) for each in entries]), limit, hits, negative)
            for entries, limit, hits, negative in request.descriptors
        ]
        return encode_request(request.domain, descriptors, request.hits)

    def show(self, entry: LoggedEntry, domain: str) -> str:
        """`key=value` for a report: secret values masked, and by their hashes where only these are known."""
        rules = self.rules.domains.get(domain)
        value = entry.shown if entry.hash is None else self._values.get((entry.key, entry.hash))
        if value is None:
            begin = (entry.shown or "")[:40]
            return f"{entry.key}={begin}#{entry.hash}"
        secret = entry.shown is None or (rules is not None and rules.secret.covers(entry.key, value))
        return f"{entry.key}={self.masking.show(value, secret=secret)}"

    def match(self, domain: str, entries: Sequence[tuple[str, str]]) -> Match | None:
        """As Matcher.match; raises CannotTellError."""
        if not any(value.startswith(HASHED_SIGN) for _, value in entries):
            return super().match(domain, entries)
        node = self._roots.get(domain)
        for key, value in entries:
            if node is None:
                return None
            if not value.startswith(HASHED_SIGN):
                node = node.next((key, value))
                continue
            digest = self._digests.get((key, value[len(HASHED_SIGN) :]))
            found = None if digest is None else node.digests.get((key, digest))
            if found is None and (networks := node.networks.get(key)) is not None:
                raise CannotTellError(_first_rule(networks.tables()))
            if found is None:
                for _, candidate in node.patterns.get(key, node.key_patterns):
                    if _matches_any_value(candidate.rule, key):
                        found = candidate
                        break
            node = found or node.bare.get(key)
        return node if entries else None

    def _value(self, entry: LoggedEntry) -> str:
        key, shown, hashed = entry
        if hashed is None:
            return shown or ""
        self.hashes.seen[key] += 1
        value = self._values.get((key, hashed))
        if value is not None or (key, hashed) in self._digests:
            self.hashes.known[key] += 1
        return HASHED_SIGN + hashed if value is None else value


def _values_of(rule: Rule) -> Iterable[str]:
    match rule.kind:
        case Kind.VALUES:
            return map(str, rule.values)
        case Kind.VALUE | Kind.WILDCARD:
            return (rule.value or "",)
    return ()


def _first_rule(tables: Iterable[Mapping[int, Any]]) -> Rule:
    """The rule of a node in the tables, of which there is at least one."""
    rule: Rule = next(node.rule for table in tables for node in table.values())
    return rule


def _matches_any_value(rule: Rule, key: str) -> bool:
    """Whether a pattern takes any value of the key; False: it takes none. Raises CannotTellError."""
    if rule.kind is not Kind.WILDCARD:
        raise CannotTellError(rule)
    begin = f"{key}_" if "*" in rule.key else ""  # of the text that the pattern is matched with
    first, *others = wildcard(rule).split("*")
    if not begin.startswith(first[: len(begin)]):
        return False
    if len(first) > len(begin) or any(others):
        raise CannotTellError(rule)
    return True
