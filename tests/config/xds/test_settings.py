"""The settings of an xDS server."""

from pathlib import Path

import pytest

from extauth.config.sources.xds_settings import XdsOptions, XdsServer
from extauth.errors import SettingsError
from extauth.settings import read_settings

SERVER = "xdss://h:1"


def settings(**given: str) -> dict[str, str]:
    return {f"EXTAUTH_{name}": value for name, value in given.items()}


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("xds://control-plane.example.org:18001", XdsServer("control-plane.example.org:18001")),
        ("xdss://127.0.0.1:1", XdsServer("127.0.0.1:1", tls=True)),
        ("xds://[2001:db8::1]:65535", XdsServer("[2001:db8::1]:65535")),
        ("xds://unix:/run/xds.sock", XdsServer("unix:/run/xds.sock")),
        ("rules/xds", Path("rules/xds")),
        ("/etc/xds:rules", Path("/etc/xds:rules")),
    ],
)
def test_what_rules_come_from(text: str, config: Path | XdsServer) -> None:
    found = read_settings({"EXTAUTH_CONFIG": text}).config
    assert found == config
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["xds://", "xds://h", "xds://h:0", "xds://h:65536", "xds://h:1/path", "xds://u@h:1", "xds://::1:1", "xdss://unix:"],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(SettingsError, match=r"EXTAUTH_CONFIG=.* is not allowed; allowed: .*xds://HOST:PORT"):
        read_settings({"EXTAUTH_CONFIG": text})


def test_who_asks_and_how() -> None:
    given = settings(
        CONFIG=SERVER,
        XDS_NODE_ID="me",
        XDS_NODE_METADATA="a=1, b = x=y ,",
        XDS_HEADERS="X-Token:a:b,y:",
        XDS_TLS_CA="/ca",
        XDS_TLS_CERT="/cert",
        XDS_TLS_KEY="/key",
        XDS_TLS_SAN="name",
        XDS_MAX_MESSAGE_BYTES="1024",
    )
    assert read_settings(given).xds_options() == XdsOptions(
        node_id="me",
        node_metadata={"a": "1", "b": "x=y"},
        headers={"x-token": "a:b", "y": ""},
        ca=Path("/ca"),
        cert=Path("/cert"),
        key=Path("/key"),
        san="name",
        max_message_bytes=1024,
    )


@pytest.mark.parametrize("headers", ["s3cret", "s3cret value:1", "grpc-timeout:s3cret", "x:s3cr\net", "x:s3crét"])
def test_headers_that_cannot_be_sent_are_refused_and_not_shown(headers: str) -> None:
    with pytest.raises(SettingsError, match="EXTAUTH_XDS_HEADERS=… is not allowed") as refused:
        read_settings(settings(CONFIG=SERVER, XDS_HEADERS=headers))
    assert "s3cr" not in str(refused.value)


def test_headers_are_not_shown() -> None:
    read = read_settings(settings(CONFIG=SERVER, XDS_HEADERS="x:s3cret"))
    assert "s3cret" not in repr(read) + repr(read.xds_options())


def test_keys_of_secret_values() -> None:
    assert read_settings(settings(CONFIG=SERVER)).xds_secret_keys == frozenset()
    read = read_settings(settings(CONFIG=SERVER, XDS_SECRET_KEYS="customer, rule-0-match-0"))
    assert read.xds_secret_keys == {"customer", "rule-0-match-0"}


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"CONFIG": SERVER, "XDS_SECRET_KEYS": "a,,b"}, "EXTAUTH_XDS_SECRET_KEYS='a,,b' is not allowed; allowed: KEY"),
        ({"CONFIG": "rules", "XDS_SECRET_KEYS": "a"}, "list the keys in each file's `secret`"),
        ({"CONFIG": SERVER, "XDS_TLS_CERT": "/c"}, "EXTAUTH_XDS_TLS_CERT and EXTAUTH_XDS_TLS_KEY go together"),
        ({"CONFIG": "xds://h:1", "XDS_TLS_CA": "/c"}, "EXTAUTH_XDS_TLS_CA needs TLS; set EXTAUTH_CONFIG=xdss://h:1"),
        ({"CONFIG": "xds://h:1", "XDS_TLS_SAN": "h"}, "EXTAUTH_XDS_TLS_SAN needs TLS"),
        ({"CONFIG_CACHE": "/cache"}, "EXTAUTH_CONFIG_CACHE is for rules from an xDS server"),
        ({"CONFIG": SERVER, "XDS_NODE_METADATA": "a"}, "EXTAUTH_XDS_NODE_METADATA='a' is not allowed"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, str], refusal: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(settings(**given))
    assert refusal in str(refused.value)


def test_commands_that_read_files_say_so() -> None:
    with pytest.raises(SettingsError, match="names an xDS server, and this command reads files; name some with"):
        read_settings(settings(CONFIG=SERVER)).config_path()
