"""Calls in JSON: what is read is a message that our own reader takes, and says what the JSON says."""

import json
from random import Random

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.rls.json_request import encode_json_request
from extauth.rls.request import decode_descriptor, split_request
from fuzz.target import Flip, Target, mutate_items

TOKENS = [b"{", b"}", b"[", b"]", b":", b",", b'"', b"null", b"1e9", b'"18446744073709551615"', b"\\ud83d", b"-0", b" "]


def check(data: bytes) -> None:
    """Refused with an InvalidRequestError, or read as Python reads the JSON."""
    try:
        message = encode_json_request(data)
    except InvalidRequestError:
        return
    read = json.loads(data)
    try:
        request = split_request(message)
    except RequestTooLargeError:
        assert len(read["descriptors"]) > 100
        return
    assert request.domain == (read.get("domain") or "")
    descriptors = read.get("descriptors") or []
    assert len(request.descriptors) == len(descriptors)
    for encoded, said in zip(request.descriptors, descriptors, strict=True):
        try:
            entries = decode_descriptor(encoded).entries
        except InvalidRequestError:  # a limit of an unknown unit, or too many entries
            continue
        expected = [(entry.get("key") or "", entry.get("value") or "") for entry in said.get("entries") or []]
        assert [tuple(entry) for entry in entries] == expected


def mutate(data: bytes, rng: Random, flip: Flip) -> bytes:
    """Change some of the tokens, which begin and end at JSON's signs."""
    parts = [part for part in data.replace(b",", b"\0,\0").replace(b":", b"\0:\0").split(b"\0") if part]
    mutate_items(parts, rng, flip, lambda: rng.choice(TOKENS))
    return b"".join(parts)


SEEDS = {
    "usual": b'{"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}], "hitsAddend": 1}',
    "all": b'{"domain":"d","descriptors":[{"entries":[{"key":"k"},{"value":"v"}],"limit":{"requests_per_unit":3,'
    b'"unit":"HOUR"},"hitsAddend":"5","isNegativeHits":true},{"hits_addend":0}],"hits_addend":4294967295}',
    "nulls": b'{"domain":null,"descriptors":[{"entries":null,"limit":null,"hitsAddend":null}]}',
    "escapes": b'{"domain":"\\ud83d\\ude00\\n","descriptors":[{"entries":[{"key":"\xc3\xbc","value":"\\"\\\\"}]}]}',
    "numbers": b'{"hitsAddend":1.0,"descriptors":[{"limit":{"requestsPerUnit":1e2,"unit":7}},{"hitsAddend":"1e3"}]}',
    "deep": b"[" * 200 + b"]" * 200,
}
TARGET = Target(SEEDS, check, mutate)
