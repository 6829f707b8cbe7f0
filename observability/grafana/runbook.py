"""The dashboard "extauth runbook": docs/runbook.md, where whoever looks at the other two finds it."""

import re
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.text import Panel as Text
from grafana_foundation_sdk.models.text import TextMode

from observability.grafana.frame import TAG, links, to_json
from observability.grafana.variables import constants

TITLE = "extauth runbook"
UID = "extauth-runbook"
SOURCE = Path(__file__).parents[2] / "docs" / "runbook.md"

_HEADING = re.compile(r"^(#{1,3}) (.+)\n", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((?:([^)#]*)(?:#[^)]*)?)\)")
_HEIGHT = 11


def _without_links(text: str) -> str:
    """The links lead to files of the project, which Grafana does not have: name those, and entries, instead."""

    def named(link: re.Match[str]) -> str:
        if not link[2]:
            return f"*{link[1]}*"
        path = link[2].removeprefix("../") if link[2].startswith("../") else f"docs/{link[2]}"
        return path if path.endswith(link[1]) else f"{link[1]} ({path})"

    return _LINK.sub(named, text).strip()


def _text(title: str, content: str, span: int) -> Text:
    return Text().title(title).mode(TextMode.MARKDOWN).content(_without_links(content)).span(span).height(_HEIGHT)


def build() -> str:
    """Build the dashboard's JSON: a row a section, a panel an alert."""
    builder = (
        Dashboard(TITLE)
        .uid(UID)
        .description("What each alert means, what to look at, and what to do.")
        .tags([TAG])
        .editable()
        .annotations([])
        .links(links())
    )
    for constant in constants():
        builder.with_variable(constant)
    _, *parts = _HEADING.split(SOURCE.read_text(encoding="utf-8"))
    for level, title, content in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if level == "##":
            builder.with_row(Row(title))
        else:
            builder.with_panel(_text(title, content, 12 if level == "###" else 24))
    return to_json(builder)
