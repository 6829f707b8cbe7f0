"""IP networks that a rule may have for an entry's value."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Generic, NamedTuple, TypeVar

MAX_TEXT: Final = 49  # an IPv6 address that ends like an IPv4 one, and /128
_MAPPED: Final = 96  # bits before the IPv4 address in an IPv6 address that holds one

T = TypeVar("T")


class Network(NamedTuple):
    """The addresses of a version, of `bits` bits, that begin with the `length` bits of `prefix`; one has all bits."""

    bits: int
    length: int
    prefix: int

    @property
    def text(self) -> str:
        """`10.0.0.0/8`, and of a single address the same with all its bits: `10.1.2.3/32`."""
        number = self.prefix << (self.bits - self.length)
        return f"{IPv4Address(number) if self.bits == 32 else IPv6Address(number)}/{self.length}"


def read_network(text: str) -> Network | None:
    """The network of `ADDRESS/LENGTH`, or of `ADDRESS` alone; None where the text is none.

    Bits behind the prefix are left out. IPv4 addresses that are written as IPv6 ones (::ffff:10.1.2.3) are IPv4.
    """
    if len(text) > MAX_TEXT or "%" in text:  # a zone belongs to one host
        return None
    written, slash, behind = text.partition("/")
    try:
        address = ip_address(written)
    except ValueError:
        return None
    bits: int = address.max_prefixlen
    length, number = bits, int(address)
    if slash:
        if not (behind.isascii() and behind.isdigit()) or len(behind) > 3 or int(behind) > bits:
            return None
        length = int(behind)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None and length >= _MAPPED:
        bits, number, length = 32, int(address.ipv4_mapped), length - _MAPPED
    return Network(bits, length, number >> (bits - length))


class Networks(Generic[T]):
    """What belongs to networks, by the longest one that has all addresses of another.

    A look-up tries each length that there is of the version: at most 33 or 129 of them.
    """

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[int, list[tuple[int, dict[int, T]]]] = {32: [], 128: []}  # by bits; longest first

    def add(self, network: Network, thing: T) -> None:
        """Add what belongs to a network, unless something does already."""
        tables = self._tables[network.bits]
        for length, table in tables:
            if length == network.length:
                table.setdefault(network.prefix, thing)
                return
        tables.append((network.length, {network.prefix: thing}))
        tables.sort(key=lambda each: -each[0])

    def find(self, text: str) -> T | None:
        """What belongs to the longest network that has the address, or all addresses of the network, in the text."""
        network = read_network(text)
        if network is None:
            return None
        _, own_length, prefix = network
        for length, table in self._tables[network.bits]:
            if length <= own_length:
                found = table.get(prefix >> (own_length - length))
                if found is not None:
                    return found
        return None

    def tables(self) -> list[dict[int, T]]:
        """All that it is made of."""
        return [table for tables in self._tables.values() for _, table in tables]
