"""A request as data: for dynamic metadata and for logs, with secret values masked."""

from collections.abc import Mapping, Sequence
from typing import Any

from extauth.limiter.descriptor_plan import RuleEffect
from extauth.limiter.plan import UNLIMITED_AT, RequestMetadata
from extauth.rls.request import Descriptor, Request, decode_descriptor
from extauth.rules.masking import NAMED_SO
from extauth.rules.matcher import Matcher


def request_metadata(
    described: Mapping[str, Any],
    effects: Sequence[RuleEffect],
    counters_of: Sequence[tuple[int, ...]],
    tier: str | None,
) -> RequestMetadata:
    """The metadata for a request's answers; `described` is the request as data."""
    applied = zip(effects, counters_of, strict=True)
    return RequestMetadata(
        described if tier is None else {**described, "tier": tier},
        tuple(each.metadata if own and own is not UNLIMITED_AT else None for each, own in applied),
    )


def describe_request(request: Request, matcher: Matcher) -> dict[str, Any]:
    """A request as JSON's data; raises InvalidRequestError."""
    rules, masking = matcher.rules.domains.get(request.domain), matcher.masking
    secret = NAMED_SO if rules is None else rules.secret
    descriptors = []
    for descriptor in map(decode_descriptor, request.descriptors):
        entries = (
            f"{key}={masking.mask(value) if secret.covers(key, value) else value}" for key, value in descriptor.entries
        )
        descriptors.append({"entries": list(entries), **_describe_numbers(descriptor)})
    hits = {} if request.hits_addend == 1 else {"hitsAddend": request.hits_addend}
    return {"domain": request.domain, "descriptors": descriptors, **hits}


def describe_entries(domain: str, descriptor: Descriptor, matcher: Matcher) -> str:
    """The entries of a descriptor of a known domain, `key=value, …`, in at most MAX_SHOWN_BYTES of UTF-8.

    Secret values are masked. Where all values of a wildcard share a counter, the wildcard stands for them.
    """
    entries, masking = descriptor.entries, matcher.masking
    secret = matcher.rules.domains[domain].secret
    match = None if descriptor.limit is not None else matcher.match(domain, entries)
    parts = []
    for i, (key, value) in enumerate(entries):
        shared, rule_key = (None, None) if match is None else (match.shared[i], match.path[i].key)
        shown = value if shared is None else shared
        parts.append(f"{key}={masking.show(shown, secret=secret.covers(key, shown, rule_key))}")
    return masking.shorten(", ".join(parts))


def _describe_numbers(descriptor: Descriptor) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if descriptor.limit is not None:
        told["limit"] = f"requests_per_unit:{descriptor.limit.requests_per_unit} unit:{descriptor.limit.unit.name}"
    if descriptor.hits_addend is not None:
        told["hitsAddend"] = descriptor.hits_addend
    return told
