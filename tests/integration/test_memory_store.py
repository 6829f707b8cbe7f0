"""`extauth serve` with its counters in the process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauth.commands.client import connected
from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.process import Served

CONFIG = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 2}}]\n"

READY = {"status": "ready", "rules": 1, "store": "up", "breaker": "closed"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "d.yaml").write_text(CONFIG)
    settings = {"EXTAUTH_REDIS_URL": "memory:", "EXTAUTH_LOG_FORMAT": "json"}
    service = Served(tmp_path, tmp_path / "d.yaml", settings=settings)
    yield service
    service.stop()


def test_it_limits_without_a_redis_and_says_that_it_is_one_replica(served: Served) -> None:
    served.until_it_answers()
    request = encode_request("d", (read_descriptor("k=v"),))
    with connected(served.address, 10, None) as client:
        assert [client.ask(request).code for _ in range(4)] == ["OK", "OK", "OVER_LIMIT", "OVER_LIMIT"]
    status, page = served.get("/readyz")
    told = "in this process: it must be the only replica, and its counts end with it"
    assert (status, json.loads(page)) == (200, READY | {"counters": told})
    (line,) = [line for line in served.lines() if line["event"] == "serving"]
    assert (line["redis"], line["counters"]) == ("memory:", told)
    served.process.terminate()
    assert served.process.wait(20) == 0
