"""Grey cases: one small data set for each rule of the display pipeline, and the picture that the standard asks for.

Knows the reference's formulas and how a data set is written. Knows nothing of our rendering. Each case says where its rule
stands, and whether dcm2pnm knows it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from tests.unit.golden.reference import between, level, linear, linear_exact, looked_up, sample, sigmoid

SIDE = 16
XA = "1.2.840.10008.5.1.4.1.1.12.1"
Grid = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One rule.

    Attributes
    ----------
    rule
        Where it stands.
    dcmtk
        Options of dcm2pnm that show the same; None where it does not know the rule.
    lost
        Grey levels that the codec may cost, on the mean.
    """

    name: str
    rule: str
    ds: Dataset
    picture: Any
    frame: int = 0
    dcmtk: tuple[str, ...] | None = None
    lost: float = 0.0


def ramp(low: int, high: int) -> Grid:
    """Whole values from one to another, over 16 rows of 16."""
    last = SIDE * SIDE - 1
    return [[low + (high - low) * (SIDE * r + c) // last for c in range(SIDE)] for r in range(SIDE)]


def each(cells: Grid, rule: Callable[[int], Any]) -> list[list[Any]]:
    """The picture: a rule applied to one cell after the other."""
    return [[rule(cell) for cell in row] for row in cells]


def written(syntax: str = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    """A data set that can be stored, without pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["golden"])
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


def grey(*frames: Grid, bits: int = 16, syntax: str = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    """One sample a pixel. `frames` are whole words, so what is beside a sample can be said too."""
    standard = {"Modality": "OT", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "Rows": SIDE}
    standard |= {"Columns": SIDE, "BitsAllocated": bits, "BitsStored": bits, "PixelRepresentation": 0}
    standard |= {"HighBit": values.get("BitsStored", bits) - 1}
    if len(frames) > 1:
        standard["NumberOfFrames"] = len(frames)
    ds = written(syntax, **{**standard, **values})
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    words = np.array(frames, dtype="i8").astype(f"{order}{'i' if ds.PixelRepresentation else 'u'}{bits // 8}")
    if syntax in {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}:
        ds.PixelData = words.tobytes()
        ds["PixelData"].VR = "OB" if bits == 8 and syntax == ExplicitVRLittleEndian else "OW"
        if order == ">" and bits == 8:
            ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
    else:
        ds.PixelData = encapsulate([_encoded(frame, syntax, ds) for frame in words])
        ds["PixelData"].VR = "OB"
    return ds


def _encoded(frame: np.ndarray, syntax: str, ds: Dataset) -> bytes:
    bits = ds.BitsStored
    if syntax == RLELossless:
        from pydicom.pixels.encoders.base import EncodeRunner
        from pydicom.pixels.encoders.native import _encode_frame

        runner = EncodeRunner(RLELossless)
        runner.set_options(rows=SIDE, columns=SIDE, samples_per_pixel=1, bits_allocated=ds.BitsAllocated)
        return bytes(_encode_frame(frame.tobytes(), runner))
    unsigned = (frame.astype("i8") % (1 << bits)).astype("u2")  # (rows, columns); these codecs know no sign
    if syntax == JPEGLosslessSV1:
        return imagecodecs.ljpeg_encode(unsigned, bitspersample=bits)
    if syntax == JPEGLSLossless:
        return imagecodecs.jpegls_encode(unsigned)
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True, bitspersample=bits)
    assert syntax == JPEGExtended12Bit
    return imagecodecs.jpeg8_encode(unsigned, level=100, bitspersample=12)


def one(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        if keyword == "SignedLUTDescriptor":
            item.add_new("LUTDescriptor", "SS", value)
        else:
            setattr(item, keyword, value)
    if "LUTData" in item:
        item["LUTData"].VR = "OW"
    return [item]


def words(entries: list[int], order: str = "<") -> bytes:
    """Table entries of 16 bits."""
    return np.array(entries, f"{order}u2").tobytes()


def packed(entries: list[int]) -> bytes:
    """Table entries of 8 bits, two in a word, the first in its low byte."""
    return bytes(entries) + bytes(len(entries) % 2)


def _case(name: str, rule: str, ds: Dataset, picture: Any, *dcmtk: str | None, **more: Any) -> None:
    CASES.append(
        Case(
            name=name,
            rule=rule,
            ds=ds,
            picture=picture,
            dcmtk=None if dcmtk == (None,) else dcmtk or ("+Wi", "1"),
            **more,
        )
    )


CASES: list[Case] = []
CT = ramp(0, 2047)
HU = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
WINDOW = {"WindowCenter": 40, "WindowWidth": 400}

# Windows (PS3.3 C.11.2.1.2 and .3): on modality values, by their own limits.
_case("linear", "C.11.2.1.2.1", grey(CT, **HU, **WINDOW), each(CT, lambda s: level(linear(s - 1024, 40, 400))))
_case(
    "linear_exact",
    "C.11.2.1.3.2",
    grey(CT, **HU, WindowCenter=40, WindowWidth=9, VOILUTFunction="LINEAR_EXACT"),
    each(CT, lambda s: level(linear_exact(s - 1024, 40, 9))),
    None,
)
_case(
    "linear_exact_below_one",
    "C.11.2.1.3.2: only LINEAR needs a width of 1",
    grey(
        ramp(0, 4000),
        Modality="PT",
        RescaleSlope="0.001",
        RescaleIntercept=0,
        VOILUTFunction="LINEAR_EXACT",
        WindowCenter=2,
        WindowWidth="0.5",
    ),
    each(ramp(0, 4000), lambda s: level(linear_exact(s * 0.001, 2, 0.5))),
    None,
)
_case(
    "sigmoid",
    "C.11.2.1.3.1",
    grey(CT, **HU, **WINDOW, VOILUTFunction="SIGMOID"),
    each(CT, lambda s: level(sigmoid(s - 1024, 40, 400))),
)
_case(
    "two_windows",
    "C.11.2.1.2: alternatives; the first is taken",
    grey(CT, **HU, WindowCenter=[40, -600], WindowWidth=[400, 1500]),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
)
_case(
    "negative_slope",
    "C.11.1.1: output units = slope × stored + intercept, before the window",
    grey(CT, RescaleSlope=-1, RescaleIntercept=1024, WindowCenter=-100, WindowWidth=600),
    each(CT, lambda s: level(linear(1024 - s, -100, 600))),
)
_case(
    "fractional_slope",
    "C.11.1.1",
    grey(ramp(0, 65535), Modality="PT", RescaleSlope="0.0371", RescaleIntercept="-3.5", **WINDOW),
    each(ramp(0, 65535), lambda s: level(linear(s * 0.0371 - 3.5, 40, 400))),
)
_case(
    "width_one",
    "C.11.2.1.2.1: a step",
    grey(CT, **HU, WindowCenter=40, WindowWidth=1),
    each(CT, lambda s: level(linear(s - 1024, 40, 1))),
)
for _name, _width in {"width_zero": 0, "width_below_one": "0.5", "width_negative": -400, "width_empty": ""}.items():
    _case(
        _name,
        "C.11.2.1.2.1: Window Width shall be 1 or more, so there is no window",
        grey(CT, WindowCenter=40, WindowWidth=_width),
        each(CT, lambda s: level(between(s, 0, 2047))),
        "+Wm",
    )
_case(
    "empty_strings",
    "empty Type 1C values are as absent",
    grey(CT, WindowCenter="", WindowWidth="", RescaleSlope="", RescaleIntercept="", VOILUTFunction=""),
    each(CT, lambda s: level(between(s, 0, 2047))),
    "+Wm",
)
_case(
    "ct_without_window",
    "our own: a CT without VOI transform is seen in soft tissue, centre 40, width 400",
    grey(CT, **HU),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
    *("+Ww", "40", "400"),
)

# VOI LUT (PS3.3 C.11.2.1.1) goes before a window.
STEPS = [(n * n) // 255 for n in range(256)]
_case(
    "voi_lut_of_8_bits",
    "C.11.2.1.1",
    grey(ramp(0, 399), VOILUTSequence=one(LUTDescriptor=[256, 50, 8], LUTData=packed(STEPS))),
    each(ramp(0, 399), lambda s: level(looked_up(s, STEPS, 50) / 255)),
    *("+Wl", "1"),
)
CURVE = [n * n // 1000 for n in range(8000)]
_case(
    "voi_lut_of_16_bits",
    "C.11.2.1.1",
    grey(ramp(0, 9000), VOILUTSequence=one(LUTDescriptor=[8000, 500, 16], LUTData=words(CURVE))),
    each(ramp(0, 9000), lambda s: level(looked_up(s, CURVE, 500) / 65535)),
    *("+Wl", "1"),
)
LONG = [min(max((n - 864) * 255 // 400, 0), 255) for n in range(4096)]
_case(
    "voi_lut_of_4096_entries_of_8_bits",
    "C.11.1.1.1: entries of 8 bits, however many, may lie two in a word",
    grey(CT, **HU, VOILUTSequence=one(SignedLUTDescriptor=[4096, -1024, 8], LUTData=packed(LONG))),
    each(CT, lambda s: level(looked_up(s - 1024, LONG, -1024) / 255)),
    *("+Wl", "1"),
)
_case(
    "voi_lut_of_12_bits_a_word_each",
    "C.11.1.1.1: the output's range is that of the bits an entry has",
    grey(ramp(0, 4095), VOILUTSequence=one(LUTDescriptor=[4096, 0, 12], LUTData=words(list(range(4095, -1, -1))))),
    each(ramp(0, 4095), lambda s: level((4095 - s) / 4095)),
    *("+Wl", "1"),
)
_case(
    "voi_lut_before_window",
    "C.11.2.1.2: where both are there they are alternatives; a table is what its maker tuned",
    grey(ramp(0, 399), **WINDOW, VOILUTSequence=one(LUTDescriptor=[256, 50, 8], LUTData=packed(STEPS))),
    each(ramp(0, 399), lambda s: level(looked_up(s, STEPS, 50) / 255)),
    *("+Wl", "1"),
)
_case(
    "voi_lut_big_endian",
    "C.11.2.1.1, PS3.5 A.3",
    grey(
        ramp(0, 9000),
        syntax=ExplicitVRBigEndian,
        VOILUTSequence=one(LUTDescriptor=[8000, 500, 16], LUTData=words(CURVE, ">")),
    ),
    each(ramp(0, 9000), lambda s: level(looked_up(s, CURVE, 500) / 65535)),
    *("+Wl", "1"),
)

# Modality LUT (PS3.3 C.11.1).
BENT = [n * 3 if n < 1000 else 3000 + n for n in range(2000)]
_case(
    "modality_lut_from_a_negative_value",
    "C.11.1.1.1: the first value mapped is signed where pixels are",
    grey(
        ramp(-1200, 1200),
        PixelRepresentation=1,
        ModalityLUTSequence=one(SignedLUTDescriptor=[2000, -1000, 16], LUTData=words(BENT), ModalityLUTType="US"),
        WindowCenter=2500,
        WindowWidth=3000,
    ),
    each(ramp(-1200, 1200), lambda s: level(linear(looked_up(s, BENT, -1000), 2500, 3000))),
)
_case(
    "modality_lut_without_window",
    "C.11.1",
    grey(
        ramp(0, 2500),
        ModalityLUTSequence=one(LUTDescriptor=[2000, 100, 16], LUTData=words(BENT), ModalityLUTType="US"),
    ),
    each(ramp(0, 2500), lambda s: level(between(looked_up(s, BENT, 100), BENT[0], BENT[-1]))),
    "+Wm",
)
for _name, _transform in {
    "modality_lut": {
        "ModalityLUTSequence": one(LUTDescriptor=[2000, 100, 16], LUTData=words(BENT), ModalityLUTType="US")
    },
    "rescale": {"RescaleSlope": 3, "RescaleIntercept": -700},
}.items():
    _case(
        f"angiography_without_its_{_name}",
        "C.8.7.1.1.2: of XA and XRF it leads back to the beam's intensity, and is not for display",
        grey(
            ramp(0, 2500),
            SOPClassUID=XA,
            Modality="XA",
            PixelIntensityRelationship="LOG",
            **_transform,
            WindowCenter=1200,
            WindowWidth=2000,
        ),
        each(ramp(0, 2500), lambda s: level(linear(s, 1200, 2000))),
    )


# Functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16.2.9 and .10); dcm2pnm does not look there.
def _groups(rescale: tuple[float, float] | None, window: tuple[float, float] | None) -> Dataset:
    group = Dataset()
    if rescale:
        group.PixelValueTransformationSequence = one(
            RescaleSlope=rescale[0], RescaleIntercept=rescale[1], RescaleType="US"
        )
    if window:
        group.FrameVOILUTSequence = one(WindowCenter=window[0], WindowWidth=window[1])
    return group


def _enhanced(shared: Dataset, *per_frame: Dataset, **values: Any) -> Dataset:
    return grey(
        *(CT for _ in per_frame),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=list(per_frame),
        **values,
    )


_case(
    "groups_shared",
    "C.7.6.16.1.1",
    _enhanced(_groups((2, -1000), (500, 900)), Dataset(), Dataset()),
    each(CT, lambda s: level(linear(2 * s - 1000, 500, 900))),
    None,
    frame=1,
)
_case(
    "groups_of_the_first_frame",
    "C.7.6.16.1.2",
    _enhanced(Dataset(), _groups((1, -1024), (40, 400)), _groups((2, -1024), (-200, 2000))),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
    None,
)
_case(
    "groups_of_the_second_frame",
    "C.7.6.16.1.2",
    _enhanced(Dataset(), _groups((1, -1024), (40, 400)), _groups((2, -1024), (-200, 2000))),
    each(CT, lambda s: level(linear(2 * s - 1024, -200, 2000))),
    None,
    frame=1,
)
_case(
    "groups_shared_window_and_rescale_of_the_frame",
    "C.7.6.16.1: each group stands in one place or the other",
    _enhanced(_groups(None, (500, 900)), _groups((1, 0), None), _groups((0.5, 100), None)),
    each(CT, lambda s: level(linear(0.5 * s + 100, 500, 900))),
    None,
    frame=1,
)
_case(
    "groups_win_over_the_top_level",
    "C.7.6.16.1: the frame's own group is nearer to it",
    _enhanced(Dataset(), _groups(None, None), _groups((1, -1024), (40, 400)), WindowCenter=9, WindowWidth=9),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
    None,
    frame=1,
)

# Presentation (PS3.3 C.7.6.3.1.2, C.11.6): one inversion at most.
for _name, _model, _shape, _inverse in (
    ("monochrome1", "MONOCHROME1", None, True),
    ("monochrome1_inverse", "MONOCHROME1", "INVERSE", True),
    ("monochrome2_inverse", "MONOCHROME2", "INVERSE", True),
    ("monochrome2_identity", "MONOCHROME2", "IDENTITY", False),
):
    _case(
        _name,
        "C.7.6.3.1.2, C.11.6.1.1",
        grey(
            CT, **HU, **WINDOW, PhotometricInterpretation=_model, **({"PresentationLUTShape": _shape} if _shape else {})
        ),
        each(CT, lambda s, i=_inverse: level(1 - linear(s - 1024, 40, 400) if i else linear(s - 1024, 40, 400))),
    )

# Bits of a word (PS3.5 8.1.1).
DIRTY = [[w | (0xF000 if (r + c) % 3 else 0) for c, w in enumerate(row)] for r, row in enumerate(ramp(0, 4095))]
_case(
    "overlay_bits_above",
    "PS3.5 8.1.1: bits beside the sample are none of it",
    grey(DIRTY, BitsStored=12),
    each(DIRTY, lambda w: level(between(sample(w, 12, 11, signed=False), 0, 4095))),
    "+Wm",
)
LEFT = each(ramp(0, 4095), lambda s: s << 4 | s % 16)
_case(
    "high_bit_15_of_12_bits",
    "PS3.5 8.1.1: High Bit",
    grey(LEFT, BitsStored=12, HighBit=15, WindowCenter=1000, WindowWidth=3000),
    each(LEFT, lambda w: level(linear(sample(w, 12, 15, signed=False), 1000, 3000))),
)
MIDDLE = each(ramp(0, 1023), lambda s: 0xE000 | s << 3 | 5)
_case(
    "high_bit_12_of_10_bits",
    "PS3.5 8.1.1: High Bit, and bits on both sides",
    grey(MIDDLE, BitsStored=10, HighBit=12),
    each(MIDDLE, lambda w: level(between(sample(w, 10, 12, signed=False), 0, 1023))),
    "+Wm",
)
TWELVE = each(ramp(-2048, 2047), lambda s: s % 4096)  # the sign not extended, as PS3.5 8.1.1 has it
_case(
    "signed_12_bits",
    "PS3.5 8.1.1: two's complement of Bits Stored",
    grey(TWELVE, BitsStored=12, PixelRepresentation=1, WindowCenter=0, WindowWidth=3000),
    each(TWELVE, lambda w: level(linear(sample(w, 12, 11, signed=True), 0, 3000))),
)
_case(
    "signed_16_bits",
    "PS3.5 8.1.1",
    grey(ramp(-32768, 32767), PixelRepresentation=1),
    each(ramp(-32768, 32767), lambda s: level(between(s, -32768, 32767))),
    "+Wm",
)
_case(
    "eight_bits",
    "PS3.5 8.1.1",
    grey(ramp(10, 200), bits=8),
    each(ramp(10, 200), lambda s: level(between(s, 10, 200))),
    "+Wm",
)
_case(
    "signed_8_bits",
    "PS3.5 8.1.1",
    grey(ramp(-128, 127), bits=8, PixelRepresentation=1, WindowCenter=0, WindowWidth=100),
    each(ramp(-128, 127), lambda s: level(linear(s, 0, 100))),
)
_case(
    "thirty_two_bits",
    "PS3.5 8.1.1",
    grey(ramp(0, 4_000_000_000), bits=32),
    each(ramp(0, 4_000_000_000), lambda s: level(between(s, 0, 4_000_000_000))),
    "+Wm",
)
_case(
    "big_endian",
    "PS3.5 7.3, A.3",
    grey(CT, syntax=ExplicitVRBigEndian, **HU, **WINDOW),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
)
_case(
    "big_endian_8_bits_in_words",
    "PS3.5 8.1.1, A.3: 8-bit cells in OW are swapped within the word",
    grey(ramp(0, 255), bits=8, syntax=ExplicitVRBigEndian),
    each(ramp(0, 255), lambda s: level(s / 255)),
    "+Wm",
)
_case(
    "implicit",
    "PS3.5 A.1",
    grey(CT, syntax=ImplicitVRLittleEndian, **HU, **WINDOW),
    each(CT, lambda s: level(linear(s - 1024, 40, 400))),
)


def _floats(values: list[list[float]], keyword: str, code: str, **more: Any) -> Dataset:
    ds = grey(CT, bits=int(code[-1]) * 8, Modality="OT", **more)
    for absent in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, absent)
    setattr(ds, keyword, np.array(values, code).tobytes())
    return ds


SUV = each(CT, lambda s: s / 64 - 4)  # exact in binary
_case(
    "float_pixels",
    "C.7.6.24",
    _floats(SUV, "FloatPixelData", "<f4", WindowCenter=10, WindowWidth=20, VOILUTFunction="LINEAR_EXACT"),
    each(SUV, lambda x: level(linear_exact(x, 10, 20))),
    None,
)
_case(
    "double_float_pixels",
    "C.7.6.25",
    _floats(SUV, "DoubleFloatPixelData", "<f8"),
    each(SUV, lambda x: level(between(x, -4, 2047 / 64 - 4))),
    None,
)
HOLES = [[-1000.0 if r < 4 and c < 4 else x for c, x in enumerate(row)] for r, row in enumerate(SUV)]
_case(
    "float_padding",
    "C.7.6.24: Float Pixel Padding Value",
    _floats(HOLES, "FloatPixelData", "<f4", FloatPixelPaddingValue=-1000.0),
    each(HOLES, lambda x: level(between(x, SUV[0][4], 2047 / 64 - 4))),
    None,
)

# Padding (PS3.3 C.7.5.1.1.2) has no part in the extremes of an image without window; dcmtk counts it.
CORNER = [[-2000 if r < 4 and c < 4 else v for c, v in enumerate(row)] for r, row in enumerate(ramp(-500, 1500))]
_case(
    "padding_signed",
    "C.7.5.1.1.2",
    grey(CORNER, PixelRepresentation=1, PixelPaddingValue=-2000),
    each(CORNER, lambda s: level(between(s, CORNER[0][4], 1500))),
    None,
)
HIGH = [[65000 + r if r < 4 and c < 4 else v for c, v in enumerate(row)] for r, row in enumerate(ramp(100, 3000))]
_case(
    "padding_range_unsigned",
    "C.7.5.1.1.2: from the value to the limit, both included",
    grey(HIGH, PixelPaddingValue=65003, PixelPaddingRangeLimit=65000),
    each(HIGH, lambda s: level(between(s, HIGH[0][4], 3000))),
    None,
)
LOW = [[-32768 + r if r < 4 and c < 4 else v for c, v in enumerate(row)] for r, row in enumerate(ramp(-900, 900))]
_case(
    "padding_range_signed",
    "C.7.5.1.1.2",
    grey(LOW, PixelRepresentation=1, PixelPaddingValue=-32768, PixelPaddingRangeLimit=-32765),
    each(LOW, lambda s: level(between(s, LOW[0][4], 900))),
    None,
)
_case(
    "padding_with_window",
    "C.7.5.1.1.2: a window stays what it is",
    grey(CORNER, PixelRepresentation=1, PixelPaddingValue=-2000, **WINDOW),
    each(CORNER, lambda s: level(linear(s, 40, 400))),
)

# Oblong pixels (PS3.3 C.7.6.3.1.7, 10.7.1.3) become square: vertical bands stay what they are when they grow taller.
BANDS = [[17 * c for c in range(SIDE)] for _ in range(SIDE)]
TALL = [[17 * c for c in range(SIDE)] for _ in range(2 * SIDE)]
_case(
    "aspect_ratio", "C.7.6.3.1.7: vertical, then horizontal", grey(BANDS, bits=8, PixelAspectRatio=[2, 1]), TALL, None
)
_case(
    "unequal_spacing", "10.7.1.3: between rows, then columns", grey(BANDS, bits=8, PixelSpacing=[1.0, 0.5]), TALL, None
)
_case(
    "aspect_ratio_below_one",
    "C.7.6.3.1.7",
    grey([list(each) for each in zip(*BANDS, strict=True)], bits=8, PixelAspectRatio=[1, 2]),
    [[17 * r for _ in range(2 * SIDE)] for r in range(SIDE)],
    None,
)

# Codecs (PS3.5 annex A.4): what a decoder gives are samples.
SIGNED = {"BitsStored": 12, "PixelRepresentation": 1, "WindowCenter": 0, "WindowWidth": 3000}
for _name, _syntax in {
    "rle": RLELossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
}.items():
    _case(
        f"{_name}_unsigned_12_bits",
        "PS3.5 A.4",
        grey(ramp(0, 4095), syntax=_syntax, BitsStored=12, WindowCenter=1000, WindowWidth=3000),
        each(ramp(0, 4095), lambda s: level(linear(s, 1000, 3000))),
        *((None,) if _syntax == JPEG2000Lossless else ()),
    )
    _case(
        f"{_name}_signed_12_bits",
        "PS3.5 A.4, 8.2",
        grey(ramp(-2048, 2047), syntax=_syntax, **SIGNED),
        each(ramp(-2048, 2047), lambda s: level(linear(s, 0, 3000))),
        *((None,) if _syntax == JPEG2000Lossless else ()),
    )
_case(
    "rle_overlay_bits_above",
    "PS3.5 8.1.1, G: RLE keeps whole words",
    grey(DIRTY, syntax=RLELossless, BitsStored=12),
    each(DIRTY, lambda w: level(between(sample(w, 12, 11, signed=False), 0, 4095))),
    "+Wm",
)
_case(
    "rle_high_bit_15_of_12_bits",
    "PS3.5 8.1.1, G",
    grey(LEFT, syntax=RLELossless, BitsStored=12, HighBit=15, WindowCenter=1000, WindowWidth=3000),
    each(LEFT, lambda w: level(linear(sample(w, 12, 15, signed=False), 1000, 3000))),
)
_case(
    "jpeg_extended_12_bits",
    "PS3.5 A.4.1",
    grey(ramp(0, 4095), syntax=JPEGExtended12Bit, BitsStored=12, WindowCenter=2048, WindowWidth=4096),
    each(ramp(0, 4095), lambda s: level(linear(s, 2048, 4096))),
    lost=0.5,
)
