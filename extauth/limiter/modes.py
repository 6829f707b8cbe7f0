"""Which limits of a request may deny it."""

from collections.abc import Sequence
from typing import NamedTuple

from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.descriptor_plan import RuleEffect
from extauth.rules.model import Limit


class GlobalModes(NamedTuple):
    """Modes of all requests.

    `shadow_mode`: nothing is denied. `quota_mode`: all limits are quotas. `metadata`: answers carry dynamic metadata.
    `log_descriptors`: they carry, in it, what `descriptor_log` describes. Of limits that envoyproxy/ratelimit has, too,
    `lenient_peeks`: a check that costs nothing is `lenient`; `stop_at_limit`: one that counts denied hits `stops`.
    LimitCheck describes both.
    """

    shadow_mode: bool = False
    quota_mode: bool = False
    metadata: bool = False
    log_descriptors: bool = False
    lenient_peeks: bool = False
    stop_at_limit: bool = False

    def check(self, limit: Limit, cost: int, mode: Mode) -> LimitCheck:
        """The check of a limit by these modes."""
        if not limit.algorithm.in_reference:
            return LimitCheck(limit, cost, mode)
        stops = self.stop_at_limit and limit.count_denied
        return LimitCheck(limit, cost, mode, stops, self.lenient_peeks and not cost)


NO_MODES = GlobalModes()
_ENFORCED = (Mode.ENFORCED,) * 8


def modes_of(effects: Sequence[RuleEffect], replaced: frozenset[str], modes: GlobalModes) -> Sequence[Mode]:
    """The mode of each descriptor's limits. A quota that always passes keeps the others from ever denying."""
    everywhere = modes.quota_mode
    if not everywhere and not modes.shadow_mode:
        for effect in effects:
            if effect.shadow_mode or effect.quota_mode:
                break
        else:
            return _ENFORCED[: len(effects)] if len(effects) <= len(_ENFORCED) else [Mode.ENFORCED] * len(effects)
    passes = False
    found = []
    for effect in effects:
        applies = any(not limit.unlimited and not (limit.name and limit.name in replaced) for limit in effect.limits)
        quota = everywhere or (effect.quota_mode and applies)
        if effect.limits and effect.limits[0].unlimited:
            quota = False
        passes = passes or (quota and (effect.shadow_mode or not applies))
        if modes.shadow_mode:
            found.append(Mode.SHADOW if effect.shadow_mode else Mode.REPORT_ONLY)
        elif effect.shadow_mode:
            found.append(Mode.SHADOW)
        else:
            found.append(Mode.QUOTA if quota else Mode.ENFORCED)
    return [Mode.REPORT_ONLY if mode is Mode.QUOTA and passes else mode for mode in found]
