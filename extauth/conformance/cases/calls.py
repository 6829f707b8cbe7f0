"""What is around a call: gRPC, health, and the rules' reload."""

from extauth.conformance.case import Cases, Result, compare, not_applicable
from extauth.conformance.rules import RELOAD_LIMIT
from extauth.conformance.server import METHOD, SERVICE, Override, Server, descriptor, request

CASES = Cases()
LAST = Cases()  # run after all others: a server may not outlive them
GRPC_STATUS = "gRPC, status codes"
HEALTH = "grpc.health.v1 health.proto"


@CASES.case(HEALTH)
async def health_is_serving(server: Server) -> Result:
    """Check of the whole server says SERVING."""
    return compare("SERVING", await server.health())


@CASES.case(HEALTH)
async def health_of_an_unknown_service(server: Server) -> Result:
    """Check of a service that is not there is NOT_FOUND."""
    return compare("NOT_FOUND", await server.health(f"unknown-{server.fresh()}"))


@CASES.case(GRPC_STATUS)
async def unknown_methods_are_unimplemented(server: Server) -> Result:
    """A method or a service that is not there is UNIMPLEMENTED."""
    message = request(server.domain, descriptor(("ten", server.fresh())))
    methods = (f"/{SERVICE}/Unknown", "/unknown.Service/ShouldRateLimit")
    return compare(["UNIMPLEMENTED"] * 2, [await server.refusal(message, method) for method in methods])


@CASES.case("protobuf, unknown fields")
async def unknown_fields_are_skipped(server: Server) -> Result:
    """A field that the server does not know changes nothing."""
    message = request(server.domain, descriptor(("two", server.fresh()))) + b"\xfa\x7f\x03new"
    return compare(["OK", "OK"], [await server.refusal(message) for _ in range(2)])


@CASES.case("rls.proto, RateLimitRequest")
async def wrong_calls_fail_by_themselves(server: Server) -> Result:
    """A call without a domain, without descriptors or of bytes that are no message fails, and the next one does not."""
    one = descriptor(("ten", server.fresh()))
    wrong = {"no domain": request("", one), "no descriptors": request(server.domain), "no message": b"\x0a\xff"}
    seen = {what: "an error" if await server.refusal(message) != "OK" else "OK" for what, message in wrong.items()}
    expected = dict.fromkeys(wrong, "an error") | {"next": "OK"}
    return compare(expected, seen | {"next": await server.refusal(request(server.domain, one), METHOD)})


@CASES.case("envoyproxy/ratelimit README.md#file-based-configuration-loading")
async def edit_takes_effect_and_what_is_used_stays_used(server: Server) -> Result:
    """A raised limit leaves what it has more, a lowered one denies what it has less; neither forgets what was used."""
    if server.reload is None:
        return not_applicable("the suite did not write the rules, so it cannot edit them")
    one = descriptor(("reload", server.fresh()))
    try:
        before = await server.ask(one, hits=RELOAD_LIMIT - 1)
        await server.reload(2 * RELOAD_LIMIT)
        raised = await server.ask(one)
    finally:
        await server.reload(RELOAD_LIMIT)
    lowered = await server.ask(one)
    seen = [(answer.code, answer.remaining) for answer in (before, raised, lowered)]
    return compare([("OK", [1]), ("OK", [RELOAD_LIMIT]), ("OVER_LIMIT", [0])], seen)


@LAST.case("ratelimit.proto, RateLimitDescriptor.RateLimitOverride.unit")
async def override_of_an_unknown_unit(server: Server) -> Result:
    """A descriptor's own limit whose unit is unknown fails the call, and not the server."""
    message = request(server.domain, descriptor(("ten", server.fresh()), limit=Override(1, unit=0)))
    refusal = await server.refusal(message)
    following = await server.refusal(request(server.domain, descriptor(("ten", server.fresh()))))
    seen = ("an error" if refusal != "OK" else "OK", following)
    return compare(("an error", "OK"), seen)
