"""Limits that a descriptor brings with it."""

from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.conformance.case import Cases, Result, compare
from extauth.conformance.server import Limited, Override, Server, Status, descriptor

CASES = Cases()
OVERRIDE = "ratelimit.proto, RateLimitDescriptor.limit"
GET_LIMIT = "envoyproxy/ratelimit src/config/config_impl.go, GetLimit"
CACHE_KEY = "envoyproxy/ratelimit src/limiter/cache_key.go, GenerateCacheKey"


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
    """A descriptor's own limit denies, even where the rule that it replaces is in shadow_mode."""
    one = descriptor(("shadow", server.fresh()), limit=Override(1))
    return compare(["OK", "OVER_LIMIT"], await server.codes(one, calls=2))


@CASES.case(GET_LIMIT)
async def override_of_zero_denies(server: Server) -> Result:
    """A descriptor's own limit of 0 requests admits none."""
    one = descriptor(("ten", server.fresh()), limit=Override(0))
    return compare(["OVER_LIMIT"], await server.codes(one, calls=1))


@CASES.case(CACHE_KEY)
async def override_whose_number_moves(server: Server) -> Result:
    """A descriptor's own limit whose number moves up or down counts what was used under the other numbers."""
    entry = ("ten", server.fresh())
    codes = await server.codes(descriptor(entry, limit=Override(3)), calls=3)
    left = [(await server.ask(descriptor(entry, limit=Override(number)))).remaining for number in (100, 50)]
    last = await server.codes(descriptor(entry, limit=Override(5)), calls=1)
    return compare((["OK"] * 3, [[96], [45]], ["OVER_LIMIT"]), (codes, left, last))


@CASES.case(CACHE_KEY)
async def override_of_another_unit(server: Server) -> Result:
    """A descriptor's own limits by the day and by the second count apart."""
    entry = ("ten", server.fresh())
    by_day = descriptor(entry, limit=Override(1))
    by_second = descriptor(entry, limit=Override(5, RateLimitUnit.SECOND.value))
    answers = [await server.ask(one) for one in (by_day, by_second, by_day)]
    seen = [(answer.code, answer.remaining) for answer in answers]
    return compare([("OK", [0]), ("OK", [4]), ("OVER_LIMIT", [0])], seen)


@CASES.case(CACHE_KEY)
async def overrides_of_two_numbers_in_a_request(server: Server) -> Result:
    """A descriptor twice, with limits of its own that have two numbers, must be within both: each takes a hit."""
    seen = []
    for numbers in ((10, 2), (2, 10)):
        entry = ("ten", server.fresh())
        both = [descriptor(entry, limit=Override(number)) for number in numbers]
        for _ in range(2):
            answer = await server.ask(*both)
            seen.append((answer.code, dict(zip(numbers, answer.codes, strict=True))))
    within = ("OK", {10: "OK", 2: "OK"})
    over = ("OVER_LIMIT", {10: "OK", 2: "OVER_LIMIT"})
    return compare([within, over, within, over], seen)


@CASES.case(GET_LIMIT)
async def override_in_an_unknown_domain(server: Server) -> Result:
    """A descriptor's own limit does not apply in a domain that no config file defines."""
    unknown = server.at(f"unknown-{server.fresh()}")
    answer = await unknown.ask(descriptor(("ten", server.fresh()), limit=Override(0)))
    return compare(("OK", (Status("OK"),)), (answer.code, answer.statuses))
