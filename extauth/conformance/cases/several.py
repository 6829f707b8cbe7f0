"""What a request of several limits means."""

from extauth.conformance.case import Cases, Result, compare
from extauth.conformance.server import ALL_REMAINING, Server, Status, descriptor

CASES = Cases()
REPLACES = "envoyproxy/ratelimit README.md#replaces"
LIMITS_TO_CHECK = "envoyproxy/ratelimit src/service/ratelimit.go, constructLimitsToCheck"
WORKER = "envoyproxy/ratelimit src/service/ratelimit.go, shouldRateLimitWorker"
SHADOW = "envoyproxy/ratelimit README.md#shadowmode"
UNLIMITED = Status("OK", remaining=ALL_REMAINING)
NO_LIMIT = Status("OK")


@CASES.case("rls.proto, RateLimitResponse.overall_code")
async def over_limit_if_either_is(server: Server) -> Result:
    """A request is over the limit if any of its descriptors is, and each status tells of its own."""
    two, ten = descriptor(("two", server.fresh())), descriptor(("ten", server.fresh()))
    answers = [await server.ask(*both) for both in ((two, ten), (ten, two), (two, ten), (ten, two))]
    expected = [("OK", ["OK", "OK"])] * 2 + [("OVER_LIMIT", ["OVER_LIMIT", "OK"]), ("OVER_LIMIT", ["OK", "OVER_LIMIT"])]
    return compare(expected, [(answer.code, answer.codes) for answer in answers])


@CASES.case("envoyproxy/ratelimit README.md#redis, STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT")
async def denied_request_counts_in_its_other_limits(server: Server) -> Result:
    """In fixed windows a request that one limit denies counts in the others all the same."""
    none, ten = descriptor(("none", server.fresh())), descriptor(("ten", server.fresh()))
    denied = [await server.ask(none, ten) for _ in range(3)]
    after = await server.ask(ten)
    seen = ([answer.remaining[1] for answer in denied], after.remaining)
    return compare(([9, 8, 7], [6]), seen)


@CASES.case("envoyproxy/ratelimit README.md#example-5")
async def unlimited(server: Server) -> Result:
    """What is unlimited is OK with a limit_remaining of 4294967295, and without current_limit."""
    one = descriptor(("boundless", server.fresh()))
    answers = [await server.ask(one, hits=2**31) for _ in range(3)]
    return compare([("OK", (UNLIMITED,))] * 3, [(answer.code, answer.statuses) for answer in answers])


@CASES.case(REPLACES)
async def replaces_across_descriptors(server: Server) -> Result:
    """A limit that another one of the request replaces does not apply and is not counted."""
    replaced, replacer = descriptor(("replaced", server.fresh())), descriptor(("replacer", server.fresh()))
    together = [await server.ask(*both) for both in ((replaced, replacer), (replacer, replaced)) for _ in range(2)]
    alone = await server.ask(replaced)
    seen = {
        "codes": [answer.code for answer in together],
        "replaced": [together[0].statuses[0], together[2].statuses[1]],
        "replacer": [answer.remaining[i] for answer, i in zip(together, (1, 1, 0, 0), strict=True)],
        "alone": (alone.code, alone.remaining),
    }
    expected = {
        "codes": ["OK"] * 4,
        "replaced": [NO_LIMIT, NO_LIMIT],
        "replacer": [9, 8, 7, 6],
        "alone": ("OK", [1]),
    }
    return compare(expected, seen)


@CASES.case(LIMITS_TO_CHECK)
async def unlimited_replaces(server: Server) -> Result:
    """What is unlimited may replace a limit."""
    replaced, vip = descriptor(("replaced", server.fresh())), descriptor(("vip", server.fresh()))
    answers = [await server.ask(replaced, vip) for _ in range(3)]
    alone = await server.ask(replaced)
    seen = [(answer.code, answer.statuses) for answer in answers]
    return compare(([("OK", (NO_LIMIT, UNLIMITED))] * 3, [1]), (seen, alone.remaining))


@CASES.case(LIMITS_TO_CHECK)
async def replaces_does_not_chain(server: Server) -> Result:
    """A limit that is replaced itself still replaces others."""
    keys = ("replaced", "replacer", "last")
    answer = await server.ask(*[descriptor((key, server.fresh())) for key in keys])
    limits = [status.limit and status.limit.requests_per_unit for status in answer.statuses]
    return compare([None, None, 20], limits)


@CASES.case(LIMITS_TO_CHECK)
async def unlimited_is_never_replaced(server: Server) -> Result:
    """What is unlimited stays so, even where another limit replaces it by name."""
    answer = await server.ask(descriptor(("vip", server.fresh())), descriptor(("against-vip", server.fresh())))
    return compare((UNLIMITED, 9), (answer.statuses[0], answer.remaining[1]))


@CASES.case(SHADOW)
async def shadow_mode_is_always_ok(server: Server) -> Result:
    """A limit in shadow_mode counts, and tells OK however much it is over."""
    one = descriptor(("shadow", server.fresh()))
    answers = [await server.ask(one) for _ in range(5)]
    expected = [("OK", ["OK"], [left]) for left in (2, 1, 0, 0, 0)]
    return compare(expected, [(answer.code, answer.codes, answer.remaining) for answer in answers])


@CASES.case(SHADOW)
async def shadow_mode_beside_a_limit(server: Server) -> Result:
    """A limit in shadow_mode neither denies for others, nor keeps them from denying."""
    shadow, ten = descriptor(("shadow", server.fresh())), descriptor(("ten", server.fresh()))
    seen = [(await server.ask(shadow, ten, hits=hits)).codes for hits in (4, 6, 1)]
    return compare([["OK", "OK"], ["OK", "OK"], ["OK", "OVER_LIMIT"]], seen)


@CASES.case(WORKER)
async def quotas_deny_only_together(server: Server) -> Result:
    """A request with limits in quota_mode is over the limit only where all of them are; each tells of itself."""
    both = descriptor(("quota-one", server.fresh())), descriptor(("quota-three", server.fresh()))
    answers = [await server.ask(*both) for _ in range(4)]
    expected = [
        ("OK", ["OK", "OK"]),
        ("OK", ["OVER_LIMIT", "OK"]),
        ("OK", ["OVER_LIMIT", "OK"]),
        ("OVER_LIMIT", ["OVER_LIMIT", "OVER_LIMIT"]),
    ]
    return compare(expected, [(answer.code, answer.codes) for answer in answers])


@CASES.case(WORKER)
async def single_quota_denies(server: Server) -> Result:
    """A limit in quota_mode that is the only one denies as any other."""
    return compare(["OK", "OVER_LIMIT"], await server.codes(descriptor(("quota-one", server.fresh())), calls=2))


@CASES.case(WORKER)
async def quotas_beside_a_limit(server: Server) -> Result:
    """A limit that is no quota denies, whatever quotas are left; and quotas that are all over deny for it."""
    one, three = ("quota-one", server.fresh()), ("quota-three", server.fresh())
    two = descriptor(("two", server.fresh()))
    enforced = await server.codes(descriptor(one), descriptor(three), two, calls=3)
    ten = descriptor(("ten", server.fresh()))
    quotas = await server.codes(descriptor(("quota-one", server.fresh())), ten, calls=2)
    return compare((["OK", "OK", "OVER_LIMIT"], ["OK", "OVER_LIMIT"]), (enforced, quotas))
