"""Access logs as Envoy writes them, of requests that a test makes up."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from extauth.config.merge import load_rules
from extauth.limiter.descriptor_log import describe_for_log
from extauth.replay.report import instant
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry, split_request
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from tests.support.clock import NOON, SECOND

SECRET = "pepper"


def descriptor(text: str) -> Descriptor:
    """`key=value`, or several of them after commas."""
    return Descriptor(tuple(Entry(*entry.split("=", 1)) for entry in text.split(",")))


class Logger:
    """What extauth gives Envoy for its log under one config."""

    def __init__(self, config: str = "domain: d\ndescriptors: [{key: k}]", secret: str = SECRET) -> None:
        self._matcher = Matcher(load_rules({"logged.yaml": config}), Masking(secret))

    def asked(self, descriptors: Sequence[Descriptor], *, domain: str = "d", hits: int = 0) -> dict[str, Any]:
        return describe_for_log(split_request(encode_request(domain, descriptors, hits)), self._matcher)

    def line(self, at_s: float, *descriptors: str, denied: bool = False, domain: str = "d", hits: int = 0) -> str:
        """A line of a request that began so many seconds after noon."""
        return log_line(at_s, self.asked([descriptor(each) for each in descriptors], domain=domain, hits=hits), denied)


def log_line(at_s: float, asked: object, denied: bool = False, **more: object) -> str:
    flags, details = ("RL", "request_rate_limited") if denied else ("-", "via_upstream")
    fields = {"time": instant(NOON + round(at_s * SECOND)), "details": details, "flags": flags, "ratelimit": asked}
    return json.dumps(fields | more)


def text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
