"""What `--help` says, and what it does not cost."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from extauth.cli import app
from extauth.settings import Settings

COMMANDS = [
    "serve",
    "ratelimit",
    "init",
    "validate",
    "explain",
    "replay",
    "check",
    "inspect",
    "reset",
    "top",
    "hash",
    "schema",
    "conformance",
]
HEAVY = ["asyncio", "pydantic", "rich", "grpc", "redis", "yaml", "h11", "watchfiles", "prometheus_client"]
HEAVY += ["envoy_data_plane", "google.protobuf"]
RUN = CliRunner()


def test_the_commands_are_named() -> None:
    result = RUN.invoke(app, ["--help"])
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert not any(line.endswith("...") for line in listed)


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_each_has_an_example_and_says_its_exit_codes(command: str) -> None:
    result = RUN.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    for word in ("--json", "Example", "Exit code"):
        assert word in result.stdout
    assert f"extauth {command}" in result.stdout or command == "schema"


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_a_service_says_its_exit_codes(command: str) -> None:
    result = RUN.invoke(app, [command, "--help"])
    assert "Exit code: 0 ended by SIGTERM or SIGINT, 1 it cannot start" in result.stdout


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that writes to standard error which heavy modules it has imported."""
    code = f"""
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))
from extauth.cli import main
main()
"""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "COLUMNS": "100"} | environ,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    imported = ast.literal_eval(run(*arguments).stderr)
    assert imported == [] or (arguments[0] == "serve" and "grpc" not in imported)


def test_serve_help_lists_the_settings() -> None:
    told = run("serve", "-h").stdout
    assert "EXTAUTH_REDIS_TIMEOUT: seconds, 0.001 to 60 (default: 0.1)\n" in told
    assert told.count("\n  EXTAUTH_") == len(Settings.model_fields)


def test_the_version() -> None:
    assert run("--version").stdout == f"extauth {version('extauth')}\n"


@pytest.mark.parametrize("command", [[], ["explain"], ["serve"]], ids=str)
def test_dash_h_is_help(command: list[str]) -> None:
    assert run(*command, "-h").stdout == run(*command, "--help").stdout


COMPLETIONS = [
    ("extauth ex", "ex", {"explain"}),
    ("extauth in", "in", {"init", "inspect"}),
    ("extauth ", "", set(COMMANDS)),
    ("extauth check --tls-", "--tls-", {"--tls-ca", "--tls-cert", "--tls-key", "--tls-name"}),
    ("extauth explain --c", "--c", {"--config"}),
]


@pytest.mark.parametrize(("line", "word", "expected"), COMPLETIONS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, line: str, word: str, expected: set[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")) if shell != "fish" else word}
    ran = run(_EXTAUTH_COMPLETE=f"{shell}_complete", **words)
    # A candidate is `plain,NAME` in bash, the lines `plain`, NAME and HELP in zsh, `plain,NAME<tab>HELP` in fish.
    names = re.findall(r"(?:^|[,\n\t])([a-z]+|--[a-z-]+)(?=[\t\n,]|$)", ran.stdout)
    assert set(names) - {"plain"} == expected, ran.stdout
    assert ran.stderr == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    script = run(_EXTAUTH_COMPLETE=f"{shell}_source").stdout
    assert "_EXTAUTH_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    "arguments", [["explain"], ["validate"], ["check", "d"], ["nothing"], ["reset", "top", "d", "k=1", "--no"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert RUN.invoke(app, arguments).exit_code == 2
