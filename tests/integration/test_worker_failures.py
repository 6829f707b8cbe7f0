"""Workers of `extauth serve` that cannot begin, that end again and again, and their certificates."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extauth.transport.tls import TlsFiles
from tests.integration.worker_service import children, events, page
from tests.support.manager import managing
from tests.support.process import ROOT, Served, served_with
from tests.support.stores import Store
from tests.support.wait import until_async
from tests.transport.test_tls import Authority, write

CONFIG = "domain: d\n"
COMMON = {"EXTAUTH_WORKERS": "2", "EXTAUTH_ENGINE": "h2", "EXTAUTH_LOG_FORMAT": "json"}
Serve = Callable[..., Served]


@pytest.fixture
def serve(own_store: Store) -> Iterator[Serve]:
    with served_with(own_store, CONFIG) as start:
        yield lambda **settings: start(**COMMON, **settings)


class Breaker:
    """While it is on, workers that begin end at once, if they have its PYTHONPATH."""

    def __init__(self, folder: Path) -> None:
        self._flag = folder / "broken"
        self.path = f"{folder}:{ROOT}"
        (folder / "sitecustomize.py").write_text(
            "import os, sys\n"
            f"if 'extauth.workers' in sys.orig_argv and os.path.exists({str(self._flag)!r}):\n"
            "    os._exit(3)\n"
        )

    def on(self) -> None:
        self._flag.touch()

    def off(self) -> None:
        self._flag.unlink()


@pytest.fixture
def breaker(tmp_path: Path) -> Breaker:
    return Breaker(tmp_path)


def test_1_a_worker_that_cannot_begin_stops_the_start(serve: Serve, breaker: Breaker) -> None:
    breaker.on()
    served = serve(PYTHONPATH=breaker.path)
    assert served.process.wait(30) == 1
    assert served.log.read_text().splitlines()[-1].endswith(" ended before it could take calls: exit_code 3")


async def test_a_worker_that_ends_again_and_again_is_started_after_longer_and_longer_pauses(
    serve: Serve, breaker: Breaker
) -> None:
    served = serve(PYTHONPATH=breaker.path)
    await asyncio.to_thread(served.until_ready)
    breaker.on()
    os.kill(min(children(served.process.pid)), signal.SIGKILL)
    await until_async(lambda: len(events(served, "worker_ended")) >= 4, served.log.read_text)
    ready = await page(served, "/readyz")
    assert (ready["status"], ready["workers"], ready["workers_ready"]) == ("ready", 2, 1)
    breaker.off()
    await until_async(lambda: events(served, "worker_started"), served.log.read_text)
    ended = events(served, "worker_ended")[:4]
    assert [line.get("signal", line.get("exit_code")) for line in ended] == ["SIGKILL", 3, 3, 3]
    _, *pauses = [float(str(line["again_in_s"])) for line in ended]
    assert pauses[0] in {0.1, 0.2}, "the first worker may have worked for ten seconds"
    assert pauses == [pauses[0], 2 * pauses[0], 4 * pauses[0]]


async def test_each_worker_takes_new_certificates(serve: Serve, own_store: Store) -> None:
    files, authority = TlsFiles(own_store.folder / "cert.pem", own_store.folder / "key.pem"), Authority()
    write(files, authority)
    served = serve(EXTAUTH_GRPC_TLS_CERT=str(files.cert), EXTAUTH_GRPC_TLS_KEY=str(files.key))
    await asyncio.to_thread(served.until_ready)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])

    async def shown() -> list[bytes | None]:
        """The certificates of two connections at a time, one for each worker."""
        path = served.address.removeprefix("unix:")
        writers = [
            (await asyncio.open_unix_connection(path, ssl=context, server_hostname="localhost"))[1] for _ in range(2)
        ]
        found = [writer.get_extra_info("ssl_object").getpeercert(binary_form=True) for writer in writers]
        for writer in writers:
            writer.close()
        return found

    first, again = await shown()
    assert first == again
    write(files, authority)

    async def all_new() -> bool:
        new = await shown()
        return new[0] == new[1] != first

    await until_async(all_new, served.log.read_text, every_s=0.05)
    files.cert.write_text("no certificate")
    await until_async(lambda: events(served, "tls_rejected"), served.log.read_text)
    assert [line["event"] for line in events(served, "tls_reloaded", "tls_rejected")] == [
        "tls_reloaded",
        "tls_rejected",
    ]


def test_the_parent_alone_reports_to_a_service_manager(serve: Serve, short_path: Path) -> None:
    with managing(str(short_path / "notify")) as manager:
        served = serve(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000")
        served.until(lambda: manager.states() == ["READY"])
        assert json.loads(served.get("/readyz")[1])["workers_ready"] == 2
        served.until(lambda: manager.reports().count({"WATCHDOG": "1"}) > 3)
        served.process.send_signal(signal.SIGHUP)
        served.until(lambda: manager.states() == ["READY", "RELOADING", "READY"])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]
