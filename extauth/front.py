"""The admin port of a service and what it shows, whatever decides its calls."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from extauth.admin.rules_json import view_rules
from extauth.admin.server import AdminServer, Readiness
from extauth.compat.debug import Stats, debug_routes
from extauth.errors import ConfigError
from extauth.limiter.counters import Counters
from extauth.overview.feed import Overview, Sources
from extauth.overview.page import live_page
from extauth.parts import has_rules_enough
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.top import TopOfAll

IN_MEMORY: Final = "in this process: it must be the only replica, and its counts end with it"


class Front:
    """The admin server and the live page.

    `counters` are those that the page's explain box looks into, `top` gives the callers of all replicas. `gather`, if
    given, is awaited before metrics are shown. `stats`, if given, are shown at `/stats`.
    """

    def __init__(
        self,
        sources: Sources,
        counters: Counters,
        *,
        top: Callable[[], Awaitable[TopOfAll]],
        gather: Callable[[], Awaitable[None]] | None = None,
        stats: Stats | None = None,
    ) -> None:
        settings = sources.settings
        # In compatible mode, others than this host see no more than there, unless the page is asked for.
        people = settings.page or not settings.compatible
        self._sources = sources
        self._top = top
        self.overview = Overview(sources)
        self.admin = AdminServer(
            settings.admin_listen,
            metrics=sources.metrics.scrape,
            readiness=self.readiness,
            rules=self.view,
            top=self.top if people else None,
            live=live_page(self.overview, counters) if settings.page else None,
            more=debug_routes(sources.planner, stats, people=people) if settings.compatible else {},
            hosts=settings.admin_hosts,
            gather=gather,
        )

    def readiness(self) -> Readiness:
        """Ready from when the gRPC port is open until draining, with rules if they are demanded.

        The state of the store is a detail: without it calls are answered too, by the failure policy.
        """
        sources, status = self._sources, self._status()
        detail = {
            "status": status,
            "rules": sources.planner.matcher.size,
            "store": str(sources.store),
            "breaker": str(sources.breaker.state),
            **sources.replicas.detail(),
        }
        if sources.settings.counts_in_memory:
            detail["counters"] = IN_MEMORY
        return Readiness(status == "ready", detail)

    def healthy(self) -> bool:
        """Whether it is ready, without the detail."""
        return self._status() == "ready"

    def _status(self) -> str:
        sources = self._sources
        status = sources.status()
        enough = has_rules_enough(sources.settings, sources.planner.matcher.rules)
        return "without_rules" if status == "ready" and not enough else status

    def view(self) -> Iterator[str]:
        """The rules in force, masked, as JSON in pieces."""
        matcher = self._sources.planner.matcher
        return view_rules(matcher.rules, matcher.masking)

    async def top(self) -> Iterator[str]:
        """Who is denied most, and who calls most, as JSON in pieces."""
        return (await self._top()).json()

    def reload_failed(self, error: ConfigError) -> None:
        """Note that the config could not be read, so that the rules in force stay."""
        self._sources.metrics.reloaded(ok=False)
        self.overview.reload_failed(error)
        events.reload_failed(error)


def serving_facts(settings: Settings, sources: Sources) -> dict[str, object]:
    """What the log line `serving` says."""
    matcher = sources.planner.matcher
    return {
        "grpc": settings.grpc_listen,
        "admin": settings.admin_listen,
        **({"http": settings.http_listen} if settings.http_listen else {}),
        **({"metrics": settings.metrics_listen} if settings.metrics_listen else {}),
        "engine": settings.engine,
        "tls": "off" if settings.grpc_tls_cert is None else "on" if settings.grpc_tls_client_ca is None else "mutual",
        "redis": settings.shown_redis_url(),
        **({"counters": IN_MEMORY} if settings.counts_in_memory else {}),
        "on_store_failure": str(settings.on_store_failure),
        "config": str(settings.config),
        "domains": events.some_names(matcher.rules.domains),
        "rules": matcher.size,
    }
