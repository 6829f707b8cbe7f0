"""The settings of envoyproxy/ratelimit: what each means here, or why it means nothing.

Compatible mode reads them (`environment.py`), docs/migrating.md prints them, and in normal mode those that would change
what is meant are named in the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from extauth.compat.go_values import read_bool, read_duration_s, read_float, read_int, read_map


class Kind(Enum):
    """The type of a variable: how its text is read, which raises ValueError with what would be right."""

    TEXT = "text"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DURATION = "duration"
    MAP = "map"

    def read(self, text: str) -> Any:  # noqa: ANN401 - one of the types above, a duration in seconds
        """The value of a text."""
        return _READERS[self](text)


_READERS: Final[Mapping[Kind, Callable[[str], Any]]] = {
    Kind.TEXT: str,
    Kind.BOOL: read_bool,
    Kind.INT: read_int,
    Kind.FLOAT: read_float,
    Kind.DURATION: read_duration_s,
    Kind.MAP: read_map,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A setting of envoyproxy/ratelimit; `default` is the text that it stands for where the variable is not set.

    `ours` is the setting here that has its place, empty where there is none, and `note` says more, or why.
    A `common` variable has a name that other programs use, too. A `secret` one is never shown.
    """

    name: str
    kind: Kind
    default: str
    ours: str
    note: str
    common: bool
    secret: bool


def _v(
    name: str, kind: Kind, default: str, ours: str, note: str = "", *, common: bool = False, secret: bool = False
) -> Variable:
    return Variable(name=name, kind=kind, default=default, ours=ours, note=note, common=common, secret=secret)


_T, _B, _I, _F, _D, _M = Kind.TEXT, Kind.BOOL, Kind.INT, Kind.FLOAT, Kind.DURATION, Kind.MAP
_ALL = "0.0.0.0"  # noqa: S104 - its default
_URL = "EXTAUTH_REDIS_URL"
_BATCHES = "calls are always batched, and the connection is shared"
_STARTS = "the service starts without Redis, and connects again by itself"
_ONE_STORE = "all limits of a request are checked in one Redis, atomically"
_NO_MEMCACHE = "counters are kept in Redis or Valkey"
_WITHOUT = "EXTAUTH_START_WITHOUT_RULES"
_BACKOFF = "a lost stream is opened again after half a second, then after up to 30"
_TRACES = "OpenTelemetry's own variables switch traces on, such as OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADERS = "EXTAUTH_RESPONSE_HEADERS"
_TLS = "EXTAUTH_GRPC_TLS_"

VARIABLES: Final = (
    # The ports.
    _v("HOST", _T, _ALL, "EXTAUTH_HTTP_LISTEN", "the host", common=True),
    _v("PORT", _I, "8080", "EXTAUTH_HTTP_LISTEN", "the port", common=True),
    _v("DEBUG_HOST", _T, _ALL, "EXTAUTH_ADMIN_LISTEN", "the host", common=True),
    _v("DEBUG_PORT", _I, "6070", "EXTAUTH_ADMIN_LISTEN", "the port", common=True),
    _v("GRPC_UDS", _T, "", "EXTAUTH_GRPC_LISTEN", "`unix:PATH`; it wins over host and port"),
    _v("GRPC_HOST", _T, _ALL, "EXTAUTH_GRPC_LISTEN", "the host"),
    _v("GRPC_PORT", _I, "8081", "EXTAUTH_GRPC_LISTEN", "the port"),
    _v("GRPC_MAX_CONNECTION_AGE", _D, "24h", "EXTAUTH_MAX_CONNECTION_AGE", "seconds without a unit"),
    _v("GRPC_MAX_CONNECTION_AGE_GRACE", _D, "1h", "EXTAUTH_MAX_CONNECTION_AGE_GRACE", "seconds without a unit"),
    _v(
        "GRPC_SERVER_USE_TLS", _B, "false", f"{_TLS}CERT", "`false` switches TLS off; here it is on where files are set"
    ),
    _v("GRPC_SERVER_TLS_CERT", _T, "", f"{_TLS}CERT"),
    _v("GRPC_SERVER_TLS_KEY", _T, "", f"{_TLS}KEY"),
    _v("GRPC_CLIENT_TLS_CACERT", _T, "", f"{_TLS}CLIENT_CA"),
    _v("GRPC_CLIENT_TLS_SAN", _T, "", f"{_TLS}CLIENT_SAN"),
    _v(
        "LOG_LEVEL", _T, "WARN", "EXTAUTH_LOG_LEVEL", "`panic` and `fatal` are `error`, `trace` is `debug`", common=True
    ),
    _v("LOG_FORMAT", _T, "text", "EXTAUTH_LOG_FORMAT", "`json`, or else `console`", common=True),
    # Where rules come from.
    _v("CONFIG_TYPE", _T, "FILE", "EXTAUTH_CONFIG", "`FILE`: a path; `GRPC_XDS_SOTW`: `xds://…`"),
    _v("FORCE_START_WITHOUT_INITIAL_CONFIG", _B, "false", _WITHOUT, "from files it starts in any case"),
    _v("CONFIG_GRPC_XDS_NODE_ID", _T, "default", "EXTAUTH_XDS_NODE_ID"),
    _v("CONFIG_GRPC_XDS_NODE_METADATA", _T, "", "EXTAUTH_XDS_NODE_METADATA"),
    _v("CONFIG_GRPC_XDS_SERVER_URL", _T, "localhost:18000", "EXTAUTH_CONFIG", "`xds://HOST:PORT`"),
    _v("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", _D, "3s", "", _BACKOFF),
    _v("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", _M, "", "EXTAUTH_XDS_HEADERS", secret=True),
    _v("CONFIG_GRPC_XDS_SERVER_USE_TLS", _B, "false", "EXTAUTH_CONFIG", "`xdss://HOST:PORT`"),
    _v("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", _T, "", "EXTAUTH_XDS_TLS_CERT"),
    _v("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", _T, "", "EXTAUTH_XDS_TLS_KEY"),
    _v("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", _T, "", "EXTAUTH_XDS_TLS_CA"),
    _v("CONFIG_GRPC_XDS_SERVER_TLS_SAN", _T, "", "EXTAUTH_XDS_TLS_SAN"),
    _v("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", _D, "10s", "", _BACKOFF),
    _v("XDS_CLIENT_BACKOFF_MAX_INTERVAL", _D, "60s", "", _BACKOFF),
    _v("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", _F, "0.5", "", _BACKOFF),
    _v("XDS_CLIENT_BACKOFF_JITTER", _B, "true", "", _BACKOFF),
    _v("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", _I, "0", "EXTAUTH_XDS_MAX_MESSAGE_BYTES"),
    # Metrics.
    _v("USE_DOG_STATSD", _B, "false", "EXTAUTH_STATSD", "`dogstatsd://HOST:PORT`, in place of statsd"),
    _v("USE_DOG_STATSD_MOGRIFIERS", _T, "", "EXTAUTH_STATSD_RENAME", "each by its `DOG_STATSD_MOGRIFIER_NAME_*`"),
    _v("USE_STATSD", _B, "true", "EXTAUTH_STATSD", "none where it is `false`"),
    _v("STATSD_HOST", _T, "localhost", "EXTAUTH_STATSD", "`tcp://HOST:PORT`: the host", common=True),
    _v("STATSD_PORT", _I, "8125", "EXTAUTH_STATSD", "the port; `udp://` with `STATSD_PROTOCOL=udp`", common=True),
    _v("EXTRA_TAGS", _M, "", "EXTAUTH_STATSD_TAGS", "in statsd's names; tags of DogStatsD", common=True),
    _v("STATS_FLUSH_INTERVAL", _D, "10s", "EXTAUTH_STATSD_INTERVAL", "seconds without a unit", common=True),
    _v("DISABLE_STATS", _B, "false", "EXTAUTH_STATSD", "`true`: neither statsd nor a port for Prometheus"),
    _v("USE_PROMETHEUS", _B, "false", "EXTAUTH_METRICS_LISTEN", "the admin port has `/metrics` anyway"),
    _v("PROMETHEUS_ADDR", _T, ":9090", "EXTAUTH_METRICS_LISTEN"),
    _v("PROMETHEUS_PATH", _T, "/metrics", "EXTAUTH_METRICS_PATH"),
    _v("PROMETHEUS_MAPPER_YAML", _T, "", "", "names and labels are those of the mapping that is built in there"),
    _v("PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS", _B, "false", "", "Prometheus' unit is the second"),
    # Files.
    _v("RUNTIME_ROOT", _T, "/srv/runtime_data/current", "EXTAUTH_CONFIG", "the first part of the path"),
    _v("RUNTIME_SUBDIRECTORY", _T, "", "EXTAUTH_CONFIG", "the second part"),
    _v("RUNTIME_APPDIRECTORY", _T, "config", "EXTAUTH_CONFIG", "the third part"),
    _v("RUNTIME_IGNOREDOTFILES", _B, "false", "EXTAUTH_CONFIG_FILES", "`all`, or `visible` where it is `true`"),
    _v(
        "RUNTIME_WATCH_ROOT",
        _B,
        "true",
        "EXTAUTH_CONFIG_FILES",
        "`true`: of the first two parts of the path, the files that begin with the third and a dot or slash. Edits and "
        "switched symlinks are seen either way",
    ),
    # Counting.
    _v("EXPIRATION_JITTER_MAX_SECONDS", _I, "300", "", "a counter expires when its window ends"),
    _v(
        "LOCAL_CACHE_SIZE_IN_BYTES",
        _I,
        "0",
        "EXTAUTH_REMEMBER_DENIALS",
        "`true` where it is above 0; the size is fixed",
    ),
    _v("NEAR_LIMIT_RATIO", _F, "0.8", "EXTAUTH_NEAR_LIMIT_RATIO"),
    _v("CACHE_KEY_PREFIX", _T, "", "EXTAUTH_KEY_PREFIX"),
    _v("BACKEND_TYPE", _T, "redis", _URL, "`memcache` is refused: counters are kept in Redis or Valkey"),
    _v("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", _B, "false", "EXTAUTH_STOP_AT_LIMIT"),
    _v("LIMIT_RESPONSE_HEADERS_ENABLED", _B, "false", _HEADERS, "`on`, or the three names"),
    _v("LIMIT_LIMIT_HEADER", _T, "RateLimit-Limit", _HEADERS, "the first name"),
    _v("LIMIT_REMAINING_HEADER", _T, "RateLimit-Remaining", _HEADERS, "the second name"),
    _v("LIMIT_RESET_HEADER", _T, "RateLimit-Reset", _HEADERS, "the third name"),
    _v("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", _B, "false", "EXTAUTH_HEALTHY_WITH_RULES"),
    # Redis.
    _v("REDIS_SOCKET_TYPE", _T, "unix", _URL, "`unix:///PATH` where it is `unix`"),
    _v("REDIS_TYPE", _T, "SINGLE", _URL, "`CLUSTER`: `redis+cluster://`; `SENTINEL`: `redis+sentinel://…/MASTER`"),
    _v("REDIS_URL", _T, "/var/run/nutcracker/ratelimit.sock", _URL, common=True, secret=True),
    _v("REDIS_POOL_SIZE", _I, "10", "", _BATCHES),
    _v("REDIS_AUTH", _T, "", _URL, "`USER:PASSWORD@` before the host", common=True, secret=True),
    _v("REDIS_TLS", _B, "false", _URL, "`rediss://`", common=True),
    _v("REDIS_TLS_CLIENT_CERT", _T, "", _URL, "`?ssl_certfile=FILE`"),
    _v("REDIS_TLS_CLIENT_KEY", _T, "", _URL, "`?ssl_keyfile=FILE`"),
    _v("REDIS_TLS_CACERT", _T, "", _URL, "`?ssl_ca_certs=FILE`"),
    _v("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", _B, "false", _URL, "`?ssl_check_hostname=false`"),
    _v("REDIS_PIPELINE_WINDOW", _D, "0", "", _BATCHES),
    _v("REDIS_PIPELINE_LIMIT", _I, "0", "", _BATCHES),
    _v("REDIS_CLUSTER_PIPELINE_PARALLELISM", _I, "1", "", _BATCHES),
    *(
        _v(f"REDIS_PERSECOND{name}", kind, default, "", _ONE_STORE, secret=name in {"_URL", "_AUTH", "_SENTINEL_AUTH"})
        for name, kind, default in (
            ("", _B, "false"),
            ("_SOCKET_TYPE", _T, "unix"),
            ("_TYPE", _T, "SINGLE"),
            ("_URL", _T, "/var/run/nutcracker/ratelimitpersecond.sock"),
            ("_POOL_SIZE", _I, "10"),
            ("_AUTH", _T, ""),
            ("_TLS", _B, "false"),
        )
    ),
    _v("REDIS_SENTINEL_AUTH", _T, "", _URL, "`?sentinel_username=USER&sentinel_password=PASSWORD`", secret=True),
    *(
        _v(f"REDIS_PERSECOND_{name}", kind, default, "", _ONE_STORE, secret=name == "SENTINEL_AUTH")
        for name, kind, default in (
            ("SENTINEL_AUTH", _T, ""),
            ("PIPELINE_WINDOW", _D, "0"),
            ("PIPELINE_LIMIT", _I, "0"),
            ("CLUSTER_PIPELINE_PARALLELISM", _I, "1"),
        )
    ),
    _v("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", _B, "false", "", "health does not depend on Redis"),
    _v(
        "REDIS_TIMEOUT",
        _D,
        "10s",
        "EXTAUTH_REDIS_TIMEOUT",
        "seconds without a unit; 0.1 where it is not set",
        common=True,
    ),
    _v("REDIS_PERSECOND_TIMEOUT", _D, "10s", "", _ONE_STORE),
    _v("REDIS_POOL_ON_EMPTY_BEHAVIOR", _T, "WAIT", "", _BATCHES),
    _v("REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR", _T, "WAIT", "", _ONE_STORE),
    _v("REDIS_STARTUP_INITIAL_INTERVAL", _D, "1s", "", _STARTS),
    _v("REDIS_STARTUP_MAX_INTERVAL", _D, "30s", "", _STARTS),
    _v("REDIS_STARTUP_MAX_ELAPSED_TIME", _D, "0", "", _STARTS),
    # Memcached.
    _v("MEMCACHE_HOST_PORT", _T, "", "", _NO_MEMCACHE),
    _v("MEMCACHE_MAX_IDLE_CONNS", _I, "2", "", _NO_MEMCACHE),
    _v("MEMCACHE_SRV", _T, "", "", _NO_MEMCACHE),
    _v("MEMCACHE_SRV_REFRESH", _D, "0", "", _NO_MEMCACHE),
    _v("MEMCACHE_TLS", _B, "false", "", _NO_MEMCACHE),
    _v("MEMCACHE_TLS_CLIENT_CERT", _T, "", "", _NO_MEMCACHE),
    _v("MEMCACHE_TLS_CLIENT_KEY", _T, "", "", _NO_MEMCACHE),
    _v("MEMCACHE_TLS_CACERT", _T, "", "", _NO_MEMCACHE),
    _v("MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION", _B, "false", "", _NO_MEMCACHE),
    # Modes and traces.
    _v("SHADOW_MODE", _B, "false", "EXTAUTH_SHADOW_MODE"),
    _v("QUOTA_MODE", _B, "false", "EXTAUTH_QUOTA_MODE"),
    _v("RESPONSE_DYNAMIC_METADATA", _B, "false", "EXTAUTH_DYNAMIC_METADATA"),
    _v("MERGE_DOMAIN_CONFIG", _B, "false", "EXTAUTH_MERGE_DOMAINS"),
    _v("TRACING_ENABLED", _B, "false", "", _TRACES),
    _v("TRACING_SERVICE_NAME", _T, "RateLimit", "", _TRACES),
    _v("TRACING_SERVICE_NAMESPACE", _T, "", "", _TRACES),
    _v("TRACING_SERVICE_INSTANCE_ID", _T, "", "", _TRACES),
    _v("TRACING_EXPORTER_PROTOCOL", _T, "http", "", _TRACES),
    _v("TRACING_SAMPLING_RATE", _F, "1", "", "which calls are traced is decided by Envoy"),
)

BY_NAME: Final[Mapping[str, Variable]] = {variable.name: variable for variable in VARIABLES}

_CHANGE_MUCH: Final = ("REDIS_URL", "REDIS_AUTH")
"""They may be anybody's, but without EXTAUTH_REDIS_URL the service would count in another Redis than was meant."""


def is_set(environ: Mapping[str, str], name: str) -> bool:
    """Whether the variable is set. Kubernetes sets GRPC_PORT=tcp://… for a Service that is called grpc: that is not."""
    value = environ.get(name, "")
    return value != "" and not (BY_NAME[name].kind is Kind.INT and value.startswith(("tcp://", "udp://", "sctp://")))


def reference_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable of envoyproxy/ratelimit that is set and would change what is meant.

    Those whose names others use are reported only beside one that is nobody else's.
    """
    found = [variable for variable in VARIABLES if variable.ours and is_set(environ, variable.name)]
    certain = any(not variable.common for variable in found)
    lost = not environ.get(_URL)
    return [
        f"{variable.name} is envoyproxy/ratelimit's; here it is {variable.ours}"
        for variable in sorted(found, key=lambda variable: variable.name)
        if certain or (lost and variable.name in _CHANGE_MUCH)
    ]
