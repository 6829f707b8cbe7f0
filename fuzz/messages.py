"""Requests and health checks, beside protobuf's own reader.

An input is a byte that says what it is, H for a health check, then the message.
"""

from collections.abc import Coroutine
from dataclasses import fields as fields_of
from random import Random
from typing import Any, cast

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest

from extauth.config.merge import load_rules
from extauth.counters.memory import MemoryCounters
from extauth.errors import InvalidRequestError
from extauth.limiter.build import LimiterOptions, build, build_planner
from extauth.limiter.facts import BatchResult
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.limiter.plan import PlanTemplate
from extauth.rls.protobuf import FIXED, LENGTH, VARINT, bytes_field, number_field, read_varint, varint
from extauth.rls.request import SERVICE, Descriptor, Entry, Override, decode_descriptor, split_request
from extauth.rls.response import encode_response
from extauth.rules.model import RuleSet, Unit
from extauth.transport.h2.grpc_framing import GrpcError, Status
from extauth.transport.h2.health import SERVICES, STORE_SERVICE, Health
from fuzz.schema import MESSAGES
from fuzz.target import Flip, Target, mutate_items
from tests.support.clock import Clock

RULES = """
domain: d
algorithm: gcra
labels: [path]
tiers:
  gold: {unit: minute, requests_per_unit: 20, replaces: [{name: each}]}
  free: {unlimited: true}
descriptors:
- {key: k, rate_limit: {name: each, unit: minute, requests_per_unit: 5}}
- {key: k, value: v, tier: gold, descriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 7, burst: 3}}]}
- {key: k, value: f, tier: free}
- {key: k, value: "w*", share_threshold: true, rate_limit: {unit: second, requests_per_unit: 1}}
- {key: ip, value_cidr: [0.0.0.0/0, 10.0.0.0/8, "2001:db8::/32"], rate_limit: {unit: day, requests_per_unit: 2}}
- {key: n, value_range: {start: -3, end: 1000}, rate_limit: {unit: day, requests_per_unit: 2, algorithm: fixed_window}}
- {key: n, value_regex: "[a-z]+", rate_limit: {unit: day, requests_per_unit: 2, algorithm: sliding_window}}
- {key: n, values: [x, "é"], value_to_metric: true, rate_limit: {unit: week, requests_per_unit: 3, count_denied: true}}
- {key: q, quota_mode: true, metadata: {a: {b: [1, 2.5, null, true, s]}}, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: s, shadow_mode: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 0}}
- key: m
  rate_limits: [{unit: second, requests_per_unit: 2}, {name: each, unit: minute, requests_per_unit: 9}]
"""
"""Something of everything that a plan may be made of."""

UNITS = {unit.number: unit for unit in Unit}

_PLANNERS = {
    modes: build_planner(load_rules({"f.yaml": RULES}), LimiterOptions(modes=modes))
    for modes in (NO_MODES, GlobalModes(metadata=True))
}


def _parsed(kind: str, message: bytes) -> Any | None:  # noqa: ANN401 - made above
    """The message as protobuf reads it; None where it does not."""
    parsed = MESSAGES[kind]()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        return None
    return parsed


def check(data: bytes) -> None:
    """Check a request or, where the first byte is H, a health check."""
    if data[:1] == b"H":
        _check_health(data[1:])
    else:
        _check_request(data[1:])


def _check_health(message: bytes) -> None:
    health = Health()
    health.report(serving=True, store=True)
    try:
        found = bool(health.check(message))
    except InvalidRequestError:
        return
    except GrpcError as error:
        assert error.status is Status.NOT_FOUND
        found = False
    asked = HealthCheckRequest()
    try:
        asked.ParseFromString(message)
    except DecodeError:
        return
    assert found == (asked.service in {*SERVICES, STORE_SERVICE}), asked.service


def _check_request(message: bytes) -> None:
    told = _parsed("Request", message)
    if told is not None:
        _check_reading(message, told)
    for modes in _PLANNERS:
        _check_plan(message, told, modes)


def _check_reading(message: bytes, told: Any) -> None:  # noqa: ANN401 - made above
    """What we accept says what protobuf read."""
    try:
        request = split_request(message)
        descriptors = [decode_descriptor(encoded) for encoded in request.descriptors]
    except InvalidRequestError:
        return
    assert request.domain == _text(told.domain), (request, told)
    assert request.hits_addend == (told.hits_addend or 1), (request, told)
    assert descriptors == [_descriptor(each) for each in told.descriptors], (descriptors, told)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _descriptor(told: Any) -> Descriptor:  # noqa: ANN401 - made above
    return Descriptor(
        tuple(Entry(_text(entry.key), _text(entry.value)) for entry in told.entries),
        Override(told.limit.requests_per_unit, UNITS[told.limit.unit]) if told.HasField("limit") else None,
        told.hits_addend.value if told.HasField("hits_addend") else None,
        told.is_negative_hits,
    )


def _check_plan(message: bytes, told: Any | None, modes: GlobalModes) -> None:  # noqa: ANN401 - made above
    """Planned from other bytes that say the same, it is the same plan; and it can be decided and answered."""
    planner = _PLANNERS[modes]
    planner.swap(planner.matcher)  # which forgets what it remembered of earlier inputs
    try:
        plan = planner.plan(message)
    except InvalidRequestError:
        return
    if told is not None:
        told.DiscardUnknownFields()
        same = planner.plan(told.SerializeToString())
        assert plan.names == same.names, (plan.names, same.names)
        assert all(getattr(plan.template, f.name) == getattr(same.template, f.name) for f in fields_of(PlanTemplate))
    _, limiter, answers = build(RuleSet(), MemoryCounters(Clock()))
    for _ in range(2):
        (settled,) = _run(limiter.decide({plan: 2})).groups
        for call, answer in enumerate(answers.encode(settled)):
            verdict = limiter.verdict(settled, call)
            assert verdict is not None
            assert answer == encode_response(verdict), (answer, verdict)
            response = _parsed("Response", answer)
            assert response is not None, answer
            assert len(response.statuses) == len(plan.template.counters_of)


def _run(decided: Coroutine[Any, Any, BatchResult]) -> BatchResult:
    """What a coroutine returns that waits for nothing."""
    try:
        decided.send(None)
    except StopIteration as stopped:
        return cast(BatchResult, stopped.value)
    raise AssertionError("counters in memory wait for nothing")


def seeds() -> dict[str, bytes]:
    """Inputs to begin with."""

    def entry(key: str, value: str) -> bytes:
        return bytes_field(1, bytes_field(1, key.encode()) + bytes_field(2, value.encode()))

    def request(*descriptors: bytes, domain: bytes = b"d", hits: int = 0) -> bytes:
        return b"R" + bytes_field(1, domain) + b"".join(bytes_field(2, d) for d in descriptors) + number_field(3, hits)

    values = {"k": "1vfw", "n": ["0", "-3", "999", "x", "é", "zz"], "q": "1", "s": "1", "m": "1", "path": "/"}
    made = {f"{key}-{n}": request(entry(key, value)) for key in values for n, value in enumerate(values[key])}
    each = [entry(key, values[key][0]) for key in values]
    override = bytes_field(2, number_field(1, 9) + number_field(2, 2))
    return made | {
        "all": request(*each),
        "two-levels": request(entry("k", "v") + entry("k", "x")),
        "twice": request(entry("k", "1"), entry("k", "1"), hits=3),
        "unknown-domain": request(entry("k", "1"), domain=b"other"),
        "no-utf-8": request(bytes_field(1, bytes_field(1, b"k") + bytes_field(2, b"\xff\xc3"))),
        "long-value": request(entry("k", "x" * 300)),
        "override": request(entry("k", "1") + override, entry("y", "1") + override),
        "override-in-parts": request(entry("k", "1") + bytes_field(2, number_field(1, 9)) + override),
        "hits": request(entry("k", "1") + bytes_field(3, number_field(1, 2)), hits=2**32 - 1),
        "peek": request(entry("k", "1") + bytes_field(3, b"")),
        "negative": request(entry("k", "1") + bytes_field(3, number_field(1, 2)) + number_field(4, 1)),
        "unknown-fields": request(entry("k", "1") + b"\x21........\x7d....", hits=1) + b"\x7a\x01x" + b"\x28\x01",
        "groups": request(entry("k", "1")) + b"\x2b\x08\x01\x2c",
        "empty": b"R",
        "health": b"H",
        "health-by-name": b"H" + bytes_field(1, SERVICE.encode()),
        "health-of-another": b"H" + bytes_field(1, b"x"),
    }


def mutate(data: bytes, rng: Random, flip: Flip) -> bytes:
    """Mutate the fields, at any depth, and their lengths with them."""
    if rng.random() < 0.2:
        return flip(data)
    return (data[:1] or b"R") + _mutate_message(data[1:], rng, flip)


_Member = tuple[int, int, bytes]
"""A field: its number, its wire type, its value without a length."""


def _mutate_message(message: bytes, rng: Random, flip: Flip) -> bytes:
    try:
        members = _split(message)
    except InvalidRequestError:
        return flip(message)

    def change(member: _Member) -> _Member:
        number, kind, value = member
        match rng.randrange(8):
            case 0:
                return rng.randrange(1, 6), kind, value
            case 1:
                return number, rng.choice((VARINT, LENGTH, *FIXED)), value
            case 2 | 3 | 4:
                return number, kind, _mutate_message(value, rng, flip)
        return number, kind, flip(value)

    mutate_items(members, rng, change, lambda: rng.choice(FRESH))
    return b"".join(map(_join, members))


def _split(message: bytes) -> list[_Member]:
    """The fields; raises InvalidRequestError where it is no message."""
    members: list[_Member] = []
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        kind, start = tag & 7, at
        if kind == LENGTH:
            length, start = read_varint(message, at)
        elif kind == VARINT:
            length = read_varint(message, at)[1] - at
        else:
            length = FIXED.get(kind, 0)
        at = start + length
        members.append((tag >> 3, kind, message[start:at]))
    return members


def _join(member: _Member) -> bytes:
    number, kind, value = member
    return varint(number << 3 | kind) + (varint(len(value)) if kind == LENGTH else b"") + value


SEEDS = seeds()
FRESH = [member for data in SEEDS.values() for member in _split(data[1:])]
TARGET = Target(SEEDS, check, mutate)
