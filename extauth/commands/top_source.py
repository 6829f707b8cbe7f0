"""Where `extauth top` reads the callers: from the admin port of a replica, or from Redis."""

import asyncio
import http.client
import re
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from extauth.counters.heartbeat import read_lines, replica_of
from extauth.counters.redis.opened import open_counters
from extauth.errors import CommandError
from extauth.settings import Settings
from extauth.telemetry.top import TopOfAll, sum_tops, unpack_top

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 16 << 20

_TOP_OF_ALL: Final = TypeAdapter(TopOfAll)


class Source(Protocol):
    """Where callers are read."""

    def read(self) -> TopOfAll:
        """The callers now; raises CommandError or StoreError."""
        ...


class AdminSource:
    """The page `/top` of the admin server at `url`: http://HOST:PORT, with a path if it is behind a proxy."""

    def __init__(self, url: str) -> None:
        match = re.fullmatch(r"(?:(https?)://)?((?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?)(/[\w./~%-]*)?", url)
        if match is None:  # what it is may have a password in it
            raise CommandError("--admin is no address; write http://HOST:PORT of a replica's admin port")
        self._tls = match[1] == "https"
        self._host = match[2]
        self._path = (match[3] or "").rstrip("/") + "/top"
        self._url = f"{match[1] or 'http'}://{self._host}{self._path}"

    def read(self) -> TopOfAll:
        """Get the page; raises CommandError."""
        try:
            kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
            connection = kind(self._host, timeout=TIMEOUT_S)
            try:
                connection.request("GET", self._path)
                response = connection.getresponse()
                status, body = response.status, response.read(MAX_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CommandError(f"{self._url} does not answer: {str(error) or type(error).__name__}") from error
        if status != http.HTTPStatus.OK:
            raise CommandError(f"{self._url} answers {status}: {_first_line(body)}")
        try:
            return _TOP_OF_ALL.validate_json(body)
        except ValidationError:
            raise CommandError(f"{self._url} is no page of extauth's admin server, or of another version") from None


class RedisSource:
    """The heartbeats of replicas in the Redis of the settings."""

    def __init__(self, settings: Settings) -> None:
        if settings.counts_in_memory:
            raise CommandError(
                "EXTAUTH_REDIS_URL=memory: keeps the callers inside the process of `extauth serve`; "
                "give its admin port, such as --admin http://127.0.0.1:6070"
            )
        self._settings = settings

    def read(self) -> TopOfAll:
        """Read the heartbeats and reports of all replicas; raises StoreError, or CommandError where there are none."""
        reports = asyncio.run(self._reports())
        read = [(name, top) for name, report in reports.items() if (top := unpack_top(report)) is not None]
        tops, replicas = [top for _, top in read], {replica_of(name) for name, _ in read}
        if not tops:
            raise CommandError(
                f"no replica reports its callers in Redis at {self._settings.shown_redis_url()} under the key "
                f"{self._settings.key_prefix}:replicas; check EXTAUTH_REDIS_URL and EXTAUTH_KEY_PREFIX, and that a "
                "replica of this version runs"
            )
        summed = sum_tops(tops)
        return TopOfAll(summed, summed, len(replicas), len({*map(replica_of, reports)} - replicas))

    async def _reports(self) -> dict[str, bytes]:
        settings = self._settings
        url, timeout_s = settings.redis_url.get_secret_value(), max(settings.redis_timeout, TIMEOUT_S)
        counters = open_counters(url, timeout_s, prefix=settings.key_prefix)
        try:
            names = list(read_lines(await counters.read_heartbeats()))
            return dict(zip(names, await counters.read_reports(names), strict=True))
        finally:
            await counters.aclose()


def _first_line(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace").strip().replace("\n", " ")
