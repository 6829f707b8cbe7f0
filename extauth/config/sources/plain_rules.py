"""Rules straight from messages in which nothing is wrong, as nearly all are: several times as quick as by the schema.

They are what `compile.py` makes of the same data, as the tests check; where it might find a problem, it does the work.
"""

from extauth.config.compile import ReplacedName
from extauth.config.sources.config_message import Descriptor, Policy
from extauth.errors import Place
from extauth.rules.model import Kind, Limit, Rule, Unit

UNITS = {unit.number: unit for unit in Unit}


class NotPlainError(Exception):
    """There may be a problem."""


class PlainRules:
    """Makes rules whose place is `place`.

    `names` are those of the limits, and `replaced` those that limits replace, once `rules` was called.
    """

    def __init__(self, place: Place) -> None:
        self.names: set[str] = set()
        self.replaced: list[ReplacedName] = []
        self._place = place
        self._limits: dict[Policy, tuple[Limit, ...]] = {}

    def rules(self, descriptors: tuple[Descriptor, ...]) -> tuple[Rule, ...]:
        """The rules; raises NotPlainError."""
        rules = tuple(map(self._rule, descriptors))
        if len(rules) > 1 and len({(rule.key, rule.kind, rule.value) for rule in rules}) < len(rules):
            raise NotPlainError
        return rules

    def _rule(self, descriptor: Descriptor) -> Rule:
        key, value, policy, inner, shadow_mode, detailed_metric, quota_mode, metadata = descriptor
        if not key:
            raise NotPlainError
        kind = Kind.WILDCARD if "*" in key or "*" in value else Kind.VALUE if value else Kind.ANY
        return Rule(
            key,
            value=value or None,
            kind=kind,
            limits=() if policy is None else self._limits.get(policy) or self._limit(policy),
            rules=self.rules(inner) if inner else (),
            place=self._place,
            shadow_mode=shadow_mode,
            quota_mode=quota_mode,
            detailed_metric=detailed_metric,
            metadata=metadata or None,
        )

    def _limit(self, policy: Policy) -> tuple[Limit, ...]:
        unit, name, replaces = UNITS.get(policy.unit), policy.name, policy.replaces
        if policy.unlimited is (unit is not None) or "" in replaces or name in replaces:
            raise NotPlainError
        self.names.add(name)
        self.replaced += [ReplacedName(replaced, self._place) for replaced in replaces]
        if unit is None:
            limit = Limit(0, Unit.SECOND, name=name, replaces=replaces, unlimited=True)
        else:
            limit = Limit(policy.requests_per_unit, unit, name=name, replaces=replaces)
        self._limits[policy] = (limit,)
        return self._limits[policy]
