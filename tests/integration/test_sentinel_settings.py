"""EXTAUTH_REDIS_URL where it names a master by its sentinels: what is right, and what is said of what is wrong."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extauth.counters.redis.counters import RedisCounters
from extauth.errors import SettingsError
from extauth.settings import read_settings
from tests.support.redis_urls import assert_named, said_of

USER = "the user or password holds "
LIKE = ", as in redis+sentinel://a:26379,b:26379,c:26379/mymaster"
FAULTS = [
    ("redis+sentinel:h/m", "it must begin with redis://, rediss://, redis+sentinel://, "),
    ("redis+sentinel://", "it names no sentinel: write HOST:PORT of each" + LIKE),
    ("redis+sentinel:///m", "it names no sentinel: write HOST:PORT of each" + LIKE),
    ("redis+sentinel://:hush@/m", "it names no sentinel: write HOST:PORT of each" + LIKE),
    ("redis+sentinel://a,,b/m", "sentinel number 2 has no host: write HOST:PORT of each with one comma between" + LIKE),
    ("redis+sentinel://a,:1/m", "sentinel number 2 has no host: "),
    ("redis+sentinel://a:hush/m", "the port of sentinel number 1 must be 1 to 65535"),
    ("redis+sentinel://a:1,b:0/m", "the port of sentinel number 2 must be 1 to 65535"),
    ("redis+sentinel://a,b:/m", "the port of sentinel number 2 must be 1 to 65535"),
    ("redis+sentinel://a,fe80::1:6379/m", "an IPv6 address is written in brackets"),
    ("redis+sentinel://a,[::1/m", "the host of sentinel number 2 is no name and no address"),
    ("redis+sentinel://a,b,A:26379/m", "it names a sentinel twice: each has one voice, so name each once"),
    ("redis+sentinel://a,b", "it names no master: after the sentinels comes the name by which they know it" + LIKE),
    ("redis+sentinel://a,b/", "it names no master: "),
    ("redis+sentinel://a,b/?db=1", "it names no master: "),
    ("redis+sentinel://a/hush*", "the master's name may have only letters, digits and . _ -, "),
    ("redis+sentinel://a/m/hush", "after the master's name may come only /DB, a number"),
    ("redis+sentinel://a/m/0/hush", "after the master's name may come only /DB, a number"),
    ("redis+sentinel://:hu@sh@a,b/m", USER + "@: write @ as %40"),
    ("redis+sentinel://:hu/sh@a,b/m", USER + "/: write / as %2F"),
    ("redis+sentinel://:hu?sh@a,b/m", USER + "?: write ? as %3F"),
    ("redis+sentinel://:hu#sh@a,b/m", USER + "#: write # as %23"),
    ("redis+sentinel://a/m?password=hu#sh", "it holds a #: write it as %23"),
    (
        "redis+sentinel://a/m?sentinel_pasword=hush",
        "the option sentinel_pasword is unknown; did you mean sentinel_pass",
    ),
    ("redis+sentinel://a/m?sentinel_db=1", "the option sentinel_db is unknown; "),
    (
        "redis+sentinel://a/m?sentinel_password=x&hush=y",
        "an option after the ? is unknown; if it is part of a password",
    ),
    ("redis+sentinel://a/m?sentinel_password=", "the option sentinel_password has no value"),
    ("redis+sentinel://a/m?sentinel_ssl=hush", "the option sentinel_ssl must be true or false"),
    ("redis+sentinel://a/m?ssl_ca_certs=/x", "the option ssl_ca_certs is for rediss+sentinel:// alone"),
    (
        "redis+sentinel://a/m?sentinel_ssl=true&ssl_ca_certs=/x",
        "the option ssl_ca_certs is for rediss+sentinel:// alone",
    ),
    ("redis+sentinel://a/m?sentinel_ssl_ca_certs=/x", "the option sentinel_ssl_ca_certs is for sentinels with TLS: "),
    ("rediss+sentinel://a/m?sentinel_ssl=no&sentinel_ssl_ca_certs=/x", "the option sentinel_ssl_ca_certs is for sent"),
    ("rediss+sentinel://a/m?sentinel_ssl_cert_reqs=x", "the option sentinel_ssl_cert_reqs must be none, optional or "),
    ("redis://a/m?sentinel_password=x", "after the host may come only /DB, a number"),
    ("redis://a?sentinel_password=x", "the option sentinel_password is unknown; "),
    ("redis://a:1,b:2", "it names several hosts: give one, at which the master is, or redis+sentinel:// and its sent"),
]


@pytest.mark.parametrize(("url", "said"), FAULTS, ids=[url for url, _ in FAULTS])
def test_the_fault_is_named_and_no_password_is(url: str, said: str) -> None:
    assert_named(url, said)


@given(
    secret=st.text(st.sampled_from("ZQ8@/?#&=:,;[] %\t"), min_size=4),
    before=st.sampled_from(
        ["redis+sentinel://:", "rediss+sentinel://me:", "redis+sentinel://h/m?password=", "redis+sentinel://h,i/m?"]
    ),
    option=st.sampled_from(["", "sentinel_password=", "db=1&sentinel_password="]),
    after=st.sampled_from(["@h:1,i/m/0", "@h/m", "@h", "@", "@h/m?db=1", ""]),
)
def test_no_fault_shows_any_of_a_password(secret: str, before: str, option: str, after: str) -> None:
    assume(after or "?" not in secret)  # else what follows the ? cannot be told from an option
    assume(bool(option) == before.endswith("?"))
    assert not {"Z", "Q"} & set(said_of(before + option + secret + after))


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h/m",
        "redis+sentinel://h,[::1],10.0.0.1:5/my.master_1-x/15",
        "redis+sentinel://u:p%40%2F%3F%23,:@h:1,i:65535/m/?client_name=x",
        "redis+sentinel://h/m?sentinel_username=u&sentinel_password=a@b/c",
        "rediss+sentinel://h/m?ssl_cert_reqs=none&sentinel_ssl_check_hostname=false",
        "redis+sentinel://h/m?sentinel_ssl=true&sentinel_ssl_cert_reqs=none",
        "rediss+sentinel://h/m?sentinel_ssl=no",
    ],
)
async def test_right_urls(url: str) -> None:
    settings = read_settings({"EXTAUTH_REDIS_URL": url})
    await RedisCounters(settings.redis_url.get_secret_value(), 1).aclose()
    assert "p%40" not in settings.shown_redis_url()
    assert "a@b" not in settings.shown_redis_url()


@pytest.mark.parametrize("name", ["ssl_ca_certs", "sentinel_ssl_ca_certs"])
def test_a_file_that_is_no_certificate_is_named_by_the_option_that_was_given(name: str, tmp_path: Path) -> None:
    (tmp_path / "hush").write_text("no certificate")
    with pytest.raises(SettingsError) as raised:
        RedisCounters(f"rediss+sentinel://:hush@h/m?{name}={tmp_path / 'hush'}", 1)
    assert str(raised.value) == f"EXTAUTH_REDIS_URL: the option {name} has no value that will do"
    with pytest.raises(SettingsError) as raised:
        RedisCounters(f"rediss+sentinel://:hush@h/m?{name}=/hush", 1)
    said = f"EXTAUTH_REDIS_URL: the file of the option {name} cannot be read: No such file or directory"
    assert str(raised.value) == said
