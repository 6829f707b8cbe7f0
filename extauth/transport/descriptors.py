"""The descriptors of the messages that are served, as gRPC reflection finds them: by file, by symbol, by extension.

They come from descriptors.binpb, a FileDescriptorSet that scripts/reflection_descriptors.py makes. Of each descriptor
only names and numbers are read here; a client gets its bytes as they are. The numbers of its fields are those of
google/protobuf/descriptor.proto.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from extauth.rls.protobuf import bytes_field, fields


class _Parts:
    """The fields of one descriptor, by their numbers."""

    def __init__(self, descriptor: bytes) -> None:
        self._values: dict[int, list[int | bytes]] = {}
        for number, value in fields(descriptor):
            self._values.setdefault(number, []).append(value)

    def messages(self, number: int) -> list[bytes]:
        """The values of a repeated message field."""
        return [value for value in self._values.get(number, ()) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        """The value of a string field."""
        return b"".join(self.messages(number)[-1:]).decode()

    def texts(self, number: int) -> list[str]:
        """The values of a repeated string field."""
        return [value.decode() for value in self.messages(number)]

    def number(self, number: int) -> int:
        """The value of an integer field."""
        value = self._values.get(number, [0])[-1]
        assert isinstance(value, int)  # noqa: S101
        return value


class Descriptors:
    """A set of files, each with all that it imports."""

    def __init__(self, file_set: bytes) -> None:
        self.services: list[str] = []
        self._files: dict[str, bytes] = {}
        self._imports: dict[str, list[str]] = {}
        self._symbols: dict[str, str] = {}
        self._extensions: dict[str, dict[int, str]] = {}
        for _, file in fields(file_set):
            if isinstance(file, bytes):
                self._add(file)
        self.services.sort()

    def file(self, name: str) -> bytes | None:
        """The file as a FileDescriptorResponse: the files that it imports, directly or not, come first in it."""
        if name not in self._files:
            return None
        return b"".join(bytes_field(1, self._files[each]) for each in self._with_imports(name, {}))

    def file_of(self, symbol: str) -> bytes | None:
        """The same for the file that defines a message, field, enum, value, service, method or extension."""
        return self.file(self._symbols.get(symbol, ""))

    def file_of_extension(self, message: str, number: int) -> bytes | None:
        """The same for the file that extends a message by the field `number`."""
        return self.file(self._extensions.get(message, {}).get(number, ""))

    def extensions(self, message: str) -> list[int] | None:
        """The numbers of the fields by which a message is extended; None if there is no such message."""
        if message not in self._symbols:
            return None
        return sorted(self._extensions.get(message, ()))

    def _with_imports(self, name: str, found: dict[str, None]) -> dict[str, None]:
        for imported in self._imports[name]:
            if imported not in found:
                self._with_imports(imported, found)
        found[name] = None
        return found

    def _add(self, descriptor: bytes) -> None:
        parts = _Parts(descriptor)
        name, package = parts.text(1), parts.text(2)
        self._files[name] = descriptor
        self._imports[name] = parts.texts(3)
        for service in parts.messages(6):
            self.services.append(f"{package}.{_Parts(service).text(1)}")
        for symbol in self._define(parts, package, name):
            self._symbols[symbol] = name

    def _define(self, parts: _Parts, scope: str, file: str) -> Iterator[str]:
        """The symbols of a file."""
        for message in parts.messages(4):
            yield from self._message(message, scope, file)
        for enum in parts.messages(5):
            yield from _enum(enum, scope)
        for service in parts.messages(6):
            service_parts = _Parts(service)
            full = f"{scope}.{service_parts.text(1)}"
            yield full
            yield from (f"{full}.{_Parts(method).text(1)}" for method in service_parts.messages(2))
        yield from self._extend(parts.messages(7), scope, file)

    def _message(self, descriptor: bytes, scope: str, file: str) -> Iterator[str]:
        parts = _Parts(descriptor)
        full = f"{scope}.{parts.text(1)}"
        yield full
        yield from (f"{full}.{_Parts(field).text(1)}" for field in parts.messages(2))
        for message in parts.messages(3):
            yield from self._message(message, full, file)
        for enum in parts.messages(4):
            yield from _enum(enum, full)
        yield from self._extend(parts.messages(6), full, file)

    def _extend(self, extensions: list[bytes], scope: str, file: str) -> Iterator[str]:
        for extension in extensions:
            parts = _Parts(extension)
            self._extensions.setdefault(parts.text(2).lstrip("."), {})[parts.number(3)] = file
            yield f"{scope}.{parts.text(1)}"


def _enum(descriptor: bytes, scope: str) -> Iterator[str]:
    """An enum, and its values, which belong to the scope around it."""
    parts = _Parts(descriptor)
    yield f"{scope}.{parts.text(1)}"
    yield from (f"{scope}.{_Parts(value).text(1)}" for value in parts.messages(2))


@cache
def descriptors() -> Descriptors:
    """Those of this package."""
    return Descriptors(files("extauth.transport").joinpath("descriptors.binpb").read_bytes())
