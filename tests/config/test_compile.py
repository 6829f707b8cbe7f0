"""Compiling a config from plain data, as it may come from anywhere."""

from typing import Any

import pytest
from pydantic import ValidationError

from extauth.config.compile import compile_domain
from extauth.config.merge import load_rules
from extauth.config.schema import FileModel
from extauth.errors import ConfigError, Place
from extauth.rules.model import Algorithm, Domain, Kind, Limit, Rule, Tier, Unit

DATA: dict[str, Any] = {
    "domain": "d",
    "algorithm": "gcra",
    "tiers": {"free": {"unit": "minute", "requests_per_unit": 5, "burst": 2}},
    "descriptors": [
        {"key": "a", "value": "010", "tier": "free", "metadata": {"n": 1.5, "list": [True, None]}},
        {"key": "b", "value_range": {"start": 1, "end": 9}, "shadow_mode": True, "rate_limit": {"unit": "day"}},
    ],
}
FREE = Limit(5, Unit.MINUTE, Algorithm.GCRA, count_denied=False, name="free", burst=2)


def compiled(**changes: object) -> Domain:
    return compile_domain(FileModel.model_validate(DATA | changes))


def test_plain_data_is_a_config() -> None:
    domain = compiled()
    assert domain.tiers == (Tier("free", FREE),)
    assert domain.rules == (
        Rule(
            "a",
            value="010",
            kind=Kind.VALUE,
            limits=(FREE,),
            tier="free",
            metadata={"n": 1.5, "list": [True, None]},
        ),
        Rule(
            "b",
            kind=Kind.RANGE,
            values=(1, 9),
            limits=(Limit(0, Unit.DAY, Algorithm.GCRA, count_denied=False),),
            shadow_mode=True,
        ),
    )


def test_plain_data_compiles_to_what_the_same_yaml_does() -> None:
    text = """
domain: d
algorithm: gcra
tiers: {free: {unit: minute, requests_per_unit: 5, burst: 2}}
descriptors:
- {key: a, value: 010, tier: free, metadata: {n: 1.5, list: [yes, ~]}}
- {key: b, value_range: {start: 1, end: 9}, shadow_mode: true, rate_limit: {unit: day}}
"""
    rules = load_rules({"f.yaml": text}).domains["d"].rules
    model = FileModel.model_validate(DATA)
    places = {("descriptors", 0): Place("f.yaml", 6, 3), ("descriptors", 1): Place("f.yaml", 7, 3)}
    located = compile_domain(model, lambda location, *, at_key=False: places.get(location, Place("f.yaml")))
    assert located.rules == rules


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tiers": {}}, "unknown tier; no tier is defined"),
        (
            {"descriptors": [{"key": "a"}, {"key": "a"}]},
            "a descriptor with this key is already defined on line 2; keep one of the two",
        ),
        (
            {"descriptors": [{"key": "a", "value_regex": "("}]},
            "not an RE2 regex: missing ): (; RE2 has no look-around and no back-references",
        ),
    ],
)
def test_a_problem_has_the_place_that_the_caller_gives_it(changes: dict[str, Any], problem: str) -> None:
    model = FileModel.model_validate(DATA | changes)
    with pytest.raises(ConfigError) as raised:
        compile_domain(model, lambda location, *, at_key=False: Place("xds", len(location), 1))
    (only,) = raised.value.problems
    assert (only.place.file, str(only).partition(":1: ")[2]) == ("xds", problem)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"requests_per_unit": "5"}, "must be a whole number, not a string"),
        ({"requests_per_unit": True}, "must be a whole number, not true or false"),
        ({"requests_per_unit": 5.0}, "must be a whole number, not a number with a fraction or exponent"),
        ({"requests_per_unit": 2**32}, "must be at most 4294967295"),
        ({"requests_per_unit": -1}, "must be 0, 1, 2, …, not a negative number"),
        ({"unlimited": "yes"}, "must be true or false, not a string"),
        ({"name": 5}, "must be a string, not a number"),
    ],
)
def test_data_of_another_type_is_refused(limit: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FileModel.model_validate(DATA | {"tiers": {"free": {"unit": "day"} | limit}})
    assert [detail["msg"] for detail in raised.value.errors()] == [message]


@pytest.mark.parametrize(
    ("number", "fits"), [(2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False)]
)
def test_a_range_is_of_64_bit_numbers(number: int, fits: bool) -> None:
    start, end = sorted((0, number))
    descriptor = {"key": "k", "value_range": {"start": start, "end": end}}
    if fits:
        assert compiled(descriptors=[descriptor]).rules[0].values == (start, end)
    else:
        with pytest.raises(ValidationError, match=r"must be at (most|least)"):
            compiled(descriptors=[descriptor])
