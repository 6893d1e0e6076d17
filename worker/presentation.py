"""A softcopy presentation state, as far as it changes what is seen of a frame.

Knows what of it applies to which frame (PS3.3 A.33, C.11.8 to C.11.10; the order of PS3.4 N.2): modality and VOI transform,
presentation LUT, shutter, displayed area, rotation and flip. Does not draw its text and graphics, nor blend. Does not know
how grey levels are computed (`rendering`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from worker.attributes import FrameAttributes, Window, voi_of
from worker.tables import tables_of

TAGS: tuple[str, ...] = (
    *("SOPClassUID", "SOPInstanceUID", "ReferencedSeriesSequence", "SoftcopyVOILUTSequence", "PresentationLUTShape"),
    *("PresentationLUTSequence", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("DisplayedAreaSelectionSequence", "ImageRotation", "ImageHorizontalFlip", "ShutterShape"),
    *("ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge"),
    *("ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter"),
    *("VerticesOfThePolygonalShutter", "ShutterPresentationValue"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Presentation:
    """What a state does to one frame.

    Attributes
    ----------
    attributes
        The frame's, with what the state says in the place of what the file says.
    area
        Left, top, right, bottom of what is displayed, in pixels, or None for all.
    rotation
        Clockwise: 0, 90, 180, 270.
    flip
        Left for right, after the rotation.
    hidden
        bool (rows, columns): what a shutter covers, or None.
    shade
        The grey level of what it covers.
    """

    attributes: FrameAttributes
    area: tuple[int, int, int, int] | None
    rotation: int
    flip: bool
    hidden: NDArray[np.bool_] | None
    shade: int

    def laid_out(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cover, cut, turn and flip levels, (rows, columns) or (rows, columns, 3)."""
        if self.hidden is not None:
            levels = levels.copy()
            levels[self.hidden] = self.shade
        if self.area is not None:
            left, top, right, bottom = self.area
            levels = levels[top:bottom, left:right]  # (bottom - top, right - left[, 3])
        levels = np.rot90(levels, -self.rotation // 90)
        return np.ascontiguousarray(np.fliplr(levels) if self.flip else levels)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the picture's provenance."""
        return {
            "rotation": self.rotation,
            "flip": self.flip,
            "area": list(self.area) if self.area else None,
            "shutter": self.hidden is not None,
        }


def presentation_of(
    state: Dataset, sop_instance_uid: str, frame: int, attributes: FrameAttributes, shape: tuple[int, int]
) -> Presentation:
    """Read what a state says of a frame.

    Parameters
    ----------
    frame
        Counted from 0.
    shape
        Rows and columns of the frame.
    """
    voi = next(_applying(state.get("SoftcopyVOILUTSequence"), sop_instance_uid, frame), None)
    own = _rescale(state)
    rescale = own or attributes.rescale
    luts, windows = voi_of(voi, signed=attributes.signed or bool(rescale and rescale[1] < 0)) if voi else ((), ())
    changed = replace(
        attributes,
        voi_luts=luts,
        windows=windows,
        presentation_lut_shape=str(state.get("PresentationLUTShape") or "IDENTITY").upper(),
        presentation_lut=next(iter(tables_of(state.get("PresentationLUTSequence"), signed=False)), None),
    )
    if tables := tables_of(state.get("ModalityLUTSequence"), signed=attributes.signed):
        changed = replace(changed, modality_lut=tables[0])
    elif own:
        changed = replace(changed, rescale=own, modality_lut=None)
    if not luts and not windows:
        changed = replace(changed, windows=(_identity(changed),))
    hidden, shade = _shutter(state, shape)
    rotation = state.get("ImageRotation")
    return Presentation(
        attributes=changed,
        area=_area(state, sop_instance_uid, frame, shape),
        rotation=int(rotation) % 360 // 90 * 90 if rotation else 0,
        flip=str(state.get("ImageHorizontalFlip") or "").upper() == "Y",
        hidden=hidden,
        shade=shade,
    )


def _rescale(state: Dataset) -> tuple[float, float] | None:
    slope, intercept = state.get("RescaleSlope"), state.get("RescaleIntercept")
    return (float(slope), float(intercept)) if slope and intercept is not None else None


def _applying(items: Any, sop_instance_uid: str, frame: int) -> Iterator[Dataset]:
    """The items of a sequence that are for this frame: those that name it, or name nothing."""
    for item in items or ():
        references = item.get("ReferencedImageSequence")
        if not references:
            yield item
        for reference in references or ():
            told = reference.get("ReferencedFrameNumber")
            frames = [told] if isinstance(told, int | str) else list(told or ())
            if reference.get("ReferencedSOPInstanceUID") == sop_instance_uid:
                if not frames or frame + 1 in [int(n) for n in frames]:
                    yield item
                break


def _identity(attributes: FrameAttributes) -> Window:
    """The whole range that the stored samples can have, as modality values (PS3.4 N.2.2: no VOI LUT is an identity)."""
    low = -(1 << (attributes.bits_stored - 1)) if attributes.signed else 0
    ends: list[float] = [low, low + (1 << attributes.bits_stored) - 1]
    if attributes.modality_lut is not None:
        ends = [float(attributes.modality_lut.entries.min()), float(attributes.modality_lut.entries.max())]
    elif attributes.rescale is not None:
        slope, intercept = attributes.rescale
        ends = sorted(end * slope + intercept for end in ends)
    return Window((ends[0] + ends[1]) / 2, max(ends[1] - ends[0], 1.0), "LINEAR_EXACT", source="state:identity")


def _area(
    state: Dataset, sop_instance_uid: str, frame: int, shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    item = next(_applying(state.get("DisplayedAreaSelectionSequence"), sop_instance_uid, frame), None)
    corners = [item.get(f"DisplayedArea{c}HandCorner") for c in ("TopLeft", "BottomRight")] if item is not None else []
    if len(corners) != 2 or any(c is None or len(c) != 2 for c in corners):
        return None
    (left, top), (right, bottom) = ((int(v) for v in corner) for corner in corners)
    rows, columns = shape
    left, right = sorted((min(max(left - 1, 0), columns - 1), min(max(right, 1), columns)))
    top, bottom = sorted((min(max(top - 1, 0), rows - 1), min(max(bottom, 1), rows)))
    is_part = left < right and top < bottom and (left, top, right, bottom) != (0, 0, columns, rows)
    return (left, top, right, bottom) if is_part else None


def _shutter(state: Dataset, shape: tuple[int, int]) -> tuple[NDArray[np.bool_] | None, int]:
    """What is covered, and by which grey level: the display shutter of PS3.3 C.7.6.11."""
    told = state.get("ShutterShape")
    shapes = {told} if isinstance(told, str) else set(told or ())
    rows, columns = shape
    hidden = np.zeros(shape, dtype=bool)  # (rows, columns)
    if "RECTANGULAR" in shapes:
        sides = [
            state.get(f"Shutter{n}Edge")
            for n in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
        ]
        if None not in sides:
            left, right, top, bottom = (int(side) for side in sides)
            open_part = np.zeros(shape, dtype=bool)  # (rows, columns)
            open_part[max(top - 1, 0) : max(bottom, 0), max(left - 1, 0) : max(right, 0)] = True
            hidden |= ~open_part
    if (
        "CIRCULAR" in shapes
        and state.get("RadiusOfCircularShutter")
        and len(state.get("CenterOfCircularShutter") or ()) == 2
    ):
        row, column = (float(v) - 1 for v in state.CenterOfCircularShutter)
        radius = float(state.RadiusOfCircularShutter)
        y, x = np.ogrid[:rows, :columns]
        hidden |= (y - row) ** 2 + (x - column) ** 2 > radius**2
    if "POLYGONAL" in shapes and len(state.get("VerticesOfThePolygonalShutter") or ()) >= 6:
        flat = [float(v) - 1 for v in state.VerticesOfThePolygonalShutter]
        mask = Image.new("1", (columns, rows))
        ImageDraw.Draw(mask).polygon([(flat[n + 1], flat[n]) for n in range(0, len(flat) - 1, 2)], fill=1, outline=1)
        hidden |= ~np.asarray(mask)
    value = state.get("ShutterPresentationValue")
    return (hidden if hidden.any() and not hidden.all() else None), (int(value) >> 8 if value is not None else 0) & 0xFF
