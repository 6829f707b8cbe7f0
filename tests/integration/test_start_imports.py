"""What a start does not load: each is memory that a service with an ordinary config spares."""

from pathlib import Path

from tests.support.process import Served
from tests.support.stores import Store

CONFIG = "domain: api\ndescriptors: [{key: api_key, rate_limit: {unit: hour, requests_per_unit: 9}}]\n"

SPARED = {
    "anyio._backends",
    "encodings.idna",
    "extauth.config.sources.xds",
    "extauth.conformance.runner",
    "extauth.counters.redis.cluster.counters",
    "extauth.counters.several_shards",
    "extauth.replay.replayer",
    "extauth.workers.fleet",
    "grpc",
    "jh2.hpack",
    "logging.config",
    "re2",
}


def test_a_start_loads_nothing_that_its_settings_do_not_need(short_path: Path, own_store: Store) -> None:
    config = short_path / "api.yaml"
    config.write_text(CONFIG)
    settings = {"EXTAUTH_ENGINE": "h2", "PYTHONPROFILEIMPORTTIME": "1"}  # which logs each module that is loaded
    served = Served(own_store, config, folder=short_path, settings=settings)
    try:
        served.until_ready()
        served.until(lambda: "store_up" in served.log.read_text())
        lines = [line for line in served.log.read_text().splitlines() if line.startswith("import time:")]
        loaded = {line.rpartition("|")[2].strip() for line in lines}
        assert {"extauth.app", "extauth.counters.redis.counters", "yaml"} <= loaded
        assert loaded & SPARED == set()
    finally:
        served.stop()
