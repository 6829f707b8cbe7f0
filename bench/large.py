"""What many rules take: memory at rest and at reloads, and the longest turn of the event loop at each.

`python -m bench.large [RULES [RELOADS]]`. Each shape of config is measured in a process of its own.
"""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.engines import free_ports
from extauth.app import Service
from extauth.lifecycle import tune_python
from extauth.settings import Settings

SHAPES = {"one domain, a limit each": 1, "1,000 domains": 1000}


class Memory(NamedTuple):
    """Resident memory in MB: now, and the highest since the process began or `forget_peak` was called."""

    now: float
    peak: float


class MeasuredLoop(asyncio.SelectorEventLoop):
    """An event loop that knows the CPU seconds of its longest turn."""

    longest_s = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]  # as asyncio.BaseEventLoop names it
        self.longest_s = max(self.longest_s, time.thread_time() - began)


def memory() -> Memory:
    """The memory of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Memory(*(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))


def forget_peak() -> None:
    """Begin anew to look for the highest memory."""
    Path("/proc/self/clear_refs").write_text("5")


def write_rules(folder: Path, rules: int, domains: int, requests: int) -> None:
    """Write a file a domain; each rule has a value and a limit of its own, at least `requests` a minute."""
    each = rules // domains
    for number in range(domains):
        lines = "".join(
            f"  - {{key: api_key, value: key-{i:08d}-abcdef, rate_limit: "
            f"{{unit: minute, requests_per_unit: {requests + i}}}}}\n"
            for i in range(number * each, (number + 1) * each)
        )
        part = folder / f"{number}.new"
        part.write_text(f"domain: d{number}\ndescriptors:\n{lines}")
        part.rename(folder / f"{number}.yaml")


async def reloaded(service: Service) -> None:
    """Read the rules again, and wait until other ones are in force."""
    before = service.planner.matcher.rules.digest
    await service.reload()
    while service.planner.matcher.rules.digest == before:  # noqa: ASYNC110 - the service has no event for it
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)  # until the rules before are freed


async def measure(folder: Path, rules: int, domains: int, reloads: int, loop: MeasuredLoop) -> None:
    """Print one line a reload for one shape."""
    write_rules(folder, rules, domains, 1)
    service = Service(
        Settings.model_validate(
            {
                "redis_url": "memory:",
                "config": folder,
                "grpc_listen": f"unix:{folder}/grpc",
                "admin_listen": f"127.0.0.1:{free_ports(1)[0]}",
            }
        )
    )
    tune_python()
    start = memory()
    async with AsyncExitStack() as stack:
        await service.start(stack)
        rest = memory()
        for again in range(2, 2 + reloads):
            await asyncio.to_thread(write_rules, folder, rules, domains, again)
            forget_peak()
            await asyncio.sleep(0.1)  # so that what came before is in a turn that does not count
            loop.longest_s = 0.0
            began = time.perf_counter()
            await reloaded(service)
            took = time.perf_counter() - began - 2
            print(
                f"{domains} domains, {rules} rules: {rest.now:.0f} MB at rest, {start.peak:.0f} at the start; "
                f"{memory().peak:.0f} at a reload, {memory().now:.0f} after it; "
                f"longest turn {loop.longest_s * 1000:.1f} ms of CPU; {took:.1f} s",
                flush=True,
            )


def main(argv: list[str]) -> None:
    """Measure all shapes, or in a process of its own the one with so many domains."""
    rules, reloads, *one = [int(arg) for arg in argv] + [100_000, 2][len(argv) :]
    if not one:
        for domains in SHAPES.values():
            numbers = (rules, reloads, domains)
            subprocess.run([sys.executable, "-m", "bench.large", *map(str, numbers)], check=True)
        return
    os.environ["EXTAUTH_LOG_LEVEL"] = "error"
    loop = MeasuredLoop()
    with TemporaryDirectory() as folder:
        work: Any = measure(Path(folder), rules, one[0], reloads, loop)
        loop.run_until_complete(work)


if __name__ == "__main__":
    main(sys.argv[1:])
