"""The README's pictures of the live page are there, with how they came to be."""

from pathlib import Path

from scripts.screenshot import IMAGES

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_pictures() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in IMAGES.values():
        assert (ROOT / "docs/images" / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert f"docs/images/{name}" in readme
    assert "./dev screenshot" in readme
    assert "\nscreenshot:" in (ROOT / "justfile").read_text()
