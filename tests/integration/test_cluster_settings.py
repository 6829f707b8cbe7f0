"""URLs of a cluster: what is wrong with them, what is shown of them, and what is read."""

import pytest

from extauth.counters.redis.cluster.url import read_cluster_url
from extauth.counters.redis.server import Address
from extauth.settings import read_settings
from tests.support.redis_urls import assert_named, said_of

LIKE = ", as in redis+cluster://a:6379,b:6379,c:6379"
USER = "the user or password holds "
WRONG = [
    ("redis+cluster:h", "it must begin with redis://, rediss://, "),
    ("redis+cluster://", "it names no node of the cluster: write HOST:PORT of one or more" + LIKE),
    ("redis+cluster:///0", "it names no node of the cluster: "),
    ("redis+cluster://:hush@", "it names no node of the cluster: "),
    ("redis+cluster://a,,b", "node number 2 has no host: write HOST:PORT of each with one comma between" + LIKE),
    ("redis+cluster://a,:1", "node number 2 has no host: "),
    ("redis+cluster://a,", "node number 2 has no host: "),
    ("redis+cluster://a:hush", "the port of node number 1 must be 1 to 65535"),
    ("redis+cluster://a:1,b:0", "the port of node number 2 must be 1 to 65535"),
    ("redis+cluster://a,fe80::1:6379", "an IPv6 address is written in brackets"),
    ("redis+cluster://a,[::1", "the host of node number 2 is no name and no address"),
    ("redis+cluster://a,b/1", "a Redis Cluster has only the database 0: write nothing after the nodes"),
    ("redis+cluster://a/hush", "a Redis Cluster has only the database 0: "),
    ("redis+cluster://a?db=1", "a Redis Cluster has only the database 0: remove the option db"),
    ("redis+cluster://a?client_name=x&db=0", "a Redis Cluster has only the database 0: "),
    ("redis+cluster://:hu@sh@a,b", USER + "@: write @ as %40"),
    ("redis+cluster://:hu/sh@a,b", USER + "/: write / as %2F"),
    ("redis+cluster://:hu?sh@a,b", USER + "?: write ? as %3F"),
    ("redis+cluster://:hu#sh@a,b", USER + "#: write # as %23"),
    ("redis+cluster://a#hush", "the host of node number 1 is no name and no address"),
    ("redis+cluster://a?ssl_ca_certs=/x", "the option ssl_ca_certs is for rediss+cluster:// alone"),
    ("redis+cluster://a?nope=1", "the option nope is unknown"),
    ("redis+cluster://a?username", "the option username has no value"),
    ("redis://a,b", "it names several hosts: give one, "),
]
RIGHT = [
    ("redis+cluster://a", [("a", 6379)], "redis://node?"),
    ("redis+cluster://a:7000,b:7001,c", [("a", 7000), ("b", 7001), ("c", 6379)], "redis://node?"),
    ("redis+cluster://a:1/", [("a", 1)], "redis://node?"),
    ("redis+cluster://a:1/0", [("a", 1)], "redis://node?"),
    ("redis+cluster://u:hush%40@[::1]:7000,[fe80::1]", [("::1", 7000), ("fe80::1", 6379)], "redis://u:hush%40@node?"),
    ("rediss+cluster://:p@a?ssl_cert_reqs=none", [("a", 6379)], "rediss://:p@node?ssl_cert_reqs=none"),
]


@pytest.mark.parametrize(("url", "fault"), WRONG)
def test_a_fault_is_named_without_the_password(url: str, fault: str) -> None:
    assert_named(url, fault)


@pytest.mark.parametrize(("url", "addresses", "node_url"), RIGHT)
def test_a_url_is_read(url: str, addresses: list[tuple[str, int]], node_url: str) -> None:
    assert said_of(url) == ""
    read = read_cluster_url(url)
    assert read.addresses == tuple(Address(*each) for each in addresses)
    assert read.node_url == node_url


def test_what_is_shown_has_no_user_and_no_password() -> None:
    settings = read_settings({"EXTAUTH_REDIS_URL": "redis+cluster://u:hush@a:1,b:2?username=u&password=hush"})
    assert settings.shown_redis_url() == "redis+cluster://***@a:1,b:2"
