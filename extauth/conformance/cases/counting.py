"""What counts, and as how much."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

from extauth.conformance.case import Case, Cases, Result, compare
from extauth.conformance.cases.answers import UNITS_S
from extauth.conformance.server import Server, descriptor

CASES = Cases()
ROLL_TIMEOUT_S = 5
POLL_S = 0.02
FIXED_WINDOW = "envoyproxy/ratelimit src/redis/fixed_cache_impl.go, DoLimit"
REQUEST_HITS = "rls.proto, RateLimitRequest.hits_addend"
DESCRIPTOR_HITS = "ratelimit.proto, RateLimitDescriptor.hits_addend"


async def _counts(unit: str, server: Server) -> Result:
    one = descriptor((f"per-{unit}", server.fresh()))
    return compare(["OK"] * 3 + ["OVER_LIMIT"] * 2, await server.codes(one, calls=5))


CASES += [
    Case(
        f"count_per_{unit}",
        f"A limit of 3 a {unit} admits 3 calls in a window, and no more.",
        "rls.proto, RateLimitResponse.RateLimit.Unit",
        partial(_counts, unit),
        period_s=min(period_s, UNITS_S["day"]),  # windows of longer units begin with days
    )
    for unit, period_s in UNITS_S.items()
]


@CASES.case("envoyproxy/ratelimit README.md#example-3")
async def limit_of_zero_denies(server: Server) -> Result:
    """A limit of 0 requests admits none."""
    return compare(["OVER_LIMIT"] * 2, await server.codes(descriptor(("none", server.fresh())), calls=2))


@CASES.case("rls.proto, RateLimitResponse.RateLimit.requests_per_unit")
async def largest_limit(server: Server) -> Result:
    """A limit of 4294967295 takes a hits_addend of 4294967295, and is used up then."""
    one = descriptor(("most", server.fresh()))
    first = await server.ask(one, hits=2**32 - 1)
    second = await server.ask(one)
    return compare(("OK", [0], "OVER_LIMIT"), (first.code, first.remaining, second.code))


@CASES.case("envoyproxy/ratelimit README.md#example-2")
async def each_value_has_its_counter(server: Server) -> Result:
    """A rule with a key alone counts each value by itself."""
    one, other = descriptor(("two", server.fresh())), descriptor(("two", server.fresh()))
    seen = [await server.codes(one, calls=3), await server.codes(other, calls=3)]
    return compare([["OK", "OK", "OVER_LIMIT"]] * 2, seen)


@CASES.case("envoyproxy/ratelimit src/limiter/cache_key.go")
async def values_of_any_text_are_kept_apart(server: Server) -> Result:
    """Values that differ in punctuation, space, case, script or one of 8,000 characters share no counter."""
    stem = server.fresh()
    ends = [
        "",
        "_",
        "__",
        "|",
        ".",
        ":",
        " ",
        "  ",
        "\t",
        "\n",
        "/",
        "*",
        "%",
        "{}",
        "a",
        "A",
        "ä",
        "a\u0308",
        "日本",
        "🦀",
    ]
    long = stem + "x" * 8_000
    values = [*(stem + end for end in ends), *(end + stem for end in ends[1:]), long + "a", long + "b"]
    left: dict[str, int] = {}
    for value in values:
        answer = await server.ask(descriptor(("two", value)))
        left[value if len(value) < 100 else f"{value[:20]}…{value[-1]}"] = answer.remaining[0]
    return compare(dict.fromkeys(left, 1), left)


@CASES.case(REQUEST_HITS)
async def hits_of_the_request(server: Server) -> Result:
    """hits_addend is how many hits the call adds; 0, as when it is absent, stands for 1."""
    one = descriptor(("ten", server.fresh()))
    return compare([[6], [5], [4]], [(await server.ask(one, hits=hits)).remaining for hits in (4, 0, 1)])


@CASES.case(REQUEST_HITS)
async def hits_that_exceed_the_limit(server: Server) -> Result:
    """A call that adds more hits than are left is over the limit; one that adds just these is not."""
    one, other = descriptor(("ten", server.fresh())), descriptor(("ten", server.fresh()))
    seen = [(await server.ask(one, hits=10)).code, (await server.ask(other, hits=11)).code]
    return compare(["OK", "OVER_LIMIT"], seen)


@CASES.case(DESCRIPTOR_HITS)
async def hits_of_a_descriptor(server: Server) -> Result:
    """A descriptor's own hits_addend counts in place of the request's, which counts for the others."""
    own, without = descriptor(("ten", server.fresh()), hits=3), descriptor(("ten", server.fresh()))
    answer = await server.ask(own, without, hits=5)
    return compare([7, 5], answer.remaining)


@CASES.case(DESCRIPTOR_HITS)
async def peek_takes_nothing(server: Server) -> Result:
    """A descriptor's hits_addend of 0 tells what is left, and takes nothing."""
    entry = ("three", server.fresh())
    peeks = [await server.ask(descriptor(entry, hits=0), hits=2) for _ in range(4)]
    hit = await server.ask(descriptor(entry))
    return compare([("OK", [3])] * 4 + [("OK", [2])], [(answer.code, answer.remaining) for answer in (*peeks, hit)])


@CASES.case(FIXED_WINDOW)
async def denied_hits_count(server: Server) -> Result:
    """In a fixed window hits count even when they are denied: those of one large call use up what was left."""
    one = descriptor(("ten", server.fresh()))
    seen = [(await server.ask(one, hits=hits)).code for hits in (4, 7, 1)]
    return compare(["OK", "OVER_LIMIT", "OVER_LIMIT"], seen)


@CASES.case(FIXED_WINDOW)
async def same_descriptor_twice(server: Server) -> Result:
    """A descriptor that is twice in a request takes from its counter twice."""
    one = descriptor(("three", server.fresh()))
    twice = await server.ask(one, one)
    once = await server.ask(one)
    over = await server.ask(one, one)
    seen = (twice.code, twice.remaining[1:], once.code, once.remaining, over.code)
    return compare(("OK", [1], "OK", [0], "OVER_LIMIT"), seen)


@CASES.case("envoyproxy/ratelimit README.md#rate-limit-definition", period_s=1)
async def window_ends(server: Server) -> Result:
    """A limit by the second that is used up admits again in the next window."""
    one = descriptor(("per-second", server.fresh()))
    codes = await server.codes(one, calls=4)
    started = time.monotonic()
    while codes[-1] != "OK" and time.monotonic() - started < ROLL_TIMEOUT_S:
        await asyncio.sleep(POLL_S)
        codes += await server.codes(one, calls=1)
    took_s = time.monotonic() - started
    seen = (codes[:4], codes[-1], "in time" if took_s < 2 else f"after {took_s:.1f} s")
    return compare((["OK"] * 3 + ["OVER_LIMIT"], "OK", "in time"), seen)


@CASES.case("rls.proto, RateLimitResponse.RateLimit.requests_per_unit")
async def concurrent_calls_admit_the_limit(server: Server) -> Result:
    """Of 100 calls at a time over four connections, a limit of 50 admits exactly 50."""
    one = descriptor(("fifty", server.fresh()))
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(server.another()) for _ in range(4)]
        answers = await asyncio.gather(*[servers[i % 4].ask(one) for i in range(100)])
    codes = [answer.code for answer in answers]
    return compare({"OK": 50, "OVER_LIMIT": 50}, {code: codes.count(code) for code in sorted(set(codes))})
