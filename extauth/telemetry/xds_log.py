"""What operators are told of the xDS server that rules come from: few lines, however often it goes and comes."""

from collections.abc import Callable
from time import monotonic
from typing import Final

from extauth.telemetry.logs import logger

REPEAT_S: Final = 600.0
OTHER_REASON_S: Final = 10.0
MAX_TYPE_CHARS: Final = 200


class XdsLog:
    """Writes `xds_away`, once in ten minutes `xds_still_away`, and `xds_connected`, all with the `server`.

    So does it `xds_other_type`, at most once in ten minutes.
    """

    def __init__(self, server: str, clock: Callable[[], float] = monotonic) -> None:
        self._server = server
        self._clock = clock
        self._connected = False
        self._rules = "none yet"
        self._away_since: float | None = None
        self._logged_at = 0.0
        self._reason = ""
        self._passed_over_at: float | None = None

    def connected(self, *, waiting: bool) -> None:
        """A stream is open; with `waiting` the server has sent no rules yet."""
        if not waiting:
            self._rules = "those in force stay"
        if self._connected:
            return
        facts: dict[str, object] = {"server": self._server}
        if self._away_since is not None:
            facts["after_s"] = round(self._clock() - self._away_since, 1)
        if waiting:
            facts["waits_for"] = "its first rules: no call is taken before"
        self._connected, self._away_since = True, None
        logger().info("xds_connected", **facts)

    def away(self, reason: str) -> None:
        """There is no stream, or the one there was has ended."""
        now = self._clock()
        first = self._connected or self._away_since is None
        self._connected = False
        quiet_s = now - self._logged_at
        if not first and quiet_s < REPEAT_S and (reason == self._reason or quiet_s < OTHER_REASON_S):
            return
        facts: dict[str, object] = {"server": self._server, "reason": reason, "rules": self._rules}
        if first:
            self._away_since = now
        elif self._away_since is not None:
            facts["for_s"] = round(now - self._away_since)
        self._logged_at, self._reason = now, reason
        logger().warning("xds_away" if first else "xds_still_away", **facts)

    def passed_over(self, type_url: str) -> None:
        """The server has sent resources of a type that it was not asked for."""
        now = self._clock()
        if self._passed_over_at is None or now - self._passed_over_at >= REPEAT_S:
            self._passed_over_at = now
            logger().warning("xds_other_type", server=self._server, type_url=type_url[:MAX_TYPE_CHARS], effect="none")

    def cache_read(self, domains: int) -> None:
        """The service starts with the rules of the cache."""
        self._rules = "those in force stay"
        logger().info("config_cache_read", domains=domains, effect="calls are taken before the xDS server answers")

    def cache_failed(self, reason: str) -> None:
        """The cache could not be read or written."""
        logger().warning("config_cache_failed", reason=reason, effect="a start without the xDS server has no rules")
