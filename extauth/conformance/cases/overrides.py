"""Limits that a descriptor brings with it."""

from extauth.conformance.case import Cases, Result, compare
from extauth.conformance.server import Limited, Override, Server, Status, descriptor

CASES = Cases()
OVERRIDE = "ratelimit.proto, RateLimitDescriptor.limit"
GET_LIMIT = "envoyproxy/ratelimit src/config/config_impl.go, GetLimit"


@CASES.case(OVERRIDE)
async def override_applies(server: Server) -> Result:
    """A descriptor's own limit applies where no rule matches, and is told."""
    one = descriptor((f"unmatched-{server.fresh()}", "x"), limit=Override(2))
    answers = [await server.ask(one) for _ in range(3)]
    seen = [(answer.code, answer.statuses[0].limit, answer.remaining) for answer in answers]
    limit = Limited(2, "DAY")
    return compare([("OK", limit, [1]), ("OK", limit, [0]), ("OVER_LIMIT", limit, [0])], seen)


@CASES.case(OVERRIDE)
async def override_beats_the_rule(server: Server) -> Result:
    """A descriptor's own limit applies in place of the rule's."""
    one = descriptor(("ten", server.fresh()), limit=Override(1))
    return compare(["OK", "OVER_LIMIT"], await server.codes(one, calls=2))


@CASES.case(GET_LIMIT)
async def override_without_modes(server: Server) -> Result:
    """A descriptor's own limit denies, even where the rule that it stands in for is in shadow_mode."""
    one = descriptor(("shadow", server.fresh()), limit=Override(1))
    return compare(["OK", "OVER_LIMIT"], await server.codes(one, calls=2))


@CASES.case(GET_LIMIT)
async def override_of_zero_denies(server: Server) -> Result:
    """A descriptor's own limit of 0 requests admits none."""
    one = descriptor(("ten", server.fresh()), limit=Override(0))
    return compare(["OVER_LIMIT"], await server.codes(one, calls=1))


@CASES.case(GET_LIMIT)
async def override_in_an_unknown_domain(server: Server) -> Result:
    """A descriptor's own limit does not apply in a domain that no file speaks of."""
    unknown = server.at(f"unknown-{server.fresh()}")
    answer = await unknown.ask(descriptor(("ten", server.fresh()), limit=Override(0)))
    return compare(("OK", (Status("OK"),)), (answer.code, answer.statuses))
