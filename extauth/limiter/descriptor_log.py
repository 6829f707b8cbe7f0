"""What answers hold of a request for Envoy's access log, so that `extauth replay` can decide it again.

It is the entry `log` of the dynamic metadata: `{"domain": D, "descriptors": [{"entries": [ENTRY, …]}, …]}`. An entry is
`[key, value]` if the value is there as it is, else `[key, beginning, hash]`: the hash is that of `Masking.hashed`.
The beginning is null for secret values. `hits`, `limit` and `negative` are there where the request or the
descriptor had them. A request that is too large is `{"domain": D, "omitted": REASON}`.
"""

from typing import Any, Final

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import struct
from extauth.rls.request import Descriptor, Request, decode_descriptor
from extauth.rules.masking import NAMED_SO, Masking, SecretKeys
from extauth.rules.matcher import Matcher

LOG: Final = "log"
HASHED_SIGN: Final = "\0"
"""What the values that replay puts in place of hashed ones begin with: a value of a request that does is hashed too."""

MAX_CLEAR_BYTES = 256
MAX_LOGGED_BYTES = 16_384  # of a request's descriptors; Envoy may write them for each request


def encode_log(request: Request, matcher: Matcher) -> bytes:
    """The entry for the log, as a field of a google.protobuf.Struct; nothing for a malformed request."""
    try:
        return struct({LOG: describe_for_log(request, matcher)})
    except InvalidRequestError:  # the descriptors of an undefined domain were not read before
        return b""


def describe_for_log(request: Request, matcher: Matcher) -> dict[str, Any]:
    """The entry for the log as JSON's data; raises InvalidRequestError."""
    if sum(map(len, request.descriptors)) > MAX_LOGGED_BYTES:
        return {"domain": request.domain, "omitted": f"more than {MAX_LOGGED_BYTES} bytes"}
    rules = matcher.rules.domains.get(request.domain)
    secret = NAMED_SO if rules is None else rules.secret
    descriptors = [
        _describe(descriptor, secret, matcher.masking) for descriptor in map(decode_descriptor, request.descriptors)
    ]
    hits = {} if request.hits_addend == 1 else {"hits": request.hits_addend}
    return {"domain": request.domain, "descriptors": descriptors, **hits}


def _describe(descriptor: Descriptor, secret: SecretKeys, masking: Masking) -> dict[str, Any]:
    entries = [_entry(key, value, masking, secret=secret.covers(key, value)) for key, value in descriptor.entries]
    described: dict[str, Any] = {"entries": entries}
    if descriptor.limit is not None:
        described["limit"] = [descriptor.limit.requests_per_unit, str(descriptor.limit.unit)]
    if descriptor.hits_addend is not None:
        described["hits"] = descriptor.hits_addend
    if descriptor.is_negative_hits:
        described["negative"] = True
    return described


def _entry(key: str, value: str, masking: Masking, *, secret: bool) -> list[str | None]:
    if secret:
        return [key, None, masking.hashed(value)]
    encoded = value.encode("utf-8", "surrogateescape")
    shown = encoded[:MAX_CLEAR_BYTES].decode("utf-8", "ignore")
    if shown == value and not value.startswith(HASHED_SIGN):
        return [key, value]
    return [key, shown, masking.hashed(value)]
