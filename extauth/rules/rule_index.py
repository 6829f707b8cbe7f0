"""The rules of a config by the names that they have in metrics."""

from collections.abc import Iterator, Sequence
from itertools import islice

from extauth.rules.masking import Masking
from extauth.rules.model import Domain, Kind, Rule, RuleSet
from extauth.rules.rule_names import RuleName, RuleNamer, request_name

MAX_INDEXED = 100_000


def index_rules(rules: RuleSet, masking: Masking, most: int = MAX_INDEXED) -> dict[tuple[str, str], Rule]:
    """The rules with limits by (domain, name), in the order of the files: at most `most` names.

    A rule with several values has a name for each. Rules whose names depend on requests otherwise are left out.
    """
    found: dict[tuple[str, str], Rule] = {}
    for domain in rules.domains.values():
        named = _DomainNames(domain, masking).each(domain.rules)
        for name, rule in islice(named, most - len(found)):
            if rule.limits:
                found[name.domain, name.name] = rule
    return found


class _DomainNames:
    """The names of one domain's rules."""

    def __init__(self, domain: Domain, masking: Masking) -> None:
        self._domain = domain
        self._masking = masking
        self._namer = RuleNamer(domain, masking)

    def each(
        self,
        rules: Sequence[Rule],
        path: tuple[Rule, ...] = (),
        entries: tuple[tuple[str, str], ...] = (),
        outer: RuleName | None = None,
    ) -> Iterator[tuple[RuleName, Rule]]:
        """Each rule with its name, outer before inner; `path` is what leads to them, `entries` what hits its rules."""
        for rule in rules:
            own_path = (*path, rule)
            name = self._namer.name(own_path, outer)
            if name is not None:
                yield name, rule
                yield from self.each(rule.rules, own_path, (*entries, (rule.key, "")), name)
                continue
            if rule.detailed_metric or any(each.value_to_metric for each in own_path):
                continue
            for value in rule.values if rule.kind is Kind.VALUES else ("",):
                own_entries = (*entries, (rule.key, str(value)))
                yield request_name(self._domain, own_path, own_entries, self._masking), rule
                yield from self.each(rule.rules, own_path, own_entries)
