"""The phases of a connection.

    phase     meaning                                               next phase
    STARTING  the client's preface and SETTINGS have not come       OPEN; FINISHED: HTTP/1, or go_away
    OPEN                                                            LEAVING: go_away
    LEAVING   GOAWAY says that we leave; new streams are accepted   DRAINING: our PING came back, or refuse_new
    DRAINING  GOAWAY has named the last stream                      FINISHED: no stream is left
    ENDING    after an error: GOAWAY has named the last stream;     FINISHED: no call waits; CUT: one still does after
              nothing is read, and the calls received are answered  the stall timeout
    FINISHED  nothing more is read or written: to be half-closed
    CUT       to be closed at once

An error takes any phase before ENDING there, and `Connection.close` takes all to FINISHED.
"""

from enum import IntEnum


class Phase(IntEnum):
    """The phases of a connection, in their order."""

    STARTING = 0
    OPEN = 1
    LEAVING = 2
    DRAINING = 3
    ENDING = 4
    FINISHED = 5
    CUT = 6


# Compared once or more for each read; a name is looked up faster than a member of its Enum.
STARTING, OPEN, LEAVING, DRAINING, ENDING, FINISHED, CUT = Phase
