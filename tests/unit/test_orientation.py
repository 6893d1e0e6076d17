"""Which way the edges of a picture face, by the standard's own definitions and examples."""

from __future__ import annotations

import pytest

from record.orientation import Edges, edges, width_mm


def cosines(*values: float) -> dict[str, object]:
    return {"image_orientation_patient": list(values)}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # PS3.3 C.7.6.2.1.1: x grows to the patient's left, y to the back, z to the head; row direction, then column's.
        (cosines(1, 0, 0, 0, 1, 0), Edges(left="R", right="L", top="A", bottom="P")),  # axial, seen from the feet
        (cosines(1, 0, 0, 0, 0, -1), Edges(left="R", right="L", top="H", bottom="F")),  # coronal, seen from the front
        (cosines(0, 1, 0, 0, 0, -1), Edges(left="A", right="P", top="H", bottom="F")),  # sagittal, seen from the left
        (cosines(-1, 0, 0, 0, -1, 0), Edges(left="L", right="R", top="P", bottom="A")),  # axial, patient prone
        # a head CT tilted by 20 degrees: the lower edge faces the back and the feet
        (cosines(1, 0, 0, 0, 0.9397, -0.342), Edges(left="R", right="L", top="A", bottom="P")),
        (cosines(1, 0, 0, 0, 0.9, -0.4359), Edges(left="R", right="L", top="AH", bottom="PF")),
        # PS3.3 C.7.6.1.1.1: a PA chest film hangs as if the patient faced us
        ({"patient_orientation": ["L", "F"]}, Edges(left="R", right="L", top="H", bottom="F")),
        ({"patient_orientation": ["A", "F"]}, Edges(left="P", right="A", top="H", bottom="F")),  # a lateral one
        ({"patient_orientation": ["AR", "FL"]}, Edges(left="PL", right="AR", top="HR", bottom="FL")),
        # the cosines say it better
        ({**cosines(1, 0, 0, 0, 1, 0), "patient_orientation": ["P", "F"]}, Edges("R", "L", "A", "P")),
    ],
)
def test_the_edges_face_where_the_header_says(header: dict[str, object], expected: Edges) -> None:
    assert edges(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"image_orientation_patient": None, "patient_orientation": None},
        cosines(1, 0, 0),
        cosines(0, 0, 0, 0, 0, 0),
        cosines(1, 0, 0, 1, 0, 0),  # a column along a row
        cosines(1, 0, 0, 0.7071, 0.7071, 0),
        cosines(3, 0, 0, 0, 1, 0),
        cosines(1e300, 0, 0, 0, 1e300, 0),
        {"patient_orientation": ["L"]},
        {"patient_orientation": ["L", ""]},
        {"patient_orientation": ["L", "R"]},
        {"patient_orientation": ["L", "LF"]},
        {"patient_orientation": ["LR", "F"]},
        {"patient_orientation": ["L", "<b>"]},
        {"patient_orientation": ["L", "F", "H"]},
        {"patient_orientation": ["LE", "CD"]},  # of animals (PS3.3 C.7.6.1.1.1): not ours
    ],
)
def test_a_header_that_does_not_say_it_leaves_the_edges_bare(header: dict[str, object]) -> None:
    assert edges(header) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"modality": "CT", "pixel_spacing": [0.5, 0.25], "columns": 512}, 128.0),  # rows apart, then columns apart
        ({"modality": "MR", "pixel_spacing": [1, 1], "columns": 0}, None),
        ({"modality": "CR", "pixel_spacing": [0.1, 0.1], "columns": 2000}, None),  # a projection is enlarged
        (
            {
                "modality": "CT",
                "pixel_spacing": [1, 1],
                "columns": 512,
                "image_type": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
            },
            None,
        ),
        ({"modality": "CT", "pixel_spacing": [0, 0.25], "columns": 512}, None),
        ({"modality": "CT", "pixel_spacing": [], "columns": 512}, None),
    ],
)
def test_only_a_cross_section_has_a_width(header: dict[str, object], expected: float | None) -> None:
    assert width_mm(header) == expected
