"""One `ratelimit.config.ratelimit.v3.RateLimitConfig` of an xDS server: from its bytes to a Domain, or to its problems.

Its fields mean what the keys of a YAML file do, so both are compiled by the same code. What is harmless in generated
rules, such as shadow_mode where there is no limit, is no warning here.
"""

from hashlib import sha256
from math import isfinite
from typing import Any, Final

from extauth.config.compile import Compiler
from extauth.config.diagnostics import Diagnostics, bounded, shown
from extauth.config.known_keys import Location
from extauth.config.parse import MAX_FILE_RULES, ParsedFile
from extauth.config.schema import DescriptorModel, FileModel, RateLimitModel, ReplacesModel
from extauth.config.sources.discovery import TYPE, Resource
from extauth.errors import Diagnostic, InvalidRequestError, Place, RequestTooLargeError
from extauth.rls.protobuf import all_fields
from extauth.rules.model import Unit

MAX_DEPTH: Final = 100
"""How deep messages may nest."""
MAX_NESTED_BYTES: Final = 64 << 20
"""Bytes of a message times its depth: while it is read, those around it are held, too."""

_MAX_EXACT = 2.0**53
_UNITS = {0: "unknown", **{unit.number: str(unit) for unit in Unit}}
_DESCRIPTOR = DescriptorModel.model_construct(key="")
_LIMIT = RateLimitModel.model_construct()
_FIX = "see what the control plane sends for this resource"


def parse_resource(resource: Resource) -> ParsedFile:
    """Read a resource. Of one that cannot be decoded, or names no domain, the `name` is None."""
    reader = _Reader()
    try:
        return _parse(resource, reader)
    except Exception as error:  # noqa: BLE001 - a reader's fault must not keep the other resources from being read
        return _undecoded(reader.name, f"the resource cannot be read, by a fault of the reader: {type(error).__name__}")


def _parse(resource: Resource, reader: "_Reader") -> ParsedFile:
    if resource.type_url != TYPE:
        message = f"the resource cannot be decoded: its type is {shown(resource.type_url)!r} instead of {TYPE!r}"
        return _undecoded("", message)
    try:
        name, model = reader.config(resource.value)
    except InvalidRequestError as error:
        return _undecoded(reader.name, f"the resource cannot be decoded: {error}")
    except UnicodeDecodeError:
        return _undecoded(reader.name, "the resource cannot be decoded: a text in it is not UTF-8")
    if not model.domain:
        return _undecoded(name, "the resource names no domain")
    file = file_of(name or model.domain)
    found = _Diagnostics(Place(file))
    _check_names(model.descriptors, ("descriptors",), found)
    compiler = Compiler(model, found, digest=sha256(resource.value).hexdigest())
    domain = compiler.domain()
    parsed = ParsedFile(file, Place(file), model.domain, names=compiler.names, replaced=compiler.replaced)
    parsed.problems = bounded(file, found.problems, "problems")
    parsed.domain = None if parsed.problems else domain
    return parsed


def file_of(name: str) -> str:
    """What stands in messages and views in place of a file's name."""
    return f"xds:{shown(name) or '(unnamed)'}"


def _undecoded(name: str, message: str) -> ParsedFile:
    file = file_of(name)
    return ParsedFile(file, Place(file), problems=[Diagnostic.error(Place(file), message, _FIX)])


def _check_names(descriptors: list[DescriptorModel], at: Location, found: Diagnostics) -> None:
    """Check what the schema of files requires of names."""
    for i, descriptor in enumerate(descriptors):
        here = (*at, i)
        if not descriptor.key:
            found.error((*here, "key"), "must not be empty", "name the key of the entry that it matches")
        if descriptor.rate_limit is not None:
            for j, replaced in enumerate(descriptor.rate_limit.replaces):
                if not replaced.name:
                    found.error((*here, "rate_limit", "replaces", j, "name"), "must not be empty", "name a limit")
        if descriptor.descriptors:
            _check_names(descriptor.descriptors, (*here, "descriptors"), found)


class _Diagnostics(Diagnostics):
    """The problems of a resource, each with the path to where it is; `place` is that of all rules."""

    def __init__(self, place: Place) -> None:
        super().__init__(self._whole)
        self._place = place

    def _whole(self, location: Location, *, at_key: bool = False) -> Place:
        return self._place

    def error(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
        place = Place(f"{self._place.file}#{path}") if path else self._place
        self.problems.append(Diagnostic.error(place, message, hint))

    def warn(self, location: Location, message: str, hint: str = "", *, at_key: bool = False) -> None:
        pass


class _Reader:
    """Reads a RateLimitConfig, and raises InvalidRequestError or UnicodeDecodeError; `name` is the resource's."""

    def __init__(self) -> None:
        self.name = ""
        self._texts: dict[bytes, str] = {}  # keys and values of generated rules repeat
        self._limits: dict[bytes, RateLimitModel] = {}
        self._descriptors = 0

    def config(self, message: bytes) -> tuple[str, FileModel]:
        domain = ""
        descriptors = []
        for number, value in all_fields(message, MAX_FILE_RULES):
            if isinstance(value, bytes):
                if number == 1:
                    self.name = self._text(value)
                elif number == 2:
                    domain = self._text(value)
                elif number == 3:
                    descriptors.append(self._descriptor(value, 1))
        return self.name, FileModel.model_construct(domain=domain, descriptors=descriptors)

    def _text(self, value: bytes) -> str:
        text = self._texts.get(value)
        if text is None:
            text = self._texts[value] = value.decode()
        return text

    def _descriptor(self, message: bytes, depth: int) -> DescriptorModel:
        self._descriptors += 1
        if self._descriptors > MAX_FILE_RULES:
            raise RequestTooLargeError(f"more than {MAX_FILE_RULES} descriptors")
        _check(message, depth)
        given: dict[str, Any] = {}
        inner: list[DescriptorModel] = []
        limit: list[bytes] = []
        metadata: list[bytes] = []
        for number, value in all_fields(message, MAX_FILE_RULES):
            match number, value:
                case 1, bytes():
                    given["key"] = self._text(value)
                case 2, bytes():
                    given["value"] = self._text(value)
                case 3, bytes():  # of a message that comes twice the parts are merged: as if they were one
                    limit.append(value)
                case 4, bytes():
                    inner.append(self._descriptor(value, depth + 1))
                case 5 | 6 | 7, int():
                    given[_FLAGS[number]] = value != 0
                case 8, bytes():
                    metadata.append(value)
        if inner:
            given["descriptors"] = inner
        if limit:
            given["rate_limit"] = self._limit(b"".join(limit))
        if metadata:
            given["metadata"] = self._struct(b"".join(metadata), depth + 1)
        return _DESCRIPTOR.model_copy(update=given)

    def _limit(self, message: bytes) -> RateLimitModel:
        known = self._limits.get(message)
        if known is not None:
            return known
        given: dict[str, Any] = {
            "requests_per_unit": 0
        }  # which denies everything; it cannot be told from an absent one
        replaces: list[ReplacesModel] = []
        for number, value in all_fields(message, MAX_FILE_RULES):
            match number, value:
                case 1, int():
                    given["unit"] = _UNITS.get(value & 0xFFFFFFFF, str(value & 0xFFFFFFFF))
                case 2, int():
                    given["requests_per_unit"] = value & 0xFFFFFFFF
                case 3, int():
                    given["unlimited"] = value != 0
                case 4, bytes():
                    given["name"] = self._text(value)
                case 5, bytes():
                    replaces.append(ReplacesModel.model_construct(name=self._name(value)))
        if replaces:
            given["replaces"] = replaces
        if given.get("unit") == "unknown":
            del given["unit"]
        limit = self._limits[message] = _LIMIT.model_copy(update=given)
        return limit

    def _name(self, message: bytes) -> str:
        name = ""
        for number, value in all_fields(message, MAX_FILE_RULES):
            if number == 1 and isinstance(value, bytes):
                name = self._text(value)
        return name

    def _struct(self, message: bytes, depth: int) -> dict[str, Any]:
        """Read a google.protobuf.Struct."""
        _check(message, depth)
        found: dict[str, Any] = {}
        for number, entry in all_fields(message, MAX_FILE_RULES):
            if number == 1 and isinstance(entry, bytes):
                key = ""
                value: list[bytes] = []
                for inner, part in all_fields(entry, MAX_FILE_RULES):
                    if inner == 1 and isinstance(part, bytes):
                        key = self._text(part)
                    elif inner == 2 and isinstance(part, bytes):
                        value.append(part)
                found[key] = self._value(b"".join(value), depth + 1)
        return found

    def _value(self, message: bytes, depth: int) -> Any:  # noqa: ANN401 - any JSON
        """Read a google.protobuf.Value; of several kinds the last one counts."""
        _check(message, depth)
        found: Any = None
        for number, value in all_fields(message, MAX_FILE_RULES):
            match number, value:
                case 1, int():
                    found = None
                case 2, float():
                    found = _number(value)
                case 3, bytes():
                    found = self._text(value)
                case 4, int():
                    found = value != 0
                case 5, bytes():
                    found = self._struct(value, depth + 1)
                case 6, bytes():
                    items = all_fields(value, MAX_FILE_RULES)
                    found = [self._value(item, depth + 1) for n, item in items if n == 1 and isinstance(item, bytes)]
        return found


_FLAGS: Final = {5: "shadow_mode", 6: "detailed_metric", 7: "quota_mode"}


def _number(value: float) -> float | int:
    if not isfinite(value):
        raise InvalidRequestError("a number in metadata is not finite")
    return int(value) if value.is_integer() and abs(value) < _MAX_EXACT else value


def _check(message: bytes, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RequestTooLargeError(f"it nests deeper than {MAX_DEPTH} levels")
    if depth * len(message) > MAX_NESTED_BYTES:
        raise RequestTooLargeError(f"a message of {len(message)} bytes nests {depth} levels deep")
