"""Counters in Redis or Valkey: one script call a batch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extauth.errors import SettingsError, StoreError
from extauth.limiter.algorithms import burst, emission_interval
from extauth.limiter.counters import Counter, Group, Level, Taken
from extauth.rules.model import Algorithm

Argument = str | int


def connect(url: str) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; it connects when first used.

    One retry: a connection that died while idle, as when Redis restarts, costs no call. A reply that is lost after
    the script ran is counted twice then, which errs on the side of the limit.
    """
    try:
        client = Redis.from_url(url, retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)))
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # opens nothing, but takes all options
    except (TypeError, ValueError):
        # Nothing of the URL, nor of the error, is shown: both may hold the password.
        message = "EXTAUTH_REDIS_URL: what stands after the ? is no option of redis-py, or no value for it"
        raise SettingsError(message) from None
    return client


class RedisCounters:
    """`limiter.counters.Counters` in Redis.

    A call that takes longer than `timeout_s`, connecting included, is a StoreError. The clock is Redis's own; `clock`
    (→ microseconds since the epoch) replaces it where time must be controlled.
    """

    def __init__(self, client: Redis, timeout_s: float, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._clock = clock
        self._script = files("extauth.counters").joinpath("lua/take.lua").read_text(encoding="utf-8")
        self._sha = sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        """One run of take.lua; all groups see one instant."""
        keys = [counter.name for group in groups for counter in group.take.counters]
        arguments: list[Argument] = ["" if self._clock is None else self._clock()]
        for group in groups:
            arguments += (group.calls, len(group.take.counters))
            for counter in group.take.counters:
                arguments += _arguments(counter)
        async with self._store():
            try:
                reply = await self._client.evalsha(self._sha, len(keys), *keys, *arguments)
            except NoScriptError:  # flushed, or another server: EVAL also loads it
                reply = await self._client.eval(self._script, len(keys), *keys, *arguments)
        return _takens(reply, groups)

    async def ping(self) -> None:
        """Ask Redis to answer."""
        async with self._store():
            await self._client.ping()

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[None]:
        """Bound the time, and translate whatever the client raises."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreError("timeout", f"no answer from Redis within {self._timeout_s} s") from error
        except (RedisConnectionError, OSError) as error:
            raise StoreError("connection", f"no connection to Redis: {error}") from error
        except RedisError as error:
            raise StoreError("reply", f"Redis refused: {error}") from error


def _arguments(counter: Counter) -> tuple[Argument, ...]:
    limit = counter.limit
    denied = int(limit.count_denied)
    if limit.algorithm is Algorithm.GCRA:
        return ("g", denied, counter.cost, *emission_interval(limit), burst(limit))
    return ("f", denied, counter.cost, limit.period_us, limit.requests_per_unit, 0)


def _takens(reply: Sequence[int], groups: Sequence[Group]) -> list[Taken]:
    numbers: Iterator[int] = iter(reply)
    next(numbers)  # now_us
    return [
        Taken(next(numbers), tuple(Level(next(numbers), next(numbers)) for _ in group.take.counters))
        for group in groups
    ]
