"""Whether the store counts."""

from collections.abc import Awaitable, Callable

from extauth.errors import StoreError
from extauth.limiter.facts import BatchFact, ShedFact


class StoreHealth:
    """Down from the first batch that the store fails, up from the first probe that works.

    A batch that works does not make it up: one in which nothing is written works on a read-only replica as well.
    `changed` hears of each change: why it is down, or None where it is up.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]], changed: Callable[[StoreError | None], None]) -> None:
        self._probe = probe
        self._changed = changed
        self._up: bool | None = None
        self._reason = ""

    def __str__(self) -> str:
        if self._up is None:
            return "not checked yet"
        return "up" if self._up else f"down: {self._reason}"

    def batch_decided(self, fact: BatchFact) -> None:
        """Note the failure of a batch."""
        if fact.store_error is not None:
            self.failed(fact.store_error)

    def call_shed(self, fact: ShedFact) -> None:
        """A call that was not decided in time says nothing about the store."""

    async def check(self) -> None:
        """Probe the store."""
        try:
            await self._probe()
        except StoreError as error:
            self.failed(error)
        except Exception as error:  # noqa: BLE001 - a store that cannot be probed is not up
            self.failed(StoreError.unexpected(error))
        else:
            self._note(up=True, error=None)

    def failed(self, error: StoreError) -> None:
        """Note that the store failed a batch."""
        self._reason = str(error)  # of the error no more: it refers to all that led to it
        self._note(up=False, error=error)

    def _note(self, *, up: bool, error: StoreError | None) -> None:
        if self._up is not up:
            self._up = up
            self._changed(error)
