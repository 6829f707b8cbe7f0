"""The YAML that the pages in docs/deploy show."""

import re
from pathlib import Path
from typing import Any

import yaml

PAGES = Path(__file__).parents[2] / "docs/deploy"
Block = dict[str, Any]


def blocks(page: str) -> list[Block]:
    """The YAML of a page."""
    text = (PAGES / f"{page}.md").read_text()
    return [yaml.safe_load(each) for each in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def only(page: str, kind: str) -> Block:
    """The manifest of this kind on a page."""
    [found] = [block for block in blocks(page) if block.get("kind") == kind]
    return found


def container_on(page: str) -> Block:
    """The container of the rate limit service on a page."""
    found: Block
    [found] = [
        c for c in only(page, "Deployment")["spec"]["template"]["spec"]["containers"] if c["name"] == "ratelimit"
    ]
    return found
