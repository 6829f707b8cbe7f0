"""Counter names: injective, length-prefixed, hash-tagged, and without a caller's values in clear."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b


class KeyNamer:
    """Names the counter of a descriptor: `PREFIX:{LEN:DOMAIN,LEN:KEY=HASH,…}`, and `:WHICH` where it has several.

    Values, among them API keys and addresses, stand in it only as a 128-bit BLAKE2b hash, keyed if there is a secret:
    who reads the store's keys but not the secret cannot try out values. Lengths (in bytes) before the domain and the
    entries' keys keep two descriptors from ever sharing a name. Where all values of a wildcard share a counter, the
    hash is that of the pattern, after a ~. The braces are the hash tag of Redis Cluster.
    """

    def __init__(self, prefix: str, secret: str = "") -> None:
        self._prefix = prefix
        self._key = blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=32).digest() if secret else b""

    def __call__(
        self, domain: str, entries: Sequence[tuple[str, str]], shared: Sequence[str | None] = (), which: str = ""
    ) -> bytes:
        """The name for `domain` and the (key, value) entries; `shared` is an entry's pattern, or None."""
        parts = [_sized(domain)]
        for i, (key, value) in enumerate(entries):
            pattern = shared[i] if shared else None
            sign, hashed = ("=", value) if pattern is None else ("~", pattern)
            parts.append(f"{_sized(key)}{sign}{self.fingerprint(hashed)}")
        name = f"{self._prefix}:{{{','.join(parts)}}}" + (f":{which}" if which else "")
        return name.encode("utf-8", "surrogateescape")

    def fingerprint(self, value: str) -> str:
        """What stands for `value` in names: 22 characters of URL-safe base64."""
        digest = blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16, key=self._key).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


@lru_cache(maxsize=4096)
def _sized(text: str) -> str:
    return f"{len(text.encode('utf-8', 'surrogateescape'))}:{text}"
