"""The command `extauth conformance`: against our own server, and against servers that do wrong."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import (
    RateLimitRequest,
    RateLimitResponse,
    RateLimitResponseCode,
    RateLimitResponseDescriptorStatus,
)

from extauth.conformance.case import Outcome
from extauth.conformance.cases import CASES
from extauth.conformance.rules import EXTAUTH_DOMAIN, REFERENCE_DOMAIN
from extauth.conformance.runner import run_cases
from extauth.conformance.server import SERVICE
from extauth.errors import ConformanceError
from tests.support.environ import INHERITED
from tests.support.process import ROOT, Served
from tests.support.stores import Store


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extauth", "conformance", *arguments],
        env={**INHERITED, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def serve(any_store: Store, tmp_path: Path) -> Iterator[Callable[[str], tuple[str, Path]]]:
    """Starts a server on an engine: its address, and the folder of its rules."""
    started: list[Served] = []

    def start(engine: str, **settings: str) -> tuple[str, Path]:
        rules = tmp_path / "rules"
        rules.mkdir()
        (rules / "other.yaml").write_text("domain: other")
        # What a busy machine delays must not be allowed for that.
        settings |= {"EXTAUTH_ENGINE": engine, "EXTAUTH_REDIS_TIMEOUT": "10"}
        served = Served(any_store, rules, settings=settings)
        started.append(served)
        served.until_it_answers()
        return served.address, rules

    yield start
    for served in started:
        served.stop()


OF_THE_OWN_MODE = ["peek_at_a_used_up_limit"]
OF_COMPATIBLE_MODE = ["peek_passes_at_a_used_up_limit", "peeks_between_hits", "peek_beside_a_hit"]


@pytest.mark.parametrize(("compatible", "not_applicable"), [("false", OF_COMPATIBLE_MODE), ("true", OF_THE_OWN_MODE)])
@pytest.mark.parametrize("engine", ["h2", "grpcio"])
def test_extauth_conforms(
    serve: Callable[..., tuple[str, Path]], engine: str, compatible: str, not_applicable: list[str]
) -> None:
    address, rules = serve(engine, EXTAUTH_COMPATIBLE=compatible)
    ran = conformance("--address", address, "--config", str(rules), "--json")
    assert ran.returncode in {0, 1}, ran.stderr
    told = json.loads(ran.stdout)
    assert [case for case in told["cases"] if case["outcome"] == "failed"] == []
    assert [case["name"] for case in told["cases"] if case["outcome"] != "passed"] == not_applicable
    assert (ran.returncode, told["passed"], len(told["cases"])) == (0, len(CASES) - len(not_applicable), len(CASES))
    assert names(rules) == ["other.yaml"]


def test_rules_that_were_loaded_before_will_do(serve: Callable[[str], tuple[str, Path]], tmp_path: Path) -> None:
    address, rules = serve("h2")
    unready = conformance("--address", address, "--settle", "5")
    assert (unready.returncode, unready.stderr) == (
        2,
        "the server has not loaded the domain conformance as --print-rules prints it\n",
    )
    for i, text in enumerate(conformance("--print-rules").stdout.split("---\n")):
        (tmp_path / "unfinished").write_text(text)
        (tmp_path / "unfinished").rename(rules / f"{i}.yaml")
    uneditable = "the suite did not write the rules, so it cannot edit them"
    only = ["--only", "edit_*", "--only", "burst", "--only", "unlimited"]
    while (ran := conformance("--address", address, *only)).returncode == 2 or "burst [extauth]: " in ran.stdout:
        assert "has not loaded" in ran.stderr + ran.stdout
    assert ran.stdout.splitlines() == [
        "passed          unlimited",
        f"not applicable  edit_takes_effect_and_what_is_used_stays_used: {uneditable}",
        "passed          burst [extauth]",
        "2 passed, 0 failed, 1 not applicable",
    ]


OK = RateLimitResponseCode.OK


@asynccontextmanager
async def generous_server(folder: Path, *domains: str) -> AsyncIterator[str]:
    """A server to which everything in these domains is unlimited; yields its address."""

    async def answer(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            request = RateLimitRequest.parse(message)
        except (EOFError, ValueError) as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        left = 2**32 - 1 if request.domain in domains else 0
        status = RateLimitResponseDescriptorStatus(code=OK, limit_remaining=left)
        return bytes(RateLimitResponse(overall_code=OK, statuses=[status] * len(request.descriptors)))

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": handler}),))
    address = f"unix:{folder}/generous"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(0)


async def test_a_server_without_limits_fails_all_that_is_about_limits(short_path: Path, tmp_path: Path) -> None:
    async with generous_server(short_path, REFERENCE_DOMAIN, EXTAUTH_DOMAIN) as address:
        results = {case.name: result async for case, result in run_cases(CASES, address, tmp_path, settle_s=10)}
    assert {name: result.outcome for name, result in results.items() if result.outcome is not Outcome.FAILED} == {
        "unknown_domain_is_ok": Outcome.PASSED,
        "unlimited": Outcome.PASSED,
        "override_in_an_unknown_domain": Outcome.PASSED,
        "unknown_methods_are_unimplemented": Outcome.PASSED,
        "unknown_fields_are_skipped": Outcome.PASSED,
        "value_that_is_no_utf8_is_a_value": Outcome.NOT_APPLICABLE,
    }
    denial = results["count_per_day"]
    assert (denial.expected, denial.seen) == ("['OK', 'OK', 'OK', 'OVER_LIMIT', 'OVER_LIMIT']", str(["OK"] * 5))
    assert results["health_is_serving"].seen == "'UNIMPLEMENTED'"
    assert names(tmp_path) == []


@pytest.mark.parametrize("reference_only", [False, True])
async def test_a_server_that_refuses_what_extauth_adds_is_tested_for_the_rest(
    short_path: Path, tmp_path: Path, *, reference_only: bool
) -> None:
    outcomes: dict[str, Outcome] = {}
    async with generous_server(short_path, REFERENCE_DOMAIN) as address:
        async for case, result in run_cases(CASES, address, tmp_path, settle_s=0.1, reference_only=reference_only):
            outcomes[case.name] = result.outcome
            assert names(tmp_path) == ["conformance.yaml"], "the other one would keep the server from reading edits"
    assert outcomes["unlimited"] is Outcome.PASSED
    assert {outcomes[case.name] for case in CASES if case.domain == EXTAUTH_DOMAIN} == {Outcome.NOT_APPLICABLE}


async def test_what_cannot_run(short_path: Path, tmp_path: Path) -> None:
    async def why_not(*arguments: str) -> str:
        ran = await asyncio.to_thread(conformance, *arguments, "--settle", "0.3")
        assert (ran.returncode, ran.stdout) == (2, "")
        return ran.stderr

    assert await why_not() == "say which server: --address HOST:PORT or unix:PATH\n"
    nobody = f"unix:{short_path}/nobody"
    assert await why_not("--address", nobody) == f"no gRPC server answers at {nobody} within 0.3 s\n"
    assert await why_not("--address", nobody, "--only", "unlimitd") == (
        "there is no case 'unlimitd'; did you mean 'unlimited'?\n"
    )
    async with generous_server(short_path) as address:
        assert await why_not("--address", address, "--config", str(tmp_path)) == (
            "the server has not loaded the domain conformance within 0.3 s: is it its folder?\n"
        )
    assert names(tmp_path) == []


async def test_a_server_of_something_else_cannot_be_tested(short_path: Path) -> None:
    server = grpc.aio.server()
    address = f"unix:{short_path}/other"
    server.add_insecure_port(address)
    await server.start()
    with pytest.raises(ConformanceError, match=f"the server does not speak {SERVICE}"):
        _ = [result async for result in run_cases(CASES, address, None, settle_s=10)]
    await server.stop(0)
