"""Which files of a folder are the config."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extauth.errors import ConfigError, Diagnostic, Place

SUFFIXES: Final = (".yaml", ".yml")
MAX_FILES: Final = 10_000
"""Of a folder and those below: more are a whole file system that somebody named by mistake."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The `*.yaml` and `*.yml` files of a folder; or with `below` all files there and below, whatever their names.

    Hidden ones are left out, or with `hidden` only those whose names begin with two dots, as Kubernetes' own do. Of a
    `prefix`, only those whose path from the folder on, with a dot in place of each slash, begins with it.
    """

    below: bool = False
    hidden: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, setting: str) -> "Selection":
        """What EXTAUTH_CONFIG_FILES says: `yaml`, `all` or `visible`, of which the latter two may have a `:NAME`."""
        kind, colon, name = setting.partition(":")
        return cls(kind != "yaml", kind == "all", f"{name.replace('/', '.')}." if colon else "")

    def files(self, path: Path) -> list[Path]:
        """What is to be read, by its name alone: if it cannot be, its domain must not count as removed.

        Raises OSError, and ConfigError where there are too many.
        """
        if not path.is_dir():
            return [path] if path.is_file() else []
        if not self.below:
            return sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.name[0] != ".")
        found: list[Path] = []
        self._walk(path, "", frozenset(), found)
        return sorted(found)

    def _walk(self, folder: Path, before: str, above: frozenset[tuple[int, int]], found: list[Path]) -> None:
        """Add the files of a folder and below; a symlink to a folder `above` is passed over, or it would never end."""
        status = folder.stat()
        this = (status.st_dev, status.st_ino)
        if this in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".." if self.hidden else "."):
                    continue
                name = before + entry.name
                if entry.is_dir():
                    if self._may_hold(f"{name}."):
                        self._walk(folder / entry.name, f"{name}.", above | {this}, found)
                elif name.startswith(self.prefix):
                    found.append(folder / entry.name)
                if len(found) > MAX_FILES:
                    message = f"it has more than {MAX_FILES} files, in it and below"
                    raise ConfigError([Diagnostic.error(Place(str(folder)), message, "name a folder of config files")])

    def _may_hold(self, folder: str) -> bool:
        return folder.startswith(self.prefix) or self.prefix.startswith(folder)


YAML: Final = Selection()
