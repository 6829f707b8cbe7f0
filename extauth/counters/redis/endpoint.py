"""What is wrong with a Redis URL, said without its password: no message shows a value, or what may be part of one."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

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
_SECRET_OPTIONS = frozenset({"username", "password", "ssl_password"})
_VALUES = {
    "db": (re.compile(r"[0-9]{1,9}", re.ASCII), "a number"),
    "ssl_check_hostname": (re.compile(r"[01tfyn]|true|false|yes|no", re.IGNORECASE), "true or false"),
    "ssl_cert_reqs": (re.compile(r"none|optional|required"), "none, optional or required"),
    "ssl_min_version": (re.compile(r"769|77[0-2]"), "769 to 772, of which 771 is TLS 1.2"),
}
_SEVERAL = "it names several hosts: give one, a name or address at which the master is"
_ESCAPED = {char: f"%{ord(char):02X}" for char in "@/?#[]"}
_HOST = r"(?:[^/@:?#%\[\]\s,;]+|\[[0-9a-fA-F:.%\w]+\])"


def fault(url: str) -> str:  # noqa: PLR0911 - a fault each
    """What is wrong with the URL and what would mend it; nothing where it will do. `memory:` names no Redis."""
    if url != url.strip():
        return "it begins or ends with white space, such as a line break: remove it"
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "it holds white space or a control character: write a space as %20"
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return "nothing may follow memory:" if rest else ""
    if scheme not in {"redis", "rediss", "unix"} or (scheme != "unix" and not rest.startswith("//")):
        return "it must begin with redis://, rediss:// or unix://, or be memory:"
    rest = rest.removeprefix("//")
    found = _socket_fault(rest) if scheme == "unix" else _host_fault(rest)
    if found:
        return found
    if "#" in rest:
        return "it holds a #: write it as %23"
    try:
        query = urlsplit(url).query
    except ValueError:
        return "the user or password holds a character that must be escaped: write all but letters and digits so"
    return _options_fault(query, tls=scheme == "rediss")


def _host_fault(rest: str) -> str:  # noqa: PLR0911 - a fault each
    """Of what follows `redis://`."""
    address = rest.partition("?")[0]
    # Unless an address ends there, the ? is one of a password's, and the @ that counts comes after it.
    whole = address if re.fullmatch(rf"(?:[^/@#]*@)?{_HOST}(?::[0-9]*)?(?:/[0-9]*)?", address) else rest
    before, at, after = whole.rpartition("@")
    if re.search("@[^@,;]+:[0-9]+[,;]", before):
        return _SEVERAL
    if at and (escape := _unescaped(before)):
        return escape
    authority, slash, db = after.partition("?")[0].partition("/")
    if re.search("[,;]", authority):
        return _SEVERAL
    if not authority or authority.startswith(":"):
        return "it names no host" + ("" if at else "; a user and password end in an @ before it")
    if authority.count(":") > 1 and "[" not in authority:
        return "an IPv6 address stands in brackets, as in redis://[::1]:6379"
    match = re.fullmatch(rf"{_HOST}(?::(.*))?", authority)
    if not match:
        return "the host is no name and no address"
    if match[1] is not None and not (re.fullmatch("[0-9]{1,5}", match[1], re.ASCII) and 0 < int(match[1]) < 65536):
        return "the port must be 1 to 65535" + ("" if at else ", and a user and password end in an @")
    return (
        "after the host may come only /DB, a number" if slash and not re.fullmatch("[0-9]{0,9}", db, re.ASCII) else ""
    )


def _socket_fault(rest: str) -> str:
    """Of what follows `unix:` or `unix://`."""
    path = rest.partition("?")[0]
    if not path.startswith("/"):
        before, at, path = rest.rpartition("@")
        if at and (escape := _unescaped(before)):
            return escape
        path = path.partition("?")[0]
    return (
        "" if re.fullmatch("/[^/].*", path) else "the socket's path must begin with a /, as in unix:///run/redis.sock"
    )


def _unescaped(user: str) -> str:
    """What a user and password must not hold as it is."""
    chars = [char for char in _ESCAPED if char in user]
    if not chars:
        return ""
    them = " and ".join(f"{char} as {_ESCAPED[char]}" for char in chars)
    return f"the user or password holds {' and '.join(chars)}: write {them}"


def _options_fault(query: str, *, tls: bool) -> str:
    """Of what follows the ?, as redis-py reads it."""
    seen: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in URL_OPTIONS:
            return _unknown(name, query, after_secret=not seen.isdisjoint(_SECRET_OPTIONS))
        if not value:
            return f"the option {name} has no value"
        if name in seen:
            return f"the option {name} stands there twice"
        seen.add(name)
        if name.startswith("ssl_") and not tls:
            return f"the option {name} is for rediss:// alone"
        pattern, allowed = _VALUES.get(name, (None, ""))
        if pattern is not None and not pattern.fullmatch(value):
            return f"the option {name} must be {allowed}"
    return ""


def _unknown(name: str, query: str, *, after_secret: bool) -> str:
    """An option's name may itself be what follows a ? or & in a password."""
    near = nearest(name, URL_OPTIONS)
    known = f"did you mean {near}?" if near else "the options are " + ", ".join(URL_OPTIONS)
    if "@" in query:
        return "an option after the ? is unknown; if it is part of a password, write ? as %3F and @ as %40"
    if after_secret:
        return "an option after the ? is unknown; if it is part of a password, write & as %26"
    if not re.fullmatch(r"[A-Za-z_-]{1,40}", name) or f"{name}=" not in query:
        return f"an option after the ? is unknown; {known}"
    return f"the option {name} is unknown; {known}"
