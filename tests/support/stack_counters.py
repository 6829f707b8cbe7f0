"""What Envoy and the replicas of a stack counted of calls that were not decided by the limits."""

import aiohttp

from scripts.stack import Stack


async def undecided(stack: Stack, session: aiohttp.ClientSession) -> dict[str, int]:
    """The counts by name.

    `timeouts` and `overflows` are of Envoy's cluster extauth: calls without an answer in the filter's timeout, and
    calls that were not sent. `errors` are the calls that failed for its filter, `allowed` the requests that it let
    through therefore. `shed` are calls that extauth gave its failure policy for their own clock or a full queue.
    """
    lines = await _lines(session, stack.ports.envoy_admin, "/stats?filter=^cluster\\.(extauth|echo)\\.")
    envoy = {name: int(value) for name, _, value in (line.rpartition(": ") for line in lines) if value.isdigit()}
    cluster, filter_ = "cluster.extauth.", "cluster.echo.ratelimit."  # the filter counts for the route's cluster
    return {
        "timeouts": envoy.get(cluster + "upstream_rq_timeout", 0),
        "overflows": envoy.get(cluster + "upstream_rq_pending_overflow", 0)
        + envoy.get(cluster + "upstream_cx_overflow", 0),
        "errors": envoy.get(filter_ + "error", 0),
        "allowed": envoy.get(filter_ + "failure_mode_allowed", 0),
        "shed": sum(await of_each_replica(stack, session, "extauth_shed_calls_total")),
    }


async def of_each_replica(stack: Stack, session: aiohttp.ClientSession, metric: str) -> list[int]:
    """The sum of a metric's series at each replica."""
    sums = []
    for replica in stack.ports.extauth:
        lines = await _lines(session, replica.admin, "/metrics")
        sums.append(int(sum(float(line.split()[-1]) for line in lines if line.startswith(metric))))
    return sums


async def _lines(session: aiohttp.ClientSession, port: int, path: str) -> list[str]:
    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
        return (await response.text()).splitlines()
