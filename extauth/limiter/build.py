"""The composition of what decides: from rules, counters and options."""

from dataclasses import dataclass
from typing import NamedTuple

from extauth.limiter.counter_names import SHARDS, KeyNamer
from extauth.limiter.counters import ShardedCounters
from extauth.limiter.failure import FailurePolicy, LocalCounting
from extauth.limiter.limiter import Limiter
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.limiter.planner import MAX_PLANS_BYTES, Planner
from extauth.limiter.templates import Answers, LoggedAnswers
from extauth.rls.response import ResponseHeaders
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.model import OnStoreFailure, RuleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterOptions:
    """How requests are planned, decided and answered; the defaults are those of the settings."""

    key_prefix: str = "extauth"
    """The beginning of each counter's name."""

    key_secret: str = ""
    """Keys the hashes of values, in counters' names as in masked values."""

    shards: int = SHARDS
    """Into how many shards counters are spread by their names."""

    modes: GlobalModes = NO_MODES
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL
    local: LocalCounting | None = None
    """What counts where the failure policy is `local`; without it, that lets calls through."""

    response_headers: ResponseHeaders | None = None
    """With it, every answer carries these headers."""

    plans_bytes: int = MAX_PLANS_BYTES
    """The size of the planner's memory of whole messages."""

    planner: type[Planner] = Planner


class Decider(NamedTuple):
    """What decides calls: from messages to plans, from plans to results, from results to answers."""

    planner: Planner
    limiter: Limiter
    answers: Answers


DEFAULTS = LimiterOptions()


def build(rules: RuleSet, counters: ShardedCounters, options: LimiterOptions = DEFAULTS) -> Decider:
    """Compose what decides calls by `rules` and counts them in `counters`."""
    limiter = Limiter(counters, FailurePolicy(options.on_store_failure, options.local))
    answers = LoggedAnswers if options.modes.log_descriptors else Answers
    return Decider(build_planner(rules, options), limiter, answers(limiter, options.response_headers))


def build_planner(rules: RuleSet, options: LimiterOptions = DEFAULTS) -> Planner:
    """The part of `build` that needs no counters."""
    return options.planner(
        Matcher(rules, Masking(options.key_secret)),
        KeyNamer(options.key_prefix, options.key_secret, options.shards),
        modes=options.modes,
        plans_bytes=options.plans_bytes,
    )
