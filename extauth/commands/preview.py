"""What the request of a command line counts, as the service's own matcher and planner have it."""

from collections.abc import Sequence
from typing import NamedTuple

from extauth.commands.options import GivenRequest, settings_for
from extauth.commands.request import encode_request, read_descriptor
from extauth.config.sources.files import read_rules
from extauth.limiter.build import build_planner
from extauth.limiter.counters import LimitCheck
from extauth.limiter.plan import UNLIMITED_AT, Plan
from extauth.rls.request import Descriptor
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Limit
from extauth.settings import Settings


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

    settings: Settings
    matcher: Matcher
    domain: str
    descriptors: tuple[Descriptor, ...]
    plan: Plan
    matches: tuple[Match | None, ...]
    asked: tuple[tuple[Asked, ...], ...]


def plan_request(request: GivenRequest) -> Planned:
    """Plan the request; raises SettingsError, ConfigError, CommandError or InvalidRequestError."""
    domain, arguments, config, merge = request
    descriptors = tuple(map(read_descriptor, arguments))
    settings = settings_for(config, merge=merge)
    rules = read_rules(settings.config, merge=settings.merge_domains)
    planner = build_planner(rules, settings.limiter_options())
    plan = planner.plan(encode_request(domain, descriptors))
    matcher = planner.matcher
    known = matcher.domain(domain)
    matches = tuple(
        None if known is None or known.is_label(descriptor.entries) else matcher.match(domain, descriptor.entries)
        for descriptor in descriptors
    )
    return Planned(settings, matcher, domain, descriptors, plan, matches, _asked(plan, matches))


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
