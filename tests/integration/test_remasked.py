"""A reload that makes keys secret: from then on, nothing shows their values in clear that were shown before."""

import asyncio
import http.client
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import redis

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE
from tests.support.otlp import Received, receiver
from tests.support.process import Served
from tests.support.proxy import Proxy
from tests.support.stores import Store
from tests.support.wait import until_async

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CONFIG = """
domain: d
labels: [path]
descriptors:
  - {key: customer, value: acme-in-clear, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: customer, value_to_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: plain, rate_limit: {unit: year, requests_per_unit: 9}}
"""
OTHER = """
domain: other
descriptors:
  - {key: customer, value: acme-of-other, rate_limit: {unit: year, requests_per_unit: 9}}
"""
PAGES = ("/metrics", "/top", "/live", "/rules")


class Service:
    """A service beside a proxy of its store, and a client."""

    def __init__(self, served: Served, proxy: Proxy, received: Received) -> None:
        self.served = served
        self.proxy = proxy
        self.received = received
        self.channel = grpc.aio.insecure_channel(served.address)
        self._ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit"
        )

    async def call(self, *descriptors: str, calls: int = 1, domain: str = "d") -> None:
        message = encode_request(domain, list(map(read_descriptor, descriptors)))
        for _ in range(calls):
            await self._ask(message, timeout=20, metadata=(("traceparent", f"00-{TRACE}-{1:016x}-01"),))

    async def get(self, path: str) -> str:
        if path == "/live":
            return json.dumps(await asyncio.to_thread(first_event, self.served))
        return (await asyncio.to_thread(self.served.get, path))[1]

    async def reload(self, config: str) -> int:
        """Put other rules in force; returns how many lines the log had by then."""
        seen = len(self.served.lines())
        (self.served.folder / "rules" / "d.yaml").write_text(config)
        self.served.process.send_signal(signal.SIGHUP)
        await until_async(lambda: "config_reloaded" in str(self.served.lines()[seen:]), self.served.log.read_text)
        return next(i for i, line in enumerate(self.served.lines()) if i >= seen and line["event"] == "config_reloaded")


@contextmanager
def stream(served: Served) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=20)
    try:
        connection.request("GET", "/live")
        yield connection.getresponse()
    finally:
        connection.close()


def next_event(response: http.client.HTTPResponse) -> dict[str, Any]:
    while not (line := response.readline()).startswith(b"data: "):
        assert line or not response.closed
    event: dict[str, Any] = json.loads(line[6:])
    return event


def first_event(served: Served) -> dict[str, Any]:
    with stream(served) as response:
        return next_event(response)


@asynccontextmanager
async def service(store: Store, **settings: str) -> AsyncIterator[Service]:
    folder: Path = store.folder / "serve"
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "d.yaml").write_text(CONFIG)
    (folder / "rules" / "other.yaml").write_text(OTHER)
    with receiver() as received:
        async with Proxy(store.folder / "p", store.socket) as proxy:
            common = {
                "EXTAUTH_REDIS_URL": proxy.url,
                "EXTAUTH_REDIS_TIMEOUT": "20",
                "EXTAUTH_LOG_FORMAT": "json",
                "EXTAUTH_LOG_LEVEL": "debug",
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            }
            served = Served(store, folder / "rules", folder=folder, settings=common | settings)
            made = Service(served, proxy, received)
            try:
                await asyncio.to_thread(served.until_ready)
                yield made
            finally:
                await made.channel.close()
                served.stop()


def series(text: str, name: str, **labels: str) -> float:
    """The sum of the series with these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))


def reports(store: Store) -> str:
    """What the replicas report of their callers through the store."""
    with redis.Redis.from_url(store.url) as client:
        return str([client.get(key) for key in client.scan_iter("extauth:replicas:*")])


@pytest.mark.parametrize(
    ("delay_ms", "workers"),
    [(60_000, 1), (20, 1), (60_000, 2)],
    ids=["spans wait", "spans are sent", "two workers"],
)
async def test_nothing_is_shown_in_clear_any_more(own_store: Store, delay_ms: int, workers: int) -> None:
    settings = {"OTEL_BSP_SCHEDULE_DELAY": str(delay_ms), "EXTAUTH_WORKERS": str(workers)}
    async with service(own_store, **settings) as made:
        await made.call("customer=acme-in-clear", "path=/acme-in-clear", calls=4)
        await made.call("customer=globex-in-clear", "path=/globex-in-clear", calls=3)
        await made.call("customer=acme-of-other", calls=2, domain="other")

        async def shown() -> bool:
            return all(["globex-in-clear" in await made.get(path) for path in PAGES[:3]])

        await until_async(shown, "what is in clear", every_s=0.1)
        await until_async(lambda: "globex-in-clear" in reports(own_store), "the report", every_s=0.1)
        with stream(made.served) as page:
            assert "globex-in-clear" in json.dumps(next_event(page))
            made.proxy.hold()
            in_flight = asyncio.create_task(made.call("customer=acme-in-clear", "path=/acme-in-clear"))
            new_in_flight = asyncio.create_task(made.call("customer=initech-in-clear", "path=/initech-in-clear"))

            async def planned() -> bool:
                text = await made.get("/metrics")
                hits, misses = (series(text, f"extauth_plan_memo_{each}_total") for each in ("hits", "misses"))
                return hits + misses == 4 + 3 + 2 + 2

            await until_async(planned, "both calls", every_s=0.05)
            seen = await made.reload(CONFIG + "secret: [customer, path]\n")
            spans = len(made.received.spans)
            made.proxy.release()
            await asyncio.gather(in_flight, new_in_flight)
            for path in PAGES:
                assert "in-clear" not in await made.get(path), path
            event = await asyncio.to_thread(next_event, page)
            while event["config"]["digest"] != json.loads(await made.get("/live"))["config"]["digest"]:
                event = await asyncio.to_thread(next_event, page)
            assert "in-clear" not in json.dumps(event)
            assert event["history"]["first"] == 1, "so that the page forgets what it had"
            assert event["rules"]["reset"]
        await made.call("customer=globex-in-clear", "path=/globex-in-clear")
        await until_async(lambda: "in-clear" not in reports(own_store), "the next report", every_s=0.1)
        text = await made.get("/metrics")
        assert "in-clear" not in text
        assert series(text, "extauth_rule_calls_total", domain="d", rule="other") == 2, "what was in flight"
        assert series(text, "extauth_rule_calls_total", domain="d") == 3
        assert series(text, "extauth_rule_calls_total", domain="other", rule="customer_acme-of-other") == 2
        assert series(text, "http_requests_total", path="other") == 2
        top = json.loads(await made.get("/top"))["replica"]
        assert {rule["domain"] for rule in top["rules"]} == {"d", "other"}
        lines = made.served.lines()[seen:]
        assert len([line for line in lines if line["event"] == "decision"]) >= 2, (
            "one that was on its way, and a new one"
        )
        assert "in-clear" not in str(lines)
        made.served.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(made.served.process.wait, 20) == 0
        sent = made.received.spans[spans:]
        assert sent
        assert "in-clear" not in str(sent)
        assert "in-clear" in str(made.received.spans[:spans]) or delay_ms > 1000


async def test_where_masking_stays_all_stays(own_store: Store) -> None:
    async with service(own_store) as made:
        await made.call("customer=acme-in-clear", "path=/acme-in-clear", calls=4)
        await made.reload(CONFIG.replace("requests_per_unit: 9", "requests_per_unit: 8"))
        text = await made.get("/metrics")
        assert series(text, "extauth_rule_calls_total", domain="d", rule="customer_acme-in-clear") == 4
        assert series(text, "http_requests_total", path="/acme-in-clear") == 4
        assert "masking_changed" not in str(made.served.lines())
