"""All resources of an xDS server as rules: each is read once, as long as the server goes on sending it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from extauth.config.diagnostics import bounded
from extauth.config.merge import combine
from extauth.config.parse import ParsedFile
from extauth.config.sources.config_message import MAX_DESCRIPTORS
from extauth.config.sources.discovery import Resource
from extauth.config.sources.rate_limit_config import TOO_MANY, parse_resource
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.model import RuleSet


class Built(NamedTuple):
    """A response whose resources were read: their digest, whatever their order, and whether they changed the rules."""

    version: bytes
    nonce: bytes
    digest: bytes
    changed: bool


class ResourceReader:
    """Reads responses; `rules` are those of the latest one, in which the values of these keys are `secret`.

    With `keep_bytes`, it knows what they were made of.
    """

    def __init__(self, *, merge: bool = False, secret: SecretKeys = NAMED_SO, keep_bytes: bool = False) -> None:
        self.rules = RuleSet()
        self._merge = merge
        self._secret = secret
        self._keep_bytes = keep_bytes
        self._parsed: dict[bytes, ParsedFile] = {}  # by the digest of the resource
        self._bytes: dict[str, list[bytes]] = {}  # by domain
        self._parts: dict[str, int] = {}  # by domain, those of its resources

    def read(self, resources: Sequence[Resource], version: bytes = b"", nonce: bytes = b"") -> Built:
        """Put all resources that there are together as rules.

        A domain with a problem keeps the rules that it had. So does one that is gone, as long as there is a resource of
        which nobody knows what domain it is for. Where there would be too many rules, those that were kept among them,
        no rules are changed.
        """
        digests = [sha256(f"{type_url}\0".encode("utf-8", "replace") + value).digest() for type_url, value in resources]
        parsed = self._read_all(dict(zip(digests, resources, strict=True)))
        old = self.rules
        if parsed is None or not self._take([parsed[digest] for digest in digests], resources):
            self.rules = combine([], old, [TOO_MANY], keep=old.domains)
        else:
            self._parsed = parsed
        changed = _shown(self.rules) != _shown(old)
        if not changed:
            self.rules = old
        return Built(version, nonce, sha256(b"".join(sorted(digests))).digest(), changed)

    def _read_all(self, resources: Mapping[bytes, Resource]) -> dict[bytes, ParsedFile] | None:
        """Read those that are new, by digest; None where there are too many descriptors."""
        parsed: dict[bytes, ParsedFile] = {}
        parts = 0
        for digest, resource in resources.items():
            one = parsed[digest] = self._parsed.get(digest) or parse_resource(resource, self._secret)
            parts += one.parts
            if parts > MAX_DESCRIPTORS:
                return None
        return parsed

    def _take(self, files: Sequence[ParsedFile], resources: Sequence[Resource]) -> bool:
        """Put what was read together as rules, unless these would have too many descriptors."""
        old = self.rules
        keep = old.domains if any(one.name is None for one in files) else ()
        rules = combine(sorted(files, key=attrgetter("file")), old, keep=keep, merge=self._merge)
        rules = replace(rules, problems=tuple(bounded("xds:", list(rules.problems), "problems")))
        parts = {name: self._parts.get(name, 0) for name in rules.retained}
        for one in files:
            if one.name is not None and one.name in rules.domains and one.name not in rules.retained:
                parts[one.name] = parts.get(one.name, 0) + one.parts
        if sum(parts.values()) > MAX_DESCRIPTORS:
            return False
        if self._keep_bytes:
            self._bytes = self._bytes_of(rules, zip(files, resources, strict=True))
        self.rules, self._parts = rules, parts
        return True

    def in_force(self) -> Iterable[bytes]:
        """The resources that the rules in force were made of."""
        return chain.from_iterable(self._bytes.values())

    def _bytes_of(self, rules: RuleSet, read: Iterable[tuple[ParsedFile, Resource]]) -> dict[str, list[bytes]]:
        found = {name: self._bytes.get(name, []) for name in rules.retained}
        for one, resource in read:
            if one.name is not None and one.name in rules.domains and one.name not in rules.retained:
                found.setdefault(one.name, []).append(resource.value)
        return found


def _shown(rules: RuleSet) -> tuple[object, ...]:
    """What is compared to know whether rules have changed."""
    return rules.digest, rules.retained, rules.problems
