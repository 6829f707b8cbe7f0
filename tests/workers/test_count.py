"""How many workers there are, and what each may use."""

from pathlib import Path

import pytest

from extauth.cores import usable_cores
from extauth.errors import SettingsError
from extauth.settings import read_settings
from extauth.workers.count import count_workers, settings_of_worker


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"EXTAUTH_REDIS_URL": "memory:"}, "EXTAUTH_WORKERS=2 cannot be used with EXTAUTH_REDIS_URL=memory:, because "),
        ({"EXTAUTH_ENGINE": "grpcio"}, "EXTAUTH_WORKERS=2 cannot be used with EXTAUTH_ENGINE=grpcio, which "),
    ],
)
def test_what_cannot_have_several_workers_is_refused(wrong: dict[str, str], said: str) -> None:
    assert count_workers(read_settings(wrong)) == 1
    with pytest.raises(SettingsError) as refused:
        count_workers(read_settings({**wrong, "EXTAUTH_WORKERS": "2"}))
    assert str(refused.value).startswith(said)
    assert "set EXTAUTH_WORKERS=1, or " in str(refused.value)


@pytest.mark.parametrize("value", ["0", "65", "-1", "many", "1.5"])
def test_a_wrong_number_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^EXTAUTH_WORKERS='.*' is not allowed; allowed: processes, 1 to 64, or"):
        read_settings({"EXTAUTH_WORKERS": value})


def test_auto_is_the_cores() -> None:
    assert count_workers(read_settings({"EXTAUTH_WORKERS": "AUTO"})) == usable_cores()


def test_what_bounds_the_replica_is_divided() -> None:
    environ = {"EXTAUTH_MAX_CONNECTIONS": "10", "EXTAUTH_MAX_WAITING": "100", "EXTAUTH_LOCAL_BYTES": "4000000"}
    own = settings_of_worker(read_settings(environ), 3)
    assert (own.max_connections, own.max_waiting, own.local_bytes) == (4, 34, 1_333_333)
    assert settings_of_worker(read_settings(environ), 64).local_bytes == 1 << 20, "the least that is allowed"


V1 = "4:memory:/a\n3:cpu,cpuacct:/pod/c\n"
V2 = "0::/pod/c\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2, {}, 1000),
        (V2, {"pod/c/cpu.max": "max 100000\n"}, 1000),
        (V2, {"pod/c/cpu.max": "200000 100000\n"}, 2),
        (V2, {"pod/c/cpu.max": "150000 100000\n"}, 2),
        (V2, {"pod/c/cpu.max": "1000 100000\n"}, 1),
        (V2, {"pod/c/cpu.max": "800000 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "400000 100000\n"}, 4),
        (V2, {"pod/c/cpu.max": "rubbish\n"}, 1000),
        (V1, {"cpu,cpuacct/pod/c/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/pod/c/cpu.cfs_period_us": "100000\n"}, 1000),
        (V1, {"cpu,cpuacct/pod/c/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/pod/c/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"memory/a/cpu.max": "100000 100000\n"}, 1000),
        (None, {"cpu.max": "100000 100000\n"}, 1000),
    ],
)
def test_a_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(1000), raising=False)
    if own is not None:
        (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path / "groups", tmp_path / "own") == cores
