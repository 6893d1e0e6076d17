"""Frames for people: what is rendered, what is on record of it, and who gets nothing. Real files, store and children."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fastapi.testclient import TestClient

from gateway.web import frames
from gateway.web.frames import WINDOWS, Preset
from record import accounts, studies
from record.db import transaction
from record.models import User
from record.states import Role
from record.store import Kind
from tests.conftest import FreshDatabase
from tests.instances import instance
from tests.records import study_of, uid
from tests.shown import HOUNSFIELD, ct, linear, pixels, rendered, take, viewer
from tests.web_records import Desk, desk_on, problem


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture(scope="module")
def physician(desk: Desk) -> TestClient:
    return desk.signed_in(Role.ATTENDING)


def test_a_preset_is_its_window_in_hounsfield_units(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    study_uid, (image,) = take(desk, tmp_path, ct())
    for preset, window in WINDOWS.items():
        shown = pixels(physician.get(rendered(study_uid, image, preset=preset)))
        assert shown.tolist() == [linear(HOUNSFIELD, *window)], preset
    assert linear(HOUNSFIELD, *WINDOWS[Preset.LUNG])[:3] == [55, 60, 128], "-1024, -1000 and -600 HU, by hand"


def test_a_frame_is_shown_as_sent_by_percentiles_in_full_and_in_any_window(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    said = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    study_uid, (image,) = take(desk, tmp_path, ct(**said))

    def levels(**query: object) -> list[int]:
        return list(pixels(physician.get(rendered(study_uid, image, **query)))[0].tolist())

    assert levels() == levels(preset="as-sent") == linear(HOUNSFIELD, 40, 400)
    assert levels(preset="as-sent-2") == linear(HOUNSFIELD, -600, 1500)
    assert levels(window="100,50.5") == linear(HOUNSFIELD, 100, 50.5)
    assert levels(window="-600,1500", invert="true") == [255 - level for level in linear(HOUNSFIELD, -600, 1500)]
    full = levels(preset="full")
    assert (full[0], full[-1]) == (0, 255)
    assert full[6] == round(1024 / 4095 * 255)
    assert levels(preset="auto") == full  # eighteen values have no half per cent
    assert pixels(physician.get(rendered(study_uid, image, size=16))).shape == (1, 16)


def test_each_frame_of_an_image_is_itself(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    ds = instance(4, Modality="CR", NumberOfFrames=3, PixelSpacing=None)
    ds.PixelData = np.concatenate([np.arange(16) * n for n in (1, 0, 5)]).astype("<u2").tobytes()  # (48,)
    study_uid, (image,) = take(desk, tmp_path, ds)
    shown = [pixels(physician.get(rendered(study_uid, image, n, window="40,80"))) for n in (1, 2, 3)]
    assert [int(each.max()) for each in shown] == [
        linear((15,), 40, 80)[0],
        linear((0,), 40, 80)[0],
        linear((75,), 40, 80)[0],
    ]
    for number, status in ((0, 422), (4, 404), (100_000, 404), (100_001, 422)):
        assert physician.get(rendered(study_uid, image, number)).status_code == status


def test_a_view_that_does_not_fit_is_refused_and_says_what_does(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    colour = instance(4, Modality="US", PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0)
    colour.BitsAllocated = colour.BitsStored = 8
    colour.HighBit, colour.PixelData = 7, bytes(48)
    study_uid, (tomogram, film, coloured) = take(desk, tmp_path, ct(), instance(4, Modality="CR"), colour)
    for image, unfit, said in (
        (film, ("preset=lung",), frames.REFUSALS["not_hounsfield"]),
        (tomogram, ("preset=as-sent-2",), frames.REFUSALS["not_sent"]),
        (coloured, ("preset=lung", "window=1,2", "invert=true"), frames.REFUSALS["colour"]),
        (tomogram, ("window=40,400&preset=lung",), "Send either a preset or a window."),
        (tomogram, ("window=1,0",), "A window has a width above 0."),
        (tomogram, ("preset=rose",), "Missing or unusable: query.preset."),
        (
            tomogram,
            ("window=1", "window=1,-5", "window=nan,inf", "window=1e9,1e9"),
            "Missing or unusable: query.window.",
        ),
        (tomogram, ("size=1", "size=100000"), "Missing or unusable: query.size."),
    ):
        for query in unfit:
            refused = problem(physician.get(rendered(study_uid, image) + query), 422, "invalid_request")
            assert refused["detail"] == said, query
        assert pixels(physician.get(rendered(study_uid, image))).size


# ---- what is on record


def test_serving_a_frame_is_an_event_and_an_answer_without_bytes_is_none(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    study_uid, (image,) = take(desk, tmp_path, ct())
    before = len(desk.events("frame_served"))
    first = physician.get(rendered(study_uid, image, preset="lung"))
    told = desk.events("frame_served")[before:]
    assert told == [{"instance_id": image, "frame": 1, "preset": "lung"}]
    assert "no-cache" in first.headers["cache-control"]
    assert "private" in first.headers["cache-control"]
    again = {"If-None-Match": first.headers["etag"]}
    same = physician.get(rendered(study_uid, image, preset="lung"), headers=again)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    other = physician.get(rendered(study_uid, image, preset="bone"), headers=again)
    assert other.status_code == 200
    assert other.headers["etag"] != first.headers["etag"]
    assert len(desk.events("frame_served")) == before + 2


def test_no_byte_goes_out_that_is_not_on_record(
    desk: Desk, physician: TestClient, module_database: FreshDatabase, tmp_path: Path
) -> None:
    study_uid, (image,) = take(desk, tmp_path, ct())
    with psycopg.connect(module_database.owner_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '57P03'; END $$;"
            " CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.kind IN ('frame_served', 'image_opened'))"
            " EXECUTE FUNCTION refuse()"
        )
        try:
            problem(physician.get(rendered(study_uid, image)), 503, "unavailable")
            problem(physician.get(viewer(study_uid, image)), 503, "unavailable")
        finally:
            owner.execute("DROP TRIGGER refuse ON events; DROP FUNCTION refuse()")
    assert pixels(physician.get(rendered(study_uid, image))).size


def test_opening_the_viewer_and_listing_images_are_events(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    study_uid, (image,) = take(desk, tmp_path, ct())
    assert physician.get(viewer(study_uid, image)).status_code == 200
    assert desk.events("image_opened")[-1] == {"instance_id": image, "frame": 1}
    assert physician.get(f"/api/v1/studies/{study_uid}/images").status_code == 200
    assert desk.events("images_listed")[-1] == {"count": 1}


# ---- who gets nothing


def test_another_study_s_another_site_s_and_an_erased_image_are_not_there(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    study_uid, (image,) = take(desk, tmp_path, ct())
    other_uid, (other,) = take(desk, tmp_path, ct())
    foreign_uid, (foreign,) = take(desk, tmp_path, ct(), site="elsewhere")
    for whose, which in ((study_uid, other), (study_uid, foreign), (foreign_uid, foreign), (other_uid, uid())):
        for address in (rendered(whose, which), viewer(whose, which)):
            assert physician.get(address).status_code in {404, 422}
    problem(physician.get(rendered(foreign_uid, foreign)), 404, "not_found")
    assert desk.signed_in(Role.ATTENDING, site="elsewhere").get(rendered(foreign_uid, foreign)).status_code == 200
    etag = physician.get(rendered(study_uid, image)).headers["etag"]
    admin = desk.user(Role.ADMIN)
    with transaction(desk.engine) as session:
        by = accounts.user_principal(session.query(User).filter_by(login=admin).one())
        studies.erase(session, study_of(session, study_uid).id, by=by)
    problem(physician.get(rendered(study_uid, image)), 404, "not_found")
    problem(physician.get(rendered(study_uid, image), headers={"If-None-Match": etag}), 404, "not_found")
    assert physician.get(viewer(study_uid, image)).status_code == 404
    assert physician.get(f"/api/v1/studies/{study_uid}/images").json() == {"items": [], "next": None}


def test_what_is_no_image_has_no_frame_and_lost_bytes_are_said_to_be_lost(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    report = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    del report.PixelData
    study_uid, (note,) = take(desk, tmp_path, report)
    problem(physician.get(rendered(study_uid, note)), 422, "invalid_instance")
    study_uid, (image,) = take(desk, tmp_path, ct())
    desk.store.delete(Kind.INSTANCE, image.replace("-", ""))
    problem(physician.get(rendered(study_uid, image)), 404, "not_found")
    page = physician.get(viewer(study_uid, image))
    assert page.status_code == 200
    assert "The store holds no such instance." in page.text
