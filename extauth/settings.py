"""The settings, from `EXTAUTH_*` environment variables."""

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from extauth.errors import SettingsError
from extauth.limiter.limiter import OnStoreFailure

PREFIX = "EXTAUTH_"
# Kubernetes sets these for a Service that is called extauth.
_KUBERNETES = re.compile(r"EXTAUTH(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\w+)?)|EXTAUTH_PORT")


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


def _address(value: str) -> str:
    """HOST:PORT, [IPV6]:PORT; the port 1 to 65535."""
    match = re.fullmatch(r"(?:[^\[\]:/\s]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})", value)
    if not match or not 0 < int(match[1]) < 65536:
        raise ValueError
    return value


def _address_or_socket(value: str) -> str:
    return value if re.fullmatch(r"unix:.+", value) else _address(value)


def _redis_url(value: SecretStr) -> SecretStr:
    """A user or password may hold no / @ : ? but as %2F, %40, %3A, %3F."""
    host = r"(?:[^/@:?#\[\]\s]+|\[[0-9a-fA-F:.%\w]+\])"
    url = rf"rediss?://(?:[^/@?#\s]*@)?{host}(?::(\d{{1,5}}))?(?:/\d*)?(?:\?\S*)?|unix:/[^?]+(?:\?\S*)?"
    match = re.fullmatch(url, value.get_secret_value())
    if not match or not 0 < int(match[1] or 1) < 65536:
        raise ValueError
    return value


class Settings(BaseModel):
    """All settings; a field's description says what is allowed."""

    model_config = ConfigDict(frozen=True)

    config: Path = Field(Path("envoy/descriptors"), description="a folder of *.yaml files, or one file")
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, or unix:///PATH[?db=DB]",
    )
    grpc_listen: Annotated[str, AfterValidator(_address_or_socket)] = Field(
        "127.0.0.1:8081", description="HOST:PORT, [IPV6]:PORT or unix:PATH"
    )
    admin_listen: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:6070", description="HOST:PORT or [IPV6]:PORT"
    )
    engine: Literal["grpcio"] = Field("grpcio", description="grpcio")
    on_store_failure: OnStoreFailure = Field(OnStoreFailure.ALLOW, description="allow, deny or error")
    redis_timeout: float = Field(0.1, gt=0, le=60, description="seconds, above 0 and at most 60")
    key_prefix: str = Field(
        "extauth", pattern=r"^[A-Za-z0-9:_.-]{1,64}$", description="1 to 64 letters, digits and : _ . -"
    )
    key_secret: SecretStr = Field(SecretStr(""), description="any text; every replica needs the same")
    drain_delay: float = Field(2, ge=0, le=300, description="seconds, 0 to 300")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: LogFormat = Field(LogFormat.CONSOLE, description="console or json")

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
        return Settings.model_validate(known)
    except ValidationError as error:
        lines = []
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            field = Settings.model_fields[name]
            shown = "…" if field.annotation is SecretStr else repr(given[name])
            lines.append(f"{PREFIX}{name.upper()}={shown} is not allowed; allowed: {field.description}")
        raise SettingsError("\n".join(lines)) from error


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each `EXTAUTH_*` variable that is no setting: it may be a misspelt one."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    warnings = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and not _KUBERNETES.fullmatch(name):
            near = difflib.get_close_matches(name, names, 1, 0.75)
            warnings.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return warnings
