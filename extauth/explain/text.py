"""Limits, rules and times in words."""

from collections.abc import Iterable

from extauth.limiter.counters import Mode
from extauth.rules.masking import Masking
from extauth.rules.model import Domain, Kind, Limit, Rule
from extauth.rules.patterns import wildcard

MODES = {
    Mode.ENFORCED: "enforced",
    Mode.QUOTA: "a quota: it denies only where every quota of the request is used up",
    Mode.SAME_QUOTA: "another limit of the quota before it",
    Mode.REPORT_ONLY: "never denies: it is counted and told",
    Mode.SHADOW: "shadow mode: it is counted, and never denies",
}


def limit_in_words(limit: Limit) -> str:
    """`10 per minute, gcra, burst 10; a denied request consumes nothing`, and the policy for store failures, if any."""
    if limit.unlimited:
        return "unlimited: counts nothing, admits all"
    burst = f", burst {limit.capacity}" if "burst" in limit.algorithm.own_keys else ""
    denied = "denied hits count, too" if limit.count_denied else "a denied request consumes nothing"
    policy = f"; on store failure: {limit.on_store_failure}" if limit.on_store_failure else ""
    nothing = "" if limit.requests_per_unit else "; it denies everything"
    return f"{limit}, {limit.algorithm}{burst}; {denied}{nothing}{policy}"


def mode_in_short(mode: Mode) -> str:
    """`enforced`, `a quota`, …."""
    return MODES[mode].partition(":")[0]


def shown(name: bytes) -> str:
    """A counter's name as text."""
    return name.decode("utf-8", "surrogateescape")


def place(rule: Rule) -> str:
    """`FILE:LINE`."""
    return f"{rule.place.file}:{rule.place.line}"


def rule_in_words(rule: Rule, domain: Domain, typed: str, masking: Masking) -> str:
    """What the rule matches; secret values are masked, except for the one that the user `typed`."""
    value = rule.value or ""
    shown = value if value == typed else masking.show(value, secret=domain.secret.covers(rule.key, value))
    match rule.kind:
        case Kind.VALUE:
            return f"{rule.key}={shown}"
        case Kind.VALUES:
            what = f"one of {len(rule.values)} values"
        case Kind.SHA256:
            what = f"value_sha256 {masking.digest(value)}"
        case Kind.WILDCARD:
            secret = domain.secret.covers(rule.key, rule.value or rule.key)
            what = f"the wildcard {masking.show(wildcard(rule), secret=secret)}"
        case Kind.REGEX:
            what = f"the regex {shown}"
        case Kind.CIDR:
            networks = list(map(str, rule.values))
            what = f"one of {len(networks)} networks"
            if len(networks) == 1:
                (network,) = networks
                if network != typed:
                    network = masking.show(network, secret=domain.secret.covers(rule.key, network))
                what = f"the network {network}"
        case Kind.RANGE:
            what = "the numbers from {} to before {}".format(*rule.values)
        case _:
            what = "any value"
    return f"{rule.key}, {what}"


def many_keys(keys: Iterable[str]) -> str:
    """Up to ten of them, each once."""
    names = list(dict.fromkeys(keys))
    return (
        ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        if names
        else "none"
    )


def seconds(duration_us: int) -> str:
    """`18 s`, rounded up: nobody should come too early."""
    return f"{-(-duration_us // 1_000_000)} s"
