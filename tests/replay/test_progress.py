"""The progress bar."""

import io
from pathlib import Path

from extauth.replay.log_file import LogFile
from extauth.replay.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log(path: Path, size: int) -> LogFile:
    path.write_bytes(b"x" * size)
    return LogFile(path)


def test_it_tells_the_part_that_was_read_of_all_logs(tmp_path: Path) -> None:
    logs = [log(tmp_path / "a", 100), log(tmp_path / "b", 300)]
    progress = Progress(logs, Terminal())
    assert progress.text() == f"[{'.' * 30}]   0%  0 lines"
    logs[0].read_bytes, logs[0].lines = 100, 1000
    logs[1].read_bytes, logs[1].lines = 100, 234
    assert progress.text() == f"[{'#' * 15}{'.' * 15}]  50%  1,234 lines"


def test_of_unknown_size_it_counts_lines() -> None:
    stdin = LogFile(Path("-"))
    stdin.lines = 7
    assert Progress([stdin], Terminal()).text() == "7 lines"


def test_it_draws_on_a_terminal_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = Terminal()
    with Progress([log(tmp_path / "a", 1)], out) as progress:
        progress.show()
        progress.show()
    assert out.getvalue() == f"\r[{'.' * 30}]   0%  0 lines\x1b[K\r\x1b[K"


def test_elsewhere_it_draws_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    with Progress([log(tmp_path / "a", 1)], out) as progress:
        progress.show()
    assert out.getvalue() == ""
