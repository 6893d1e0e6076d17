"""Grey levels against values worked out by hand, and against dcmtk where it is at hand."""

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from record.errors import InvalidRequest, UnsupportedInstance
from worker.attributes import Window, frame_attributes
from worker.codecs import DECODERS, NATIVE, colour_model, register
from worker.decoding import answer
from worker.rendering import Span, named_window, render, show, window_values
from worker.tables import Lut

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "dicom"


def header(**values):
    ds = Dataset()
    standard = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}
    standard |= {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0}
    for keyword, value in {**standard, **values}.items():
        setattr(ds, keyword, value)
    return ds


def grey(stored, ds, *, frame=0, dtype=None, **options):
    stored = np.atleast_2d(np.array(stored, dtype or ("i2" if ds.PixelRepresentation else "u2")))
    rendering = render(stored, frame_attributes(ds, frame), **options)
    assert rendering.pixels.dtype == np.uint8
    assert (rendering.pixels[..., 0] == rendering.pixels[..., 2]).all()
    return rendering.pixels[..., 0].tolist()


def sequence(**values):
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        # y = (x - 39.5) / 399 + 0.5: black up to -160, white from 239
        ("LINEAR", [-200, -160, -159, 39.5, 40, 238, 239, 900], [0, 0, 1 / 399, 0.5, 0.5 + 0.5 / 399, 398 / 399, 1, 1]),
        ("LINEAR_EXACT", [-161, -160, 40, 140, 240, 241], [0, 0, 0.5, 0.75, 1, 1]),
        ("SIGMOID", [40, 140, -60], [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]),
    ],
)
def test_windows_follow_the_standards_formulas(function, values, expected):
    found = window_values(np.array(values, float), Window(40, 400, function))
    assert found == pytest.approx(np.array(expected))


def test_a_linear_window_of_width_one_is_a_step():
    assert window_values(np.array([9.4, 9.5, 9.6, 11.0]), Window(10, 1)).tolist() == [0, 0, 1, 1]


def test_the_window_is_applied_to_modality_values():
    ds = header(
        Modality="CT", PixelRepresentation=1, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=401
    )
    assert grey([412, 512, 513, 612, 900], ds) == [[0, 128, 129, 255, 255]]  # HU -200, 0, 2, 200, 776; centre at -0.5


def test_a_negative_slope_inverts_once():
    ds = header(RescaleSlope=-1, RescaleIntercept=100, WindowCenter=50.5, WindowWidth=101)
    assert grey([0, 50, 100], ds) == [[255, 128, 0]]


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        ("MONOCHROME2", None, [0, 51, 255]),
        ("MONOCHROME1", None, [255, 204, 0]),
        ("MONOCHROME1", "INVERSE", [255, 204, 0]),
        ("MONOCHROME2", "INVERSE", [255, 204, 0]),
        ("MONOCHROME1", "IDENTITY", [0, 51, 255]),
    ],
)
def test_one_inversion_only(model, shape, expected):
    ds = header(PhotometricInterpretation=model, **({"PresentationLUTShape": shape} if shape else {}))
    assert grey([0, 20, 100], ds) == [expected]


def test_without_a_window_the_extremes_are_those_of_pixels_that_are_no_padding():
    ds = header(PixelRepresentation=1, PixelPaddingValue=-2000)
    assert grey([-2000, 0, 50, 100], ds) == [[0, 0, 128, 255]]
    ranged = header(PixelPaddingValue=60000, PixelPaddingRangeLimit=65535)
    assert grey([0, 100, 60000, 65535], ranged) == [[0, 255, 255, 255]]
    unsigned = header(PixelRepresentation=1, PixelPaddingValue=63536)  # -2000 read as US
    assert grey([-2000, 0, 100], unsigned) == [[0, 0, 255]]
    assert grey([5, 5, 5], header(PixelPaddingValue=5)) == [[0, 0, 0]]


def test_a_ct_without_window_is_shown_in_soft_tissue():
    ds = header(Modality="CT", PixelRepresentation=1, RescaleSlope=1, RescaleIntercept=0)
    rendering = render(np.array([[-1000, 40, 3000]], "i2"), frame_attributes(ds, 0))
    assert rendering.pixels[0, :, 0].tolist() == [0, 128, 255]
    assert rendering.transform["voi"]["source"] == "named:soft_tissue"


def test_an_asked_window_takes_the_place_of_the_files():
    ds = header(
        Modality="CT", PixelRepresentation=1, RescaleSlope=1, RescaleIntercept=0, WindowCenter=40, WindowWidth=400
    )
    assert grey([-1400, -600, 200], ds, window=named_window("lung")) == [[0, 128, 255]]
    with pytest.raises(InvalidRequest):
        named_window("rose")


@pytest.mark.parametrize("width", [0, "", None, -5])
def test_a_useless_width_is_as_none(width):
    ds = header(WindowCenter=50, WindowWidth=width)
    assert grey([0, 100], ds) == [[0, 255]]


def test_of_several_windows_the_first_is_taken():
    ds = header(WindowCenter=[50.5, 500], WindowWidth=[101, 10])
    assert grey([0, 50, 100], ds) == [[0, 128, 255]]


def test_enhanced_frames_have_transforms_of_their_own():
    ds = header(Modality="CT", NumberOfFrames=2)
    ds.SharedFunctionalGroupsSequence = sequence(
        FrameVOILUTSequence=sequence(WindowCenter=50.5, WindowWidth=101),
        PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=0),
    )
    second = sequence(PixelValueTransformationSequence=sequence(RescaleSlope=2, RescaleIntercept=-100))
    ds.PerFrameFunctionalGroupsSequence = [Dataset(), *second]
    assert grey([0, 50, 100], ds, frame=0) == [[0, 128, 255]]
    assert grey([0, 50, 100], ds, frame=1) == [[0, 0, 255]]


def test_a_modality_lut_comes_before_the_window():
    table = np.array([0, 1000, 2000, 3000], "<u2").tobytes()
    ds = header(
        ModalityLUTSequence=sequence(LUTDescriptor=[4, 10, 16], LUTData=table), WindowCenter=1500.5, WindowWidth=3001
    )
    assert grey([0, 10, 11, 13, 99], ds) == [[0, 0, 85, 255, 255]]


def test_a_voi_lut_of_eight_bits_with_a_negative_first_value():
    ds = header(Modality="CT", PixelRepresentation=1, RescaleSlope=1, RescaleIntercept=-10)
    table = np.arange(0, 256, dtype="u1").tobytes()  # two entries a word
    ds.VOILUTSequence = sequence(LUTDescriptor=[256, 65535 - 99, 8], LUTData=table)  # first value mapped: -100
    assert grey([-200, -90, 10, 900], ds) == [[0, 0, 100, 255]]


def test_bits_above_the_sample_are_dropped_and_high_bit_is_honoured():
    masked = header(BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    assert grey([0xF000, 0x0FFF, 0xA800], masked) == grey([0x0000, 0x0FFF, 0x0800], masked)
    shifted = header(BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    assert grey([0x0001, 0xFFF0, 0x8000], shifted) == grey([0x0000, 0x0FFF, 0x0800], masked)
    signed = header(BitsStored=12, HighBit=11, PixelRepresentation=1, WindowCenter=0.5, WindowWidth=4096)
    assert grey([0x0800, 0x07FF], signed, dtype="u2") == [[0, 255]]  # -2048 and 2047
    attributes = frame_attributes(masked, 0)
    plain = render(np.array([[0xF000]], "u2"), attributes, native=False).pixels
    assert plain.max() == 255  # a decoder gives samples, not words


def test_wide_and_float_values_are_rendered_without_a_table():
    wide = header(BitsAllocated=32, BitsStored=32, HighBit=31)
    assert grey([0, 2**31, 2**32 - 1], wide, dtype="u4") == [[0, 128, 255]]
    real = header(BitsAllocated=32, BitsStored=32, HighBit=31)
    assert grey([-1.0, 0.0, 1.0, np.nan, np.inf], real, dtype="f4") == [[0, 128, 255, 0, 255]]


def test_palettes_map_indices_to_colours():
    ds = header(PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7)
    for colour, entries in {"Red": (0, 65535, 256), "Green": (0, 0, 512), "Blue": (65280, 0, 0)}.items():
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [3, 7, 16])
        setattr(ds, f"{colour}PaletteColorLookupTableData", np.array(entries, "<u2").tobytes())
    pixels = render(np.array([[0, 7, 8, 9, 200]], "u1"), frame_attributes(ds, 0)).pixels
    assert pixels[0].tolist() == [[0, 0, 255], [0, 0, 255], [255, 0, 0], [1, 2, 0], [1, 2, 0]]
    bare = header(PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(UnsupportedInstance):
        render(np.zeros((2, 2), "u1"), frame_attributes(bare, 0))


def test_eight_bit_tables_of_more_than_256_entries_do_not_wrap():
    lut = Lut(np.arange(1000) // 4, -500, 8)
    assert lut(np.array([-501, -500, 0, 499, 500])).tolist() == [0, 0, 125, 249, 249]


def test_colour_is_never_windowed_and_wide_colour_loses_its_low_bits():
    ds = header(PhotometricInterpretation="RGB", SamplesPerPixel=3, BitsStored=16, WindowCenter=5, WindowWidth=2)
    pixels = render(np.array([[[0, 0x8000, 0xFFFF]]], "u2"), frame_attributes(ds, 0), window=Window(1, 2)).pixels
    assert pixels.tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("model", ["CMYK", "HSV", "YBR_PARTIAL_422", ""])
def test_a_colour_model_that_is_not_rendered_is_refused(model):
    with pytest.raises(UnsupportedInstance):
        render(np.zeros((2, 2, 3), "u1"), frame_attributes(header(PhotometricInterpretation=model), 0))


def test_pixels_become_square_and_large_pictures_small():
    tall = header(PixelSpacing=[2.0, 1.0])
    picture = render(np.arange(200, dtype="u2").reshape(10, 20), frame_attributes(tall, 0))
    assert picture.pixels.shape == (20, 20, 3)
    assert picture.transform["resize"]["aspect"] == 2.0
    wide = header(PixelAspectRatio=[1, 2])
    assert render(np.zeros((10, 20), "u2"), frame_attributes(wide, 0)).pixels.shape == (10, 40, 3)
    assert render(np.zeros((500, 1000), "u2"), frame_attributes(header(), 0), max_side=100).pixels.shape == (50, 100, 3)
    assert render(np.zeros((50, 60), "u2"), frame_attributes(header(), 0), max_side=100).transform["resize"] is None
    absurd = header(PixelAspectRatio=[1, 10000])
    assert render(np.zeros((10, 20), "u2"), frame_attributes(absurd, 0)).pixels.shape == (10, 20, 3)


def test_a_frame_that_shows_nothing_is_blank():
    window = {"WindowCenter": 5000, "WindowWidth": 10}
    ramp = np.arange(100, dtype="u2").reshape(10, 10)
    assert render(np.full((9, 9), 7, "u2"), frame_attributes(header(), 0)).blank
    assert render(ramp, frame_attributes(header(**window), 0)).blank
    assert not render(ramp, frame_attributes(header(), 0)).blank


def test_the_transform_tells_every_step_in_plain_values():
    ds = header(
        PhotometricInterpretation="MONOCHROME1", RescaleSlope=1, RescaleIntercept=-5, WindowCenter=50, WindowWidth=100
    )
    transform = render(np.zeros((2, 3), "u2"), frame_attributes(ds, 0)).transform
    assert transform == {
        "photometric_interpretation": "MONOCHROME1",
        "source_height": 2,
        "source_width": 3,
        "bits_stored": 16,
        "modality": {"kind": "rescale", "slope": 1.0, "intercept": -5.0},
        "voi": {"kind": "linear", "center": 50.0, "width": 100.0, "function": "LINEAR", "source": "file"},
        "inverted": True,
        "padding": None,
        "shift": 0,
        "resize": None,
    }


def test_a_jpegs_markers_say_what_its_components_are():
    def stream(marker, content):
        return b"\xff\xd8\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content + b"\xff\xda\x00\x02"

    adobe = b"Adobe\x00\x64\x00\x00\x00\x00"
    assert colour_model(stream(0xEE, adobe + b"\x00"), "YBR_FULL_422") == "RGB"
    assert colour_model(stream(0xEE, adobe + b"\x01"), "RGB") == "YCBCR"
    assert colour_model(stream(0xE0, b"JFIF\x00\x01\x01"), "RGB") == "YCBCR"
    assert colour_model(stream(0xE1, b"else"), "RGB") == "RGB"
    assert colour_model(b"\xff\xd8\xff\xe0\x00", "YBR_FULL") == "YCBCR"


def seen(stored, ds, **options):
    stored = np.atleast_2d(np.array(stored, "i2" if ds.PixelRepresentation else "u2"))
    pixels = show(stored, frame_attributes(ds, 0), **options).levels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2
    return pixels.tolist()


HEAD_CT = {"Modality": "CT", "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, "14e59de4aefb227e"),
        ({"WindowCenter": [2048, 100], "WindowWidth": [1024, 50]}, "c86e2a8b9b9e3bbf"),
        ({**HEAD_CT, "PresentationLUTShape": "INVERSE"}, "a126e021557855de"),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0, "PixelSpacing": [2, 1]},
            "0bd6c3308d3c507c",
        ),
    ],
)
def test_what_the_model_sees_stays_to_the_byte(values, digest):
    """Frozen: a change here is another rendering, so another entry in the changelog."""
    stored = (np.arange(96 * 128).reshape(96, 128) * 7 % 4096).astype("i2" if "PixelRepresentation" in values else "u2")
    rendering = render(stored, frame_attributes(header(**values), 0), max_side=100)
    said = rendering.pixels.tobytes() + json.dumps(rendering.transform, sort_keys=True).encode()
    assert hashlib.sha256(said).hexdigest()[:16] == digest


def test_a_person_sees_the_file_s_own_view_as_the_model_does():
    stored = (np.arange(64 * 48).reshape(64, 48) * 3 % 4000).astype("u2")
    for values in ({}, {"WindowCenter": 900, "WindowWidth": 500}, {"PhotometricInterpretation": "MONOCHROME1"}):
        attributes = frame_attributes(header(**values), 0)
        assert (show(stored, attributes).levels == render(stored, attributes).pixels[..., 0]).all()


def test_a_person_may_take_any_view_that_the_file_brings():
    ds = header(
        WindowCenter=["100.5", "50.5", "1"],
        WindowWidth=["201", "101", "0"],
        WindowCenterWidthExplanation=["WIDE", "NARROW", "NONE"],
    )
    tables = [
        sequence(LUTDescriptor=[2, 0, 8], LUTData=[255, 0], LUTExplanation="  swapped\n it" + "x" * 44),
        sequence(LUTDescriptor=[2, 0, 8], LUTData=[0, 255]),
    ]
    ds.VOILUTSequence = [item for each in tables for item in each]
    attributes = frame_attributes(ds, 0)
    assert len(attributes.sent) == 4  # tables first, and no window of width 0
    assert attributes.explanations == ("swapped it" + "x" * 44, "", "WIDE", "NARROW")
    assert seen([0, 1, 200], ds) == [[255, 0, 0]]
    assert seen([0, 1, 200], ds, view=attributes.sent[1]) == [[0, 255, 255]]
    assert seen([0, 100, 200], ds, view=attributes.sent[2]) == [[0, 128, 255]]
    assert seen([0, 50, 200], ds, view=attributes.sent[3]) == [[0, 128, 255]]


def test_a_further_table_that_is_broken_is_left_out_and_the_first_one_is_not():
    good, broken = sequence(LUTDescriptor=[2, 0, 8], LUTData=[0, 255]), sequence(LUTDescriptor=[2, 0, 8], LUTData=["a"])
    ds = header(VOILUTSequence=[*good, *broken])
    assert len(frame_attributes(ds, 0).sent) == 1
    with pytest.raises((TypeError, ValueError)):
        frame_attributes(header(VOILUTSequence=[*broken, *good]), 0)


def test_a_span_goes_from_one_percentile_to_another_without_padding():
    ds = header(PixelPaddingValue=60000)
    stored = [60000] * 100 + list(range(1000)) + [40000]
    assert seen(stored, ds, view=Span(0, 100))[0][-1] == 255
    auto = seen(stored, ds, view=Span(0.5, 99.5))[0]
    assert auto[100:106] == [0, 0, 0, 0, 0, 0]  # 5 of 1001 lie below the 0.5th percentile
    assert auto[100 + 996 :] == [255] * 5
    middle = auto[100 + 500]
    assert abs(middle - 127) <= 1
    assert seen([7, 7, 7], ds, view=Span(0.5, 99.5)) == [[0, 0, 0]]
    assert seen([0] * 999 + [9], ds, view=Span(0.5, 99.5))[0][-1] == 255  # the extremes, where a span leaves nothing


def test_inverting_is_black_for_white_and_never_for_colour():
    ds = header(WindowCenter=50.5, WindowWidth=101)
    assert seen([0, 50, 100], ds, invert=True) == [[255, 127, 0]]
    colour = header(PhotometricInterpretation="RGB", SamplesPerPixel=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    red = np.array([[[255, 0, 0]]], "u1")
    assert show(red, frame_attributes(colour, 0), invert=True).levels.tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),  # PS3.3 C.8.2.1: a CT's values are Hounsfield units unless Rescale Type says otherwise
        ({"RescaleType": "HU"}, True),
        ({"RescaleType": "US"}, False),
        ({"RescaleSlope": None, "RescaleIntercept": None}, False),
        ({"Modality": "CR"}, False),
        ({"Modality": "PT", "RescaleType": "BQML"}, False),
        ({"ModalityLUTSequence": sequence(LUTDescriptor=[2, 0, 16], LUTData=[0, 1], ModalityLUTType="HU")}, True),
        ({"ModalityLUTSequence": sequence(LUTDescriptor=[2, 0, 16], LUTData=[0, 1], ModalityLUTType="US")}, False),
    ],
)
def test_hounsfield_units_are_known_from_the_header(values, expected):
    assert frame_attributes(header(**{**HEAD_CT, **values}), 0).hounsfield is expected


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("ct_mr/CT_small.dcm", (-600, 1500)),
        ("ct_mr/CT_small.dcm", (40, 80)),
        ("series/mr_ge_3", (300, 500)),
        ("xray", (2000, 1500)),
    ],
)
@pytest.mark.slow
def test_windows_that_a_person_asks_for_agree_with_dcmtk(name, window, tmp_path):
    """Through the very operation that serves a frame; the mean difference is of one grey level at most."""
    tool = shutil.which("dcm2pnm")
    if tool is None or not (SAMPLES / name).exists():
        pytest.skip("dcmtk or the sample files are not at hand")
    register()
    compared = 0
    for path in [SAMPLES / name] if (SAMPLES / name).is_file() else sorted((SAMPLES / name).glob("*.dcm")):
        view = {"kind": "window", "center": window[0], "width": window[1]}
        said, png = answer({"op": "show", "path": str(path), "frame": 0, "view": view})
        target = tmp_path / f"{path.stem}.pgm"
        command = [tool, "-q", "-O", "+F", "1", "+op", "+Ww", *map(str, window), path, target]
        if "error" in said or "refused" in said or subprocess.run(command, check=False).returncode:
            continue
        ours, theirs = np.asarray(Image.open(io.BytesIO(png))).astype(int), np.asarray(Image.open(target)).astype(int)
        if ours.shape != theirs.shape:
            continue  # oblong pixels: dcmtk leaves them
        assert np.abs(ours - theirs).mean() <= 1, path.name
        compared += 1
    assert compared


def test_native_syntaxes_are_decoded_without_a_plugin():
    assert {DECODERS[uid] for uid in NATIVE} == {""}
    assert DECODERS[ExplicitVRLittleEndian] == ""


@pytest.mark.timeout(20)
def test_a_segmented_palette_that_repeats_repeats_costs_no_time():
    """PS3.3 C.7.9.2.3: a repeat must not copy another, for this very reason."""
    segments, start = [0, 1, 5] + [0, 0] * 1000, 6  # one entry, then a thousand segments without any
    for _ in range(2):
        here = 2 * len(segments)
        segments += [2, 1000, start, 0] * 1000
        start = here
    ds = header(PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7)
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", np.array(segments, "<u2").tobytes())
    with pytest.raises(ValueError, match="segments"):
        frame_attributes(ds, 0)
