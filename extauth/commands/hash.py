"""`extauth hash`."""

import sys
from getpass import getpass
from hashlib import sha256

import click

from extauth.commands import options
from extauth.commands.output import failing, print_json
from extauth.errors import CommandError

EXAMPLE = """\b
Example:
  printf %s "$API_KEY" | extauth hash
  value_sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae

Exit code: 0, or 2 where there is no key."""


# Not click's own refusals, which would show what they refuse.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


@click.command("hash", epilog=EXAMPLE, context_settings=CONTEXT)
@options.as_json
@click.pass_context
def hash_key(context: click.Context, *, as_json: bool) -> None:
    """Turn an API key on standard input into its value_sha256.

    It prints a line for the config: with `value_sha256` in place of `value`, the file matches the key without holding
    it. One line break at the end is no part of the key. At a terminal, the key is asked for and not shown. Take random
    keys: a short or guessable one can be found from its digest.
    """
    with failing(as_json=as_json):
        if context.args:
            message = "hash takes no arguments: a key there would be in the shell's history and in the process list"
            raise CommandError(f"{message}; pipe it in")
        key = _read_key()
        if not key:
            raise CommandError('there is no key on standard input; pipe one in: printf %s "$API_KEY" | extauth hash')
        if key != key.strip() or b"\n" in key:
            click.echo("extauth: warning: the key holds blanks or line breaks that no header's value has", err=True)
        digest = sha256(key).hexdigest()
        if as_json:
            print_json({"value_sha256": digest})
        else:
            click.echo(f"value_sha256: {digest}")


def _read_key() -> bytes:
    if sys.stdin.isatty():
        try:
            return getpass("API key: ").encode("utf-8", "surrogateescape")
        except EOFError:
            return b""
    key = sys.stdin.buffer.read()
    return key.removesuffix(b"\r\n") if key.endswith(b"\r\n") else key.removesuffix(b"\n")
