"""Writes the answers of a settled batch: what `rls.encode_response` says of each call's verdict, several times faster.

The answers to one plan's calls differ in a few numbers only, so all else is written once: a template a shape.
"""

from functools import lru_cache

from extauth.limiter.algorithms import Outcome, outcome
from extauth.limiter.counters import Ask, Level, Taken
from extauth.limiter.limiter import NO_LIMIT, Limiter, Settled, longest_wait
from extauth.limiter.plan import Shape
from extauth.limiter.verdict import Code
from extauth.rules.model import Algorithm, Limit
from extauth.transport.protobuf import bytes_field, number_field, varint
from extauth.transport.rls import (
    admission_tail,
    denial_tail,
    encode_limit,
    encode_response,
    encode_status,
    whole_seconds,
)

MAX_TEMPLATES = 20_000
MAX_DENIALS = 20_000

_ADMITTED, _DENIED = number_field(1, Code.OK), number_field(1, Code.OVER_LIMIT)
_NO_LIMIT = encode_status(NO_LIMIT)


class _Template:
    """What is the same in all answers of a shape.

    `pieces` are the statuses in order: bytes where no limit applies, else the counter's index. Where there is but one
    counter, `before` and `after` stand around its status.
    """

    __slots__ = ("after", "before", "limits", "pieces", "tail", "tier")

    def __init__(self, shape: Shape) -> None:
        self.tier = shape.tier
        self.limits = [encode_limit(ask.limit) for ask in shape.asks]
        self.pieces = [_NO_LIMIT if i is None else i for i in shape.counter_of]
        self.tail = admission_tail(shape.tier)
        own = next((at for at, i in enumerate(shape.counter_of) if i is not None), 0)
        self.before = _ADMITTED + _NO_LIMIT * own
        self.after = _NO_LIMIT * (len(shape.counter_of) - own - 1) + self.tail


class Answers:
    """Encodes what was settled; `limiter` gives the verdicts of calls that the store failed."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._templates: dict[Shape, _Template] = {}
        self._denials: dict[tuple[Shape, tuple[int, ...], int | None, Limit | None], bytes] = {}

    def encode(self, settled: Settled) -> list[bytes | None]:
        """A `RateLimitResponse` a call, in order of arrival; None: the store failed, and so must the call."""
        plan, calls, taken = settled
        if taken is None:
            verdict = self._limiter.verdict(settled, 0)
            return [None if verdict is None else encode_response(verdict)] * calls
        shape = plan.shape
        template = self._templates.get(shape)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:  # shapes of rules that are no more in force
                self._templates.clear()
            template = self._templates[shape] = _Template(shape)
        asks, admitted = shape.asks, taken.admitted
        if not asks:
            return [_ADMITTED + b"".join(p for p in template.pieces if isinstance(p, bytes)) + template.tail] * calls
        messages: list[bytes | None]
        if len(asks) == 1 and len(shape.counter_of) - shape.counter_of.count(None) == 1:
            messages = _admissions(template, asks[0], taken.levels[0], admitted)
        else:
            messages = [self._admission(template, asks, taken, call) for call in range(admitted)]
        if admitted < calls:
            if any(ask.limit.count_denied for ask in asks):
                messages += [self._denial(shape, template, taken, call) for call in range(admitted, calls)]
            else:  # nothing changes from one denied call to the next
                messages += [self._denial(shape, template, taken, admitted)] * (calls - admitted)
        return messages

    def _admission(self, template: _Template, asks: tuple[Ask, ...], taken: Taken, call: int) -> bytes:
        told = [
            _status(limit, outcome(ask, level, call, taken.admitted))
            for ask, limit, level in zip(asks, template.limits, taken.levels, strict=True)
        ]
        statuses = [piece if isinstance(piece, bytes) else told[piece] for piece in template.pieces]
        return b"".join((_ADMITTED, *statuses, template.tail))

    def _denial(self, shape: Shape, template: _Template, taken: Taken, call: int) -> bytes:
        outcomes = [
            outcome(ask, level, call, taken.admitted) for ask, level in zip(shape.asks, taken.levels, strict=True)
        ]
        exceeded, wait_us = longest_wait(shape.asks, outcomes)
        retry_after_s = None if wait_us is None else whole_seconds(wait_us)
        numbers = tuple(n for o in outcomes for n in (o.over, o.remaining, whole_seconds(o.reset_us)))
        key = (shape, numbers, retry_after_s, exceeded)
        message = self._denials.get(key)
        if message is None:
            told = [_status(limit, o) for limit, o in zip(template.limits, outcomes, strict=True)]
            statuses = [piece if isinstance(piece, bytes) else told[piece] for piece in template.pieces]
            message = b"".join((_DENIED, *statuses, denial_tail(template.tier, exceeded, retry_after_s)))
            if len(self._denials) >= MAX_DENIALS:
                self._denials.clear()
            self._denials[key] = message
        return message


def _admissions(template: _Template, ask: Ask, level: Level, admitted: int) -> list[bytes | None]:
    """The answers to admitted calls that take from one counter, as `outcome` tells of each."""
    messages: list[bytes | None] = []
    before, after, head = template.before, template.after, _ADMITTED + template.limits[0]
    limit, cost = ask
    if limit.algorithm is Algorithm.GCRA:
        interval, ticks_per_us = limit.emission_interval
        ticks_per_s = ticks_per_us * 1_000_000
        backlog = level.whole * ticks_per_us + level.rest
        remaining = (limit.burst * interval - backlog) // interval
        for _ in range(admitted):
            backlog += cost * interval
            remaining -= cost
            status = head + _numbers(remaining, -(-backlog // ticks_per_s))
            messages.append(b"%b\x12%b%b%b" % (before, varint(len(status)), status, after))
    else:
        remaining, reset_s = limit.requests_per_unit - level.whole, whole_seconds(level.rest)
        for _ in range(admitted):
            remaining -= cost
            status = head + _numbers(remaining, reset_s)
            messages.append(b"%b\x12%b%b%b" % (before, varint(len(status)), status, after))
    return messages


def _status(limit: bytes, o: Outcome) -> bytes:
    return bytes_field(2, (_DENIED if o.over else _ADMITTED) + limit + _numbers(o.remaining, whole_seconds(o.reset_us)))


@lru_cache(maxsize=16_384)
def _numbers(remaining: int, reset_s: int) -> bytes:
    """`limit_remaining` and `duration_until_reset`."""
    return number_field(3, remaining) + bytes_field(4, number_field(1, reset_s))
