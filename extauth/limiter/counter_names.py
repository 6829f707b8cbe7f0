"""Counter names: injective, length-prefixed, hash-tagged, and without a caller's values in clear."""

import json
from binascii import b2a_base64, crc_hqx
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final
from zlib import crc32

from extauth.rules.masking import hash_key

SHARDS: Final = 12
"""Into how many shards counters are spread where no setting says so: 2, 3, 4 and 6 masters share them evenly."""

SLOTS: Final = 16384
"""Of a Redis Cluster; a name's slot is the CRC16 of its tag."""

_FIRST_TAGS: Final = (
    *("la2", "dlj", "5nw", "qbw", "lp0", "l0x", "qw5", "qsu"),
    *("fjl", "ng4", "joy", "jk9", "nrv", "nv6", "bwc", "sq3"),
)
"""Of the slots that are multiples of 1024, by which counters were named before other tags were."""


@lru_cache(maxsize=4)
def tags(shards: int) -> tuple[str, ...]:
    """The hash tags of `shards` shards, 1 to SLOTS.

    The slot of the i-th is i x SLOTS / shards, so that nodes that share the slots out evenly share the counters out
    evenly too. A slot has the same tag whatever the number of shards.
    """
    of_slot = dict(zip(range(0, SLOTS, 1024), _FIRST_TAGS, strict=True))
    slots = [i * SLOTS // shards for i in range(shards)]
    missing = set(slots) - of_slot.keys()
    letters = product(digits + ascii_lowercase + ascii_uppercase, repeat=3)  # of which all slots are reached
    while missing:
        tag = "".join(next(letters))
        slot = crc_hqx(tag.encode(), 0) % SLOTS  # the CRC16 of Redis Cluster
        if slot in missing:
            missing.discard(slot)
            of_slot[slot] = tag
    return tuple([of_slot[slot] for slot in slots])


class ShardOf:
    """The number of the shard that a counter lies on: the index of its name's tag among those of `shards`."""

    def __init__(self, shards: int = SHARDS) -> None:
        self._numbers = {tag.encode(): number for number, tag in enumerate(tags(shards))}

    def __call__(self, name: bytes) -> int:
        """Raises KeyError where the name has no such tag."""
        return self._numbers[name[name.index(b"{") + 1 : name.index(b"}")]]


MAX_ENTRIES = 8
MAX_NAME_BYTES = 512
MAX_KEPT = 64  # characters of a key that is remembered

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class KeyNamer:
    """Names the counter of a descriptor: `PREFIX:{TAG}:LEN:DOMAIN,LEN:KEY=HASH,…`, and `:WHICH` where it has several.

    Values, among them API keys and addresses, are in it only as a 128-bit BLAKE2b hash, keyed if there is a secret:
    who reads the store's keys but not the secret cannot try out values. Lengths (in bytes) before the domain and the
    entries' keys keep two descriptors from ever sharing a name. Where all values of a wildcard share a counter, the
    hash is that of the pattern, after a ~. More than MAX_ENTRIES entries, or what would be a name of more than
    MAX_NAME_BYTES, are hashed as a whole, `PREFIX:{TAG}:LEN:DOMAIN,#HASH`, to save memory in the store and here. TAG
    is one of `tags`, chosen by all that follows it but WHICH: the counters of one descriptor lie on one shard, which is
    one slot of a Redis Cluster.
    """

    def __init__(self, prefix: str, secret: str = "", shards: int = SHARDS) -> None:
        self._heads = [f"{prefix}:{{{tag}}}:".encode("utf-8", "surrogateescape") for tag in tags(shards)]
        self._head_bytes = len(self._heads[0])  # of each, for all tags are as long
        self._key = hash_key(secret)

    def __call__(
        self, domain: str, entries: Sequence[tuple[str, str]], shared: Sequence[str | None] = (), suffix: str = ""
    ) -> bytes:
        """The name for `domain` and the (key, value) entries; `shared` is an entry's pattern, or None."""
        if len(entries) == 1 and len(entries[0][0]) < MAX_KEPT and (not shared or shared[0] is None):
            descriptor = _usual_begin(domain, entries[0][0]) + self.fingerprint(entries[0][1])
        elif len(entries) <= MAX_ENTRIES:
            descriptor = _sized(domain)
            for i, (key, value) in enumerate(entries):
                pattern = shared[i] if shared else None
                sign, hashed = (b"=", value) if pattern is None else (b"~", pattern)
                sized = _sized(key) if len(key) < MAX_KEPT else _measured(key)
                descriptor += b"," + sized + sign + self.fingerprint(hashed)
        if len(entries) > MAX_ENTRIES or len(descriptor) > MAX_NAME_BYTES:
            descriptor = _sized(domain) + b",#" + self.fingerprint(_joined(entries, shared))
        name = self._heads[crc32(descriptor) % len(self._heads)] + descriptor
        return name + b":" + suffix.encode() if suffix else name

    def beside(self, name: bytes, other: bytes) -> bytes:
        """The name of a counter where it is to lie on the shard of the `other`."""
        return other[: self._head_bytes] + name[self._head_bytes :]

    def fingerprint(self, value: str) -> bytes:
        """What stands for `value` in names: 22 characters of URL-safe base64."""
        digest = blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16, key=self._key).digest()
        return b2a_base64(digest)[:22].translate(_URL_SAFE)


def _joined(entries: Sequence[tuple[str, str]], shared: Sequence[str | None]) -> str:
    """A text that no other entries have."""
    if any(shared):
        each = zip(entries, shared, strict=True)
        return json.dumps([[key, value] if pattern is None else [key, "~", pattern] for (key, value), pattern in each])
    text = "\0".join([part for entry in entries for part in entry])
    return f"0{text}" if text.count("\0") == 2 * len(entries) - 1 else json.dumps(entries)


def _measured(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return b"%d:%b" % (len(encoded), encoded)


_sized = lru_cache(maxsize=4096)(_measured)


@lru_cache(maxsize=4096)
def _usual_begin(domain: str, key: str) -> bytes:
    return _sized(domain) + b"," + _sized(key) + b"="
