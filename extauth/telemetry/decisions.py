"""A sample of the decisions at log level `debug`: the request, the rules that applied, and the outcome."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from extauth.errors import InvalidRequestError
from extauth.limiter.facts import BatchFact, ShedFact
from extauth.limiter.plan import Plan
from extauth.limiter.planner import Planner
from extauth.rules.matcher import Matcher

MAX_PER_S = 10


class SampledPlanner(Planner):
    """Keeps the messages of MAX_PER_S plans a second, so that what is decided about them can be logged."""

    _began = float("-inf")
    _sampled: dict[Plan, bytes]

    def _take_up(self, matcher: Matcher) -> None:
        super()._take_up(matcher)
        self.recall = lambda _message: None  # each message is to be seen by `plan`

    def plan(self, message: bytes) -> Plan:
        """As Planner.plan."""
        plan = super().plan(message)
        now = perf_counter()
        if now - self._began >= 1:
            self._began = now
            self._left = MAX_PER_S
            self._sampled = {}
        if self._left and plan not in self._sampled:
            self._left -= 1
            self._sampled[plan] = message
        return plan

    def sampled(self, plan: Plan) -> bytes | None:
        """Take a plan out of the sample, and return its message; None if the plan is not in it."""
        return self._sampled.pop(plan, None)


class DecisionLog:
    """Gives `log` a dict for each decision in the sample; secret values are masked.

    Rules are left out where their names show what is secret by now. It holds the trace of the first of its calls whose
    trace is recorded, if there is one.
    """

    def __init__(self, planner: SampledPlanner, log: Callable[[dict[str, Any]], None]) -> None:
        self._planner = planner
        self._log = log

    def call_shed(self, fact: ShedFact) -> None:
        """Calls that are not decided in time are not logged."""

    def batch_decided(self, fact: BatchFact) -> None:
        """Log the decisions that are in the sample."""
        for group in fact.groups:
            plan, calls, taken, given, _ = group
            message = self._planner.sampled(plan)
            if message is None:
                continue
            outcome: dict[str, Any]
            if taken is None:
                outcome = {"without_the_store": str(given)}
            else:
                outcome = {"allowed": taken.admitted, "denied": calls - taken.admitted}
            domain = self._planner.matcher.domain(plan.template.domain)
            masked = domain is None or domain.secret == plan.template.secret
            rules = list(dict.fromkeys(rule.name for rule in plan.tally.rules)) if masked else []
            try:
                asked = self._planner.describe(message)
            except InvalidRequestError as error:  # the descriptors of an undefined domain were not read before
                asked = {"invalid": str(error)}
            trace_id = next((call.parent.trace_id for call in fact.sampled if call.group is group), None)
            traced = {} if trace_id is None else {"trace_id": trace_id}
            self._log({**asked, "tier": plan.template.tier, "rules": rules, **outcome, **traced})
