"""How the dashboards' queries choose their series."""


def extauth(name: str, *matchers: str) -> str:
    """A metric of the chosen replicas. Other services in the same Prometheus export http_requests_total, too."""
    every = ", ".join(('job=~"$job"', 'instance=~"$replica"', *matchers))
    return f"{name}{{{every}}}"


def requests_total(*matchers: str) -> str:
    """http_requests_total of the chosen replicas, tiers and paths."""
    return extauth("http_requests_total", 'tier=~"$tier"', 'path=~"$path"', *matchers)


def rule(name: str) -> str:
    """A metric of the chosen rules."""
    return extauth(name, 'domain=~"$domain"', 'rule=~"$rule"')


def envoy(name: str) -> str:
    """A metric of Envoy about the chosen clusters of the API."""
    return f'{name}{{envoy_cluster_name=~"$cluster"}}'


def envoy_limiter(name: str) -> str:
    """A metric of Envoy about the chosen clusters whose members are replicas of extauth."""
    return f'{name}{{envoy_cluster_name=~"$limiter"}}'


def _known(interval: str, seconds: str) -> str:
    """The replicas that were scraped an interval ago already, or have not run that long."""
    return f"{extauth('up')} offset {interval} or {extauth('process_start_time_seconds')} > time() - {seconds}"


def rate(selector: str) -> str:
    """The rate a second of a counter that begins with 0."""
    return f"rate({selector}[$__rate_interval])"


def rate_from_birth(selector: str, known: str = _known("$__rate_interval", "$__rate_interval_ms / 1000")) -> str:
    """The rate a second of a counter whose series come to be with their first event.

    Prometheus sees no increase in the first value of a series. So one that was not there an interval ago has counted
    all of it within the interval, if its process was `known` then: a Prometheus that is new itself must not take years
    of counting for one burst.
    """
    newborn = f"({selector} unless {selector} offset $__rate_interval and on (job, instance) ({known}))"
    return f"({newborn} * 1000 / $__rate_interval_ms or {rate(selector)})"


def envoy_rate_from_birth(name: str) -> str:
    """`rate_from_birth` of a metric of Envoy about the chosen clusters of the API."""
    return rate_from_birth(envoy(name), f"{envoy('envoy_cluster_membership_total')} offset $__rate_interval")


def counted(selector: str) -> str:
    """How much a counter of extauth counted in the dashboard's range of time: to the unit, unless it was reset there.

    What a new series has was counted in the range, on the terms of `rate_from_birth`.
    """
    before = f"{selector} offset $__range"
    newborn = f"{selector} unless {before} and on (job, instance) ({_known('$__range', '$__range_s')})"
    seen = f"{selector}[$__range]"
    return f"(({newborn} or {selector} - {before}) and resets({seen}) == 0 or increase({seen}))"


def or_none(expr: str) -> str:
    """0 before a counter's first event, when it has no series yet: a gap would look like a fault."""
    return f"({expr} or vector(0))"


def or_none_of(expr: str, label: str) -> str:
    """0 for the label's value `none` while the expression has no series."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def share(part: str, whole: str) -> str:
    """The part of a whole, 0 where there is nothing."""
    return f"{or_none(part)} / clamp_min({whole}, 1e-9)"


def quantile(q: float, buckets: str) -> str:
    """A quantile of a histogram's rates; `buckets` is a selector, or several joined by `by`."""
    return f"histogram_quantile({q:g}, {buckets})"
