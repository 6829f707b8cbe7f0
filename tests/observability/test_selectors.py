"""How the dashboards count: series that are new, old, reset, or known to Prometheus later than they began."""

import json
import subprocess
from pathlib import Path

import pytest

from observability.grafana.queries import interpolate
from observability.grafana.selectors import counted, extauth, rate_from_birth
from tests.observability.tools import program

CHOSEN = {
    "job": "extauth",
    "replica": ".*",
    "__range": "5m",
    "__range_s": "300",
    "__rate_interval": "1m",
    "__rate_interval_ms": "60000",
}
# Every 15 s. `old` and `late` run from the beginning, `young` from minute 16 on; `late` is scraped from minute 17 on.
SERIES = {
    'up{job="extauth", instance="old"}': "1x100",
    'up{job="extauth", instance="young"}': "_x63 1x36",
    'up{job="extauth", instance="late"}': "_x67 1x32",
    'process_start_time_seconds{job="extauth", instance="old"}': "1x100",
    'process_start_time_seconds{job="extauth", instance="young"}': "_x63 960x36",
    'process_start_time_seconds{job="extauth", instance="late"}': "_x67 1x32",
    'calls{job="extauth", instance="old", kind="steady"}': "0+2x100",
    'calls{job="extauth", instance="old", kind="newborn"}': "_x67 7x32",  # from minute 17 on
    'calls{job="extauth", instance="old", kind="reset"}': "100x60 0+3x40",  # from minute 15:15 on
    'calls{job="extauth", instance="young", kind="burst"}': "_x63 3x36",
    'calls{job="extauth", instance="late", kind="years"}': "_x67 5000x32",
}


def evaluated(folder: Path, expr: str, at: str, expected: dict[str, float]) -> None:
    """Hold a query at a time to the values of its kinds."""
    samples = [{"labels": f'{{kind="{kind}"}}', "value": value} for kind, value in expected.items()]
    query = f"sum by (kind) ({interpolate(expr, CHOSEN)})"
    test = {
        "interval": "15s",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": [{"expr": query, "eval_time": at, "exp_samples": samples}],
    }
    file = folder / "test.yml"
    file.write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run([program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("14m", {"steady": 40, "reset": 0}),
        ("18m", {"steady": 40, "newborn": 7, "burst": 3, "years": 0}),
        ("24m", {"steady": 40, "newborn": 0, "reset": 60, "burst": 0, "years": 0}),
    ],
)
def test_what_is_counted_in_a_range_is_exact(tmp_path: Path, at: str, expected: dict[str, float]) -> None:
    expr = counted(extauth("calls"))
    without_reset = expr if "reset" in expected else counted(extauth("calls", 'kind!="reset"'))
    evaluated(tmp_path, without_reset, at, expected)


def test_after_a_reset_within_the_range_prometheus_extrapolates(tmp_path: Path) -> None:
    """From 100 it went to 0 and then to 33 by 18:00; the 5 minutes have 20 of its intervals."""
    evaluated(tmp_path, counted(extauth("calls", 'kind="reset"')), "18m", {"reset": 33})


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("16m30s", {"steady": 8 / 60, "reset": 12 / 60, "burst": 3 / 60}),
        ("17m30s", {"steady": 8 / 60, "reset": 12 / 60, "newborn": 7 / 60, "burst": 0, "years": 0}),
        ("19m", {"steady": 8 / 60, "reset": 12 / 60, "newborn": 0, "burst": 0, "years": 0}),
    ],
)
def test_the_rate_of_a_new_series_has_its_first_value(tmp_path: Path, at: str, expected: dict[str, float]) -> None:
    evaluated(tmp_path, rate_from_birth(extauth("calls")), at, expected)
