"""Options and arguments that several commands take, and what is read by them.

A command's module is imported to list and to complete commands. Pydantic, asyncio and what imports them is therefore
imported only while a command runs.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from extauth.settings import Settings

PATH = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
config = click.option(
    "--config",
    type=PATH,
    metavar="PATH",
    help="A folder of *.yaml files, or one file; by default EXTAUTH_CONFIG, then envoy/descriptors.",
)
merge_domains = click.option(
    "--merge-domains",
    is_flag=True,
    help="Several files may define one domain, as with EXTAUTH_MERGE_DOMAINS=true.",
)
domain_name = click.argument("domain", metavar="DOMAIN", help="The rate-limit filter's domain.")
descriptors = click.argument(
    "descriptors",
    nargs=-1,
    required=True,
    metavar="KEY=VALUE[,…]...",
    help="A descriptor an argument, its entries parted by commas; \\, is a comma in a value, \\\\ a backslash.",
)


class GivenRequest(NamedTuple):
    """A request of a command line, its descriptors as they were typed, and the config that plans it."""

    domain: str
    descriptors: tuple[str, ...]
    config: Path | None
    merge_domains: bool


def request(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command take a GivenRequest, as its first argument, from the options that make one up."""

    @wraps(command)
    def run(
        *, domain: str, descriptors: tuple[str, ...], config: Path | None, merge_domains: bool, **others: object
    ) -> None:
        command(GivenRequest(domain, descriptors, config, merge_domains), **others)

    return domain_name(descriptors(config(merge_domains(run))))


def settings_for(config: Path | None = None, *, merge: bool = False) -> "Settings":
    """The settings from EXTAUTH_* variables, over which options win; raises SettingsError."""
    from extauth.settings import read_settings

    settings = read_settings(os.environ)
    given: dict[str, Any] = {} if config is None else {"config": config}
    return settings.model_copy(update=given | ({"merge_domains": True} if merge else {}))
