"""What the model, and the reviewer, are told a picture is: codes and counts, never free text of a header.

Knows words. Does not know why a picture was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.selection.units import Unit
from worker.views import NAMES, laterality_of, view_of
from worker.windows import WINDOWS

MODALITIES = frozenset(
    {
        "CR",
        "DX",
        "RG",
        "MG",
        "IO",
        "PX",
        "CT",
        "MR",
        "PT",
        "NM",
        "US",
        "IVUS",
        "XA",
        "RF",
        "XC",
        "GM",
        "SM",
        "ES",
        "DMS",
        "OP",
    }
    | {"OPT", "OT", "BI", "BMD", "DG", "LS", "TG", "RTIMAGE", "OAM", "OPM", "OPV", "OCT", "IVOCT", "HD", "EPS"}
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1) that pictures have; whatever else a header says stays out of captions."""
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
    yield header.modality if header.modality in MODALITIES else "image"
    view = view_of(header)
    if view in NAMES:
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
