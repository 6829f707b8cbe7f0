"""The names of envoyproxy/ratelimit's metrics, as statsd and as Prometheus have them."""

import re
from typing import Final

from extauth.compat.hits import Stat

RATE_LIMIT: Final = "ratelimit.service.rate_limit"
REQUESTS: Final = "ratelimit_server.ShouldRateLimit.total_requests"
RESPONSE_TIME: Final = "ratelimit_server.ShouldRateLimit.response_time"
ERRORS: Final = "ratelimit.service.call.should_rate_limit"
CONFIG_LOAD: Final = "ratelimit.service.config_load"

_IPV4: Final = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}")
_OURS: Final = re.compile(r" \((?:request|[^()]*:\d+)\)(?::\d+)?$")  # by which rules.rule_names tells equal names apart
_OVERRIDE: Final = "override:"


def rule_name(domain: str, rule: str) -> str:
    """`DOMAIN.KEY_VALUE.KEY` of a rule by its name here, with `:`, `|` and the dots of IPv4 addresses as `_`."""
    name = f"{domain}.{_OURS.sub('', rule.removeprefix(_OVERRIDE))}".replace(":", "_").replace("|", "_")
    return _IPV4.sub(lambda address: address[0].replace(".", "_"), name)


def statsd_name(domain: str, rule: str, stat: str) -> str:
    """The name of a rule's series in statsd."""
    return f"{RATE_LIMIT}.{rule_name(domain, rule)}.{stat}"


def labels(domain: str, rule: str) -> str:
    """The labels of a rule's series in Prometheus: rules that differ below their second level share them.

    A dot separates there, wherever it comes from.
    """
    parts = zip(("domain", "key1", "key2"), rule_name(domain, rule).split("."), strict=False)
    return ",".join(f'{name}="{_escaped(part)}"' for name, part in parts)


SHOWN: Final = (Stat.TOTAL_HITS, Stat.WITHIN_LIMIT, Stat.OVER_LIMIT, Stat.NEAR_LIMIT, Stat.SHADOW_MODE)
"""What has a series in Prometheus."""


def _escaped(value: str) -> str:
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
