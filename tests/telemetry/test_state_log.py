"""Lines for the changes of a state, of which there are few a minute."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from extauth.telemetry.state_log import MOST, WITHIN_S, StateLog
from tests.support.clock import Seconds


class Rig:
    """A log, its lines with their instants, and what is to be done later."""

    def __init__(self) -> None:
        self.clock = Seconds()
        self.lines: list[tuple[float, bool]] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.log = StateLog(
            lambda state: self.lines.append((self.clock.now, state)),
            clock=self.clock,
            later=lambda delay_s, do: self._later.append((self.clock.now + delay_s, do)),
        )

    def wait(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self._later and min(at for at, _ in self._later) <= until:
            at, do = min(self._later, key=lambda each: each[0])
            self._later.remove((at, do))
            self.clock.now = at
            do()
        self.clock.now = until


def test_each_change_has_a_line_at_once() -> None:
    rig = Rig()
    for state in (False, True, True, False):
        rig.log.changed(state=state)
    assert [state for _, state in rig.lines] == [True, False]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=60))
def test_however_often_it_changes_there_are_few_lines_and_the_last_is_right(changes: list[tuple[bool, float]]) -> None:
    rig = Rig()
    state = False
    for state, pause_s in changes:
        rig.log.changed(state=state)
        rig.wait(pause_s)
    rig.wait(WITHIN_S)
    written = [line for _, line in rig.lines]
    assert written == [i % 2 == 0 for i in range(len(written))], "no line repeats the one before"
    assert (written or [False])[-1] is state
    instants = [at for at, _ in rig.lines]
    for first, beyond in zip(instants, instants[MOST:], strict=False):
        assert beyond - first >= WITHIN_S - 1e-6
