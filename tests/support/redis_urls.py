"""What is said of a wrong EXTAUTH_REDIS_URL."""

import traceback

import pytest

from extauth.errors import SettingsError
from extauth.settings import read_settings

PASSWORD = "hush"


def assert_named(url: str, fault: str) -> None:
    """It is refused with this fault and with all forms that are allowed, and the password is shown nowhere."""
    with pytest.raises(SettingsError) as raised:
        read_settings({"EXTAUTH_REDIS_URL": url})
    said = str(raised.value)
    assert said.startswith(f"EXTAUTH_REDIS_URL=… is not allowed: {fault}")
    assert "; allowed: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], " in said
    assert "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/MASTER[/DB]" in said
    assert PASSWORD not in "".join(traceback.format_exception(raised.value)).rpartition("SettingsError")[2]


def said_of(url: str) -> str:
    """The message, if it is refused."""
    try:
        read_settings({"EXTAUTH_REDIS_URL": url})
    except SettingsError as error:
        return str(error)
    return ""
