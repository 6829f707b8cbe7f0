"""Names of rules in metrics: each rule of a domain has one, and no two have the same.

As in envoyproxy/ratelimit: KEY_VALUE.KEY, and so on. Values that the file names are in it in clear, those of secret
keys masked. Values of requests do so only where the file asks for it (`value_to_metric`, `detailed_metric`).
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from extauth.rules.masking import Masking
from extauth.rules.model import Domain, Kind, Rule

MAX_NAME_BYTES = 400


class RuleName(NamedTuple):
    """A rule in the metrics of a domain; `in_file` if no value of a request is in its name."""

    domain: str
    name: str
    in_file: bool = True


class RuleNamer:
    """Names the rules of one domain, in the order of its files."""

    def __init__(self, domain: Domain, masking: Masking) -> None:
        self._domain = domain
        self._masking = masking
        self.taken: set[str] = set()
        self.left_names_open = False  # some depend on requests' values

    def name(self, path: Sequence[Rule], outer: RuleName | None) -> RuleName | None:
        """The name of the last rule of `path`; `outer` is that of the one before it.

        None where the name depends on a request's values.
        """
        rule = path[-1]
        if rule.detailed_metric or rule.value_to_metric or rule.kind is Kind.VALUES or (outer is None and path[:-1]):
            self.left_names_open = True
            return None
        before = f"{outer.name}." if outer is not None else ""
        name = before + self._masking.shorten(
            _joined(rule.key, _value(rule, self._domain, self._masking)), MAX_NAME_BYTES
        )
        if name in self.taken:
            name += f" ({PurePath(rule.place.file).name}:{rule.place.line})"
        if name in self.taken:
            name += f":{rule.place.column}"
        self.taken.add(name)
        return RuleName(self._domain.name, name)


def request_name(
    domain: Domain, path: Sequence[Rule], entries: Sequence[tuple[str, str]], masking: Masking
) -> RuleName:
    """The name of the last rule of `path` for a request whose entries hit these rules, where it depends on them."""
    detailed = path[-1].detailed_metric
    parts = []
    for rule, (key, value) in zip(path, entries, strict=True):
        if detailed or rule.value_to_metric:
            secret = domain.secret.covers(key, value, rule.key)
            shown = _value(rule, domain, masking) if rule.share_threshold else masking.show(value, secret=secret)
            parts.append(_joined(key, shown))
        elif rule.kind is Kind.VALUES:
            parts.append(_joined(rule.key, masking.show(value, secret=domain.secret.covers(rule.key, value))))
        else:
            parts.append(_joined(rule.key, _value(rule, domain, masking)))
    in_file = not detailed and not any(rule.value_to_metric for rule in path)
    return RuleName(domain.name, masking.shorten(".".join(parts), MAX_NAME_BYTES), in_file)


def override_name(domain: str, keys: Iterable[str], masking: Masking) -> RuleName:
    """The name of a limit that a request brings with it, by the keys of its descriptor's entries."""
    return RuleName(domain, masking.shorten("override:" + ".".join(keys), MAX_NAME_BYTES), in_file=False)


def _value(rule: Rule, domain: Domain, masking: Masking) -> str:
    """What the rule matches, in short; nothing where it matches any value."""
    match rule.kind:
        case Kind.ANY:
            return ""
        case Kind.RANGE:
            value = "{}..{}".format(*rule.values)
        case Kind.CIDR:
            value = ",".join(map(str, rule.values))
        case Kind.SHA256:
            return masking.digest(rule.value or "")
        case _:
            value = rule.value or ""
    return masking.show(value, secret=domain.secret.covers(rule.key, value)) if value else ""


def _joined(key: str, value: str | None) -> str:
    return f"{key}_{value}" if value else key
