"""The command `extauth conformance`."""

import difflib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauth.errors import ConformanceError

if TYPE_CHECKING:
    from extauth.conformance.case import Case
    from extauth.conformance.report import Results

EXAMPLE = """\b
Example:
  extauth conformance --address 127.0.0.1:8081 --config envoy/descriptors

Exit code: 0 where no case failed, 1 where one did, 2 where the suite cannot run."""
CANNOT_RUN = 2


_ADDRESS = "The server: HOST:PORT or unix:PATH, without TLS."
_CONFIG = "The folder of rules that the server watches. Without it: they are loaded already."
_SETTLE = "How long the server may take to load rules."
_ONLY = "A case, or a pattern with *; may be repeated."


@click.command(epilog=EXAMPLE)
@click.option("--address", default="", show_default=False, metavar="ADDRESS", help=_ADDRESS)
@click.option("--config", type=click.Path(path_type=Path), metavar="DIR", help=_CONFIG)
@click.option("--settle", type=click.FloatRange(min=0), default=10, metavar="SECONDS", help=_SETTLE)
@click.option("--print-rules", is_flag=True, help="Print the rules to load, and run nothing.")
@click.option("--only", multiple=True, metavar="NAME", help=_ONLY)
@click.option("--reference-only", is_flag=True, help="Only load what envoyproxy/ratelimit knows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def conformance(
    *,
    address: str,
    config: Path | None,
    settle: float,
    print_rules: bool,
    only: tuple[str, ...],
    reference_only: bool,
    as_json: bool,
) -> None:
    """Test whether a rate limit service does as specified.

    Any server of envoy.service.ratelimit.v3.RateLimitService will do that reads envoyproxy/ratelimit's YAML. The suite
    writes files of rules into DIR, waits until the server has loaded them, asks, and removes them. Each case is a line.
    """
    if print_rules:
        click.echo(_rules(reference_only=reference_only), nl=False)
        return
    try:
        if not address:
            raise ConformanceError("say which server: --address HOST:PORT or unix:PATH")  # noqa: TRY301
        import asyncio

        _need_messages()
        results = asyncio.run(
            _run(_chosen(only), address, config, settle, reference_only=reference_only, quiet=as_json)
        )
    except ConformanceError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(CANNOT_RUN) from error
    from extauth.conformance import report
    from extauth.conformance.case import Outcome

    click.echo(report.as_json(address, results) if as_json else report.totals(results))
    raise click.exceptions.Exit(1 if any(result.outcome is Outcome.FAILED for _, result in results) else 0)


def _need_messages() -> None:
    from importlib.util import find_spec

    if find_spec("envoy_data_plane") is None:
        raise ConformanceError(
            "the suite needs the package envoy-data-plane, which is not installed; install the extra that brings it: "
            "pip install 'extauth[conformance]'"
        )


def _rules(*, reference_only: bool) -> str:
    from extauth.conformance.rules import EXTAUTH_DOMAIN, REFERENCE_DOMAIN, text_of

    domains = [REFERENCE_DOMAIN] if reference_only else [REFERENCE_DOMAIN, EXTAUTH_DOMAIN]
    return "---\n".join(f"# {domain}.yaml\n{text_of(domain)}" for domain in domains)


def _chosen(only: tuple[str, ...]) -> "list[Case]":
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
            click.echo(report.line(case, result))
    return results
