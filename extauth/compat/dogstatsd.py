"""What envoyproxy/ratelimit's variables of DogStatsD stand for."""

import json
from typing import Final

from extauth.compat.given import Given
from extauth.compat.go_values import read_map
from extauth.telemetry.statsd_settings import read_renamings

MOGRIFIERS: Final = "USE_DOG_STATSD_MOGRIFIERS"
_UNIFIED: Final = {
    "DD_ENTITY_ID": "dd.internal.entity_id",
    "DD_ENV": "env",
    "DD_SERVICE": "service",
    "DD_VERSION": "version",
}
"""Variables that Datadog's own client reads, and the tags that it makes of them."""

_RESERVED: Final = str.maketrans(".:|", "___")
_IN_PAIRS: Final = str.maketrans(":,|", "___")


def dogstatsd_tags(given: Given) -> dict[str, str]:
    """The tags of all metrics: those of EXTRA_TAGS, changed as there, and those of Datadog's own variables."""
    extra = {name: value.translate(_RESERVED) for name, value in sorted(given.read("EXTRA_TAGS").items())}
    unified = {
        tag: given.environ[name].translate(_IN_PAIRS) for name, tag in _UNIFIED.items() if given.environ.get(name)
    }
    return unified | extra


def mogrifiers(given: Given) -> None:
    """Put the setting for the patterns that give metrics other names and tags."""
    names = given.read(MOGRIFIERS)
    if not names.strip() or not given.wants("EXTAUTH_STATSD_RENAME"):
        return
    made = [each for name in names.split(",") if (each := _mogrifier(given, name)) is not None]
    given.put("EXTAUTH_STATSD_RENAME", json.dumps(made), MOGRIFIERS)


def _mogrifier(given: Given, name: str) -> dict[str, object] | None:
    """A part of the setting; None where it is refused."""
    prefix = f"DOG_STATSD_MOGRIFIER_{name.upper()}_"
    found = {part: given.environ.get(prefix + part, "") for part in ("PATTERN", "NAME", "TAGS")}
    absent = [prefix + part for part in ("PATTERN", "NAME") if not found[part]]
    if absent:
        given.refuse(f"{MOGRIFIERS} names {name!r}, which needs {' and '.join(absent)}")
        return None
    try:
        tags = read_map(found["TAGS"])
    except ValueError as error:
        given.refuse(f"{prefix}TAGS={found['TAGS']!r} is not allowed; allowed: {error}")
        return None
    mogrifier: dict[str, object] = {"pattern": found["PATTERN"], "name": found["NAME"], "tags": tags}
    try:
        read_renamings(json.dumps([mogrifier]))
    except ValueError as error:
        _, _, reason = str(error).partition(": ")
        part = "TAGS" if ".tags" in str(error).partition(":")[0] else "PATTERN"
        given.refuse(f"{prefix}{part}={found[part]!r} is not allowed: {reason}")
        return None
    return mogrifier
