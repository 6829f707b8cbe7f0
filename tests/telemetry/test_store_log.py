"""What operators are told of the store."""

from extauth.errors import StoreError
from extauth.limiter.counters import Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.store_log import StoreLog
from tests.support.facts import batch

PLAN = Plan((b"k",), PlanTemplate((), ((),), None, Labels()))


class Told:
    """A log, its lines, and a clock in seconds."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, str | float]]] = []
        self.now = 1000.0
        self.log = StoreLog(self._write, "words", lambda: self.now)

    def _write(self, level: str, event: str, **facts: str | float) -> None:
        assert level == ("info" if event == "store_up" else "error")
        self.lines.append((event, facts))

    def after(self, duration_s: float) -> None:
        """Let time pass, as a service does that looks every second."""
        for _ in range(round(duration_s)):
            self.now += 1
            self.log.look()


def down(reason: str = "it is gone") -> StoreError:
    return StoreError("timeout", reason)


def test_it_is_unknown_until_it_was_tried() -> None:
    told = Told()
    assert str(told.log) == "not checked yet"
    told.log.changed(None)
    assert str(told.log) == "up"
    assert told.lines == [("store_up", {})]


def test_an_outage_is_two_lines_with_its_cause_its_length_and_the_calls_that_went_without() -> None:
    told = Told()
    told.log.changed(None)
    told.log.changed(down())
    assert str(told.log) == "down: it is gone"
    told.log.batch_decided(batch(GroupResult(PLAN, 7, None, OnStoreFailure.ALLOW, Uncounted.UNSENT)))
    told.after(20)
    told.log.changed(None)
    assert str(told.log) == "up"
    told.after(3)
    assert told.lines[1:] == [
        ("store_down", {"kind": "timeout", "reason": "it is gone", "callers_get": "words"}),
        ("store_up", {"after_s": 20.0, "calls_without_the_store": 7}),
    ]


def test_a_long_outage_is_repeated_each_minute() -> None:
    told = Told()
    told.log.changed(down())
    told.after(150)
    assert [event for event, _ in told.lines] == ["store_down", "store_still_down", "store_still_down"]
    assert told.lines[-1][1]["for_s"] == 120


def test_another_cause_is_a_line_soon_and_not_at_once() -> None:
    told = Told()
    told.log.changed(down("a"))
    for number in range(5):
        told.log.changed(down(f"b{number}"))
        told.after(1)
    told.after(10)
    assert [facts["reason"] for _, facts in told.lines] == ["a", "b4"]


def test_a_store_that_flaps_writes_few_lines() -> None:
    told = Told()
    told.log.changed(None)
    for _ in range(120):
        told.log.changed(down())
        told.after(1)
        told.log.changed(None)
        told.after(1)
    assert len(told.lines) <= 1 + 2 * 4
