"""The page at `/` as it is sent: whole, and under a policy that lets the browser load nothing else."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from extauth.admin.explain import Explainer
from extauth.admin.live import LiveStreams
from extauth.admin.server import LivePage
from extauth.counters.memory import MemoryCounters
from tests.admin.test_live import Numbers
from tests.support.admin import Reply, serving
from tests.support.clock import Clock
from tests.support.service import planner_of


@pytest.fixture
def got() -> Reply:
    with serving("uvloop", live=live_page()) as served:
        return served.get("/")


def live_page() -> LivePage:
    explainer = Explainer(planner_of("domain: d"), MemoryCounters(Clock()), lambda: None)
    return LivePage(LiveStreams(Numbers()), explainer)


def test_it_is_one_page_that_names_no_other_server(got: Reply) -> None:
    text = got.body.decode()
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:|//)|@import|url\(", text)
    assert (text.count("<script>"), text.count("<style>"), text.count("</script>")) == (1, 1, 1)
    assert len(got.body) < 60_000


def test_its_policy_names_the_script_and_the_style_by_their_hashes(got: Reply) -> None:
    policy = got.headers["content-security-policy"]
    for name in ("script", "style"):
        found = re.search(rf"<{name}>(.*)</{name}>", got.body.decode(), re.DOTALL)
        assert found is not None
        digest = b64encode(sha256(found[1].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert (got.headers["x-content-type-options"], got.headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_its_script_makes_no_html_of_text(got: Reply) -> None:
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert way not in got.body.decode()


def test_its_paths_are_served_to_people_only() -> None:
    with serving("asyncio", live=live_page()) as served:
        assert [served.get(path, Host="evil.example").status for path in ("/", "/live")] == [421, 421]
        assert served.get("/explain", "POST", b"{}", Host="evil.example").status == 421
        assert [served.get(path, Host="evil.example").status for path in ("/metrics", "/healthz")] == [200, 200]
        assert served.get("/", "POST").status == 405
