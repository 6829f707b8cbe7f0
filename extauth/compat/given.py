"""The variables of envoyproxy/ratelimit that are set, and what they stand for."""

from collections.abc import Mapping
from typing import Any

from extauth.compat.variables import BY_NAME, is_set


class Given:
    """The variables that are given, what they stand for (`ours`, from `sources`), and lines on those `refused`.

    `idle` has those that have no effect beside the others, and why.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.ours: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.refused: list[str] = []
        self.idle: dict[str, str] = {}

    def is_set(self, *names: str) -> bool:
        """Whether one of the variables is set."""
        return any(is_set(self.environ, name) for name in names)

    def read(self, name: str) -> Any:  # noqa: ANN401 - as Kind.read
        """The value of a variable, or its default; a wrong one is refused, and the default stands for it."""
        variable = BY_NAME[name]
        if is_set(self.environ, name):
            try:
                return variable.kind.read(self.environ[name])
            except ValueError as error:
                shown = "…" if variable.secret else repr(self.environ[name])
                self.refuse(f"{name}={shown} is not allowed; allowed: {error}")
        return variable.kind.read(variable.default)

    def leave(self, why: str, *prefixes: str) -> None:
        """Note that the variables whose names begin so have no effect."""
        self.idle |= {name: why for name in BY_NAME if name.startswith(prefixes) and self.is_set(name)}

    def refuse(self, line: str) -> None:
        """Note why the service cannot start."""
        self.refused.append(line)

    def wants(self, setting: str) -> bool:
        """Whether a setting of ours is not set, so that the variables decide."""
        return not self.environ.get(setting)

    def put(self, setting: str, value: object, *sources: str) -> None:
        """Set a setting of ours, unless it is set; `sources` are the variables that it is from."""
        if self.wants(setting):
            self.ours[setting] = str(value).lower() if isinstance(value, bool) else str(value)
            self.sources[setting] = " and ".join(name for name in sources if self.is_set(name)) or sources[0]

    def put_if_set(self, setting: str, name: str) -> None:
        """Set a setting of ours to the value of a variable, if that is set."""
        if self.is_set(name):
            self.put(setting, self.read(name), name)
