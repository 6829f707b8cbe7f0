"""Settings from the environment."""

from pathlib import Path

import pytest

from extauth.errors import SettingsError
from extauth.limiter.limiter import OnStoreFailure
from extauth.settings import (
    _REFERENCE,
    _REFERENCE_REDIS,
    LogFormat,
    Settings,
    read_settings,
    reference_variables,
    unknown_variables,
)


def test_defaults() -> None:
    settings = read_settings({"PATH": "/bin", "EXTAUTH_LOG_LEVEL": ""})
    assert settings.grpc_listen == "127.0.0.1:8081"
    assert settings.admin_listen == "127.0.0.1:6070"
    assert settings.engine == "h2"
    assert settings.on_store_failure is OnStoreFailure.ALLOW
    assert settings.log_format is LogFormat.CONSOLE


def test_all_of_them() -> None:
    settings = read_settings(
        {
            "EXTAUTH_CONFIG": "/etc/x",
            "EXTAUTH_REDIS_URL": "rediss://u:p@h:1/2",
            "EXTAUTH_GRPC_LISTEN": "[::1]:9",
            "EXTAUTH_ADMIN_LISTEN": "localhost:10",
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
    assert settings.redis_timeout == 1.5
    assert settings.log_level == "debug"
    assert settings.key_secret.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("GRPC_LISTEN", "8081", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "localhost:0", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "::1:80", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("GRPC_LISTEN", "unix:", "HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("ADMIN_LISTEN", "unix:/x", "HOST:PORT or [IPV6]:PORT"),
        ("ADMIN_LISTEN", "h:65536", "HOST:PORT or [IPV6]:PORT"),
        ("ENGINE", "go", "h2 or grpcio"),
        ("MAX_WAITING", "0", "calls, 1 to 1000000"),
        ("STALL_TIMEOUT", "0", "seconds, 0.1 to 600"),
        ("DENIAL_CACHE", "inf", "seconds, 0 (off) to 60"),
        ("ON_STORE_FAILURE", "panic", "allow, deny or error"),
        ("REDIS_TIMEOUT", "0", "seconds, 0.001 to 60"),
        ("REDIS_TIMEOUT", "nan", "seconds, 0.001 to 60"),
        ("REDIS_TIMEOUT", "100ms", "seconds, 0.001 to 60"),
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


@pytest.mark.parametrize(
    "url",
    [
        "http://:hush@h",
        "redis://:hush/x@h:1",
        "redis://h:hush",
        "redis://:hush@h:99999",
        "redis://[::1",
        "redis://h:1/hush",
        "redis://",
        "unix:hush",
        "unix://relative/hush",
    ],
)
def test_a_wrong_url_is_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({"EXTAUTH_REDIS_URL": url})
    assert "hush" not in str(raised.value)
    assert "EXTAUTH_REDIS_URL=… is not allowed; allowed: redis://" in str(raised.value)


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


def test_variables_of_the_reference_are_named_without_their_values() -> None:
    environ = {"SHADOW_MODE": "true", "RUNTIME_ROOT": "/hush", "GRPC_PORT": "8081", "QUOTA_MODE": "", "PATH": "/bin"}
    assert reference_variables(environ) == [
        "GRPC_PORT is envoyproxy/ratelimit's; here it is EXTAUTH_GRPC_LISTEN",
        "RUNTIME_ROOT is envoyproxy/ratelimit's; here it is EXTAUTH_CONFIG",
        "SHADOW_MODE is envoyproxy/ratelimit's; here it is EXTAUTH_SHADOW_MODE",
    ]


def test_variables_that_others_use_too_are_named_only_beside_one_of_the_reference() -> None:
    others = {"REDIS_URL": "redis://:hush@h", "REDIS_AUTH": "hush", "GRPC_PORT": "tcp://10.0.0.1:80", "LOG_LEVEL": "x"}
    assert reference_variables(others) == []
    assert reference_variables(others | {"REDIS_SOCKET_TYPE": "tcp"}) == [
        "REDIS_AUTH is envoyproxy/ratelimit's; here it is EXTAUTH_REDIS_URL",
        "REDIS_SOCKET_TYPE is envoyproxy/ratelimit's; here it is EXTAUTH_REDIS_URL",
        "REDIS_URL is envoyproxy/ratelimit's; here it is EXTAUTH_REDIS_URL",
    ]


def test_what_serves_in_place_of_a_variable_of_the_reference_is_a_setting() -> None:
    ours = {name for name in (_REFERENCE | _REFERENCE_REDIS).values() if name.startswith("EXTAUTH_")}
    assert {name.removeprefix("EXTAUTH_").lower() for name in ours} <= set(Settings.model_fields)
