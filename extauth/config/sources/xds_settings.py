"""Where rules come from when it is not files: an xDS server, as the settings name it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from extauth.address import split_address
from extauth.errors import SettingsError

_HEADER = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class XdsServer:
    """The address of an xDS server: HOST:PORT, [IPV6]:PORT or unix:PATH; `tls` says whether TLS is spoken there."""

    address: str
    tls: bool = False

    def __str__(self) -> str:
        return f"{'xdss' if self.tls else 'xds'}://{self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsOptions:
    """How an xDS server is asked, and who asks.

    `headers` go with the stream; they may hold secrets. `ca` are the CAs of the server, by default those of the system;
    its certificate must be for `san`, by default for the host that is connected to. `cert` and `key` are our own.
    """

    node_id: str = "default"
    node_metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    san: str = ""
    max_message_bytes: int = 33_554_432


def parse_config(value: object) -> object:
    """An XdsServer for `xds://…` and `xdss://…`; anything else is a path. Raises ValueError."""
    match = re.fullmatch(r"(xdss?)://(.*)", value) if isinstance(value, str) else None
    if match is None:
        return value
    address = match[2]
    if not re.fullmatch(r"unix:.+", address):
        if not re.fullmatch(r"(?:[^\[\]:/@?#\s]+|\[[0-9a-fA-F:.%\w]+\]):\d{1,5}", address):
            raise ValueError
        if not 0 < split_address(address)[1] < 65536:
            raise ValueError
    return XdsServer(address, tls=match[1] == "xdss")


def _pairs(text: str, between: str) -> dict[str, str]:
    """`k=v,k2=v2` as a dict; raises ValueError."""
    pairs = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition(between)
        if not sign or not name.strip():
            raise ValueError
        pairs[name.strip()] = value.strip()
    return pairs


def _entry_keys(value: str) -> frozenset[str]:
    """Keys, separated by commas; raises ValueError."""
    keys = frozenset(key.strip() for key in value.split(","))
    if "" in keys:
        raise ValueError
    return keys


def _node_metadata(value: str) -> str:
    _pairs(value, "=")
    return value


def _headers(value: SecretStr) -> SecretStr:
    """Raises ValueError, whose message does not contain the value."""
    for name, text in _pairs(value.get_secret_value(), ":").items():
        if not _HEADER.fullmatch(name.lower()) or name.lower().startswith("grpc-") or not _VALUE.fullmatch(text):
            raise ValueError
    return value


class XdsSettings(BaseModel):
    """The settings of an xDS server."""

    # Built when it is first used, which only the class of all settings is: what is built for a class takes a megabyte.
    model_config = ConfigDict(frozen=True, defer_build=True)

    config: Annotated[Path | XdsServer, BeforeValidator(parse_config)] = Field(
        Path("envoy/descriptors"),
        description="a folder of *.yaml files, or one file; or xds://HOST:PORT, xdss://HOST:PORT for TLS",
    )
    config_cache: Path | None = Field(None, description="a file, where EXTAUTH_CONFIG is xds://… or xdss://…")
    xds_node_id: str = Field("default", min_length=1, max_length=1000, description="any text, by which it is known")
    xds_node_metadata: Annotated[str, AfterValidator(_node_metadata)] = Field("", description="KEY=VALUE,KEY=VALUE,…")
    xds_headers: Annotated[SecretStr, AfterValidator(_headers)] = Field(
        SecretStr(""), description="NAME:VALUE,NAME:VALUE,… in printable ASCII; no name begins with grpc-"
    )
    xds_tls_ca: Path | None = Field(None, description="a PEM file: the CAs of the xDS server; needs xdss://")
    xds_tls_cert: Path | None = Field(None, description="a PEM file: our certificate and its chain; needs the key")
    xds_tls_key: Path | None = Field(None, description="a PEM file: the certificate's key; needs the certificate")
    xds_tls_san: str = Field("", description="the name in the xDS server's certificate; needs xdss://")
    xds_secret_keys: Annotated[frozenset[str], BeforeValidator(_entry_keys)] = Field(
        frozenset(), description="KEY,KEY,…: entry keys whose values are secret"
    )
    xds_max_message_bytes: int = Field(33_554_432, ge=1024, le=1_073_741_824, description="bytes, 1024 to 1073741824")

    def xds_options(self) -> XdsOptions:
        """How the server is asked."""
        headers = _pairs(self.xds_headers.get_secret_value(), ":")
        return XdsOptions(
            node_id=self.xds_node_id,
            node_metadata=_pairs(self.xds_node_metadata, "="),
            headers={name.lower(): value for name, value in headers.items()},
            ca=self.xds_tls_ca,
            cert=self.xds_tls_cert,
            key=self.xds_tls_key,
            san=self.xds_tls_san,
            max_message_bytes=self.xds_max_message_bytes,
        )

    def check_xds(self) -> None:
        """Raise SettingsError where settings do not go together."""
        if (self.xds_tls_cert is None) != (self.xds_tls_key is None):
            raise SettingsError("EXTAUTH_XDS_TLS_CERT and EXTAUTH_XDS_TLS_KEY go together; set both or neither")
        given = [name for name in ("ca", "cert", "key", "san") if getattr(self, f"xds_tls_{name}")]
        if isinstance(self.config, Path):
            if self.config_cache is not None:
                raise SettingsError("EXTAUTH_CONFIG_CACHE is for rules from an xDS server; set EXTAUTH_CONFIG=xds://…")
            if self.xds_secret_keys:
                raise SettingsError(
                    "EXTAUTH_XDS_SECRET_KEYS is for rules from an xDS server; list the keys in each file's `secret`"
                )
        elif given and not self.config.tls:
            raise SettingsError(
                f"EXTAUTH_XDS_TLS_{given[0].upper()} needs TLS; set EXTAUTH_CONFIG=xdss://{self.config.address}"
            )

    def config_path(self) -> Path:
        """The files; raises SettingsError where rules come from elsewhere."""
        if isinstance(self.config, Path):
            return self.config
        raise SettingsError(
            f"EXTAUTH_CONFIG={self.config} names an xDS server, and this command reads files; name some with --config"
        )
