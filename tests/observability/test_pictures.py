"""The README's pictures: what draws them, and that they are there."""

import io
import re

import numpy as np
import pytest

from observability.grafana.draw import NOTE, Line, draw, lines
from observability.grafana.queries import choose_all, panels
from scripts.pictures import IMAGES
from scripts.stack import Stack
from tests.observability.tools import ROOT, TIERS, prometheus_at, send_as_all, until_nothing

SHOWN = [panel for panel in panels() if panel.title in IMAGES]
PNG = b"\x89PNG\r\n\x1a\n"
# Two series that do not begin together: the second stands on the first where that has a value.
LINES = [
    Line(name="/ · free", values={100.0: 1.0, 105.0: 2.0, 110.0: 3.0}),
    Line(name="/ · premium", values={105.0: 10.0, 110.0: 20.0}),
]


def test_a_panel_is_drawn_with_its_title_its_legend_and_its_stacked_values() -> None:
    [panel, _] = SHOWN
    assert panel.stacked
    figure = draw(panel, LINES, 100, 110)

    texts = [text.get_text() for text in figure.texts]
    assert texts == [
        *(panel.title, NOTE, "Name", "Mean", "Last *"),
        *("/ · free", "2 req/s", "3 req/s"),
        *("/ · premium", "15 req/s", "20 req/s"),
    ]
    [axes] = figure.axes
    drawn = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert drawn == [[[100, 1], [105, 2], [110, 3]], [[105, 12], [110, 23]]]
    assert axes.get_xlim() == (100, 110)
    stream = io.BytesIO()
    figure.savefig(stream)
    assert stream.getvalue().startswith(PNG)


def test_the_lines_are_what_the_panels_queries_return(stack: Stack) -> None:
    prometheus = prometheus_at(stack.ports.prometheus)
    names = {f"/ · {tier}" for tier in TIERS}

    def unseen() -> list[str]:
        send_as_all(stack)
        now_s = float(prometheus.get("query", query="time()")["result"][0])
        chosen = choose_all(prometheus)
        found = {panel.title: lines(prometheus, panel, chosen, now_s - 60, now_s) for panel in SHOWN}
        return [title for title, shown in found.items() if not names <= {line.name for line in shown}]

    assert {panel.title for panel in SHOWN} == set(IMAGES)
    until_nothing(unseen)


@pytest.mark.parametrize(("title", "image"), IMAGES.items())
def test_the_readme_shows_the_picture_and_says_how_it_came_to_be(title: str, image: str) -> None:
    assert (ROOT / "docs/images" / image).read_bytes().startswith(PNG)
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"!\[[^\]]*{title}[^\]]*\]\(docs/images/{image}\)", readme)
    assert "scripts/pictures.py" in readme
