"""One YAML file of a config: from its text to a Domain, or to every problem in it with its place and fix."""

import re
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from extauth.config.compile import Compiler, ReplacedName
from extauth.config.diagnostics import Diagnostics, bounded
from extauth.config.ignored_keys import drop_ignored
from extauth.config.known_keys import A_FILE, WORDS
from extauth.config.recovery import mend
from extauth.config.schema import FileModel
from extauth.config.schema_errors import add_refusal, renamed_keys
from extauth.config.yaml_data import Places, typed
from extauth.config.yaml_document import Mapping, read_document
from extauth.config.yaml_errors import DocumentError
from extauth.config.yaml_scalars import Scalar
from extauth.errors import Diagnostic, Place
from extauth.rules.model import Domain

MOUNT_IT = "mount the ConfigMap as a folder, and set EXTAUTH_CONFIG to that; `extauth validate FILE` reads it as it is"
MAX_MENDINGS = 3  # a key that is mended may hold a misspelt one, and so on

MAX_FILE_RULES = 300_000
_RULE = re.compile(r"""^[ \t]*(?:-[ ]+)+\{?[ ]*["']?key["']?[ ]*:""", re.MULTILINE)  # as most are written


@dataclass(slots=True)
class ParsedFile:
    """The contents of one file.

    `name` is its domain's, None where even that cannot be read; `domain` is None where there are `problems`. `names`
    are those of its limits, `replaced` are the names that limits replace. `place` is where the domain's name is. Of a
    resource, `parts` are those that take memory.
    """

    file: str
    place: Place
    name: str | None = None
    domain: Domain | None = None
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    replaced: list[ReplacedName] = field(default_factory=list)
    parts: int = 0


def parse_file(file: str, text: str) -> ParsedFile:
    """Parse a file's text."""
    parsed = ParsedFile(file, Place(file, 1, 1))
    many = next(islice(_RULE.finditer(text), MAX_FILE_RULES, None), None)
    if many is not None:  # before it is parsed, which would take many seconds
        place = Place(file, text.count("\n", 0, many.end()) + 1, 1)
        message = f"the file holds more than {MAX_FILE_RULES} descriptors"
        hint = "split it by domain, or set EXTAUTH_MERGE_DOMAINS=true and split it by descriptors"
        parsed.problems.append(Diagnostic.error(place, message, hint))
        return parsed
    try:
        root, diagnostics = read_document(file, text, WORDS)
    except DocumentError as error:
        parsed.problems.append(error.diagnostic)
        return parsed
    parser = _Parser(parsed, root)
    parser.found.add(diagnostics)
    if root is None and not diagnostics:
        parser.found.error((), "the file is empty", "write `domain: NAME` and `descriptors:`")
    elif is_manifest(root):
        parser.found.error((), "this is a Kubernetes manifest, and no config", MOUNT_IT)
    else:
        parser.parse(sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    parsed.problems = bounded(file, parser.found.problems, "problems")
    parsed.warnings = bounded(file, parser.found.warnings, "warnings")
    return parsed


def is_manifest(root: object) -> bool:
    """Whether a document is a Kubernetes manifest, which a folder of configs cannot hold."""
    return isinstance(root, Mapping) and {"apiVersion", "kind"} <= root.keys()


class _Parser:
    """Parses the document `root`."""

    def __init__(self, parsed: ParsedFile, root: Any) -> None:  # noqa: ANN401 - a tree of any shape
        self.found = Diagnostics(Places(parsed.file, root))
        self._parsed = parsed
        self._root = root
        self._some_tiers_unknown = False

    def parse(self, digest: str) -> None:
        parsed = self._parsed
        if isinstance(self._root, Mapping) and isinstance(name := self._root.get(Scalar("domain")), str):
            parsed.name = str(name) or None
        parsed.place = self.found.locate(("domain",))
        try:
            model = self._validated()
        except ValidationError as error:
            self._refused(error.errors(include_url=False))
            return
        domain = self._compiled(model, digest)
        parsed.domain = None if self.found.problems else domain

    def _validated(self) -> FileModel:
        self.found.add(drop_ignored(self._root, self._parsed.file))
        return FileModel.model_validate(typed(self._root, A_FILE))

    def _compiled(self, model: FileModel, digest: str = "") -> Domain:
        compiler = Compiler(model, self.found, digest=digest, some_tiers_unknown=self._some_tiers_unknown)
        domain = compiler.domain()
        self._parsed.names, self._parsed.replaced = compiler.names, compiler.replaced
        return domain

    def _refused(self, details: list[ErrorDetails]) -> None:
        """Report what the schema refused, and what is wrong besides: all problems at once."""
        warnings = list(self.found.warnings)
        for _ in range(MAX_MENDINGS):
            renamed = renamed_keys(details)
            given = {(*location[:-1], key) for location, key in renamed.items()}
            details = [d for d in details if d["type"] != "missing" or d["loc"] not in given]
            for detail in details:
                add_refusal(self.found, detail)
            self._some_tiers_unknown |= any(detail["loc"][:1] == ("tiers",) for detail in details)
            mend(self._root, details, renamed)
            try:
                model = self._validated()
            except ValidationError as error:
                details = error.errors(include_url=False)
                if not any(detail["loc"] for detail in details):
                    break  # the file is not a mapping
            else:
                self._compiled(model)
                break
        self.found.warnings = warnings  # later ones may be about what was removed
