"""Which frames of a unit are shown, given how many: spread evenly, or where there is something to see.

Knows positions and glances. A key slice is the one with most content in its stretch of the body; a key moment of a film is
the clearest one in a stretch of equal motion. Does not know budgets or protocols, nor anatomy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.looks import Look
from worker.selection.units import Unit

MAX_LOOKS = 64
"""Frames of one unit that are looked at, at most; of a longer one every n-th."""
_EMPTY = 0.35
"""Less content than this part of the median: before the body begins or after it ends."""
_STRAY = 0.3
"""How much content a slice at the edge of its stretch must have more than one in the middle."""
_STILL = 1.5
"""Grey levels of mean difference: frames closer than this are the same picture."""
_CONTRAST_FILMS = frozenset({"XA", "RF"})


def evenly(total: int, count: int) -> list[int]:
    """The middle of each of `count` equal parts of `total` places."""
    return [(2 * k + 1) * total // (2 * count) for k in range(count)]


def candidates(unit: Unit) -> list[int]:
    """The places of a unit that are worth a glance: all, or 64 evenly spread (by position, where it is told)."""
    total = len(unit.spots)
    if total <= MAX_LOOKS:
        return list(range(total))
    return nearest(unit, MAX_LOOKS)


def nearest(unit: Unit, count: int) -> list[int]:
    """Places spread evenly in millimetres, whatever the gaps between slices; in order, each once."""
    total = len(unit.spots)
    positions = [spot.position_mm for spot in unit.spots]
    if any(p is None for p in positions) or positions[0] == positions[-1]:
        return evenly(total, count)
    places = np.array(positions, float)  # (N,)
    return _matched(places, _middles(places, count))


def key_slices(unit: Unit, count: int, looked: Sequence[int], looks: Sequence[Look | None]) -> list[int]:
    """Choose slices: equal stretches of the part with content, of each the slice that shows most near its middle.

    Parameters
    ----------
    looked
        The places that `looks` are of, in order.
    """
    content = np.array([one.content if one else 0.0 for one in looks])  # (M,)
    if count >= len(unit.spots) or not content.any():
        return nearest(unit, min(count, len(unit.spots)))
    kept = np.flatnonzero(content >= _EMPTY * np.median(content[content > 0]))  # (K,)
    inside = np.arange(kept[0], kept[-1] + 1)  # (K',)
    if len(inside) < count:
        return nearest(unit, count)
    told = [unit.spots[looked[i]].position_mm for i in inside]
    places = np.array(inside if any(p is None for p in told) else told, float)  # (K',)
    middles = _middles(places, count)  # (count,)
    stretch = (middles[-1] - middles[0]) / (count - 1) if count > 1 else places[-1] - places[0] + 1.0
    chosen: list[int] = []
    for middle in middles:
        off = np.abs(places - middle) / (stretch / 2)  # (K',)
        worth = np.where(off <= 1.0, content[inside] * (1 - _STRAY * off), -off)  # (K',)
        worth[[i for i, place in enumerate(inside) if looked[place] in chosen]] = -np.inf
        chosen.append(looked[inside[int(worth.argmax())]])
    return sorted(chosen)


def key_moments(unit: Unit, count: int, looked: Sequence[int], looks: Sequence[Look | None]) -> list[int]:
    """Choose frames of a film: stretches of equal motion, of each the clearest frame; fewer where nothing moves.

    Of angiography and fluoroscopy the clearest is the one that differs most from the film's middle state: the vessels
    are filled.
    """
    seen = [(place, one) for place, one in zip(looked, looks, strict=True) if one is not None and one.content > 0]
    if not seen:
        return evenly(len(unit.spots), min(count, len(unit.spots)))
    thumbs = np.stack([one.thumb for _, one in seen]).astype(float)  # (M, 16, 16)
    steps = np.abs(np.diff(thumbs, axis=0)).mean(axis=(1, 2))  # (M - 1,)
    motion = np.concatenate([[0.0], np.cumsum(steps)])  # (M,)
    worth = _clearness(unit, thumbs, [one for _, one in seen], steps)
    if motion[-1] < _STILL:
        return [seen[int(worth.argmax())][0]]
    stretch = np.minimum((motion / motion[-1] * count).astype(int), count - 1)  # (M,)
    chosen: list[int] = []  # places within `seen`
    for part in range(count):
        members = np.flatnonzero(stretch == part)  # (K,)
        for candidate in members[np.argsort(-worth[members], kind="stable")]:
            if all(np.abs(thumbs[candidate] - thumbs[other]).mean() >= _STILL for other in chosen):
                chosen.append(int(candidate))
                break
    return sorted(seen[one][0] for one in chosen)


def with_named(chosen: Sequence[int], named: Collection[int], count: int) -> list[int]:
    """Let frames that somebody named take the place of the nearest chosen ones; of too many named, an even spread."""
    wanted = sorted(named)
    if len(wanted) >= count:
        return [wanted[n] for n in evenly(len(wanted), count)]
    left = [place for place in chosen if place not in named]
    for place in wanted:
        if len(left) + len(wanted) > count:
            left.remove(min(left, key=lambda other: (abs(other - place), other)))
    return sorted([*left[: count - len(wanted)], *wanted])


def _clearness(
    unit: Unit, thumbs: NDArray[np.float64], looks: Sequence[Look], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How good each frame is, (M,)."""
    if unit.header.modality in _CONTRAST_FILMS:
        return np.abs(thumbs - np.median(thumbs, axis=0)).mean(axis=(1, 2))  # type: ignore[no-any-return]
    sharpness = np.array([one.sharpness * one.content for one in looks])  # (M,)
    around = np.maximum(np.append(steps, 0.0), np.insert(steps, 0, 0.0))  # (M,): motion to the neighbours
    return sharpness / (1.0 + around)  # type: ignore[no-any-return]


def _middles(places: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The middles, (count,), of equal parts of what the places (N,) cover, half a gap beyond the outer ones included."""
    half = (places[-1] - places[0]) / max(1, len(places) - 1) / 2
    first, last = places[0] - half, places[-1] + half
    middles: NDArray[np.float64] = first + (last - first) * (np.arange(count) + 0.5) / count
    return middles


def _matched(places: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[int]:
    """The nearest place to each wanted one, each place once, in order; there are at least as many places."""
    chosen: list[int] = []
    for number, target in enumerate(wanted):
        least = chosen[-1] + 1 if chosen else 0
        most = len(places) - (len(wanted) - number)  # leave one for each that follows
        window = np.abs(places[least : most + 1] - target)
        chosen.append(least + int(window.argmin()))
    return chosen
