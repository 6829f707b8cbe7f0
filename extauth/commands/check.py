"""`extauth check`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauth.commands import options
from extauth.commands.output import failing, print_json, print_lines

if TYPE_CHECKING:
    from extauth.commands.client import Answer, Status

EXAMPLE = """\b
Example:
  extauth check --address 127.0.0.1:8081 --repeat 3 \\
      api api_key=free-tier-key masked_remote_address=192.0.2.1/32

Exit code: 0 where the last answer was OK, 1 where it was OVER_LIMIT, 2 where the server cannot be asked."""

_ADDRESS = "HOST:PORT, [IPV6]:PORT or unix:PATH."
_HITS = click.IntRange(1, 2**32 - 1)
_REPEAT = click.IntRange(1, 1_000_000)
_TIMEOUT = click.FloatRange(0.001, 600)
_TLS = "Ask over TLS; each option that begins so implies it."
_CA = "The CAs to trust, PEM; by default gRPC's own."


@click.command(epilog=EXAMPLE)
@options.domain_name
@options.descriptors
@click.option("--address", default="127.0.0.1:8081", metavar="ADDRESS", help=_ADDRESS)
@click.option("--hits", type=_HITS, default=1, metavar="N", help="How many hits a request counts as.")
@click.option("--repeat", type=_REPEAT, default=1, metavar="N", help="How many requests to send, one after the other.")
@click.option("--timeout", type=_TIMEOUT, default=5, metavar="SECONDS", help="How long to wait for an answer.")
@click.option("--tls", is_flag=True, help=_TLS)
@click.option("--tls-ca", type=options.PATH, metavar="FILE", help=_CA)
@click.option("--tls-cert", type=options.PATH, metavar="FILE", help="The certificate to show, PEM.")
@click.option("--tls-key", type=options.PATH, metavar="FILE", help="Its key, PEM.")
@click.option("--tls-name", metavar="NAME", help="The name that the certificate must have, if not HOST.")
@options.as_json
def check(
    domain: str,
    descriptors: tuple[str, ...],
    *,
    address: str,
    hits: int,
    repeat: int,
    timeout: float,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_name: str | None,
    as_json: bool,
) -> None:
    """Ask a rate limit service as Envoy does, and show its answer. This counts.

    Any server of envoy.service.ratelimit.v3.RateLimitService will do. Give the descriptors as Envoy would send them,
    one an argument; each gets a status. With --repeat, each answer is a line, and a summary ends it.
    """
    from extauth.commands.client import TlsOptions, connected
    from extauth.explain.request import read_descriptor
    from extauth.rls.encode import encode_request

    with failing(as_json=as_json):
        request = encode_request(domain, tuple(map(read_descriptor, descriptors)), 0 if hits == 1 else hits)
        files = TlsOptions(tls_ca, tls_cert, tls_key, tls_name)
        secure = tls or any(option is not None for option in files)
        answers: list[Answer] = []
        started = time.perf_counter()
        with connected(address, timeout, files if secure else None) as asker:
            for number in range(1, repeat + 1):
                answers.append(asker.ask(request))
                if repeat > 1 and not as_json:
                    print_lines([_line(number, answers[-1])])
        elapsed_s = time.perf_counter() - started
        admitted = sum(answer.ok for answer in answers)
        if as_json:
            counts = {"ok": admitted, "not_ok": repeat - admitted}
            print_json({"address": address, **counts, "answers": list(map(_view, answers))})
        elif repeat > 1:
            print_lines([f"{admitted} OK, {repeat - admitted} not, in {elapsed_s:.3f} s"])
        else:
            print_lines(list(_lines(answers[0])))
        if not answers[-1].ok:
            raise click.exceptions.Exit(1)


def _line(number: int, answer: "Answer") -> str:
    return f"{number}  {_code(answer)}  " + " | ".join(map(_status, answer.statuses))


def _code(answer: "Answer") -> str:
    return answer.code if answer.source is None else f"{answer.code} (without the store: {answer.source})"


def _lines(answer: "Answer") -> Iterator[str]:
    yield _code(answer)
    for number, status in enumerate(answer.statuses, 1):
        yield f"descriptor {number}: {status.code}, {_status(status)}"
    for name, value in answer.response_headers:
        yield f"to the client, {name}: {value}"
    for name, value in answer.request_headers:
        yield f"upstream, {name}: {value}"
    if answer.body:
        yield f"body: {answer.body}"
    if answer.metadata is not None:
        yield f"dynamic metadata: {answer.metadata}"


def _status(status: "Status") -> str:
    if status.limit is None:
        return "no limit"
    name = f" ({status.name})" if status.name else ""
    reset = "" if status.reset_s is None else f", resets in {status.reset_s:g} s"
    return f"{status.remaining} left of {status.limit}{name}{reset}"


def _view(answer: "Answer") -> dict[str, Any]:
    return {
        "code": answer.code,
        "without_store": answer.source,
        "statuses": [status._asdict() for status in answer.statuses],
        "response_headers": answer.response_headers,
        "request_headers": answer.request_headers,
        "body": answer.body,
        "metadata": answer.metadata,
    }
