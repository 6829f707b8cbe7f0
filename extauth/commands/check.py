"""`extauth check`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extauth.commands.common import AsJson, Descriptors, DomainName, failing, print_json, print_lines
from extauth.commands.request import encode_request, read_descriptor

if TYPE_CHECKING:
    from extauth.commands.client import Answer, Status

EXAMPLE = """\b
Example:
  extauth check --address 127.0.0.1:8081 --repeat 3 \\
      api api_key=free-tier-key masked_remote_address=192.0.2.1/32

Exit code: 0 where the last answer was OK, 1 where it was OVER_LIMIT, 2 where the server cannot be asked."""

Address = Annotated[str, typer.Option(metavar="ADDRESS", help="HOST:PORT, [IPV6]:PORT or unix:PATH.")]
Hits = Annotated[int, typer.Option(min=1, max=2**32 - 1, metavar="N", help="How many hits a request counts as.")]
Repeat = Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="Ask so many times, one after the other.")]
Timeout = Annotated[float, typer.Option(min=0.001, max=600, metavar="SECONDS", help="How long to wait for an answer.")]
WithTls = Annotated[bool, typer.Option("--tls", help="Ask over TLS; each option that begins so implies it.")]
TlsCa = Annotated[Path | None, typer.Option(metavar="FILE", help="The CAs to trust, PEM; by default gRPC's own.")]
TlsCert = Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate to show, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")]
TlsName = Annotated[str | None, typer.Option(metavar="NAME", help="Whose certificate to expect, where not HOST's.")]


def check(
    domain: DomainName,
    descriptors: Descriptors,
    *,
    address: Address = "127.0.0.1:8081",
    hits: Hits = 1,
    repeat: Repeat = 1,
    timeout: Timeout = 5,
    tls: WithTls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = None,
    as_json: AsJson = False,
) -> None:
    """Ask a rate limit service as Envoy does, and show its answer. This counts.

    Any server of envoy.service.ratelimit.v3.RateLimitService will do. Give the descriptors as Envoy would send them,
    one an argument; a status is told of each. With --repeat, each answer is a line, and a summary ends it.
    """
    from extauth.commands.client import TlsOptions, connected

    with failing(as_json=as_json):
        request = encode_request(domain, tuple(map(read_descriptor, descriptors)), 0 if hits == 1 else hits)
        options = TlsOptions(tls_ca, tls_cert, tls_key, tls_name)
        secure = tls or any(option is not None for option in options)
        answers: list[Answer] = []
        started = time.perf_counter()
        with connected(address, timeout, options if secure else None) as asker:
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
            raise typer.Exit(1)


def _line(number: int, answer: "Answer") -> str:
    return f"{number}  {answer.code}  " + " | ".join(map(_status, answer.statuses))


def _lines(answer: "Answer") -> Iterator[str]:
    yield answer.code
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
        "statuses": [status._asdict() for status in answer.statuses],
        "response_headers": answer.response_headers,
        "request_headers": answer.request_headers,
        "body": answer.body,
        "metadata": answer.metadata,
    }
