"""What a replica reports to the others with its heartbeats."""

import asyncio
from collections.abc import Sequence

import pytest

from extauth.counters.breaker import Breaker
from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import build_planner
from extauth.limiter.failure import FailurePolicy
from extauth.replicas import Replicas
from extauth.rules.model import OnStoreFailure, RuleSet
from extauth.settings import Settings
from extauth.telemetry.top import Caller, RuleTop, Top, unpack_top
from tests.support.clock import Clock
from tests.support.wait import until_async

TOP = Top(1.0, 1, 1, (RuleTop("d", "r", (Caller("x", 5),)),))


class Registry:
    """Keeps the reports that it gets."""

    def __init__(self) -> None:
        self.reports: list[bytes] = []

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        self.reports.append(report)
        return b""

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        return [b""] * len(replicas)

    def local_host(self) -> str | None:
        return None


async def first_report(top: Top | Exception) -> bytes:
    async def look() -> Top:
        if isinstance(top, Exception):
            raise top
        return top

    registry = Registry()
    breaker = Breaker(MemoryCounters(Clock()))
    policy = FailurePolicy(OnStoreFailure.ALLOW)
    planner = build_planner(RuleSet())
    replicas = Replicas(Settings(), policy, breaker, registry, planner=planner, top=look, tls=None)
    beating = asyncio.create_task(replicas.keep_beating())
    await until_async(lambda: registry.reports or beating.done())
    beating.cancel()
    (report,) = registry.reports
    return report


async def test_each_heartbeat_has_the_callers() -> None:
    assert unpack_top(await first_report(TOP)) == TOP


async def test_a_heartbeat_is_left_even_where_the_callers_cannot_be_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await first_report(RuntimeError("no callers")) == b""
    assert "report_failed" in capsys.readouterr().out
