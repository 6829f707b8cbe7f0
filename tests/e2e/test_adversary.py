"""Hostile clients lift nobody's limit, and take nobody's room: `./dev adversary` in short.

Through a real Envoy with our envoy.yaml, and through one with tracing and Envoy's own defaults for what a client may
send. On a machine that the attack shares, calls may run into the filter's timeout; those Envoy counts, and no others.
"""

import pytest

from adversary.attacks import ATTACKS
from adversary.report import table, wrong
from adversary.run import run_all

SECONDS = 1.0


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_programs")
async def test_no_hostile_client_lifts_a_limit_or_takes_anothers_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTAUTH_ENGINE", raising=False)  # grpc.aio has no bounds of its own on memory
    rows = await run_all(list(ATTACKS), seconds=SECONDS, rounds=1)
    assert not wrong(rows, strict=False), table(rows)
    assert [row.client for row in rows if row.sent < 5 or row.asked < 10] == [], table(rows)
    assert sum(row.explained for row in rows) < sum(row.asked for row in rows) / 20, table(rows)
