"""Which of the things that are kept for later have to go: those unused for long, those too many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Kept(Protocol):
    """Something kept for later. `used` is unix seconds."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def used(self) -> float: ...


Thing = TypeVar("Thing", bound=Kept)


def to_remove(
    things: Sequence[Thing],
    now: float,
    *,
    age_s: float,
    size_bytes: int,
    keep: Callable[[Thing], bool],
) -> list[Thing]:
    """What to remove: things unused for `age_s`, then the longest unused beyond the size.

    Zero turns a bound off. What `keep` holds counts for the size and stays. Pure.
    """
    free = sorted((one for one in things if not keep(one)), key=lambda one: one.used)
    chosen = [one for one in free if age_s and now - one.used > age_s]
    total = sum(one.size_bytes for one in things) - sum(one.size_bytes for one in chosen)
    for one in free[len(chosen) :]:
        if not size_bytes or total <= size_bytes:
            break
        chosen.append(one)
        total -= one.size_bytes
    return chosen
