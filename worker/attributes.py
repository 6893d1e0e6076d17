"""The display attributes that hold for one frame, gathered from wherever an instance keeps them.

Knows where DICOM writes rescale, windows, look-up tables, padding and pixel shape: at the top level, or in the shared
and per-frame functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16). Does not know pixels, and does no
arithmetic but reading tables. Sloppy values (empty, zero, not a number) read as absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from worker import suv
from worker.tables import Lut, lut_items, one_line, palette_of, tables_of

TAGS: tuple[str, ...] = (
    *("SOPClassUID", "Modality", "ImageType", "NumberOfFrames", "PixelAspectRatio", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    *("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *("RescaleType", "WindowCenterWidthExplanation", "LossyImageCompression", "LossyImageCompressionRatio"),
    *(f"{c}PaletteColorLookupTableDescriptor" for c in ("Red", "Green", "Blue")),
    *(f"{c}PaletteColorLookupTableData" for c in ("Red", "Green", "Blue")),
    *(f"Segmented{c}PaletteColorLookupTableData" for c in ("Red", "Green", "Blue")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *suv.TAGS,
)
"""Everything that is read of an instance's header; the rest is skipped, not parsed."""

_X_RAY_MOVIES = tuple(f"1.2.840.10008.5.1.4.1.1.12.{n}" for n in (1, 2, 3))
"""Angiography, fluoroscopy, and the retired biplane class: their modality transform leads back to the intensity of the
beam, for subtraction, and the VOI transform is of stored values (PS3.3 C.8.7.1.1.2; dcmtk, dcm4che and fo-dicom alike)."""
_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")
_MAX_ASPECT = 8.0
"""A pixel more oblong than this is a slip of the header, not a picture."""

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True, slots=True)
class Window:
    """A window in modality values (PS3.3 C.11.2.1.2); `source` says where it came from."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"
    source: str = "file"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameAttributes:
    """What the display of one frame needs to know.

    Attributes
    ----------
    padding
        Smallest and largest stored value that is no pixel of the picture (PS3.3 C.7.5.1.1.2).
    windows
        In the file's order; only those that can be applied.
    explanations
        What the file calls each of `sent`; empty where it says nothing.
    hounsfield
        Modality values are Hounsfield units (PS3.3 C.8.2.1, C.11.1.1.2).
    palette
        Table of colours, uint8 (N, 3), with the stored value that meets its first row.
    aspect
        Height of a pixel over its width.
    suv_factor
        What a modality value is multiplied with to be a standardised uptake value; None where that is not known.
    shift
        Bits below the stored sample (High Bit + 1 - Bits Stored, PS3.5 8.1.1).
    """

    modality: str
    photometric_interpretation: str
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    shift: int
    signed: bool
    rescale: tuple[float, float] | None
    modality_lut: Lut | None
    windows: tuple[Window, ...]
    voi_luts: tuple[Lut, ...]
    explanations: tuple[str, ...]
    hounsfield: bool
    presentation_lut_shape: str
    padding: tuple[float, float] | None
    palette: tuple[NDArray[np.uint8], int] | None
    aspect: float
    suv_factor: float | None = None
    presentation_lut: Lut | None = None
    """From a presentation state: what follows the VOI transform in the place of a shape."""

    @property
    def is_grey(self) -> bool:
        """Whether windows mean anything: colour has none."""
        return self.photometric_interpretation in {"MONOCHROME1", "MONOCHROME2"}

    @property
    def sent(self) -> tuple[Lut | Window, ...]:
        """Every VOI transform that the file brings, the one to begin with first (PS3.3 C.11.2.1.2)."""
        return (*self.voi_luts, *self.windows)


def frame_attributes(ds: Dataset, frame: int, *, little_endian: bool = True) -> FrameAttributes:
    """Gather what holds for one frame: top level first, then shared, then per-frame groups, the later one wins.

    Parameters
    ----------
    frame
        Counted from 0.
    little_endian
        Byte order of table data that is kept as bytes.
    """
    flat: dict[str, Any] = {}
    for source in _sources(ds, frame):
        for keyword in _HELD:
            if keyword in source:
                flat[keyword] = source[keyword].value
    if ds.get("SOPClassUID") in _X_RAY_MOVIES:
        for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"):
            flat.pop(keyword, None)
    bits_allocated = _whole(ds.get("BitsAllocated"), 16)
    bits_stored = _whole(ds.get("BitsStored"), bits_allocated)
    signed = _whole(ds.get("PixelRepresentation"), 0) == 1
    slope, intercept = _number(flat.get("RescaleSlope")), _number(flat.get("RescaleIntercept"))
    rescale = (slope, intercept) if slope and intercept is not None else None
    # What a VOI LUT is fed with may be signed though the pixels are not (PS3.3 C.11.2.1.1).
    fed_signed = signed or (intercept is not None and intercept < 0)
    luts = list(lut_items(flat.get("VOILUTSequence"), little_endian=little_endian, signed=fed_signed))
    windows = list(_windows(flat))
    return FrameAttributes(
        modality=str(ds.get("Modality") or ""),
        photometric_interpretation=str(ds.get("PhotometricInterpretation") or ""),
        samples_per_pixel=_whole(ds.get("SamplesPerPixel"), 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        shift=_whole(ds.get("HighBit"), bits_stored - 1) - bits_stored + 1,
        signed=signed,
        rescale=rescale,
        modality_lut=next(
            (lut for lut, _ in lut_items(flat.get("ModalityLUTSequence"), little_endian=little_endian, signed=signed)),
            None,
        ),
        windows=tuple(window for window, _ in windows),
        voi_luts=tuple(lut for lut, _ in luts),
        explanations=tuple(explanation for _, explanation in (*luts, *windows)),
        hounsfield=ds.get("Modality") == "CT" and _is_hounsfield(flat, rescaled=rescale is not None),
        presentation_lut_shape=str(flat.get("PresentationLUTShape") or "").upper(),
        padding=_padding(ds, bits_allocated, signed=signed),
        palette=palette_of(ds, little_endian=little_endian, signed=signed),
        aspect=_aspect(flat),
        suv_factor=suv.suv_factor(ds) if ds.get("Modality") == "PT" else None,
    )


_HELD = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(
        "RescaleType",
        "WindowCenterWidthExplanation",
        "VOILUTSequence",
        "PresentationLUTShape",
        "PixelAspectRatio",
        "PixelSpacing",
        "ImagerPixelSpacing",
    ),
    "NominalScannedPixelSpacing",
)


def _sources(ds: Dataset, frame: int) -> Iterator[Dataset]:
    yield ds
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    for group in [*shared[:1], *per_frame[frame : frame + 1]]:
        for keyword in _GROUPS:
            yield from (group.get(keyword) or [])[:1]


def _number(value: Any) -> float | None:
    """First value as a finite float, or None."""
    numbers = _numbers(value)
    return numbers[0] if numbers else None


def _numbers(value: Any) -> list[float]:
    """Every value as a float; empty where one of them is none."""
    if value is None or value == "":
        return []
    try:
        numbers = [float(v) for v in ([value] if isinstance(value, str) or not hasattr(value, "__iter__") else value)]
    except (TypeError, ValueError):
        return []
    return numbers if all(math.isfinite(n) for n in numbers) else []


def _whole(value: Any, default: int) -> int:
    number = _number(value)
    return default if number is None else int(number)


def _windows(flat: dict[str, Any]) -> Iterator[tuple[Window, str]]:
    name = str(flat.get("VOILUTFunction") or "LINEAR").upper().strip()
    function: VoiFunction = name if name in {"LINEAR_EXACT", "SIGMOID"} else "LINEAR"  # type: ignore[assignment]
    said = flat.get("WindowCenterWidthExplanation") or []
    explanations = [said] if isinstance(said, str) else list(said)
    pairs = zip(_numbers(flat.get("WindowCenter")), _numbers(flat.get("WindowWidth")), strict=False)
    for n, (center, width) in enumerate(pairs):
        if width >= 1 or (width > 0 and function != "LINEAR"):  # PS3.3 C.11.2.1.2.1: LINEAR needs a width of 1 or more
            yield Window(center, width, function), one_line(explanations[n] if n < len(explanations) else "")


def _is_hounsfield(flat: dict[str, Any], *, rescaled: bool) -> bool:
    """Whether a CT's modality values are Hounsfield units: Rescale Type is only required where they are not."""
    for item in (flat.get("ModalityLUTSequence") or [])[:1]:
        return str(item.get("ModalityLUTType") or "").strip() == "HU"
    return rescaled and str(flat.get("RescaleType") or "HU").strip() == "HU"


def voi_of(item: Dataset, *, signed: bool) -> tuple[tuple[Lut, ...], tuple[Window, ...]]:
    """Return the tables and windows of one item of a presentation state's VOI sequence (PS3.3 C.11.8).

    Parameters
    ----------
    signed
        What the tables are fed with may be negative.
    """
    flat = {keyword: item[keyword].value for keyword in _HELD if keyword in item}
    return tables_of(flat.get("VOILUTSequence"), signed=signed), tuple(window for window, _ in _windows(flat))


def _padding(ds: Dataset, bits_allocated: int, *, signed: bool) -> tuple[float, float] | None:
    for kind in ("Float", "DoubleFloat"):  # PS3.3 C.7.6.24, C.7.6.25
        floats = [_number(ds.get(f"{kind}PixelPadding{part}")) for part in ("Value", "RangeLimit")]
        if floats[0] is None:
            continue
        return min(f for f in floats if f is not None), max(f for f in floats if f is not None)
    values = [_number(ds.get(f"PixelPadding{part}")) for part in ("Value", "RangeLimit")]
    whole = [int(v) for v in values if v is not None]
    if values[0] is None:
        return None
    if signed:  # the VR follows Pixel Representation; files often say US
        whole = [v - (1 << bits_allocated) if v >= 1 << (bits_allocated - 1) else v for v in whole]
    return min(whole), max(whole)


def _aspect(flat: dict[str, Any]) -> float:
    """Height over width of a pixel (PS3.3 C.7.6.3.1.7; spacings are row, then column: 10.7.1.3)."""
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        numbers = _numbers(flat.get(keyword))
        if len(numbers) == 2 and min(numbers) > 0:
            ratio = numbers[0] / numbers[1]
            return ratio if 1 / _MAX_ASPECT <= ratio <= _MAX_ASPECT else 1.0
    return 1.0
