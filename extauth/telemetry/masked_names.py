"""Which values are masked in the names of rules and paths, by the rules in force.

Calls keep the rules that they were planned by. One that is decided after a reload has names by the earlier rules: where
these show what is secret by now, they must not be shown any more.
"""

from typing import Any, Final, NamedTuple

from extauth.limiter.plan import PlanTemplate
from extauth.rules.masking import SecretKeys
from extauth.rules.model import RuleSet


class Remasked(NamedTuple):
    """The domains of which other values are masked than before; `paths`: among them are paths that label requests."""

    domains: frozenset[str] = frozenset()
    paths: bool = False


NOT_REMASKED: Final = Remasked()


MAX_GONE_BYTES: Final = 1 << 20
GONE_BYTES: Final = 300  # beside its name


class _Known(NamedTuple):
    secret: SecretKeys
    labels: frozenset[str]


class _Followed(NamedTuple):
    """What is known once these rules are in force, after what was known before, and what that changes."""

    rules: RuleSet
    before: dict[str, _Known]
    known: dict[str, _Known]
    remasked: Remasked


class MaskedNames:
    """Follows the rules in force. May be asked by any thread.

    A domain that is not defined any more is remembered, for its names are still shown: in MAX_GONE_BYTES. The names of
    those that are gone for longest must then not be shown any more.
    """

    def __init__(self) -> None:
        self._rules: RuleSet | None = None
        self._known: dict[str, _Known] = {}
        self._next: _Followed | None = None
        self._unused: list[dict[str, Any]] = []

    def before_rules(self, rules: RuleSet) -> None:
        """Do beside the event loop most of what `rules_loaded` with these rules would have to do at once."""
        self._next = self._follow(rules)

    def rules_loaded(self, rules: RuleSet) -> Remasked:
        """Follow other rules; returns whose names must not be shown any more."""
        followed, self._next = self._next, None
        if rules is self._rules:
            return NOT_REMASKED
        if followed is None or followed.rules is not rules or followed.before is not self._known:
            followed = self._follow(rules)
        self._unused += [self._known] if self._known else []
        self._rules, self._known = rules, followed.known
        return followed.remasked

    def unused(self) -> list[dict[str, Any]]:
        """Tables that are no longer used since rules were loaded, to be emptied bit by bit."""
        unused, self._unused = self._unused, []
        return unused

    def _follow(self, rules: RuleSet) -> _Followed:
        earlier = self._known
        known = {name: each for name, each in earlier.items() if name not in rules.domains}
        remasked, paths = set[str](), False
        size = sum(GONE_BYTES + len(name) for name in known)
        for name in list(known) if size > MAX_GONE_BYTES else ():
            if size <= MAX_GONE_BYTES:
                break
            size -= GONE_BYTES + len(name)
            paths |= bool(known.pop(name).labels)
            remasked.add(name)
        for name, domain in rules.domains.items():
            # With the new texts: one text of the rules before, which lies between these, keeps a megabyte of their
            # memory from being given back.
            before = earlier.get(name, _Known(domain.secret, frozenset()))
            labels = frozenset(domain.labels).union(before.labels)
            known[name] = _Known(domain.secret, labels)
            if before.secret != domain.secret:
                remasked.add(name)
                paths |= not all(domain.secret.covers_alike(before.secret, key) for key in labels)
        return _Followed(rules, earlier, known, Remasked(frozenset(remasked), paths))

    def show(self, domain: str, secret: SecretKeys) -> bool:
        """Whether names of a domain in which the values of these keys are masked may be shown."""
        known = self._known.get(domain)
        return known is None or known.secret == secret

    def show_plans_of(self, template: PlanTemplate) -> bool:
        """Whether the path and the rules of a plan may be shown."""
        return self.show(template.domain, template.secret)
