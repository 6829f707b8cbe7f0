"""What the metrics call a request: the names of its rules, and its path."""

import re
from hashlib import sha256

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest

from extauth.rules.masking import Masking
from tests.limiter.service import Service, descriptor

ROUTE = "httproute/d/auth/rule/0/match/0/*"  # as Envoy Gateway calls it: a value that equals its key is no secret
NAMES = [
    ("- {key: a}", ["a=of-a-caller"], "a"),
    ("- {key: a, value: of-the-file}", ["a=of-the-file"], "a_of-the-file"),
    ("- {key: a, value_to_metric: true}", ["a=shown"], "a_shown"),
    ("- {key: a, detailed_metric: true}", ["a=shown"], "a_shown"),
    ("- {key: a, value: se*}", ["a=secret-value"], "a_se*"),
    ("- {key: 'a*', value: x}", ["a-made-up=x"], f"a*_{Masking().mask('x')}"),
    ("- {key: 'header_*', value_to_metric: true}", ["header_auth=s"], f"header_auth_{Masking().mask('s')}"),
    ("- {key: '*', detailed_metric: true}", ["password=s"], f"password_{Masking().mask('s')}"),
    (
        "- {key: token, value: s*, value_to_metric: true, share_threshold: true}",
        ["token=secret"],
        f"token_{Masking().mask('s*')}",
    ),
    ("- {key: a, value: se*, value_to_metric: true}", ["a=secret"], "a_secret"),
    ("- {key: a, value: se*, value_to_metric: true, share_threshold: true}", ["a=secret"], "a_se*"),
    ("- {key: a, value: se*, detailed_metric: true, share_threshold: true}", ["a=secret"], "a_se*"),
    ("- {key: a, value_regex: of.*}", ["a=of-a-caller"], "a_of.*"),
    ("- {key: a, value_range: {start: 1, end: 9}}", ["a=5"], "a_1..9"),
    ("- {key: a, values: [x, y]}", ["a=y"], "a_y"),
    (f"- {{key: a, value_sha256: {sha256(b'x').hexdigest()}}}", ["a=x"], f"a_{sha256(b'x').hexdigest()[:12]}…"),
    ("- {key: api_key, value: secret-key}", ["api_key=secret-key"], f"api_key_{Masking().mask('secret-key')}"),
    ("- {key: X-Api-Key, value_regex: se.*}", ["X-Api-Key=se"], f"X-Api-Key_{Masking().mask('se.*')}"),
    ("- {key: auth-token, value_to_metric: true}", ["auth-token=s"], f"auth-token_{Masking().mask('s')}"),
    ("- {key: passwords, detailed_metric: true}", ["passwords=s"], f"passwords_{Masking().mask('s')}"),
    (f"- {{key: {ROUTE}, value: {ROUTE}}}", [f"{ROUTE}={ROUTE}"], f"{ROUTE}_{ROUTE}"),
    ("- {key: token, values: [token, other]}", ["token=token"], "token_token"),
    ("- {key: token, values: [token, other]}", ["token=other"], f"token_{Masking().mask('other')}"),
    ("- {key: 'header_*', value_to_metric: true}", ["header_auth=header_auth"], "header_auth_header_auth"),
    ("- {key: 'header_*', value_to_metric: true}", ["header_a=header_*"], f"header_a_{Masking().mask('header_*')}"),
    ("- {key: '*', detailed_metric: true}", ["password=password"], "password_password"),
]


@pytest.mark.parametrize(("text", "entries", "name"), NAMES)
def test_the_metric_names_the_rule_and_values_where_it_was_asked_to(text: str, entries: list[str], name: str) -> None:
    service = Service("descriptors:\n" + text[:-1] + ", rate_limit: {unit: day, requests_per_unit: 1}}")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*entries)]))
    assert [rule.name for rule in service.planner.plan(message).tally.rules] == [name]


RULES_OF_ONE_NAME = """
- {key: path, value: /api/v1/login, rate_limit: &l {unit: day, requests_per_unit: 1}}
- {key: path, value: /api/v1/orders, rate_limit: *l}
- {key: a, value: b_c, rate_limit: *l}
- {key: a_b, value: c, rate_limit: *l}
- {key: a_b_c, rate_limit: *l}
- {key: a_b_c, value: d, rate_limit: *l}
- {key: k, value: m.n, rate_limit: *l}
- {key: k, value: m, descriptors: [{key: n, rate_limit: *l}]}
- {key: k_1..2, rate_limit: *l}
- {key: k, value_range: {start: 1, end: 2}, rate_limit: *l}
"""


def test_each_rule_has_a_name_of_its_own_in_the_metrics() -> None:
    service = Service("descriptors:" + RULES_OF_ONE_NAME)
    requests = [
        "path=/api/v1/login",
        "path=/api/v1/orders",
        "a=b_c",
        "a_b=c",
        "a_b_c=x",
        "a_b_c=d",
        "k=m.n",
        "k_1..2=y",
    ]
    entries = [[text] for text in requests] + [["k=m", "n=y"], ["k=1"]]
    names = [
        service.planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*each)]))).tally.rules[0].name
        for each in entries
    ]
    assert len(set(names)) == len(entries), names
    assert names[:4] == ["path_/api/v1/login", "path_/api/v1/orders", "a_b_c", "a_b_c (f.yaml:6)"]


def test_rules_of_one_name_in_one_line_have_names_of_their_own_too() -> None:
    limit = "rate_limit: {unit: day, requests_per_unit: 1}"
    pairs = ("key: a_b_c", "key: a, value: b_c", "key: a_b, value: c")
    service = Service(f"descriptors: [{', '.join(f'{{{pair}, {limit}}}' for pair in pairs)}]")
    names = [
        service.planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor(entry)]))).tally.rules[0].name
        for entry in ("a_b_c=x", "a=b_c", "a_b=c")
    ]
    assert names[:2] == ["a_b_c", "a_b_c (f.yaml:2)"]
    assert names[2].startswith("a_b_c (f.yaml:2):")


@pytest.mark.parametrize(
    ("rules", "asked", "name"),
    [
        ("{key: q, values: [x], rate_limit: *l}, {key: q_x, rate_limit: *l}", ["q=x"], "q_x (request)"),
        (
            "{key: a, value_to_metric: true, rate_limit: *l}, {key: a, value: b, descriptors: [{key: c, tier: t}]}",
            ["a=b.c"],
            "a_b.c (request)",
        ),
    ],
)
def test_a_request_does_not_count_as_a_rule_of_the_file(rules: str, asked: list[str], name: str) -> None:
    head = "tiers: {t: &l {unit: day, requests_per_unit: 1}}\ndescriptors: ["
    service = Service(head + rules + "]")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*asked)]))
    assert service.planner.plan(message).tally.rules[0].name == name


@pytest.mark.parametrize(
    ("secret", "value", "path"),
    [
        ("secret: [path]", "/users/jane", Masking().mask("/users/jane")),
        ("secret: [path]", "path", Masking().mask("path")),
        ("", "path", "path"),
    ],
)
def test_a_label_of_a_secret_key_is_masked(secret: str, value: str, path: str) -> None:
    service = Service(f"labels: [path]\n{secret}\ndescriptors: []")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(f"path={value}")]))
    assert service.planner.plan(message).template.labels.path == path


@pytest.mark.parametrize(
    ("secret", "name"),
    [("", f"token_{Masking().mask('v')}.k_w"), ("secret: []\n", "token_v.k_w"), ("secret: [k]\n", None)],
)
def test_the_file_says_which_keys_are_secret(secret: str, name: str | None) -> None:
    rules = "descriptors: [{key: token, value: v, descriptors: [{key: k, value: w, rate_limit: {unit: day}}]}]"
    service = Service(secret + rules)
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor("token=v", "k=w")]))
    masks = Masking().mask
    assert service.planner.plan(message).tally.rules[0].name == (name or f"token_{masks('v')}.k_{masks('w')}")


@pytest.mark.parametrize(
    ("secret", "more", "asked", "name"),
    [
        (ROUTE, "", [f"{ROUTE}={ROUTE}"], f"{ROUTE}_{Masking().mask(ROUTE)}"),
        (ROUTE, ", detailed_metric: true", [f"{ROUTE}={ROUTE}"], f"{ROUTE}_{Masking().mask(ROUTE)}"),
        ("token", "", [f"{ROUTE}={ROUTE}"], f"{ROUTE}_{ROUTE}"),
    ],
)
def test_a_value_that_equals_its_key_is_masked_where_the_file_lists_the_key(
    secret: str, more: str, asked: list[str], name: str
) -> None:
    limit = "rate_limit: {unit: day, requests_per_unit: 1}"
    service = Service(f"secret: ['{secret}']\ndescriptors: [{{key: '{ROUTE}', value: '{ROUTE}', {limit}{more}}}]")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*asked)]))
    assert service.planner.plan(message).tally.rules[0].name == name


def test_a_secret_key_keys_the_fingerprints() -> None:
    masks = [Masking(secret).mask("free-tier-key") for secret in ("", "s", "t")]
    assert len(set(masks)) == 3
    assert all(re.fullmatch(r"fr\*\*\*~[0-9a-f]{6}", mask) for mask in masks)
    assert Masking("s").mask("short").startswith("***~")
