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

TAGS: tuple[str, ...] = (
    *("SOPClassUID", "Modality", "ImageType", "NumberOfFrames", "PixelAspectRatio", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
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
_MAX_LINE = 64
_MAX_LUTS = 8
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


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A look-up table: `entries` int64 (N,), the value that meets the first entry, and the bits of an entry."""

    entries: NDArray[np.int64]
    first_mapped: int
    bits: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Look values up; what lies outside meets the first or last entry (PS3.3 C.11.1.1.1)."""
        index = np.floor(values).astype(np.int64) - self.first_mapped  # as values
        found: NDArray[np.int64] = self.entries[np.clip(index, 0, len(self.entries) - 1)]
        return found


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
    def voi_lut(self) -> Lut | None:
        """The first VOI LUT, which goes before any window."""
        return self.voi_luts[0] if self.voi_luts else None

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
    luts = list(_lut_items(flat.get("VOILUTSequence"), little_endian=little_endian, signed=fed_signed))
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
            (lut for lut, _ in _lut_items(flat.get("ModalityLUTSequence"), little_endian=little_endian, signed=signed)),
            None,
        ),
        windows=tuple(window for window, _ in windows),
        voi_luts=tuple(lut for lut, _ in luts),
        explanations=tuple(explanation for _, explanation in (*luts, *windows)),
        hounsfield=ds.get("Modality") == "CT" and _is_hounsfield(flat, rescaled=rescale is not None),
        presentation_lut_shape=str(flat.get("PresentationLUTShape") or "").upper(),
        padding=_padding(ds, bits_allocated, signed=signed),
        palette=_palette(ds, little_endian=little_endian, signed=signed),
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
            yield Window(center, width, function), _line(explanations[n] if n < len(explanations) else "")


def _line(text: Any) -> str:
    """A short text of the file's, hostile as all of them: one line, capped."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)[:_MAX_LINE]).split())


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


def tables_of(sequence: Any, *, signed: bool) -> tuple[Lut, ...]:
    """Return the tables of a sequence of LUT items, as far as they can be read; entries in little endian."""
    return tuple(lut for lut, _ in _lut_items(sequence, little_endian=True, signed=signed))


def _lut_items(sequence: Any, *, little_endian: bool, signed: bool) -> Iterator[tuple[Lut, str]]:
    """The tables of a sequence up to the first that cannot be read, with what the file calls them."""
    for n, item in enumerate((sequence or [])[:_MAX_LUTS]):
        try:
            descriptor, table = item.get("LUTDescriptor"), item.get("LUTData")
            if descriptor is None or table is None or len(descriptor) != 3:
                return
            lut = _lut(descriptor, table, little_endian=little_endian, signed=signed)
            explanation = _line(item.get("LUTExplanation") or "")
        except (TypeError, ValueError):
            if n == 0:  # the one that is applied unasked
                raise
            return
        if lut is None:
            return
        yield lut, explanation


def _lut(descriptor: Any, table: Any, *, little_endian: bool, signed: bool) -> Lut | None:
    """Read a table of 8 or 16 bits an entry (PS3.3 C.11.1.1.1); 8-bit entries may lie two in a word."""
    count, first_mapped, bits = (int(v) for v in descriptor)
    count = count or 65536
    if signed and first_mapped > 32767:  # a signed value that was read as US
        first_mapped -= 65536
    order = "<" if little_endian else ">"
    if isinstance(table, bytes | bytearray):
        words = np.frombuffer(table[: len(table) // 2 * 2], order + "u2")  # (N,) or (N / 2,)
    else:
        words = np.atleast_1d(np.asarray(table)).astype(np.int64) & 0xFFFF  # (N,) or (N / 2,)
    packed = len(words) < count and bits <= 8
    entries = words.astype("<u2").view("u1") if packed else words  # (N,)
    return Lut(entries[:count].astype(np.int64), first_mapped, bits) if len(entries) else None


def _palette(ds: Dataset, *, little_endian: bool, signed: bool) -> tuple[NDArray[np.uint8], int] | None:
    """The palette as 8-bit colours (PS3.3 C.7.6.3.1.5 and .6)."""
    descriptors = [ds.get(f"{c}PaletteColorLookupTableDescriptor") for c in ("Red", "Green", "Blue")]
    if ds.get("PhotometricInterpretation") != "PALETTE COLOR" or not all(
        d is not None and len(d) == 3 for d in descriptors
    ):
        return None
    if "RedPaletteColorLookupTableData" not in ds:
        return _segmented_palette(ds, descriptors, little_endian=little_endian, signed=signed)
    columns, first_mapped = [], 0
    for colour, descriptor in zip(("Red", "Green", "Blue"), descriptors, strict=True):
        table = ds.get(f"{colour}PaletteColorLookupTableData")
        lut = _lut(descriptor, table, little_endian=little_endian, signed=signed) if table is not None else None
        if lut is None:
            return None
        wide = lut.bits == 16 and len(bytes(table)) >= 2 * len(lut.entries)
        columns.append(lut.entries >> 8 if wide else lut.entries)
        first_mapped = lut.first_mapped
    shortest = min(map(len, columns))
    colours = np.stack([c[:shortest] for c in columns], axis=-1)  # (N, 3)
    return np.clip(colours, 0, 255).astype(np.uint8), first_mapped


def _segmented_palette(
    ds: Dataset, descriptors: Any, *, little_endian: bool, signed: bool
) -> tuple[NDArray[np.uint8], int] | None:
    """The palette from segmented tables (PS3.3 C.7.9.2), as 8-bit colours."""
    columns, first_mapped = [], 0
    for colour, descriptor in zip(("Red", "Green", "Blue"), descriptors, strict=True):
        table = ds.get(f"Segmented{colour}PaletteColorLookupTableData")
        if not isinstance(table, bytes | bytearray):
            return None
        count, first_mapped, bits = (int(v) for v in descriptor)
        order = "<" if little_endian else ">"
        words = np.frombuffer(table[: len(table) // 2 * 2], order + "u2").astype(np.int64)  # (M,)
        if bits == 8:
            words = words.astype("<u2").view("u1").astype(np.int64)  # two entries a word
        entries = np.array(_expanded(words.tolist(), count or 65536, wide=bits > 8), np.int64)  # (N,)
        columns.append(entries >> 8 if bits > 8 else entries)
    if signed and first_mapped > 32767:
        first_mapped -= 65536
    shortest = min(map(len, columns))
    colours = np.stack([c[:shortest] for c in columns], axis=-1)  # (N, 3)
    return (np.clip(colours, 0, 255).astype(np.uint8), first_mapped) if shortest else None


def _expanded(coded: list[int], count: int, *, wide: bool) -> list[int]:
    """Expand discrete (0), linear (1) and repeated (2) segments to `count` entries at most.

    Raises
    ------
    ValueError
        The segments make no sense, or there are more of them than entries.
    """
    found: list[int] = []
    left = count

    def expand(at: int, segments: int, *, repeats: bool) -> None:
        nonlocal left
        while segments and at + 2 < len(coded) and len(found) < count:  # a null byte may fill the last word
            kind, length = coded[at : at + 2]
            segments, left = segments - 1, left - 1
            if left < 0:
                raise ValueError("A segmented palette has more segments than entries")
            if kind == 0:
                found.extend(coded[at + 2 : at + 2 + length])
                at += 2 + length
            elif kind == 1 and found:
                first, rise = found[-1], coded[at + 2] - found[-1]
                found.extend(round(first + rise * n / length) for n in range(1, length + 1))
                at += 3
            elif kind == 2 and repeats:  # which may not repeat one another: C.7.9.2.3
                digits = coded[at + 2 : at + (4 if wide else 6)]
                offset = sum(digit << (16 if wide else 8) * n for n, digit in enumerate(digits))  # bytes
                expand(offset // 2 if wide else offset, length, repeats=False)
                at += 2 + len(digits)
            else:
                raise ValueError("A segmented palette begins with no discrete segment, or has one of an unknown kind")

    expand(0, len(coded), repeats=True)
    return found[:count]


def _padding(ds: Dataset, bits_allocated: int, *, signed: bool) -> tuple[float, float] | None:
    floats = [_number(ds.get(f"FloatPixelPadding{part}")) for part in ("Value", "RangeLimit")]
    if floats[0] is not None:  # PS3.3 C.7.6.24
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
