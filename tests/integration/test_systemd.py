"""What `extauth serve` reports to systemd, and the unit that comes with it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from extauth.app import STOP_GRACE_S
from extauth.settings import Settings
from tests.support.manager import Manager, managing
from tests.support.process import ROOT, Served
from tests.support.programs import program
from tests.support.stores import Store

UNIT = ROOT / "deploy/systemd/extauth.service"
abstract = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")

Serve = Callable[..., Served]


@pytest.fixture
def serve(short_path: Path) -> Iterator[Serve]:
    """Starts services whose counters are in the process, unless the settings say otherwise."""
    started: list[Served] = []

    def start(manager: Manager, **environ: str) -> Served:
        config = short_path / "api.yaml"
        config.write_text("domain: d\n")
        settings = {"EXTAUTH_REDIS_URL": "memory:", "EXTAUTH_LOG_FORMAT": "json", "NOTIFY_SOCKET": manager.address}
        started.append(Served(short_path, config, settings=settings | environ))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.mark.parametrize("address", ["path", pytest.param("@extauth-test", marks=abstract)])
def test_it_reports_ready_each_reload_and_stopping(short_path: Path, serve: Serve, address: str) -> None:
    address = str(short_path / "notify") if address == "path" else f"{address}-{os.getpid()}"
    with managing(address) as manager:
        served = serve(manager)
        served.until(lambda: manager.states() == ["READY"])
        assert served.get("/readyz")[0] == 200
        for _ in range(2):
            manager.reports().clear()
            before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            served.process.send_signal(signal.SIGHUP)
            served.until(lambda: manager.states() == ["RELOADING", "READY"])
            at_us = int(manager.reports()[0]["MONOTONIC_USEC"])
            assert before_us <= at_us <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.reports().clear()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert manager.states() == ["STOPPING"]


def test_it_reports_ready_when_readiness_does(short_path: Path, serve: Serve, own_store: Store) -> None:
    own_store.signal(signal.SIGSTOP)
    try:
        with managing(str(short_path / "notify")) as manager:
            served = serve(manager, EXTAUTH_REDIS_URL=own_store.url, EXTAUTH_REDIS_TIMEOUT="60")
            served.until(lambda: served.get("/readyz")[0] == 503)
            assert manager.states() == []
            own_store.signal(signal.SIGCONT)
            served.until(lambda: manager.states() == ["READY"])
            assert served.get("/readyz")[0] == 200
    finally:
        own_store.signal(signal.SIGCONT)


def test_it_keeps_a_watchdog_quiet_while_its_loop_turns(short_path: Path, serve: Serve) -> None:
    with managing(str(short_path / "notify")) as manager:
        served = serve(manager, WATCHDOG_USEC="200000")
        served.until(lambda: manager.reports().count({"WATCHDOG": "1"}) > 3)
        assert manager.states() == ["READY"]


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_that_is_not_for_it_hears_nothing(short_path: Path, serve: Serve, environ: dict[str, str]) -> None:
    with managing(str(short_path / "notify")) as manager:
        served = serve(manager, **environ)
        served.until(lambda: manager.states() == ["READY"])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert manager.reports() == [{"READY": "1"}, {"STOPPING": "1"}]


def test_a_manager_that_is_gone_costs_one_warning(short_path: Path, serve: Serve) -> None:
    with managing(str(short_path / "notify")) as manager:
        pass
    (short_path / "notify").unlink()
    served = serve(manager)
    served.until_ready()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0
    (warning,) = (line for line in served.lines() if line["event"] == "notify_failed")
    assert "NOTIFY_SOCKET cannot be written to" in str(warning["reason"])


def unit() -> dict[str, str]:
    """The unit's section [Service]; of a name that comes twice the last."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_the_unit_leaves_time_to_drain_and_files_for_all_connections() -> None:
    service, defaults = unit(), Settings()
    assert service["Type"] == "notify-reload"
    assert service["ExecStart"].split()[1:] == ["serve"]
    assert int(service["TimeoutStopSec"]) > defaults.drain_delay + STOP_GRACE_S
    assert int(service["LimitNOFILE"]) >= defaults.max_connections + 128
    named = set(re.findall(r"\bEXTAUTH_[A-Z_]*[A-Z]\b", UNIT.read_text(encoding="utf-8")))
    assert named <= {f"EXTAUTH_{name.upper()}" for name in Settings.model_fields}


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "Debian: systemd")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/extauth/bin/extauth", sys.executable)
    version = re.search(r"\d+", subprocess.check_output([analyze, "--version"], text=True))
    assert version is not None
    if int(version[0]) < 253:
        text = text.replace("Type=notify-reload", "Type=notify\nExecReload=/bin/kill -HUP $MAINPID")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    verified = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
