"""Writes the answers of a settled batch: what `rls.encode_response` says of each call's verdict, several times faster.

The answers to one plan's calls differ in a few numbers only, so everything else is written once for each PlanTemplate.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from extauth.limiter.algorithms import Level, Outcome
from extauth.limiter.counters import LimitCheck, Mode, TakeResult, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.limiter import Limiter
from extauth.limiter.memo import Memo
from extauth.limiter.plan import UNLIMITED_AT, PlanTemplate
from extauth.limiter.verdict import denying_limit, status_code, tightest_limit
from extauth.rls.protobuf import MORE, SHORT, TABLED, TWO_BYTES, bytes_field, number_field, varint
from extauth.rls.response import (
    NO_LIMIT,
    UNLIMITED,
    Code,
    ResponseHeaders,
    admission_tail,
    denial_tail,
    dynamic_metadata,
    encode_limit,
    encode_response,
    encode_status,
    whole_seconds,
    without_store_mark,
)
from extauth.rules.model import Limit

MAX_TEMPLATES_BYTES = 12 << 20
MAX_DENIALS_BYTES = 8 << 20

_ADMITTED, _DENIED = number_field(1, Code.OK), number_field(1, Code.OVER_LIMIT)
Answer: TypeAlias = bytes | Uncounted
"""A message, or where the call must fail, whether the store was asked about it."""

_STATUS, _REMAINING = b"\x12", b"\x18"  # the tags of a response's `statuses`, and of a status' `limit_remaining`
_REMAINING_MORE = [_REMAINING + byte for byte in MORE]
_MAX_HEAD = TABLED - 1000  # so that SHORT has the length of a status
_varint = lru_cache(maxsize=1024)(varint)
_NO_LIMIT, _UNLIMITED = encode_status(NO_LIMIT), encode_status(UNLIMITED)


class _OneCounter(NamedTuple):
    """How to answer admitted calls that take from one counter.

    `before`, the length of a status, `head`, what is told of the counter, `after`: these are a message.
    """

    countdown: Callable[[Any], tuple[int, int, int, int]]
    cost: int
    before: bytes
    head: bytes
    after: bytes


class _ResponseTemplate:
    """What all answers for a PlanTemplate have in common.

    `pieces` are the statuses in order: bytes where nothing is counted, else the counters' indices. Where there is but
    one counter, `one` says how to answer; where there is none, `uncounted` is the whole answer.
    """

    __slots__ = ("counts_denied", "denial_mark", "limits", "one", "pieces", "tail", "tier", "uncounted")

    def __init__(self, template: PlanTemplate) -> None:
        self.tier = template.tier
        self.limits = [encode_limit(check.limit) for check in template.checks]
        self.counts_denied = any(check.limit.count_denied for check in template.checks)
        self.pieces = [
            _UNLIMITED if indices is UNLIMITED_AT else indices or _NO_LIMIT for indices in template.counters_of
        ]
        self.denial_mark = without_store_mark(template.denied_by)
        self.tail = admission_tail(template.tier) + without_store_mark(template.without_store)
        own = [at for at, piece in enumerate(self.pieces) if not isinstance(piece, bytes)]
        before, after = self.pieces[: own[0] if own else 0], self.pieces[own[0] + 1 if own else 0 :]
        first = _ADMITTED + b"".join(piece for piece in before if isinstance(piece, bytes))
        last = b"".join(piece for piece in after if isinstance(piece, bytes)) + self.tail
        self.uncounted = first + last
        self.one: _OneCounter | None = None
        if len(template.checks) == 1 and len(own) == 1:
            check, head = template.checks[0], _ADMITTED + self.limits[0]
            if _counts_down(check) and len(head) < _MAX_HEAD:
                self.one = _OneCounter(check.algorithm.countdown, check.cost, first + _STATUS, head, last)

    def size(self, template: PlanTemplate) -> int:
        """About how many bytes it takes up, including the PlanTemplate: nothing else may refer to that any more."""
        ends = len(self.uncounted) + len(self.tail)
        return template.bytes + 300 + 2 * ends + 100 * len(template.checks) + 60 * len(template.counters_of)


def _counts_down(check: LimitCheck) -> bool:
    return check.mode is Mode.ENFORCED and check.cost > 0


class Answers:
    """Encodes the results of groups; `limiter` gives the verdicts of calls that could not be counted.

    With `headers` each answer carries these, and is written the long way, as one with metadata is.
    """

    def __init__(self, limiter: Limiter, headers: ResponseHeaders | None = None) -> None:
        self._limiter = limiter
        self._headers = headers
        self._templates: Memo[PlanTemplate, _ResponseTemplate] = Memo(MAX_TEMPLATES_BYTES)
        self._denials: Memo[tuple[PlanTemplate, bool, int, int, int | None], bytes] = Memo(MAX_DENIALS_BYTES)

    def encode_all(self, groups: Iterable[GroupResult]) -> list[bytes | Iterator[Answer]]:
        """For each group the answers to its calls, as `encode` says, but where it is one message: that."""
        encoded: list[bytes | Iterator[Answer]] = []
        last: PlanTemplate | None = None
        one: _OneCounter | None = None
        for group in groups:
            plan, calls, taken, _, _ = group
            if plan.template is not last:
                last = plan.template
                one = self._usual(last)
                if one is not None:
                    countdown, cost, before, head, after = one
                    size = len(head)
            if calls != 1 or one is None or taken is None:
                encoded.append(iter(self.encode(group)))
            elif taken[0]:
                # As _admissions; to call that for each group takes as long again.
                remaining, reset, ticks_per_hit, ticks_per_s = countdown(taken[1][0])
                remaining -= cost
                if remaining >= TWO_BYTES:
                    left = _REMAINING_MORE[remaining & 0x7F] + MORE[remaining >> 7 & 0x7F] + _varint(remaining >> 14)
                elif remaining >= TABLED:
                    left = _REMAINING_MORE[remaining & 0x7F] + SHORT[remaining >> 7]
                else:
                    left = _REMAINING + SHORT[remaining] if remaining > 0 else b""
                until = _until_reset(-(-(reset + cost * ticks_per_hit) // ticks_per_s))
                encoded.append(b"".join((before, SHORT[size + len(left) + len(until)], head, left, until, after)))
            else:
                encoded.append(self._denial_by_one(last, taken, 0))
        return encoded

    def _usual(self, template: PlanTemplate) -> _OneCounter | None:
        """How to answer admitted calls, where no answer says more than that."""
        if self._headers is not None or template.metadata is not None:
            return None
        return self._response(template).one

    def _response(self, template: PlanTemplate) -> _ResponseTemplate:
        response = self._templates.get(template)
        if response is None:
            response = _ResponseTemplate(template)
            self._templates.remember(template, response, response.size(template))
        return response

    def encode(self, group: GroupResult) -> list[Answer]:
        """A `RateLimitResponse` for each call, in order of arrival; Uncounted if the call must fail."""
        plan, calls, taken, _, _ = group
        template = plan.template
        if taken is None:
            return [self._plainly(group, 0)] * calls
        if self._headers is not None or template.metadata is not None:
            return [self._plainly(group, call) for call in range(calls)]
        response = self._response(template)
        checks, admitted = template.checks, taken.admitted
        if not checks:
            return [response.uncounted] * calls
        messages: list[Answer]
        if response.one is not None:
            messages = _admissions(response.one, taken.levels[0], admitted)
        else:
            messages = [self._admission(response, checks, taken, call) for call in range(admitted)]
        if admitted < calls:
            if response.counts_denied:
                messages += [self._denial(template, response, taken, call) for call in range(admitted, calls)]
            else:  # nothing changes from one denied call to the next
                messages += [self._denial(template, response, taken, admitted)] * (calls - admitted)
        return messages

    def _plainly(self, group: GroupResult, call: int) -> Answer:
        verdict = self._limiter.verdict(group, call)
        return group.without_store or Uncounted.UNSENT if verdict is None else encode_response(verdict, self._headers)

    def _admission(
        self, response: _ResponseTemplate, checks: tuple[LimitCheck, ...], taken: TakeResult, call: int
    ) -> bytes:
        outcomes = [
            check.outcome(level, call, taken.admitted) for check, level in zip(checks, taken.levels, strict=True)
        ]
        return b"".join((_ADMITTED, *_statuses(response, checks, outcomes), response.tail))

    def _denial(self, template: PlanTemplate, response: _ResponseTemplate, taken: TakeResult, call: int) -> bytes:
        if response.one is not None:
            return self._denial_by_one(template, taken, call)
        checks = template.checks
        outcomes = [
            check.outcome(level, call, taken.admitted) for check, level in zip(checks, taken.levels, strict=True)
        ]
        denying, wait_us, _ = denying_limit(checks, outcomes)
        return _denial(response, checks, outcomes, denying, None if wait_us is None else whole_seconds(wait_us))

    def _denial_by_one(self, template: PlanTemplate, taken: TakeResult, call: int) -> bytes:
        """The answer to a denied call where the template of responses has `one`."""
        checks = template.checks
        admitted, levels, _ = taken
        outcome = over, remaining, reset_us, wait_us = checks[0].outcome(levels[0], call, admitted)
        wait_s = None if wait_us is None else -(-wait_us // 1_000_000)
        key = (template, over, remaining, -(-reset_us // 1_000_000), wait_s)
        message = self._denials.get(key)
        if message is None:
            message = _denial(self._response(template), checks, [outcome], checks[0].limit, wait_s)
            self._denials.remember(key, message, 500 + len(message))
        return message


class LoggedAnswers(Answers):
    """Answers that carry the `log` of their plans, which no two requests share."""

    def _usual(self, template: PlanTemplate) -> None:
        return None

    def encode(self, group: GroupResult) -> list[Answer]:
        """As Answers.encode."""
        plan, calls, taken, _, _ = group
        template = plan.template
        if taken is not None and template.without_store is not None:
            return [self._plainly(group, call) for call in range(calls)]
        answers = super().encode(group)
        if not plan.log or taken is None or self._headers is not None or template.metadata is not None:
            return answers  # written from verdicts, which have the log
        tail = dynamic_metadata(plan.log)
        return [answer + tail if isinstance(answer, bytes) else answer for answer in answers]


def _denial(
    response: _ResponseTemplate,
    checks: tuple[LimitCheck, ...],
    outcomes: list[Outcome],
    denying: Limit,
    retry_after_s: int | None,
) -> bytes:
    statuses = _statuses(response, checks, outcomes)
    return b"".join((_DENIED, *statuses, denial_tail(response.tier, denying, retry_after_s), response.denial_mark))


def _statuses(response: _ResponseTemplate, checks: tuple[LimitCheck, ...], outcomes: list[Outcome]) -> list[bytes]:
    statuses = []
    for piece in response.pieces:
        if isinstance(piece, bytes):
            statuses.append(piece)
        else:
            i = tightest_limit(checks, outcomes, piece)
            statuses.append(_status(status_code(checks[i], outcomes[i]), response.limits[i], outcomes[i]))
    return statuses


def _admissions(counted: _OneCounter, level: Level, admitted: int) -> list[Answer]:
    """The answers to admitted calls that take from one counter, as `outcome` tells of each."""
    countdown, cost, before, head, after = counted
    messages: list[Answer] = []
    size = len(head)
    remaining, reset, ticks_per_hit, ticks_per_s = countdown(level)
    for _ in range(admitted):
        remaining -= cost
        reset += cost * ticks_per_hit
        if remaining >= TWO_BYTES:
            left = _REMAINING_MORE[remaining & 0x7F] + MORE[remaining >> 7 & 0x7F] + _varint(remaining >> 14)
        elif remaining >= TABLED:
            left = _REMAINING_MORE[remaining & 0x7F] + SHORT[remaining >> 7]
        else:
            left = _REMAINING + SHORT[remaining] if remaining > 0 else b""
        until = _until_reset(-(-reset // ticks_per_s))
        messages.append(b"".join((before, SHORT[size + len(left) + len(until)], head, left, until, after)))
    return messages


def _status(code: Code, limit: bytes, o: Outcome) -> bytes:
    numbers = number_field(3, o.remaining) + _until_reset(whole_seconds(o.reset_us))
    return bytes_field(2, number_field(1, code) + limit + numbers)


@lru_cache(maxsize=16_384)
def _until_reset(seconds: int) -> bytes:
    """The field `duration_until_reset`."""
    return bytes_field(4, number_field(1, seconds))
