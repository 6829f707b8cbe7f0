"""Environments that nobody meant: each is read or refused, in one line a refusal, and shows no secret."""

from hypothesis import given
from hypothesis import strategies as st

from extauth.compat.environment import translate
from extauth.compat.variables import VARIABLES, Kind
from extauth.errors import SettingsError
from extauth.settings import read_settings

SECRET = "hush-3f9a"
# What the system can hold in an environment.
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8") | st.just("\udcff"), max_size=20)
LIKELY = {
    Kind.TEXT: st.sampled_from(["", "h", "::1", "/x", "unix", "CLUSTER", "SENTINEL", "m,a:1,b:2", "GRPC_XDS_SOTW"]),
    Kind.BOOL: st.sampled_from(["true", "F", "1", "yes", ""]),
    Kind.INT: st.sampled_from(["0", "8081", "-1", "65536", "0x1F90", "tcp://10.0.0.1:80", "9" * 400]),
    Kind.FLOAT: st.sampled_from(["0.8", "-1", "1e400", "nan"]),
    Kind.DURATION: st.sampled_from(["0", "150us", "1h30m", "-1s", "10", "9999999h", "9" * 400 + "h"]),
    Kind.MAP: st.sampled_from(["", "a:b", "a:b,c:d", "a", "a:b:c", ","]),
}
SOME = st.lists(st.sampled_from(VARIABLES), max_size=10, unique=True)
ENVIRONMENTS = SOME.flatmap(
    lambda some: st.fixed_dictionaries({variable.name: LIKELY[variable.kind] | TEXT for variable in some})
)
URLS = st.sampled_from(
    [
        f"redis://:{SECRET}@h",
        f"redis://u:{SECRET}@h:x",
        f"u:{SECRET}@h",
        f"m,redis://{SECRET}@a,b:2",
        f"http://{SECRET}",
    ]
)


def told(environ: dict[str, str]) -> str:
    """All that is shown of an environment, read or refused."""
    try:
        found = translate(environ)
    except SettingsError as error:
        return str(error)
    assert found.variables.items() >= environ.items()
    settings = read_settings(found.variables)
    return str((found.understood, found.no_effect, found.overridden, settings, settings.shown_redis_url()))


@given(ENVIRONMENTS)
def test_an_environment_is_read_or_refused(environ: dict[str, str]) -> None:
    assert told(environ)


@given(ENVIRONMENTS, URLS, st.sampled_from(["SINGLE", "CLUSTER", "SENTINEL", "X"]), st.sampled_from(["tcp", "unix"]))
def test_no_password_is_shown(environ: dict[str, str], url: str, kind: str, socket_type: str) -> None:
    secret = dict.fromkeys(("REDIS_AUTH", "REDIS_SENTINEL_AUTH", "REDIS_PERSECOND_AUTH"), SECRET)
    environ |= {"REDIS_URL": url, "REDIS_TYPE": kind, "REDIS_SOCKET_TYPE": socket_type} | secret
    assert SECRET not in told(environ)
