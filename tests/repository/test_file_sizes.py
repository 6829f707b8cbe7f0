"""A file is read in one go: none that is written by hand is longer than that allows."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 300
WRITTEN = {".css", ".go", ".html", ".java", ".js", ".lua", ".md", ".py", ".sh"}


def test_no_file_has_more_than_300_lines() -> None:
    paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.suffix in WRITTEN]
    own = [path for path in paths if not any(part.startswith(".") or part == "node_modules" for part in path.parts)]
    assert len(own) > 700
    lines = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in (*own, Path("dev"))
    }
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}
