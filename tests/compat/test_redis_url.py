"""The Redis URL that the variables REDIS_* stand for."""

import pytest

from extauth.compat.environment import translate
from extauth.counters.redis.endpoint import fault
from extauth.errors import SettingsError

TCP = {"REDIS_SOCKET_TYPE": "tcp"}
SENTINEL = {"REDIS_TYPE": "SENTINEL"}
UNCHECKED = "&ssl_check_hostname=false"
CLUSTER = {"REDIS_TYPE": "CLUSTER"}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "unix:///var/run/nutcracker/ratelimit.sock"),
        ({"REDIS_URL": "/run/r.sock", "REDIS_AUTH": "pa?ss"}, "unix:///run/r.sock?password=pa%3Fss"),
        ({"REDIS_URL": "/run/r.sock", "REDIS_AUTH": "me:pw"}, "unix:///run/r.sock?username=me&password=pw"),
        ({"REDIS_URL": "h:1"}, "redis://h:1"),
        (TCP | {"REDIS_URL": "redis.redis.svc:6379"}, "redis://redis.redis.svc:6379"),
        (TCP | {"REDIS_URL": "redis://h:9489/11"}, "redis://h:9489/11"),
        (TCP | {"REDIS_URL": "redis://u:p%40@h:1/2"}, "redis://u:p%40@h:1/2"),
        (TCP | {"REDIS_URL": "rediss://h:1"}, "rediss://h:1"),
        (TCP | {"REDIS_URL": "h:1", "REDIS_AUTH": "p@ss/w#rd?"}, "redis://:p%40ss%2Fw%23rd%3F@h:1"),
        (TCP | {"REDIS_URL": "h:1", "REDIS_AUTH": "me:p:w"}, "redis://me:p%3Aw@h:1"),
        (TCP | {"REDIS_URL": "redis://u:old@h:1", "REDIS_AUTH": "new"}, "redis://u:new@h:1"),
        (TCP | {"REDIS_URL": "redis://u:old@h:1", "REDIS_AUTH": "me:new"}, "redis://me:new@h:1"),
        (TCP | {"REDIS_URL": "redis://h:1?password=pw&db=3"}, "redis://:pw@h:1/3"),
        (TCP | {"REDIS_URL": "redis://u:p@h:1/2?password=x&db=3"}, "redis://u:p@h:1/2"),
        (TCP | {"REDIS_URL": "[::1]:6379"}, "redis://[::1]:6379"),
        (
            TCP
            | {
                "REDIS_URL": "h:1",
                "REDIS_TLS": "true",
                "REDIS_TLS_CACERT": "/c/ca.crt",
                "REDIS_TLS_CLIENT_CERT": "/c/tls.crt",
                "REDIS_TLS_CLIENT_KEY": "/c/tls.key",
                "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "T",
            },
            "rediss://h:1?ssl_certfile=%2Fc%2Ftls.crt&ssl_keyfile=%2Fc%2Ftls.key&ssl_ca_certs=%2Fc%2Fca.crt"
            + UNCHECKED,
        ),
        (TCP | CLUSTER | {"REDIS_URL": "a:1,b:2, c:3"}, "redis+cluster://a:1,b:2,c:3"),
        (CLUSTER | {"REDIS_URL": "redis://u:p@a:1,redis://u:p@b:2"}, "redis+cluster://u:p@a:1,b:2"),
        (CLUSTER | {"REDIS_URL": "a:1", "REDIS_TLS": "1", "REDIS_AUTH": "pw"}, "rediss+cluster://:pw@a:1"),
        ({"REDIS_TYPE": "sentinel", "REDIS_URL": "mymaster,a:1,b:2"}, "redis+sentinel://a:1,b:2/mymaster"),
        (
            SENTINEL | {"REDIS_URL": "m,a:1", "REDIS_AUTH": "me:pw", "REDIS_SENTINEL_AUTH": "s&w"},
            "redis+sentinel://me:pw@a:1/m?sentinel_password=s%26w",
        ),
        (
            SENTINEL | {"REDIS_URL": "m,redis://u:p@a:1,redis://u:p@b:1"},
            "redis+sentinel://a:1,b:1/m?sentinel_username=u&sentinel_password=p",
        ),
        ({"REDIS_URL": "h:1", "EXTAUTH_REDIS_URL": "redis://ours:2"}, "redis://ours:2"),
    ],
)
def test_a_url_that_will_do(environ: dict[str, str], url: str) -> None:
    assert translate(environ).variables["EXTAUTH_REDIS_URL"] == url
    assert fault(url) == ""


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REDIS_TYPE": "SHARDED"}, "REDIS_TYPE must be SINGLE, CLUSTER or SENTINEL"),
        (SENTINEL | {"REDIS_URL": "hush:1"}, "REDIS_URL must be MASTER,HOST:PORT,… where REDIS_TYPE is SENTINEL"),
        (TCP | {"REDIS_URL": "hush:1,b:2"}, "set REDIS_TYPE to CLUSTER or SENTINEL, or name one host"),
        (
            CLUSTER | {"REDIS_URL": "redis://a:hush@h:1,redis://b:hush@h:2"},
            "must have the same scheme, user and password",
        ),
        (SENTINEL | {"REDIS_URL": "m,redis://hush:1/3"}, "must name no database where REDIS_TYPE is SENTINEL"),
        (TCP | {"REDIS_URL": "http://hush:1"}, "REDIS_URL must be HOST:PORT, redis://… or rediss://…"),
        (TCP | {"REDIS_URL": "me:hush@h:1"}, "REDIS_URL must be HOST:PORT, redis://… or rediss://…"),
        (TCP | {"REDIS_URL": "h:1", "REDIS_TLS": "1", "REDIS_TLS_CLIENT_KEY": "hush"}, "go together"),
        ({"REDIS_URL": "/hush", "REDIS_TLS": "true"}, "REDIS_TLS=true cannot be used with a Unix socket"),
        (TCP | {"REDIS_URL": "hush:99999"}, "REDIS_URL cannot be used: EXTAUTH_REDIS_URL=… is not allowed: the port"),
        (
            TCP | {"REDIS_URL": "redis://u:hush@h:x"},
            "REDIS_URL cannot be used: EXTAUTH_REDIS_URL=… is not allowed: the port",
        ),
        (TCP | {"REDIS_URL": "h:1", "REDIS_TLS": "hush"}, "REDIS_TLS='hush' is not allowed; allowed: true or false"),
        (TCP | {"REDIS_URL": "h:1", "REDIS_AUTH": "hush\udcff"}, "the variables REDIS_* hold bytes that are not UTF-8"),
        ({"BACKEND_TYPE": "memcache"}, "BACKEND_TYPE='memcache' is not supported: set BACKEND_TYPE=redis"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_secrets(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        translate(environ)
    assert said in str(caught.value)
    assert environ.get("REDIS_TLS") == "hush" or "hush" not in str(caught.value)
