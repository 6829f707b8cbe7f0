"""The plan of a command line's request, and the store that its counters are in."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from extauth.commands.options import GivenRequest, settings_for
from extauth.config.sources.files import read_rules
from extauth.errors import CommandError
from extauth.explain.preview import Planned, plan_request
from extauth.explain.request import read_descriptor
from extauth.limiter.build import build_planner
from extauth.settings import Settings

if TYPE_CHECKING:
    from extauth.counters.redis.opened import StoredCounters

TIMEOUT_S = 5.0  # people wait longer than calls may

_T = TypeVar("_T")


class Preview(NamedTuple):
    """A request's plan under a config, and the settings that name its store."""

    settings: Settings
    planned: Planned

    def in_store(self, work: "Callable[[StoredCounters], Coroutine[Any, Any, _T]]") -> _T:
        """Do the work on the store of EXTAUTH_REDIS_URL; raises SettingsError, StoreError or CommandError."""
        from extauth.counters.redis.opened import open_counters

        settings = self.settings
        if settings.counts_in_memory:
            raise CommandError(
                "EXTAUTH_REDIS_URL=memory: keeps the counters inside the process of `extauth serve`, where no other "
                "process can read or delete them; count in Redis to inspect them, or restart the service to reset them "
                "all"
            )

        async def run() -> _T:
            counters = open_counters(settings.redis_url.get_secret_value(), max(settings.redis_timeout, TIMEOUT_S))
            try:
                return await work(counters)
            finally:
                await counters.aclose()

        return asyncio.run(run())


def preview(request: GivenRequest) -> Preview:
    """Plan the request; raises SettingsError, ConfigError, CommandError or InvalidRequestError."""
    domain, arguments, config, merge = request
    descriptors = tuple(map(read_descriptor, arguments))
    settings = settings_for(config, merge=merge)
    rules = read_rules(settings.config_path(), merge=settings.merge_domains)
    planner = build_planner(rules, settings.limiter_options())
    return Preview(settings, plan_request(planner, domain, descriptors))
