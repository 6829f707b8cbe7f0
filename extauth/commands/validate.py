"""`extauth validate`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from extauth.commands import options
from extauth.commands.output import failing, many, print_json, print_lines, printable, view_problem
from extauth.errors import CommandError, Diagnostic

if TYPE_CHECKING:
    from extauth.commands.inputs import Given
    from extauth.config.reference_yaml import Expansion
    from extauth.rules.model import RuleSet

MAX_UNREAD = 20  # listed by name

EXAMPLE = """\b
Example:
  extauth validate envoy/descriptors
  1 file, 1 domain, 3 rules: no problems

Exit code: 0 no problems, 1 problems or, with --strict, warnings, 2 a PATH that is not there."""

_PATHS = "A file, a folder of *.yaml and *.yml files, a pipe, or - for standard input."


@click.command(epilog=EXAMPLE)
@click.argument("paths", nargs=-1, required=True, type=options.PATH, metavar="PATH...", help=_PATHS)
@options.merge_domains
@click.option("--strict", is_flag=True, help="Warnings, too, make the exit code 1.")
@click.option("--expand", is_flag=True, help="Print the rules as plain envoyproxy/ratelimit YAML.")
@options.as_json
def validate(paths: tuple[Path, ...], *, merge_domains: bool, strict: bool, expand: bool, as_json: bool) -> None:
    """Print every problem in config files, with its place and fix.

    They are read as the service reads them: each PATH is a config of its own, as if EXTAUTH_CONFIG were it. Of a
    Kubernetes ConfigMap, the data is read as the folder that it is mounted as. Warnings are printed, and are not
    problems without --strict.

    With --expand, the YAML goes to standard output, one document a domain (to be put in a file each), and all else to
    standard error. It means the same to envoyproxy/ratelimit. A domain that cannot be expressed in it is not
    printed: each reason is, with its place, and the exit code is 1.
    """
    with failing(as_json=as_json):
        given = _read(paths, merge=options.settings_for(merge=merge_domains).merge_domains)
        found = _Found(
            [problem for each in given for problem in each.problems],
            [warning for each in given for warning in each.warnings],
            [file for each in given for file in each.unread],
            strict,
        )
        report = _report([each.rules for each in given], found)
        expansions = _expand([each.rules for each in given]) if expand else []
        unsupported = [
            problem
            for each, expansion in zip(given, expansions, strict=False)
            for problem in each.located(expansion.unsupported)
        ]
        documents = [document for expansion in expansions for document in expansion.documents.values()]
        if as_json:
            more = {"documents": documents, "unsaid": list(map(view_problem, unsupported))} if expand else {}
            print_json(report | more)
        elif expand:
            for line in [*_lines(report, found), *map(str, unsupported)]:
                click.echo(printable(line), err=True)
            if unsupported:
                click.echo("the domains of these lines cannot be expressed in envoyproxy/ratelimit's YAML", err=True)
            click.echo("---\n".join(documents), nl=False)
        else:
            print_lines(_lines(report, found))
        if not found.ok or unsupported:
            raise click.exceptions.Exit(1)


class _Found(NamedTuple):
    """What there is to tell; `unread` are names of files."""

    problems: list[Diagnostic]
    warnings: list[Diagnostic]
    unread: list[str]
    strict: bool

    @property
    def ok(self) -> bool:
        return not self.problems and not (self.strict and self.warnings)


def _read(paths: Sequence[Path], *, merge: bool) -> "list[Given]":
    from extauth.commands.inputs import STDIN, read_given

    for path in paths:
        if path != STDIN and not path.exists():
            raise CommandError(f"{path}: no such file or folder")
    if paths.count(STDIN) > 1:
        raise CommandError("- stands for standard input, which can be read only once")
    return [given for path in paths for given in read_given(path, merge=merge)]


def _expand(rules: "Sequence[RuleSet]") -> "list[Expansion]":
    from extauth.config.reference_yaml import expand

    return [expand(each) for each in rules]


def _report(rules: "Sequence[RuleSet]", found: _Found) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "files": len({file for each in rules for domain in each.domains.values() for file in domain.files}),
        "domains": sum(len(each.domains) for each in rules),
        "rules": sum(map(len, rules)),
        "problems": list(map(view_problem, found.problems)),
        "warnings": list(map(view_problem, found.warnings)),
        "unread": found.unread,
    }


def _lines(report: dict[str, Any], found: _Found) -> list[str]:
    lines = list(map(str, found.problems))
    lines += [str(replace(warning, message=f"warning: {warning.message}")) for warning in found.warnings]
    lines += [f"{file}: not read: only *.yaml and *.yml are" for file in found.unread[:MAX_UNREAD]]
    if len(found.unread) > MAX_UNREAD:
        lines.append(f"{len(found.unread) - MAX_UNREAD} more files are not read")
    warnings = many(len(found.warnings), "warning")
    if found.problems:
        return [*lines, many(len(found.problems), "problem")]
    if not found.ok:
        return [*lines, f"{warnings}, which --strict does not pass"]
    counted = ", ".join(many(report[f"{what}s"], what) for what in ("file", "domain", "rule"))
    return [*lines, f"{counted}: no problems" + (f", {warnings}" if found.warnings else "")]
