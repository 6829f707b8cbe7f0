"""Where statsd is, what it gets, and under which names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from extauth.address import check_address
from extauth.rules.patterns import RegexError, compile_regex

_GROUP = re.compile(r"\$([0-9]{1,4})(?![0-9])")


class _Renaming(BaseModel, extra="forbid"):
    pattern: str = Field(min_length=1)
    name: str = Field(min_length=1)
    tags: dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]] = {}


_RENAMINGS = TypeAdapter(list[_Renaming])


@dataclass(frozen=True, slots=True)
class Renaming:
    """Another name, and tags, for the metrics whose names `pattern`, an RE2 regex, finds something in.

    In `name` and the values of `tags`, $1 stands for what the pattern's first group has found, and $0 for all of it.
    """

    pattern: Any
    name: str
    tags: Mapping[str, str]

    def apply(self, metric: bytes) -> tuple[str, list[tuple[str, str]]] | None:
        """The name and the tags of a metric; None where the pattern does not find anything."""
        found = self.pattern.search(metric)
        if found is None:
            return None
        groups = [(part or b"").decode("utf-8", "replace") for part in (found.group(0), *found.groups())]

        def expand(text: str) -> str:
            return _GROUP.sub(lambda at: groups[n] if (n := int(at[1])) < len(groups) else at[0], text)

        return expand(self.name), [(key, expand(value)) for key, value in self.tags.items()]


def read_renamings(text: str) -> tuple[Renaming, ...]:
    """Read `[{"pattern": REGEX, "name": NAME, "tags": {KEY: VALUE}}]`; raises ValueError, which says what is wrong."""
    try:
        given = _RENAMINGS.validate_json(text) if text else []
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else str(first["msg"])) from None
    renamings = []
    for number, each in enumerate(given):
        try:
            pattern = compile_regex(each.pattern)
        except RegexError as error:
            raise ValueError(f"[{number}].pattern: {error}") from None
        renamings.append(Renaming(pattern, each.name, each.tags))
    return tuple(renamings)


def _statsd(value: str | None) -> str | None:
    scheme, _, address = (value or "tcp://a:1").partition("://")
    if scheme not in {"tcp", "udp", "dogstatsd"} or not check_address(address):
        raise ValueError
    return value


def _rename(value: str) -> str:
    read_renamings(value)
    return value


class StatsdSettings(BaseModel):
    """The settings of statsd; a field's description says what is allowed."""

    model_config = ConfigDict(frozen=True)

    statsd: Annotated[str | None, AfterValidator(_statsd)] = Field(
        None, description="tcp://, udp:// or dogstatsd:// and HOST:PORT or [IPV6]:PORT, in compatible mode"
    )
    statsd_interval: float = Field(10, ge=0.1, le=3600, description="seconds, 0.1 to 3600")
    statsd_tags: str = Field("", pattern=r"^([^:,]+:[^:,]*(,|$))*$", description="NAME:VALUE,NAME:VALUE,…")
    statsd_rename: Annotated[str, AfterValidator(_rename)] = Field(
        "", description='JSON: [{"pattern": REGEX, "name": NAME, "tags": {NAME: VALUE}}], for dogstatsd://'
    )
