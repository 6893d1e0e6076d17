"""Phantoms: what they show, that they are sound DICOM, and that the small model reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import UID

from worker.phantom import MODEL_DIR
from worker.phantom.anatomy import ZONES, Level, Phantom, Side, Zone, parse_label, report
from worker.phantom.cli import phantoms
from worker.phantom.dicom import Order, fresh_uids, patient_name, seeded_uids, study
from worker.phantom.exam import examine, seen, sent
from worker.phantom.exposure import LARGEST, exposed

LEFT_UPPER = Phantom(Zone(Side.LEFT, Level.UPPER), enlarged=True, seed=9, age_y=61, sex="F")


def instance(order: Order) -> Dataset:
    return study(order, seeded_uids(order, 0))[0]


def picture(ds: Dataset) -> np.ndarray:
    """The grey picture as pydicom's own window makes it, (rows, columns), 0 to 255."""
    shown = apply_windowing(ds.pixel_array, ds) / LARGEST * 255
    return 255 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown


def test_there_are_ten_states_and_each_has_its_own_label_and_report() -> None:
    states = [Phantom(zone, enlarged, 0) for zone in ZONES for enlarged in (False, True)]
    assert len({p.label for p in states}) == len({report(p) for p in states}) == 10
    for phantom in states:
        assert parse_label(phantom.label) == (phantom.zone, phantom.enlarged)
    with pytest.raises(ValueError, match="upside-down"):
        parse_label("upside-down")


def test_a_report_names_the_patients_side_and_mirroring_changes_it() -> None:
    assert report(LEFT_UPPER) == (
        "Findings: There is an opacity in the left upper zone. The heart is enlarged.\n"
        "Impression: Opacity in the left upper zone. Cardiomegaly."
    )
    assert report(LEFT_UPPER, mirrored=True) == report(LEFT_UPPER).replace("left", "right")


def test_the_patients_left_is_on_the_pictures_right() -> None:
    clear = seen(replace(LEFT_UPPER, zone=None)).pixels.astype(int)
    columns = clear.shape[1]
    brighter = (seen(LEFT_UPPER).pixels.astype(int) - clear)[:, :, 0].clip(0)
    assert brighter[:, columns // 2 :].sum() > 10 * brighter[:, : columns // 2].sum()


def test_the_same_seed_draws_the_same_phantom_and_views_differ() -> None:
    np.testing.assert_array_equal(seen(LEFT_UPPER).pixels, seen(LEFT_UPPER).pixels)
    assert seen(LEFT_UPPER).pixels.shape != seen(LEFT_UPPER, view=1).pixels.shape


@pytest.mark.parametrize("inverted", [False, True])
def test_the_files_window_gives_the_picture_that_the_model_learned_from(inverted: bool) -> None:
    shown = picture(instance(Order(LEFT_UPPER, inverted=inverted)))
    np.testing.assert_allclose(shown, seen(LEFT_UPPER).pixels[:, :, 0], atol=0.75)


def test_stored_values_fill_twelve_bits_but_not_the_window_alone() -> None:
    exposure = exposed(LEFT_UPPER)
    assert exposure.stored.max() <= LARGEST
    assert exposure.width < LARGEST


def test_mirroring_flips_the_pixels_and_nothing_else() -> None:
    plain, mirrored = instance(Order(LEFT_UPPER)), instance(Order(LEFT_UPPER, mirrored=True))
    np.testing.assert_array_equal(plain.pixel_array, np.fliplr(mirrored.pixel_array))
    differing = {e.keyword for e in plain if e.VM and e.keyword and mirrored[e.tag].value != e.value}
    assert differing == {"PixelData", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"}


def test_an_instance_says_what_a_chest_radiograph_must() -> None:
    ds = instance(Order(LEFT_UPPER, number=42))
    assert (ds.Modality, ds.BodyPartExamined, ds.ViewPosition) == ("DX", "CHEST", "PA")
    assert list(ds.PatientOrientation) == ["L", "F"]
    assert (ds.PatientName, ds.PatientAge, ds.PatientSex) == ("Phantom^FortyTwo", "061Y", "F")
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation) == (16, 12, 11, 0)
    for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID):
        assert UID(uid).is_valid
        assert uid.startswith("2.25.")
    assert len({ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID}) == 3


@pytest.mark.parametrize(
    ("number", "name"), [(1, "One"), (19, "Nineteen"), (20, "Twenty"), (99, "NinetyNine"), (100, "100")]
)
def test_patients_are_named_so_that_nobody_takes_them_for_people(number: int, name: str) -> None:
    assert patient_name(number) == f"Phantom^{name}"


def test_another_call_makes_other_patients_and_orders(tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        CliRunner().invoke(phantoms, [str(folder), "--count", "1"], catch_exceptions=False)
        made.append(dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True))
    assert made[0].PatientID != made[1].PatientID
    assert made[0].AccessionNumber != made[1].AccessionNumber
    assert all(len(ds.AccessionNumber) <= 16 for ds in made)  # VR SH (PS3.5, 6.2)


def test_uids_repeat_with_their_seed_and_else_never() -> None:
    order = Order(LEFT_UPPER)
    assert seeded_uids(order, 1)("study") == seeded_uids(order, 1)("study") != seeded_uids(order, 2)("study")
    assert seeded_uids(order, 1)("study") != seeded_uids(replace(order, inverted=True), 1)("study")
    assert fresh_uids()("study") != fresh_uids()("study")


def lines(tmp_path: Path, *arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(phantoms, [str(tmp_path), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def test_the_command_writes_a_folder_for_each_study_and_says_what_is_in_it(tmp_path: Path) -> None:
    written = lines(tmp_path / "a", "--count", "10", "--seed", "5")
    assert len({line["label"] for line in written}) == 10
    assert {line["instances"] for line in written} == {1, 2}
    for line in written:
        files = sorted(Path(str(line["path"])).iterdir())
        datasets = [dcmread(file) for file in files]
        assert len(files) == line["instances"]
        assert {ds.StudyInstanceUID for ds in datasets} == {line["study_instance_uid"]}
        assert len({ds.SOPInstanceUID for ds in datasets}) == len(files)
    again = lines(tmp_path / "b", "--count", "10", "--seed", "5")
    assert [line["study_instance_uid"] for line in again] == [line["study_instance_uid"] for line in written]
    other = lines(tmp_path / "c", "--count", "1", "--seed", "5", "--fresh-uids")
    assert other[0]["study_instance_uid"] != written[0]["study_instance_uid"]
    assert other[0]["label"] == written[0]["label"]


def test_the_command_mirrors_inverts_and_takes_a_label(tmp_path: Path) -> None:
    options = ("--count", "1", "--seed", "5", "--label", "left-upper", "--views", "1")
    plain = lines(tmp_path / "a", *options)[0]
    mirrored = lines(tmp_path / "b", *options, "--mirror", "--photometric", "MONOCHROME1")[0]
    assert (plain["side"], mirrored["side"]) == ("left", "right")
    assert plain["label"] == mirrored["label"] == "left-upper"
    assert "right upper zone" in str(mirrored["report"])
    one, other = (dcmread(Path(str(line["path"])) / "1.dcm") for line in (plain, mirrored))
    assert other.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_allclose(picture(one), np.fliplr(picture(other)), atol=0.1)


def test_the_command_refuses_a_folder_in_use_and_a_label_it_does_not_know(tmp_path: Path) -> None:
    lines(tmp_path, "--count", "1")
    assert CliRunner().invoke(phantoms, [str(tmp_path), "--count", "1"]).exit_code != 0
    assert CliRunner().invoke(phantoms, [str(tmp_path / "x"), "--label", "odd"]).exit_code != 0


def test_the_committed_model_reads_phantoms_it_has_not_seen() -> None:
    shares = examine("phantom", count=60, seed=77)
    assert shares["exact"] >= 0.95
    assert shares["exact_mirrored"] >= 0.95
    assert shares["exact_two_views"] >= 0.95
    assert shares["exact_through_files"] >= 0.95


@pytest.mark.parametrize("inverted", [False, True])
def test_the_worker_makes_of_the_file_the_picture_that_the_model_learned_from(inverted: bool) -> None:
    made = sent(Order(LEFT_UPPER, inverted=inverted)).pixels
    np.testing.assert_allclose(made.astype(int), seen(LEFT_UPPER).pixels.astype(int), atol=1)


def test_the_committed_model_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 6_000_000


@pytest.mark.slow
def test_training_saves_a_checkpoint_that_the_engine_opens(tmp_path: Path) -> None:
    from worker.engines import open_engine
    from worker.phantom.train import main

    assert main(["--out", str(tmp_path), "--steps", "2", "--phantoms", "4", "--threads", "1"]) == 0
    engine = open_engine(str(tmp_path), slots=1, self_test=False)
    assert engine.identity.architecture == "LlavaForConditionalGeneration"
    engine.close()
