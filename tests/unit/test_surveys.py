"""What a file says of its frames, and what documents name, from data sets written as devices write them."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from worker.looks import THUMB_SIDE, Look, look, reduced
from worker.references import KEY_OBJECTS, Reference, refer
from worker.regions import region_of, tissue_of
from worker.surveys import Survey, survey


def made(**values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def group(z, *, stack="1", time=None, b=None):
    content = made(StackID=stack, **({} if time is None else {"TemporalPositionIndex": time}))
    one = made(PlanePositionSequence=[made(ImagePositionPatient=[0, 0, z])], FrameContentSequence=[content])
    if b is not None:
        one.MRDiffusionSequence = [made(DiffusionBValue=float(b))]
    return one


def test_places_come_from_shared_and_per_frame_groups():
    shared = made(PlaneOrientationSequence=[made(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    ds = made(NumberOfFrames=3, SharedFunctionalGroupsSequence=[shared])
    ds.PerFrameFunctionalGroupsSequence = [group(0, b=0), group(2, b=0), group(0, b=1000)]
    found = Survey.of(survey(ds))
    assert [p.position for p in found.places] == [(0, 0, 0), (0, 0, 2), (0, 0, 0)]
    assert {p.orientation for p in found.places} == {(1, 0, 0, 0, 1, 0)}
    assert found.places[0].volume == found.places[1].volume != found.places[2].volume


@pytest.mark.parametrize("number", [None, "", 0, 99, "x"])
def test_a_representative_frame_that_cannot_be_is_none(number):
    ds = made(NumberOfFrames=5)
    if number != "x":
        ds.RepresentativeFrameNumber = number if number != "" else None
    assert Survey.of(survey(ds)).representative is None
    ds.RepresentativeFrameNumber = 2
    assert Survey.of(survey(ds)).representative == 1


def test_hostile_groups_are_empty_answers():
    broken = made(PlanePositionSequence=[made()], FrameContentSequence=[])
    ds = made(NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[broken, made()])
    assert Survey.of(survey(ds)).places == ()
    assert Survey.of(survey(made())) == Survey()


def test_a_slides_level_tells_sizes_spacing_and_flavor():
    ds = made(TotalPixelMatrixColumns=1000, TotalPixelMatrixRows=600, Rows=256, Columns=256, NumberOfFrames=12)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.SharedFunctionalGroupsSequence = [made(PixelMeasuresSequence=[made(PixelSpacing=[0.0005, 0.0005])])]
    level = Survey.of(survey(ds)).level
    assert (level.columns, level.rows, level.spacing_mm, level.flavor) == (1000, 600, 0.0005, "VOLUME")


def test_a_key_object_selection_names_instances_and_frames():
    references = [
        made(ReferencedSOPInstanceUID="1.2.3"),
        made(ReferencedSOPInstanceUID="1.2.4", ReferencedFrameNumber=[2, 5]),
    ]
    items = [made(ValueType="IMAGE", ReferencedSOPSequence=[r]) for r in references]
    nested = made(ValueType="CONTAINER", ContentSequence=items)
    ds = made(
        SOPClassUID=KEY_OBJECTS,
        ContentSequence=[made(ValueType="TEXT"), nested],
        ContentDate="20260102",
        ContentTime="1200",
    )
    ds.ConceptNameCodeSequence = [made(CodeValue="113000")]
    found = Reference.of(refer(ds))
    assert found == Reference("113000", "202601021200", (("1.2.3", ()), ("1.2.4", (1, 4))))
    assert Reference.of(refer(made(SOPClassUID=KEY_OBJECTS))).frames == ()


def test_content_rises_with_what_is_to_be_seen():
    rng = np.random.default_rng(1)
    empty = np.zeros((128, 128), np.uint8)
    half = empty.copy()
    half[:, 64:] = rng.integers(0, 255, (128, 64))
    full = rng.integers(0, 255, (128, 128)).astype(np.uint8)
    assert look(empty).content == 0
    assert 0 < look(half).content < look(full).content
    assert look(np.stack([full] * 3, axis=-1)).content == pytest.approx(look(full).content, rel=0.01)
    blurred = full.reshape(64, 2, 64, 2).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
    assert look(blurred).sharpness < look(full).sharpness


@pytest.mark.parametrize("shape", [(128, 128), (1, 1), (3, 500), (16, 16), (7, 90), (2, 2, 3)])
def test_any_shape_can_be_looked_at_and_comes_back_over_the_pipe(shape):
    seen = look(np.full(shape, 99, np.uint8))
    assert seen.thumb.shape == (THUMB_SIDE, THUMB_SIDE)
    back = Look.of({"content": seen.content, "sharpness": seen.sharpness}, seen.thumb.tobytes())
    assert (back.thumb == 99).all()


def test_frames_are_reduced_by_means():
    frame = np.arange(512 * 512, dtype=np.int32).reshape(512, 512)
    small = reduced(frame)
    assert small.shape == (128, 128)
    assert small[0, 0] == round(frame[:4, :4].mean())
    assert reduced(np.zeros((3, 4000), np.uint8)).shape == (3, 4000)
    assert reduced(np.zeros((600, 600, 3), np.uint8)).shape == (150, 150, 3)


def slide(columns, rows, tile, frames):
    return made(
        TotalPixelMatrixColumns=columns, TotalPixelMatrixRows=rows, Rows=tile, Columns=tile, NumberOfFrames=frames
    )


def numbered(tile):
    return lambda frames: (np.full((tile, tile, 3), 10 * (f + 1), np.uint8) for f in frames)


def test_tiles_laid_out_in_full_are_put_together_row_by_row():
    ds = slide(10, 7, 4, 6)
    ds.DimensionOrganizationType = "TILED_FULL"
    whole, factor = region_of(ds, (0, 0, 10, 7), 100, numbered(4))
    assert factor == 1
    assert whole.shape == (7, 10, 3)
    assert whole[[0, 0, 0, 4, 6], [0, 4, 9, 3, 9], 0].tolist() == [10, 20, 30, 40, 60]
    part, _ = region_of(ds, (3, 3, 2, 2), 100, numbered(4))
    assert part[..., 0].tolist() == [[10, 20], [40, 50]]


def test_sparse_tiles_lie_where_they_say_and_glass_is_white():
    def at(x, y):
        return made(
            PlanePositionSlideSequence=[
                made(ColumnPositionInTotalImagePixelMatrix=x, RowPositionInTotalImagePixelMatrix=y)
            ]
        )

    ds = slide(8, 8, 4, 2)
    ds.PerFrameFunctionalGroupsSequence = [at(5, 5), at(1, 1)]
    whole, _ = region_of(ds, (0, 0, 8, 8), 100, numbered(4))
    assert whole[[0, 0, 7, 7], [0, 7, 0, 7], 0].tolist() == [20, 255, 255, 10]


def test_an_overview_is_reduced_while_it_is_put_together():
    ds = slide(4096, 4096, 256, 256)
    ds.DimensionOrganizationType = "TILED_FULL"
    whole, factor = region_of(ds, (0, 0, 4096, 4096), 512, numbered_modulo(256))
    assert factor == 8
    assert whole.shape == (512, 512, 3)


def numbered_modulo(tile):
    return lambda frames: (np.full((tile, tile), f % 200, np.uint8) for f in frames)


@pytest.mark.parametrize("rectangle", [(0, 0, 11, 5), (-1, 0, 5, 5), (0, 0, 0, 5), (9, 6, 2, 2)])
def test_a_region_outside_is_refused(rectangle):
    from record.errors import InvalidInstance

    with pytest.raises(InvalidInstance):
        region_of(slide(10, 7, 4, 6), rectangle, 100, numbered(4))


def test_a_picture_of_too_many_tiles_is_refused_before_one_is_decoded():
    from record.errors import UnsupportedInstance

    def never(frames):
        raise AssertionError

    with pytest.raises(UnsupportedInstance):
        region_of(slide(100_000, 100_000, 256, 400 * 400), (0, 0, 100_000, 100_000), 1024, never)


def test_tissue_is_what_is_stained_and_not_glass_or_shadow():
    picture = np.full((100, 100, 3), 245, np.uint8)
    picture[:50, :50] = (200, 120, 180)  # eosin
    picture[50:, 50:] = (230, 228, 229)  # a grey smear
    assert tissue_of(picture, 2, 2) == [100, 0, 0, 0]
    grey = np.full((10, 10, 3), 250, np.uint8)
    grey[:5] = 90
    assert tissue_of(grey, 2, 1) == [100, 0]
