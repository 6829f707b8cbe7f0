"""One target under atheris: `python -m fuzz.run TARGET [LIBFUZZER-OPTION…] CORPUS…`; `fuzz` calls it."""

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["extauth"]):
    from fuzz.replay import load

    target = load(sys.argv[1])


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input of at most so many bytes."""
    mutated = target.mutate(data, Random(seed), lambda old: atheris.Mutate(old, max(len(old) + 16, 16)))
    return mutated[:max_size]


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check, custom_mutator=mutate)
    atheris.Fuzz()
