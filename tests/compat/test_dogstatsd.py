"""What DogStatsD gets: names, tags, and the patterns that make tags of names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from extauth.compat.environment import translate
from extauth.compat.statsd_lines import dogstatsd_lines
from extauth.errors import SettingsError
from extauth.settings import read_settings
from extauth.telemetry.statsd_settings import read_renamings
from tests.compat.test_statsd import TOTAL, Sent, listening
from tests.support.facts import batch
from tests.support.ports import free_port
from tests.support.wait import until_async

DOG = {"HOST": "h", "USE_DOG_STATSD": "true", "USE_STATSD": "false"}
# The two that envoyproxy/ratelimit's README has as examples.
DOMAIN = {
    "DOG_STATSD_MOGRIFIER_DOMAIN_PATTERN": r"^some\.original\.metric\.(.*)$",
    "DOG_STATSD_MOGRIFIER_DOMAIN_NAME": "some.original.metric",
    "DOG_STATSD_MOGRIFIER_DOMAIN_TAGS": "domain:$1",
}
HITS = {
    "DOG_STATSD_MOGRIFIER_HITS_PATTERN": r"^ratelimit\.service\.rate_limit\.([^.]+)\.(.*)\.([^.]+)$",
    "DOG_STATSD_MOGRIFIER_HITS_NAME": "ratelimit.service.rate_limit.$3",
    "DOG_STATSD_MOGRIFIER_HITS_TAGS": "domain:$1,descriptor:$2",
}
BOTH = DOG | DOMAIN | HITS | {"USE_DOG_STATSD_MOGRIFIERS": "DOMAIN,HITS"}


def line(environ: Mapping[str, str], metric: str) -> str:
    """The line of a counter under this environment of envoyproxy/ratelimit."""
    settings = read_settings(translate(environ).variables)
    tags = dict(pair.split(":") for pair in settings.statsd_tags.split(",") if pair)
    return dogstatsd_lines(tags, read_renamings(settings.statsd_rename))(metric, "7", "c").decode()


def mogrifier(pattern: str, name: str, tags: str = "") -> dict[str, str]:
    parts = {"PATTERN": pattern, "NAME": name, "TAGS": tags}
    own = {f"DOG_STATSD_MOGRIFIER_M_{part}": text for part, text in parts.items()}
    return DOG | own | {"USE_DOG_STATSD_MOGRIFIERS": "m"}


@pytest.mark.parametrize(
    ("environ", "metric", "expected"),
    [
        (DOG, "a.b", "a.b:7|c"),
        (DOG | {"EXTRA_TAGS": "z:1,k:a.b"}, "a.b", "a.b:7|c|#k:a_b,z:1"),
        (BOTH, "other.metric", "other.metric:7|c"),
        (BOTH, "some.original.metric.TAG", "some.original.metric:7|c|#domain:TAG"),
        (BOTH, TOTAL, "ratelimit.service.rate_limit.total_hits:7|c|#domain:d,descriptor:k_v"),
        (
            BOTH | {"EXTRA_TAGS": "k:v", "DD_ENV": "prod"},
            TOTAL,
            "ratelimit.service.rate_limit.total_hits:7|c|#env:prod,k:v,domain:d,descriptor:k_v",
        ),
        (BOTH | {"USE_DOG_STATSD_MOGRIFIERS": "DOMAIN"}, TOTAL, f"{TOTAL}:7|c"),
        (mogrifier("b", "$0.$1.$00"), "a.b.c", "b.$1.b:7|c"),  # it looks anywhere, and there is no first group
        (mogrifier("(x)?(b)", "n", "x:<$1>,b:<$2>,far:$12345678901"), "a.b", "n:7|c|#x:<>,b:<b>,far:$12345678901"),
        (mogrifier("(?s)(.*)", "n", "t:$1"), "a,b|c:d\n", "n:7|c|#t:a_b_c:d_"),
        (mogrifier("(.*)", "n:|$1"), "a", "n__a:7|c"),
        (mogrifier("é(.)", "n", "t:$1"), "aéß", "n:7|c|#t:ß"),
    ],
)  # fmt: skip
def test_a_metric_is_named_by_the_first_pattern_that_finds_something(
    environ: dict[str, str], metric: str, expected: str
) -> None:
    assert line(environ, metric) == f"{expected}\n"


@pytest.mark.parametrize(
    ("environ", "refusal"),
    [
        (
            DOG | {"USE_DOG_STATSD_MOGRIFIERS": "HITS"},
            (
                "USE_DOG_STATSD_MOGRIFIERS names 'HITS', which needs DOG_STATSD_MOGRIFIER_HITS_PATTERN and "
                "DOG_STATSD_MOGRIFIER_HITS_NAME"
            ),
        ),
        (mogrifier("a", ""), "USE_DOG_STATSD_MOGRIFIERS names 'm', which needs DOG_STATSD_MOGRIFIER_M_NAME"),
        (mogrifier("(", "n"), "DOG_STATSD_MOGRIFIER_M_PATTERN='(' is not allowed: missing ): ("),
        (mogrifier("a", "n", "t"), "DOG_STATSD_MOGRIFIER_M_TAGS='t' is not allowed; allowed: pairs, as in"),
        (mogrifier("a", "n", "t:"), "DOG_STATSD_MOGRIFIER_M_TAGS='t:' is not allowed: String should have at least 1"),
        (mogrifier("a", "n", ":x"), "DOG_STATSD_MOGRIFIER_M_TAGS=':x' is not allowed: String should have at least 1"),
        (
            {"HOST": "h", "EXTAUTH_STATSD_RENAME": '[{"pattern": "a"}]'},
            'EXTAUTH_STATSD_RENAME=\'[{"pattern": "a"}]\' is not allowed: [0].name: Field required; allowed: JSON: [{',
        ),
        (
            {"HOST": "h", "EXTAUTH_STATSD_RENAME": '[{"pattern": "(", "name": "n"}]'},
            'EXTAUTH_STATSD_RENAME=\'[{"pattern": "(", "name": "n"}]\' is not allowed: [0].pattern: missing ): (',
        ),
        ({"HOST": "h", "EXTAUTH_STATSD_RENAME": "x"}, "EXTAUTH_STATSD_RENAME='x' is not allowed: Invalid JSON"),
        ({"HOST": "h", "EXTAUTH_STATSD": "dogstatsd://a"}, "EXTAUTH_STATSD='dogstatsd://a' is not allowed; allowed: t"),
    ],
)
def test_what_cannot_be_used_stops_the_start(environ: dict[str, str], refusal: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(refusal)}"):
        translate(environ)


def test_ours_win_over_theirs() -> None:
    ours = json.dumps([{"pattern": "a", "name": "b"}])
    found = translate(BOTH | {"EXTAUTH_STATSD_RENAME": ours, "USE_STATSD": "true"})
    assert found.variables["EXTAUTH_STATSD_RENAME"] == ours
    assert found.overridden == ("USE_DOG_STATSD_MOGRIFIERS: EXTAUTH_STATSD_RENAME is set",)
    assert found.no_effect == ("USE_STATSD: USE_DOG_STATSD is true",)


async def test_it_is_sent_in_datagrams_that_fit_a_frame() -> None:
    port = free_port()
    settings = read_settings(translate(BOTH | {"EXTRA_TAGS": "k:v"}).variables)
    sent = Sent("dogstatsd", port, dogstatsd_lines({"k": "v"}, read_renamings(settings.statsd_rename)))
    async with listening("udp", port) as listener:
        sent.metrics.batch_decided(batch(durations_s=[(0.002, 3), (0.006, 1)]))
        for number in range(200):
            sent.count(number + 1, f"k_{number}")
        await sent.statsd.flush()
        await until_async(lambda: listener.data.count(b"\n") == 203)
    sent.statsd.close()
    lines = set(listener.data.decode().splitlines())
    assert {
        f"ratelimit.service.rate_limit.total_hits:{n + 1}|c|#k:v,domain:d,descriptor:k_{n}" for n in range(200)
    } < lines
    assert "ratelimit_server.ShouldRateLimit.response_time:3.000000|ms|@0.25|#k:v" in lines
    assert "ratelimit_server.ShouldRateLimit.total_requests:4|c|#k:v" in lines
    assert max(map(len, listener.datagrams)) <= 1432


def test_the_page_says_the_same_in_both_words() -> None:
    page = (Path(__file__).parents[2] / "docs/migrating-metrics.md").read_text()
    theirs = dict(re.findall(r"^(\w*DOG_STATSD\w+)='?(.*?)'?$", page, re.MULTILINE))
    (ours,) = re.findall(r"^EXTAUTH_STATSD_RENAME='(.*?)'$", page, re.MULTILINE | re.DOTALL)
    assert json.loads(translate(DOG | theirs).variables["EXTAUTH_STATSD_RENAME"]) == json.loads(ours)
    assert theirs == HITS | {"USE_DOG_STATSD_MOGRIFIERS": "HITS"}
