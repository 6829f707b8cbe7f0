"""The live page for everybody: contrast, names and roles as axe checks them, and the width of a phone."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.page.calls import KEY, call
from tests.page.conftest import Visitor
from tests.support.process import Served

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
}


@pytest.mark.parametrize("visitor", LOOKS.values(), ids=LOOKS, indirect=True)
def test_axe_finds_no_serious_fault(served: Served, visitor: Visitor) -> None:
    call(served, 8, KEY, "masked_remote_address=192.0.2.9/32")
    page = visitor.visit(served)
    page.wait_for_selector("#denied tr")
    page.fill("#explain-descriptors", f"{KEY}\nmasked_remote_address=192.0.2.9/32")
    page.click("button.go")
    page.wait_for_selector(".left meter")
    page.focus("#chart")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#chart .tip")
    violations = Axe().run(page).response["violations"]
    found = {
        each["id"]: [node["html"] for node in each["nodes"]]
        for each in violations
        if each["impact"] in {"serious", "critical"}
    }
    assert found == {}


@pytest.mark.parametrize("visitor", [PHONE], indirect=True)
def test_a_phone_need_not_be_scrolled_sideways(served: Served, visitor: Visitor) -> None:
    call(served, 2, f"agent={'a-very-long-name-without-a-break' * 5}")
    page = visitor.visit(served)
    page.wait_for_selector("#denied tr")
    wide = page.evaluate(
        """() => [...document.querySelectorAll('main *')]
            .filter((node) => !node.closest('.hidden') && node.getBoundingClientRect().right > innerWidth + 1)
            .map((node) => node.outerHTML)"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
