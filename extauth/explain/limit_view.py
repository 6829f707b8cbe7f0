"""A limit as JSON's data."""

from typing import Any

from extauth.rules.model import Limit


def view_limit(limit: Limit) -> dict[str, Any]:
    """A limit as data for JSON, with the config's names."""
    view: dict[str, Any] = {"unlimited": True}
    if not limit.unlimited:
        view = {
            "unit": str(limit.unit),
            "requests_per_unit": limit.requests_per_unit,
            "algorithm": str(limit.algorithm),
            "count_denied": limit.count_denied,
        }
    if limit.unit_multiplier != 1:
        view["unit_multiplier"] = limit.unit_multiplier
    if limit.burst is not None:
        view["burst"] = limit.burst
    if limit.on_store_failure is not None:
        view["on_store_failure"] = str(limit.on_store_failure)
    if limit.name:
        view["name"] = limit.name
    if limit.replaces:
        view["replaces"] = list(limit.replaces)
    return view
