"""What each query of the dashboards must show of known traffic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.observability.traffic import Caller, Event

REPLICAS = 2

# Dashboard, panel, legend.
Key = tuple[str, str, str]
Name = Callable[[Event], str | None]


@dataclass(frozen=True, slots=True)
class Counted:
    """A panel that counts the `chosen` calls by name: a second, as a share of those `among`, or all of them."""

    name: Name
    chosen: Callable[[Event], bool] = lambda _: True
    share: bool = False
    among: Callable[[Event], bool] = lambda _: True
    whole: bool = False

    def expected(self, events: Sequence[Event], seconds: float = 1) -> dict[str, float]:
        """By name; what was never chosen counts 0."""
        named = [(name, event) for event in events if (name := self.name(event)) is not None]
        counted = {name: 0 for name, _ in named}
        all_among = dict(counted)
        for name, event in named:
            counted[name] += self.chosen(event)
            all_among[name] += self.among(event)
        return {name: count / (max(all_among[name], 1) if self.share else seconds) for name, count in counted.items()}


def rule_of(caller: Caller) -> str | None:
    """The rule's name, of which the value is masked but for its beginning."""
    return None if caller.key is None else f"api · api_key_{caller.key[:2]}"


def rule(event: Event) -> str | None:
    return rule_of(event.caller)


def path_and_tier(event: Event) -> str:
    return f"{event.caller.path} · {event.caller.tier}"


def tier(event: Event) -> str:
    return event.caller.tier


def path(event: Event) -> str:
    return event.caller.path


def all_in_one(_event: Event) -> str:
    return ""


def named(name: str) -> Name:
    return lambda _event: name


def shadowed_rule(event: Event) -> str | None:
    return None if event.caller.denied else rule(event)


def denied(event: Event) -> bool:
    return event.denied


def admitted(event: Event) -> bool:
    return not event.denied


def over(event: Event) -> bool:
    return event.over


LIMITING, INTERNALS = "Rate Limiting Dashboard", "extauth internals"
RULE = "{{domain}} · {{rule}}"
COUNTED: dict[Key, Counted] = {
    (LIMITING, "Allowed requests by path and tier", "{{path}} · {{tier}}"): Counted(path_and_tier, admitted),
    (LIMITING, "Denied requests by path and tier", "{{path}} · {{tier}}"): Counted(path_and_tier, denied),
    (LIMITING, "Requests", ""): Counted(all_in_one),
    (LIMITING, "Allowed in this time", ""): Counted(all_in_one, admitted, whole=True),
    (LIMITING, "Denied in this time", ""): Counted(all_in_one, denied, whole=True),
    (LIMITING, "Denied", ""): Counted(all_in_one, denied, share=True),
    (LIMITING, "Near a limit", ""): Counted(all_in_one, lambda event: event.near),
    (LIMITING, "Without a limit", ""): Counted(all_in_one, lambda event: rule(event) is None),
    (LIMITING, "Requests by tier", "{{tier}}"): Counted(tier),
    (LIMITING, "Denied share by tier", "{{tier}}"): Counted(tier, denied, share=True),
    (LIMITING, "Near limit by tier", "{{tier}}"): Counted(
        tier, lambda event: event.near and event.caller.denied, share=True, among=admitted
    ),
    (LIMITING, "API responses by code", "{{envoy_response_code}}"): Counted(named("200"), admitted),
    (LIMITING, "Requests by path", "{{path}}"): Counted(path),
    (LIMITING, "Denied share by path", "{{path}}"): Counted(path, denied, share=True),
    (LIMITING, "Most denied rules", RULE): Counted(rule, over, whole=True),
    (LIMITING, "Over limit by rule", RULE): Counted(rule, over),
    (LIMITING, "Calls by rule", RULE): Counted(rule),
    (LIMITING, "Share over limit by rule", RULE): Counted(rule, over, share=True),
    (LIMITING, "Near limit by rule", RULE): Counted(rule, lambda event: event.near),
    (LIMITING, "Shadow mode by rule", RULE): Counted(shadowed_rule, over),
    (LIMITING, "Calls that no rule matched", "{{domain}}"): Counted(named("api"), lambda event: rule(event) is None),
    (LIMITING, "Envoy's view of the limiter", "ok"): Counted(named("ok"), admitted),
    (LIMITING, "Envoy's view of the limiter", "over_limit"): Counted(named("over_limit"), denied),
    (INTERNALS, "Batches", "batches"): Counted(named("batches")),
    (INTERNALS, "Envoy's calls to extauth", "calls"): Counted(named("calls")),
}
ZERO = {
    (LIMITING, "Without a store", ""),
    (LIMITING, "Uncounted", ""),
    (LIMITING, "Refused without a count", ""),
    (LIMITING, "Decided without Redis", "{{outcome}}"),
    (LIMITING, "Envoy's view of the limiter", "error"),
    (LIMITING, "Envoy's view of the limiter", "failure_mode_allowed"),
    (LIMITING, "Shed calls", "{{reason}}"),
    (INTERNALS, "Breakers not closed", ""),
    (INTERNALS, "Breaker", "{{instance}}"),
    (INTERNALS, "Redis errors", "{{kind}}"),
    (INTERNALS, "Guard trips", "{{guard}}"),
    (INTERNALS, "Envoy's calls to extauth", "no answer in time"),
    (INTERNALS, "Envoy's calls to extauth", "tried again"),
    (INTERNALS, "Envoy's calls to extauth", "no connection"),
    (INTERNALS, "Envoy's calls to extauth", "no room"),
    (INTERNALS, "Replicas that Envoy asks", "left out"),
    (INTERNALS, "Rule reloads", "{{outcome}}"),
    (INTERNALS, "Cut off from Redis", "{{instance}}"),
}
# From, to; and how many series there are.
BETWEEN: dict[Key, tuple[float, float, int]] = {
    (LIMITING, "Replicas up", ""): (2, 2, 1),
    (LIMITING, "p99 latency", ""): (0.0001, 0.2, 1),
    (LIMITING, "Rule sets in force", ""): (1, 1, 1),
    (INTERNALS, "p99 latency", ""): (0.0001, 0.2, 1),
    (INTERNALS, "p99 of Redis", ""): (0.0001, 0.1, 1),
    (INTERNALS, "Busiest core", ""): (0.001, 1, 1),
    (INTERNALS, "Decision latency", "p50"): (0.00005, 0.1, 1),
    (INTERNALS, "Decision latency", "p99"): (0.0001, 0.2, 1),
    (INTERNALS, "Decision latency", "p99 of Redis"): (0.0001, 0.1, 1),
    (INTERNALS, "p99 latency by replica", "{{instance}}"): (0.0001, 0.2, REPLICAS),
    (INTERNALS, "Envoy's wait for extauth", "p50"): (0.05, 100, 1),
    (INTERNALS, "Envoy's wait for extauth", "p99"): (0.05, 250, 1),
    (INTERNALS, "Redis latency", "p50"): (0.00005, 0.1, 1),
    (INTERNALS, "Redis latency", "p90"): (0.00005, 0.1, 1),
    (INTERNALS, "Redis latency", "p99"): (0.0001, 0.1, 1),
    (INTERNALS, "Calls a batch", "mean"): (1, 1, 1),
    (INTERNALS, "Calls a batch", "p50"): (0, 1, 1),
    (INTERNALS, "Calls a batch", "p99"): (0, 1, 1),
    (INTERNALS, "Found in memory", "plans"): (0.9, 1, 1),
    (INTERNALS, "Found in memory", "denials"): (0, 0.3, 1),
    (INTERNALS, "Connections, of their bound", "{{instance}}"): (1 / 1024, 0.02, REPLICAS),
    (INTERNALS, "Open files, of their bound", "{{instance}} {{worker}}"): (0.00001, 0.2, REPLICAS),
    (INTERNALS, "Replicas that Envoy asks", "known"): (2, 2, 1),
    (INTERNALS, "Replicas that Envoy asks", "healthy"): (2, 2, 1),
    (INTERNALS, "CPU of the replicas", "{{instance}} {{worker}}"): (0.001, 1, REPLICAS),
    (INTERNALS, "Memory of the replicas", "{{instance}} {{worker}}"): (2e7, 1e9, REPLICAS),
    (INTERNALS, "Rules", "{{instance}}"): (4, 4, REPLICAS),
    (INTERNALS, "Replicas by heartbeat", "{{instance}}"): (REPLICAS, REPLICAS, REPLICAS),
    (INTERNALS, "Local share", "{{instance}}"): (1, 1, REPLICAS),
    (INTERNALS, "Age of the rules", "{{instance}}"): (1, 600, REPLICAS),
}
# Whether Redis or the denial cache decides depends on how fast the calls come: these are held against each other.
DECIDED = (INTERNALS, "Who decided", "{{source}}")
ASKED = (INTERNALS, "Batches", "asked Redis")
