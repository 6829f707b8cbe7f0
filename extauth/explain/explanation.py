"""Why a request is limited as it is, in lines and as JSON's data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from extauth.explain.limit_view import view_limit
from extauth.explain.match_trace import Step, describe, steps, why_unknown
from extauth.explain.preview import Asked, Planned
from extauth.explain.request import write_descriptor
from extauth.explain.text import MODES, limit_in_words, many_keys, mode_in_short, place, shown
from extauth.rules.model import Domain, Limit, Rule


class Explanation(NamedTuple):
    """The explanation of one descriptor: `outcome` is `limited`, `unlimited`, `replaced`, `label` or `nothing`."""

    descriptor: str
    outcome: str
    why: str
    steps: Sequence[Step] = ()
    rule: Rule | None = None
    asked: Sequence[Asked] = ()


def explain_descriptor(planned: Planned, i: int) -> Explanation:
    """Explain descriptor `i` of the request, counted from 0."""
    descriptor, asked, match = planned.descriptors[i], planned.asked[i], planned.matches[i]
    written = write_descriptor(descriptor)
    rules = planned.matcher.domain(planned.domain)
    if rules is None:
        return Explanation(written, "nothing", why_unknown(planned.matcher, planned.domain))
    if rules.is_label(descriptor.entries):
        key = descriptor.entries[0].key
        return Explanation(
            written, "label", f"one of `labels`: it limits nothing, and the metrics show its value as {key}"
        )
    taken = steps(planned.matcher, rules, descriptor)
    rule = None if match is None else match.rule
    if rule is None:
        outcome, why = "nothing", "nothing limits it"
    elif not asked:
        deeper = "; it is for descriptors with more entries" if rule.rules else ""
        outcome, why = "nothing", f"nothing limits it: the rule has no limit{deeper}"
    elif asked[0].limit.unlimited:
        outcome, why = "unlimited", "it is unlimited"
    elif any(each.name is not None for each in asked):
        outcome, why = "limited", "it is limited"
    else:
        outcome, why = "replaced", "all its limits are replaced"
    return Explanation(written, outcome, why, taken, rule, asked)


def descriptor_lines(number: int, told: Explanation, planned: Planned) -> list[str]:
    """The lines on one descriptor, whose number counts from 1."""
    domain = planned.matcher.domain(planned.domain) or Domain(planned.domain)
    masking = planned.matcher.masking
    lines = [f"descriptor {number}: {told.descriptor}"]
    for step in told.steps:
        entry = f"{step.entry.key}={step.entry.value}"
        hit = "nothing" if step.rule is None else place(step.rule)
        lines.append(f"  {entry} hits {hit}: {step.why}")
        lines += [f"    not {describe(other, domain, step.entry, masking)}" for other in step.others]
        if step.more:
            lines.append(f"    nor {step.more} more with this key")
    if told.rule is None or not told.asked:
        return [*lines, f"  {told.why}"]
    tier = f" (tier {told.rule.tier})" if told.rule.tier else ""
    for asked in told.asked:
        lines.append(f"  {limit_in_words(asked.limit)}{tier}")
        lines += [f"    {line}" for line in _asked_lines(told.rule, asked)]
    return lines


def _asked_lines(rule: Rule, asked: Asked) -> list[str]:
    lines = []
    if asked.limit.replaces:
        lines.append("replaces limits named " + many_keys(asked.limit.replaces))
    for number, other in asked.replacers:
        lines.append(f"does not apply: {_called(other)} of descriptor {number} replaces {asked.limit.name!r}")
    if asked.name is not None and asked.ask is not None:
        lines.append(f"counter {shown(asked.name)}")
        if asked.ask.mode:
            lines.append(MODES[asked.ask.mode])
        if rule.share_threshold:
            lines.append("share_threshold: all values that match the wildcard share the counter")
    return lines


def _called(limit: Limit) -> str:
    return repr(limit.name) if limit.name else f"a limit of {limit}"


def summary(planned: Planned) -> list[str]:
    """The lines on the whole request."""
    plan, template = planned.plan, planned.plan.template
    lines = [f"the request: in the metrics, tier {template.labels.tier} and path {template.labels.path}"]
    if not plan.names:
        return [*lines, "  counts nothing, and is admitted"]
    for name, ask in zip(plan.names, plan.checks, strict=True):
        lines.append(f"  takes {ask.cost} of {ask.limit} ({mode_in_short(ask.mode)}) from {shown(name)}")
    return lines


def view(planned: Planned, told: Sequence[Explanation]) -> dict[str, Any]:
    """As JSON's data."""
    plan, template = planned.plan, planned.plan.template
    return {
        "domain": planned.domain,
        "descriptors": [
            {
                "descriptor": each.descriptor,
                "outcome": each.outcome,
                "why": each.why,
                "steps": [_view_step(step) for step in each.steps],
                "rule": None if each.rule is None else place(each.rule),
                "tier": None if each.rule is None else each.rule.tier,
                "limits": [_view_asked(asked) for asked in each.asked],
            }
            for each in told
        ],
        "tier": template.tier,
        "labels": template.labels._asdict(),
        "counters": [
            {
                "name": shown(name),
                "limit": view_limit(ask.limit),
                "cost": ask.cost,
                "mode": ask.mode.name.lower(),
            }
            for name, ask in zip(plan.names, plan.checks, strict=True)
        ],
    }


def _view_step(step: Step) -> dict[str, Any]:
    return {
        "key": step.entry.key,
        "value": step.entry.value,
        "hits": None if step.rule is None else place(step.rule),
        "why": step.why,
        "others": [{"rule": place(other.rule), "why": other.why} for other in step.others],
        "more": step.more,
    }


def _view_asked(asked: Asked) -> dict[str, Any]:
    return {
        "limit": view_limit(asked.limit),
        "in_words": limit_in_words(asked.limit),
        "counter": None if asked.name is None else shown(asked.name),
        "mode": None if asked.ask is None else asked.ask.mode.name.lower(),
        "replaced_by": [{"descriptor": number, "limit": _called(other)} for number, other in asked.replacers],
    }
