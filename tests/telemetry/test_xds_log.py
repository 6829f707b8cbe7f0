"""What operators are told of the xDS server."""

from collections.abc import Callable
from typing import Any

from structlog.testing import capture_logs

from extauth.telemetry.xds_log import MAX_TYPE_CHARS, OTHER_REASON_S, REPEAT_S, XdsLog
from tests.support.clock import Seconds

SERVER = "xds://h:1"


def lines(happen: Callable[[XdsLog, Seconds], None]) -> list[dict[str, Any]]:
    """What was logged, without level and server."""
    clock = Seconds()
    with capture_logs() as found:
        happen(XdsLog(SERVER, clock), clock)
    assert all(line.pop("server", SERVER) == SERVER and line.pop("log_level") for line in found)
    return [dict(line) for line in found]


def test_a_stream_that_comes_and_goes_is_a_line_each() -> None:
    def happen(log: XdsLog, clock: Seconds) -> None:
        log.connected(waiting=True)
        log.connected(waiting=False)
        log.away("gone")
        clock.now += 3
        log.connected(waiting=False)

    assert lines(happen) == [
        {"event": "xds_connected", "waits_for": "its first rules: no call is taken before"},
        {"event": "xds_away", "reason": "gone", "rules": "those in force stay"},
        {"event": "xds_connected", "after_s": 3.0},
    ]


def test_attempts_that_fail_are_few_lines() -> None:
    def happen(log: XdsLog, clock: Seconds) -> None:
        for _ in range(1000):
            log.away("refused")
            clock.now += 1
        log.away("not trusted")
        log.away("refused")

    found = lines(happen)
    assert [(line["event"], line["reason"], line.get("for_s")) for line in found] == [
        ("xds_away", "refused", None),
        ("xds_still_away", "refused", REPEAT_S),
        ("xds_still_away", "not trusted", 1000),
    ]
    assert {line["rules"] for line in found} == {"none yet"}
    assert OTHER_REASON_S < REPEAT_S


def test_other_types_are_one_line_in_ten_minutes() -> None:
    def happen(log: XdsLog, clock: Seconds) -> None:
        for number in range(1000):
            log.passed_over(f"type {number}" + "x" * MAX_TYPE_CHARS)
            clock.now += 1

    found = lines(happen)
    assert [(line["event"], line["effect"]) for line in found] == [("xds_other_type", "none")] * 2
    assert [str(line["type_url"]).split("x")[0] for line in found] == ["type 0", f"type {REPEAT_S:g}"]
    assert all(len(str(line["type_url"])) == MAX_TYPE_CHARS for line in found)
