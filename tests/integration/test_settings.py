"""Settings from the environment."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extauth.errors import SettingsError
from extauth.rules.model import OnStoreFailure
from extauth.settings import LogFormat, read_settings, unknown_variables
from tests.support.redis_urls import assert_named, said_of


def test_defaults() -> None:
    settings = read_settings({"PATH": "/bin", "EXTAUTH_LOG_LEVEL": ""})
    assert settings.grpc_listen == "127.0.0.1:8081"
    assert settings.admin_listen == "127.0.0.1:6070"
    assert settings.admin_hosts == ()
    assert settings.engine == "h2"
    assert settings.on_store_failure is OnStoreFailure.LOCAL
    assert settings.log_format is LogFormat.CONSOLE
    assert (settings.local_share, settings.replicas, settings.local_bytes) == (1, None, 64 * 1024 * 1024)
    assert settings.advertise is None


def test_all_of_them() -> None:
    settings = read_settings(
        {
            "EXTAUTH_CONFIG": "/etc/x",
            "EXTAUTH_REDIS_URL": "rediss://u:p@h:1/2",
            "EXTAUTH_GRPC_LISTEN": "[::1]:9",
            "EXTAUTH_ADMIN_LISTEN": "localhost:10",
            "EXTAUTH_ADMIN_HOSTS": "admin.internal, extauth",
            "EXTAUTH_ENGINE": "GRPCIO",
            "EXTAUTH_ON_STORE_FAILURE": "deny",
            "EXTAUTH_REDIS_TIMEOUT": "1.5",
            "EXTAUTH_KEY_PREFIX": "a:b",
            "EXTAUTH_KEY_SECRET": "hush",
            "EXTAUTH_DRAIN_DELAY": "0",
            "EXTAUTH_LOG_LEVEL": "DEBUG",
            "EXTAUTH_LOG_FORMAT": "json",
        }
    )
    assert settings.config == Path("/etc/x")
    assert settings.admin_hosts == ("admin.internal", "extauth")
    assert settings.redis_timeout == 1.5
    assert settings.log_level == "debug"
    assert settings.key_secret.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


SHARE = "a number over 0 up to 1, or auto"
ADVERTISED = "HOST:PORT or [IPV6]:PORT, which other replicas reach: no wildcard such as 0.0.0.0"
NOT_REACHED = [
    *("8081", "replica-1", "replica-1:0", "replica-1:65536", "http://replica-1:8081", "unix:/run/extauth/grpc"),
    *("0.0.0.0:8081", "[::]:8081", "[0:0:0:0:0:0:0:0]:8081", "*:8081", "10.0.0.1.:", "::1:8081", "[:::1]:8081"),
]


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("local_share", "auto", "auto"),
        ("local_share", "AUTO", "auto"),
        ("local_share", "0.25", 0.25),
        ("local_share", "1", 1),
        ("local_share", "0.000001", 0.000001),
        ("replicas", "1", 1),
        ("replicas", "10000", 10_000),
        ("local_bytes", "1048576", 1_048_576),
        ("shards", "1", 1),
        ("shards", "16384", 16_384),
        ("advertise", "10.1.2.3:8081", "10.1.2.3:8081"),
        ("advertise", "127.0.0.1:8081", "127.0.0.1:8081"),
        ("advertise", "[fd00::1]:8081", "[fd00::1]:8081"),
        ("advertise", "[fe80::1%eth0]:8081", "[fe80::1%eth0]:8081"),
        ("advertise", "replica-1.extauth.svc:65535", "replica-1.extauth.svc:65535"),
    ],
)
def test_settings_of_counting_without_the_store(name: str, value: str, read: object) -> None:
    assert getattr(read_settings({f"EXTAUTH_{name.upper()}": value}), name) == read


@pytest.mark.parametrize("value", [*OnStoreFailure, "LOCAL", "Deny"])
def test_each_policy_for_store_failures_is_a_setting(value: str) -> None:
    assert read_settings({"EXTAUTH_ON_STORE_FAILURE": value}).on_store_failure is OnStoreFailure(value.lower())


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("GRPC_LISTEN", "8081", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "localhost:0", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "::1:80", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "unix:", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("ADMIN_LISTEN", "unix:/x", "HOST:PORT or [IPV6]:PORT"),
        ("ADMIN_LISTEN", "h:65536", "HOST:PORT or [IPV6]:PORT"),
        ("ADMIN_HOSTS", "admin:6070", "host names without ports, separated by commas"),
        ("ADMIN_HOSTS", "http://admin", "host names without ports, separated by commas"),
        ("ADMIN_HOSTS", "a,,b", "host names without ports, separated by commas"),
        ("ADMIN_HOSTS", "*.internal", "host names without ports, separated by commas"),
        ("ENGINE", "go", "h2 or grpcio"),
        ("MAX_WAITING", "0", "calls, 1 to 1000000"),
        *(
            ("NEAR_LIMIT_RATIO", ratio, "0 to 1, such as 0.8 for 80 % of a limit")
            for ratio in ("-0.1", "1.1", "nan", "80%")
        ),
        ("STALL_TIMEOUT", "0", "seconds, 0.1 to 600"),
        ("DENIAL_CACHE", "inf", "seconds, 0 (off) to 60"),
        ("ON_STORE_FAILURE", "panic", "local, allow, deny or error"),
        *(("LOCAL_SHARE", share, SHARE) for share in ("0", "-0.5", "1.001", "nan", "inf", "1e-400", "half", "50%")),
        *(("REPLICAS", number, "replicas, 1 to 10000") for number in ("0", "10001", "2.5", "auto")),
        ("LOCAL_BYTES", "1048575", "bytes for the counters of local counting, 1048576 or more"),
        ("LOCAL_BYTES", "64MiB", "bytes for the counters of local counting, 1048576 or more"),
        *(("ADVERTISE", address, ADVERTISED) for address in NOT_REACHED),
        ("REDIS_TIMEOUT", "0", "seconds, 0.001 to 60"),
        ("REDIS_TIMEOUT", "nan", "seconds, 0.001 to 60"),
        ("REDIS_TIMEOUT", "100ms", "seconds, 0.001 to 60"),
        *(("SHARDS", number, "shards, 1 to 16384; every replica needs the same") for number in ("0", "16385", "2.5")),
        ("KEY_PREFIX", "a{b", "1 to 64 letters, digits and : _ . -"),
        ("DRAIN_DELAY", "-1", "seconds, 0 to 300"),
        ("LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("LOG_FORMAT", "xml", "console or json"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({f"EXTAUTH_{name}": value})
    assert str(raised.value) == f"EXTAUTH_{name}={value!r} is not allowed; allowed: {allowed}"


USER = "the user or password holds "
OPTIONS = "the options are db, username, password, client_name, ssl_ca_certs, "
URL_FAULTS = [
    ("redis://:hu@sh@h", USER + "@: write @ as %40"),
    ("redis://:hush/x@h:1", USER + "/: write / as %2F"),
    ("redis://me:12/hush@h:1/0", USER + "/: write / as %2F"),
    ("redis://:hu?sh@h", USER + "?: write ? as %3F"),
    ("redis://:hu#sh@h", USER + "#: write # as %23"),
    (
        "rediss://:h@u/s?h#@h:1/0?db=1",
        USER + "@ and / and ? and #: write @ as %40 and / as %2F and ? as %3F and # as %23",
    ),
    ("redis://:hu[sh@h", USER + "[: write [ as %5B"),
    ("redis://:hush\u2100@h", "the user or password holds a character that must be escaped"),
    ("unix://:hu/sh@/s", USER + "/: write / as %2F"),
    ("unix://:hu?sh@/s?db=1", USER + "?: write ? as %3F"),
    (
        "redis://me:12?hush@h",
        "an option after the ? is unknown; if it is part of a password, write ? as %3F and @ as %40",
    ),
    (
        "redis://me:12?hush=1@h",
        "an option after the ? is unknown; if it is part of a password, write ? as %3F and @ as",
    ),
    ("redis://h?password=x&hush=y", "an option after the ? is unknown; if it is part of a password, write & as %26"),
    ("redis://h?password=hu#sh", "it holds a #: write it as %23"),
    ("unix:///hush#x", "it holds a #: write it as %23"),
    ("redis://:hush@h:1\n", "it begins or ends with white space, such as a line break: remove it"),
    (" redis://:hush@h:1", "it begins or ends with white space, such as a line break: remove it"),
    ("redis://:hu sh@h:1", "it holds white space or a control character: write a space as %20"),
    ("redis://:hu\tsh@h:1", "it holds white space or a control character: write a space as %20"),
    ("redis://:hush@a:1,b:2/0", "it names several hosts: give one, "),
    ("redis://a,b", "it names several hosts: give one, "),
    ("redis://:hush@a:1,:hush@b:2", "it names several hosts: give one, "),
    ("http://:hush@h", "it must begin with redis://, rediss://, redis+sentinel://, "),
    ("hush", "it must begin with redis://, rediss://, redis+sentinel://, "),
    ("memory:hush", "nothing may follow memory:"),
    ("memory", "it must begin with redis://, rediss://, redis+sentinel://, "),
    ("redis:hush@h", "it must begin with redis://, rediss://, redis+sentinel://, "),
    ("redis://h:hush", "the port must be 1 to 65535, and a user and password end in an @"),
    ("redis://:hush@h:99999", "the port must be 1 to 65535"),
    ("redis://:hush@h:", "the port must be 1 to 65535"),
    ("redis://:hush", "it names no host; a user and password end in an @ before it"),
    ("redis://:hush@", "it names no host"),
    ("redis://", "it names no host; "),
    ("redis://[::1", "the host is no name and no address"),
    ("redis://::1:6379", "it names no host; "),
    ("redis://fe80::1:6379", "an IPv6 address is written in brackets, as in redis://[::1]:6379"),
    ("redis://h:1/hush", "after the host may come only /DB, a number"),
    ("unix:hush", "the socket's path must begin with a /, as in unix:///run/redis.sock"),
    ("unix://relative/hush", "the socket's path must begin with a /, as in unix:///run/redis.sock"),
    ("redis://h?colour=hush", "the option colour is unknown; " + OPTIONS),
    ("redis://h?pasword=hush", "the option pasword is unknown; did you mean password?"),
    ("redis://h?hush", "an option after the ? is unknown; " + OPTIONS),
    ("redis://h?socket_timeout=hush", "the option socket_timeout is unknown; "),
    ("redis://h?db=hush", "the option db must be a number"),
    ("redis://h?db=-1", "the option db must be a number"),
    ("redis://h?db=", "the option db has no value"),
    ("redis://h?password=hush&password=hush", "the option password is given twice"),
    ("redis://h?ssl_ca_certs=/hush", "the option ssl_ca_certs is for rediss:// alone"),
    ("rediss://h?ssl_cert_reqs=hush", "the option ssl_cert_reqs must be none, optional or required"),
    ("rediss://h?ssl_check_hostname=hush", "the option ssl_check_hostname must be true or false"),
    ("rediss://h?ssl_min_version=hush", "the option ssl_min_version must be 769 to 772, of which 771 is TLS 1.2"),
]


@pytest.mark.parametrize(("url", "said"), URL_FAULTS, ids=[url for url, _ in URL_FAULTS])
def test_the_fault_of_a_redis_url_is_named_and_its_password_is_not(url: str, said: str) -> None:
    assert_named(url, said)


@given(
    secret=st.text(st.sampled_from("ZQ8@/?#&=:,;[] %\t"), min_size=4),
    before=st.sampled_from(
        ["redis://:", "redis://me:", "unix://:", "rediss://h?password=", "redis://h/0?db=1&password=", ""]
    ),
    after=st.sampled_from(["@h:1/0", "@h", "@", "@h?db=1", "@/s", ""]),
)
def test_no_fault_of_a_redis_url_shows_any_of_a_password(secret: str, before: str, after: str) -> None:
    assume(after or "?" not in secret)  # else what follows the ? cannot be told from an option
    assert not {"Z", "Q"} & set(said_of(before + secret + after))


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:1/",
        "rediss://u:p%40%2F%3F%23@h.example:65535/15?ssl_cert_reqs=none&ssl_check_hostname=false",
        "redis://[::1]:6379/0",
        "redis://u:a:b@h",
        "redis://h?password=a@b&username=me&db=2",
        "redis://h?password=a%26b%23",
        "unix:/run/x",
        "unix:///run/@x?db=1&password=a/b@c",
        "unix://me:p@/run/x",
    ],
)
def test_right_redis_urls(url: str) -> None:
    assert read_settings({"EXTAUTH_REDIS_URL": url}).redis_url.get_secret_value() == url


@pytest.mark.parametrize("given", [{"CERT"}, {"KEY"}, {"CLIENT_CA"}, {"CERT", "CLIENT_CA"}])
def test_half_of_tls_is_refused(given: set[str]) -> None:
    with pytest.raises(SettingsError, match="EXTAUTH_GRPC_TLS_CERT and EXTAUTH_GRPC_TLS_KEY go together"):
        read_settings({f"EXTAUTH_GRPC_TLS_{name}": "/x" for name in given})


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({"EXTAUTH_ENGINE": "go", "EXTAUTH_LOG_LEVEL": "loud"})
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:hush@h", "redis://***@h"),
        ("redis://me:hush@h:1?password=x", "redis://***@h:1"),
        ("redis://me:hu%2Fsh@h:1", "redis://***@h:1"),
        ("unix:///s?db=1&password=hush", "unix:///s"),
    ],
)
def test_the_shown_redis_url_has_no_password(url: str, shown: str) -> None:
    assert read_settings({"EXTAUTH_REDIS_URL": url}).shown_redis_url() == shown


def test_unknown_variables_are_named_with_the_nearest_setting() -> None:
    environ = {"EXTAUTH_REDIS_ULR": "x", "EXTAUTH_ENGINE": "h2", "EXTAUTH_ZZZZZZ": "", "PATH": "/bin"}
    kubernetes = {"EXTAUTH_SERVICE_HOST": "1", "EXTAUTH_PORT": "1", "EXTAUTH_PORT_8081_TCP_ADDR": "1"}
    assert unknown_variables(environ | kubernetes) == [
        "EXTAUTH_REDIS_ULR is no setting; did you mean EXTAUTH_REDIS_URL?",
        "EXTAUTH_ZZZZZZ is no setting",
    ]


@pytest.mark.parametrize("given", [{}, {"GRPC_TLS_CLIENT_CA": "ca", "ENGINE": "grpcio"}], ids=["no CA", "grpcio"])
def test_the_name_of_clients_certificates_needs_what_checks_it(given: dict[str, str]) -> None:
    files = {"EXTAUTH_GRPC_TLS_CERT": "c", "EXTAUTH_GRPC_TLS_KEY": "k", "EXTAUTH_GRPC_TLS_CLIENT_SAN": "envoy"}
    with pytest.raises(SettingsError, match="needs EXTAUTH_GRPC_TLS_CLIENT_CA, and EXTAUTH_ENGINE=h2"):
        read_settings(files | {f"EXTAUTH_{name}": value for name, value in given.items()})
    assert read_settings(files | {"EXTAUTH_GRPC_TLS_CLIENT_CA": "ca"}).grpc_tls_client_san == "envoy"
