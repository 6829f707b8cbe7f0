"""What URLs of all kinds are made of: hosts, users and passwords, options. No message shows a value."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from extauth.errors import nearest

# Others of redis-py's would change how the connection reads or waits, which is not theirs to say.
URL_OPTIONS: Final = (
    "db",
    "username",
    "password",
    "client_name",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_min_version",
    "ssl_ciphers",
)
FILE_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
SENTINELS: Final = "sentinel_"
"""Begins the names of the options that are not the master's but the sentinels'."""
SENTINEL_OPTIONS: Final = tuple(
    [f"{SENTINELS}{name}" for name in ("ssl", *URL_OPTIONS) if name not in {"db", "client_name"}]
)
_SECRETS = {"username", "password", "ssl_password"}
_SECRET_OPTIONS = frozenset(_SECRETS | {SENTINELS + name for name in _SECRETS})
_BOOLEAN = (re.compile(r"[01tfyn]|true|false|yes|no", re.IGNORECASE), "true or false")
_VALUES = {
    "ssl": _BOOLEAN,
    "db": (re.compile(r"[0-9]{1,9}", re.ASCII), "a number"),
    "ssl_check_hostname": _BOOLEAN,
    "ssl_cert_reqs": (re.compile(r"none|optional|required"), "none, optional or required"),
    "ssl_min_version": (re.compile(r"769|77[0-2]"), "769 to 772, of which 771 is TLS 1.2"),
}
_ESCAPED = {char: f"%{ord(char):02X}" for char in "@/?#[]"}
HOST: Final = r"(?:[^/@:?#%\[\]\s,;]+|\[[0-9a-fA-F:.%\w]+\])"


def read_hosts(rest: str) -> tuple[str, list[str], str, str]:
    """What follows the scheme of a URL of several hosts in which there is no fault.

    That is the user and password with their @, each HOST[:PORT], what follows the /, and what follows the ?.
    """
    address, _, query = rest.partition("?")
    user, at, after = address.rpartition("@")
    authorities, _, path = after.partition("/")
    return user + at, authorities.split(","), path, query


def find_hosts(rest: str, path: str) -> tuple[str, list[str], str]:
    """What is wrong with the user and password of a URL of several hosts, each HOST[:PORT], and what follows them.

    `path` is the pattern of what may follow them before the ?.
    """
    address = rest.partition("?")[0]
    # Unless an address ends there, the ? is one of a password's, and the @ that counts comes after it.
    several = rf"{HOST}(?::[0-9]*)?(?:,{HOST}(?::[0-9]*)?)*"
    whole = address if re.fullmatch(rf"(?:[^/@#]*@)?{several}{path}", address) else rest
    before, at, after = whole.rpartition("@")
    authorities, slash, found = after.partition("?")[0].partition("/")
    return unescaped(before) if at else "", authorities.split(","), slash + found


def hosts_fault(authorities: Sequence[str], kind: str, none: str, example: str) -> str:
    """What is wrong with the hosts, each of which is a `kind`; `none` is said where there is not one."""
    for number, authority in enumerate(authorities, 1):
        if not authority or authority.startswith(":"):
            if len(authorities) == 1:
                return f"{none}, {example}"
            return f"{kind} number {number} has no host: write HOST:PORT of each with one comma between, {example}"
        if wrong := authority_fault(authority, f" of {kind} number {number}"):
            return wrong
    return ""


def authority_fault(authority: str, of: str = "") -> str:
    """What is wrong with HOST[:PORT], of which there is something; `of` names it, as in " of sentinel number 2"."""
    if authority.count(":") > 1 and "[" not in authority:
        return "an IPv6 address is written in brackets, as in redis://[::1]:6379"
    match = re.fullmatch(rf"{HOST}(?::(.*))?", authority)
    if not match:
        return f"the host{of} is no name and no address"
    if match[1] is not None and not (re.fullmatch("[0-9]{1,5}", match[1], re.ASCII) and 0 < int(match[1]) < 65536):
        return f"the port{of} must be 1 to 65535"
    return ""


def unescaped(user: str) -> str:
    """What a user and password must not hold as it is."""
    chars = [char for char in _ESCAPED if char in user]
    if not chars:
        return ""
    them = " and ".join(f"{char} as {_ESCAPED[char]}" for char in chars)
    return f"the user or password holds {' and '.join(chars)}: write {them}"


def options_fault(query: str, *, tls: bool, secure: str = "rediss", sentinel_tls: bool | None = None) -> str:
    """What is wrong with what follows the ?, as redis-py reads it; `secure` is the scheme with TLS.

    The options of sentinels are known where it is said whether these are reached over TLS.
    """
    known = URL_OPTIONS if sentinel_tls is None else (*URL_OPTIONS, *SENTINEL_OPTIONS)
    seen: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            return _unknown(name, query, known, after_secret=not seen.isdisjoint(_SECRET_OPTIONS))
        if not value:
            return f"the option {name} has no value"
        if name in seen:
            return f"the option {name} is given twice"
        seen.add(name)
        if wrong := _option_fault(name, value, tls=tls, secure=secure, sentinel_tls=sentinel_tls):
            return wrong
    return ""


def _option_fault(name: str, value: str, *, tls: bool, secure: str, sentinel_tls: bool | None) -> str:
    base = name.removeprefix(SENTINELS)
    if base != name and base.startswith("ssl_") and not sentinel_tls:
        return f"the option {name} is for sentinels with TLS: write sentinel_ssl=true, too"
    if name.startswith("ssl_") and not tls:
        return f"the option {name} is for {secure}:// alone"
    pattern, allowed = _VALUES.get(base, (None, ""))
    if pattern is not None and not pattern.fullmatch(value):
        return f"the option {name} must be {allowed}"
    return ""


def _unknown(name: str, query: str, known: Sequence[str], *, after_secret: bool) -> str:
    """An option's name may itself be what follows a ? or & in a password."""
    near = nearest(name, known)
    others = f"did you mean {near}?" if near else "the options are " + ", ".join(known)
    if "@" in query:
        return "an option after the ? is unknown; if it is part of a password, write ? as %3F and @ as %40"
    if after_secret:
        return "an option after the ? is unknown; if it is part of a password, write & as %26"
    if not re.fullmatch(r"[A-Za-z_-]{1,40}", name) or f"{name}=" not in query:
        return f"an option after the ? is unknown; {others}"
    return f"the option {name} is unknown; {others}"
