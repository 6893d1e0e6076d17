"""What the model, and the reviewer, are told a picture is: codes and counts, never free text of a header.

Knows words. Does not know why a picture was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.selection.units import Unit
from worker.views import laterality_of, view_of
from worker.windows import WINDOWS

_SIDES = {"R": "right", "L": "left", "B": "both sides"}


def caption(
    unit: Unit, place: int, window: str | None, *, role: str = "", which: int = 0, slices: tuple[int, ...] = ()
) -> str:
    """Return the caption of a frame, or of a montage of several `slices` (counted from 1); its parts hold no comma.

    Parameters
    ----------
    which
        The unit's number among the stacks or films that are shown, where there is more than one.
    """
    return ", ".join(_parts(unit, place, window, role, which, slices))


def _parts(unit: Unit, place: int, window: str | None, role: str, which: int, slices: tuple[int, ...]) -> Iterator[str]:
    header = unit.header
    yield header.modality if is_code(header.modality) else "image"
    view = view_of(header)
    if is_code(view):
        yield f"view {view}"
    if side := _SIDES.get(laterality_of(header)):
        yield side
    if unit.plane:
        yield unit.plane
    if role:
        yield role.replace("_", " ")
    if which:
        yield f"series {which}" if unit.kind == "slice" else f"film {which}"
    if unit.turns > 1:
        yield f"time point {unit.turn} of {unit.turns}"
    total = len(unit.spots)
    if slices:
        yield f"montage of slices {' '.join(map(str, slices))} of {total}"
    elif total > 1:
        yield f"{unit.kind} {place + 1} of {total}"
    if window:
        yield WINDOWS[window].words


def is_code(text: str) -> bool:
    """Whether a header's value may stand in a caption as it is."""
    return text.isascii() and text.isalnum() and len(text) <= 16
