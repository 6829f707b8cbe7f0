"""Which values are secret: by the names of their keys, by the file's list, and not where they equal their keys."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauth.rules.masking import SECRET_WORDS, SecretKeys

ROUTE = "httproute/default/auth/rule/0/match/0/*"
USUAL, NOTHING = SecretKeys(), SecretKeys(by_name=False)


def listed(*keys: str) -> SecretKeys:
    return SecretKeys(frozenset(keys))


CASES = [
    (USUAL, "plan", "gold", None, False),
    (USUAL, "api_key", "k", None, True),
    (USUAL, "X-Auth-Token", "k", None, True),
    (USUAL, "header_*", "k", None, True),
    (USUAL, "header_x", "k", "header_*", True),
    (USUAL, "api_key", "api_key", None, False),
    (USUAL, ROUTE, ROUTE, None, False),
    (USUAL, ROUTE, ROUTE, ROUTE, False),
    (USUAL, "header_auth", "header_auth", "header_*", False),
    (USUAL, "header_auth", "header_*", "header_*", True),
    (USUAL, "api_key", "API_KEY", None, True),
    (USUAL, "api_key", "api_key ", None, True),
    (USUAL, "api_key", "", None, True),
    (listed("plan"), "plan", "plan", None, True),
    (listed(ROUTE), ROUTE, ROUTE, None, True),
    (listed("header_*"), "header_x", "header_x", "header_*", True),
    (listed("plan"), "api_key", "api_key", None, False),
    (listed("plan"), "api_key", "k", None, True),
    (NOTHING, "api_key", "k", "api_*", False),
    (SecretKeys(frozenset({"api_key"}), by_name=False), "api_key", "api_key", None, True),
]


@pytest.mark.parametrize(("keys", "key", "value", "rule_key", "secret"), CASES)
def test_whether_a_value_is_secret(keys: SecretKeys, key: str, value: str, rule_key: str | None, secret: bool) -> None:
    assert keys.covers(key, value, rule_key) is secret


def spelled(write: Callable[[str], str]) -> st.SearchStrategy[str]:
    return st.sampled_from(SECRET_WORDS).map(write)


KEYS = st.one_of(
    st.text("abk-_*", max_size=6),
    st.sampled_from(["plan", "path", "header_*", "*", ROUTE]),
    spelled(str.upper),
    spelled(lambda word: f"x-{word[:2]}_{word[2:]}s"),
)
SECRET = st.builds(SecretKeys, st.frozensets(KEYS, max_size=3), st.booleans())


def secret_key(keys: SecretKeys, key: str) -> bool:
    plain = "".join(char for char in key.lower() if char not in "-_")
    return key in keys.keys or (keys.by_name and ("*" in key or any(word in plain for word in SECRET_WORDS)))


@given(SECRET, KEYS, st.one_of(st.none(), KEYS), st.one_of(KEYS, st.text()))
@example(USUAL, "header_auth", "header_*", "header_*")
def test_a_value_that_differs_from_its_key_is_secret_where_either_key_is(
    keys: SecretKeys, key: str, rule_key: str | None, value: str
) -> None:
    if value == key:
        assert keys.covers(key, value, rule_key) is (key in keys.keys or rule_key in keys.keys)
    else:
        assert keys.covers(key, value, rule_key) is any(
            secret_key(keys, each) for each in (key, rule_key) if each is not None
        )


@given(SECRET, SECRET, KEYS)
@example(USUAL, listed("api_key"), "api_key")
@example(listed("plan"), listed("plan", ROUTE), ROUTE)
def test_two_lists_cover_a_key_alike_where_they_agree_on_all_its_values(
    one: SecretKeys, other: SecretKeys, key: str
) -> None:
    agree = all(one.covers(key, value) == other.covers(key, value) for value in (key, f"{key}, another"))
    assert one.covers_alike(other, key) is agree
    assert other.covers_alike(one, key) is agree
