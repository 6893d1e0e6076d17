"""What a file with many frames says of each of them: where it lies in the patient, in time, on the slide.

Knows the functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16), the tiles of whole slides (C.8.12.4, C.7.6.17.3)
and which frame a film calls its best. `survey` runs in the decoding child and reads no pixel; `Survey` is its answer, on
this side of the pipe. Does not know what is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

TAGS: tuple[str, ...] = (
    *("NumberOfFrames", "RepresentativeFrameNumber", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "Rows", "Columns"),
    *("DimensionOrganizationType", "ImageType", "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths"),
    *("DetectorVector", "TimeSlotVector", "SliceVector", "ImageOrientationPatient", "PatientOrientation"),
)
_LEAST_SPACING_MM, _MOST_SPACING_MM = 1e-5, 1.0
"""Of a slide's pixels: what no scanner makes is a slip of the header."""
MAX_SURVEYED = 20_000
"""Frames; what a longer film says of the others is not asked."""


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Of one frame; what is not said is empty.

    Attributes
    ----------
    position
        Image Position (Patient), mm.
    orientation
        Image Orientation (Patient).
    volume
        What tells apart frames at one place: stack, time, b-value, echo.
    """

    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    volume: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One level of a whole slide's pyramid.

    Attributes
    ----------
    columns, rows
        Pixels of the whole level.
    tile_columns, tile_rows
        Pixels of a frame.
    spacing_mm
        Of a pixel, or None.
    flavor
        VOLUME, THUMBNAIL, LABEL or OVERVIEW (third value of Image Type).
    """

    columns: int
    rows: int
    tile_columns: int
    tile_rows: int
    spacing_mm: float | None
    flavor: str


@dataclass(frozen=True, slots=True)
class Survey:
    """The answer for one instance: `places` one a frame, or none where nothing is said."""

    places: tuple[FramePlace, ...] = ()
    representative: int | None = None
    """The frame that stands for all of them, counted from 0."""
    level: SlideLevel | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Survey:
        """Back from what crossed the pipe."""
        level = plain.get("level")
        places = tuple(FramePlace(*(tuple(part) for part in place)) for place in plain.get("places") or ())
        return cls(places, plain.get("representative"), SlideLevel(**level) if level else None)


def survey(ds: Dataset) -> dict[str, Any]:
    """Say what the header says of each frame, as plain values."""
    frames = max(1, _whole(ds.get("NumberOfFrames")) or 1)
    representative = _whole(ds.get("RepresentativeFrameNumber"))
    places = (
        [_place(ds, n) for n in range(min(frames, MAX_SURVEYED))] if "PerFrameFunctionalGroupsSequence" in ds else []
    )
    return {
        "places": places if any(any(place) for place in places) else [],
        "representative": representative - 1 if representative and 1 <= representative <= frames else None,
        "level": _level(ds),
    }


def _place(ds: Dataset, frame: int) -> list[list[float]]:
    groups = [*(ds.get("SharedFunctionalGroupsSequence") or [])[:1]]
    groups += [*(ds.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]]
    position = orientation = None
    volume: dict[str, float | None] = {}
    for group in groups:
        position = _said(group, "PlanePositionSequence", "ImagePositionPatient") or position
        orientation = _said(group, "PlaneOrientationSequence", "ImageOrientationPatient") or orientation
        content = _item(group, "FrameContentSequence")
        volume["stack"] = _stack(content)
        for name in ("TemporalPositionIndex", "TemporalPositionTimeOffset", "FrameAcquisitionNumber"):
            volume[name] = _number(content.get(name)) if content else None
        for sequence, name in (
            ("MRDiffusionSequence", "DiffusionBValue"),
            ("MREchoSequence", "EffectiveEchoTime"),
            ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
        ):
            item = _item(group, sequence)
            if item is not None:
                volume[name] = _number(item.get(name))
    told = [value for value in volume.values() if value is not None]
    return [position or [], orientation or [], told]


def _level(ds: Dataset) -> dict[str, Any] | None:
    columns, rows = (_whole(ds.get(f"TotalPixelMatrix{side}")) for side in ("Columns", "Rows"))
    tile_columns, tile_rows = _whole(ds.get("Columns")), _whole(ds.get("Rows"))
    if not columns or not rows or not tile_columns or not tile_rows:
        return None
    spacing = None
    for group in (ds.get("SharedFunctionalGroupsSequence") or [])[:1]:
        told = _said(group, "PixelMeasuresSequence", "PixelSpacing")
        spacing = told[0] if told and _LEAST_SPACING_MM <= told[0] <= _MOST_SPACING_MM else None
    image_type = [str(value).upper() for value in ds.get("ImageType") or ()]
    return {
        "columns": columns,
        "rows": rows,
        "tile_columns": tile_columns,
        "tile_rows": tile_rows,
        "spacing_mm": spacing,
        "flavor": image_type[2] if len(image_type) > 2 else "VOLUME",
    }


def _item(group: Dataset, sequence: str) -> Dataset | None:
    items = group.get(sequence) or []
    return items[0] if items else None


def _said(group: Dataset, sequence: str, keyword: str) -> list[float] | None:
    item = _item(group, sequence)
    value = item.get(keyword) if item is not None else None
    numbers = [_number(v) for v in value] if value is not None and hasattr(value, "__iter__") else []
    return [n for n in numbers if n is not None] if numbers and None not in numbers else None


def _stack(content: Dataset | None) -> float | None:
    """A number for Stack ID, a short text: equal for equal texts."""
    told = str(content.get("StackID") or "")[:16] if content else ""
    return float(int.from_bytes(told.encode(), "big") % (1 << 48)) if told else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None else None
