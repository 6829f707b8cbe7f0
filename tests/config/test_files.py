"""Watching the config's files."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from extauth.config.sources.files import FileSource, read_rules
from extauth.errors import ConfigError
from extauth.rules.model import RuleSet
from tests.config.watched import Watched

OLD = "domain: old"
NEW = "domain: new"
BROKEN = "domain: ["


@pytest.fixture
async def watch() -> AsyncIterator[Callable[[Path], Watched]]:
    watches: list[Watched] = []

    def start(path: Path) -> Watched:
        watches.append(Watched(path))
        return watches[-1]

    yield start
    for watched in watches:
        await watched.stop()


def in_place(folder: Path, text: str) -> None:
    (folder / "f.yaml").write_text(text)


def by_rename(folder: Path, text: str) -> None:
    (folder / ".f.yaml.swp").write_text(text)
    (folder / ".f.yaml.swp").rename(folder / "f.yaml")


def by_symlink(folder: Path, text: str) -> None:
    """As Kubernetes does: f.yaml → ..data/f.yaml, ..data → a folder a version, swapped by a rename."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "f.yaml").write_text(text)
    (folder / "..tmp").symlink_to(version.name)
    (folder / "..tmp").rename(folder / "..data")
    if not (folder / "f.yaml").is_symlink():
        (folder / "f.yaml").symlink_to("..data/f.yaml")


Write = Callable[[Path, str], None]
WRITES = pytest.mark.parametrize("write", [in_place, by_rename, by_symlink])


@WRITES
async def test_an_edit_is_seen(tmp_path: Path, watch: Callable[[Path], Watched], write: Write) -> None:
    write(tmp_path, OLD)
    watched = watch(tmp_path)
    await asyncio.sleep(0)
    write(tmp_path, NEW)
    assert await watched.domains() == ["new"]
    write(tmp_path, BROKEN)
    rules = await watched.next()
    assert "f.yaml:2:1: not YAML" in str(rules.problems[0])
    assert (list(rules.domains), rules.retained) == (["new"], frozenset({"new"}))
    write(tmp_path, OLD)
    assert await watched.domains() == ["old"]
    assert watched.errors.empty()


async def test_an_edit_between_the_first_reading_and_the_watch_is_seen(tmp_path: Path) -> None:
    in_place(tmp_path, OLD)
    source = FileSource(tmp_path)
    assert list(source.read().domains) == ["old"]
    in_place(tmp_path, NEW)
    async with asyncio.timeout(5):
        async for rules in source.updates():
            assert isinstance(rules, RuleSet)
            assert list(rules.domains) == ["new"]
            break


async def test_a_refresh_yields_unchanged_files_and_returns_once_the_next_rules_are_asked_for(tmp_path: Path) -> None:
    in_place(tmp_path, OLD)
    source = FileSource(tmp_path)
    source.read()
    updates = source.updates()
    refreshes = [asyncio.create_task(source.refresh()) for _ in range(2)]
    async with asyncio.timeout(5):
        rules = await anext(updates)
        assert isinstance(rules, RuleSet)
        assert list(rules.domains) == ["old"]
        assert not any(refresh.done() for refresh in refreshes), "these rules are not in force yet"
        following = asyncio.ensure_future(anext(updates))
        await asyncio.gather(*refreshes)
        assert not following.done(), "two refreshes at once are one"
        in_place(tmp_path, NEW)
        changed = await following
        assert isinstance(changed, RuleSet)
        assert list(changed.domains) == ["new"]


async def test_a_refresh_without_files_yields_why_there_are_no_rules(tmp_path: Path) -> None:
    source = FileSource(tmp_path)
    refresh = asyncio.create_task(source.refresh())
    async with asyncio.timeout(5):
        error = await anext(source.updates())
    assert "no *.yaml file here" in str(error)
    await asyncio.wait_for(refresh, 5)


async def test_one_file_may_be_watched(tmp_path: Path, watch: Callable[[Path], Watched]) -> None:
    in_place(tmp_path, OLD)
    (tmp_path / "other.yaml").write_text(BROKEN)
    watched = watch(tmp_path / "f.yaml")
    await asyncio.sleep(0)
    by_rename(tmp_path, NEW)
    assert await watched.domains() == ["new"]


async def test_a_folder_behind_a_symlink_may_be_swapped(tmp_path: Path, watch: Callable[[Path], Watched]) -> None:
    for name, text in (("a", OLD), ("b", NEW)):
        (tmp_path / name).mkdir()
        in_place(tmp_path / name, text)
    (tmp_path / "live").symlink_to("a")
    watched = watch(tmp_path / "live")
    await asyncio.sleep(0)
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").rename(tmp_path / "live")
    assert await watched.domains() == ["new"]


async def test_a_folder_that_goes_and_comes_back(tmp_path: Path, watch: Callable[[Path], Watched]) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    in_place(folder, OLD)
    watched = watch(folder)
    await asyncio.sleep(0)
    folder.rename(tmp_path / "away")
    assert "no such file" in await watched.error()
    folder.mkdir()
    by_rename(folder, NEW)
    while (domains := await watched.domains()) != ["new"]:
        assert domains == []


async def test_a_touched_or_hidden_file_changes_no_rules(tmp_path: Path, watch: Callable[[Path], Watched]) -> None:
    in_place(tmp_path, OLD)
    watched = watch(tmp_path)
    await asyncio.sleep(0)
    (tmp_path / ".hidden.yaml").write_text(BROKEN)
    (tmp_path / "notes.txt").write_text(BROKEN)
    in_place(tmp_path, NEW)
    assert await watched.domains() == ["new"]
    assert watched.errors.empty()


def dangling(file: Path) -> None:
    file.symlink_to("gone.yaml")


def looping(file: Path) -> None:
    file.symlink_to(file.name)


def through_a_file(file: Path) -> None:
    (file.parent / "plain").write_text("")
    file.symlink_to("plain/api.yaml")


def unreadable(file: Path) -> None:
    """For root too, who reads what has no permissions."""
    file.symlink_to("/proc/self/mem")


def a_folder(file: Path) -> None:
    file.mkdir()


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


UNREADABLE = {
    dangling: "it is a symlink to 'gone.yaml', which does not exist; make what it points to, or remove it",
    looping: "Too many levels of symbolic links",
    through_a_file: "Not a directory",
    unreadable: "Input/output error",
    a_folder: "it is a folder; rename it, or move it away",
    a_pipe: "it is no regular file; move it away",
}
CANNOT_BE_READ = pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(make, reason, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"))
        if make is unreadable
        else (make, reason)
        for make, reason in UNREADABLE.items()
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)


def remove(file: Path) -> None:
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink()


@CANNOT_BE_READ
async def test_a_file_that_cannot_be_read_any_more_keeps_its_domain_until_it_is_mended(
    tmp_path: Path, watch: Callable[[Path], Watched], make: Callable[[Path], None], reason: str
) -> None:
    api, other = tmp_path / "api.yaml", tmp_path / "other.yaml"
    for file, text in ((api, "domain: api"), (other, OLD)):
        file.write_text(text)
    watched = watch(tmp_path)
    await asyncio.sleep(0)
    other.write_text("domain: old\nlabels: [path]")
    assert await watched.domains() == ["api", "old"]
    api.unlink()
    make(api)
    rules = await watched.next()
    assert (set(rules.domains), rules.retained) == ({"api", "old"}, frozenset({"api"}))
    assert list(map(str, rules.problems)) == [f"{api}: cannot be read: {reason}"]
    other.write_text(NEW)
    assert set(await watched.domains()) == {"api", "new"}, "other files are read all the same"
    remove(api)
    api.write_text("domain: api\nlabels: [path]")
    rules = await watched.next()
    assert (set(rules.domains), rules.problems) == ({"api", "new"}, ())
    assert rules.domains["api"].labels == ("path",)


@CANNOT_BE_READ
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    in_place(tmp_path, OLD)
    make(tmp_path / "api.yml")
    with pytest.raises(ConfigError) as raised:
        read_rules(tmp_path)
    assert str(raised.value) == f"{tmp_path}/api.yml: cannot be read: {reason}"


async def test_a_symlink_to_nothing_is_read_once_there_is_something(
    tmp_path: Path, watch: Callable[[Path], Watched]
) -> None:
    folder, elsewhere = tmp_path / "config", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    in_place(folder, OLD)
    (folder / "link.yaml").symlink_to(elsewhere / "target.yaml")
    watched = watch(folder)
    await asyncio.sleep(0)
    by_rename(folder, "domain: old\nlabels: [path]")
    assert [problem.place.file for problem in (await watched.next()).problems] == [str(folder / "link.yaml")]
    (elsewhere / "target.yaml").write_text(NEW)
    rules = await watched.next()
    assert (set(rules.domains), rules.problems) == ({"new", "old"}, ())


async def test_a_key_that_a_config_map_no_longer_has_goes(tmp_path: Path, watch: Callable[[Path], Watched]) -> None:
    """Kubernetes swaps the folder that the symlinks point through, and then removes those that point to nothing."""
    by_symlink(tmp_path, OLD)
    (tmp_path / "..data" / "other.yaml").write_text(NEW)
    (tmp_path / "other.yaml").symlink_to("..data/other.yaml")
    watched = watch(tmp_path)
    await asyncio.sleep(0)
    by_symlink(tmp_path, "domain: old\nlabels: [path]")
    rules = await watched.next()
    assert set(rules.domains) <= {"old", "new"}
    (tmp_path / "other.yaml").unlink()
    while (rules := await watched.next()).problems:
        assert rules.domains["old"].labels == ("path",)
    assert list(rules.domains) == ["old"]
