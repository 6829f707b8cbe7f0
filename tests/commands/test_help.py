"""What `--help` says, and what it does not cost."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from extauth.cli import app

COMMANDS = ["serve", "validate", "explain", "check", "inspect", "reset", "hash", "schema", "conformance"]
HEAVY = ["grpc", "redis", "yaml", "h11", "watchfiles", "prometheus_client", "envoy_data_plane", "google.protobuf"]
RUN = CliRunner()


def test_the_commands_are_named() -> None:
    result = RUN.invoke(app, ["--help"])
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert not any(line.endswith("...") for line in listed)


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_each_has_an_example_and_says_its_exit_codes(command: str) -> None:
    result = RUN.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    for word in ("--json", "Example", "Exit code"):
        assert word in result.stdout
    assert f"extauth {command}" in result.stdout or command == "schema"


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from extauth.cli import app
app({arguments!r}, standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["explain"], ["validate"], ["check", "d"], ["nothing"], ["reset", "d", "k=1", "--no"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert RUN.invoke(app, arguments).exit_code == 2
