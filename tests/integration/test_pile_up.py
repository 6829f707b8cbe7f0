"""Very many calls in flight while Redis is frozen: each gets its answer before its own time is up."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from extauth.transport.h2.frames import (
    DATA,
    END_STREAM,
    HEAD,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    settings,
    window_update,
)
from tests.integration.store_service import services
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import PATH, block, call
from tests.support.stores import Store

CONNECTIONS, STREAMS = 16, 1000
TIMEOUT_S = 12  # they are answered 3 s earlier, which a busy machine needs to read the answers
MESSAGE = b"\x0a\x01d\x12\x0b\x0a\x09\x0a\x04wide\x12\x01v"
"""RateLimitRequest{domain: "d", descriptors: [{entries: [{key: "wide", value: "v"}]}]}"""


@pytest.mark.parametrize(("policy", "code"), [("deny", OVER_LIMIT), ("local", OK)])
async def test_no_call_waits_past_its_own_clock(short_path: Path, own_store: Store, policy: str, code: int) -> None:
    given = {"EXTAUTH_ON_STORE_FAILURE": policy, "EXTAUTH_REDIS_TIMEOUT": "60", "EXTAUTH_ENGINE": "h2"}
    async with services(short_path) as start:
        service = start(own_store.url, **given)
        await service.until_store("up")
        own_store.signal(signal.SIGSTOP)
        head = block(PATH, ("grpc-timeout", f"{TIMEOUT_S}S"))
        requests = b"".join(call(stream, MESSAGE, head) for stream in range(1, 2 * STREAMS, 2))
        address, sent = service.served.address.removeprefix("unix:"), asyncio.Barrier(CONNECTIONS)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                codes = await asyncio.gather(*(_ask(address, requests, sent) for _ in range(CONNECTIONS)))
        finally:
            own_store.signal(signal.SIGCONT)
        assert sum(codes, Counter()) == {code: CONNECTIONS * STREAMS}
        assert await service.metric("extauth_shed_calls_total") == CONNECTIONS * STREAMS


async def _ask(address: str, requests: bytes, sent: asyncio.Barrier) -> Counter[int]:
    """The codes of the answers to all calls of a connection; -1 of a call that ended otherwise."""
    reader, writer = await asyncio.open_unix_connection(address)
    greeting = settings({SETTINGS_INITIAL_WINDOW_SIZE: MAX_WINDOW})
    writer.write(PREFACE + greeting + window_update(0, MAX_WINDOW - 65_535) + requests)
    await sent.wait()
    codes: Counter[int] = Counter()
    ended = 0
    try:
        while ended < STREAMS:
            high, low, kind, flags, stream = HEAD.unpack(await reader.readexactly(9))
            data = await reader.readexactly(high << 8 | low)
            if kind == DATA:
                codes[data[6]] += 1  # after the message's prefix and the tag of overall_code
            elif stream and flags & END_STREAM:
                ended += 1
    finally:
        writer.close()
        await writer.wait_closed()
    codes[-1] = ended - codes.total()
    return codes
