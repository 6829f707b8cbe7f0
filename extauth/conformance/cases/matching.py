"""Which rule a descriptor hits."""

from extauth.conformance.case import Cases, Result, compare
from extauth.conformance.server import Server, descriptor

CASES = Cases()
WILDCARDS = "envoyproxy/ratelimit README.md#example-9"
SHARING = "envoyproxy/ratelimit README.md#sharing-thresholds-for-wildcard-matches"
DEPTH = "envoyproxy/ratelimit README.md#example-4"
GET_LIMIT = "envoyproxy/ratelimit src/config/config_impl.go, GetLimit"


async def _paths(server: Server, outer: str, expected: dict[str, int | None]) -> Result:
    """The limits of (outer, …)(path, PATH), by PATH."""
    above = (outer, server.fresh())
    return compare(expected, {path: await server.limit_of(above, ("path", path)) for path in expected})


@CASES.case("envoyproxy/ratelimit README.md#example-3")
async def value_beats_wildcard_beats_key(server: Server) -> Result:
    """Whatever their order in the file, the rule for exactly the value comes first, then a wildcard, then the key."""
    return await _paths(server, "precedence", {"/a/b": 101, "/a/c": 102, "/c": 103})


@CASES.case(GET_LIMIT)
async def empty_value_falls_to_the_key(server: Server) -> Result:
    """An entry with an empty value hits the rule with the key alone."""
    return await _paths(server, "precedence", {"": 103})


@CASES.case("envoyproxy/ratelimit README.md#definitions")
async def case_matters(server: Server) -> Result:
    """Keys and values are case-sensitive."""
    outer = ("precedence", server.fresh())
    seen = [await server.limit_of(outer, entry) for entry in (("path", "/A/B"), ("Path", "/a/b"))]
    return compare([103, None], seen)


@CASES.case(WILDCARDS)
async def wildcard_at_the_end(server: Server) -> Result:
    """`/static/*` matches what begins with it, also with nothing more."""
    expected = {"/static/x": 111, "/static/": 111, "/static/x/y": 111, "/static": None, "x/static/y": None}
    return await _paths(server, "trailing", expected)


@CASES.case(WILDCARDS)
async def wildcard_at_the_beginning(server: Server) -> Result:
    """`*.png` matches what ends with it."""
    return await _paths(server, "leading", {"a.png": 112, ".png": 112, "a.png.gz": None, "png": None})


@CASES.case(WILDCARDS)
async def wildcard_in_the_middle(server: Server) -> Result:
    """`/api/*/action` needs both its ends, which may not overlap."""
    expected = {
        "/api/1/action": 113,
        "/api//action": 113,
        "/api/1/2/action": 113,
        "/api/action": None,
        "/api/1/other": None,
        "/api/1/action/x": None,
    }
    return await _paths(server, "middle", expected)


@CASES.case(WILDCARDS)
async def several_wildcards(server: Server) -> Result:
    """The parts between several * must be in the value in their order."""
    expected = {
        "/api/v1/resource/2/action": 114,
        "/api//resource//action": 114,
        "/api/resource/resource/2/action": 114,
        "/api/v1/2/action": None,
        "/api/v1/resource/action": None,
        "/api/v1/action/2/resource": None,
    }
    return await _paths(server, "several", expected)


@CASES.case(GET_LIMIT)
async def wildcards_in_file_order(server: Server) -> Result:
    """Of several wildcards that match, the first in the file applies, however particular the others are."""
    return await _paths(server, "ordered", {"/v1/x": 121, "/v1/users/1": 121, "/v2/users/1": 123, "/v2/users/2": None})


@CASES.case(GET_LIMIT)
async def pattern_as_a_value(server: Server) -> Result:
    """The text of a wildcard, sent as a value, hits its rule before any other wildcard."""
    return await _paths(server, "ordered", {"/v1/users/*": 122})


@CASES.case(SHARING)
async def wildcard_counts_each_value(server: Server) -> Result:
    """Without share_threshold, each value that a wildcard matches has its own counter."""
    outer = ("wild", server.fresh())
    seen = [await server.codes(descriptor(outer, ("file", f"files/{name}")), calls=4) for name in ("a", "b")]
    return compare([["OK"] * 3 + ["OVER_LIMIT"]] * 2, seen)


@CASES.case(SHARING)
async def share_threshold_shares_a_counter(server: Server) -> Result:
    """With share_threshold, all values that the wildcard matches take from one counter, each wildcard its own."""
    outer = ("shared", server.fresh())
    values = ["files/a", "files/b", "images/1/small", "files/c", "files/d", "images/2/small"]
    codes = [(await server.ask(descriptor(outer, ("file", value)))).code for value in values]
    return compare(["OK", "OK", "OK", "OK", "OVER_LIMIT", "OK"], codes)


@CASES.case("envoyproxy/ratelimit README.md#example-11")
async def share_threshold_above_the_limit(server: Server) -> Result:
    """share_threshold holds for the limits below it, too: these still count their own values apart."""
    outer = ("shared-above", server.fresh())
    routes = [("api/a", "GET"), ("api/b", "GET"), ("api/c", "GET"), ("api/d", "GET"), ("api/a", "PUT")]
    seen = [(await server.ask(descriptor(outer, ("route", r), ("method", m)))).code for r, m in routes]
    return compare(["OK", "OK", "OK", "OVER_LIMIT", "OK"], seen)


@CASES.case(DEPTH)
async def nested_descriptors(server: Server) -> Result:
    """Entries walk down the rules, one level an entry; each combination of values has its own counter."""
    outer = server.fresh()
    first = descriptor(("placeholder", outer), ("inner", "a"))
    others = [
        descriptor(("placeholder", outer), ("inner", "b")),
        descriptor(("placeholder", outer + "x"), ("inner", "a")),
    ]
    seen = [(await server.ask(one)).remaining for one in (first, first, *others)]
    return compare([[133], [132], [133], [133]], seen)


@CASES.case(DEPTH)
async def limit_at_its_depth_only(server: Server) -> Result:
    """A limit applies to a descriptor with as many entries as it lies deep; none deeper, and none above."""
    value = server.fresh()
    entries = [("depth", value), ("inner", value), ("leaf", value), ("more", value)]
    seen = [await server.limit_of(*entries[:n]) for n in (1, 2, 3, 4)]
    seen.append(await server.limit_of(("depth", value), ("other", value)))
    seen.append(await server.limit_of(("placeholder", value)))
    return compare([131, 132, 133, None, None, None], seen)


@CASES.case(GET_LIMIT)
async def order_of_entries_matters(server: Server) -> Result:
    """Entries in another order, or without the first, are another descriptor."""
    value = server.fresh()
    one, two = ("placeholder", value), ("inner", value)
    seen = [await server.limit_of(*entries) for entries in ((one, two), (two, one), (two,))]
    return compare([134, None, None], seen)


@CASES.case(GET_LIMIT)
async def no_backtracking(server: Server) -> Result:
    """Where the most particular rule leads nowhere, no other is tried."""
    outer = ("backtracking", server.fresh())
    paths = [("taken", "other"), ("taken", "leaf"), ("tall", "leaf"), ("tall", "other"), ("x", "leaf")]
    seen = [await server.limit_of(outer, ("kind", kind), (inner, "x")) for kind, inner in paths]
    return compare([141, None, 142, None, 143], seen)
