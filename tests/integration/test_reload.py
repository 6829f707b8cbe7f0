"""SIGHUP to the command `extauth serve`: the config and the certificates are read again."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauth.transport.tls import TlsFiles
from tests.support.ports import free_port
from tests.support.process import Served
from tests.transport.test_tls import ENGINES, Authority, check, unreachable, write

CONFIG = "domain: DOMAIN\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 1}}]\n"


def write_config(served: Served, domain: str) -> None:
    (served.folder / "api.yaml").write_text(CONFIG.replace("DOMAIN", domain))


def hang_up(served: Served) -> list[dict[str, object]]:
    """Send SIGHUP, and return the lines of the log from the one that mentions it to the one that ends the reload."""
    seen = len(served.lines())

    def lines() -> list[dict[str, object]]:
        new = served.lines()[seen:]
        return new[[line["event"] for line in new].index("reloading") :] if "reloading" in str(new) else []

    served.process.send_signal(signal.SIGHUP)
    served.until(lambda: any(line["event"] in {"config_reloaded", "config_rejected"} for line in lines()))
    return lines()


@pytest.fixture(params=ENGINES)
def served(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Served]:
    """A service over TLS, on each engine."""
    files = TlsFiles(short_path / "cert.pem", short_path / "key.pem")
    write(files, Authority())
    (short_path / "api.yaml").write_text(CONFIG.replace("DOMAIN", "old"))
    settings = {
        "EXTAUTH_REDIS_URL": "memory:",
        "EXTAUTH_ENGINE": request.param,
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
        "EXTAUTH_GRPC_TLS_CERT": str(files.cert),
        "EXTAUTH_GRPC_TLS_KEY": str(files.key),
        "EXTAUTH_LOG_FORMAT": "json",
    }
    served = Served(short_path, short_path / "api.yaml", settings=settings)
    served.until(lambda: "serving" in served.log.read_text())
    yield served
    served.stop()


async def test_sighup_reads_config_and_certificates_again_even_where_nothing_changed(served: Served) -> None:
    events = [line["event"] for line in hang_up(served)]
    assert events == ["reloading", "tls_reloaded", "config_reloaded"]
    assert 'extauth_config_reloads_total{outcome="ok"} 1.0' in served.get("/metrics")[1]
    events = [line["event"] for line in hang_up(served)]
    assert events == ["reloading", "tls_reloaded", "config_reloaded"], "and once more"


async def test_new_handshakes_use_the_certificate_that_sighup_read(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    new = Authority()
    write(TlsFiles(served.folder / "cert.pem", served.folder / "key.pem"), new)
    write_config(served, "new")
    reloaded = next(line for line in hang_up(served) if line["event"] == "config_reloaded")
    assert reloaded["domains"] == ["new"]
    assert await check(port, new) == 1


async def test_what_sighup_finds_broken_is_logged_and_what_is_in_force_stays(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    ours = Authority()
    write(TlsFiles(served.folder / "cert.pem", served.folder / "key.pem"), ours)
    hang_up(served)
    (served.folder / "cert.pem").write_text("broken")
    (served.folder / "api.yaml").write_text("domain: old\ndescripters: []\n")
    lines = {line["event"]: line for line in hang_up(served)}
    assert "EXTAUTH_GRPC_TLS_CERT" in str(lines["tls_rejected"]["reason"])
    assert f"{served.folder}/api.yaml:2:1: unknown key 'descripters'" in str(lines["config_rejected"]["problem"])
    assert await check(port, ours) == 1
    assert await unreachable(check(port, Authority()))
    assert '"old"' in served.get("/rules")[1]
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0
