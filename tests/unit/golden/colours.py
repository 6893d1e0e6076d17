"""Colour cases: RGB, YBR and palettes, and the picture that the standard asks for. As `cases`, with three samples a pixel."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless

from tests.unit.golden.cases import SIDE, Case, each, grey, ramp, words, written
from tests.unit.golden.reference import looked_up, rgb, segments

Pixels = list[list[tuple[int, int, int]]]


def coloured(pixels: Pixels, model: str = "RGB", *, bits: int = 8, planar: int = 0, **values: Any) -> Dataset:
    """Three samples a pixel, uncompressed."""
    cells = np.array(pixels, f"<u{bits // 8}")  # (rows, columns, 3)
    ds = _header(model, bits, planar, **values)
    if model == "YBR_FULL_422":  # PS3.3 C.7.6.3.1.2: Y Y Cb Cr for every two pixels, the chroma of the first
        pairs = cells.reshape(SIDE, SIDE // 2, 2, 3)  # (rows, columns / 2, 2, 3)
        cells = np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], axis=2)  # (rows, columns / 2, 4)
    ds.PixelData = (cells.transpose(2, 0, 1) if planar else cells).tobytes()
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def jpeg_2000(pixels: Pixels, model: str, syntax: str) -> Dataset:
    """Three samples a pixel, with the codec's own colour transform."""
    ds = _header(model, 8, 0, syntax=syntax)
    lossless = model == "YBR_RCT"
    options = {"codecformat": "j2k", "mct": True, "reversible": lossless, "level": 0 if lossless else 55}
    ds.PixelData = encapsulate([imagecodecs.jpeg2k_encode(np.array(pixels, "u1"), **options)])
    ds["PixelData"].VR = "OB"
    return ds


def _header(model: str, bits: int, planar: int, syntax: str = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    standard = {"Modality": "OT", "PhotometricInterpretation": model, "SamplesPerPixel": 3, "Rows": SIDE}
    standard |= {"Columns": SIDE, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1}
    return written(syntax, **{**standard, "PixelRepresentation": 0, "PlanarConfiguration": planar, **values})


def palette(
    cells: list[list[int]],
    tables: tuple[list[int], ...],
    descriptor: list[int],
    *,
    segmented: bool = False,
    **values: Any,
) -> Dataset:
    """Indices into three tables."""
    ds = grey(cells, **{"bits": 8, "PhotometricInterpretation": "PALETTE COLOR", **values})
    order = ">" if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
        keyword = f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData"
        narrow = descriptor[2] == 8
        content = np.array(table, "u1").view("<u2").astype(f"{order}u2").tobytes() if narrow else words(table, order)
        setattr(ds, keyword, content)
    return ds


def through(cells: list[list[int]], tables: tuple[list[int], ...], first: int, drop: int) -> Any:
    """PS3.3 C.7.6.3.1.5 and .6, to 8 bits."""
    return each(cells, lambda s: tuple(looked_up(s, table, first) >> drop for table in tables))


WHEEL: Pixels = [[(16 * r, 16 * c, 255 - 8 * (r + c)) for c in range(SIDE)] for r in range(SIDE)]
# Chroma the same for two neighbours, so that 4:2:2 loses nothing.
YBR: Pixels = [[(60 + 8 * r + c, 90 + 10 * (c // 2), 150 - 6 * r) for c in range(SIDE)] for r in range(SIDE)]
DEEP: Pixels = [[(4369 * r, 4369 * c, 65535 - 2000 * (r + c)) for c in range(SIDE)] for r in range(SIDE)]
TWELVE: Pixels = each(DEEP, lambda p: tuple(v >> 4 for v in p))
FROM_YBR = each(YBR, lambda p: rgb(*p))
INDICES, FEW = ramp(0, 255), ramp(0, 119)
EIGHT = ([255 - n for n in range(256)], [n * n // 255 for n in range(256)], [n // 2 for n in range(256)])
SIXTEEN = ([65535 - 600 * n for n in range(100)], [n * n * 6 for n in range(100)], [300 * n + 77 for n in range(100)])
MANY = ([n // 4 for n in range(1000)], [255 - n // 4 for n in range(1000)], [n % 256 for n in range(1000)])
PARTS = (
    [0, 3, 0, 1000, 9000, 1, 50, 65535, 1, 47, 1000],  # three entries, up in 50 steps, down in 47
    [0, 2, 65535, 0, 1, 48, 49000, 0, 1, 7, 2, 1, 8, 0, 0, 1, 9],  # the line of 48 once more, from byte 8
    [0, 1, 500, 1, 99, 65000],
)
EXPANDED = tuple(segments(part) for part in PARTS)
SMALL = ([0, 4, 0, 10, 20, 250, 1, 96, 5, 0], [0, 2, 255, 3, 1, 98, 200, 0], [0, 1, 9, 1, 99, 255])
"""Segments of 8-bit entries; a null byte fills the word."""
SMALL_EXPANDED = tuple(segments(part[:-1] if part[-1] == 0 else part) for part in SMALL)


def _case(name: str, rule: str, ds: Dataset, picture: Any, **more: Any) -> None:
    COLOURS.append(Case(name=name, rule=rule, ds=ds, picture=picture, **{"dcmtk": (), **more}))


COLOURS: list[Case] = []
_case("rgb_planar_0", "C.7.6.3.1.3", coloured(WHEEL), WHEEL)
_case("rgb_planar_1", "C.7.6.3.1.3", coloured(WHEEL, planar=1), WHEEL)
_case("ybr_full", "C.7.6.3.1.2", coloured(YBR, "YBR_FULL"), FROM_YBR, lost=0.5)
_case("ybr_full_planar_1", "C.7.6.3.1.2", coloured(YBR, "YBR_FULL", planar=1), FROM_YBR, lost=0.5)
_case("ybr_full_422", "C.7.6.3.1.2", coloured(YBR, "YBR_FULL_422"), FROM_YBR, lost=0.5)
_case("ybr_rct", "C.7.6.3.1.2, T.800 G.2", jpeg_2000(WHEEL, "YBR_RCT", JPEG2000Lossless), WHEEL, dcmtk=None)
_case("ybr_ict", "C.7.6.3.1.2, T.800 G.3", jpeg_2000(WHEEL, "YBR_ICT", JPEG2000), WHEEL, dcmtk=None, lost=1)
_case("rgb_of_16_bits", "C.7.6.3.1.2", coloured(DEEP, bits=16), each(DEEP, lambda p: tuple(v >> 8 for v in p)))
_case(
    "rgb_of_12_bits",
    "C.7.6.3.1.2",
    coloured(TWELVE, bits=16, BitsStored=12, HighBit=11),
    each(TWELVE, lambda p: tuple(v >> 4 for v in p)),
)
_case(
    "rgb_with_a_window",
    "C.11.2: VOI transforms are of grey scale images",
    coloured(WHEEL, WindowCenter=40, WindowWidth=10),
    WHEEL,
)
_case(
    "palette_of_8_bits",
    "C.7.6.3.1.5 and .6",
    palette(INDICES, EIGHT, [256, 0, 8]),
    through(INDICES, EIGHT, 0, 0),
)
_case(
    "palette_of_8_bits_and_1000_entries",
    "C.7.6.3.1.5: the index is as wide as the pixels",
    palette(ramp(0, 1100), MANY, [1000, 50, 8], bits=16),
    through(ramp(0, 1100), MANY, 50, 0),
)
_case(
    "palette_of_16_bits",
    "C.7.6.3.1.5: below the first value mapped the first colour, above the last the last",
    palette(FEW, SIXTEEN, [100, 10, 16]),
    through(FEW, SIXTEEN, 10, 8),
)
_case(
    "palette_of_16_bits_big_endian",
    "C.7.6.3.1.6, PS3.5 A.3",
    palette(ramp(0, 119), SIXTEEN, [100, 10, 16], bits=16, syntax=ExplicitVRBigEndian),
    through(FEW, SIXTEEN, 10, 8),
)
_case(
    "palette_of_8_bits_big_endian",
    "C.7.6.3.1.6, PS3.5 A.3: two entries in a word, the first in its low byte",
    palette(INDICES, EIGHT, [256, 0, 8], bits=16, syntax=ExplicitVRBigEndian),
    through(INDICES, EIGHT, 0, 0),
)
_case(
    "palette_segmented_16_bits",
    "C.7.9.2",
    palette(FEW, PARTS, [100, 10, 16], segmented=True),
    through(FEW, EXPANDED, 10, 8),
    dcmtk=None,
)
_case(
    "palette_segmented_16_bits_big_endian",
    "C.7.9.2, PS3.5 A.3",
    palette(FEW, PARTS, [100, 10, 16], segmented=True, bits=16, syntax=ExplicitVRBigEndian),
    through(FEW, EXPANDED, 10, 8),
    dcmtk=None,
)
_case(
    "palette_segmented_8_bits",
    "C.7.9.2",
    palette(FEW, SMALL, [100, 10, 8], segmented=True),
    through(FEW, SMALL_EXPANDED, 10, 0),
    dcmtk=None,
)
