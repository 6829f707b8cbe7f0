"""Writes the answers of a settled batch: what `rls.encode_response` says of each call's verdict, several times faster.

The answers to one plan's calls differ in a few numbers only, so all else is written once: a template a shape.
"""

from functools import lru_cache

from extauth.limiter.algorithms import Outcome, outcome
from extauth.limiter.counters import Ask, Level, Mode, Taken
from extauth.limiter.limiter import Limiter, Settled
from extauth.limiter.memo import Memo
from extauth.limiter.plan import UNLIMITED_AT, Shape
from extauth.limiter.verdict import held_back_by, tells, tightest
from extauth.rls.protobuf import bytes_field, number_field, varint
from extauth.rls.response import (
    NO_LIMIT,
    UNLIMITED,
    Code,
    ResponseHeaders,
    admission_tail,
    denial_tail,
    encode_limit,
    encode_response,
    encode_status,
    whole_seconds,
)
from extauth.rules.model import Algorithm, Limit

MAX_TEMPLATES_BYTES = 12 << 20
MAX_DENIALS_BYTES = 8 << 20

_ADMITTED, _DENIED = number_field(1, Code.OK), number_field(1, Code.OVER_LIMIT)
_NO_LIMIT, _UNLIMITED = encode_status(NO_LIMIT), encode_status(UNLIMITED)


class _Template:
    """What is the same in all answers of a shape.

    `pieces` are the statuses in order: bytes where nothing is counted, else the counters' indices. Where there is but
    one counter, with an algorithm of `_admissions`, `before` and `after` stand around its status.
    """

    __slots__ = ("after", "before", "counts_denied", "limits", "pieces", "simple", "tail", "tier")

    def __init__(self, shape: Shape) -> None:
        self.tier = shape.tier
        self.limits = [encode_limit(ask.limit) for ask in shape.asks]
        self.counts_denied = any(ask.limit.count_denied for ask in shape.asks)
        self.pieces = [_UNLIMITED if indices is UNLIMITED_AT else indices or _NO_LIMIT for indices in shape.counters_of]
        self.tail = admission_tail(shape.tier)
        own = [at for at, piece in enumerate(self.pieces) if not isinstance(piece, bytes)]
        self.simple = len(shape.asks) == 1 and len(own) == 1 and _is_simple(shape.asks[0])
        before, after = self.pieces[: own[0] if own else 0], self.pieces[own[0] + 1 if own else 0 :]
        self.before = _ADMITTED + b"".join(piece for piece in before if isinstance(piece, bytes))
        self.after = b"".join(piece for piece in after if isinstance(piece, bytes)) + self.tail

    def size(self, shape: Shape) -> int:
        """About how many bytes it takes up, with the shape: nothing else may refer to that any more."""
        ends = len(self.before) + len(self.after) + len(self.tail)
        return shape.bytes + 200 + ends + 100 * len(shape.asks) + 60 * len(shape.counters_of)


def _is_simple(ask: Ask) -> bool:
    return ask.mode is Mode.ENFORCED and ask.cost > 0 and ask.limit.algorithm is not Algorithm.SLIDING_WINDOW


class Answers:
    """Encodes what was settled; `limiter` gives the verdicts of calls that the store failed.

    With `headers` each answer carries these, and is written the long way, as one with metadata is.
    """

    def __init__(self, limiter: Limiter, headers: ResponseHeaders | None = None) -> None:
        self._limiter = limiter
        self._headers = headers
        self._templates: Memo[Shape, _Template] = Memo(MAX_TEMPLATES_BYTES)
        self._denials: Memo[tuple[Shape, tuple[int, ...], int | None, Limit | None], bytes] = Memo(MAX_DENIALS_BYTES)

    def encode(self, settled: Settled) -> list[bytes | None]:
        """A `RateLimitResponse` a call, in order of arrival; None: the store failed, and so must the call."""
        plan, calls, taken = settled
        shape = plan.shape
        if taken is None:
            return [self._plainly(settled, 0)] * calls
        if self._headers is not None or shape.told is not None:
            return [self._plainly(settled, call) for call in range(calls)]
        template = self._templates.get(shape)
        if template is None:
            template = _Template(shape)
            self._templates.remember(shape, template, template.size(shape))
        asks, admitted = shape.asks, taken.admitted
        if not asks:
            return [template.before + template.after] * calls
        messages: list[bytes | None]
        if template.simple:
            messages = _admissions(template, asks[0], taken.levels[0], admitted)
        else:
            messages = [self._admission(template, asks, taken, call) for call in range(admitted)]
        if admitted < calls:
            if template.counts_denied:
                messages += [self._denial(shape, template, taken, call) for call in range(admitted, calls)]
            else:  # nothing changes from one denied call to the next
                messages += [self._denial(shape, template, taken, admitted)] * (calls - admitted)
        return messages

    def _plainly(self, settled: Settled, call: int) -> bytes | None:
        verdict = self._limiter.verdict(settled, call)
        return None if verdict is None else encode_response(verdict, self._headers)

    def _admission(self, template: _Template, asks: tuple[Ask, ...], taken: Taken, call: int) -> bytes:
        outcomes = [outcome(ask, level, call, taken.admitted) for ask, level in zip(asks, taken.levels, strict=True)]
        return b"".join((_ADMITTED, *_statuses(template, asks, outcomes), template.tail))

    def _denial(self, shape: Shape, template: _Template, taken: Taken, call: int) -> bytes:
        outcomes = [
            outcome(ask, level, call, taken.admitted) for ask, level in zip(shape.asks, taken.levels, strict=True)
        ]
        exceeded, wait_us, _ = held_back_by(shape.asks, outcomes)
        retry_after_s = None if wait_us is None else whole_seconds(wait_us)
        if template.simple:
            numbers = tuple(n for o in outcomes for n in (o.over, o.remaining, whole_seconds(o.reset_us)))
            key = (shape, numbers, retry_after_s, exceeded)
            message = self._denials.get(key)
            if message is not None:
                return message
        statuses = _statuses(template, shape.asks, outcomes)
        message = b"".join((_DENIED, *statuses, denial_tail(template.tier, exceeded, retry_after_s)))
        if template.simple:
            self._denials.remember(key, message, 500 + len(message))
        return message


def _statuses(template: _Template, asks: tuple[Ask, ...], outcomes: list[Outcome]) -> list[bytes]:
    statuses = []
    for piece in template.pieces:
        if isinstance(piece, bytes):
            statuses.append(piece)
        else:
            i = tightest(asks, outcomes, piece)
            statuses.append(_status(tells(asks[i], outcomes[i]), template.limits[i], outcomes[i]))
    return statuses


def _admissions(template: _Template, ask: Ask, level: Level, admitted: int) -> list[bytes | None]:
    """The answers to admitted calls that take from one counter, as `outcome` tells of each."""
    messages: list[bytes | None] = []
    before, after, head = template.before, template.after, _ADMITTED + template.limits[0]
    limit, cost, _ = ask
    if limit.algorithm is Algorithm.GCRA:
        interval, ticks_per_us = limit.emission_interval
        ticks_per_s = ticks_per_us * 1_000_000
        backlog = level.whole * ticks_per_us + level.rest
        remaining = (limit.capacity * interval - backlog) // interval
        for _ in range(admitted):
            backlog += cost * interval
            remaining -= cost
            status = head + _numbers(remaining, -(-backlog // ticks_per_s))
            messages.append(b"%b\x12%b%b%b" % (before, varint(len(status)), status, after))
    else:
        remaining, reset_s = limit.capacity - level.whole, whole_seconds(level.rest)
        for _ in range(admitted):
            remaining -= cost
            status = head + _numbers(remaining, reset_s)
            messages.append(b"%b\x12%b%b%b" % (before, varint(len(status)), status, after))
    return messages


def _status(code: Code, limit: bytes, o: Outcome) -> bytes:
    return bytes_field(2, number_field(1, code) + limit + _numbers(o.remaining, whole_seconds(o.reset_us)))


@lru_cache(maxsize=16_384)
def _numbers(remaining: int, reset_s: int) -> bytes:
    """`limit_remaining` and `duration_until_reset`."""
    return number_field(3, remaining) + bytes_field(4, number_field(1, reset_s))
