"""The command `extauth conformance`."""

import asyncio
import difflib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extauth.errors import ConformanceError

if TYPE_CHECKING:
    from extauth.conformance.case import Case
    from extauth.conformance.report import Results

EXAMPLE = """\b
Example:
  extauth conformance --address 127.0.0.1:8081 --config envoy/descriptors

Exit code: 0 where no case failed, 1 where one did, 2 where the suite cannot run."""
CANNOT_RUN = 2


Address = Annotated[str, typer.Option(metavar="ADDRESS", help="The server: HOST:PORT or unix:PATH, without TLS.")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The folder of rules that the server watches. Without it: they are loaded already."
    ),
]
Settle = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long the server may take to load rules.")]
PrintRules = Annotated[bool, typer.Option("--print-rules", help="Print the rules to load, and run nothing.")]
Only = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A case, or a pattern with *; may be repeated.")]
ReferenceOnly = Annotated[bool, typer.Option("--reference-only", help="Only load what envoyproxy/ratelimit knows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def conformance(
    *,
    address: Address = "",
    config: Config = None,
    settle: Settle = 10,
    print_rules: PrintRules = False,
    only: Only = None,
    reference_only: ReferenceOnly = False,
    as_json: AsJson = False,
) -> None:
    """Test whether a rate limit service does as specified.

    Any server of envoy.service.ratelimit.v3.RateLimitService will do that reads envoyproxy/ratelimit's YAML. The suite
    writes files of rules into DIR, waits until the server has loaded them, asks, and removes them. Each case is a line.
    """
    if print_rules:
        typer.echo(_rules(reference_only=reference_only), nl=False)
        return
    try:
        if not address:
            raise ConformanceError("say which server: --address HOST:PORT or unix:PATH")  # noqa: TRY301
        results = asyncio.run(
            _run(_chosen(only), address, config, settle, reference_only=reference_only, quiet=as_json)
        )
    except ConformanceError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(CANNOT_RUN) from error
    from extauth.conformance import report
    from extauth.conformance.case import Outcome

    typer.echo(report.as_json(address, results) if as_json else report.totals(results))
    raise typer.Exit(1 if any(result.outcome is Outcome.FAILED for _, result in results) else 0)


def _rules(*, reference_only: bool) -> str:
    from extauth.conformance.rules import EXTAUTH_DOMAIN, REFERENCE_DOMAIN, text_of

    domains = [REFERENCE_DOMAIN] if reference_only else [REFERENCE_DOMAIN, EXTAUTH_DOMAIN]
    return "---\n".join(f"# {domain}.yaml\n{text_of(domain)}" for domain in domains)


def _chosen(only: list[str] | None) -> "list[Case]":
    from extauth.conformance.cases import CASES

    if not only:
        return list(CASES)
    names = [case.name for case in CASES]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, 1)
            raise ConformanceError(f"there is no case {pattern!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return [case for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in only)]


async def _run(
    cases: "list[Case]", address: str, config: Path | None, settle_s: float, *, reference_only: bool, quiet: bool
) -> "Results":
    from extauth.conformance import report
    from extauth.conformance.runner import run_cases

    results = []
    async for case, result in run_cases(cases, address, config, settle_s=settle_s, reference_only=reference_only):
        results.append((case, result))
        if not quiet:
            typer.echo(report.line(case, result))
    return results
