"""How many processor cores this process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def usable_cores(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """The cores of the CPU affinity, or fewer where the quota of a control group is smaller; at least 1.

    A quota of a part of a core counts as a whole one. `groups` is where control groups are mounted, and `own` names
    those of this process (cgroups(7)); the groups above them bound it as well.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *map(ceil, _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of all groups in which this process is."""
    try:
        lines = own.read_text("ascii", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        # Inside a container the path may be one of the host, and the group itself is mounted at the root.
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root):
                yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):  # version 2: "QUOTA PERIOD", in microseconds, or "max PERIOD"
        quota, period = (group / "cpu.max").read_text("ascii").split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):  # version 1: the quota is -1 where there is none
        us = int((group / "cpu.cfs_quota_us").read_text("ascii"))
        if us > 0:
            yield us / int((group / "cpu.cfs_period_us").read_text("ascii"))
