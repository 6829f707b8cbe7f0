"""The arguments and replies of take.lua, settle.lua and give_back.lua."""

import struct
from collections.abc import Sequence
from operator import attrgetter

from extauth.counters.redis.scripts import bulk, bulks, run_of
from extauth.limiter.algorithms import AnyAlgorithm, Level
from extauth.limiter.counters import Group, LimitCheck, Owed, Part, Return, Source, TakeResult

_CALLS = struct.Struct("<I")
_ASK = struct.Struct("<IBd")
_STORE = Source.STORE  # on Python 3.11 it takes as long to look a member up as to call a function
_new = tuple.__new__  # the constructor of a NamedTuple is a Python function, which takes twice as long
_packed = attrgetter("packed")
_ARGUMENTS = b"$%d\r\n%b\r\n" * 3
_RETURN = struct.Struct("<Idd")


def pack_take(groups: Sequence[Group], number: int, now: bytes, most: bytes = b"") -> tuple[bytes, bytes, int]:
    """The command: its array header, and what follows EVALSHA and the script (see lua/take.lua for the arguments).

    And how many numbers the reply has. `now` is empty where the server's own clock counts; `most` is that of
    `pack_most`, or empty where no group is a Part.
    """
    keys: list[bytes] = []
    limits: dict[AnyAlgorithm, int] = {}
    asked: dict[int, tuple[bytes, int]] = {}  # by identity: many takes ask the same
    packed: list[bytes] = []
    size = 2
    pack_calls = _CALLS.pack
    for take, calls in groups:
        keys += take.names
        known = asked.get(id(take.checks))
        if known is None:
            known = asked[id(take.checks)] = _pack_checks(take.checks, limits)
        packed += (pack_calls(calls), known[0])
        size += known[1]
    limits_packed = b"".join(map(_packed, limits))
    arguments = _ARGUMENTS % (len(now), now, len(limits_packed), limits_packed, sum(map(len, packed)), b"".join(packed))
    body = b"".join((bulk(b"%d" % len(keys)), bulks(keys), arguments, bulk(b"%d" % number), most and bulk(most)))
    return b"*%d\r\n" % ((8 if most else 7) + len(keys)), body, size


def _pack_checks(checks: Sequence[LimitCheck], limits: dict[AnyAlgorithm, int]) -> tuple[bytes, int]:
    """The checks of a group, after the number of its calls, and how many numbers the reply has for it."""
    packed, numbers = [_CALLS.pack(len(checks))], 1
    for check in checks:
        packed.append(_ASK.pack(limits.setdefault(check.algorithm, len(limits)), check.mode, check.cost))
        numbers += check.algorithm.numbers
    return b"".join(packed), numbers


def pack_most(groups: Sequence[Group]) -> bytes:
    """How many calls of each group may be admitted."""
    most = [min(take.most, calls) if isinstance(take, Part) else calls for take, calls in groups]
    return struct.pack(f"<{len(most)}I", *most)


def note_receipts(groups: Sequence[Group], at_us: int) -> None:
    """Note on each Part when its hits were taken."""
    for take, _ in groups:
        if isinstance(take, Part):
            take.taken(at_us)


def read_take(reply: Sequence[int], groups: Sequence[Group], number: int, size: int) -> list[TakeResult]:
    """The reply to the take of that number; raises ValueError, TypeError or IndexError where it is another's.

    It must have the right number of numbers, and admit nothing that was not asked for.
    """
    if reply[0] != number or len(reply) != size or not isinstance(sum(reply), int):
        raise ValueError
    takens = []
    at = 2
    for take, calls in groups:
        admitted = reply[at]
        at += 1
        if not 0 <= admitted <= calls:
            raise ValueError
        checks = take.checks
        if len(checks) == 1:
            end = at + checks[0].algorithm.numbers
            levels: tuple[Level, ...] = (_new(checks[0].algorithm.read, reply[at:end]),)
            at = end
        else:
            each = []
            for check in checks:
                end = at + check.algorithm.numbers
                each.append(_new(check.algorithm.read, reply[at:end]))
                at = end
            levels = tuple(each)
        takens.append(_new(TakeResult, (admitted, levels, _STORE)))
    return takens


def pack_settle(owed: Sequence[Owed], now: bytes) -> tuple[bytes, bytes]:
    """The command: its array header, and what follows the script (see lua/settle.lua for the arguments)."""
    limits: dict[AnyAlgorithm, int] = {}
    packed = [
        struct.pack(f"<II{len(numbers)}d", limits.setdefault(algorithm, len(limits)), len(numbers), *numbers)
        for _, algorithm, numbers in owed
    ]
    arguments = (now, b"".join([algorithm.packed for algorithm in limits]), b"".join(packed))
    return run_of([name for name, _, _ in owed], arguments)


def pack_returns(returns: Sequence[Return], now: bytes) -> tuple[bytes, bytes]:
    """The command: its array header, and what follows the script (see lua/give_back.lua for the arguments)."""
    limits: dict[AnyAlgorithm, int] = {}
    packed = [
        _RETURN.pack(limits.setdefault(algorithm, len(limits)), hits, at_us) for _, algorithm, hits, at_us in returns
    ]
    arguments = (now, b"".join([algorithm.packed for algorithm in limits]), b"".join(packed))
    return run_of([each.name for each in returns], arguments)
