"""Metrics, and what the admin pages show of the rules."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauth.admin.view import view_rules
from extauth.counters.keys import KeyNamer
from extauth.errors import StoreError
from extauth.limiter.counters import Ask, Level, Mode, Taken
from extauth.limiter.limiter import Decided, OnStoreFailure, Settled
from extauth.limiter.plan import Plan, Shape
from extauth.limiter.verdict import Labels
from extauth.rules.load import load_rules
from extauth.rules.model import Limit, Unit
from extauth.telemetry.metrics import Metrics


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """A metric's samples by their label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


def settled(labels: Labels, allowed: int, denied: int) -> Settled:
    plan = Plan((b"k",), Shape((Ask(Limit(9, Unit.DAY), 1),), ((0,),), None, labels, ("d.k",)))
    return Settled(plan, allowed + denied, Taken(allowed, (Level(9 - allowed, 0),)))


def test_requests_are_counted_by_status_path_and_tier() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW)
    metrics.batch_decided(
        Decided([settled(Labels("/", "free"), 3, 2), settled(Labels(), 1, 0)]), [(0.002, 5), (0.2, 1)]
    )
    metrics.batch_decided(Decided([settled(Labels("/", "free"), 1, 0)]), [])
    assert samples(metrics, "http_requests_total") == {
        ("/", "allowed", "free"): 4,
        ("/", "denied", "free"): 2,
        ("none", "allowed", "none"): 1,
        ("none", "denied", "none"): 0,
    }
    assert samples(metrics, "extauth_decision_duration_seconds_count") == {(): 6}
    buckets = samples(metrics, "extauth_decision_duration_seconds_bucket")
    assert (buckets["0.001",], buckets["0.0025",], buckets["0.25",], buckets["+Inf",]) == (0, 5, 6, 6)
    assert samples(metrics, "extauth_decision_duration_seconds_sum")[()] == pytest.approx(0.21)


def test_calls_are_counted_by_rule() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW)
    enforced, shadowed = Ask(Limit(2, Unit.DAY), 1), Ask(Limit(1, Unit.DAY), 1, Mode.SHADOW)
    shape = Shape((enforced, shadowed, enforced), ((0, 1), (2,)), None, Labels(), ("d.a", "d.a", "d.b"))
    levels = (Level(0, 0), Level(0, 0), Level(0, 0))
    metrics.batch_decided(Decided([Settled(Plan((b"1", b"2", b"3"), shape), 5, Taken(2, levels))]), [])
    metrics.batch_decided(Decided([settled(Labels(), 1, 3)]), [])
    assert samples(metrics, "extauth_rule_calls_total") == {("d.a",): 5, ("d.b",): 5, ("d.k",): 4}
    assert samples(metrics, "extauth_rule_over_limit_total") == {("d.a",): 4, ("d.b",): 3, ("d.k",): 3}


def test_paths_and_tiers_are_capped() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW)
    for i in range(150):
        metrics.batch_decided(Decided([settled(Labels(f"/{i}", f"t{i}"), 1, 0)]), [])
    counted = samples(metrics, "http_requests_total")
    assert len(counted) == 202
    assert counted["other", "allowed", "other"] == 50


def test_store_failures_are_counted_by_kind_and_by_what_calls_got() -> None:
    metrics = Metrics(OnStoreFailure.DENY)
    failed = Settled(settled(Labels(), 0, 0).plan, 5, None)
    metrics.batch_decided(Decided([failed], StoreError("timeout", "")), [])
    metrics.store_changed(up=False)
    assert samples(metrics, "extauth_store_errors_total") == {
        ("timeout",): 1,
        ("connection",): 0,
        ("reply",): 0,
        ("internal",): 0,
    }
    assert samples(metrics, "extauth_store_failure_decisions_total") == {("allow",): 0, ("deny",): 5, ("error",): 0}
    assert samples(metrics, "extauth_store_up") == {(): 0}
    assert samples(metrics, "http_requests_total") == {("none", "allowed", "none"): 0, ("none", "denied", "none"): 5}


def test_guards_are_counted_from_0() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW, guards=["streams", "resets"])
    metrics.guard_tripped("resets")
    assert samples(metrics, "extauth_guard_trips_total") == {("streams",): 0, ("resets",): 1}


def test_denials_from_memory_are_counted() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW)
    metrics.denied_from_memory(3)
    assert samples(metrics, "extauth_denial_cache_hits_total") == {(): 3}


def test_reloads_and_rules() -> None:
    metrics = Metrics(OnStoreFailure.ALLOW)
    metrics.rules_loaded(7)
    metrics.reloaded(ok=True)
    metrics.reloaded(ok=False)
    assert samples(metrics, "extauth_rules") == {(): 7}
    assert samples(metrics, "extauth_config_reloads_total") == {("ok",): 1, ("error",): 1}


def test_the_view_of_the_rules_masks_values() -> None:
    text = """
domain: d
tiers: {free: {unit: day, requests_per_unit: 1}}
descriptors:
  - {key: k, value: secret-api-key, tier: free, descriptors: [{key: short, value: seven77}]}
"""
    namer = KeyNamer("x", "s")
    limit = {"unit": "day", "requests_per_unit": 1, "algorithm": "fixed_window", "count_denied": True, "name": "free"}
    assert json.loads("".join(view_rules(load_rules({"f.yaml": text}), namer.fingerprint))) == {
        "domains": [
            {
                "domain": "d",
                "files": ["f.yaml"],
                "labels": [],
                "tiers": {"free": limit},
                "descriptors": [
                    {
                        "key": "k",
                        "value": "se***",
                        "fingerprint": namer.fingerprint("secret-api-key"),
                        "tier": "free",
                        "rate_limit": limit,
                        "descriptors": [
                            {"key": "short", "value": "***", "fingerprint": namer.fingerprint("seven77"), "line": 5}
                        ],
                        "line": 5,
                    }
                ],
            }
        ],
        "problems": [],
        "warnings": [],
    }
