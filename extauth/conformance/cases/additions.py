"""What extauth adds to envoyproxy/ratelimit's grammar."""

from extauth.conformance.case import DAY_S, Cases, Mark, Result, compare
from extauth.conformance.rules import EXTAUTH_DOMAIN
from extauth.conformance.server import Limited, Server, Status, descriptor

CASES = Cases(Mark.EXTAUTH, EXTAUTH_DOMAIN)
ALGORITHMS = "docs/configuration.md#algorithms"
DENIED = "docs/configuration.md#denied-requests-and-debt"
MATCHING = "docs/configuration.md#the-order-of-matching"
DESCRIPTOR = "docs/configuration.md#a-descriptor"
TIERS = "docs/configuration.md#tiers"
TIER_HEADER = "x-ratelimit-tier"


async def _hits(server: Server, key: str, *hits: int) -> list[str]:
    one = descriptor((key, server.fresh()))
    return [(await server.ask(one, hits=n)).code for n in hits]


async def _users(server: Server, outer: str, expected: dict[str, int | None]) -> Result:
    above = (outer, server.fresh())
    return compare(expected, {user: await server.limit_of(above, ("user", user)) for user in expected})


@CASES.case(ALGORITHMS)
async def gcra_admits_a_burst(server: Server) -> Result:
    """A gcra limit admits requests_per_unit at once, and tells the time until the bucket is full."""
    one = descriptor(("bucket", server.fresh()))
    answers = [await server.ask(one) for _ in range(5)]
    resets = [-(-(answer.statuses[0].reset_s or 0) // (DAY_S / 4)) for answer in answers]
    seen = ([answer.code for answer in answers], [answer.remaining for answer in answers], resets)
    return compare((["OK"] * 4 + ["OVER_LIMIT"], [[3], [2], [1], [0], [0]], [1, 2, 3, 4, 4]), seen)


@CASES.case("docs/configuration.md#a-limit")
async def burst(server: Server) -> Result:
    """With burst, gcra admits that many at once."""
    return compare(["OK"] * 3 + ["OVER_LIMIT"], await _hits(server, "burst", 1, 1, 1, 1))


@CASES.case(ALGORITHMS)
async def sliding_window_counts(server: Server) -> Result:
    """sliding_window admits requests_per_unit; the last hit leaves it a unit later."""
    one = descriptor(("sliding", server.fresh()))
    answers = [await server.ask(one) for _ in range(5)]
    resets = [DAY_S - 60 < (answer.statuses[0].reset_s or 0) <= DAY_S for answer in answers]
    seen = ([answer.code for answer in answers], [answer.remaining for answer in answers], resets)
    return compare((["OK"] * 4 + ["OVER_LIMIT"], [[3], [2], [1], [0], [0]], [True] * 5), seen)


@CASES.case(DENIED)
async def denied_hits_that_do_not_count(server: Server) -> Result:
    """Denied hits take nothing under gcra and in sliding windows, and with count_denied: false in fixed ones."""
    seen = {key: await _hits(server, key, 3, 2, 1) for key in ("bucket", "sliding", "forgiving")}
    return compare({key: ["OK", "OVER_LIMIT", "OK"] for key in seen}, seen)


@CASES.case(DENIED)
async def debt(server: Server) -> Result:
    """With count_denied: true, denied hits count under gcra as well."""
    return compare(["OK", "OVER_LIMIT", "OVER_LIMIT"], await _hits(server, "debt", 3, 2, 1))


@CASES.case(DENIED)
async def denied_request_takes_nothing_anywhere(server: Server) -> Result:
    """A request that one limit denies takes nothing from the others, but those with count_denied."""
    keys = ("forgiving", "bucket", "sliding", "debt")
    each = [descriptor((key, server.fresh()), hits=5 if key == "forgiving" else 1) for key in keys]
    denied = await server.ask(*each)
    after = await server.ask(*each[1:])
    seen = (denied.codes, denied.remaining, after.remaining)
    return compare((["OVER_LIMIT", "OK", "OK", "OK"], [0, 4, 4, 3], [3, 3, 2]), seen)


@CASES.case("docs/configuration.md#a-limit")
async def unit_multiplier(server: Server) -> Result:
    """With unit_multiplier the window lasts that many units; Envoy gets no unit, for it would show a wrong window."""
    one = descriptor(("two-days", server.fresh()))
    answers = [await server.ask(one) for _ in range(4)]
    limits = {answer.statuses[0].limit for answer in answers}
    within = all(0 < (answer.statuses[0].reset_s or 0) <= 2 * DAY_S for answer in answers)
    seen = ([answer.code for answer in answers], limits, within)
    return compare((["OK"] * 3 + ["OVER_LIMIT"], {Limited(3, "UNKNOWN")}, True), seen)


@CASES.case("docs/configuration.md#a-request-of-several-limits")
async def rate_limits_must_all_admit(server: Server) -> Result:
    """All of a descriptor's rate_limits must admit; its one status tells of the tightest."""
    one = descriptor(("two-limits", server.fresh()))
    answers = [await server.ask(one) for _ in range(4)]
    seen = [(answer.code, [status.limit for status in answer.statuses], answer.remaining) for answer in answers]
    limit = [Limited(3, "DAY")]
    return compare([("OK", limit, [left]) for left in (2, 1, 0)] + [("OVER_LIMIT", limit, [0])], seen)


@CASES.case(DESCRIPTOR)
async def value_sha256(server: Server) -> Result:
    """value_sha256 matches the value with that digest."""
    return await _users(server, "match", {"a-secret": 106, "a-secreT": 101})


@CASES.case(DESCRIPTOR)
async def values(server: Server) -> Result:
    """A rule with values matches each of its values, and each counts by itself."""
    outer = ("listed", server.fresh())
    seen = [await server.codes(descriptor(outer, ("user", user)), calls=4) for user in ("bob", "carol", "dan")]
    return compare([["OK"] * 3 + ["OVER_LIMIT"]] * 2 + [["OK"] * 4], seen)


@CASES.case(DESCRIPTOR)
async def value_regex(server: Server) -> Result:
    """value_regex matches the whole value."""
    return await _users(server, "match", {"x1": 102, "x12": 101, "-x1": 101})


@CASES.case(DESCRIPTOR)
async def value_range(server: Server) -> Result:
    """value_range matches whole numbers from its start to before its end."""
    return await _users(server, "match", {"10": 103, "19": 103, "+15": 103, "20": 101, "9": 101, "15.0": 104})


@CASES.case(DESCRIPTOR)
async def value_cidr(server: Server) -> Result:
    """value_cidr matches addresses in its networks, and of several the one with the longest prefix wins."""
    limits: dict[str, int | None] = {
        "192.0.2.1": 108,
        "192.0.2.129": 109,
        "192.0.2.128/25": 109,
        "2001:db8::1": 108,
        "203.0.113.1": 101,
    }
    return await _users(server, "match", limits)


@CASES.case(MATCHING)
async def order_of_matchers(server: Server) -> Result:
    """What matches exactly comes first, then patterns in file order, then the key alone."""
    return await _users(server, "match", {"alice1": 107, "bob1": 105, "dan1": 102, "1x": 104, "12": 103, "x": 101})


@CASES.case(TIERS)
async def tier_is_a_named_limit(server: Server) -> Result:
    """A tier's limit bears its name, and an admission tells it to the upstream."""
    one = descriptor(("basic", server.fresh()))
    answers = [await server.ask(one) for _ in range(3)]
    seen = [(answer.code, answer.statuses[0].limit, answer.request_headers.get(TIER_HEADER)) for answer in answers]
    name = "conformance-basic"
    limit = Limited(2, "DAY", name)
    return compare([("OK", limit, name)] * 2 + [("OVER_LIMIT", limit, None)], seen)


@CASES.case(TIERS)
async def tier_replaces_another(server: Server) -> Result:
    """A tier replaces another by its name, which then does not count, and is the one that is told."""
    basic, plus = descriptor(("basic", server.fresh())), descriptor(("plus", server.fresh()))
    answers = [await server.ask(basic, plus) for _ in range(6)]
    alone = await server.ask(basic)
    seen = {
        "codes": [answer.code for answer in answers],
        "basic": {answer.statuses[0] for answer in answers},
        "tier": {answer.request_headers.get(TIER_HEADER) for answer in answers[:5]},
        "alone": alone.remaining,
    }
    expected = {
        "codes": ["OK"] * 5 + ["OVER_LIMIT"],
        "basic": {Status("OK")},
        "tier": {"conformance-plus"},
        "alone": [1],
    }
    return compare(expected, seen)


@CASES.case("docs/configuration.md#labels")
async def labels_limit_nothing(server: Server) -> Result:
    """A descriptor of a label alone has a status without a limit."""
    answer = await server.ask(descriptor(("path", server.fresh())), descriptor(("bucket", server.fresh())))
    return compare((Status("OK"), 3), (answer.statuses[0], answer.remaining[1]))


@CASES.case("docs/architecture.md#the-response")
async def denial_tells_when_to_retry(server: Server) -> Result:
    """A denial has retry-after, the seconds until the request would fit; there is none where it never will."""
    one = descriptor(("bucket", server.fresh()))
    await server.ask(one, hits=4)
    fits, never = await server.ask(one), await server.ask(one, hits=5)
    retry_after = fits.response_headers.get("retry-after", "")
    within = retry_after.isdigit() and DAY_S / 4 - 60 < int(retry_after) <= DAY_S / 4
    seen = ("soon enough" if within else retry_after, never.response_headers.get("retry-after"))
    return compare(("soon enough", None), seen)
