"""Faults, caused for real, fail no request and lift no limit: `./dev chaos` in short, the cheapest of each kind."""

from pathlib import Path

import pytest

from chaos.report import table
from chaos.run import run_all

FAULTS = {
    "local": ("frozen_3s", "replica_killed", "config_torn", "refusing", "cut_off_refusing", "sentinel_master_killed"),
    "deny": ("read_only", "client_kill"),
    "allow": ("killed", "script_flush"),
    "error": ("full",),
}
SECONDS = 1.0


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_programs")
async def test_no_fault_fails_a_request_or_lifts_a_limit(short_path: Path) -> None:
    rows = []
    for policy, names in FAULTS.items():
        rows += await run_all(short_path, names, [policy], strict=False, seconds=SECONDS, patient=True)
    assert [complaint for row in rows for complaint in row.wrong] == [], table(rows)
    assert [(row.fault, row.policy) for row in rows if row.calls < 500] == [], table(rows)
