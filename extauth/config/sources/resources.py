"""All resources of an xDS server as rules: each is read once, as long as the server goes on sending it."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from operator import attrgetter
from typing import NamedTuple

from extauth.config.merge import combine
from extauth.config.parse import ParsedFile
from extauth.config.sources.discovery import Resource
from extauth.config.sources.rate_limit_config import parse_resource
from extauth.rules.model import RuleSet


class Built(NamedTuple):
    """A response whose resources were read: their digest, whatever their order, and whether they changed the rules."""

    version: bytes
    nonce: bytes
    digest: bytes
    changed: bool


class ResourceReader:
    """Reads responses; `rules` are those of the latest one. With `keep_bytes`, it knows what they were made of."""

    def __init__(self, *, merge: bool = False, keep_bytes: bool = False) -> None:
        self.rules = RuleSet()
        self._merge = merge
        self._keep_bytes = keep_bytes
        self._parsed: dict[bytes, ParsedFile] = {}  # by the digest of the resource
        self._bytes: dict[str, list[bytes]] = {}  # by domain

    def read(self, resources: Sequence[Resource], version: bytes = b"", nonce: bytes = b"") -> Built:
        """Put all resources that there are together as rules.

        A domain with a problem keeps the rules that it had. So does one that is gone, as long as there is a resource of
        which nobody knows what domain it is for.
        """
        digests = [sha256(f"{type_url}\0".encode("utf-8", "replace") + value).digest() for type_url, value in resources]
        files = []
        parsed: dict[bytes, ParsedFile] = {}
        for digest, resource in zip(digests, resources, strict=True):
            one = parsed[digest] = parsed.get(digest) or self._parsed.get(digest) or parse_resource(resource)
            files.append(one)
        unknown = any(one.name is None for one in files)
        old = self.rules
        keep = old.domains if unknown else ()
        rules = combine(sorted(files, key=attrgetter("file")), old, keep=keep, merge=self._merge)
        if self._keep_bytes:
            self._bytes = self._bytes_of(rules, zip(files, resources, strict=True))
        self._parsed = parsed
        changed = (rules.digest, rules.retained, rules.problems) != (old.digest, old.retained, old.problems)
        if changed:
            self.rules = rules
        return Built(version, nonce, sha256(b"".join(sorted(digests))).digest(), changed)

    def in_force(self) -> Iterable[bytes]:
        """The resources that the rules in force were made of."""
        return [value for values in self._bytes.values() for value in values]

    def _bytes_of(self, rules: RuleSet, read: Iterable[tuple[ParsedFile, Resource]]) -> dict[str, list[bytes]]:
        found = {name: self._bytes.get(name, []) for name in rules.retained}
        for one, resource in read:
            if one.name is not None and one.name in rules.domains and one.name not in rules.retained:
                found.setdefault(one.name, []).append(resource.value)
        return found
