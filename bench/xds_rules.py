"""Many rules in the shape that Envoy Gateway gives them: domain → route → match → address, with a limit each."""

from typing import Any

DOMAINS = 50
ROUTES = 64
LIMITS = 4
"""Of a route."""


def domain(number: int, requests: int) -> dict[str, Any]:
    """The config of a domain whose limits are all at least `requests` an hour."""
    return {"domain": f"default/eg-{number}/http", "descriptors": [_route(i, requests) for i in range(ROUTES)]}


def entries(number: int) -> tuple[tuple[str, str], ...]:
    """The entries of a descriptor that a route's first limit is for."""
    route = _name(number)
    return (route, route), ("rule-0-match-0", "rule-0-match-0"), ("masked_remote_address", f"10.{number}.0.0/24")


def _name(number: int) -> str:
    return f"httproute/default/shop-{number}/rule/0/match/0/www_example_com"


def _route(number: int, requests: int) -> dict[str, Any]:
    name = _name(number)
    return {"key": name, "value": name, "descriptors": [_rule(number, i, requests) for i in range(LIMITS)]}


def _rule(route: int, number: int, requests: int) -> dict[str, Any]:
    match = f"rule-{number}-match-0"
    limit = {"unit": "hour", "requests_per_unit": requests and requests + number}
    address = {"key": "masked_remote_address", "value": f"10.{route}.{number}.0/24", "rate_limit": limit}
    return {"key": match, "value": match, "descriptors": [address]}
