"""Hashed values hit the rules that the values themselves hit, as far as that can be told."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from extauth.config.merge import load_rules
from extauth.errors import ConfigError
from extauth.replay.hashed_values import CannotTellError, HashedMatcher
from extauth.replay.log_line import read_request
from extauth.rls.request import Descriptor, Entry, decode_descriptor, split_request
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.model import Kind, Rule
from tests.replay.logs import Logger, descriptor

MASKING = Masking("pepper")
LIMIT = "rate_limit: {unit: minute, requests_per_unit: 1}"


def digest(value: str) -> str:
    return sha256(value.encode()).hexdigest()


def line_hit(config: str, logged: Logger, *entries: str) -> int:
    """The line of the rule that a logged descriptor hits, 0 if none does; raises CannotTellError."""
    matcher = HashedMatcher(load_rules({"f.yaml": config}), MASKING)
    message = matcher.encode(read_request(logged.asked([descriptor(",".join(entries))])))
    (encoded,) = split_request(message).descriptors
    match = matcher.match("d", decode_descriptor(encoded).entries)
    return 0 if match is None else match.rule.place.line


EXACT = f"""domain: d
descriptors:
- {{key: api_key, value: one, {LIMIT}}}
- {{key: api_key, values: [two, three], {LIMIT}}}
- {{key: api_key, value_sha256: {digest("four")}, {LIMIT}}}
- {{key: api_key, {LIMIT}}}
- key: token
  value: outer
  descriptors:
  - {{key: api_key, value_sha256: {digest("inner")}, {LIMIT}}}
- key: path
  value: /a
  {LIMIT}
"""
EXACT_HITS = [
    (["api_key=one"], 3),
    (["api_key=two"], 4),
    (["api_key=three"], 4),
    (["api_key=four"], 5),
    (["api_key=five"], 6),
    (["api_key=inner"], 6),
    (["token=outer", "api_key=inner"], 10),
    (["token=outer", "api_key=one"], 0),
    (["token=other"], 0),
    (["path=/a"], 11),
    (["path=/b"], 0),
]


@pytest.mark.parametrize(("entries", "line"), EXACT_HITS, ids=str)
def test_exact_rules_are_found_by_hash(entries: list[str], line: int) -> None:
    assert line_hit(EXACT, Logger(), *entries) == line


def test_with_another_secret_they_are_not() -> None:
    assert line_hit(EXACT, Logger(secret="salt"), "api_key=one") == 6


def test_the_config_that_logged_says_what_is_hashed() -> None:
    clear = Logger("domain: d\nsecret: []\ndescriptors: [{key: k}]")
    hashed = Logger("domain: d\nsecret: [path]\ndescriptors: [{key: k}]")
    assert line_hit(EXACT, clear, "api_key=four") == 5
    assert line_hit(EXACT, hashed, "path=/a") == 11


PATTERNS = [
    ("{key: api_key, value_regex: 'a.*', " + LIMIT + "}", None),
    ("{key: api_key, value_range: {start: 1, end: 5}, " + LIMIT + "}", None),
    ("{key: api_key, value_cidr: [10.0.0.0/8], " + LIMIT + "}", None),
    ("{key: other, value_cidr: [10.0.0.0/8], " + LIMIT + "}", 5),
    ("{key: api_key, value: 'a*', " + LIMIT + "}", None),
    ("{key: api_key, value: '*a', " + LIMIT + "}", None),
    ("{key: api_key, value: '*', " + LIMIT + "}", 3),
    ("{key: 'api*', " + LIMIT + "}", 3),
    ("{key: 'api*', value: x, " + LIMIT + "}", None),
    ("{key: 'other*', " + LIMIT + "}", 5),
    ("{key: 'api_key_other*', " + LIMIT + "}", None),
    ("{key: other, value_regex: 'a.*', " + LIMIT + "}", 5),
]


@pytest.mark.parametrize(("pattern", "line"), PATTERNS, ids=lambda each: str(each).partition(" rate")[0])
def test_patterns_are_decided_where_the_value_does_not_matter(pattern: str, line: int | None) -> None:
    rules = [pattern, f"{{key: api_key, value: known, {LIMIT}}}", f"{{key: api_key, {LIMIT}}}"]
    config = "domain: d\ndescriptors:\n" + "".join(f"- {rule}\n" for rule in rules)
    if line is None:
        with pytest.raises(CannotTellError) as raised:
            line_hit(config, Logger(), "api_key=unknown")
        assert raised.value.rule.place.line == 3
    else:
        assert line_hit(config, Logger(), "api_key=unknown") == line
    assert line_hit(config, Logger(), "api_key=known") == 4, "an exact rule goes before patterns"


def test_values_that_a_file_names_are_tried_on_patterns() -> None:
    config = f"""domain: d
descriptors:
- {{key: api_key, value_regex: 'a.*', {LIMIT}}}
- key: token
  descriptors:
  - {{key: api_key, values: [abc, xyz], {LIMIT}}}
"""
    assert line_hit(config, Logger(), "api_key=abc") == 3
    assert line_hit(config, Logger(), "api_key=xyz") == 0


def test_long_values_are_matched_whole() -> None:
    long, longer = "x" * 300, "x" * 301
    config = f"domain: d\ndescriptors:\n- {{key: path, value: {long}, {LIMIT}}}\n- {{key: path, {LIMIT}}}\n"
    assert [line_hit(config, Logger(), f"path={value}") for value in (long, longer, "x" * 256)] == [3, 4, 4]


OWN = "route/*"
SHOWN = [
    ("", "", f"{OWN}={OWN}", f"{OWN}={OWN}"),
    ("", "", "token=token", "token=token"),
    ("", "", "token=known", f"token={MASKING.mask('known')}"),
    ("", "", "token=other", f"token=#{MASKING.hashed('other')}"),
    (f"secret: ['{OWN}']", "", f"{OWN}={OWN}", f"{OWN}={MASKING.mask(OWN)}"),
    ("", f"secret: ['{OWN}']", f"{OWN}={OWN}", f"{OWN}={MASKING.mask(OWN)}"),
]


@pytest.mark.parametrize(("logged", "replayed", "asked", "shown"), SHOWN)
def test_a_report_shows_what_neither_the_log_nor_the_config_masks(
    logged: str, replayed: str, asked: str, shown: str
) -> None:
    rules = f"descriptors: [{{key: '{OWN}', value: '{OWN}'}}, {{key: token, values: [token, known]}}]"
    logger = Logger(f"domain: d\n{logged}\n{rules}")
    matcher = HashedMatcher(load_rules({"f.yaml": f"domain: d\n{replayed}\n{rules}"}), MASKING)
    (read,) = read_request(logger.asked([descriptor(asked)])).descriptors
    assert [matcher.show(entry, "d") for entry in read.entries] == [shown]


def test_a_pattern_is_tried_on_a_value_that_equals_its_key() -> None:
    config = f"domain: d\ndescriptors:\n- {{key: '{OWN}', value: '{OWN}', {LIMIT}}}\n"
    assert line_hit(config, Logger(), f"{OWN}={OWN}") == 3


KEYS = st.sampled_from(["api_key", "token", "path"])
VALUES = st.sampled_from(["", "a", "b", "ab", "12", "*", "token", "\0a", "é" * 130, "\udcffx"])
MATCHERS = st.one_of(
    st.just(""),
    VALUES.filter(lambda value: value not in {"", "\0a", "\udcffx"}).map(lambda value: f", value: {value!r}"),
    st.sampled_from([", values: [a, 'b']", ", value_regex: 'a.*'", ", value: 'a*'", ", value: '*'", ", value: '*b'"]),
    st.sampled_from([f", value_sha256: {digest(value)}" for value in ("a", "12")]),
    st.just(", value_range: {start: 10, end: 20}"),
)


@st.composite
def configs(draw: st.DrawFn) -> str:
    """Rules of two levels; of one key and matcher there is one."""

    def level(indent: str, deeper: bool) -> list[str]:
        lines = []
        for key, matcher in draw(st.lists(st.tuples(KEYS, MATCHERS), max_size=5, unique=True)):
            rule = f"{indent}- {{key: {key}{matcher}, {LIMIT}}}"
            inner = level(indent + "  ", deeper=False) if deeper and draw(st.booleans()) else []
            if inner:
                rule = rule[:-1] + ", descriptors: [" + ", ".join(each.strip()[2:] for each in inner) + "]}"
            lines.append(rule)
        return lines

    return "domain: d\ndescriptors:\n" + "\n".join(level("", deeper=True) or ["- {key: none}"]) + "\n"


@settings(max_examples=300, deadline=None)
@given(configs(), st.lists(st.builds(Entry, KEYS, VALUES), min_size=1, max_size=2))
def test_a_logged_request_hits_what_the_request_hit_or_cannot_be_told(config: str, entries: Sequence[Entry]) -> None:
    try:
        rules = load_rules({"f.yaml": config})
    except ConfigError:  # two rules for one value
        assume(False)
    want = Matcher(rules).match("d", entries)
    matcher = HashedMatcher(rules, MASKING)
    message = matcher.encode(read_request(Logger().asked([Descriptor(tuple(entries))])))
    (encoded,) = split_request(message).descriptors
    untold: list[Rule] = []
    try:
        got = matcher.match("d", decode_descriptor(encoded).entries)
    except CannotTellError as error:
        untold.append(error.rule)
    else:
        assert (got and got.rule) == (want and want.rule)
    patterns = [rule for rule in rules if rule.kind in {Kind.WILDCARD, Kind.REGEX, Kind.RANGE}]
    assert all(rule in patterns and rule.key in {entry.key for entry in entries} for rule in untold)
