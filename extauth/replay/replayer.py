"""Replays logs: every request that they hold, in order, decided by one config or by two."""

import marshal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from extauth.limiter.memo import Memo
from extauth.replay.log_file import LogFile, Problems
from extauth.replay.log_line import MalformedLineError, read_line, read_request
from extauth.replay.order import in_order
from extauth.replay.side import Decision, Prepared, Side
from extauth.replay.tally import MAX_CALLERS, Caller, Timeline

MAX_PREPARED_BYTES = 256 << 20
LINES_A_STEP = 5000
_PREPARED_BYTES = 1500  # of what is prepared for one config, beside its text

_Item: TypeAlias = tuple[int, bool, tuple[Prepared, ...]]
"""When a request began, whether Envoy denied it, and what is prepared for each config."""


@dataclass(slots=True)
class Changes:
    """What is decided otherwise than before, and the callers who are denied and were not."""

    newly_denied: int = 0
    newly_allowed: int = 0
    callers: dict[str, Caller] = field(default_factory=dict)

    def add(self, before: bool, after: Decision, now_us: int) -> None:
        """Compare two decisions about a request."""
        if before and not after.admitted:
            self.newly_denied += 1
            caller = self.callers.get(after.caller)
            if caller is None and len(self.callers) < MAX_CALLERS:
                caller = self.callers[after.caller] = Caller(after.caller, now_us)
            if caller is not None:
                caller.denied += 1
        elif after.admitted and not before:
            self.newly_allowed += 1


@dataclass(slots=True)
class Totals:
    """Requests in all, as decided by one config or by Envoy."""

    allowed: int = 0
    denied: int = 0

    def add(self, admitted: bool) -> None:
        """Count one."""
        if admitted:
            self.allowed += 1
        else:
            self.denied += 1


class Replayer:
    """Replays logs by `after` and, if there is one, by `before`; without it, what Envoy answered is what was before."""

    def __init__(self, after: Side, before: Side | None, timeline: Timeline) -> None:
        self.after, self.before = after, before
        self.timeline = timeline
        self.problems = Problems()
        self.changes = Changes()
        self.answered, self.totals = Totals(), {"after": Totals(), "before": Totals()}
        self.without_descriptors = 0
        self.late = 0
        self.first_us: int | None = None
        self.last_us = 0
        self._sides = (after,) if before is None else (after, before)
        self._prepared: Memo[bytes, tuple[Prepared, ...]] = Memo(MAX_PREPARED_BYTES)

    def run(self, logs: Sequence[LogFile], progressed: Callable[[], None] = lambda: None) -> None:
        """Replay the logs, put together in the order of their requests; raises CommandError.

        `progressed` is called now and then.
        """
        second = -1
        for time_us, denied, prepared in in_order([self._items(log, progressed) for log in logs]):
            if self.first_us is None:
                self.first_us = self.last_us = time_us
                second = time_us // 1_000_000
            if time_us < self.last_us:
                self.late += 1
            elif time_us >= (second + 1) * 1_000_000:
                self._end_second(second)
                second = time_us // 1_000_000
            self.last_us = max(time_us, self.last_us)
            self._decide(denied, prepared)
        if self.first_us is not None:
            self._end_second(second)

    def _decide(self, denied: bool, prepared: tuple[Prepared, ...]) -> None:
        now_us = self.last_us
        self.answered.add(not denied)
        decision = self.after.decide(prepared[0], now_us)
        before: bool | None = not denied
        if self.before is not None:
            earlier = self.before.decide(prepared[1], now_us)
            before = None if earlier is None else earlier.admitted
            if before is not None:
                self.totals["before"].add(before)
        if decision is not None:
            self.totals["after"].add(decision.admitted)
            if before is not None and before is not decision.admitted:
                self.changes.add(before, decision, now_us)

    def _end_second(self, second: int) -> None:
        bucket = self.timeline.bucket(second)
        for side in self._sides:
            side.end_second(second, bucket)

    def _items(self, log: LogFile, progressed: Callable[[], None]) -> Iterator[_Item]:
        for number, line in log.read(self.problems):
            if not number % LINES_A_STEP:
                progressed()
            if not line or line.isspace():
                continue
            try:
                time_us, denied, asked = read_line(line)
                if asked is None:
                    self.without_descriptors += 1
                    continue
                key = marshal.dumps(asked, 0)  # version 0, which depends on nothing but the values
                prepared = self._prepared.get(key)
                if prepared is None:
                    request = read_request(asked)
                    prepared = tuple([side.prepare(request) for side in self._sides])
                    self._prepared.remember(key, prepared, len(prepared) * (_PREPARED_BYTES + len(key)))
            except MalformedLineError as error:
                self.problems.add(log.name, number, str(error))
                continue
            yield time_us, denied, prepared


def lines_read(logs: Iterable[LogFile]) -> int:
    """The lines that have been read so far."""
    return sum(log.lines for log in logs)
