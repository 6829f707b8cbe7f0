"""Reading the config's files, once."""

from pathlib import Path

import pytest

from extauth.config.sources.files import read_rules
from extauth.errors import ConfigError


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no such file; set EXTAUTH_CONFIG to a folder or a file"):
        read_rules(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no \*.yaml file here; put one there, or set EXTAUTH_CONFIG"):
        read_rules(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"domain: \xff")
    (tmp_path / "b.yaml").write_text("domain: [")
    with pytest.raises(ConfigError) as raised:
        read_rules(tmp_path)
    first, second = str(raised.value).splitlines()
    assert first == f"{tmp_path}/a.yaml:1:9: not UTF-8: invalid start byte; save the file as UTF-8"
    assert second.startswith(f"{tmp_path}/b.yaml:2:1: not YAML")


def test_what_looks_as_if_it_should_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("domain: old")
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "b.yaml").write_text("domain: new")
    (tmp_path / "empty").mkdir()
    for name in ("plain", "UPPER.YAML", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("domain: new")
    assert list(map(str, read_rules(tmp_path).warnings)) == [
        f"{tmp_path}/UPPER.YAML: only *.yaml and *.yml are read; rename it",
        f"{tmp_path}/plain: only *.yaml and *.yml are read; rename it",
        f"{tmp_path}/team: files in sub-folders are not read; move them up",
    ]
