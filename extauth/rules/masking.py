"""How metrics, logs and pages show the values of configs and requests."""

import re
from hashlib import blake2b, sha256
from typing import Final, NamedTuple

SECRET_WORDS: Final = ("apikey", "token", "auth", "secret", "password", "session", "cookie", "credential")
MAX_SHOWN_BYTES = 200
_SECRET_WORD = re.compile("|".join(SECRET_WORDS))


class SecretKeys(NamedTuple):
    """Which entry keys have secret values: `keys` and, with `by_name`, those whose name contains one of SECRET_WORDS.

    In the name, case, `-` and `_` are disregarded. A pattern of keys counts as secret then: it may match such a name.
    A value that equals its key is secret only if `keys` lists the key: the key itself is shown in clear everywhere.
    """

    keys: frozenset[str] = frozenset()
    by_name: bool = True

    def covers(self, key: str, value: str, rule_key: str | None = None) -> bool:
        """Whether `value` is secret beside `key`.

        `rule_key` is the key of the rule that an entry hit: where it is a pattern, it may be secret without the other.
        """
        if key in self.keys or rule_key in self.keys:
            return True
        if value == key or not self.by_name:
            return False
        return _is_named_so(key) or (rule_key is not None and rule_key != key and _is_named_so(rule_key))

    def covers_alike(self, other: "SecretKeys", key: str) -> bool:
        """Whether the same values of `key` are secret by both."""
        if key in self.keys or key in other.keys:
            return key in self.keys and key in other.keys
        return self.by_name == other.by_name or not _is_named_so(key)

    def merged(self, other: "SecretKeys") -> "SecretKeys":
        """What is secret in either of two files of one domain."""
        return SecretKeys(self.keys | other.keys, self.by_name or other.by_name)


NAMED_SO: Final = SecretKeys()


def hash_key(secret: str) -> bytes:
    """What keys the hashes of values, for a secret of any length; nothing where there is none."""
    return blake2b(_utf8(secret), digest_size=32).digest() if secret else b""


class Masking:
    """Shows values. Fingerprints are keyed by `secret`: whoever does not know it cannot try out values."""

    def __init__(self, secret: str = "") -> None:
        self._key = hash_key(secret)

    def show(self, value: str, *, secret: bool) -> str:
        """The value, masked if it is secret, else in clear and shortened if it is long."""
        return self.mask(value) if secret else self.shorten(value)

    def mask(self, value: str) -> str:
        """`fr***~1a2b3c`: two characters of a value of at least eight, and its fingerprint of 24 bits."""
        begin = value[:2] if len(value) >= 8 else ""
        return f"{_printable(begin)}***~{self._fingerprint(value)}"

    def hashed(self, value: str) -> str:
        """What represents a value in logs that are read again: 16 hexadecimal digits."""
        return self.hashed_digest(sha256(_utf8(value)).hexdigest())

    def hashed_digest(self, hexadecimal: str) -> str:
        """The same of a value whose SHA-256 a file has in its place."""
        return blake2b(hexadecimal.encode(), digest_size=8, key=self._key).hexdigest()

    def digest(self, hexadecimal: str) -> str:
        """The beginning of a SHA-256 that a file has in place of a value."""
        return f"{hexadecimal[:12]}…"

    def shorten(self, text: str, max_bytes: int = MAX_SHOWN_BYTES) -> str:
        """The text in at most `max_bytes` of UTF-8; one that is longer ends in its fingerprint."""
        encoded = text.encode("utf-8", "backslashreplace")
        if len(encoded) <= max_bytes:
            return encoded.decode()
        end = f"…~{self._fingerprint(text)}"
        return encoded[: max_bytes - len(end.encode())].decode("utf-8", "ignore") + end

    def _fingerprint(self, value: str) -> str:
        return blake2b(_utf8(value), digest_size=3, key=self._key).hexdigest()


def _is_named_so(key: str) -> bool:
    plain = key.lower().replace("-", "").replace("_", "")
    return "*" in key or _SECRET_WORD.search(plain) is not None


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
