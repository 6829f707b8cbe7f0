"""The panels by rule."""

from observability.grafana.frame import PAGE_LINK
from observability.grafana.panels import Panel, lines, ranking
from observability.grafana.selectors import counted, or_none_of, rate_from_birth, rule

_RULE_CALLS, _RULE_OVER, _RULE_NEAR, _RULE_SHADOW = (
    f"sum by (domain, rule) ({rate_from_birth(rule(f'extauth_rule_{counter}_total'))})"
    for counter in ("calls", "over_limit", "near_limit", "shadow_denied")
)
_RULE_DENIALS = f"sum by (domain, rule) ({counted(rule('extauth_rule_over_limit_total'))})"
# A config may have thousands of rules; a browser draws tens.
_MAX_RULES = 20
_RULE = "{{domain}} · {{rule}}"


def rules(unmatched: str) -> list[Panel]:
    """The panels; `unmatched` is the rate of calls that no rule matched."""

    def largest(expr: str) -> str:
        return f"topk({_MAX_RULES}, {expr})"

    return [
        ranking(
            "Most denied rules",
            f"Calls that a rule's limits had no room for, in the whole range of time; the {_MAX_RULES} largest. Which "
            "callers they are is on the live page.",
            largest(_RULE_DENIALS),
            _RULE,
            PAGE_LINK,
        ),
        lines(
            "Over limit by rule",
            f"Calls a second that a rule's limits had no room for, denied or not; the {_MAX_RULES} largest.",
            "reqps",
            (largest(_RULE_OVER), _RULE),
        ),
        lines(
            "Calls by rule",
            f"Calls a second that a rule's limits were asked about; the {_MAX_RULES} largest.",
            "reqps",
            (largest(_RULE_CALLS), _RULE),
        ),
        lines(
            "Share over limit by rule",
            f"The share of a rule's calls that its limits had no room for; the {_MAX_RULES} largest.",
            "percentunit",
            (largest(f"{_RULE_OVER} / ({_RULE_CALLS} > 0)"), _RULE),
        ),
        lines(
            "Near limit by rule",
            "Calls a second that fitted, and left a counter above EXTAUTH_NEAR_LIMIT_RATIO (0.8) of its limit: their "
            f"callers will soon be denied. The {_MAX_RULES} largest.",
            "reqps",
            (largest(_RULE_NEAR), _RULE),
            span=8,
        ),
        lines(
            "Shadow mode by rule",
            "Calls a second that a rule in shadow mode would have denied. Rule none: no rule is in shadow mode.",
            "reqps",
            (or_none_of(largest(_RULE_SHADOW), "rule"), _RULE),
            span=8,
        ),
        lines(
            "Calls that no rule matched",
            "They are admitted and limited by nothing. Domain other: no config file "
            "defines the domain that Envoy named.",
            "reqps",
            (or_none_of(f"sum by (domain) ({unmatched})", "domain"), "{{domain}}"),
            span=8,
        ),
    ]
