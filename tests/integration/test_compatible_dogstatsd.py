"""`extauth ratelimit` with the variables of DogStatsD: what the agent gets."""

import socket
from pathlib import Path

import pytest

from tests.compat.test_dogstatsd import HITS
from tests.support.compatible import CALL, CONFIG, CONTOUR, LOCAL, Process, mount
from tests.support.stores import Store
from tests.support.wait import until

NAME = "ratelimit.service.rate_limit"
TAGS = "#env:prod,zone:a,domain:echo-ratelimit,descriptor:PATH_/"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_hits_are_sent_to_the_agent_with_tags(own_store: Store, tmp_path: Path, workers: str) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    with socket.socket(type=socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.setblocking(False)
        environ = CONTOUR | LOCAL | HITS | {"USE_DOG_STATSD": "true", "USE_DOG_STATSD_MOGRIFIERS": "HITS"}
        environ |= {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(agent.getsockname()[1]), "EXTRA_TAGS": "zone:a"}
        environ |= {"STATS_FLUSH_INTERVAL": "200ms", "DD_ENV": "prod", "EXTAUTH_WORKERS": workers}
        process = Process(own_store, tmp_path, environ)
        lines: list[str] = []

        def counted(stat: str) -> int:
            prefix, suffix = f"{NAME}.{stat}:", f"|c|{TAGS}"
            return sum(
                int(each[len(prefix) : -len(suffix)])
                for each in lines
                if each.startswith(prefix) and each.endswith(suffix)
            )

        def all_counted() -> bool:
            try:
                while True:
                    lines.extend(agent.recv(65536).decode().splitlines())
            except BlockingIOError:
                return [counted(stat) for stat in ("total_hits", "within_limit", "over_limit")] == [3, 2, 1]

        try:
            process.until_healthy()
            assert [process.post(CALL)[0] for _ in range(3)] == [200, 200, 429]
            until(all_counted, lines)
        finally:
            process.process.terminate()
            process.process.wait(20)
    assert not [line for line in lines if "echo-ratelimit.PATH_" in line]  # all of them have been renamed
