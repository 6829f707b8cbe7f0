"""The host names under which the pages for people are served."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d*)?")  # RFC 9110 §7.2


class AllowedHosts:
    """Values of the Host header for which a page is served: any IP address, `localhost`, and `names`.

    DNS rebinding: a hostile site makes its own name resolve to our address, and its script then reads our pages as its
    own. The browser still sends that name in Host, so a name that the operator did not configure is refused.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}

    def allow(self, host: str) -> bool:
        """Whether a page may be served to a request with this Host; an empty one, as HTTP/1.0 allows, names nobody."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        if match["ipv6"] is not None:
            return _is(IPv6Address, match["ipv6"])
        name = match["name"].lower().removesuffix(".")
        return name == "" or name in self._names or _is(IPv4Address, name)


def _is(kind: type[IPv4Address | IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
