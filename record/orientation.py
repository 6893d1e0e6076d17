"""Which way the edges of a picture face, and how wide it is in the patient.

Knows Image Orientation (Patient), Patient Orientation and Pixel Spacing (PS3.3 C.7.6.2.1.1, C.7.6.1.1.1, 10.7.1.3) as an
instance's header row keeps them: of the instance as a whole. Says nothing where the header does not, or where it may differ
from frame to frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPPOSITE = str.maketrans("LRPAHF", "RLAPFH")
_AXES = (("L", "R"), ("P", "A"), ("H", "F"))
"""Towards greater and smaller coordinates of the patient's system, axis by axis."""
_SLANT = 0.35
"""An edge that leans towards a second axis by more than this (20°) says so with a second letter."""
_CROSS_SECTIONS = frozenset({"CT", "MR", "PT"})
_LETTERS = re.compile(r"[LRPAHF]{1,3}")


@dataclass(frozen=True, slots=True)
class Edges:
    """A letter or two for each edge: L, R, A, P, H, F."""

    left: str
    right: str
    top: str
    bottom: str


def edges(header: Mapping[str, Any]) -> Edges | None:
    """Where the edges of a picture face in the patient.

    Either attribute names the direction in which a row runs, to the right, and then that of a column, downwards.
    """
    cosines: Sequence[float] = header.get("image_orientation_patient") or []
    if len(cosines) == 6:
        right, bottom = (_faces(cosines[:3]), _faces(cosines[3:])) if _is_square(cosines) else ("", "")
    else:
        told: Sequence[str] = header.get("patient_orientation") or []
        right, bottom = told if len(told) == 2 and all(map(_is_direction, told)) else ("", "")
    if not right or not bottom or right[0] in {bottom[0], bottom[0].translate(_OPPOSITE)}:
        return None
    return Edges(right.translate(_OPPOSITE), right, bottom.translate(_OPPOSITE), bottom)


def turned(facing: Sequence[str], rotation: int, *, flipped: bool) -> tuple[str, ...]:
    """Return where left, right, top and bottom face once a picture was rotated clockwise, then flipped left to right.

    Parameters
    ----------
    rotation
        0, 90, 180 or 270 degrees.
    """
    if len(facing) != 4:
        return ()
    left, right, top, bottom = facing
    for _ in range(rotation // 90 % 4):
        left, right, top, bottom = bottom, top, left, right
    return (right, left, top, bottom) if flipped else (left, right, top, bottom)


def width_mm(header: Mapping[str, Any]) -> float | None:
    """The width of a cross section; a projection has none, since it is enlarged by as much as nobody wrote down."""
    spacing: Sequence[float] = header.get("pixel_spacing") or []
    columns = int(header.get("columns") or 0)
    is_section = header.get("modality") in _CROSS_SECTIONS and "LOCALIZER" not in (header.get("image_type") or ())
    if not is_section or len(spacing) != 2 or min(spacing) <= 0 or not columns:
        return None
    return float(spacing[1]) * columns  # between rows, then between columns


def _is_square(cosines: Sequence[float]) -> bool:
    """Whether these are direction cosines at all: of length 1, at right angles."""
    rows, columns = cosines[:3], cosines[3:]
    lengths = [sum(part * part for part in each) ** 0.5 for each in (rows, columns)]
    lean = sum(one * other for one, other in zip(rows, columns, strict=True))
    return all(0.9 < length < 1.1 for length in lengths) and abs(lean) < 0.1


def _is_direction(told: str) -> bool:
    """One to three letters, each of another axis."""
    return bool(_LETTERS.fullmatch(told)) and len({min(each, each.translate(_OPPOSITE)) for each in told}) == len(told)


def _faces(direction: Sequence[float]) -> str:
    """The letters of a direction, the strongest first."""
    ranked = sorted(zip(direction, _AXES, strict=True), key=lambda one: -abs(one[0]))
    return "".join(up if part > 0 else down for part, (up, down) in ranked[:2] if abs(part) > _SLANT)
