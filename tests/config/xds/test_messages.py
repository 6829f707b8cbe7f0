"""A RateLimitConfig means what a file with the same words does."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauth.config.merge import load_rules
from extauth.config.parse import ParsedFile
from extauth.config.sources.config_message import MAX_DEPTH
from extauth.config.sources.discovery import TYPE, Resource
from extauth.config.sources.rate_limit_config import parse_resource
from extauth.errors import NOWHERE, ConfigError
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.model import Rule
from tests.support.xds_messages import config

# Three keys and values, so that duplicates and wildcards are frequent.
KEYS = st.sampled_from(["a", "b", "c*"])
VALUES = st.sampled_from(["", "x", "y", "z*"])
UNITS = st.sampled_from(["second", "minute", "hour", "day", "week", "month", "year", "unknown"])


def with_keys(draw: st.DrawFn, given: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    return {key: draw(strategy) for key, strategy in given.items() if draw(st.booleans())}


@st.composite
def limits(draw: st.DrawFn) -> dict[str, Any]:
    names = st.sampled_from(["", "one", "two"])
    limit = with_keys(
        draw,
        {
            "unlimited": st.booleans(),
            "name": names,
            "replaces": st.lists(st.fixed_dictionaries({"name": names}), max_size=2),
        },
    )
    if not limit.get("unlimited") or draw(st.booleans()):
        limit["unit"] = draw(UNITS)
    return {"requests_per_unit": draw(st.integers(0, 2**32 - 1)), **limit}


METADATA = st.dictionaries(
    st.sampled_from(["n", "m"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-1e9, 1e9) | st.sampled_from(["", "text"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["i", "j"]), inner, max_size=2),
        max_leaves=4,
    ),
)


@st.composite
def descriptors(draw: st.DrawFn, depth: int = 0) -> list[dict[str, Any]]:
    def one() -> dict[str, Any]:
        flags = dict.fromkeys(("shadow_mode", "quota_mode", "detailed_metric"), st.booleans())
        inner = {"descriptors": descriptors(depth + 1)} if depth < 2 else {}
        rest = with_keys(draw, {"rate_limit": limits(), "metadata": METADATA, **flags, **inner})
        return {"key": draw(KEYS), "value": draw(VALUES), **rest}

    return [one() for _ in range(draw(st.integers(0, 3)))]


def parsed(data: dict[str, Any]) -> ParsedFile:
    return parse_resource(Resource(TYPE, config(data)))


def plain(rules: tuple[Rule, ...]) -> list[Any]:
    """Rules without their places."""
    names = [name for name in Rule.__dataclass_fields__ if name not in {"place", "rules"}]
    return [[{name: getattr(rule, name) for name in names}, plain(rule.rules)] for rule in rules]


@given(descriptors())
def test_a_message_means_what_the_file_does_and_is_refused_where_that_is(found: list[dict[str, Any]]) -> None:
    data = {"domain": "d", "descriptors": found}
    here = parsed(data)
    try:
        there = load_rules({"f.yaml": yaml.safe_dump(data)}).domains["d"]
    except ConfigError:
        assert here.problems
        return
    assert here.problems == []
    assert here.domain is not None
    assert plain(here.domain.rules) == plain(there.rules)


def test_it_has_the_secret_keys_that_are_given() -> None:
    secret = SecretKeys(frozenset({"k"}))
    resource = Resource(TYPE, config({"domain": "d", "descriptors": [{"key": "k", "value": "v"}]}))
    for read, keys in ((parse_resource(resource), NAMED_SO), (parse_resource(resource, secret), secret)):
        assert read.domain is not None
        assert read.domain.secret == keys


@pytest.mark.parametrize(
    ("descriptor", "problem"),
    [
        ({"key": ""}, "xds:d#descriptors[0].key: must not be empty; name the key of the entry that it matches"),
        (
            {"key": "k", "descriptors": [{"key": "a"}, {"key": "b"}, {"key": "a"}]},
            (
                "xds:d#descriptors[0].descriptors[2]: a descriptor with this key is already defined as descriptors[0]; "
                "keep one of the two"
            ),
        ),
        (
            {"key": "k", "rate_limit": {"requests_per_unit": 1}},
            "xds:d#descriptors[0].rate_limit: 'unit' is missing; add unit: …",
        ),
        (
            {"key": "k", "rate_limit": {"unlimited": True, "unit": "day"}},
            "xds:d#descriptors[0].rate_limit.unit: an unlimited limit has no unit; remove `unit`, or `unlimited`",
        ),
        (
            {"key": "k", "rate_limit": {"unit": "day", "replaces": [{"name": ""}]}},
            "xds:d#descriptors[0].rate_limit.replaces[0].name: must not be empty; name a limit",
        ),
    ],
)
def test_a_problem_names_its_place(descriptor: dict[str, Any], problem: str) -> None:
    assert problem in map(str, parsed({"domain": "d", "descriptors": [descriptor]}).problems)


def test_what_is_harmless_in_generated_rules_is_no_warning() -> None:
    limit = {"unit": "hour", "requests_per_unit": 0}
    inner = [{"key": "rule-0-match-0", "value": "rule-0-match-0", "shadow_mode": True, "rate_limit": limit}]
    read = parsed({"domain": "d", "descriptors": [{"key": "r", "shadow_mode": True, "descriptors": inner}]})
    assert (read.problems, read.warnings) == ([], [])
    assert read.domain is not None
    (limit_of_zero,) = read.domain.rules[0].rules[0].limits
    assert limit_of_zero.requests_per_unit == 0


def test_messages_nest_no_deeper_than_allowed() -> None:
    assert parse_resource(Resource(TYPE, nested(MAX_DEPTH))).problems == []
    assert "nests deeper" in str(parse_resource(Resource(TYPE, nested(MAX_DEPTH + 1))).problems[0])


def varint(number: int) -> bytes:
    more = number >> 7
    return bytes((number & 0x7F | 0x80,)) + varint(more) if more else bytes((number,))


def nested(levels: int) -> bytes:
    message = b"\x0a\x01k"
    for _ in range(levels - 1):
        message = b"\x0a\x01k\x22" + varint(len(message)) + message
    return b"\x12\x01d\x1a" + varint(len(message)) + message


UNKNOWN = {
    "a number": b"\xa0\x06\x96\x01",
    "text": b"\xa2\x06\x03abc",
    "four bytes": b"\xa5\x06abcd",
    "eight bytes": b"\xa1\x06abcdefgh",
    "a group": b"\xa3\x06\x0a\x01x\x0b\x0d1234\x0c\x10\x01\xa4\x06",
    "a key that is a number": b"\x08\x05",
    "a limit that is a number": b"\x18\x05",
    "a flag that is a text": b"\x2a\x01x",
}


@pytest.mark.parametrize("unknown", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("first", [True, False])
def test_fields_that_are_not_known_are_passed_over(unknown: bytes, first: bool) -> None:
    known = b"\x0a\x01k\x1a\x04\x08\x02\x10\x05\x28\x01"
    descriptor = unknown + known if first else known + unknown
    read = parse_resource(Resource(TYPE, b"\x12\x01d\x1a" + varint(len(descriptor)) + descriptor))
    assert read.domain is not None
    (rule,) = read.domain.rules
    assert (rule.key, str(rule.limits[0]), rule.shadow_mode) == ("k", "5 per minute", True)


@pytest.mark.parametrize(
    "broken",
    [b"\xa5\x06abc", b"\xa1\x06abcdefg", b"\xa3\x06\x08\x01", b"\xa3\x06\xac\x06", b"\x07", b"\x00\x01", b"\xa4\x06"],
)
def test_fields_that_make_no_sense_are_refused(broken: bytes) -> None:
    descriptor = b"\x0a\x01k" + broken
    read = parse_resource(Resource(TYPE, b"\x12\x01d\x1a" + varint(len(descriptor)) + descriptor + b"\x0a\x01rrrrrrr"))
    assert read.domain is None
    assert "malformed message" in str(read.problems[0])


CUT = config({"domain": "d", "descriptors": [{"key": "k", "rate_limit": {"unit": "day", "requests_per_unit": 300}}]})


@pytest.mark.parametrize("length", range(1, len(CUT)))
def test_a_message_that_is_cut_off_is_never_read_as_a_whole_one(length: int) -> None:
    read = parse_resource(Resource(TYPE, CUT[:length]))
    whole = parse_resource(Resource(TYPE, CUT))
    assert read.domain is None or read.domain.rules != whole.domain.rules  # type: ignore[union-attr]


@given(st.binary(max_size=60))
def test_any_bytes_are_rules_or_a_problem(message: bytes) -> None:
    read = parse_resource(Resource(TYPE, message))
    assert (read.domain is None) == bool(read.problems)
    assert not any("fault of the reader" in str(problem) for problem in read.problems)


@given(st.data())
def test_a_message_with_other_bytes_in_it_is_rules_or_a_problem(data: st.DataObject) -> None:
    message = bytearray(config({"domain": "d", "descriptors": data.draw(descriptors())}))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    read = parse_resource(Resource(TYPE, bytes(message)))
    assert (read.domain is None) == bool(read.problems)
    assert not any("fault of the reader" in str(problem) for problem in read.problems)


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (Resource("type.googleapis.com/x", b""), "xds:(unnamed): the resource cannot be decoded: its type is"),
        (Resource(TYPE, b"\x0a\x01r\x12\x01\xff"), "xds:r: the resource cannot be decoded: a text in it is not UTF-8"),
        (Resource(TYPE, b"\x0a\x01r"), "xds:r: the resource names no domain"),
        (Resource(TYPE, b"\x0a\x01r\x12\x09d"), "xds:r: the resource cannot be decoded: malformed message"),
    ],
)
def test_what_cannot_be_read_has_no_domain(resource: Resource, problem: str) -> None:
    read = parse_resource(resource)
    assert (read.name, read.domain) == (None, None)
    assert str(read.problems[0]).startswith(problem)


def test_parts_of_a_message_that_comes_twice_are_merged() -> None:
    unit, requests = b"\x08\x02", b"\x10\x05"
    descriptor = b"\x0a\x01k" + b"\x1a\x02" + unit + b"\x1a\x02" + requests
    read = parse_resource(Resource(TYPE, b"\x12\x01d\x1a" + varint(len(descriptor)) + descriptor))
    assert read.domain is not None
    assert str(read.domain.rules[0].limits[0]) == "5 per minute"
    assert read.domain.rules[0].place != NOWHERE
