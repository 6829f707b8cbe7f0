"""The table of envoyproxy/ratelimit's variables, and the warnings and the page that are made of it."""

import pytest

from extauth.compat.variables import VARIABLES, Variable, reference_variables
from extauth.settings import Settings
from scripts.variables_table import PAGE, with_table

SETTINGS = {f"EXTAUTH_{name.upper()}" for name in Settings.model_fields}


def test_there_is_a_line_for_each_setting_of_the_reference() -> None:
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES) == 114


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_each_says_what_it_means_here_or_why_nothing(variable: Variable) -> None:
    assert variable.ours in SETTINGS if variable.ours else variable.note
    assert variable.default == "" or variable.kind.read(variable.default) is not None


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run `python -m scripts.variables_table`"


def test_in_normal_mode_they_are_named_without_their_values() -> None:
    environ = {"SHADOW_MODE": "true", "RUNTIME_ROOT": "/hush", "GRPC_PORT": "8081", "QUOTA_MODE": "", "PATH": "/bin"}
    assert reference_variables(environ) == [
        "GRPC_PORT is envoyproxy/ratelimit's; here it is EXTAUTH_GRPC_LISTEN",
        "RUNTIME_ROOT is envoyproxy/ratelimit's; here it is EXTAUTH_CONFIG",
        "SHADOW_MODE is envoyproxy/ratelimit's; here it is EXTAUTH_SHADOW_MODE",
    ]


OTHERS = {"LOG_LEVEL": "x", "PORT": "80", "HOST": "h", "REDIS_URL": "redis://:hush@h", "GRPC_PORT": "tcp://10.0.0.1:80"}
REDIS_URL = "REDIS_URL is envoyproxy/ratelimit's; here it is EXTAUTH_REDIS_URL"


@pytest.mark.parametrize(
    ("environ", "warnings"),
    [
        (OTHERS | {"EXTAUTH_REDIS_URL": "redis://h"}, []),
        ({"LOG_LEVEL": "x", "PORT": "80"}, []),
        (OTHERS, [REDIS_URL]),
        (
            {"REDIS_URL": "h:1", "EXTAUTH_REDIS_URL": "redis://h", "REDIS_TYPE": "CLUSTER"},
            ["REDIS_TYPE is envoyproxy/ratelimit's; here it is EXTAUTH_REDIS_URL", REDIS_URL],
        ),
        ({"CONFIG_TYPE": "GRPC_XDS_SOTW"}, ["CONFIG_TYPE is envoyproxy/ratelimit's; here it is EXTAUTH_CONFIG"]),
    ],
    ids=["others' alone", "no Redis", "where it would count elsewhere", "beside one that is nobody else's", "xDS"],
)
def test_those_that_others_use_too_are_named_where_they_would_change_what_is_meant(
    environ: dict[str, str], warnings: list[str]
) -> None:
    assert reference_variables(environ) == warnings
