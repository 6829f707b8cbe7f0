"""The process that `reader.py` starts: the job is on its input, the pieces go to its output."""

import json
import sys
from pathlib import Path
from typing import IO

from extauth.config.sources.files import read_valid_domains
from extauth.config.sources.packed import pack
from extauth.config.sources.reader import LENGTH, NO_RULES
from extauth.config.sources.selection import Selection
from extauth.errors import ConfigError
from extauth.rules.model import Domain, RuleSet


def run(job: str, into: IO[bytes]) -> int:
    """Read as the job says, write the pieces, and return the exit code."""
    given = json.loads(job)
    old = RuleSet({name: Domain(name, files=tuple(files)) for name, files in given["old"].items()})
    code = 0
    try:
        path, selection = Path(given["path"]), Selection(*given["selection"])
        rules = read_valid_domains(path, old, merge=given["merge"], selection=selection)
    except ConfigError as error:
        rules, code = RuleSet(problems=error.problems), NO_RULES
    for piece in pack(rules):
        into.write(LENGTH.pack(len(piece)) + piece)
    into.flush()
    return code


if __name__ == "__main__":
    sys.exit(run(sys.stdin.read(), sys.stdout.buffer))
