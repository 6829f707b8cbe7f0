"""What envoyproxy/ratelimit's variables stand for."""

import pytest

from extauth.compat.environment import translate
from extauth.errors import SettingsError
from extauth.settings import read_settings

EVERYWHERE = "0.0.0.0"


def ours(**environ: str) -> dict[str, str]:
    """The EXTAUTH_* variables that these stand for."""
    return {
        name.removeprefix("EXTAUTH_"): value
        for name, value in translate(environ).variables.items()
        if name.startswith("EXTAUTH_")
    }


def test_without_any_the_defaults_are_those_of_the_reference() -> None:
    assert ours() == {
        "COMPATIBLE": "true",
        "HTTP_LISTEN": f"{EVERYWHERE}:8080",
        "ADMIN_LISTEN": f"{EVERYWHERE}:6070",
        "GRPC_LISTEN": f"{EVERYWHERE}:8081",
        "MAX_CONNECTION_AGE": "86400",
        "MAX_CONNECTION_AGE_GRACE": "3600",
        "LOG_LEVEL": "warning",
        "LOG_FORMAT": "console",
        "CONFIG": "/srv/runtime_data/current",
        "CONFIG_FILES": "all:config",
        "KEEP_GOING": "true",
        "START_WITHOUT_RULES": "true",
        "REDIS_URL": "unix:///var/run/nutcracker/ratelimit.sock",
        "PAGE": "false",
        "STATSD": "tcp://localhost:8125",
        "STATSD_INTERVAL": "10",
    }


XDS = {
    "CONFIG_TYPE": "GRPC_XDS_SOTW",
    "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway:18001",
    "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
    "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true",
    "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/certs/tls.crt",
    "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/certs/tls.key",
    "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/certs/ca.crt",
    "FORCE_START_WITHOUT_INITIAL_CONFIG": "true",
}
TLS = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "/c/tls.crt", "GRPC_SERVER_TLS_KEY": "/c/tls.key"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOST": "::", "PORT": "9"}, {"HTTP_LISTEN": "[::]:9"}),
        ({"HOST": "[::1]", "PORT": "0x1F90"}, {"HTTP_LISTEN": "[::1]:8080"}),
        ({"GRPC_HOST": "127.0.0.1", "GRPC_PORT": "9"}, {"GRPC_LISTEN": "127.0.0.1:9"}),
        (
            {"GRPC_PORT": "tcp://10.0.0.1:80", "REDIS_PORT": "tcp://10.0.0.2:6379"},
            {"GRPC_LISTEN": f"{EVERYWHERE}:8081"},
        ),
        ({"GRPC_UDS": "/run/rl.sock", "GRPC_PORT": "9"}, {"GRPC_LISTEN": "unix:/run/rl.sock"}),
        ({"DEBUG_HOST": "127.0.0.1"}, {"ADMIN_LISTEN": "127.0.0.1:6070", "PAGE": "true"}),
        ({"DEBUG_HOST": "localhost"}, {"PAGE": "true"}),
        ({"DEBUG_HOST": "10.1.2.3"}, {"PAGE": "false"}),
        ({"DEBUG_HOST": "10.1.2.3", "EXTAUTH_PAGE": "on"}, {"PAGE": "on"}),
        ({"EXTAUTH_ADMIN_LISTEN": "[::1]:9"}, {"ADMIN_LISTEN": "[::1]:9", "PAGE": "true"}),
        ({"GRPC_MAX_CONNECTION_AGE": "1h30m"}, {"MAX_CONNECTION_AGE": "5400"}),
        ({"GRPC_MAX_CONNECTION_AGE": "150us"}, {"MAX_CONNECTION_AGE": "0.00015"}),
        ({"GRPC_MAX_CONNECTION_AGE": "0"}, {"MAX_CONNECTION_AGE": "0"}),
        ({"GRPC_MAX_CONNECTION_AGE_GRACE": "30s"}, {"MAX_CONNECTION_AGE_GRACE": "30"}),
        ({"GRPC_MAX_CONNECTION_AGE_GRACE": "0"}, {"MAX_CONNECTION_AGE_GRACE": "3600"}),
        *(
            ({"LOG_LEVEL": logrus}, {"LOG_LEVEL": level})
            for logrus, level in {
                "panic": "error",
                "FATAL": "error",
                "error": "error",
                "Warn": "warning",
                "warning": "warning",
                "info": "info",
                "debug": "debug",
                "trace": "debug",
            }.items()
        ),
        ({"LOG_FORMAT": "JSON"}, {"LOG_FORMAT": "json"}),
        (
            {"RUNTIME_ROOT": "/data", "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false"},
            {"CONFIG": "/data/ratelimit/config", "CONFIG_FILES": "all"},
        ),
        (
            {"RUNTIME_ROOT": "/data", "RUNTIME_IGNOREDOTFILES": "t"},
            {"CONFIG": "/data", "CONFIG_FILES": "visible:config"},
        ),
        ({"RUNTIME_ROOT": "/d", "RUNTIME_APPDIRECTORY": "", "RUNTIME_WATCH_ROOT": "0"}, {"CONFIG": "/d"}),
        ({"RUNTIME_ROOT": "/d", "RUNTIME_APPDIRECTORY": "a/b"}, {"CONFIG": "/d", "CONFIG_FILES": "all:a/b"}),
        ({"CONFIG_TYPE": "GRPC_XDS", "EXTAUTH_CONFIG": "/ours"}, {"CONFIG": "/ours"}),
        (
            XDS,
            {
                "CONFIG": "xdss://envoy-gateway:18001",
                "START_WITHOUT_RULES": "true",
                "XDS_NODE_ID": "envoy-ratelimit",
                "XDS_TLS_CERT": "/certs/tls.crt",
                "XDS_TLS_KEY": "/certs/tls.key",
                "XDS_TLS_CA": "/certs/ca.crt",
            },
        ),
        ({"CONFIG_TYPE": "GRPC_XDS_SOTW"}, {"CONFIG": "xds://localhost:18000", "START_WITHOUT_RULES": "false"}),
        (
            {**XDS, "CONFIG_GRPC_XDS_SERVER_USE_TLS": "", "CONFIG_GRPC_XDS_NODE_METADATA": "a=b,c:d,=e"},
            {"CONFIG": "xds://envoy-gateway:18001", "XDS_NODE_METADATA": "a=b"},
        ),
        (
            {
                **XDS,
                "CONFIG_GRPC_XDS_SERVER_URL": "dns:///[::1]:18001",
                "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "control-plane",
                "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "X-A:1,b:2",
                "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES": "0x100000",
            },
            {
                "CONFIG": "xdss://[::1]:18001",
                "XDS_TLS_SAN": "control-plane",
                "XDS_HEADERS": "X-A:1,b:2",
                "XDS_MAX_MESSAGE_BYTES": "1048576",
            },
        ),
        ({"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": "True"}, {"HEALTHY_WITH_RULES": "true"}),
        ({"MERGE_DOMAIN_CONFIG": "1"}, {"MERGE_DOMAINS": "true"}),
        ({"SHADOW_MODE": "F"}, {"SHADOW_MODE": "false"}),
        ({"SHADOW_MODE": "true", "EXTAUTH_SHADOW_MODE": "false"}, {"SHADOW_MODE": "false"}),
        ({"QUOTA_MODE": "T"}, {"QUOTA_MODE": "true"}),
        ({"RESPONSE_DYNAMIC_METADATA": "true"}, {"DYNAMIC_METADATA": "true"}),
        ({"NEAR_LIMIT_RATIO": "0.5"}, {"NEAR_LIMIT_RATIO": "0.5"}),
        ({"CACHE_KEY_PREFIX": "rl:"}, {"KEY_PREFIX": "rl:"}),
        ({"LOCAL_CACHE_SIZE_IN_BYTES": "1024"}, {"REMEMBER_DENIALS": "true"}),
        ({"LOCAL_CACHE_SIZE_IN_BYTES": "0"}, {"REMEMBER_DENIALS": "false"}),
        ({"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "true"}, {"STOP_AT_LIMIT": "true"}),
        (
            {"LIMIT_RESPONSE_HEADERS_ENABLED": "true", "LIMIT_RESET_HEADER": "X-Reset"},
            {"RESPONSE_HEADERS": "RateLimit-Limit,RateLimit-Remaining,X-Reset"},
        ),
        ({"REDIS_TIMEOUT": "250ms"}, {"REDIS_TIMEOUT": "0.25"}),
        ({"REDIS_TIMEOUT": "0"}, {"REDIS_TIMEOUT": "60"}),
        ({"REDIS_TIMEOUT": "5m"}, {"REDIS_TIMEOUT": "60"}),
        (TLS, {"GRPC_TLS_CERT": "/c/tls.crt", "GRPC_TLS_KEY": "/c/tls.key"}),
        (
            TLS | {"GRPC_CLIENT_TLS_CACERT": "/c/ca.crt", "GRPC_CLIENT_TLS_SAN": "envoy.example"},
            {"GRPC_TLS_CLIENT_CA": "/c/ca.crt", "GRPC_TLS_CLIENT_SAN": "envoy.example"},
        ),
        (
            {"STATSD_HOST": "::1", "STATSD_PORT": "9125", "STATS_FLUSH_INTERVAL": "1m", "EXTRA_TAGS": "a:b,c:d"},
            {"STATSD": "tcp://[::1]:9125", "STATSD_INTERVAL": "60", "STATSD_TAGS": "a:b,c:d"},
        ),
        (
            {"STATSD_PROTOCOL": "udp", "STATS_FLUSH_INTERVAL": "1ms"},
            {"STATSD": "udp://localhost:8125", "STATSD_INTERVAL": "0.1"},
        ),
        (
            {"USE_DOG_STATSD": "true", "STATSD_HOST": "agent", "STATSD_PROTOCOL": "tcp", "EXTRA_TAGS": "b:1.2,a:x"},
            {"STATSD": "dogstatsd://agent:8125", "STATSD_INTERVAL": "10", "STATSD_TAGS": "a:x,b:1_2"},
        ),
        (
            {"USE_DOG_STATSD": "1", "DD_ENV": "prod", "DD_VERSION": "1.2:3", "DD_ENTITY_ID": "", "EXTRA_TAGS": "env:x"},
            {"STATSD_TAGS": "env:x,version:1.2_3"},
        ),
        ({"DD_ENV": "prod"}, {"STATSD_TAGS": None}),
        ({"STATSD_PORT": "tcp://10.0.0.1:8125"}, {"STATSD": "tcp://localhost:8125"}),
        ({"USE_PROMETHEUS": "true"}, {"METRICS_LISTEN": "[::]:9090"}),
        (
            {"USE_PROMETHEUS": "true", "PROMETHEUS_ADDR": "127.0.0.1:19001", "PROMETHEUS_PATH": "/m"},
            {"METRICS_LISTEN": "127.0.0.1:19001", "METRICS_PATH": "/m"},
        ),
    ],
    ids=str,
)
def test_each_stands_for_a_setting(environ: dict[str, str], expected: dict[str, str | None]) -> None:
    translated = ours(**environ)
    assert {name: translated.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("environ", "left_out"),
    [
        (TLS | {"GRPC_SERVER_USE_TLS": "false"}, "GRPC_TLS_CERT"),
        (TLS | {"GRPC_CLIENT_TLS_SAN": "envoy"}, "GRPC_TLS_CLIENT_SAN"),
        ({"PROMETHEUS_ADDR": ":1"}, "METRICS_LISTEN"),
        ({"USE_STATSD": "false", "STATSD_HOST": "h"}, "STATSD"),
        ({"DISABLE_STATS": "true"}, "STATSD"),
        ({"DISABLE_STATS": "true", "USE_DOG_STATSD": "true"}, "STATSD"),
        ({"USE_DOG_STATSD_MOGRIFIERS": "HITS"}, "STATSD_RENAME"),
        ({"USE_PROMETHEUS": "true", "DISABLE_STATS": "true"}, "METRICS_LISTEN"),
        ({"LIMIT_LIMIT_HEADER": "X"}, "RESPONSE_HEADERS"),
        ({"SHADOW_MODE": ""}, "SHADOW_MODE"),
    ],
    ids=str,
)
def test_what_is_switched_off_stands_for_nothing(environ: dict[str, str], left_out: str) -> None:
    assert left_out not in ours(**environ)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PORT": "http"}, "PORT='http' is not allowed; allowed: a whole number, such as 8081"),
        ({"PORT": "0"}, "HOST and PORT cannot be used: EXTAUTH_HTTP_LISTEN='h:0' is not allowed; allowed: HOST:PORT"),
        ({"SHADOW_MODE": "yes"}, "SHADOW_MODE='yes' is not allowed; allowed: true or false, written"),
        ({"GRPC_MAX_CONNECTION_AGE": "10"}, "GRPC_MAX_CONNECTION_AGE='10' is not allowed; allowed: a duration"),
        ({"GRPC_MAX_CONNECTION_AGE": "-1s"}, "GRPC_MAX_CONNECTION_AGE cannot be used: EXTAUTH_MAX_CONNECTION_AGE='-1'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud' is not allowed; allowed: panic, fatal, error, warn, warning, info"),
        (
            {**XDS, "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway"},
            (
                "CONFIG_GRPC_XDS_SERVER_URL and CONFIG_GRPC_XDS_SERVER_USE_TLS cannot be used: "
                "EXTAUTH_CONFIG='xdss://envoy-gateway' is not allowed; allowed: a folder of *.yaml files, or one file; "
                "or xds://HOST:PORT, xdss://HOST:PORT for TLS"
            ),
        ),
        (
            {**XDS, "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "authorization:s3cret,grpc-x:1"},
            (
                "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS cannot be used: EXTAUTH_XDS_HEADERS=… is not allowed; "
                "allowed: NAME:VALUE,NAME:VALUE,… in printable ASCII; no name begins with grpc-"
            ),
        ),
        ({"CONFIG_TYPE": "ETCD"}, "CONFIG_TYPE='ETCD' is not allowed; allowed: FILE or GRPC_XDS_SOTW"),
        ({"NEAR_LIMIT_RATIO": "2"}, "NEAR_LIMIT_RATIO cannot be used: EXTAUTH_NEAR_LIMIT_RATIO='2.0' is not allowed"),
        ({"CACHE_KEY_PREFIX": "a b"}, "CACHE_KEY_PREFIX cannot be used: EXTAUTH_KEY_PREFIX='a b' is not allowed"),
        ({"GRPC_SERVER_USE_TLS": "1"}, "GRPC_SERVER_USE_TLS=true needs GRPC_SERVER_TLS_CERT and GRPC_SERVER_TLS_KEY"),
        (
            {"LIMIT_RESPONSE_HEADERS_ENABLED": "1", "LIMIT_LIMIT_HEADER": "a:\r\nb"},
            "LIMIT_LIMIT_HEADER cannot be used: EXTAUTH_RESPONSE_HEADERS=",
        ),
        ({"USE_PROMETHEUS": "1", "PROMETHEUS_ADDR": "9090"}, "PROMETHEUS_ADDR cannot be used: EXTAUTH_METRICS_LISTEN="),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_that_it_stands_under(
    environ: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        translate({"HOST": "h"} | environ)
    assert str(caught.value).startswith(line)


def test_all_that_is_refused_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        translate({"PORT": "x", "SHADOW_MODE": "x", "BACKEND_TYPE": "memcache", "LOG_LEVEL": "x"})
    refused = [line.split("=")[0] for line in str(caught.value).splitlines()]
    assert sorted(refused) == ["BACKEND_TYPE", "LOG_LEVEL", "PORT", "SHADOW_MODE"]


def test_what_became_of_each_is_told_and_no_value() -> None:
    environ = {
        "GRPC_PORT": "8081",
        "REDIS_URL": "redis://:hush@h:1",
        "REDIS_PERSECOND": "true",
        "REDIS_PERSECOND_AUTH": "hush",
        "GRPC_SERVER_TLS_CA_CERT": "/hush",
        "GRPC_SERVER_TLS_CERT": "/hush",
        "SHADOW_MODE": "true",
        "EXTAUTH_SHADOW_MODE": "false",
        "PATH": "/bin",
        "GRPC_HOST": "",
    }
    found = translate(environ)
    assert found.understood == ("GRPC_PORT: EXTAUTH_GRPC_LISTEN", "REDIS_URL: EXTAUTH_REDIS_URL")
    assert found.overridden == ("SHADOW_MODE: EXTAUTH_SHADOW_MODE is set",)
    assert [line.partition(":")[0] for line in found.no_effect] == [
        "REDIS_PERSECOND",
        "REDIS_PERSECOND_AUTH",
        "GRPC_SERVER_TLS_CERT",
        "GRPC_SERVER_TLS_CA_CERT",
    ]
    assert "hush" not in str((found.understood, found.no_effect, found.overridden))
    assert read_settings(found.variables).shown_redis_url() == "redis://***@h:1"
