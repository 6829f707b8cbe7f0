"""What a request counts, as the service's own matcher and planner have it."""

from collections.abc import Sequence
from typing import NamedTuple

from extauth.limiter.counters import LimitCheck
from extauth.limiter.plan import UNLIMITED_AT, Plan
from extauth.limiter.planner import Planner
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Limit


class Asked(NamedTuple):
    """One limit of a descriptor: its counter's name and what is asked of it, or the `replacers` that keep it out.

    A replacer is (the number of its descriptor from 1, its limit).
    """

    limit: Limit
    name: bytes | None
    ask: LimitCheck | None
    replacers: tuple[tuple[int, Limit], ...] = ()


class Planned(NamedTuple):
    """A request and its plan; `matches` and `asked` have an item a descriptor."""

    matcher: Matcher
    domain: str
    descriptors: tuple[Descriptor, ...]
    plan: Plan
    matches: tuple[Match | None, ...]
    asked: tuple[tuple[Asked, ...], ...]


def plan_request(planner: Planner, domain: str, descriptors: tuple[Descriptor, ...]) -> Planned:
    """Plan the request; raises InvalidRequestError."""
    plan = planner.plan(encode_request(domain, descriptors))
    matcher = planner.matcher
    known = matcher.domain(domain)
    matches = tuple(
        None if known is None or known.is_label(descriptor.entries) else matcher.match(domain, descriptor.entries)
        for descriptor in descriptors
    )
    return Planned(matcher, domain, descriptors, plan, matches, _asked(plan, matches))


def _asked(plan: Plan, matches: Sequence[Match | None]) -> tuple[tuple[Asked, ...], ...]:
    """By descriptor, what the plan asks for each limit that matched."""
    limits = [() if match is None else match.rule.limits for match in matches]
    asked = []
    for own, indices in zip(limits, plan.template.counters_of, strict=True):
        counted = iter(() if indices is UNLIMITED_AT else indices)
        these = []
        for limit in own:
            replacers = tuple(
                (number, other)
                for number, others in enumerate(limits, 1)
                for other in others
                if limit.name and not limit.unlimited and limit.name in other.replaces
            )
            if replacers or limit.unlimited:
                these.append(Asked(limit, None, None, replacers))
            else:
                index = next(counted)
                these.append(Asked(limit, plan.names[index], plan.checks[index]))
        asked.append(tuple(these))
    return tuple(asked)
