"""What an xDS source reports of its server."""

from typing import Protocol


class XdsReports(Protocol):
    """What hears of the stream."""

    def connected(self, *, waiting: bool) -> None:
        """A stream is open; with `waiting` there are no rules yet."""

    def away(self, reason: str) -> None:
        """There is no stream, or the one there was has ended."""

    def passed_over(self, type_url: str) -> None:
        """The server has sent resources of a type that it was not asked for."""

    def cache_read(self, domains: int) -> None:
        """The service starts with the rules of the cache."""

    def cache_failed(self, reason: str) -> None:
        """The cache could not be read or written."""
