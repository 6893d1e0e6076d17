"""Presentation states and uptake values, worked out by hand."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from worker.attributes import frame_attributes
from worker.presentation import presentation_of
from worker.rendering import named_window, render
from worker.suv import suv_factor


def made(**values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def image(**values):
    said = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "BitsAllocated": 16}
    said |= {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "WindowCenter": 10, "WindowWidth": 20}
    return made(**{**said, **values})


STORED = np.array([[0, 1000, 2000], [3000, 4000, 4095]], "u2")


def shown(state, *, stored=STORED, **values):
    attributes = frame_attributes(image(**values), 0)
    presentation = presentation_of(state, "1.2", 0, attributes, stored.shape)
    return render(stored, attributes, state=presentation)


def voi(center, width, *uids, frames=None):
    item = made(WindowCenter=center, WindowWidth=width)
    if uids:
        item.ReferencedImageSequence = [
            made(ReferencedSOPInstanceUID=u, **({"ReferencedFrameNumber": frames} if frames else {})) for u in uids
        ]
    return item


def test_a_states_window_takes_the_place_of_the_files():
    state = made(SoftcopyVOILUTSequence=[voi(2000.5, 4001)])
    assert shown(state).levels.tolist() == [[0, 64, 128], [191, 255, 255]]


def test_of_several_windows_the_one_for_this_image_and_frame_is_taken():
    state = made(
        SoftcopyVOILUTSequence=[
            voi(10, 20, "1.9"),
            voi(10, 20, "1.2", frames=[2]),
            voi(2000.5, 4001, "1.2", frames=[1, 3]),
        ]
    )
    assert shown(state).levels[0, 2] == 128


def test_without_a_window_the_whole_range_of_the_samples_is_shown():
    assert shown(made()).levels.tolist() == [[0, 62, 125], [187, 249, 255]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_states_shape_alone_inverts(photometric):
    state = {"SoftcopyVOILUTSequence": [voi(2000.5, 4001)]}
    plain = shown(made(**state, PresentationLUTShape="IDENTITY"), PhotometricInterpretation=photometric)
    inverse = shown(made(**state, PresentationLUTShape="INVERSE"), PhotometricInterpretation=photometric)
    assert plain.levels[0, 0] == 0
    assert np.abs(plain.levels.astype(int) + inverse.levels - 255).max() <= 1  # halves are rounded to even


def test_a_table_follows_the_window():
    table = made(LUTDescriptor=[4, 0, 8], LUTData=[0, 10, 20, 255])
    state = made(SoftcopyVOILUTSequence=[voi(2000.5, 4001)], PresentationLUTSequence=[table])
    assert shown(state).levels.tolist() == [[0, 0, 10], [20, 255, 255]]


def test_a_states_rescale_comes_before_its_window():
    state = made(RescaleSlope=2, RescaleIntercept=-4000, SoftcopyVOILUTSequence=[voi(0.5, 8001)])
    assert shown(state).levels.tolist() == [[0, 64, 128], [191, 255, 255]]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({}, [[0, 64, 128], [191, 255, 255]]),
        ({"ImageHorizontalFlip": "Y"}, [[128, 64, 0], [255, 255, 191]]),
        ({"ImageRotation": 90}, [[191, 0], [255, 64], [255, 128]]),  # clockwise (PS3.3 C.10.6)
        ({"ImageRotation": 180}, [[255, 255, 191], [128, 64, 0]]),
        ({"ImageRotation": 90, "ImageHorizontalFlip": "Y"}, [[0, 191], [64, 255], [128, 255]]),
    ],
)
def test_pictures_are_rotated_and_then_flipped(turn, expected):
    assert shown(made(SoftcopyVOILUTSequence=[voi(2000.5, 4001)], **turn)).levels.tolist() == expected


def test_the_displayed_area_is_cut_out_and_shutters_cover():
    area = made(DisplayedAreaTopLeftHandCorner=[2, 1], DisplayedAreaBottomRightHandCorner=[3, 2])
    state = made(SoftcopyVOILUTSequence=[voi(2000.5, 4001)], DisplayedAreaSelectionSequence=[area])
    assert shown(state).levels.tolist() == [[64, 128], [255, 255]]
    edges = {"ShutterLeftVerticalEdge": 2, "ShutterRightVerticalEdge": 3}
    edges |= {"ShutterUpperHorizontalEdge": 1, "ShutterLowerHorizontalEdge": 1}
    state = made(
        SoftcopyVOILUTSequence=[voi(2000.5, 4001)], ShutterShape="RECTANGULAR", ShutterPresentationValue=0x8000, **edges
    )
    assert shown(state).levels.tolist() == [[128, 64, 128], [128, 128, 128]]


def test_circles_and_polygons_cover_what_lies_outside():
    flat = np.full((21, 21), 4000, "u2")
    circle = made(ShutterShape="CIRCULAR", CenterOfCircularShutter=[11, 11], RadiusOfCircularShutter=5)
    levels = shown(circle, stored=flat).levels
    assert levels[10, 10] == 249
    assert levels[10, 15] == 249
    assert levels[10, 16] == levels[0, 0] == 0
    polygon = made(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[1, 1, 1, 11, 21, 1])
    levels = shown(polygon, stored=flat).levels
    assert levels[1, 1] == 249
    assert levels[20, 20] == 0


def test_a_turned_picture_says_where_its_edges_face():
    from record.orientation import turned

    axial = ("R", "L", "A", "P")
    assert turned(axial, 90, flipped=False) == ("P", "A", "R", "L")
    assert turned(axial, 180, flipped=False) == ("L", "R", "P", "A")
    assert turned(axial, 0, flipped=True) == ("L", "R", "A", "P")
    assert turned((), 90, flipped=True) == ()


def pet(**values):
    tracer = made(RadionuclideTotalDose=370e6, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="100000")
    said = {"Modality": "PT", "Units": "BQML", "CorrectedImage": ["ATTN", "DECY"], "DecayCorrection": "START"}
    said |= {"PatientWeight": 70.0, "SeriesDate": "20260101", "SeriesTime": "110000", "AcquisitionDate": "20260101"}
    said |= {"AcquisitionTime": "110500", "RadiopharmaceuticalInformationSequence": [tracer]}
    return made(**{**said, **values})


def test_the_factor_by_body_weight_with_the_decay_of_an_hour():
    decayed = 370e6 * 2 ** (-3600 / 6586.2)
    assert suv_factor(pet()) == pytest.approx(70_000 / decayed)
    assert suv_factor(pet(DecayCorrection="ADMIN")) == pytest.approx(70_000 / 370e6)


@pytest.mark.parametrize(
    "values",
    [
        {"Units": "CNTS"},
        {"CorrectedImage": ["DECY"]},
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"DecayCorrection": "NONE"},
        {"SeriesTime": "120000"},  # after the acquisition: a series made anew
        {"SeriesTime": ""},
        {"RadiopharmaceuticalInformationSequence": []},
        {"RadiopharmaceuticalInformationSequence": [made(RadionuclideTotalDose=1e6)]},
    ],
)
def test_where_a_fact_is_missing_there_is_no_factor(values):
    assert suv_factor(pet(**values)) is None


def test_an_injection_of_the_evening_before_counts_back_over_midnight():
    tracer = made(RadionuclideTotalDose=370e6, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="233000")
    late = pet(SeriesTime="003000", AcquisitionTime="004000", RadiopharmaceuticalInformationSequence=[tracer])
    assert suv_factor(late) == pytest.approx(70_000 / (370e6 * 2 ** (-3600 / 6586.2)))


def test_uptake_is_shown_dark_and_counts_where_the_factor_is_unknown():
    grey = {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 16}
    grey |= {"HighBit": 15, "PixelRepresentation": 0, "RescaleSlope": 1, "RescaleIntercept": 0}
    attributes = frame_attributes(pet(**grey), 0)
    values = np.array([[0, round(3.5 / attributes.suv_factor), round(7 / attributes.suv_factor)]], "u2")
    seen = render(values, attributes, window=named_window("suv"))
    assert seen.levels.tolist()[0] == pytest.approx([255, 127, 0], abs=1)
    assert seen.transform["voi"]["source"] == "named:suv"
    unknown = render(values, frame_attributes(pet(**grey, Units="CNTS"), 0), window=named_window("suv"))
    assert unknown.transform["voi"]["instead_of"] == "suv"
    assert unknown.levels[0, 0] == 255
    already = frame_attributes(pet(**{**grey, "PhotometricInterpretation": "MONOCHROME1"}), 0)
    assert render(values, already, window=named_window("suv")).levels.tolist() == seen.levels.tolist()
