"""Runs the cases against a server."""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio

from extauth.conformance.case import Case, Outcome, Result, not_applicable
from extauth.conformance.rules import EXTAUTH_DOMAIN, REFERENCE_DOMAIN, Folder, standing_probe, text_of
from extauth.conformance.server import SERVICE, Server, open_channel
from extauth.errors import ConformanceError

POLL_S = 0.02
ATTEMPTS = 5
CLOCK_SKEW_S = 2  # between here and the clock that the server counts by


async def run_cases(
    cases: Iterable[Case], address: str, folder: Path | None, *, settle_s: float, reference_only: bool = False
) -> AsyncIterator[tuple[Case, Result]]:
    """Run the cases one after the other; raises ConformanceError where the server or its rules are not there.

    The rules are written into `folder`, which the server watches, and removed in the end; without one, somebody else
    has loaded those that `text_of` gives. `settle_s` is how long the server may take to answer and to load rules.
    """
    rules = None if folder is None else Folder(folder)
    async with open_channel(address) as channel:
        server = Server(address, secrets.token_hex(6), REFERENCE_DOMAIN, channel, itertools.count())
        try:
            await _wait_until_it_answers(server, settle_s)
            if rules is not None:
                server = replace(server, reload=_reload(server, rules, settle_s))
            loaded = await _load(server, rules, settle_s, reference_only=reference_only)
            for case in cases:
                if case.domain in loaded:
                    yield case, await _run(case, server)
                else:
                    yield case, not_applicable(f"the server has not loaded the domain {case.domain}")
        finally:
            if rules is not None:
                rules.clean()


async def _wait_until_it_answers(server: Server, settle_s: float) -> None:
    try:
        await asyncio.wait_for(server.channel.channel_ready(), settle_s)
    except TimeoutError:
        raise ConformanceError(f"no gRPC server answers at {server.address} within {settle_s:g} s") from None


async def _load(server: Server, rules: Folder | None, settle_s: float, *, reference_only: bool) -> set[str]:
    """The domains that the server has loaded, once they are in force.

    The one that other servers may refuse comes second, and is taken away where it is refused: a server that refuses a
    folder for one of its files would load none of the edits to come.
    """
    domain = REFERENCE_DOMAIN
    if not await _is_loaded(server, rules, domain, settle_s):
        if rules is None:
            raise ConformanceError(f"the server has not loaded the domain {domain} as --print-rules prints it")
        raise ConformanceError(
            f"the server has not loaded the domain {domain} within {settle_s:g} s: is it its folder?"
        )
    if reference_only:
        return {domain}
    if await _is_loaded(server, rules, EXTAUTH_DOMAIN, settle_s):
        return {domain, EXTAUTH_DOMAIN}
    if rules is not None:
        rules.remove(EXTAUTH_DOMAIN)
    return {domain}


async def _is_loaded(server: Server, rules: Folder | None, domain: str, settle_s: float) -> bool:
    probe = standing_probe(domain)
    if rules is None:
        settle_s = 0  # nothing has changed that the server would have to see
    else:
        probe = server.run
        rules.write(domain, text_of(domain, probe))
    return await _until(lambda: server.at(domain).has_loaded(probe), settle_s)


def _reload(server: Server, rules: Folder, settle_s: float) -> Callable[[int], Awaitable[None]]:
    async def reload(limit: int) -> None:
        probe = server.fresh()
        rules.write(REFERENCE_DOMAIN, text_of(REFERENCE_DOMAIN, probe, limit))
        if not await _until(lambda: server.has_loaded(probe), settle_s):
            raise ConformanceError(f"the server has not loaded an edit within {settle_s:g} s")

    return reload


async def _until(true: Callable[[], Awaitable[bool]], settle_s: float) -> bool:
    deadline = time.monotonic() + settle_s
    while True:
        try:
            if await true():
                return True
        except grpc.aio.AioRpcError as error:  # so does envoyproxy/ratelimit answer while it has no rules
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ConformanceError(f"the server does not speak {SERVICE}") from error
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(POLL_S)


async def _run(case: Case, server: Server) -> Result:
    """The result of a case; anew where one failed and a window may have ended meanwhile, for counts then begin anew."""
    for _ in range(ATTEMPTS):
        started = time.time()
        result = await _attempt(case, server.at(case.domain))
        if result.outcome is not Outcome.FAILED or not _may_have_rolled(case, started):
            break
    return result


async def _attempt(case: Case, server: Server) -> Result:
    try:
        return await case.check(server)
    except grpc.aio.AioRpcError as error:
        return Result(Outcome.FAILED, "an answer", f"{error.code().name}: {error.details()}")
    except ConformanceError as error:
        return Result(Outcome.FAILED, "the rules as they were edited", str(error))
    except Exception as error:  # noqa: BLE001 - whatever an answer without the statuses that belong there leads to
        return Result(Outcome.FAILED, "an answer of the usual form", f"{type(error).__name__}: {error}")


def _may_have_rolled(case: Case, started: float) -> bool:
    first = (started - CLOCK_SKEW_S) // case.period_s
    return case.period_s <= 2 * CLOCK_SKEW_S or first != (time.time() + CLOCK_SKEW_S) // case.period_s
