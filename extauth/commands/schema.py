"""`extauth schema`."""

import json

import click

from extauth.commands import options

EXAMPLE = """\b
Example, at the top of a config file, for editors with a YAML language server:
  # yaml-language-server: $schema=../../extauth/rules/schema.json

Exit code: 0."""


@click.command(epilog=EXAMPLE)
@options.as_json
def schema(*, as_json: bool) -> None:
    """Print the JSON Schema of config files.

    It ships with the package, as extauth/rules/schema.json. It says which keys may be where; if tiers exist, patterns
    compile and no descriptor comes twice, only `extauth validate` knows. With --json it is on one line.
    """
    from extauth.config.json_schema import file_schema

    click.echo(json.dumps(file_schema(), indent=None if as_json else 2))
