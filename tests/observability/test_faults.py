"""Faults of a real stack that refuses where it cannot count, and the alerts that they raise."""

import asyncio
import contextlib
import shutil
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.stack import Ports, Stack, free_ports
from tests.observability.tools import ROOT, call_of_no_domain, program, send, series, until_nothing
from tests.support.proxy import Proxy
from tests.support.stores import Store

pytestmark = pytest.mark.timeout(240)


def deny_on_failure(name: str, file: dict[str, Any]) -> None:
    """Let Envoy's filter refuse what it cannot ask about."""
    if name == "envoy.yaml":
        [chain] = file["static_resources"]["listeners"][0]["filter_chains"]
        [manager] = chain["filters"]
        manager["typed_config"]["http_filters"][0]["typed_config"]["failure_mode_deny"] = True


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Stack]:
    """A stack with rules of its own, in which neither extauth nor Envoy lets an uncounted request pass."""
    program("prometheus")
    shutil.copytree(ROOT / "envoy/descriptors", tmp_path / "descriptors")
    env = {"EXTAUTH_CONFIG": str(tmp_path / "descriptors"), "EXTAUTH_ON_STORE_FAILURE": "deny"}
    stack = Stack(ROOT, tmp_path / "run", ports=Ports.free(), env=env, edit_envoy=deny_on_failure)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


def test_each_fault_raises_its_alert(strict: Stack, tmp_path: Path) -> None:
    """Pending is enough: promtool's scenarios try for how long each must last."""
    raised: set[str] = set()

    def not_raised(wanted: set[str], *, unmatched: bool) -> set[str]:
        if unmatched:
            call_of_no_domain(strict)
        with contextlib.suppress(urllib.error.HTTPError):  # 503, once no extauth is left
            send(strict, "free-tier-key")
        raised.update(labels["alertname"] for labels, _ in series(strict.ports.prometheus, "ALERTS"))
        return wanted - raised

    (tmp_path / "descriptors/api.yaml").write_text("domain: [")
    until_nothing(lambda: not_raised({"ExtauthReloadFailed", "ExtauthUnlimited"}, unmatched=True))
    assert not {"EnvoyFailClosed", "ExtauthFailClosed", "ExtauthStoreAway", "ExtauthReplicaDown"} & raised

    strict.stop("redis")
    until_nothing(lambda: not_raised({"ExtauthFailClosed", "ExtauthStoreAway"}, unmatched=False))
    assert not {"EnvoyFailClosed", "ExtauthReplicaDown"} & raised

    for replica in ("extauth-1", "extauth-2"):
        strict.stop(replica)
    until_nothing(lambda: not_raised({"EnvoyFailClosed", "ExtauthReplicaDown"}, unmatched=False))
    assert not {"EnvoyFailOpen", "ExtauthFailOpen"} & raised


async def test_a_replica_cut_off_from_redis_is_told_from_a_redis_that_is_away(
    own_store: Store, short_path: Path
) -> None:
    program("prometheus")
    async with Proxy(free_ports(1)[0], own_store.socket) as proxy:
        stack = Stack(ROOT, short_path / "run", ports=Ports.free(), env={}, redis_urls=(proxy.url, own_store.url))
        lone = f"127.0.0.1:{stack.ports.extauth[0].admin}"

        def raised() -> set[tuple[str, str | None]]:
            alerts = series(stack.ports.prometheus, "ALERTS")
            return {(labels["alertname"], labels.get("instance")) for labels, _ in alerts}

        async def until_raised(alert: str, instance: str | None) -> None:
            await asyncio.to_thread(until_nothing, lambda: (alert, instance) not in raised())

        try:
            await asyncio.to_thread(stack.up)
            await asyncio.to_thread(until_nothing, lambda: 2 - len(series(stack.ports.prometheus, "extauth_store_up")))
            proxy.refuse()
            await until_raised("ExtauthBreakerOpen", lone)
            assert {each for each in raised() if "Store" in each[0] or "Breaker" in each[0]} == {
                ("ExtauthBreakerOpen", lone)
            }

            own_store.stop()
            await until_raised("ExtauthStoreAway", None)
            await asyncio.to_thread(
                until_nothing, lambda: [each for each, _ in raised() if each == "ExtauthBreakerOpen"]
            )
        finally:
            await asyncio.to_thread(stack.down)
