"""What a target is, and mutations that keep a format's structure: they reach what flipped bits cannot."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple, TypeVar

Flip = Callable[[bytes], bytes]
"""Bytes → bytes like them: libFuzzer's own mutations, with its dictionary of what the code compared."""

T = TypeVar("T")


class Target(NamedTuple):
    """`seeds` are inputs by name; `check` raises where an input shows a bug; `mutate` makes another input of one."""

    seeds: dict[str, bytes]
    check: Callable[[bytes], None]
    mutate: Callable[[bytes, Random, Flip], bytes]


def mutate_items(items: list[T], rng: Random, change: Callable[[T], T], fresh: Callable[[], T]) -> None:
    """Change, add, repeat, move or drop some of the items."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(items) + 1)
        if at == len(items) or rng.random() < 0.2:
            items.insert(at, fresh())
            continue
        match rng.randrange(6):
            case 0:
                del items[at]
            case 1:
                items.insert(rng.randrange(len(items) + 1), items[at])
            case 2:
                items.insert(rng.randrange(len(items)), items.pop(at))
            case _:
                items[at] = change(items[at])
