"""A real server behind each kind of URL that docs/redis.md shows: each counts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from extauth.counters.redis.counters import RIGHTS, RedisCounters
from extauth.counters.redis.endpoint import fault
from extauth.counters.redis.sentinel import RIGHTS as SENTINEL_RIGHTS
from extauth.errors import StoreError
from scripts.stack import free_ports
from tests.counters.redis_take import LIMITS, take
from tests.support.stores import Store

PAGE = (Path(__file__).parents[2] / "docs/redis.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^EXTAUTH_REDIS_URL=(\S+)", PAGE, re.MULTILINE)
FORMS = {
    "standalone": "redis://127.0.0.1:{port}/0",
    "a Unix socket": "unix://{folder}/s",
    "an ACL user": "redis://extauth:PASSWORD@127.0.0.1:{port}",
    "TLS": "rediss://extauth:PASSWORD@127.0.0.1:{tls}?ssl_ca_certs={folder}/ca.pem",
    "mTLS": "rediss://127.0.0.1:{mtls}?ssl_ca_certs={folder}/ca.pem&ssl_certfile={folder}/cert.pem&ssl_keyfile={folder}/key.pem",
}


class Ports:
    """A server with TLS, which may want a certificate of its clients."""

    def __init__(self, folder: Path, *, mutual: bool) -> None:
        self.plain, self.tls = free_ports(2)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        issued = authority.issue_cert("127.0.0.1")
        (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        files = {"cert": "cert", "key": "key", "ca-cert": "ca"}
        tls = [word for name, file in files.items() for word in (f"--tls-{name}-file", str(folder / f"{file}.pem"))]
        tls += ["--tls-port", str(self.tls), "--tls-auth-clients", "yes" if mutual else "no"]
        self.store = Store("redis", folder, "--bind", "127.0.0.1", "--port", str(self.plain), *tls).start()


@pytest.fixture(params=FORMS)
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str]:
    ports = Ports(short_path, mutual=request.param == "mTLS")
    with redis.Redis.from_url(ports.store.url) as client:
        client.execute_command("ACL", "SETUSER", "extauth", "on", ">PASSWORD", "~extauth:*", *RIGHTS.split())
    yield FORMS[request.param].format(port=ports.plain, tls=ports.tls, mtls=ports.tls, folder=short_path)
    ports.store.stop()


async def test_each_kind_of_url_counts(url: str) -> None:
    counters = RedisCounters(url, 10)
    assert await take(counters, LIMITS[0], "extauth:c", calls=99) == 10
    await counters.aclose()


@pytest.mark.parametrize("url", ["mTLS"], indirect=True)
async def test_a_server_that_wants_a_certificate_is_a_store_failure_without_one(url: str) -> None:
    counters = RedisCounters(url.partition("&")[0], 10)
    with pytest.raises(StoreError):
        await take(counters, LIMITS[0], "extauth:c")
    await counters.aclose()


def test_the_page_lists_the_rights_that_the_sentinels_user_needs() -> None:
    assert f"\nACL SETUSER watcher on >PASSWORD {SENTINEL_RIGHTS}\n" in PAGE


def test_the_urls_of_the_page_have_no_fault() -> None:
    assert len(SHOWN) > len(FORMS)
    assert [(shown, wrong) for shown in SHOWN if (wrong := fault(shown))] == []


def test_the_urls_of_managed_services_have_no_fault() -> None:
    shown = re.findall(r"`(rediss?://:?[A-Z][^`…]*)`", PAGE.partition("## Managed services")[2])
    assert len(shown) >= 5
    assert [(each, wrong) for each in shown if (wrong := fault(each))] == []
