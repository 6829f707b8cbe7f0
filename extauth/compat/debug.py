"""What envoyproxy/ratelimit's debug port has besides ours: `/rlconfig`, `/stats`, and a list of the paths at `/`."""

from collections.abc import Callable, Iterator

from extauth.admin.routes import Answer, Audience, Route
from extauth.limiter.planner import Planner
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.model import Domain, Rule

Stats = Callable[[], Iterator[list[tuple[str, int]]]]
"""Counters by their names in statsd, in pieces."""

_PATHS = {
    "/healthz": "200 while the process runs",
    "/metrics": "what Prometheus scrapes",
    "/readyz": "200 while calls are taken, with the state of the store",
    "/rlconfig": "the limits in force, a line each",
    "/rules": "the rules in force, as JSON",
}


def debug_routes(planner: Planner, stats: Stats | None, *, people: bool) -> dict[str, Route]:
    """The routes, by the planner's rules; secret values are masked. With `people`, `/` is left to the page for them.

    They are for scripts too, which ask for them by the name of a Kubernetes Service, whatever that is.
    """

    def config() -> Iterator[bytes]:
        matcher = planner.matcher  # of now: a reload changes it
        return (line.encode("utf-8", "replace") for line in config_lines(matcher))

    routes = {"/rlconfig": Route(lambda _: Answer(config()), Audience.MACHINES)}
    paths = dict(_PATHS)
    if stats is not None:
        routes["/stats"] = Route(lambda _: Answer(_stat_lines(stats())), Audience.MACHINES)
        paths["/stats"] = "the counters, a line each"
    if not people:
        listed = "".join(f"{path}: {what}\n" for path, what in sorted(paths.items())).encode()
        routes["/"] = Route(lambda _: Answer(listed), Audience.MACHINES)
    return routes


def _stat_lines(pieces: Iterator[list[tuple[str, int]]]) -> Iterator[bytes]:
    for piece in pieces:
        yield "".join(f"{name}: {value}\n" for name, value in piece).encode("utf-8", "replace")


def config_lines(matcher: Matcher) -> Iterator[str]:
    """A line a limit: the domain, the keys and values down to it, and the limit."""
    for domain in matcher.rules.domains.values():
        yield from _lines(domain.rules, domain.name, domain, matcher.masking)


def _lines(rules: tuple[Rule, ...], before: str, domain: Domain, masking: Masking) -> Iterator[str]:
    for rule in rules:
        value = rule.value or ""
        shown = masking.show(value, secret=domain.secret.covers(rule.key, value)) if value else ""
        name = f"{before}.{rule.key}_{shown}" if shown else f"{before}.{rule.key}"
        for limit in rule.limits:
            unit = "UNKNOWN" if limit.unlimited else limit.unit.name
            requests = 0 if limit.unlimited else limit.requests_per_unit
            modes = f"shadow_mode: {str(rule.shadow_mode).lower()}, quota_mode: {str(rule.quota_mode).lower()}"
            yield f"{name}: unit={unit} requests_per_unit={requests}, {modes}\n"
        yield from _lines(rule.rules, name, domain, masking)
