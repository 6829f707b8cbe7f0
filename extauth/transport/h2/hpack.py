"""Header blocks (RFC 7541) of one connection, decoded by jh2.

A block that does not change the dynamic table means the same until another block changes it. So a client that repeats
its blocks byte for byte, as Envoy does, costs one dict look-up for each.
"""

import re
from typing import NamedTuple

try:
    from jh2._hazmat import Decoder
except ImportError:  # no wheel with the Rust decoder for this platform: the Python one is ten times slower
    from jh2.hpack import Decoder

from extauth.transport.engine import MAX_BLOCK_BYTES, Guard, OnGuard
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.frames import ErrorCode, H2Error
from extauth.transport.h2.request_head import Fields, Head, read_head, read_oversized

TABLE_SIZE = 4096  # SETTINGS_HEADER_TABLE_SIZE, which is left at its default
MAX_REMEMBERED = 64
MAX_REMEMBERED_BYTES = 2048  # of one block; all of a connection's are 128 KiB
FIELD_BYTES = 32  # that RFC 9113 §6.5.2 adds for each field

_INDEXED = re.compile(rb"[\x80-\xfe]+")  # fields that are one byte each
_MAX_FIELDS = MAX_BLOCK_BYTES // FIELD_BYTES
# Of each byte's Huffman code, in bits (RFC 7541 appendix B). jh2 has it, beside a decoder in Python that takes 0.7 MB.
_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)


class HeaderDecoder:
    """The receiving side's state: every block must be decoded, in order. `known` has the Heads of remembered blocks.

    The Head of a list of more than `max_list_bytes` is `oversized`, and Guard.HEADERS is reported. With `traced`, Heads
    have their `parent`; one that has it is not remembered, as no other call has the same.
    """

    def __init__(self, max_list_bytes: int, on_guard: OnGuard, *, traced: bool = False) -> None:
        self._decoder = Decoder(MAX_BLOCK_BYTES)
        self._max_list_bytes = max_list_bytes
        self._on_guard = on_guard
        self._traced = traced
        self.known: dict[bytes, Head] = {}
        self.decoded = 0  # bytes of lists that were not known, FIELD_BYTES a field included

    def decode(self, block: bytes) -> Head:
        """Decode the block; raises H2Error for the connection if the table's state is lost.

        It is lost by a block that cannot be decoded, and by a list of more than MAX_BLOCK_BYTES.
        """
        head = self.known.get(block)
        if head is not None:
            return head
        try:
            scanned = _scan(block)
            fields = self._decoder.decode(block, True)
        except Exception as error:  # jh2 raises an HPACKError of its own, and undocumented ones
            if type(error).__name__ in _OVERSIZED:
                CloseReason.HEADER_LIST.count(self._on_guard)
                raise CloseReason.HEADER_LIST.error() from error
            if isinstance(error, H2Error):
                raise
            raise _undecodable("header block cannot be decoded") from error
        for field, part, end, size in scanned.huffman:
            _check_padding(fields[field][part], block[end - 1], size)
        size = self._size(fields)
        self.decoded += size
        if size > self._max_list_bytes:
            self._on_guard(Guard.HEADERS)
            head = read_oversized(fields)
        else:
            head = read_head(fields, traced=self._traced)
        if scanned.changes_table or len(self.known) >= MAX_REMEMBERED:
            self.known.clear()
        repeatable = not scanned.changes_table and not head.oversized and head.parent is None
        if repeatable and len(block) <= MAX_REMEMBERED_BYTES:
            self.known[block] = head
        return head

    def _size(self, fields: Fields) -> int:
        """A list's size as RFC 9113 §6.5.2 counts it, which the Rust decoder does not; a lower bound if it is long."""
        if len(fields) * FIELD_BYTES > self._max_list_bytes:
            return len(fields) * FIELD_BYTES
        return sum(len(field[0]) + len(field[1]) + FIELD_BYTES for field in fields)


class _TooManyFieldsError(Exception):
    """The list has more fields than fit into MAX_BLOCK_BYTES."""


_OVERSIZED = frozenset((_TooManyFieldsError.__name__, "OversizedHeaderListError"))


class _Scanned(NamedTuple):
    """A block's structure; a Huffman string is (its field's index, 0 for name or 1 for value, its end, its size)."""

    changes_table: bool
    huffman: list[tuple[int, int, int, int]]


def _scan(block: bytes) -> _Scanned:
    """Walk over a block's representations (RFC 7541 §6) and refuse what jh2 lets pass or breaks on.

    That is: size updates out of place or too large (§4.2), and strings and integers that do not end inside the block.
    Also more fields than a list of MAX_BLOCK_BYTES can have.
    """
    at, size, field = 0, len(block), 0
    changes = False
    huffman: list[tuple[int, int, int, int]] = []
    while at < size:
        if field > _MAX_FIELDS:
            raise _TooManyFieldsError
        byte = block[at]
        if byte >= 0x80:  # indexed
            if (run := _INDEXED.match(block, at)) is not None:
                field += run.end() - at
                at = run.end()
            else:
                _, at = _integer(block, at, 0x7F)
                field += 1
        elif byte >= 0x40 or byte < 0x20:  # literal, with and without incremental indexing
            changes = changes or byte >= 0x40
            index, at = _integer(block, at, 0x3F if byte >= 0x40 else 0x0F)
            for part in (1,) if index else (0, 1):
                if at >= size:
                    raise _undecodable("header block is cut off")
                coded = block[at] >= 0x80
                length, at = _integer(block, at, 0x7F)
                at += length
                if at > size:
                    raise _undecodable("header block is cut off")
                if coded and length:
                    huffman.append((field, part, at, length))
            field += 1
        else:  # dynamic table size update
            at = _table_size(block, at, field)
            changes = True
    if field > _MAX_FIELDS:
        raise _TooManyFieldsError
    return _Scanned(changes, huffman)


def _table_size(block: bytes, at: int, field: int) -> int:
    """Where the bytes after the size update at `at` begin."""
    table_size, at = _integer(block, at, 0x1F)
    if field or table_size > TABLE_SIZE:
        raise _undecodable("dynamic table size update out of place or too large")
    return at


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """The integer (§5.1) that begins at `at`, and where the bytes after it begin."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 35, 7):
        if at >= len(block):
            break
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _undecodable("integer too long")


def _check_padding(decoded: bytes, last: int, size: int) -> None:
    """§5.2: at most 7 bits, all ones."""
    padding = 8 * size - sum(decoded.translate(_CODE_LENGTHS))
    ones = (1 << padding) - 1 if 0 <= padding < 8 else 0
    if not 0 <= padding < 8 or last & ones != ones:
        raise _undecodable("Huffman padding is wrong")


def _undecodable(reason: str) -> H2Error:
    return H2Error(ErrorCode.COMPRESSION_ERROR, reason)
