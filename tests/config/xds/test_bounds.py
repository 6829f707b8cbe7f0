"""What all resources of a response may have together."""

from typing import Any

import pytest

from extauth.config.diagnostics import MAX_PROBLEMS
from extauth.config.sources.config_message import ConfigDecoder
from extauth.config.sources.discovery import TYPE, Resource
from extauth.config.sources.resources import ResourceReader
from extauth.errors import RequestTooLargeError
from tests.support.xds_messages import config

MOST = 10
MANY = "more than 300000 descriptors, limits that they replace, and values of metadata"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("config_message", "resources"):
        monkeypatch.setattr(f"extauth.config.sources.{module}.MAX_DESCRIPTORS", MOST)


def domain(name: str, descriptors: int, **more: Any) -> Resource:  # noqa: ANN401
    return Resource(
        TYPE, config({"domain": name, "descriptors": [{"key": f"k{n}"} | more for n in range(descriptors)]})
    )


BROKEN_A = Resource(TYPE, config({"domain": "a", "descriptors": [{"key": "k"}, {"key": "k"}]}))


@pytest.fixture
def reader() -> ResourceReader:
    return ResourceReader(keep_bytes=True)


def rules(reader: ResourceReader) -> dict[str, int]:
    return {name: len(found.rules) for name, found in reader.rules.domains.items()}


def problems(reader: ResourceReader) -> str:
    return "\n".join(map(str, reader.rules.problems))


def test_with_too_many_descriptors_in_all_no_rules_are_changed(reader: ResourceReader) -> None:
    assert reader.read([domain("a", 6), domain("b", 4)]).changed
    in_force = sorted(reader.in_force())
    assert reader.read([domain("a", 7), domain("c", 4)]).changed
    assert rules(reader) == {"a": 6, "b": 4}
    assert reader.rules.retained == {"a", "b"}
    assert f"all resources together have {MANY}" in problems(reader)
    assert sorted(reader.in_force()) == in_force
    assert reader.read([domain("a", 7), domain("c", 3)]).changed
    assert rules(reader) == {"a": 7, "c": 3}
    assert not reader.rules.problems


def test_rules_that_a_broken_domain_keeps_count(reader: ResourceReader) -> None:
    reader.read([domain("a", 6)])
    reader.read([BROKEN_A, domain("b", 5)])
    assert rules(reader) == {"a": 6}
    reader.read([BROKEN_A, domain("b", 4)])
    assert rules(reader) == {"a": 6, "b": 4}
    reader.read([BROKEN_A, domain("c", 4)])
    assert rules(reader) == {"a": 6, "c": 4}


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"list": [{}, {}, {}, {}]}},
        {"rate_limit": {"unit": "day", "replaces": [{"name": f"n{n}"} for n in range(6)]}},
        {"descriptors": [{"key": f"i{n}"} for n in range(5)]},
    ],
    ids=["metadata", "replaces", "descriptors"],
)
def test_all_that_takes_memory_counts(more: dict[str, Any]) -> None:
    def decoder(descriptors: int) -> ConfigDecoder:
        each = [{"key": f"k{n}", **more} for n in range(descriptors)]
        for n, descriptor in enumerate(each if "rate_limit" in more else ()):
            descriptor["rate_limit"] = more["rate_limit"] | {"requests_per_unit": n}  # equal ones are read once
        return ConfigDecoder(config({"domain": "a", "descriptors": each}))

    one = decoder(1)
    one.config()
    assert 6 <= one.parts <= MOST
    with pytest.raises(RequestTooLargeError, match=MANY):
        decoder(2).config()


def test_of_very_many_broken_resources_some_are_told(reader: ResourceReader) -> None:
    count = MAX_PROBLEMS + 9
    reader.read([Resource(TYPE, config({"name": f"r{n:03}"})) for n in range(count)])
    assert len(reader.rules.problems) == MAX_PROBLEMS + 1
    assert f"{count} problems; showing the first {MAX_PROBLEMS}" in problems(reader)
