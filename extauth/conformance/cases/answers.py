"""What an answer looks like."""

from extauth.conformance.case import Cases, Result, compare
from extauth.conformance.server import Limited, Server, Status, descriptor

CASES = Cases()
UNITS_S = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}
STATUS = "rls.proto, RateLimitResponse.DescriptorStatus"


@CASES.case("envoyproxy/ratelimit src/config/config_impl.go, GetLimit")
async def unknown_domain_is_ok(server: Server) -> Result:
    """A domain that no config file defines is not limited."""
    answer = await server.at(f"unknown-{server.fresh()}").ask(descriptor(("two", server.fresh())))
    return compare(("OK", (Status("OK"),)), (answer.code, answer.statuses))


@CASES.case("envoyproxy/ratelimit src/limiter/base_limiter.go, GetResponseDescriptorStatus")
async def unmatched_descriptor_is_ok(server: Server) -> Result:
    """A descriptor that no rule matches is OK, with a status that has nothing else."""
    answer = await server.ask(descriptor((f"unmatched-{server.fresh()}", "x")))
    return compare(("OK", (Status("OK"),)), (answer.code, answer.statuses))


@CASES.case("envoyproxy/ratelimit README.md#descriptor-list-definition")
async def rule_without_limit_whitelists(server: Server) -> Result:
    """A rule without rate_limit and descriptors is found like any other, and limits nothing."""
    outer = ("whitelist", server.fresh())
    listed = await server.ask(descriptor(outer, ("caller", "internal")))
    other = await server.ask(descriptor(outer, ("caller", "other")))
    return compare(("OK", (Status("OK"),), "OVER_LIMIT"), (listed.code, listed.statuses, other.code))


@CASES.case("rls.proto, RateLimitResponse.statuses")
async def statuses_in_order(server: Server) -> Result:
    """There is one status a descriptor, in the order of the request, whether a limit applies or not."""
    keys = ["ten", "unmatched", "two", "boundless", "three", "unmatched", "named"]
    answer = await server.ask(*[descriptor((key, server.fresh())) for key in keys])
    limits = [status.limit and status.limit.requests_per_unit for status in answer.statuses]
    return compare([10, None, 2, None, 3, None, 7], limits)


@CASES.case("rls.proto, RateLimitRequest.descriptors")
async def many_descriptors(server: Server) -> Result:
    """Fifty descriptors in one request are each answered."""
    answer = await server.ask(*[descriptor(("ten", server.fresh())) for _ in range(50)])
    return compare(("OK", [9] * 50), (answer.code, answer.remaining))


@CASES.case(f"{STATUS}.limit_remaining")
async def remaining_counts_down(server: Server) -> Result:
    """limit_remaining is what is left after the call, and 0 once nothing is."""
    one = descriptor(("three", server.fresh()))
    return compare([[2], [1], [0], [0]], [(await server.ask(one)).remaining for _ in range(4)])


@CASES.case(f"{STATUS}.current_limit")
async def current_limit_is_told(server: Server) -> Result:
    """current_limit has the rule's requests_per_unit, unit and name."""
    answer = await server.ask(descriptor(("named", server.fresh())), descriptor(("per-week", server.fresh())))
    expected = [Limited(7, "HOUR", "conformance-named"), Limited(3, "WEEK")]
    return compare(expected, [status.limit for status in answer.statuses])


@CASES.case(f"{STATUS}.current_limit")
async def denial_tells_the_limit(server: Server) -> Result:
    """The status of a limit that is over has current_limit and limit_remaining 0 as well."""
    answer = await server.ask(descriptor(("none", server.fresh())))
    expected = ("OVER_LIMIT", "OVER_LIMIT", Limited(0, "DAY"), 0)
    return compare(expected, (answer.code, *answer.statuses[0][:3]))


@CASES.case(f"{STATUS}.duration_until_reset")
async def reset_lies_within_the_unit(server: Server) -> Result:
    """duration_until_reset is more than 0 and at most the unit, for each unit."""
    answer = await server.ask(*[descriptor((f"per-{unit}", server.fresh())) for unit in UNITS_S])
    seen = {
        unit: f"{status.reset_s} s" if status.reset_s is None or not 0 < status.reset_s <= UNITS_S[unit] else "within"
        for unit, status in zip(UNITS_S, answer.statuses, strict=True)
    }
    return compare(dict.fromkeys(UNITS_S, "within"), seen)
