"""Rules for networks: the longest that has the address, beside Python's own ipaddress."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauth.config.merge import load_rules
from extauth.rules.matcher import Matcher
from extauth.rules.model import Domain, Kind, Rule, RuleSet
from extauth.rules.networks import Network, Networks, read_network

AnyNetwork = IPv4Network | IPv6Network


@st.composite
def networks(draw: st.DrawFn) -> AnyNetwork:
    """Networks among few prefixes, so that they lie in each other."""
    if draw(st.booleans()):
        number = draw(st.sampled_from([0, 10 << 24, (10 << 24) + (1 << 16), 2**32 - 1])) ^ draw(st.integers(0, 3))
        return IPv4Network((number, draw(st.integers(0, 32))), strict=False)
    number = draw(st.sampled_from([0, 0x20010DB8 << 96, (0x20010DB8 << 96) + (1 << 64), 2**128 - 1]))
    number ^= draw(st.integers(0, 3))
    return IPv6Network((number, draw(st.integers(0, 128))), strict=False)


def has(network: AnyNetwork, other: AnyNetwork) -> bool:
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network):
        return other.subnet_of(network)
    return isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and other.subnet_of(network)


def unmapped(network: AnyNetwork) -> AnyNetwork:
    """The network of IPv4 addresses that is written as one of IPv6."""
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((int(network.network_address.ipv4_mapped), network.prefixlen - 96))
    return network


@given(st.lists(networks(), max_size=8, unique=True), networks(), st.booleans())
@example([IPv4Network("10.0.0.0/8")], IPv6Network("::ffff:10.1.2.3/128"), False)
@example([IPv6Network("::/0")], IPv6Network("::ffff:10.1.2.3/128"), True)
def test_the_longest_network_that_has_an_address_is_found(
    known: list[AnyNetwork], asked: AnyNetwork, alone: bool
) -> None:
    found: Networks[AnyNetwork] = Networks()
    for network in known:
        read = read_network(str(network))
        assert read is not None
        assert read.text == str(unmapped(network))
        found.add(read, network)
    text = str(asked)
    if alone:
        asked = ip_network(asked.network_address)
        text = str(asked.network_address)
    holding = [network for network in known if has(unmapped(network), unmapped(asked))]
    assert found.find(text) == max(holding, key=lambda network: unmapped(network).prefixlen, default=None)


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[0-9a-f:.]{1,40}(/\d{1,4})?", fullmatch=True)))
def test_what_is_no_address_is_in_no_network(text: str) -> None:
    everywhere: Networks[int] = Networks()
    for network in ("0.0.0.0/0", "::/0"):
        read = read_network(network)
        assert read is not None
        everywhere.add(read, 1)
    address, slash, length = text.partition("/")
    try:
        parsed = ip_address(address)
    except ValueError:
        assert everywhere.find(text) is None
        return
    fits = not slash or (length.isascii() and length.isdigit() and len(length) < 4)
    expected = fits and "%" not in text and int(length or 0) <= parsed.max_prefixlen
    assert (everywhere.find(text) is not None) == expected


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", Network(32, 8, 10)),
        ("10.1.2.3", Network(32, 32, 0x0A010203)),
        ("0.0.0.0/0", Network(32, 0, 0)),
        ("2001:db8::/32", Network(128, 32, 0x20010DB8)),
        ("::ffff:10.1.2.3", Network(32, 32, 0x0A010203)),
        ("::ffff:10.0.0.0/104", Network(32, 8, 10)),
        ("::ffff:0.0.0.0/95", Network(128, 95, 0x7FFF)),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/33", None),
        ("10.0.0.0/-1", None),
        ("10.0.0.0/ 8", None),
        ("10.0.0.0/", None),
        ("10.0.0.0/8/8", None),
        ("010.0.0.1", None),
        ("10.0.0", None),
        (" 10.0.0.1", None),
        ("10.0.0.1:80", None),
        ("[::1]", None),
        ("fe80::1%eth0", None),
        ("10.0.0.0/٨", None),
        ("", None),
        ("1" * 10_000, None),
    ],
)
def test_reading(text: str, network: Network | None) -> None:
    assert read_network(text) == network


CONFIG = """domain: d
descriptors:
- {key: ip, value: 10.1.2.9}
- {key: ip, value_regex: '10\\.1\\..*'}
- {key: ip, value_cidr: [0.0.0.0/0]}
- key: ip
  value_cidr: [10.0.0.0/8, "2001:db8::/32"]
  descriptors:
  - {key: path}
- {key: ip, value_cidr: [10.1.2.3, 10.1.0.0/16]}
- {key: ip}
- {key: other, value_cidr: ["::/0"]}
"""
MATCHER = Matcher(load_rules({"f.yaml": CONFIG}))


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([("ip", "10.1.2.9")], 3),  # exactly this value
        ([("ip", "10.1.2.3")], 10),
        ([("ip", "10.1.7.7")], 10),
        ([("ip", "10.2.0.1")], 6),
        ([("ip", "10.2.0.0/24")], 6),
        ([("ip", "10.0.0.0/7")], 5),
        ([("ip", "2001:db8:1::/64")], 6),
        ([("ip", "192.168.0.1")], 5),
        ([("ip", "2001:db9::1")], 11),
        ([("ip", "10.1.x")], 4),
        ([("ip", "")], 11),
        ([("ip", "10.2.0.1"), ("path", "/")], 9),
        ([("ip", "10.1.2.3"), ("path", "/")], None),  # no backtracking to a shorter prefix
        ([("other", "::1")], 12),
        ([("other", "10.0.0.1")], None),
        ([("none", "10.0.0.1")], None),
    ],
)
def test_match(entries: list[tuple[str, str]], line: int | None) -> None:
    match = MATCHER.match("d", entries)
    assert (match and match.rule.place.line) == line


def test_a_rule_is_named_by_its_networks() -> None:
    match = MATCHER.match("d", [("ip", "10.2.0.1")])
    assert match is not None
    assert MATCHER.name(match, "d", [("ip", "10.2.0.1")]).name == "ip_10.0.0.0/8,2001:db8::/32"


def test_the_networks_of_a_secret_key_are_masked_in_its_name() -> None:
    matcher = Matcher(load_rules({"f.yaml": "domain: d\nsecret: [ip]\n" + CONFIG.partition("\n")[2]}))
    match = matcher.match("d", [("ip", "10.2.0.1")])
    assert match is not None
    assert matcher.name(match, "d", [("ip", "10.2.0.1")]).name.startswith("ip_10***~")


def test_a_look_up_takes_no_longer_than_planning_reckons_with() -> None:
    rules = [Rule("ip", kind=Kind.CIDR, values=(f"{IPv6Address(0)}/{length}",)) for length in range(1, 129)]
    rules += [Rule("ip", kind=Kind.CIDR, values=(f"{IPv4Address(0)}/{length}",)) for length in range(1, 33)]
    matcher = Matcher(RuleSet({"d": Domain("d", rules=tuple(rules))}))
    assert matcher.has_patterns
    entries = [("ip", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")]
    assert matcher.scanned_bytes("d", entries) == matcher.scanned_bytes("d", [("ip", "")]) > 0
    assert matcher.scanned_bytes("d", [("other", "x")]) == 0
    took = []
    for _ in range(200):
        began = perf_counter()
        matcher.match("d", entries)
        took.append(perf_counter() - began)
    assert min(took) < 100e-6, "a tenth of a millisecond, on a slow machine"
