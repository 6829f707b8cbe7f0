"""The live page as the admin server takes it."""

from extauth.admin.explain import Explainer
from extauth.admin.live import LiveStreams
from extauth.admin.server import LivePage
from extauth.counters.breaker import BreakerState
from extauth.limiter.counters import Counters
from extauth.overview.feed import Overview


def live_page(overview: Overview, counters: Counters) -> LivePage:
    """The page of an overview, whose explain box looks into `counters` while the breaker is closed."""
    sources = overview.sources

    def away() -> str | None:
        return None if sources.breaker.state is BreakerState.CLOSED else str(sources.store)

    return LivePage(LiveStreams(overview), Explainer(sources.planner, counters, away))
