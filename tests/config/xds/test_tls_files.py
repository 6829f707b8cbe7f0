"""What is wrong with the files of TLS is said in words, and tried again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extauth.config.sources.xds_settings import XdsOptions, XdsServer
from tests.config.xds.fake_server import Reports, following
from tests.support.ports import free_port
from tests.support.wait import until_async
from tests.transport.test_tls import Authority


def options(folder: Path) -> XdsOptions:
    """Those of good files."""
    authority = Authority()
    key, chain = authority.issue("client")
    (folder / "ca").write_bytes(authority.pem)
    (folder / "key").write_bytes(key)
    (folder / "cert").write_bytes(chain)
    return XdsOptions(ca=folder / "ca", cert=folder / "cert", key=folder / "key")


def another_key(folder: Path) -> None:
    (folder / "key").write_bytes(Authority().issue("client")[0])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "ca").unlink(), "EXTAUTH_XDS_TLS_CA={}/ca cannot be read: No such file or directory"),
        (lambda folder: (folder / "ca").write_text("x"), "EXTAUTH_XDS_TLS_CA={}/ca holds no certificates in PEM"),
        (lambda folder: (folder / "key").unlink(), "EXTAUTH_XDS_TLS_KEY={}/key cannot be read"),
        (another_key, "EXTAUTH_XDS_TLS_CERT={}/cert and EXTAUTH_XDS_TLS_KEY={}/key are no certificate and key in PEM"),
        (lambda _: None, "UNAVAILABLE: "),  # nothing listens there
    ],
    ids=["no file", "no certificate", "no key", "another key", "good"],
)
async def test_files_that_cannot_be_used(tmp_path: Path, harm: Callable[[Path], object], reason: str) -> None:
    given = options(tmp_path)
    harm(tmp_path)
    reports = Reports()
    async with following(XdsServer(f"127.0.0.1:{free_port()}", tls=True), given, reports):
        await until_async(lambda: len(reports.named("away")) >= 2)
    assert reports.named("away")[0].startswith(reason.replace("{}", str(tmp_path)))
