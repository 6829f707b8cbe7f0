"""Compatible mode's environment: envoyproxy/ratelimit's variables as EXTAUTH_* variables, which win over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Final

from extauth.address import split_address
from extauth.compat.dogstatsd import MOGRIFIERS, dogstatsd_tags, mogrifiers
from extauth.compat.given import Given
from extauth.compat.redis_url import RedisVariables, redis_url
from extauth.compat.variables import BY_NAME, VARIABLES, is_set
from extauth.compat.xds import xds
from extauth.errors import SettingsError
from extauth.settings import PREFIX, read_settings

_LEVELS: Final = {
    "panic": "error",
    "fatal": "error",
    "error": "error",
    "warn": "warning",
    "warning": "warning",
    "info": "info",
    "debug": "debug",
    "trace": "debug",
}
_IGNORED: Final = {"GRPC_SERVER_TLS_CA_CERT": "envoyproxy/ratelimit does not read it either"}
"""What deployments set although it is no setting."""

_LONGEST_AGE_S: Final = 1_000_000
_LONGEST_GRACE_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleEnvironment:
    """The environment with the EXTAUTH_* variables that the others stand for, and what became of each that is set."""

    variables: Mapping[str, str]
    understood: tuple[str, ...]
    no_effect: tuple[str, ...]
    overridden: tuple[str, ...]


def translate(environ: Mapping[str, str]) -> CompatibleEnvironment:
    """Read the variables as Go does; an empty one counts as unset. Raises SettingsError with a line a refusal."""
    given = Given(environ)
    for part in (_ports, _tls, _logs, _rules, _counting, _answers, _redis, _metrics):
        part(given)
    _pages(given)
    if given.refused:
        raise SettingsError("\n".join(given.refused))
    variables = {**environ, **given.ours}
    _check(variables, given.sources)
    found = [variable for variable in VARIABLES if is_set(environ, variable.name)]
    overridden = [v for v in found if v.ours and environ.get(v.ours)]
    idle = {v.name: v.note for v in found if not v.ours} | given.idle
    idle |= {name: why for name, why in _IGNORED.items() if environ.get(name)}
    return CompatibleEnvironment(
        variables=variables,
        understood=tuple(f"{v.name}: {v.ours}" for v in found if v.name not in idle and v not in overridden),
        no_effect=tuple(f"{name}: {why}" for name, why in idle.items()),
        overridden=tuple(f"{v.name}: {v.ours} is set" for v in overridden if v.name not in idle),
    )


def _check(variables: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Raise SettingsError where a value is none that the setting takes, with the names of the variables it is from."""
    try:
        read_settings(variables)
    except SettingsError as error:
        lines = []
        for line in str(error).splitlines():
            source = sources.get(line.partition("=")[0])
            lines.append(line if source is None else f"{source} cannot be used: {line}")
        raise SettingsError("\n".join(lines)) from None


def _ports(given: Given) -> None:
    given.put("EXTAUTH_COMPATIBLE", True, "HOST")
    for setting, host, port in (
        ("EXTAUTH_HTTP_LISTEN", "HOST", "PORT"),
        ("EXTAUTH_ADMIN_LISTEN", "DEBUG_HOST", "DEBUG_PORT"),
    ):
        given.put(setting, _address(given.read(host), given.read(port)), host, port)
    socket = given.read("GRPC_UDS")
    address = f"unix:{socket}" if socket else _address(given.read("GRPC_HOST"), given.read("GRPC_PORT"))
    given.put("EXTAUTH_GRPC_LISTEN", address, "GRPC_UDS", "GRPC_HOST", "GRPC_PORT")
    age, grace = "GRPC_MAX_CONNECTION_AGE", "GRPC_MAX_CONNECTION_AGE_GRACE"
    given.put("EXTAUTH_MAX_CONNECTION_AGE", _seconds(min(given.read(age), _LONGEST_AGE_S)), age)
    # There, no grace is one without an end.
    grace_s = min(given.read(grace) or _LONGEST_GRACE_S, _LONGEST_GRACE_S)
    given.put("EXTAUTH_MAX_CONNECTION_AGE_GRACE", _seconds(grace_s), grace)


def _tls(given: Given) -> None:
    if not given.read("GRPC_SERVER_USE_TLS"):
        given.leave("GRPC_SERVER_USE_TLS is not true", "GRPC_SERVER_TLS_", "GRPC_CLIENT_TLS_")
        return
    cert, key = "EXTAUTH_GRPC_TLS_CERT", "EXTAUTH_GRPC_TLS_KEY"
    if not given.wants(cert) or not given.wants(key):
        return
    if not given.is_set("GRPC_SERVER_TLS_CERT") or not given.is_set("GRPC_SERVER_TLS_KEY"):
        given.refuse(
            "GRPC_SERVER_USE_TLS=true needs GRPC_SERVER_TLS_CERT and GRPC_SERVER_TLS_KEY, the names of PEM files"
        )
        return
    given.put_if_set(cert, "GRPC_SERVER_TLS_CERT")
    given.put_if_set(key, "GRPC_SERVER_TLS_KEY")
    given.put_if_set("EXTAUTH_GRPC_TLS_CLIENT_CA", "GRPC_CLIENT_TLS_CACERT")
    if given.is_set("GRPC_CLIENT_TLS_CACERT"):
        given.put_if_set("EXTAUTH_GRPC_TLS_CLIENT_SAN", "GRPC_CLIENT_TLS_SAN")
    else:
        given.leave("without GRPC_CLIENT_TLS_CACERT clients show no certificate", "GRPC_CLIENT_TLS_SAN")


def _logs(given: Given) -> None:
    level = given.read("LOG_LEVEL").lower()
    if level not in _LEVELS and given.wants("EXTAUTH_LOG_LEVEL"):
        given.refuse(f"LOG_LEVEL={level!r} is not allowed; allowed: {', '.join(_LEVELS)}")
    given.put("EXTAUTH_LOG_LEVEL", _LEVELS.get(level, "info"), "LOG_LEVEL")
    given.put("EXTAUTH_LOG_FORMAT", "json" if given.read("LOG_FORMAT").lower() == "json" else "console", "LOG_FORMAT")


def _rules(given: Given) -> None:
    if not given.wants("EXTAUTH_CONFIG"):
        return
    kind = given.read("CONFIG_TYPE")
    if kind == "FILE":
        given.leave("CONFIG_TYPE is not GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_", "XDS_CLIENT_", "FORCE_START_")
        _files(given)
    elif kind == "GRPC_XDS_SOTW":
        given.leave("CONFIG_TYPE is not FILE", "RUNTIME_")
        xds(given)
    else:
        given.refuse(f"CONFIG_TYPE={kind!r} is not allowed; allowed: FILE or GRPC_XDS_SOTW")


def _files(given: Given) -> None:
    root, below = "RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY"
    folder = PurePosixPath(given.read(root)) / given.read(below).lstrip("/")
    # An empty one is no unset one: then the folder itself is meant.
    app = given.environ.get("RUNTIME_APPDIRECTORY", BY_NAME["RUNTIME_APPDIRECTORY"].default).strip("/")
    files = "visible" if given.read("RUNTIME_IGNOREDOTFILES") else "all"
    if not given.read("RUNTIME_WATCH_ROOT"):
        folder /= app
    elif app:
        files += f":{app}"
    given.put("EXTAUTH_CONFIG", folder, root, below, "RUNTIME_APPDIRECTORY")
    given.put("EXTAUTH_CONFIG_FILES", files, "RUNTIME_IGNOREDOTFILES", "RUNTIME_WATCH_ROOT")
    # There, files that cannot be loaded keep nothing from starting.
    given.put("EXTAUTH_KEEP_GOING", True, root)
    given.put("EXTAUTH_START_WITHOUT_RULES", True, root)


def _counting(given: Given) -> None:
    given.put_if_set("EXTAUTH_NEAR_LIMIT_RATIO", "NEAR_LIMIT_RATIO")
    given.put_if_set("EXTAUTH_KEY_PREFIX", "CACHE_KEY_PREFIX")
    given.put_if_set("EXTAUTH_SHADOW_MODE", "SHADOW_MODE")
    given.put_if_set("EXTAUTH_QUOTA_MODE", "QUOTA_MODE")
    given.put_if_set("EXTAUTH_MERGE_DOMAINS", "MERGE_DOMAIN_CONFIG")
    given.put_if_set("EXTAUTH_STOP_AT_LIMIT", "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT")
    if given.is_set("LOCAL_CACHE_SIZE_IN_BYTES"):
        size = given.read("LOCAL_CACHE_SIZE_IN_BYTES")
        given.put("EXTAUTH_REMEMBER_DENIALS", size > 0, "LOCAL_CACHE_SIZE_IN_BYTES")
    given.put_if_set("EXTAUTH_HEALTHY_WITH_RULES", "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED")


def _answers(given: Given) -> None:
    given.put_if_set("EXTAUTH_DYNAMIC_METADATA", "RESPONSE_DYNAMIC_METADATA")
    if given.read("LIMIT_RESPONSE_HEADERS_ENABLED"):
        names = ("LIMIT_LIMIT_HEADER", "LIMIT_REMAINING_HEADER", "LIMIT_RESET_HEADER")
        given.put("EXTAUTH_RESPONSE_HEADERS", ",".join(map(given.read, names)), *names)
    else:
        given.leave("LIMIT_RESPONSE_HEADERS_ENABLED is not true", "LIMIT_LIMIT_", "LIMIT_REMAINING_", "LIMIT_RESET_")


def _redis(given: Given) -> None:
    if given.is_set("REDIS_TIMEOUT"):
        seconds = given.read("REDIS_TIMEOUT")
        given.put("EXTAUTH_REDIS_TIMEOUT", _seconds(min(max(seconds, 0.001), 60) if seconds else 60), "REDIS_TIMEOUT")
    if not given.wants("EXTAUTH_REDIS_URL"):
        return
    backend = given.read("BACKEND_TYPE")
    if backend != "redis":
        given.refuse(
            f"BACKEND_TYPE={backend!r} is not supported: set BACKEND_TYPE=redis, and REDIS_URL to a Redis or Valkey"
        )
        return
    try:
        url = redis_url(
            RedisVariables(
                type=given.read("REDIS_TYPE"),
                socket_type=given.read("REDIS_SOCKET_TYPE"),
                url=given.read("REDIS_URL"),
                auth=given.read("REDIS_AUTH"),
                sentinel_auth=given.read("REDIS_SENTINEL_AUTH"),
                tls=given.read("REDIS_TLS"),
                cert=given.read("REDIS_TLS_CLIENT_CERT"),
                key=given.read("REDIS_TLS_CLIENT_KEY"),
                ca=given.read("REDIS_TLS_CACERT"),
                skip_hostname=given.read("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION"),
            )
        )
    except UnicodeError:
        given.refuse("the variables REDIS_* hold bytes that are not UTF-8")
        return
    except ValueError as error:
        given.refuse(str(error))
        return
    given.put("EXTAUTH_REDIS_URL", url, "REDIS_URL", "REDIS_AUTH", "REDIS_TYPE")


def _statsd(given: Given) -> None:
    address = _address(given.read("STATSD_HOST"), given.read("STATSD_PORT"))
    tags: Mapping[str, str] = given.read("EXTRA_TAGS")
    if given.read("USE_DOG_STATSD"):
        given.put("EXTAUTH_STATSD", f"dogstatsd://{address}", "STATSD_HOST", "STATSD_PORT", "USE_DOG_STATSD")
        tags = dogstatsd_tags(given)
        mogrifiers(given)
        if given.read("USE_STATSD"):
            given.leave("USE_DOG_STATSD is true", "USE_STATSD")
    else:
        given.leave("USE_DOG_STATSD is not true", MOGRIFIERS)
        if not given.read("USE_STATSD"):
            given.leave("USE_STATSD is not true", "STATSD_", "EXTRA_TAGS", "STATS_FLUSH_")
            return
        # It has no variable for the protocol of its own, but the library that it uses does.
        protocol = "udp" if given.environ.get("STATSD_PROTOCOL", "").lower() == "udp" else "tcp"
        given.put("EXTAUTH_STATSD", f"{protocol}://{address}", "STATSD_HOST", "STATSD_PORT", "USE_STATSD")
    interval_s = min(max(given.read("STATS_FLUSH_INTERVAL"), 0.1), 3600)
    given.put("EXTAUTH_STATSD_INTERVAL", _seconds(interval_s), "STATS_FLUSH_INTERVAL")
    if tags:
        given.put("EXTAUTH_STATSD_TAGS", ",".join(f"{name}:{value}" for name, value in tags.items()), "EXTRA_TAGS")


def _metrics(given: Given) -> None:
    if given.read("DISABLE_STATS"):
        statsd = ("USE_STATSD", "USE_DOG_STATSD", "STATSD_", "EXTRA_TAGS", "STATS_FLUSH_")
        given.leave("DISABLE_STATS is true", *statsd, "USE_PROM", "PROMETHEUS_")
        return
    _statsd(given)
    if not given.read("USE_PROMETHEUS"):
        given.leave("USE_PROMETHEUS is not true", "PROMETHEUS_")
    else:
        address = given.read("PROMETHEUS_ADDR")
        given.put("EXTAUTH_METRICS_LISTEN", f"[::]{address}" if address.startswith(":") else address, "PROMETHEUS_ADDR")
        given.put_if_set("EXTAUTH_METRICS_PATH", "PROMETHEUS_PATH")


def _pages(given: Given) -> None:
    """The pages for people are there only where just this host reaches them, unless they are asked for."""
    listen = given.environ.get("EXTAUTH_ADMIN_LISTEN") or given.ours["EXTAUTH_ADMIN_LISTEN"]
    given.put(f"{PREFIX}PAGE", _is_loopback(listen), "DEBUG_HOST")


def _is_loopback(listen: str) -> bool:
    try:
        host, _ = split_address(listen)
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int) -> str:
    """HOST:PORT, of all addresses where no host is given."""
    host = host.strip("[]")
    return f"[{host or '::'}]:{port}" if ":" in host or not host else f"{host}:{port}"


def _seconds(seconds: float) -> str:
    """Seconds as a decimal number: Python writes small ones with an exponent."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
