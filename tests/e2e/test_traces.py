"""Traces through real Envoy, configured as docs/observability.md says: its spans and ours are one tree."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from extauth.telemetry.otlp import METHOD
from scripts.stack.render import Edit
from tests.e2e.conftest import ROOT, Launch
from tests.e2e.edge import FREE
from tests.support.otlp import Received, Span, receiver
from tests.support.wait import until_async

PAGE = (ROOT / "docs" / "observability.md").read_text()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def received() -> Iterator[Received]:
    with receiver() as started:
        yield started


def traced(received: Received, percent: int) -> Edit:
    """Envoy's files with what the page adds to them, for this receiver and share of requests."""
    port = int(received.url.rpartition(":")[2])
    blocks = re.findall(r"```yaml\n(tracing:.*?|- name: collector.*?)```", PAGE, re.DOTALL)
    tracing, clusters = (
        yaml.safe_load(block.replace("address: collector", "address: 127.0.0.1").replace("4318", str(port)))
        for block in blocks
    )
    tracing["tracing"]["random_sampling"]["value"] = percent

    def edit(name: str, file: dict[str, Any]) -> None:
        if name == "envoy.yaml":
            edge = file["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
            edge.update(tracing)
            file["static_resources"]["clusters"] += clusters

    return edit


def settings(received: Received, engine: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_BSP_SCHEDULE_DELAY": "50", "EXTAUTH_ENGINE": engine}


def by_id(spans: list[Span]) -> dict[str, Span]:
    return {span.span_id: span for span in spans}


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
async def test_envoy_s_span_of_the_call_is_the_parent_of_ours(launch: Launch, received: Received, engine: str) -> None:
    edge = launch(edit_envoy=traced(received, 100), env=settings(received, engine))
    answers = await edge.get_many(12, key=FREE)
    assert [answer.status for answer in answers] == [200] * 10 + [429] * 2

    def whole() -> bool:
        decisions = [span for span in received.of("extauth") if span.kind == "SERVER"]
        return len(decisions) >= 12 and all(span.parent_id in by_id(received.of("edge")) for span in decisions)

    await until_async(
        whole, lambda: f"{len(received.of('extauth'))} spans of ours, {len(received.of('edge'))} of Envoy's"
    )
    spans = by_id(received.spans)
    decisions = [span for span in received.of("extauth") if span.kind == "SERVER"]
    assert len({span.trace_id for span in decisions}) == len(decisions) == 12
    assert sorted(span.attributes["extauth.code"] for span in decisions) == ["OK"] * 10 + ["OVER_LIMIT"] * 2
    for span in decisions:
        call = spans[span.parent_id]
        assert (call.service, call.trace_id) == ("edge", span.trace_id)
        assert "ShouldRateLimit" in call.name, "Envoy's span of the call, and not of the request"
        assert spans[call.parent_id].parent_id == "", "the request, which Envoy started the trace for"
        assert call.begun_ns <= span.begun_ns <= call.ended_ns, "on one machine, with one clock"
        assert span.name == METHOD
        assert span.attributes["extauth.tier"] == "free"
        assert FREE not in str(span)
    stores = [span for span in received.of("extauth") if span.kind == "CLIENT"]
    assert {span.parent_id for span in stores} <= {span.span_id for span in decisions}
    assert len(stores) == len([span for span in decisions if span.attributes["extauth.source"] == "store"]) >= 10


async def test_only_what_envoy_samples_is_traced(launch: Launch, received: Received) -> None:
    edge = launch(edit_envoy=traced(received, 0), env=settings(received, "h2"))
    parent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    await edge.get_many(3, key=FREE, headers=parent)
    await edge.get(key=FREE, headers={**parent, "x-client-trace-id": "1"})  # which Envoy always samples
    await edge.get_many(3, key=FREE)
    await until_async(lambda: len(received.of("extauth")) == 2 and len(received.of("edge")) >= 2)
    edge.stack.down()  # which sends what waits
    assert {span.trace_id for span in received.spans} == {TRACE}
    assert [span.kind for span in received.of("extauth")] == ["CLIENT", "SERVER"]
