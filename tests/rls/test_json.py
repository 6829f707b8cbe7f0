"""Calls in protobuf's JSON, beside the reader and the writer of protobuf's own library."""

import json
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import given
from hypothesis import strategies as st

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.rls.json_request import encode_json_request
from extauth.rls.json_response import json_of_response
from extauth.rls.request import decode_descriptor, split_request
from extauth.rls.response import Code, DenyingLimit, DescriptorStatus, ResponseHeaders, Verdict, encode_response
from extauth.rules.model import Limit, Unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UINT32 = st.integers(0, 2**32 - 1)


@cache
def message_class(name: str) -> Any:  # noqa: ANN401 - it is made as the test runs
    """A message of RateLimitService, as protobuf's library makes it from the descriptors that reflection has."""
    found = descriptor_pb2.FileDescriptorSet.FromString(
        files("extauth.transport").joinpath("descriptors.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    left = {file.name: file for file in found.file}

    def add(name: str) -> None:
        if (file := left.pop(name, None)) is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for file in found.file:
        add(file.name)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"envoy.service.ratelimit.v3.{name}"))


def read(body: str | bytes) -> Any:  # noqa: ANN401 - as its class
    """The message of a JSON text."""
    text = body.encode() if isinstance(body, str) else body
    return message_class("RateLimitRequest").FromString(encode_json_request(text))


DESCRIPTORS = st.fixed_dictionaries(
    {"entries": st.lists(st.fixed_dictionaries({"key": TEXT, "value": TEXT}), max_size=3)},
    optional={
        "limit": st.fixed_dictionaries({"requestsPerUnit": UINT32, "unit": st.sampled_from(["SECOND", "YEAR", 3])}),
        "hitsAddend": st.integers(0, 2**64 - 1),
    },
)


@given(
    st.fixed_dictionaries({"domain": TEXT, "descriptors": st.lists(DESCRIPTORS, max_size=3), "hitsAddend": UINT32}),
    st.booleans(),
)
def test_what_the_library_writes_is_read_as_it_was(data: dict[str, Any], snake: bool) -> None:
    message = json_format.ParseDict(data, message_class("RateLimitRequest")())
    text = json_format.MessageToJson(message, preserving_proto_field_name=snake)
    assert read(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"domain": "", "descriptors": [{"entries": [{"key": "", "value": ""}]}]}',
        '{"domain": null, "descriptors": null, "hitsAddend": null}',
        '{"hitsAddend": "5"}',
        '{"hitsAddend": 5.0}',
        '{"hitsAddend": 1e2}',
        '{"hitsAddend": "1e2"}',
        '{"hits_addend": 4294967295}',
        '{"descriptors": [{"hits_addend": "18446744073709551615"}]}',
        '{"descriptors": [{"hitsAddend": 0}]}',
        '{"descriptors": [{"limit": {"requests_per_unit": 3, "unit": 2}}]}',
        '{"domain": "\\ud83d\\ude00", "descriptors": [{"entries": [{"key": "k", "value": "ü"}]}]}',
    ],
)
def test_what_may_be_written_in_several_ways(text: str) -> None:
    assert read(text) == json_format.Parse(text, message_class("RateLimitRequest")())


@pytest.mark.parametrize("name", ["isNegativeHits", "is_negative_hits"])
@pytest.mark.parametrize("value", [True, False])
def test_negative_hits_which_the_library_does_not_know_yet(name: str, value: bool) -> None:
    (descriptor,) = split_request(
        encode_json_request(json.dumps({"descriptors": [{name: value}]}).encode())
    ).descriptors
    assert decode_descriptor(descriptor).is_negative_hits is value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON: Expecting value, at line 1, column 1"),
        (b"{", "not JSON: "),
        (b"[]", "the message must be an object"),
        (b'{"domain": 1}', "domain must be a string"),
        (b'{"domain": "\xff"}', "the JSON is not UTF-8"),
        (b'{"domain": "\\ud800"}', "the JSON is not UTF-8"),
        (b'{"domian": "a"}', "domian is no field; the fields are domain, descriptors, hitsAddend, hits_addend"),
        (b'{"domain": "a", "domain": "b"}', "a key comes twice in an object"),
        (b'{"hitsAddend": 1, "hits_addend": 1}', "hits_addend is there twice"),
        (b'{"descriptors": {}}', "descriptors must be a list"),
        (b'{"descriptors": [null]}', "descriptors[0] must be an object"),
        (b'{"descriptors": [{}, {"entries": [{"key": 1}]}]}', "descriptors[1].entries[0].key must be a string"),
        (b'{"descriptors": [{"isNegativeHits": 1}]}', "descriptors[0].isNegativeHits must be true or false"),
        (b'{"descriptors": [{"limit": {"unit": "EON"}}]}', "descriptors[0].limit.unit must be one of UNKNOWN, SECOND"),
        *(
            (b'{"hitsAddend": %s}' % wrong, "hitsAddend must be a whole number, 0 to 4294967295")
            for wrong in (
                b"-1",
                b"4294967296",
                b"1.5",
                b"true",
                b'"x"',
                b'" 1"',
                b'"1_0"',
                b'"05"',
                b"{}",
                b"1e9999",
                b"1e-9999",
            )
        ),
        (b'{"hitsAddend": NaN}', "NaN is no number"),
        (b'{"hitsAddend": ' + b"9" * 5000 + b"}", "not JSON as protobuf has it: "),
        (b"[" * 60_000, "the JSON is nested too deeply"),
    ],
    ids=lambda value: str(value)[:60].replace("\\", "/"),  # which pytest escapes once more each time it is asked
)
def test_what_is_wrong_is_refused_with_its_place(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(body)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


NAMES = st.sampled_from(["domain", "descriptors", "entries", "key", "limit", "unit", "hitsAddend", "hits_addend", "x"])
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1e9999", "-0", "SECOND"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=60) | ANY_JSON.map(lambda data: json.dumps(data).encode()))
def test_whatever_comes_is_a_message_or_refused(body: bytes) -> None:
    with suppress(InvalidRequestError):
        assert read(body) is not None


LIMIT = Limit(2, Unit.MINUTE, name='li"mit')
STATUSES = (
    DescriptorStatus(Code.OVER_LIMIT, LIMIT, 0, 59_000_001),
    DescriptorStatus(Code.OK),
    DescriptorStatus(Code.OK, remaining=2**32 - 1),
)
METADATA = {"n": 3, "half": 0.5, "no": None, "yes": True, "text": "ü", "deep": {"list": [1, "a", {"b": []}]}, "e": {}}


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Code.OK, ()),
        Verdict(Code.OK, STATUSES, tier="free", metadata=METADATA),
        Verdict(Code.OVER_LIMIT, STATUSES, tier="free", denying=DenyingLimit(LIMIT, 12_500_000, 59_000_001)),
        Verdict(Code.OVER_LIMIT, (), metadata={"k": "v"}, without_store="local"),
    ],
    ids=["least", "admitted", "denied", "without the store"],
)
@pytest.mark.parametrize("headers", [None, ResponseHeaders()], ids=["plain", "with headers"])
def test_an_answer_is_written_as_the_library_does(verdict: Verdict, headers: ResponseHeaders | None) -> None:
    message = encode_response(verdict, headers)
    expected = json_format.MessageToDict(message_class("RateLimitResponse").FromString(message))
    assert json.loads(json_of_response(message)) == expected


@pytest.mark.parametrize(
    "body",
    [b'{"descriptors": [' + b"{}," * 10_000 + b"{}]}", b'{"descriptors": [{"entries": [' + b"{}," * 10_000 + b"{}]}]}"],
    ids=["descriptors", "entries"],
)
def test_of_a_list_that_is_too_long_only_so_much_is_read_that_it_is_refused(body: bytes) -> None:
    message = encode_json_request(body)
    assert len(message) < 1000
    with pytest.raises(RequestTooLargeError):
        list(map(decode_descriptor, split_request(message).descriptors))
