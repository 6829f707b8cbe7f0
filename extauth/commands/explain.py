"""`extauth explain`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import typer

from extauth.admin.rules_json import view_limit
from extauth.commands.common import (
    AsJson,
    Config,
    Descriptors,
    DomainName,
    MergeDomains,
    failing,
    print_result,
)
from extauth.commands.match_trace import Step, describe, steps, why_unknown
from extauth.commands.preview import Asked, Planned, plan_request
from extauth.commands.request import write_descriptor
from extauth.commands.text import MODES, limit_in_words, many_keys, mode_in_short, place, shown
from extauth.rules.model import Domain, Limit, Rule

EXAMPLE = """\b
Example:
  extauth explain --config envoy/descriptors api \\
      api_key=free-tier-key masked_remote_address=192.0.2.1/32 path=/hello

Exit code: 0 where a limit applies, 1 where none does, 2 where the config cannot be read."""


def explain(
    domain: DomainName,
    descriptors: Descriptors,
    config: Config = None,
    merge_domains: MergeDomains = False,
    as_json: AsJson = False,
) -> None:
    """Say which rules a request hits, and why.

    Also what limits it, and what it counts. Nothing is counted, and no store asked. Give the descriptors as Envoy would
    send them, one an argument. Entry by entry, the rule that is hit is told with
    the others for its key that are not; secret values among these are masked. Counters are told by their names in the
    store, for which EXTAUTH_KEY_PREFIX and EXTAUTH_KEY_SECRET are read as `extauth serve` reads them.
    """
    with failing(as_json=as_json):
        planned = plan_request(config, domain, descriptors, merge=merge_domains)
        told = [_explain(planned, i) for i in range(len(planned.descriptors))]
        lines = [line for i, each in enumerate(told, 1) for line in _lines(i, each, planned)]
        print_result([*lines, *_summary(planned)], _view(planned, told), as_json=as_json)
        if not any(planned.asked):
            raise typer.Exit(1)


class _Told(NamedTuple):
    """What is told of one descriptor: `outcome` is `limited`, `unlimited`, `replaced`, `label` or `nothing`."""

    descriptor: str
    outcome: str
    why: str
    steps: Sequence[Step] = ()
    rule: Rule | None = None
    asked: Sequence[Asked] = ()


def _explain(planned: Planned, i: int) -> _Told:
    descriptor, asked, match = planned.descriptors[i], planned.asked[i], planned.matches[i]
    written = write_descriptor(descriptor)
    rules = planned.matcher.domain(planned.domain)
    if rules is None:
        return _Told(written, "nothing", why_unknown(planned.matcher, planned.domain))
    if rules.is_label(descriptor.entries):
        key = descriptor.entries[0].key
        return _Told(written, "label", f"one of `labels`: it limits nothing, and the metrics tell its value as {key}")
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
    return _Told(written, outcome, why, taken, rule, asked)


def _lines(number: int, told: _Told, planned: Planned) -> list[str]:
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


def _summary(planned: Planned) -> list[str]:
    plan, template = planned.plan, planned.plan.template
    lines = [f"the request: in the metrics, tier {template.labels.tier} and path {template.labels.path}"]
    if not plan.names:
        return [*lines, "  counts nothing, and is admitted"]
    for name, ask in zip(plan.names, plan.checks, strict=True):
        lines.append(f"  takes {ask.cost} of {ask.limit} ({mode_in_short(ask.mode)}) from {shown(name)}")
    return lines


def _view(planned: Planned, told: Sequence[_Told]) -> dict[str, Any]:
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
