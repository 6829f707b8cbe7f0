"""Header blocks, several in a row on one decoder, beside the `hpack` package.

An input is its blocks, each with a byte before it that tells its length.
"""

from random import Random

import hpack
from jh2.hpack import Encoder

from extauth.transport.engine import MAX_BLOCK_BYTES, Guard
from extauth.transport.h2.frames import ErrorCode, H2Error
from extauth.transport.h2.hpack import FIELD_BYTES, MAX_REMEMBERED, HeaderDecoder
from extauth.transport.h2.request_head import read_head, read_oversized
from fuzz.target import Flip, Target, mutate_items
from tests.support.h2_peer import BLOCK, PATH, block

MAX_LIST_BYTES = 600  # small, so that small inputs exceed it


def split(data: bytes) -> list[bytes]:
    """The blocks; the last one may be cut off."""
    blocks, at = [], 0
    while at < len(data):
        blocks.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return blocks


def join(blocks: list[bytes]) -> bytes:
    """The input of these blocks."""
    return b"".join(bytes((min(len(each), 255),)) + each[:255] for each in blocks)


def check(data: bytes) -> None:
    """What we accept means to us what it means to `hpack`; all else raises H2Error for the connection."""
    oversized: list[Guard] = []
    decoder = HeaderDecoder(MAX_LIST_BYTES, oversized.append)
    reference = hpack.Decoder(max_header_list_size=MAX_BLOCK_BYTES)
    for encoded in split(data):
        oversized.clear()
        try:
            head = decoder.decode(encoded)
        except H2Error as error:
            assert (error.code, error.stream) == (ErrorCode.COMPRESSION_ERROR, 0), repr(error)
            return
        fields = [(bytes(name), bytes(value), False) for name, value in reference.decode(encoded, raw=True)]
        assert bool(oversized) == (sum(len(n) + len(v) + FIELD_BYTES for n, v, _ in fields) > MAX_LIST_BYTES)
        assert head == (read_oversized(fields) if oversized else read_head(fields)), (head, fields)
        assert len(decoder.known) <= MAX_REMEMBERED


def seeds() -> dict[str, bytes]:
    """Inputs to begin with."""
    usual = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH.encode()), (b":authority", b"x")]
    usual += [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
    lists = {
        "usual": [usual] * 3,
        "timeouts": [[*usual, (b"grpc-timeout", timeout)] for timeout in (b"5S", b"100m", b"1x", b"123456789n")],
        "encodings": [[*usual, (b"grpc-encoding", encoding)] for encoding in (b"gzip", b"identity", b"br")],
        "lengths": [[*usual, (b"content-length", length)] for length in (b"27", b"-1", b"9" * 19)],
        "trailers": [usual, [(b"x-trailer", b"1")], [(b"grpc-status", b"0")]],
        "malformed": [[(b"Upper", b"1")], [(b"te", b"gzip")], [(b":path", b"/")] * 2, [(b"x", b" y")]],
        "connect": [[(b":method", b"CONNECT"), (b":authority", b"x:1")], [(b":method", b"GET"), *usual[1:]]],
        "growing": [[(b"x%d" % i, b"v" * 8 * i)] for i in range(12)],
        "oversized": [[(b"x", b"y" * 150)]] + [[(b"x", b"y" * 150)] * n for n in (2, 3, 4)],
    }
    made = {}
    for name, blocks in lists.items():
        for huffman in (False, True):
            encoder = Encoder()
            encoded = [encoder.encode([(n, v, False) for n, v in fields], huffman) for fields in blocks]
            made[f"{name}-huffman" if huffman else name] = join(encoded)
    encoder, resized = Encoder(), []
    for size in (4096, 64, 0, 100):
        encoder.header_table_size = size
        resized.append(encoder.encode([(b"x", b"size %d" % size, False), *((n, v, False) for n, v in usual)], True))
    return made | {
        "resized": join(resized),
        "without-the-table": join([BLOCK, block("/x"), BLOCK, BLOCK]),
        "never-indexed": join([b"\x10\x01a\x01b\x1f\x01\x01c", b"\x0f\x2f\x01z"]),
        "cut-off": join([b"\x82\xc0\x82", b"\x00\x01a\x7f"]),
        "integers": join([b"\x82\x83\x00\x7f\x80\x80\x00" + b"a" * 127 + b"\x01b", b"\xff\x80\x80\x80\x80\x10"]),
        "padding": join([b"\x00\x01a\x82\x1c\x64", b"\x00\x01a\x81\x1f"]),
    }


def mutate(data: bytes, rng: Random, flip: Flip) -> bytes:
    """Mutate the blocks one by one, and their lengths with them."""
    if rng.random() < 0.1:
        return flip(data)
    blocks = split(data)
    mutate_items(blocks, rng, flip, lambda: rng.choice(FRESH))
    return join(blocks)


SEEDS = seeds()
FRESH = [each for data in SEEDS.values() for each in split(data)]
TARGET = Target(SEEDS, check, mutate)
