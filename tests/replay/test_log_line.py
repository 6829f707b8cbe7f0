"""Lines of the access log, well formed or not."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.replay.log_line import LoggedEntry, LoggedRequest, MalformedLineError, read_line, read_request
from extauth.rls.request import Override
from extauth.rules.model import Unit
from tests.replay.logs import log_line
from tests.support.clock import NOON

ASKED: dict[str, Any] = {"domain": "d", "descriptors": [{"entries": [["k", "v"]]}]}
HASH = "0123456789abcdef"


def line(**changed: object) -> bytes:
    return json.dumps(json.loads(log_line(0, ASKED)) | changed).encode()


@pytest.mark.parametrize(
    ("time", "time_us"),
    [
        ("2023-11-15T12:00:00.000Z", NOON),
        ("2023-11-15T12:00:00.123Z", NOON + 123_000),
        ("2023-11-15T12:00:00.123456Z", NOON + 123_456),
        ("2023-11-15T12:00:00Z", NOON),
        ("2023-11-15T14:00:00.5+02:00", NOON + 500_000),
        ("2023-11-15T12:00:00", NOON),
    ],
)
def test_times(time: str, time_us: int) -> None:
    assert read_line(line(time=time)).time_us == time_us


@pytest.mark.parametrize(
    ("changed", "denied"),
    [
        ({}, False),
        ({"details": "request_rate_limited"}, True),
        ({"flags": "RL"}, True),
        ({"flags": "UH,RL"}, True),
        ({"flags": "URL"}, False),
        ({"flags": None}, False),
        ({"status": 429}, False),
    ],
)
def test_what_envoy_answered(changed: dict[str, object], denied: bool) -> None:
    assert read_line(line(**changed)).denied is denied


def test_a_line_without_descriptors_needs_nothing_else() -> None:
    assert read_line(b"{}").asked is None
    assert read_line(line(ratelimit=None, time=None)).asked is None


MALFORMED: list[tuple[bytes, str]] = [
    (b"[2026-01-01 12:00:00.000][1][warning] envoy starts", "not JSON"),
    (b'{"time": "2023-11', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"7", "not a JSON object"),
    (line(time=None), "`time` is not a time as %START_TIME% writes it"),
    (line(time=7), "`time` is not a time as %START_TIME% writes it"),
    (line(time="noon"), "`time` is not a time as %START_TIME% writes it"),
    (line(ratelimit=7), "`ratelimit` has no `domain` and `descriptors`"),
    (line(ratelimit={"domain": "d"}), "`ratelimit` has no `domain` and `descriptors`"),
    (line(ratelimit=ASKED | {"hits": "1"}), "a number in `ratelimit` is none, or out of range"),
    (line(ratelimit=ASKED | {"hits": -1}), "a number in `ratelimit` is none, or out of range"),
    (line(ratelimit=ASKED | {"domain": "\ud800"}), "`ratelimit` holds text that is not Unicode"),
    (line(ratelimit=ASKED | {"descriptors": [[]]}), "a descriptor in `ratelimit` has no `entries`"),
]
ENTRIES: list[Any] = [["k"], ["k", None], ["k", 1], ["k", "v", "w"], ["k", 1, HASH], ["k", "v", HASH, 1], "kv", {}]
ENTRIES += [["k", None, HASH.upper()], ["k", None, HASH + "0"], ["k", None, ""]]
LIMITS: list[Any] = [[1, "fortnight"], [1], 1, ["1", "day"], [-1, "day"]]


@pytest.mark.parametrize(("bad", "reason"), MALFORMED, ids=lambda each: str(each)[:40])
def test_malformed_lines(bad: bytes, reason: str) -> None:
    with pytest.raises(MalformedLineError) as raised:
        read_request(read_line(bad).asked)
    assert str(raised.value) == reason


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_malformed_entries(entry: object) -> None:
    with pytest.raises(MalformedLineError, match=r"neither \[key, value\] nor"):
        read_request(ASKED | {"descriptors": [{"entries": [entry]}]})


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_malformed_limits(limit: object) -> None:
    with pytest.raises(MalformedLineError):
        read_request(ASKED | {"descriptors": [{"entries": [], "limit": limit}]})


def test_what_was_asked() -> None:
    full = {"entries": [["a", "1"], ["b", None, HASH], ["c", "x", HASH]], "limit": [5.0, "week"], "hits": 2.0}
    request = read_request({"domain": "d", "descriptors": [full, {"entries": [], "negative": True}], "hits": 3})
    first, second = request.descriptors
    assert first.entries == (LoggedEntry("a", "1"), LoggedEntry("b", None, HASH), LoggedEntry("c", "x", HASH))
    assert (first.limit, first.hits, first.negative) == (Override(5, Unit.WEEK), 2, False)
    assert (second.entries, second.limit, second.hits, second.negative) == ((), None, None, True)
    assert (request.domain, request.hits) == ("d", 3)
    assert read_request({"domain": "d", "omitted": "why"}) == LoggedRequest("d", omitted="why")


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["entries", "hits", "limit"]), inner),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"domain": json_data, "descriptors": json_data}, optional={"hits": json_data}))
def test_no_data_is_worse_than_malformed(asked: object) -> None:
    with suppress(MalformedLineError):
        assert isinstance(read_request(asked), LoggedRequest)
