"""Logs as files: plain, gzip, broken, and of any size."""

import gzip
from pathlib import Path

import pytest

from extauth.errors import CommandError
from extauth.replay.log_file import MAX_LINE_BYTES, LogFile, Problems


def read(path: Path) -> tuple[list[tuple[int, bytes]], Problems]:
    problems = Problems()
    return list(LogFile(path).read(problems)), problems


LONG = b"x" * (MAX_LINE_BYTES + 1)
CASES: list[tuple[bytes, list[tuple[int, bytes]]]] = [
    (b"", []),
    (b"a\nb\n", [(1, b"a"), (2, b"b")]),
    (b"a\n\nb", [(1, b"a"), (2, b""), (3, b"b")]),
    (b"a\n" * 200_000, [(n, b"a") for n in range(1, 200_001)]),
    (b"x" * 1_000_000 + b"\nb", [(1, b"x" * 1_000_000), (2, b"b")]),
]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(("content", "lines"), CASES, ids=lambda case: f"{len(case)}")
def test_lines_have_their_numbers(
    tmp_path: Path, content: bytes, lines: list[tuple[int, bytes]], compress: type[bytes]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(compress(content))
    assert read(path)[0] == lines


def test_a_line_without_end_is_passed_over_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\n" + LONG * 5 + b"\nb\n" + LONG)
    lines, problems = read(path)
    assert [line for line in lines if len(line[1]) < 10] == [(1, b"a"), (3, b"b")]
    assert problems.shown == [
        f"{path}:2: longer than {MAX_LINE_BYTES} bytes",
        f"{path}:4: longer than {MAX_LINE_BYTES} bytes",
    ]


def test_several_gzip_members_are_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read(path)[0] == [(1, b"a"), (2, b"b")]


@pytest.mark.parametrize("spoil", [lambda data: data[:-20], lambda data: data[:40] + b"!" * 60 + data[100:]])
def test_what_comes_before_a_break_in_gzip_is_read(tmp_path: Path, spoil: type[bytes]) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\n") + spoil(gzip.compress(b"%r\n" % bytes(range(256)) * 3)))
    lines, problems = read(path)
    assert lines[0] == (1, b"a")
    assert problems.number == 1
    assert "cannot be read on from here" in problems.shown[0]


def test_only_the_first_problems_are_kept(tmp_path: Path) -> None:
    problems = Problems()
    for line in range(1, 1001):
        problems.add("log", line, "not JSON")
    assert problems.number == 1000
    assert problems.shown == [f"log:{line}: not JSON" for line in range(1, 11)]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        read(tmp_path / "none")


def test_progress_is_told_in_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\n" * 100_000))
    log = LogFile(path)
    assert log.size_bytes == path.stat().st_size
    list(log.read(Problems()))
    assert (log.read_bytes, log.lines) == (log.size_bytes, 100_000)
