"""`extauth validate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extauth.commands.common import (
    AsJson,
    MergeDomains,
    failing,
    many,
    print_json,
    print_lines,
    printable,
    settings_for,
    view_problem,
)
from extauth.errors import CommandError, ConfigError, Problem
from extauth.rules.model import RuleSet

if TYPE_CHECKING:
    from extauth.commands.expansion import Expansion

EXAMPLE = """\b
Example:
  extauth validate envoy/descriptors
  1 file, 1 domain, 3 rules: no problems

Exit code: 0 no problems, 1 problems, 2 a PATH that is not there."""

Paths = Annotated[list[Path], typer.Argument(metavar="PATH", help="A file, or a folder of *.yaml and *.yml files.")]
Expand = Annotated[bool, typer.Option("--expand", help="Print the rules as plain envoyproxy/ratelimit YAML.")]


def validate(
    paths: Paths, *, merge_domains: MergeDomains = False, expand: Expand = False, as_json: AsJson = False
) -> None:
    """Tell every problem in config files, with place and fix.

    They are read as the service reads them: each PATH is a config of its own, as if EXTAUTH_CONFIG were it. Warnings
    are told, and are no problems.

    With --expand, the YAML goes to standard output, one document a domain (to be put in a file each), and all else to
    standard error. It means the same to envoyproxy/ratelimit. A domain that cannot be said in it is not printed: each
    reason is told with its place, and the exit code is 1.
    """
    with failing(as_json=as_json):
        for path in paths:
            if not path.exists():
                raise CommandError(f"{path}: no such file or folder")
        merge = settings_for(merge=merge_domains).merge_domains
        rules = [_read(path, merge=merge) for path in paths]
        problems = [problem for each in rules for problem in each.problems]
        warnings = [warning for each in rules for warning in each.warnings]
        report = _report(rules, problems, warnings)
        expansions = _expand(rules) if expand else []
        unsaid = [problem for expansion in expansions for problem in expansion.unsaid]
        documents = [document for expansion in expansions for document in expansion.documents.values()]
        if as_json:
            more = {"documents": documents, "unsaid": list(map(view_problem, unsaid))} if expand else {}
            print_json(report | more)
        elif expand:
            for line in [*_lines(report, problems, warnings), *map(str, unsaid)]:
                typer.echo(printable(line), err=True)
            if unsaid:
                typer.echo("the domains of these lines cannot be said in envoyproxy/ratelimit's YAML", err=True)
            typer.echo("---\n".join(documents), nl=False)
        else:
            print_lines(_lines(report, problems, warnings))
        if problems or unsaid:
            raise typer.Exit(1)


def _read(path: Path, *, merge: bool) -> RuleSet:
    from extauth.rules.reload import read_what_loads

    try:
        return read_what_loads(path, RuleSet(), merge=merge)
    except ConfigError as error:  # no files at all
        return RuleSet(problems=error.problems)


def _expand(rules: Sequence[RuleSet]) -> "list[Expansion]":
    from extauth.commands.expansion import expand

    return [expand(each) for each in rules]


def _report(rules: Sequence[RuleSet], problems: Sequence[Problem], warnings: Sequence[Problem]) -> dict[str, Any]:
    return {
        "ok": not problems,
        "files": len({file for each in rules for domain in each.domains.values() for file in domain.files}),
        "domains": sum(len(each.domains) for each in rules),
        "rules": sum(map(len, rules)),
        "problems": list(map(view_problem, problems)),
        "warnings": list(map(view_problem, warnings)),
    }


def _lines(report: dict[str, Any], problems: Sequence[Problem], warnings: Sequence[Problem]) -> list[str]:
    lines = list(map(str, problems))
    lines += [str(Problem(w.file, w.line, w.column, f"warning: {w.message}", w.fix)) for w in warnings]
    if problems:
        return [*lines, many(len(problems), "problem")]
    counted = ", ".join(many(report[f"{what}s"], what) for what in ("file", "domain", "rule"))
    return [*lines, f"{counted}: no problems" + (f", {many(len(warnings), 'warning')}" if warnings else "")]
