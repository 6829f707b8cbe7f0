"""Who closes a connection, and when: every reason, in one table.

A connection ends in one of four ways, by which the table is grouped. Where it is half-closed, it is closed for good
CLOSE_DELAY_S later. A bug of ours, an exception while bytes are read, makes asyncio close the connection as well.
"""

from enum import Enum
from typing import Final, NamedTuple

from extauth.transport.engine import Guard, OnGuard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import ErrorCode, H2Error

CLOSE_DELAY_S: Final = 1.0

_CALM: Final = ErrorCode.ENHANCE_YOUR_CALM
_DONE: Final = ErrorCode.NO_ERROR
_LEAVING: Final = "shutting down"


class Unused(NamedTuple):
    """A connection without open calls: whether it had any, and since when it has none. The smallest is closed first."""

    answered: bool
    since: float


class CloseReason(Enum):
    """Why a connection is closed: when, the code and the text of its GOAWAY (None: without one), and the guard counted.

    Where the client breaks RFC 9113 or RFC 7541, an H2Error with a code and a text of its own takes the place of these;
    it ends the connection as the first group does. tests/transport/test_closing.py has a case for each reason.
    """

    # fmt: off
    # GOAWAY; nothing more is read, the calls received are answered, and then it is half-closed (`Connection._end`).
    SLOW_START = ("the client has not begun in time", ErrorCode.SETTINGS_TIMEOUT, "no preface and SETTINGS in time",
                  Guard.SLOW_START)
    SLOW_HEADERS = ("a header block goes on for too long", _CALM, "a header block is not finished in time",
                    Guard.SLOW_REQUEST)
    HEADER_LIST = ("a header list is too large to skip", _CALM, "header list too large", Guard.HEADERS)
    HEADER_BLOCK = ("a header block is too large to skip", _CALM, "a header block too large, or in too many frames",
                    Guard.HEADERS)
    HEADER_MEMORY = ("the memory for header blocks is used up", _CALM, "no memory for more of a header block",
                     Guard.HEADERS)
    CONTROL_FRAMES = ("a flood of control frames", _CALM, "too many frames that ask for nothing", Guard.CONTROL_FRAMES)
    RESETS = ("a flood of wrong streams", _CALM, "too many streams that had to be reset", Guard.RESETS)
    TOO_MANY = ("max_connections are open", _CALM, "too many connections", Guard.CONNECTIONS)  # `turn_away`: no calls

    # GOAWAY and PING; once the PING came back, or CLOSE_DELAY_S later, a GOAWAY that names the last stream; half-closed
    # when no stream is left (`go_away`). Where nothing has been asked yet, IDLE closes at once, and its GOAWAY, if the
    # client has begun, names no stream. TLS handshakes are cut short.
    IDLE = ("unused while room for connections is short", _DONE, _LEAVING, Guard.IDLE)
    OLD = ("it is as old as max_age_s allows", _DONE, "max_age", None)
    SHUTDOWN = ("the server stops", _DONE, _LEAVING, None)

    # Half-closed, without GOAWAY.
    NOT_HTTP2 = ("the client uses HTTP/1 (it is answered 415), or TLS negotiated another protocol", None, "", None)

    # Closed at once, without a further GOAWAY (`close_at_once`, and the Acceptor for what is not a connection yet).
    SLOW_READER = ("the client reads nothing for stall_timeout_s", None, "", Guard.SLOW_READER)
    UNANSWERED = ("stall_timeout_s after an error, a call still waits for the store", None, "", None)
    GRACE_OVER = ("streams are left at the end of the grace that `stop` gives", None, "", None)
    CLIENT_GONE = ("the client has closed its side, or the network failed", None, "", None)
    TLS_TOO_MANY = ("max_connections are open, before a TLS handshake", None, "", Guard.CONNECTIONS)
    TLS_SILENT = ("a TLS client sends nothing for stall_timeout_s", None, "", Guard.SLOW_START)
    TLS_FAILED = ("the TLS handshake fails, or takes longer than stall_timeout_s", None, "", None)
    OTHER_CLIENT = ("a TLS client's certificate is not for the name that it must be for", None, "", None)
    # fmt: on

    def __init__(self, when: str, code: ErrorCode | None, text: str, guard: Guard | None) -> None:
        self.when = when
        self.code = code
        self.text = text
        self.guard = guard

    def count(self, on_guard: OnGuard) -> None:
        """Report the guard, if the reason has one."""
        if self.guard is not None:
            on_guard(self.guard)

    def error(self) -> H2Error:
        """The error that ends a connection for this reason, which has a code."""
        assert self.code is not None, self  # noqa: S101 - for the type
        return H2Error(self.code, self.text)

    def goaway(self, last_stream: int) -> bytes:
        """The GOAWAY frame of this reason, which has a code."""
        return frames.goaway(last_stream, self.error().code, self.text)
