"""Compressed answers."""

import gzip
from collections.abc import Iterator

import pytest

from extauth.admin.encoding import accepts_gzip
from tests.support.admin import METRICS_TYPE, ServedAdmin, serving

GZIP = {"Accept-Encoding": "gzip"}
LINES = [b'extauth_rule_calls_total{domain="d",rule="%d"} 1.0\n' % i for i in range(20_000)]


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("GZIP;q=0.5", True),
        ("deflate,  gzip ; q=1.0", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("x-gzip2", False),
        ("gzip;q=many", False),
    ],
)
def test_who_takes_gzip_says_so(accept_encoding: str, accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is accepted


def test_metrics_are_compressed_for_who_takes_gzip(loop: str) -> None:
    def metrics(_accept: str) -> tuple[str, Iterator[bytes]]:
        return METRICS_TYPE, iter(LINES)

    with serving(loop, metrics=metrics) as served:
        plain = served.get("/metrics")
        got = served.get("/metrics", "GET", None, **GZIP)
        head = served.get("/metrics", "HEAD", None, **GZIP)
        assert served.errors == []
    assert plain.body == gzip.decompress(got.body) == b"".join(LINES)
    assert len(got.body) < len(plain.body) // 5
    assert (got.headers["content-encoding"], got.headers["content-type"]) == ("gzip", METRICS_TYPE)
    assert "content-encoding" not in plain.headers
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    for answer in (plain, got):
        assert "Accept-Encoding" in answer.headers["vary"]


def test_probes_are_not_compressed(served: ServedAdmin) -> None:
    got = served.get("/healthz", "GET", None, **GZIP)
    assert got.body == b"ok\n"
    assert "content-encoding" not in got.headers
