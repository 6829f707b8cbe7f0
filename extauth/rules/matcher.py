"""Finds the rule that a request's descriptor hits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from extauth.rules.model import Domain, Rule, RuleSet


class _Node(NamedTuple):
    rule: Rule | None
    exact: Mapping[tuple[str, str], "_Node"]
    any_value: Mapping[str, "_Node"]


def _node(rule: Rule | None, rules: Iterable[Rule]) -> _Node:
    rules = tuple(rules)
    return _Node(
        rule,
        {(r.key, r.value): _node(r, r.rules) for r in rules if r.value is not None},
        {r.key: _node(r, r.rules) for r in rules if r.value is None},
    )


class Matcher:
    """The compiled form of a RuleSet; a look-up costs one or two dict hits an entry, whatever the number of rules.

    `size` is that number.
    """

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.size = len(rules)
        self._roots = {name: _node(None, domain.rules) for name, domain in rules.domains.items()}

    def domain(self, name: str) -> Domain | None:
        """The domain's rules, or None where no file speaks of it."""
        return self.rules.domains.get(name)

    def match(self, domain: str, entries: Sequence[tuple[str, str]]) -> Rule | None:
        """The rule at exactly the depth of `entries`, or None.

        Level by level the exact (key, value) wins over the bare key; there is no backtracking, as in
        envoyproxy/ratelimit: where the exact rule leads nowhere, the bare one is not tried.
        """
        node = self._roots.get(domain)
        if node is None:
            return None
        for entry in entries:
            node = node.exact.get(entry) or node.any_value.get(entry[0])
            if node is None:
                return None
        return node.rule
