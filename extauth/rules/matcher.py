"""Finds the rule that a request's descriptor hits.

Level by level, an entry's (key, value) takes the first of: the rule for exactly this value (`value`, `values`,
`value_sha256`); that of the longest network that has its address (`value_cidr`); of the rules with a pattern (a
wildcard, `value_regex`, `value_range`), in file order, the first that matches; the rule for the bare key. There is no
backtracking, as in envoyproxy/ratelimit: where that rule leads nowhere, no other is tried.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from extauth.rules.masking import Masking
from extauth.rules.model import Domain, Kind, Rule, RuleSet, walk
from extauth.rules.networks import Networks, read_network
from extauth.rules.patterns import Test, compile_pattern, shared_pattern
from extauth.rules.rule_names import RuleName, RuleNamer, request_name

NETWORK_BYTES = 5000
SMALL_TUPLE = 20
"""From here on, Python keeps the memory of no tuple that is freed."""


class Match:
    """The rules that the entries hit, one each, the last of which (`rule`) decides; one object a rule.

    `shared` is, for each entry, the wildcard whose values share a counter (`share_threshold`), else None. `name` is
    what metrics call the rule, None where that depends on the request's values.
    """

    __slots__ = ("name", "path", "rule", "shared")

    def __init__(
        self, path: tuple[Rule, ...], shared: tuple[str | None, ...], rule: Rule, name: RuleName | None
    ) -> None:
        self.path, self.shared, self.rule, self.name = path, shared, rule, name


class _Node(Match):
    """The match that a rule leads to, and the rules under it, of which most rules have none."""

    __slots__ = ()
    exact: dict[tuple[str, str], "_Node"] = {}  # noqa: RUF012 - always empty
    digests: dict[tuple[str, str], "_Node"] = {}  # noqa: RUF012
    networks: dict[str, Networks["_Node"]] = {}  # noqa: RUF012
    bare: dict[str, "_Node"] = {}  # noqa: RUF012
    patterns: dict[str, list[tuple[Test, "_Node"]]] = {}  # noqa: RUF012
    key_patterns: list[tuple[Test, "_Node"]] = []  # noqa: RUF012 - for keys that `patterns` does not know

    def next(self, entry: tuple[str, str]) -> "_Node | None":
        """The node that the entry leads to."""
        node = self.exact.get(entry)
        if node is None and self.digests:
            digest = sha256(entry[1].encode("utf-8", "surrogateescape")).hexdigest()
            node = self.digests.get((entry[0], digest))
        if node is None and self.networks and (networks := self.networks.get(entry[0])) is not None:
            node = networks.find(entry[1])
        if node is not None:
            return node
        for test, candidate in self.patterns.get(entry[0], self.key_patterns):
            if test(*entry):
                return candidate
        return self.bare.get(entry[0])


class _Level(_Node):
    """A node with rules under it."""

    __slots__ = ("bare", "digests", "exact", "key_patterns", "networks", "patterns")

    def __init__(
        self,
        path: tuple[Rule, ...],
        shared: tuple[str | None, ...],
        rule: Rule,
        name: RuleName | None,
        namer: RuleNamer,
    ) -> None:
        super().__init__(path, shared, rule, name)
        self.exact, self.digests, self.bare, self.networks = {}, {}, {}, {}
        self.patterns, self.key_patterns = {}, []
        not_shared = (*shared, None)  # one for all, of which there are very many
        for inner in rule.rules:
            inner_path = (*path, inner)
            inner_shared = (*shared, shared_pattern(inner)) if inner.share_threshold else not_shared
            inner_name = namer.name(inner_path, name)
            node = (
                _Level(inner_path, inner_shared, inner, inner_name, namer)
                if inner.rules
                else _Node(inner_path, inner_shared, inner, inner_name)
            )
            self._add(inner, node)

    def _add(self, rule: Rule, node: _Node) -> None:
        match rule.kind:
            case Kind.ANY:
                self.bare[rule.key] = node
            case Kind.VALUE:
                self.exact[rule.key, rule.value or ""] = node
            case Kind.VALUES:
                self.exact |= {(rule.key, str(value)): node for value in rule.values}
            case Kind.SHA256:
                self.digests[rule.key, rule.value or ""] = node
            case Kind.CIDR:
                networks = self.networks.setdefault(rule.key, Networks())
                for value in rule.values:
                    if (network := read_network(str(value))) is not None:
                        networks.add(network, node)
            case _ if "*" in rule.key:
                pattern = (compile_pattern(rule), node)
                self.key_patterns.append(pattern)
                for patterns in self.patterns.values():
                    patterns.append(pattern)
            case _:
                self.patterns.setdefault(rule.key, list(self.key_patterns)).append((compile_pattern(rule), node))
                if rule.kind is Kind.WILDCARD:  # the reference finds the text of a pattern as a value, too
                    self.exact.setdefault((rule.key, rule.value or ""), node)


class Matcher:
    """The compiled form of a RuleSet; a look-up costs one or two dict hits an entry, whatever the number of rules.

    (And a look at each pattern of the entry's key, where no exact rule is found.) `size` is the number of rules,
    `digest` that of the rules; `masking` shows the values of rules and requests.
    """

    def __init__(self, rules: RuleSet, masking: Masking | None = None) -> None:
        self.rules = rules
        self.size = len(rules)
        self.digest = rules.digest
        self.masking = masking or Masking()
        namers = {name: RuleNamer(domain, self.masking) for name, domain in rules.domains.items()}
        self._roots: dict[str, _Node] = {
            name: _Level((), (), Rule("", rules=domain.rules), None, namers[name])
            for name, domain in rules.domains.items()
        }
        self._taken = {name: namer.taken for name, namer in namers.items() if namer.left_names_open}
        self._patterns = {name: _patterns_by_key(domain.rules) for name, domain in rules.domains.items()}
        self.has_patterns = any(map(any, self._patterns.values()))

    def domain(self, name: str) -> Domain | None:
        """The domain's rules, or None if no config file defines it."""
        return self.rules.domains.get(name)

    def parts(self) -> list[object]:
        """All that the matcher and its rules are made of.

        Whoever holds the last reference to a matcher frees it bit by bit with this: by letting the matcher go, and then
        taking the parts off the list, from its end.

        Python keeps the memory of the first few thousand small tuples that are freed, and with each the megabyte around
        it. So those that each domain has go last: there are some everywhere, and those of some rules are side by side.
        """
        domains = self.rules.domains.values()
        of_domains = [(each.files, each.labels, each.tiers, each.rules) for each in domains]
        found: list[object] = [part for parts in of_domains for part in parts if len(part) < SMALL_TUPLE]
        del of_domains
        found += self._patterns.values()
        found += self.rules
        seen: set[int] = set()
        pending: list[_Node] = list(self._roots.values())
        while pending:
            node = pending.pop()
            found.append(node)
            if not isinstance(node, _Level) or id(node) in seen:
                continue
            seen.add(id(node))
            for table in (node.exact, node.digests, node.bare):
                found += table
                pending += table.values()
            for networks in node.networks.values():
                for prefixes in networks.tables():
                    found += prefixes
                    pending += prefixes.values()
            for patterns in (node.key_patterns, *node.patterns.values()):
                found += patterns
                pending += [inner for _, inner in patterns]
        return found

    def match(self, domain: str, entries: Sequence[tuple[str, str]]) -> Match | None:
        """The rule at exactly the depth of `entries`, with how it was reached, or None."""
        node = self._roots.get(domain)
        for entry in entries:
            if node is None:
                return None
            node = node.next(entry)
        return node if entries else None

    def name(self, match: Match, domain: str, entries: Sequence[tuple[str, str]]) -> RuleName:
        """What metrics call the rule that the entries hit."""
        if match.name is not None:
            return match.name
        name = request_name(self.rules.domains[domain], match.path, entries, self.masking)
        return name._replace(name=f"{name.name} (request)") if name.name in self._taken[domain] else name

    def scanned_bytes(self, domain: str, entries: Sequence[tuple[str, str]]) -> int:
        """How many bytes are looked at, at most, to try the patterns of the entries' keys on their values.

        To look for the network of an address takes as long as for NETWORK_BYTES.
        """
        patterns, networks = self._patterns[domain]
        scanned = sum(len(value) * (patterns.get(key, 0) + patterns["*"]) for key, value in entries) if patterns else 0
        return scanned + NETWORK_BYTES * sum(key in networks for key, _ in entries) if networks else scanned


def _patterns_by_key(rules: Sequence[Rule]) -> tuple[Counter[str], frozenset[str]]:
    """How many patterns there are for values of each key, and which keys have networks.

    The patterns of keys with a wildcard are under `*`.
    """
    patterns: Counter[str] = Counter()
    networks = set[str]()
    for rule in walk(rules):
        if rule.kind is Kind.CIDR:
            networks.add(rule.key)
        if rule.kind in {Kind.REGEX, Kind.WILDCARD}:
            patterns["*" if "*" in rule.key else rule.key] += 1
    return patterns, frozenset(networks)
