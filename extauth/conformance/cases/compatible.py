"""What envoyproxy/ratelimit does otherwise than extauth, and extauth does as well in compatible mode."""

from extauth.conformance.case import Cases, Mark, Result, compare, compare_either
from extauth.conformance.server import Server, descriptor

CASES = Cases(Mark.COMPATIBLE)
PEEK = "envoyproxy/ratelimit, src/limiter/base_limiter.go: over is what exceeds the limit"


@CASES.case(PEEK)
async def peek_passes_at_a_used_up_limit(server: Server) -> Result:
    """A peek at a limit that is just used up is OK (extauth's own mode: OVER_LIMIT, as a hit would be)."""
    entry = ("three", server.fresh())
    await server.ask(descriptor(entry), hits=3)
    peek = await server.ask(descriptor(entry, hits=0))
    return compare_either(("OK", [0]), ("OVER_LIMIT", [0]), (peek.code, peek.remaining), own=True)


@CASES.case(PEEK)
async def peeks_between_hits(server: Server) -> Result:
    """Of peeks and hits in turn, as many peeks pass as hits, and the one after them (extauth's own mode: as many)."""
    entry = ("three", server.fresh())
    peeks = []
    for _ in range(6):
        peeks.append((await server.ask(descriptor(entry, hits=0))).code)
        await server.ask(descriptor(entry))
    passing = ["OK"] * 4 + ["OVER_LIMIT"] * 2
    return compare_either(passing, ["OK"] * 3 + ["OVER_LIMIT"] * 3, peeks, own=True)


@CASES.case(PEEK)
async def peek_at_an_exceeded_limit(server: Server) -> Result:
    """Once a denied hit was counted, a peek is OVER_LIMIT."""
    entry = ("three", server.fresh())
    await server.ask(descriptor(entry), hits=4)
    peek = await server.ask(descriptor(entry, hits=0))
    return compare(("OVER_LIMIT", [0]), (peek.code, peek.remaining))


@CASES.case(PEEK)
async def peek_beside_a_hit(server: Server) -> Result:
    """A peek at a used-up limit does not deny the hit beside it (extauth's own mode: it does)."""
    used_up, other = ("three", server.fresh()), ("ten", server.fresh())
    await server.ask(descriptor(used_up), hits=3)
    answer = await server.ask(descriptor(used_up, hits=0), descriptor(other))
    seen = (answer.code, answer.codes, answer.remaining)
    own = ("OVER_LIMIT", ["OVER_LIMIT", "OK"], [0, 9])
    return compare_either(("OK", ["OK", "OK"], [0, 9]), own, seen, own=True)
