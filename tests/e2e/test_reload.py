"""Edits of the configuration while requests come in."""

from pathlib import Path

from tests.e2e.conftest import Launch, no_call_failed
from tests.e2e.edge import CONFIG, FREE, Edge

PROMOTED = CONFIG.replace("value: free-tier-key, tier: free", "value: free-tier-key, tier: premium")


async def loaded_by_both(edge: Edge, before: list[float], outcome: str) -> float:
    """Wait until each replica has seen the edit; returns the seconds that took."""

    async def seen() -> bool:
        now = await edge.metric("extauth_config_reloads_total", outcome=outcome)
        return all(count > count_before for count, count_before in zip(now, before, strict=True))

    return await edge.until(seen, f"both replicas count a reload with outcome {outcome}", within_s=5)


async def use_up_then_promote(edge: Edge, swap: object = None) -> None:
    """10 of 10 are used; the edit moves the key to 20, which leaves 10."""
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    before = await edge.metric("extauth_config_reloads_total", outcome="ok")

    if callable(swap):
        swap()
    else:
        edge.config.write_text(PROMOTED)

    await loaded_by_both(edge, before, "ok")
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    await no_call_failed(edge)


async def test_a_tier_change_is_live_and_keeps_what_is_used(launch: Launch) -> None:
    await use_up_then_promote(launch())


async def test_a_file_renamed_into_place_is_live(launch: Launch) -> None:
    edge = launch()

    def swap() -> None:
        beside = edge.config.with_suffix(".new")
        beside.write_text(PROMOTED)
        beside.replace(edge.config)

    await use_up_then_promote(edge, swap)


async def test_a_swapped_symlink_is_live(launch: Launch) -> None:
    def as_kubernetes_does(folder: Path, config: str) -> Path:
        """`api.yaml` → `..data/api.yaml`, `..data` → `..1`: an update makes `..2` and swaps `..data`."""
        version = folder / "..1"
        version.mkdir()
        (version / "api.yaml").write_text(config)
        (folder / "..data").symlink_to("..1")
        (folder / "api.yaml").symlink_to("..data/api.yaml")
        return folder / "api.yaml"

    edge = launch(lay_out=as_kubernetes_does)
    folder = edge.config.parent

    def swap() -> None:
        version = folder / "..2"
        version.mkdir()
        (version / "api.yaml").write_text(PROMOTED)
        (folder / "..data_tmp").symlink_to("..2")
        (folder / "..data_tmp").replace(folder / "..data")

    await use_up_then_promote(edge, swap)


async def test_a_broken_edit_is_reported_and_keeps_the_old_rules(launch: Launch) -> None:
    edge = launch()
    assert await edge.statuses(4, key=FREE) == [200] * 4
    before = await edge.metric("extauth_config_reloads_total", outcome="error")
    good_before = await edge.metric("extauth_config_reloads_total", outcome="ok")

    lines = CONFIG.splitlines()
    broken = next(n for n, line in enumerate(lines, start=1) if "tier: bulk" in line)
    edge.config.write_text(CONFIG.replace("tier: bulk", "tier: bulky"))

    await loaded_by_both(edge, before, "error")
    assert await edge.statuses(7, key=FREE) == [200] * 6 + [429]
    for name in ("extauth-1", "extauth-2"):
        assert f"api.yaml:{broken}:" in edge.stack.logs()[name].read_text()

    edge.config.write_text(PROMOTED)
    await loaded_by_both(edge, good_before, "ok")
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    await no_call_failed(edge)
