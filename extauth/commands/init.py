"""`extauth init`."""

import shlex
from pathlib import Path

import click

from extauth.commands import options
from extauth.commands.output import failing, print_result
from extauth.errors import CommandError

EXAMPLE = """\b
Example:
  extauth init limits
  EXTAUTH_REDIS_URL=memory: EXTAUTH_CONFIG=limits/descriptors extauth serve
  envoy -c limits/envoy.yaml

Exit code: 0, or 2 where a file is there already or cannot be written."""

STARTER = Path(__file__).parent / "starter"
FILES = ("descriptors/api.yaml", "envoy.yaml")


@click.command(epilog=EXAMPLE)
@click.argument("folder", type=options.PATH, metavar="DIR", help="Where to write; it is made if it is not there.")
@options.as_json
def init(folder: Path, *, as_json: bool) -> None:
    """Write a config and an Envoy to start from.

    DIR/descriptors/api.yaml limits callers by API key or address. DIR/envoy.yaml is a minimal Envoy that asks extauth
    about every request, with an API of its own that says hello. No file is overwritten.
    """
    with failing(as_json=as_json):
        written = _write(folder)
        commands = [
            f"EXTAUTH_REDIS_URL=memory: EXTAUTH_CONFIG={shlex.quote(str(folder / 'descriptors'))} extauth serve",
            f"envoy -c {shlex.quote(str(folder / 'envoy.yaml'))}",
        ]
        lines = [
            *(f"wrote {path}" for path in written),
            "Now run these two, each in a terminal of its own:",
            *(f"  {command}" for command in commands),
            "Then each caller has five requests at once: curl -i http://127.0.0.1:10000/",
        ]
        print_result(lines, {"wrote": list(map(str, written)), "next": commands}, as_json=as_json)


def _write(folder: Path) -> list[Path]:
    """Write all files or, where one is there already, none; raises CommandError."""
    paths = [folder / name for name in FILES]
    for path in paths:
        if path.exists() or path.is_symlink():
            raise CommandError(
                f"{path} is there already, and nothing was written; name another folder, or move it away"
            )
    for name, path in zip(FILES, paths, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write((STARTER / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
    return paths
