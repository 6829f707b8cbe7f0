"""Whom a client's certificate is for: its subject alternative names, as Go's crypto/x509 compares them (RFC 6125)."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any


def is_for(certificate: Mapping[str, Any] | None, wanted: str) -> bool:
    """Whether a certificate, as SSLObject.getpeercert has it, is for a host name or an IP address.

    Its common name does not count. A name in it may begin with `*.`, in place of one label.
    """
    if not certificate:
        return False
    names = certificate.get("subjectAltName", ())
    address = _address(wanted.removeprefix("[").removesuffix("]"))
    if address is not None:
        return any(kind == "IP Address" and _address(value.strip()) == address for kind, value in names)
    labels = _labels(wanted)
    return bool(labels) and any(kind == "DNS" and _matches(_labels(value), labels) for kind, value in names)


def _labels(name: str) -> list[str]:
    """The labels of a host name, in lower case; none where one of them is empty."""
    labels = name.lower().removesuffix(".").split(".")
    return labels if all(labels) else []


def _matches(pattern: list[str], labels: list[str]) -> bool:
    wild = len(pattern) > 1 and pattern[:1] == ["*"] and labels[0] != "*"
    return len(pattern) == len(labels) and pattern[wild:] == labels[wild:]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
