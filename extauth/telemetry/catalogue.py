"""All metrics, described: what docs/metrics.md and the `# HELP` lines say."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What Prometheus calls a metric's type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """How the values of several workers become one. SAME: the parent's own is shown, which holds for all of them."""

    SUM = "sum"
    LARGEST = "largest"
    SMALLEST = "smallest"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: `meaning` is its help text in one sentence, `use` says what an operator does with it.

    A counter's `name` has no `_total`, which its series have. `across` holds for series of the same labels.
    """

    name: str
    kind: Kind
    meaning: str
    use: str
    labels: tuple[str, ...] = ()
    across: Across = Across.SUM

    @property
    def series(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

REQUESTS = Metric(
    "http_requests",
    _C,
    "Requests decided, by the route that Envoy named, by `allowed` or `denied`, and by tier.",
    "The first thing to look at: traffic and denials. The first 100 routes have series of their own, and the others "
    "share `other`; without a label descriptor or a tier the value is `none`.",
    ("path", "status", "tier"),
)
RULE_CALLS = Metric(
    "extauth_rule_calls",
    _C,
    "Calls that a rule's limits were asked about.",
    "Which rules are in use. Each rule of a domain has a name of its own, in which secret values are masked; the first "
    "1,000 names that hold values of requests have series, and the others share `other`.",
    ("domain", "rule"),
)
RULE_OVER_LIMIT = Metric(
    "extauth_rule_over_limit",
    _C,
    "Calls that a rule's limits had no room for, denied or not.",
    "Divide it by `extauth_rule_calls_total` to see which rule limits callers, and how much. Shadowed rules count too: "
    "this is what they would deny.",
    ("domain", "rule"),
)
RULE_NEAR_LIMIT = Metric(
    "extauth_rule_near_limit",
    _C,
    "Calls that fitted a rule's limits and left a counter above EXTAUTH_NEAR_LIMIT_RATIO of its limit.",
    "Callers who are about to be limited. A rule that is often near its limit and seldom over it is well chosen, or is "
    "soon too small. A call is never both near a rule's limit and over it.",
    ("domain", "rule"),
)
RULE_SHADOW_DENIED = Metric(
    "extauth_rule_shadow_denied",
    _C,
    "Calls that a rule in shadow mode would have denied.",
    "Watch it before `shadow_mode` is taken out: these calls will be denied. With EXTAUTH_SHADOW_MODE it counts for "
    "every rule. Rules that are not in shadow mode have no series.",
    ("domain", "rule"),
)
TIER_NEAR_LIMIT = Metric(
    "extauth_tier_near_limit",
    _C,
    "Admitted calls of a tier that left a counter above EXTAUTH_NEAR_LIMIT_RATIO of its limit.",
    "Divide it by the tier's allowed requests: where most of them are near a limit, its callers will be denied soon. "
    "Limits in shadow mode do not count.",
    ("tier",),
)
UNMATCHED_CALLS = Metric(
    "extauth_unmatched_calls",
    _C,
    "Calls to which no rule of their domain applied.",
    "It should not grow. Compare the domain of Envoy's filter with that of the file (`other` stands for all domains "
    "that no file defines), and see what `extauth explain` says of the descriptors.",
    ("domain",),
)
DECISIONS = Metric(
    "extauth_decisions",
    _C,
    "Calls decided, by who decided.",
    "`store`: Redis counted. `denial_cache`: a denial that is certain was repeated. `no_counter`: nothing is counted "
    "for the call. `local`: this replica counted alone. `failure_policy`: EXTAUTH_ON_STORE_FAILURE decided. The last "
    "two grow only while Redis is away or late.",
    ("source",),
)
DECISION_DURATION = Metric(
    "extauth_decision_duration_seconds",
    _H,
    "Time from a call's arrival to its answer.",
    "What extauth adds to each request. Compare it with `extauth_store_duration_seconds`, which is Redis' part.",
)
STORE_DURATION = Metric(
    "extauth_store_duration_seconds",
    _H,
    "Time from asking the store for a batch to its result or its failure.",
    "The latency of Redis as extauth sees it, once for each batch that asked it. If it is long, look at the network "
    "and at Redis; if only decisions are slow, look at this process's CPU.",
)
BATCH_SIZE = Metric(
    "extauth_batch_size",
    _H,
    "Calls in a batch.",
    "Batches grow with load, and the cost of a call falls. If most batches have 1000 calls, the largest number, calls "
    "wait: add a replica.",
)
STORE_ERRORS = Metric(
    "extauth_store_errors",
    _C,
    "Batches and probes that the store failed, by kind.",
    "`timeout`: Redis did not answer within EXTAUTH_REDIS_TIMEOUT. `connection`: it cannot be reached. `reply`: it "
    "answered with an error. `internal`: a fault of extauth, which its log describes.",
    ("kind",),
)
STORE_FAILURE_DECISIONS = Metric(
    "extauth_store_failure_decisions",
    _C,
    "Calls answered without the store, by what they got.",
    "While it grows, limits do not hold as written: `local` counts on this replica alone, `allow` lets everything "
    "through, `deny` and `error` refuse. /readyz names the reason.",
    ("outcome",),
)
STORE_UP = Metric(
    "extauth_store_up",
    _G,
    "1 while the store is asked, else 0.",
    "0 from the first failure until a check, every second, counts again. Alert on it; /readyz says why.",
    across=Across.SMALLEST,
)
STORE_BREAKER = Metric(
    "extauth_store_breaker",
    _G,
    "1 for the state that it is in, else 0.",
    "The circuit breaker before Redis. `open`: Redis is not asked; `half-open`: one call tries it. Of a "
    "cluster's masters it is that of the worst. A state that changes often points to a Redis that is overloaded.",
    ("state",),
    across=Across.LARGEST,
)
REPLICAS = Metric(
    "extauth_replicas",
    _G,
    "Replicas that share the store, as of this one's last heartbeat.",
    "Fewer than run: some do not reach the same Redis, or have another `EXTAUTH_KEY_PREFIX`, and so count apart.",
    across=Across.LARGEST,
)
CUT_OFF = Metric(
    "extauth_cut_off",
    _G,
    "1 while the store answers another replica and not this one, else 0.",
    "Alert on it: this replica's way to Redis is broken. Its gRPC health is NOT_SERVING, and Envoy asks the others.",
    across=Across.LARGEST,
)
LOCAL_SHARE = Metric(
    "extauth_local_share",
    _G,
    "The part of each limit that this replica admits by itself while the store is away.",
    "Times the replicas it is what may be admitted beyond a limit. `EXTAUTH_LOCAL_SHARE` sets it; `auto` is reckoned "
    "anew each time that the breaker opens.",
    across=Across.SUM,
)
DENIAL_CACHE_HITS = Metric(
    "extauth_denial_cache_hits",
    _C,
    "Calls denied without asking the store.",
    "Work that Redis was spared. Many hits mean that a few callers go on asking although they are denied.",
)
DENIAL_CACHE_MISSES = Metric(
    "extauth_denial_cache_misses",
    _C,
    "Calls about which no denial was known, so that the store was asked.",
    "The share of hits is hits / (hits + misses). With EXTAUTH_DENIAL_CACHE=0 all calls are misses.",
)
PLAN_MEMO_HITS = Metric(
    "extauth_plan_memo_hits",
    _C,
    "Calls whose message was known, so that nothing had to be matched.",
    "The share of hits is hits / (hits + misses), and near 1 where callers come back.",
)
PLAN_MEMO_MISSES = Metric(
    "extauth_plan_memo_misses",
    _C,
    "Calls whose message was not known, and was decoded and matched with the rules.",
    "A call costs several times as much as with a hit. Many misses mean many different callers, or descriptors that "
    "hold something new in each request, such as a request id.",
)
SHED_CALLS = Metric(
    "extauth_shed_calls",
    _C,
    "Calls that got the failure policy because they were not decided in time, by reason.",
    "`waiting_calls`: more than EXTAUTH_MAX_WAITING wait. `streams`: too many are open on a connection. `timeout`: "
    "Envoy's time for the call had passed. If it grows, the replica is overloaded or Redis is slow.",
    ("reason",),
)
GUARD_TRIPS = Metric(
    "extauth_guard_trips",
    _C,
    "What clients of the gRPC listener were refused for, by guard.",
    "Each guard is a bound for one connection. Envoy trips none of them: look for another client, or for a bound that "
    "was set too low.",
    ("guard",),
)
CONNECTIONS = Metric(
    "extauth_connections",
    _G,
    "Open connections of the gRPC port.",
    "One or a few for each Envoy; of the `h2` engine only.",
    across=Across.SUM,
)
MAX_CONNECTIONS = Metric(
    "extauth_max_connections",
    _G,
    "How many connections of the gRPC port may be open.",
    "Alert before `extauth_connections` comes near it: at the bound, another Envoy may find no place.",
    across=Across.SUM,
)
CONFIG_RELOADS = Metric(
    "extauth_config_reloads",
    _C,
    "Config reloads, by outcome.",
    "`error`: the files had problems, which the log names, and what could not be read was not put in force.",
    ("outcome",),
    across=Across.SAME,
)
CONFIG_RELOAD_SUCCESSFUL = Metric(
    "extauth_config_last_reload_successful",
    _G,
    "1 if what the files said when they were last read is in force, else 0.",
    "0: the last edit is broken, and the rules from before it are in force. `extauth validate PATH` names the problem.",
    across=Across.SAME,
)
CONFIG_RELOAD_TIME = Metric(
    "extauth_config_last_reload_success_timestamp_seconds",
    _G,
    "When all that the files say was last put in force.",
    "Compare it with the time of a deployment.",
    across=Across.SAME,
)
CONFIG_INFO = Metric(
    "extauth_config_info",
    _G,
    "1, for the hash of the rules in force: replicas that have the same rules have the same.",
    "Two hashes for longer than a rollout takes: replicas limit differently.",
    ("hash",),
    across=Across.SAME,
)
RULES = Metric(
    "extauth_rules",
    _G,
    "Rules in force.",
    "A sudden change shows an edit that did more than it should.",
    across=Across.SAME,
)
BUILD_INFO = Metric(
    "extauth_build_info",
    _G,
    "The version that runs.",
    "Which replicas run which version.",
    ("version",),
    across=Across.SAME,
)

DESCRIBED: Final = {each.name: each for each in list(globals().values()) if isinstance(each, Metric)}
"""All of them, by their names."""
