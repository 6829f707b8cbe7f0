"""What `./dev chaos` makes of what it measured: the numbers, and which of them must not be."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chaos.client import LOST, OK, OVER, SECOND_KEY, SILENT, Client, Direct
from chaos.faults import Fault
from chaos.load import CALLERS, EDGE, Sample, config
from chaos.report import Seen, markdown, row
from chaos.run import FAULTS
from chaos.stage import Stage
from extauth.config.merge import load_rules
from extauth.counters.shard_order import shard_order
from extauth.limiter.build import build_planner
from extauth.rls.protobuf import bytes_field
from tests.support.calls import descriptor

BEGAN, MENDED = 100.0, 103.0


@asynccontextmanager
async def nothing(_stage: Stage) -> AsyncIterator[None]:
    yield


FAULT = Fault(cause=nothing)
COUNTS = {"timeouts": 0, "overflows": 0, "errors": 0, "allowed": 0, "shed": 0}
WAYS = (EDGE, "0", "1")


def calls(number: int, result: str, *, who: str = "open", way: str = EDGE, at: float = BEGAN + 1) -> list[Sample]:
    return [(at, 0.001, way, who, result)] * number


GOOD = Seen(
    samples=[sample for way in WAYS for sample in calls(100, OK, way=way)] + calls(500, OK, who="gcra"),
    began=BEGAN,
    mended=MENDED,
    normal=MENDED + 0.1,
    stall_s=0.0,
    busy=0.4,
    envoy=COUNTS,
    by_policy=7,
    lines=2,
    tracebacks=0,
)


def wrong(seen: Seen, fault: Fault = FAULT, policy: str = "deny", *, strict: bool = True) -> str:
    return "\n".join(row("name", fault, policy, seen, strict=strict).wrong)


def with_calls(*more: list[Sample]) -> Seen:
    return replace(GOOD, samples=[*GOOD.samples, *(sample for some in more for sample in some)])


def with_envoy(**counts: int) -> Seen:
    return replace(GOOD, envoy=COUNTS | counts)


def test_a_row_has_the_numbers() -> None:
    seen = replace(with_calls([(BEGAN + 2, 0.05, EDGE, "spent", OVER)] * 9), envoy=COUNTS | {"timeouts": 1})
    found = row("name", FAULT, "deny", seen, strict=True)
    assert found.wrong == ()
    numbers = (found.calls, found.failed, found.errors, found.uncounted, found.timeouts, found.over, found.by_policy)
    assert numbers == (809, 0, 0, 0, 1, 0, 7)
    assert (found.p50_ms, found.p99_ms, found.normal_s) == pytest.approx((1, 50, 0.1))


def test_each_number_has_a_cell_of_the_page_whatever_the_names_length() -> None:
    name = max(FAULTS, key=len)
    heading, _, line = markdown([row(name, FAULT, "deny", GOOD, strict=True)]).split("\n")
    assert line.startswith(f"| `{name}` | deny | 800 |")
    assert line.count("|") == heading.count("|")


BAD = {
    "INTERNAL": (with_calls(calls(3, "INTERNAL", way="0")), "3 calls failed: {'INTERNAL (0)': 3}"),
    "no answer": (with_calls(calls(1, SILENT), calls(1, LOST)), "2 calls failed"),
    "a status of Envoy's": (with_calls(calls(1, "503")), "1 calls failed: {'503 (edge)': 1}"),
    "an honest status under another policy": (
        with_calls(calls(2, "UNAVAILABLE", way="1")),
        "2 direct calls failed: UNAVAILABLE",
    ),
    "uncounted": (with_envoy(allowed=2, errors=2), "2 requests passed uncounted, of which 0 are explained"),
    "a timeout without a stall": (
        with_envoy(allowed=2, timeouts=2),
        "2 requests passed uncounted, of which 0 are explained",
    ),
    "beyond a limit": (
        with_calls(calls(1, OK, who="gcra")),
        "1 calls of 'gcra' were admitted beyond the limit, of which 0 may be",
    ),
    "not normal in time": (replace(GOOD, normal=MENDED + 1.5), "counted together after 1.5 s, not after 1 s"),
    "never normal": (replace(GOOD, normal=math.inf), "counted together after inf s"),
    "a full log": (replace(GOOD, lines=11), "a replica logged 11 lines, and may log 10 a minute"),
    "a traceback": (replace(GOOD, tracebacks=1), "1 exceptions in a replica's log"),
    "no calls at a replica": (
        replace(GOOD, samples=[sample for sample in GOOD.samples if sample[2] != "1"]),
        "too few calls",
    ),
}


@pytest.mark.parametrize(("seen", "complaint"), BAD.values(), ids=BAD)
def test_what_must_not_be_is_complained_about(seen: Seen, complaint: str) -> None:
    assert wrong(GOOD) == ""
    assert complaint in wrong(seen)


def test_what_is_explained_is_not() -> None:
    assert wrong(with_calls(calls(2, "UNAVAILABLE", way="1")), policy="error") == ""
    assert wrong(with_calls(calls(2, LOST, way="0")), replace(FAULT, replicas=frozenset({0}))) == ""
    assert wrong(with_envoy(allowed=2), replace(FAULT, lost=2)) == ""
    assert wrong(with_envoy(allowed=2, timeouts=2), strict=False) == ""
    assert wrong(replace(with_envoy(allowed=2, timeouts=2), stall_s=0.1)) == ""
    assert wrong(replace(with_envoy(allowed=2, timeouts=2), busy=0.6)) == ""
    assert wrong(replace(GOOD, lines=18, mended=BEGAN + 120, normal=BEGAN + 120)) == ""


MORE = with_calls(calls(100, OK, who="gcra"))


@pytest.mark.parametrize(
    ("fault", "policy", "at", "over"),
    [
        (FAULT, "deny", BEGAN + 1, 100),
        (FAULT, "allow", BEGAN + 1, 0),
        (FAULT, "allow", MENDED + 1, 100),
        (FAULT, "error", BEGAN + 1, 0),
        (FAULT, "error", MENDED + 1, 100),
        (FAULT, "local", BEGAN + 1, 100),
    ],
)
def test_only_what_a_policy_lets_pass_while_it_decides_is_not_held_against_it(
    fault: Fault, policy: str, at: float, over: int
) -> None:
    seen = replace(GOOD, samples=[*calls(500, OK, who="gcra", at=BEGAN - 1), *calls(100, OK, who="gcra", at=at)])
    assert row("name", fault, policy, seen, strict=True).over == over


def test_a_store_that_forgot_and_replicas_that_count_alone_admit_a_limit_more_each() -> None:
    assert "beyond" in wrong(MORE)
    assert wrong(MORE, replace(FAULT, forgets=1)) == ""
    assert wrong(MORE, policy="local") == ""
    assert "beyond" in wrong(MORE, replace(FAULT, cut_off=frozenset()), policy="local")


def test_counting_alone_is_no_excuse_for_admitting_who_was_used_up_before() -> None:
    seen = with_calls(calls(21, OK, who="spent"))
    assert "calls of 'spent'" in wrong(seen, policy="local")
    assert wrong(seen, replace(FAULT, newcomers=frozenset({1})), policy="local") == ""


@pytest.mark.parametrize("who", CALLERS)
def test_of_two_limits_the_first_takes_before_the_second_may_deny(who: str) -> None:
    key = f"{who}-1"
    message = bytes_field(1, b"api") + descriptor(("api_key", key)) + descriptor((SECOND_KEY, key))
    plan = build_planner(load_rules({"api.yaml": config(limits=2)})).plan(message)
    own, second = (check.limit.requests_per_unit for check in plan.checks)
    limit = CALLERS[who].limit
    assert (second, own) == (10**9, 10**9) if limit is None else second == limit < own
    assert [step.shard for step in shard_order(plan.checks, (4, 7), (False, False)).steps] == [4, 7]


async def test_a_client_counts_calls_that_it_cannot_send_as_lost() -> None:
    results: list[str] = []
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    client = Client(port, Direct(), lambda _at, _key, result: results.append(result))
    await client.start()
    client.ask("open-1")
    await client.stop()
    assert results == [LOST]
