"""The hostile clients, each in a process of its own: `python -m adversary.attacks NAME EDGE REPLICA ADMIN SECONDS`.

EDGE is Envoy's port, REPLICA that of an extauth's gRPC listener and ADMIN that of its admin listener, on 127.0.0.1. A
client ends after SECONDS and prints a JSON object of what it did: `sent`, `errors`, `answered`, and `passed`, the
requests or calls of its own, used-up caller that got another answer than a denial. The answers to direct calls are
judged too, except where the failure policy may give them, or where what is sent is no call.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adversary import costly, direct, through_envoy
from adversary.wire import Target


@dataclass(frozen=True)
class Attack:
    """A hostile client; `wide`: for an Envoy with Envoy's own defaults and tracing, not for the one as shipped.

    With `judged` its calls must be answered: where none of them is, all of them passed.
    """

    run: Callable[[Target], Awaitable[None]]
    wide: bool = False
    judged: bool = True


ATTACKS = {
    "flood": Attack(through_envoy.flood),
    "two_keys": Attack(through_envoy.two_keys),
    "resets_5k": Attack(through_envoy.resets(10), judged=False),
    "resets_20k": Attack(through_envoy.resets(40), judged=False),
    "resets_100k": Attack(through_envoy.resets(200), judged=False),
    "direct_resets": Attack(direct.resets, judged=False),
    "control_frames": Attack(direct.control_frames),
    "slow_bodies": Attack(direct.slow_bodies, judged=False),  # they are answered later than a short run lasts
    "dripping": Attack(direct.dripping),
    "large_messages": Attack(direct.large_messages),
    "swelling": Attack(direct.swelling),
    "descriptors": Attack(direct.descriptors),
    "slow_headers": Attack(direct.slow_headers, judged=False),
    "long_headers": Attack(direct.long_headers),
    "endless_headers": Attack(direct.endless_headers, judged=False),
    "impatient": Attack(direct.impatient, judged=False),
    "malformed": Attack(direct.malformed, judged=False),
    "call_flood": Attack(direct.call_flood, judged=False),
    "made_up_keys": Attack(costly.made_up_keys),
    "made_up_names": Attack(costly.made_up_names),
    "wide_calls": Attack(costly.wide_calls),
    "deep_calls": Attack(costly.deep_calls),
    "unique_blocks": Attack(costly.unique_blocks),
    "health_checks": Attack(costly.health_checks, judged=False),
    "http1_text": Attack(costly.http1_text, judged=False),
    "idle": Attack(costly.idle, judged=False),
    "scrapes": Attack(costly.scrapes, judged=False),
    "tracestate_16k": Attack(through_envoy.tracestate(16_000), wide=True),
    "tracestate_55k": Attack(through_envoy.tracestate(55_000), wide=True),
    "white_space": Attack(through_envoy.white_space, wide=True),
    "many_headers": Attack(through_envoy.many_headers, wide=True),
    "long_path": Attack(through_envoy.long_path, wide=True),
}


async def main() -> None:
    """Run one."""
    name, edge, replica, admin, seconds = sys.argv[1:]
    target = Target(int(edge), int(replica), int(admin), float(seconds))
    async with asyncio.timeout(target.seconds + 20):
        await ATTACKS[name].run(target)
    if ATTACKS[name].judged and not target.answered:
        target.passed += target.sent  # Envoy lets a request through whose call gets no answer
    told = {"sent": target.sent, "answered": target.answered, "passed": target.passed, "errors": target.errors}
    print(json.dumps(told))


if __name__ == "__main__":
    os.nice(5)  # a client elsewhere takes no time from the stack
    asyncio.run(main())
