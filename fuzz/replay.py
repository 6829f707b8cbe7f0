"""Runs inputs through a target, without a fuzzer: `python -m fuzz.replay TARGET [FILE…]`.

Without files: the target's seeds, and some mutations of each.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random

from fuzz.target import Target

TARGETS = ("frames", "blocks", "messages", "calls_in_json")
MUTATIONS = 20


def load(name: str) -> Target:
    """The target by that name."""
    target = import_module(f"fuzz.{name}").TARGET
    assert isinstance(target, Target)
    return target


def mutations(target: Target) -> Iterator[bytes]:
    """The seeds, and what becomes of each: the same every time."""
    rng = Random(1)

    def flip(data: bytes) -> bytes:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.randbytes(rng.randrange(3)) + data[at + rng.randrange(3) :]

    for seed in target.seeds.values():
        mutated = seed
        yield seed
        for _ in range(MUTATIONS):
            mutated = target.mutate(mutated, rng, flip)
            yield mutated


def main() -> None:
    """Raise at the first input that shows a bug."""
    target = load(sys.argv[1])
    files = map(Path, sys.argv[2:])
    inputs = (file.read_bytes() for file in files) if sys.argv[2:] else mutations(target)
    for data in inputs:
        try:
            target.check(data)
        except BaseException:
            print(f"{data!r}\n", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
