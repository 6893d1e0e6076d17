"""Who gets how many of the pictures that a protocol allows.

Knows roles, what a frame costs in pictures, and fairness: every role gets one before any gets two, what was named in a key
object selection goes first. Does not know which frames they will be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.protocols import Role
from worker.selection.units import Unit


@dataclass(frozen=True, slots=True)
class Claimant:
    """A unit that wants pictures.

    Attributes
    ----------
    frames
        As many as it can use: its frames, or its montages.
    cost
        Pictures a frame: one a window.
    per
        Frames on one picture: more than one on a montage.
    named
        Places of frames that somebody pointed at.
    """

    unit: Unit
    role: Role | None
    windows: tuple[str | None, ...]
    frames: int
    per: int = 1
    named: frozenset[int] = frozenset()

    @property
    def cost(self) -> int:
        """Pictures that one more frame takes."""
        return len(self.windows)


def share(claimants: Sequence[Claimant], budget: int) -> list[int]:
    """Return how many frames each may show, in their order of importance."""
    shares = [0] * len(claimants)
    left, played = budget, Counter[str]()
    for number in _turns(claimants):
        claimant = claimants[number]
        role = claimant.role
        is_played = bool(role and role.pictures and played[role.name] * claimant.per >= role.pictures)
        if shares[number] < claimant.frames and claimant.cost <= left and not is_played:
            shares[number] += 1
            left -= claimant.cost
            if role:
                played[role.name] += 1
    return shares


def _turns(claimants: Sequence[Claimant]) -> Iterator[int]:
    """Whose turn it is to take one more, until nobody can use another."""
    named = [n for n, one in enumerate(claimants) if one.named]
    yield from _rounds(named, [min(len(claimants[n].named), claimants[n].frames) for n in named])
    firsts: dict[str, int] = {}
    for n, one in enumerate(claimants):
        if one.role and not one.named:
            firsts.setdefault(one.role.name, n)
    yield from firsts.values()
    cast = [n for n, one in enumerate(claimants) if one.role]
    yield from _rounds(cast, [claimants[n].frames for n in cast])
    others = [n for n, one in enumerate(claimants) if not one.role]
    yield from _rounds(others, [claimants[n].frames for n in others])


def _rounds(numbers: Sequence[int], times: Sequence[int]) -> Iterator[int]:
    for turn in range(max(times, default=0)):
        yield from (n for n, most in zip(numbers, times, strict=True) if turn < most)
