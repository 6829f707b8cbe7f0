"""Whom a client's certificate is for."""

import pytest

from extauth.transport.client_names import is_for


def dns(*names: str) -> dict[str, object]:
    return {"subjectAltName": tuple([("DNS", name) for name in names])}


def addresses(*names: str) -> dict[str, object]:
    return {"subjectAltName": tuple([("IP Address", name) for name in names])}


@pytest.mark.parametrize(
    ("certificate", "wanted", "matches"),
    [
        (dns("envoy.example"), "envoy.example", True),
        (dns("other", "ENVOY.example"), "envoy.EXAMPLE", True),
        (dns("envoy.example."), "envoy.example", True),
        (dns("*.example"), "envoy.example", True),
        (dns("*.example"), "a.envoy.example", False),
        (dns("*.example"), "example", False),
        (dns("*.example"), "*.example", True),
        (dns("*"), "envoy", False),
        (dns("e*.example"), "envoy.example", False),
        (dns("a.*.example"), "a.b.example", False),
        (dns("envoy.example.evil"), "envoy.example", False),
        (dns("envoy"), "", False),
        (dns("a..b"), "a..b", False),
        (dns("10.1.2.3"), "10.1.2.3", False),
        (addresses("10.1.2.3"), "10.1.2.3", True),
        (addresses("10.1.2.4"), "10.1.2.3", False),
        (addresses("0:0:0:0:0:0:0:1\n"), "::1", True),
        (addresses("2001:DB8:0:0:0:0:0:1"), "[2001:db8::1]", True),
        ({"subject": ((("commonName", "envoy.example"),),)}, "envoy.example", False),
        ({"subjectAltName": (("URI", "spiffe://envoy.example"),)}, "envoy.example", False),
        ({}, "envoy.example", False),
        (None, "envoy.example", False),
    ],
)
def test_names_are_compared_as_go_does(certificate: dict[str, object] | None, wanted: str, matches: bool) -> None:
    assert is_for(certificate, wanted) is matches
