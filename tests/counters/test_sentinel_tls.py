"""Sentinels over TLS."""

import ssl
from pathlib import Path

import pytest
import trustme

from extauth.counters.redis.counters import RedisCounters
from extauth.errors import StoreError
from tests.counters.redis_take import LIMITS, take
from tests.support.fake_sentinel import FakeSentinel
from tests.support.wait import until_async


async def test_a_sentinel_that_hears_no_goodbye_over_tls_is_left_at_once(tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with FakeSentinel(None, tls) as sentinel:
        url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/m?ssl_ca_certs={tmp_path / 'ca.pem'}"
        counters = RedisCounters(url, 5)
        with pytest.raises(StoreError, match="know no master"):
            await take(counters, LIMITS[0])
        await until_async(lambda: sentinel.subscribers == 1)
        sentinel.freeze()
        await counters.aclose()
        await until_async(sentinel.hung_up, within_s=10)  # a goodbye is waited for three times as long
