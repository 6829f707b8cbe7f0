"""The settings, from `EXTAUTH_*` environment variables."""

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError

from extauth.address import check_address, split_address
from extauth.config.sources.xds_settings import XdsSettings
from extauth.counters.redis.endpoint import fault
from extauth.errors import SettingsError
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counter_names import SHARDS, SLOTS
from extauth.limiter.modes import GlobalModes
from extauth.rls.response import ResponseHeaders
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.statsd_settings import StatsdSettings

PREFIX = "EXTAUTH_"
# Kubernetes sets these for a Service that is called extauth.
_KUBERNETES = re.compile(r"EXTAUTH(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\w+)?)|EXTAUTH_PORT")


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


def _address_or_socket(value: str) -> str:
    return value if re.fullmatch(r"unix:.+", value) else check_address(value)


def _optional_address(value: str | None) -> str | None:
    return None if value is None else check_address(value)


def _reachable(value: str) -> str:
    """An address under which others find this host, and no wildcard to listen on."""
    host, _ = split_address(check_address(value))
    try:
        address = ip_address(host)
    except ValueError:
        if value.startswith("[") or "*" in host:
            raise
        return value  # a name
    if address.is_unspecified:
        raise ValueError
    return value


def _share(value: str | float) -> float | Literal["auto"]:
    """A number over 0 up to 1, or `auto`."""
    if isinstance(value, str) and value.lower() == "auto":
        return "auto"
    share = float(value)
    if not 0 < share <= 1:
        raise ValueError
    return share


def _workers(value: str | int) -> int | Literal["auto"]:
    """A number from 1 to 64, or `auto`."""
    if isinstance(value, str) and value.lower() == "auto":
        return "auto"
    workers = int(value)
    if not 1 <= workers <= 64:
        raise ValueError
    return workers


def _redis_url(value: SecretStr) -> SecretStr:
    """Raises ValueError, which says what is wrong without the value itself."""
    if wrong := fault(value.get_secret_value()):
        raise ValueError(wrong)
    return value


def _host_names(value: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    names = tuple(name.strip() for name in value.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", name) for name in names):
        raise ValueError
    return names


def _header_names(value: str) -> str:
    name = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110 §5.6.2
    if value.lower() in {"off", "on"}:
        return value.lower()
    if not re.fullmatch(rf"{name},{name},{name}", value):
        raise ValueError
    return value


def _response_headers(setting: str) -> ResponseHeaders | None:
    if setting == "off":
        return None
    return ResponseHeaders() if setting == "on" else ResponseHeaders(*setting.split(","))


class Settings(XdsSettings, StatsdSettings):
    """All settings; a field's description says what is allowed."""

    config_files: str = Field(
        "yaml",
        pattern="^(yaml|(all|visible)(:[^:]+)?)$",
        description="yaml, or with all or visible each file of the folder and below, :NAME for those that begin so",
    )
    start_without_rules: bool = Field(False, description="true or false")
    healthy_with_rules: bool = Field(False, description="true or false")
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, unix:///PATH[?db=DB], "
        "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/MASTER[/DB], rediss+sentinel://… for TLS, "
        "redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],…, rediss+cluster://… for TLS, "
        "or memory: to count in this process alone",
    )
    grpc_listen: Annotated[str, AfterValidator(_address_or_socket)] = Field(
        "127.0.0.1:8081", description="HOST:PORT, [IPV6]:PORT or unix:PATH"
    )
    admin_listen: Annotated[str, AfterValidator(check_address)] = Field(
        "127.0.0.1:6070", description="HOST:PORT or [IPV6]:PORT"
    )
    admin_hosts: Annotated[tuple[str, ...], BeforeValidator(_host_names)] = Field(
        (), description="host names without ports, separated by commas"
    )
    page: bool = Field(True, description="on or off")
    http_listen: Annotated[str | None, AfterValidator(_optional_address)] = Field(
        None, description="HOST:PORT or [IPV6]:PORT"
    )
    metrics_listen: Annotated[str | None, AfterValidator(_optional_address)] = Field(
        None, description="HOST:PORT or [IPV6]:PORT"
    )
    metrics_path: str = Field("/metrics", pattern=r"^/[!-~]*$", description="a path that begins with a /")
    compatible: bool = Field(False, description="true or false; `extauth ratelimit` sets it")
    grpc_tls_cert: Path | None = Field(None, description="a PEM file: the certificate and its chain; needs the key")
    grpc_tls_key: Path | None = Field(None, description="a PEM file: the certificate's key; needs the certificate")
    grpc_tls_client_ca: Path | None = Field(
        None, description="a PEM file: the CAs of clients, which must then show a certificate; needs the other two"
    )
    grpc_tls_client_san: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.:-]{1,253}$",
        description="a host name or an IP address, which clients' certificates must be for; needs the clients' CA",
    )
    merge_domains: bool = Field(False, description="true or false")
    shadow_mode: bool = Field(False, description="true or false")
    quota_mode: bool = Field(False, description="true or false")
    dynamic_metadata: bool = Field(False, description="true or false")
    log_descriptors: bool = Field(False, description="true or false")
    response_headers: Annotated[str, AfterValidator(_header_names)] = Field(
        "off", description="off, on, or three names: LIMIT,REMAINING,RESET"
    )
    keep_going: bool = Field(False, description="true or false")
    reflection: bool = Field(True, description="on or off")
    engine: Literal["h2", "grpcio"] = Field("h2", description="h2 or grpcio")
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = Field(
        1, description="processes, 1 to 64, or auto: as many as this process may use cores"
    )
    on_store_failure: OnStoreFailure = Field(OnStoreFailure.LOCAL, description="local, allow, deny or error")
    redis_timeout: float = Field(0.1, ge=0.001, le=60, description="seconds, 0.001 to 60")
    memory_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="bytes for the counters of memory:, 1048576 or more",
    )
    local_share: Annotated[float | Literal["auto"], BeforeValidator(_share)] = Field(
        1, description="a number over 0 up to 1, or auto"
    )
    replicas: int | None = Field(None, ge=1, le=10_000, description="replicas, 1 to 10000")
    local_bytes: int = Field(
        67_108_864,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="bytes for the counters of local counting, 1048576 or more",
    )
    advertise: Annotated[str | None, BeforeValidator(_reachable)] = Field(
        None, description="HOST:PORT or [IPV6]:PORT, which other replicas reach: no wildcard such as 0.0.0.0"
    )
    denial_cache: float = Field(1, ge=0, le=60, description="seconds, 0 (off) to 60")
    remember_denials: bool = Field(False, description="true or false")
    stop_at_limit: bool = Field(False, description="true or false")
    near_limit_ratio: float = Field(0.8, ge=0, le=1, description="0 to 1, such as 0.8 for 80 % of a limit")
    max_waiting: int = Field(20_000, ge=1, le=1_000_000, description="calls, 1 to 1000000")
    max_connections: int = Field(1024, ge=1, le=100_000, description="connections, 1 to 100000")
    max_connection_age: float = Field(0, ge=0, le=1_000_000, description="seconds, 0 (any age) to 1000000")
    max_connection_age_grace: float = Field(10, ge=0, le=3600, description="seconds, 0 to 3600")
    max_streams: int = Field(1024, ge=1, le=100_000, description="calls at a time on a connection, 1 to 100000")
    max_message_bytes: int = Field(4_194_304, ge=1024, le=4_194_304, description="bytes, 1024 to 4194304")
    max_header_bytes: int = Field(131_072, ge=1024, le=1_048_576, description="bytes, 1024 to 1048576")
    max_continuations: int = Field(128, ge=0, le=1024, description="frames, 0 to 1024")
    max_resets: int = Field(1000, ge=1, le=1_000_000, description="a second on a connection, 1 to 1000000")
    max_control_frames: int = Field(1000, ge=1, le=1_000_000, description="a second on a connection, 1 to 1000000")
    stall_timeout: float = Field(10, ge=0.1, le=600, description="seconds, 0.1 to 600")
    key_prefix: str = Field(
        "extauth", pattern=r"^[A-Za-z0-9:_.-]{1,64}$", description="1 to 64 letters, digits and : _ . -"
    )
    key_secret: SecretStr = Field(SecretStr(""), description="any text; every replica needs the same")
    shards: int = Field(SHARDS, ge=1, le=SLOTS, description=f"shards, 1 to {SLOTS}; every replica needs the same")
    drain_delay: float = Field(2, ge=0, le=300, description="seconds, 0 to 300")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: LogFormat = Field(LogFormat.CONSOLE, description="console or json")

    @property
    def counts_in_memory(self) -> bool:
        """Whether counters live in this process, and not in Redis."""
        return self.redis_url.get_secret_value() == "memory:"

    def limiter_options(self) -> LimiterOptions:
        """The settings that decide how requests are planned, decided and answered."""
        return LimiterOptions(
            key_prefix=self.key_prefix,
            key_secret=self.key_secret.get_secret_value(),
            shards=self.shards,
            modes=GlobalModes(
                shadow_mode=self.shadow_mode,
                quota_mode=self.quota_mode,
                metadata=self.dynamic_metadata,
                log_descriptors=self.log_descriptors,
                lenient_peeks=self.compatible,
                stop_at_limit=self.stop_at_limit,
            ),
            on_store_failure=self.on_store_failure,
            response_headers=_response_headers(self.response_headers),
        )

    def shown_redis_url(self) -> str:
        """The Redis URL without user, password and query, which may hold them too."""
        url = self.redis_url.get_secret_value().partition("?")[0]
        return re.sub(r"//.*@", "//***@", url)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the `EXTAUTH_*` variables; an empty one counts as unset. Raises SettingsError with a line a mistake."""
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value != ""
    }
    known = {name: value for name, value in given.items() if name in Settings.model_fields}
    for enumerated in ("log_level", "log_format", "engine", "on_store_failure"):
        if enumerated in known:
            known[enumerated] = known[enumerated].lower()
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        lines = []
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            field = Settings.model_fields[name]
            shown = "…" if field.annotation is SecretStr else repr(given[name])
            reason = str(detail.get("ctx", {}).get("error", "")) if name in {"redis_url", "statsd_rename"} else ""
            wrong = f"is not allowed: {reason}" if reason else "is not allowed"
            lines.append(f"{PREFIX}{name.upper()}={shown} {wrong}; allowed: {field.description}")
        raise SettingsError("\n".join(lines)) from None  # pydantic's error shows a password
    cert, key, client_ca = settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca
    if (cert is None) != (key is None) or (client_ca is not None and cert is None):
        raise SettingsError("EXTAUTH_GRPC_TLS_CERT and EXTAUTH_GRPC_TLS_KEY go together, and _CLIENT_CA needs both")
    if settings.grpc_tls_client_san is not None and (client_ca is None or settings.engine != "h2"):
        raise SettingsError("EXTAUTH_GRPC_TLS_CLIENT_SAN needs EXTAUTH_GRPC_TLS_CLIENT_CA, and EXTAUTH_ENGINE=h2")
    settings.check_xds()
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each `EXTAUTH_*` variable that is no setting: it may be a misspelt one."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    warnings = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and not _KUBERNETES.fullmatch(name):
            near = difflib.get_close_matches(name, names, 1, 0.75)
            warnings.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return warnings
