"""Which calls belong to a trace that is recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extauth.rls.trace_context import MAX_STATE_BYTES, TraceParent, may_be_sampled, sampled_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds", 1),
    ],
)
def test_a_sampled_parent_is_read(header: str, flags: int) -> None:
    assert sampled_parent([header.encode()], []) == TraceParent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01more",
        f" 00-{TRACE}-{SPAN}-01",
        "",
    ],
)
def test_a_parent_that_is_not_sampled_or_malformed_is_none(header: str) -> None:
    assert sampled_parent([header.encode()], []) is None


def test_without_exactly_one_parent_there_is_none() -> None:
    header = f"00-{TRACE}-{SPAN}-01".encode()
    assert sampled_parent([], []) is None
    assert sampled_parent([header, header], []) is None


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([b"a=1"], "a=1"),
        ([b"a=1", b"b=2"], "a=1,b=2"),
        ([b"a=" + b"x" * (MAX_STATE_BYTES - 2)], "a=" + "x" * (MAX_STATE_BYTES - 2)),
        ([b"a=" + b"x" * (MAX_STATE_BYTES - 1)], ""),
        ([b"a=\xff"], ""),
    ],
)
def test_its_state_is_passed_on_whole_or_not_at_all(values: list[bytes], state: str) -> None:
    parent = sampled_parent([f"00-{TRACE}-{SPAN}-01".encode()], values)
    assert parent is not None
    assert parent.state == state


@given(
    st.from_regex(
        r"(00|01|fe|ff|0g)-(0{32}|[0-9a-f]{31,33})-(0{16}|[0-9a-f]{15,17})-[0-9a-f]{2}(-|-x|x)?", fullmatch=True
    )
)
def test_it_reads_what_opentelemetry_reads(header: str) -> None:
    span = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": header})).get_span_context()
    ours = sampled_parent([header.encode()], [])
    if span.is_valid and span.trace_flags.sampled:
        assert ours is not None
        assert (int(ours.trace_id, 16), int(ours.span_id, 16)) == (span.trace_id, span.span_id)
        assert ours.flags == span.trace_flags
    else:
        assert ours is None


@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_the_last_digit_of_the_flags_says_at_a_glance_whether_it_may_be_sampled(digit: str) -> None:
    assert may_be_sampled(f"00-{TRACE}-{SPAN}-0{digit}".encode()) is (digit in "13579bdf")
