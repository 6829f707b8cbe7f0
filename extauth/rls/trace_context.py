"""The trace that a call belongs to, as W3C Trace Context describes it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_STATE_BYTES = 512  # of tracestate, which is passed on whole or not at all; its §3.3.1.5 asks for at least that much

_PARENT = re.compile(rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 1
_DIGITS = frozenset(b"%x" % digit for digit in range(0, 16, 2))  # of flags that do not have it


class TraceParent(NamedTuple):
    """The caller's span, of which it says that it is recorded; identifiers are hexadecimal."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""


def may_be_sampled(traceparent: bytes) -> bool:
    """False where it surely names no sampled parent: a quick look at the digit that says so."""
    return traceparent[54:55] not in _DIGITS


def sampled_parent(traceparent: Sequence[bytes], tracestate: Sequence[bytes]) -> TraceParent | None:
    """The parent that the values of the two headers name; None where it is not sampled, or where they are malformed."""
    if len(traceparent) != 1 or not may_be_sampled(traceparent[0]):
        return None
    match = _PARENT.fullmatch(traceparent[0])
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # Later versions may add fields at the end; ff is none.
    if version == b"ff" or (version == b"00" and more is not None) or not int(flags, 16) & _SAMPLED:
        return None
    state = b",".join(tracestate) if tracestate else b""
    if len(state) > MAX_STATE_BYTES or not state.isascii():
        state = b""
    return TraceParent(trace_id.decode(), span_id.decode(), int(flags, 16), state.decode())
