"""Envoy's access log, as a stack's Envoy writes it."""

import json
from typing import Any

from tests.e2e.edge import Edge
from tests.support.wait import until_async


def lines(edge: Edge) -> list[dict[str, Any]]:
    """The lines of requests that extauth was asked about, in the order of the log."""
    text = edge.stack.logs()["envoy"].read_text()
    logged = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in logged if line.get("path") != "/healthz"]


async def until_lines(edge: Edge, number: int) -> list[dict[str, Any]]:
    """The lines, once there are that many; Envoy writes them a few times a second."""
    await until_async(lambda: len(lines(edge)) >= number, lambda: f"{number} lines: {lines(edge)}", every_s=0.02)
    assert len(lines(edge)) == number
    return lines(edge)
