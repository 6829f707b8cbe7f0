"""The rules that the cases want loaded, and the folder that the server reads them from."""

from contextlib import suppress
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from extauth.errors import ConformanceError

REFERENCE_DOMAIN = "conformance"
EXTAUTH_DOMAIN = "conformance-extauth"
RELOAD_LIMIT = 5  # of the rule `reload`, which a case edits

_SOURCES = {REFERENCE_DOMAIN: "reference.yaml", EXTAUTH_DOMAIN: "extauth.yaml"}


def text_of(domain: str, probe: str = "", reload_limit: int = RELOAD_LIMIT) -> str:
    """The file of a domain; the descriptor (probe, `probe`) is unlimited in it, which tells that it is in force.

    Without a `probe`, it is `standing_probe`.
    """
    source = (files(__package__) / _SOURCES[domain]).read_text(encoding="utf-8")
    return Template(source).substitute(probe=probe or standing_probe(domain), reload=reload_limit)


def standing_probe(domain: str) -> str:
    """The probe of rules that somebody else loads: another one for other rules, as those of an earlier version."""
    return sha256(text_of(domain, probe="-").encode()).hexdigest()[:16]


class Folder:
    """The folder that the server watches. Files are whole from the moment that they bear their names."""

    def __init__(self, path: Path) -> None:
        """Take back what a run that was killed left behind; raises ConformanceError where the folder will not do."""
        if not path.is_dir():
            raise ConformanceError(f"{path} is no folder")
        self._path = path
        for domain in _SOURCES:
            file = self._file(domain)
            if file.exists() and not _is_ours(file):
                raise ConformanceError(
                    f"{file} is in the way: the suite did not write it, and needs a file of that name"
                )
        self.clean()

    def write(self, domain: str, text: str) -> None:
        """Write a domain's file; raises ConformanceError."""
        file = self._file(domain)
        unfinished = self._unfinished(domain)
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.rename(file)
        except OSError as error:
            raise ConformanceError(f"{file} cannot be written: {error.strerror}") from error

    def remove(self, domain: str) -> None:
        """Remove a domain's file, if there is one."""
        for file in (self._unfinished(domain), self._file(domain)):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove all that was written."""
        for domain in reversed(_SOURCES):
            self.remove(domain)

    def _file(self, domain: str) -> Path:
        return self._path / f"{domain}.yaml"

    def _unfinished(self, domain: str) -> Path:
        # Hidden, and no .yaml: most servers pass it over. One that does read it reads all again after the rename.
        return self._path / f".{domain}.unfinished"


def _is_ours(file: Path) -> bool:
    return file.read_bytes().startswith(b"# Rules of `extauth conformance`.\n")
