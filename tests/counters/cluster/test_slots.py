"""Slots of names, and what nodes say of who serves which."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.counters.redis.cluster.slots import (
    MAX_MASTERS,
    SLOTS,
    SlotMap,
    Span,
    agreed,
    read_slots,
    redirection,
    slot_of,
)
from extauth.counters.redis.server import Address
from tests.support.cluster import RealCluster

ASKED = Address("10.0.0.9", 6379)
A, B, C = (Address(f"10.0.0.{i}", 7000) for i in range(3))
NAMES = [b"", b"a", b"{a}b", b"b{a}", b"{}a", b"a{b", b"a}{b}", b"{{a}}", b"{a}{b}", b"a{b}c{d}", b"\x00{\xff}"]
MASTER = [b"10.0.0.1", 7000, b"id", []]


def test_the_slot_of_a_name_is_the_one_that_servers_reckon_with(shared_cluster: Callable[[str], RealCluster]) -> None:
    (node, *_) = shared_cluster("valkey").masters
    assert [slot_of(name) for name in NAMES] == [node.command("CLUSTER", "KEYSLOT", name) for name in NAMES]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "spans", "nodes"),
    [
        ([], [], []),
        ([[0, 9, MASTER]], [Span(0, 9, Address("10.0.0.1", 7000))], [Address("10.0.0.1", 7000)]),
        ([[0, 9, [b"", 7000]]], [Span(0, 9, Address(ASKED.host, 7000))], [Address(ASKED.host, 7000)]),
        ([[0, 9, [None, 7000]]], [Span(0, 9, Address(ASKED.host, 7000))], [Address(ASKED.host, 7000)]),
        ([[0, 9, [b"?", 7000]]], [], []),
        ([[0, 9, [b"h.example", 0]]], [], []),
        ([[5, 9, [b"a", 1], [b"b", 2]]], [Span(5, 9, Address("a", 1))], [Address("a", 1), Address("b", 2)]),
        ([[5, 9, [b"::1", 1]], [0, 4, [b"b", 2]]], [Span(0, 4, Address("b", 2)), Span(5, 9, Address("::1", 1))], None),
    ],
)
def test_what_a_node_says_is_read(reply: object, spans: list[Span], nodes: list[Address] | None) -> None:
    told = read_slots(reply, ASKED)
    assert list(told.spans) == spans
    assert told.nodes == (set(nodes) if nodes is not None else {span.master for span in spans})


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        7,
        [7],
        [[]],
        [[0]],
        [["a", 9, MASTER]],
        [[-1, 9, MASTER]],
        [[0, SLOTS, MASTER]],
        [[9, 0, MASTER]],
        [[0, 9, 7]],
        [[0, 9, [b"\xff", 7000]]],
        [[0, 9, []]],
        [[0, 9, [[], 7000]]],
        [[i, i, [b"h", 1 + i]] for i in range(MAX_MASTERS + 1)],
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(reply: Any) -> None:  # noqa: ANN401 - whatever a server may send
    with pytest.raises(ValueError, match="makes no sense"):
        read_slots(reply, ASKED)


replies = st.recursive(
    st.none() | st.integers() | st.binary(max_size=9), lambda each: st.lists(each, max_size=4), max_leaves=12
)


@given(replies)
def test_whatever_a_server_sends_is_read_or_refused(reply: object) -> None:
    try:
        told = read_slots(reply, ASKED)
    except ValueError:
        return
    assert told.masters <= told.nodes


@pytest.mark.parametrize(
    ("error", "to"),
    [
        ("MOVED 1 10.0.0.1:7000", Address("10.0.0.1", 7000)),
        ("ASK 1 h.example:7000", Address("h.example", 7000)),
        ("MOVED 1 ::1:7000", Address("::1", 7000)),
        ("MOVED 1 :7000", Address(ASKED.host, 7000)),
        ("MOVED 1 ?:7000", None),
        ("MOVED 1 h", None),
        ("MOVED 1 h:0", None),
        ("MOVED 1 h:99999", None),
        ("MOVED 1", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
    ],
)
def test_a_redirection_names_an_address(error: str, to: Address | None) -> None:
    assert redirection(error, ASKED) == to


def test_a_slot_that_nobody_serves_has_no_master() -> None:
    known = SlotMap([Span(0, 9, A), Span(20, 29, B)])
    assert [known.master_of(slot) for slot in (0, 9, 10, 19, 20, 29, 30, SLOTS - 1)] == [
        A,
        A,
        None,
        None,
        B,
        B,
        None,
        None,
    ]


owners = st.lists(st.sampled_from([A, B, C, None]), min_size=8, max_size=8)


def view(owned: list[Address | None]) -> SlotMap:
    """Eighths of the slots, each with its master."""
    size = SLOTS // 8
    spans = [Span(i * size, (i + 1) * size - 1, each) for i, each in enumerate(owned) if each is not None]
    return SlotMap(spans)


@given(st.lists(owners, min_size=1, max_size=5), owners)
def test_what_more_than_half_say_holds_and_else_what_was_known(
    said: list[list[Address | None]], known: list[Address | None]
) -> None:
    views = [view(each) for each in said]
    told = [each for each in said if any(each)]  # one that knows nothing has no voice
    together = agreed(views, view(known))
    for i in range(8):
        expected = known[i]
        for candidate in {each[i] for each in told}:
            if 2 * sum(each[i] == candidate for each in told) > len(told):
                expected = candidate
        assert together.master_of(i * SLOTS // 8 + 1) == expected
