"""An xDS server as a source of rules: one stream of state of the world, over the aggregated discovery service.

How it follows the protocol:
- A new stream begins with neither version nor nonce, for the versions of another server process begin anew.
- Each response has all resources. Only the newest is built and answered, after its rules are in force; the stream is
  read meanwhile. One of another type is passed over, as by Envoy, and takes no other one's place.
- A server such as go-control-plane answers a refusal with what was refused, unless the refusal names the new version.
  So it does, and what was refused once on a stream is accepted when it comes again.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, NoReturn

from extauth.config.many_objects import collector_off
from extauth.config.sources.discovery import (
    INVALID_ARGUMENT,
    TYPE,
    decode_response,
    encode_node,
    encode_request,
    type_of,
)
from extauth.config.sources.resources import Built, ResourceReader
from extauth.config.sources.xds_cache import read_cache, write_cache
from extauth.config.sources.xds_pauses import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    READ_PAUSE_S,
    BuildPauses,
    StreamPauses,
)
from extauth.config.sources.xds_reports import XdsReports
from extauth.config.sources.xds_session import Session
from extauth.config.sources.xds_settings import XdsOptions, XdsServer
from extauth.errors import ConfigError, InvalidRequestError, SourceError
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.model import RuleSet

QUICK_S: Final = 1.0
WAITING_S: Final = 2.0
"""A stream that is open for so long without a response waits for the server's first rules."""
MAX_REFUSED: Final = 100
MAX_REFUSAL_CHARS: Final = 2000
MANY_BYTES: Final = 500_000
"""From here on the cycle collector is worth keeping away."""
LARGE_BYTES: Final = 10_000
"""Above that it may take long to find out what type a response is of."""


class XdsSource:
    """The rules of an xDS server, in which the values of these keys are `secret`.

    With `cache`, that file keeps them for a start without the server.
    """

    def __init__(
        self,
        server: XdsServer,
        options: XdsOptions,
        reports: XdsReports,
        *,
        merge: bool = False,
        secret: SecretKeys = NAMED_SO,
        cache: Path | None = None,
        wait: bool = True,
        pauses_s: tuple[float, float] = (FIRST_PAUSE_S, LONGEST_PAUSE_S),
    ) -> None:
        self._server = server
        self._options = options
        self._reports = reports
        self._cache = cache
        self._pauses = StreamPauses(*pauses_s)
        self._node = encode_node(options.node_id, options.node_metadata)
        self._reader = ResourceReader(merge=merge, secret=secret, keep_bytes=cache is not None)
        self._session: Session | None = None
        self._wake = asyncio.Event()
        self._begun = asyncio.Event()
        self._wait = wait
        self._kept = False
        """Whether the cache was written since the start."""
        self._answered = False
        """Whether the server has sent rules since the start."""
        self._refreshes: list[asyncio.Future[None]] = []
        self._build_pauses = BuildPauses()

    def read(self) -> RuleSet:
        """The rules of the cache; none where there are none."""
        found = False
        if self._cache is not None:
            try:
                resources = read_cache(self._cache, self._options.max_message_bytes)
            except SourceError as error:
                self._reports.cache_failed(f"EXTAUTH_CONFIG_CACHE={self._cache}: {error}")
            else:
                if resources is not None:
                    found = True
                    self._reader.read(resources)
                    self._reports.cache_read(len(self._reader.rules.domains))
                    for problem in self._reader.rules.problems:
                        self._reports.cache_failed(f"EXTAUTH_CONFIG_CACHE={self._cache}: {problem}")
        if found or not self._wait:
            self._begun.set()
        return replace(self._reader.rules, problems=())  # another version may have written it

    async def begun(self) -> None:
        """Return once there are rules to begin with: those of the cache, or of a response, though that may have none.

        A response of which no domain can be used is not enough.
        """
        await self._begun.wait()

    async def updates(self) -> AsyncIterator[RuleSet | ConfigError]:
        """Yield the new rules each time the server sends others.

        A domain that has problems keeps the rules that it had before.
        """
        following = asyncio.create_task(self._follow())
        following.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if following.done():
                    following.result()  # raises what ended it
                waiting, self._refreshes = self._refreshes, []
                try:
                    session, built = await self._build()
                    if built is not None and (built.changed or not self._answered or waiting):
                        self._answered = True
                        yield self._reader.rules
                        if self._usable():
                            self._begun.set()
                    elif built is None and waiting and self._begun.is_set():
                        yield self._reader.rules
                    if session is not None and built is not None:
                        await self._answer(session, built)
                        await self._keep(built)
                finally:  # whoever took the rules has come back for the next, or will not come back
                    for refreshed in waiting:
                        if not refreshed.done():
                            refreshed.set_result(None)
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def refresh(self) -> None:
        """Have `updates` yield the rules there are, even if they have not changed; returns once they are in force."""
        refreshed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append(refreshed)
        self._wake.set()
        await refreshed

    # What comes

    async def _build(self) -> tuple[Session | None, Built | None]:
        """Build the newest response, if it has not been built."""
        session = self._session
        if session is None or session.newest is None:
            return session, None
        await asyncio.sleep(self._build_pauses.before_build())  # only the newest of what comes meanwhile is built
        message, session.newest = session.newest, None
        assert message is not None  # noqa: S101 - nobody else takes it
        try:
            return session, await asyncio.to_thread(self._built, message)
        except InvalidRequestError as error:
            session.fail(str(_no_response(error)))
            return session, None

    def _built(self, message: bytes) -> Built:
        with collector_off() if len(message) >= MANY_BYTES else nullcontext():
            response = decode_response(message)
            return self._reader.read(response.resources, response.version, response.nonce)

    async def _answer(self, session: Session, built: Built) -> None:
        """Accept or refuse what was built, unless something newer has come, or the stream has ended."""
        again = built.digest == session.answered and monotonic() - session.answered_at < QUICK_S
        session.repeats = session.repeats + 1 if again else 0
        if session.repeats >= 3:  # a server that answers every request would keep both busy
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(0.1 * 2 ** min(session.repeats - 3, 10), 5))
        if session.newest is not None or session is not self._session or session.failed.done():
            return
        refusal = None
        problems = self._reader.rules.problems
        if problems and built.digest not in session.refused:
            if len(session.refused) >= MAX_REFUSED:
                session.refused.clear()
            session.refused.add(built.digest)
            refusal = INVALID_ARGUMENT, "\n".join(map(str, problems))[:MAX_REFUSAL_CHARS]
        session.answered, session.answered_at = built.digest, monotonic()
        try:
            await session.stream.send(
                encode_request(self._node, version=built.version, nonce=built.nonce, refusal=refusal)
            )
        except SourceError as error:
            session.fail(str(error))

    async def _keep(self, built: Built) -> None:
        """Write the cache anew where other rules are in force than it holds."""
        if self._cache is None or (self._kept and not built.changed) or not self._usable():
            return
        self._kept = True
        try:
            await asyncio.to_thread(write_cache, self._cache, self._reader.in_force(), self._options.max_message_bytes)
        except SourceError as error:
            self._reports.cache_failed(f"EXTAUTH_CONFIG_CACHE={self._cache}: {error}")

    def _usable(self) -> bool:
        """Whether there are rules, though none at all, unless that is by mistakes alone."""
        rules = self._reader.rules
        return bool(rules.domains) or not rules.problems

    # The stream

    async def _follow(self) -> None:
        """Keep a stream open, for ever."""
        while True:
            began, before = monotonic(), self._session
            self._reports.away(await self._one_stream())
            await asyncio.sleep(self._pauses.after_stream(monotonic() - began, heard=self._session is not before))

    async def _one_stream(self) -> str:
        """Open a stream and read it until it ends; returns why it did, or could not be opened."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines in the log are no JSON, and say nothing more
        from extauth.config.sources.xds_stream import open_stream  # noqa: PLC0415 - 30 MB that files spare

        session: Session | None = None
        try:
            async with open_stream(self._server, self._options) as stream:
                session = Session(stream)
                await stream.send(encode_request(self._node))
                reading = asyncio.create_task(self._read(session))
                try:
                    await self._until_over(session, reading)
                finally:
                    reading.cancel()
                    with suppress(asyncio.CancelledError, SourceError):
                        await reading
        except SourceError as error:
            reason = str(error)
            if session is not None:
                session.fail(reason)
            return reason
        raise AssertionError  # what is read ends with an error only

    async def _until_over(self, session: Session, reading: "asyncio.Task[NoReturn]") -> None:
        """Raise SourceError once the stream has ended, or has failed."""
        over: set[asyncio.Future[Any]] = {reading, session.failed}
        done, _ = await asyncio.wait(over, timeout=WAITING_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._reports.connected(waiting=not self._begun.is_set())
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        if session.failed.done():
            raise SourceError(session.failed.result())
        reading.result()

    async def _read(self, session: Session) -> NoReturn:
        while True:
            message = await session.stream.receive()
            try:
                type_url = await asyncio.to_thread(type_of, message) if len(message) > LARGE_BYTES else type_of(message)
            except InvalidRequestError as error:
                raise _no_response(error) from None
            if type_url not in {TYPE, ""}:
                self._reports.passed_over(type_url)
                await asyncio.sleep(READ_PAUSE_S)
                continue
            session.newest = message
            if self._session is not session:
                self._session = session
                self._reports.connected(waiting=False)
            self._wake.set()
            await asyncio.sleep(READ_PAUSE_S)


def _no_response(error: InvalidRequestError) -> SourceError:
    return SourceError(f"the server sent what is no response: {error}")
