"""Where extauth chose otherwise than envoyproxy/ratelimit."""

from extauth.conformance.case import Cases, Mark, Result, compare, compare_either
from extauth.conformance.rules import EXTAUTH_DOMAIN
from extauth.conformance.server import Override, Server, descriptor, request

CASES = Cases(Mark.DEVIATION)
DIFFERENCES = "docs/migrating.md#differences-from-envoyproxyratelimit"
NEGATIVE_HITS = "ratelimit.proto, RateLimitDescriptor.is_negative_hits"


@CASES.case(DIFFERENCES)
async def no_domain_is_invalid(server: Server) -> Result:
    """A call without a domain is INVALID_ARGUMENT (envoyproxy/ratelimit: UNKNOWN)."""
    message = request("", descriptor(("ten", server.fresh())))
    return compare_either("INVALID_ARGUMENT", "UNKNOWN", await server.refusal(message))


@CASES.case(DIFFERENCES)
async def no_descriptors_are_invalid(server: Server) -> Result:
    """A call without descriptors is INVALID_ARGUMENT (envoyproxy/ratelimit: UNKNOWN)."""
    return compare_either("INVALID_ARGUMENT", "UNKNOWN", await server.refusal(request(server.domain)))


@CASES.case(DIFFERENCES)
async def value_that_is_no_utf8_is_a_value(server: Server) -> Result:
    """A value of bytes that are no UTF-8, which Envoy copies from headers, is one like any other (else: INTERNAL)."""
    message = request(server.domain, descriptor(("ten", f"{server.fresh()}\x7f"))).replace(b"\x7f", b"\xff")
    return compare_either("OK", "INTERNAL", await server.refusal(message))


@CASES.case(DIFFERENCES)
async def peek_at_a_used_up_limit(server: Server) -> Result:
    """A peek at a limit that is just used up is OVER_LIMIT, as a hit would be (envoyproxy/ratelimit: OK)."""
    entry = ("three", server.fresh())
    await server.ask(descriptor(entry), hits=3)
    peek = await server.ask(descriptor(entry, hits=0))
    return compare_either(("OVER_LIMIT", [0]), ("OK", [0]), (peek.code, peek.remaining))


@CASES.case(NEGATIVE_HITS)
async def negative_hits_are_given_back(server: Server) -> Result:
    """is_negative_hits gives the hits back (envoyproxy/ratelimit took them before)."""
    entry = ("ten", server.fresh())
    taken = await server.ask(descriptor(entry), hits=5)
    own = await server.ask(descriptor(entry, hits=2, negative=True))
    of_the_request = await server.ask(descriptor(entry, negative=True), hits=3)
    after = await server.ask(descriptor(entry))
    seen = [answer.remaining[0] for answer in (taken, own, of_the_request, after)]
    return compare_either([5, 7, 10, 9], [5, 3, 0, 0], seen)


@CASES.case(NEGATIVE_HITS)
async def negative_hits_end_at_none_used(server: Server) -> Result:
    """No more is given back than was used (envoyproxy/ratelimit took the hits before)."""
    entry = ("ten", server.fresh())
    given = await server.ask(descriptor(entry, hits=4, negative=True))
    after = await server.ask(descriptor(entry))
    seen = (given.code, given.remaining, after.remaining)
    return compare_either(("OK", [10], [9]), ("OK", [6], [5]), seen)


@CASES.case(NEGATIVE_HITS)
async def negative_hits_make_room(server: Server) -> Result:
    """A limit that was used up admits what was given back (envoyproxy/ratelimit took the hits before)."""
    entry = ("three", server.fresh())
    await server.ask(descriptor(entry), hits=3)
    await server.ask(descriptor(entry, hits=2, negative=True))
    codes = await server.codes(descriptor(entry), calls=3)
    return compare_either(["OK", "OK", "OVER_LIMIT"], ["OVER_LIMIT"] * 3, codes)


@CASES.case(DIFFERENCES)
async def same_descriptor_twice_tells_the_same(server: Server) -> Result:
    """Both statuses of a descriptor that is there twice tell what is left in the end (else: one after the other)."""
    one = descriptor(("three", server.fresh()))
    return compare_either([1, 1], [2, 1], (await server.ask(one, one)).remaining)


@CASES.case(DIFFERENCES)
async def override_counts_apart(server: Server) -> Result:
    """A descriptor's own limit does not take from the counter of the rule that it replaces (else: one counter)."""
    entry = ("ten", server.fresh())
    await server.ask(descriptor(entry), hits=3)
    own = await server.ask(descriptor(entry, limit=Override(10)))
    rule = await server.ask(descriptor(entry))
    return compare_either([[9], [6]], [[6], [5]], [own.remaining, rule.remaining])


@CASES.case(DIFFERENCES)
async def keys_and_values_do_not_run_together(server: Server) -> Result:
    """(pair, x_V) and (pair_x, V) share no counter (else: one, named by joining them with _)."""
    value = server.fresh()
    one, other = descriptor(("pair", f"x_{value}")), descriptor(("pair_x", value))
    seen = [(await server.ask(each)).remaining for each in (one, other)]
    return compare_either([[2], [2]], [[2], [1]], seen)


@CASES.case(DIFFERENCES)
async def entries_do_not_run_together(server: Server) -> Result:
    """(joint, V)(leg, x) and (joint, V_leg_x) share no counter (else: one, named by joining them with _)."""
    value = server.fresh()
    one, other = descriptor(("joint", value), ("leg", "x")), descriptor(("joint", f"{value}_leg_x"))
    seen = [(await server.ask(each)).remaining for each in (one, other)]
    return compare_either([[2], [2]], [[2], [1]], seen)


@CASES.case(DIFFERENCES, domain=EXTAUTH_DOMAIN)
async def keys_with_underscores_are_rules_of_their_own(server: Server) -> Result:
    """{key: a_b} and {key: a, value: b} are two rules (envoyproxy/ratelimit refuses the file)."""
    outer = ("twins", server.fresh())
    entries = [("a", "b"), ("a_b", ""), ("a", "b"), ("a_b", "x"), ("a", "c")]
    answers = [await server.ask(descriptor(outer, entry)) for entry in entries]
    seen = [(status.limit and status.limit.requests_per_unit, status.remaining) for (_, (status,), *_) in answers]
    return compare([(3, 2), (2, 1), (3, 1), (2, 1), (None, 0)], seen)
