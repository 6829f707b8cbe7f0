"""Which files of a folder are the config."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extauth.config.sources import selection
from extauth.config.sources.files import FileSource
from extauth.config.sources.selection import Selection
from extauth.errors import ConfigError

CONFIG = "domain: {name}\ndescriptors: [{{key: k, rate_limit: {{unit: day, requests_per_unit: 1}}}}]"


def fill(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CONFIG.format(name=f"d{number}"))


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("yaml", ["config.yaml", "other.yml"]),
        ("visible", ["config.yaml", "config/a.yaml", "config/deep/noname", "notes.txt", "other.yml"]),
        (
            "all",
            [
                ".hidden/h.yaml",
                ".hidden.yaml",
                "config.yaml",
                "config/.dot",
                "config/a.yaml",
                "config/deep/noname",
                "notes.txt",
                "other.yml",
            ],
        ),
        ("visible:config", ["config.yaml", "config/a.yaml", "config/deep/noname"]),
        ("all:config", ["config.yaml", "config/.dot", "config/a.yaml", "config/deep/noname"]),
        ("all:config/deep", ["config/deep/noname"]),
        ("all:none", []),
    ],
)
def test_each_setting_finds_its_files(tmp_path: Path, setting: str, found: list[str]) -> None:
    fill(tmp_path, "config.yaml", "other.yml", "notes.txt", ".hidden.yaml", ".hidden/h.yaml")
    fill(tmp_path, "config/a.yaml", "config/.dot", "config/deep/noname", "config/..data/a.yaml", "..2024/x.yaml")
    files = Selection.of(setting).files(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in files) == sorted(found)


def test_a_file_by_itself_is_read_whatever_its_name(tmp_path: Path) -> None:
    fill(tmp_path, "x")
    assert Selection.of("all:config").files(tmp_path / "x") == [tmp_path / "x"]


def test_symlinks_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    fill(tmp_path, "real/a", "elsewhere/b")
    (tmp_path / "real/back").symlink_to(tmp_path)
    (tmp_path / "real/there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real/file").symlink_to(tmp_path / "elsewhere/b")
    found = Selection.of("visible").files(tmp_path / "real")
    assert {str(file.relative_to(tmp_path / "real")) for file in found} >= {"a", "file", "there/b"}
    assert len(found) < 20


def test_a_whole_file_system_is_no_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_FILES", 3)
    fill(tmp_path, "a/1", "a/2", "b/3", "b/4")
    with pytest.raises(ConfigError, match="it has more than 3 files, in it and below; name a folder of config files"):
        FileSource(tmp_path, selection=Selection.of("all")).read()


@pytest.fixture
def mounted(tmp_path: Path) -> Callable[[str], None]:
    """Puts a ConfigMap's file into the folder, as Kubernetes does."""

    def mount(text: str) -> None:
        number = len(list(tmp_path.glob("..2*")))
        data = tmp_path / f"..2026_{number}"
        data.mkdir()
        (data / "config").write_text(text)
        new = tmp_path / "..data_tmp"
        new.symlink_to(data.name)
        new.rename(tmp_path / "..data")
        if number == 0:
            (tmp_path / "config").symlink_to("..data/config")

    return mount


@pytest.mark.parametrize("setting", ["all", "visible"])
async def test_a_config_map_is_read_once_and_again_when_it_changes(
    tmp_path: Path, mounted: Callable[[str], None], setting: str
) -> None:
    mounted(CONFIG.format(name="one"))
    source = FileSource(tmp_path, selection=Selection.of(setting))
    assert list(source.read().domains) == ["one"]
    updates = source.updates()
    mounted(CONFIG.format(name="two"))
    changed = await anext(updates)
    assert not isinstance(changed, ConfigError)
    assert list(changed.domains) == ["two"]
    await updates.aclose()  # type: ignore[attr-defined]


async def test_files_far_below_are_watched_too(tmp_path: Path) -> None:
    fill(tmp_path, "a/b/c")
    source = FileSource(tmp_path, selection=Selection.of("all"))
    assert list(source.read().domains) == ["d0"]
    updates = source.updates()
    (tmp_path / "a/b/c").write_text(CONFIG.format(name="other"))
    changed = await anext(updates)
    assert not isinstance(changed, ConfigError)
    assert list(changed.domains) == ["other"]
    await updates.aclose()  # type: ignore[attr-defined]


async def test_files_of_a_prefix_are_watched_too(tmp_path: Path) -> None:
    fill(tmp_path, "config/a/b", "other/c")
    source = FileSource(tmp_path, selection=Selection.of("all:config"))
    assert list(source.read().domains) == ["d0"]
    updates = source.updates()
    (tmp_path / "config/a/b").write_text(CONFIG.format(name="other"))
    changed = await anext(updates)
    assert not isinstance(changed, ConfigError)
    assert list(changed.domains) == ["other"]
    await updates.aclose()  # type: ignore[attr-defined]


async def test_a_root_that_is_a_symlink_to_a_release_is_followed(tmp_path: Path) -> None:
    for number, release in enumerate(("one", "two")):
        fill(tmp_path / release, *["skipped"] * number, "ratelimit/config/limits")
    (tmp_path / "current").symlink_to("one")
    source = FileSource(tmp_path / "current/ratelimit", selection=Selection.of("visible:config"))
    assert list(source.read().domains) == ["d0"]
    updates = source.updates()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "current")
    changed = await anext(updates)
    assert not isinstance(changed, ConfigError)
    assert list(changed.domains) == ["d1"]
    await updates.aclose()  # type: ignore[attr-defined]
