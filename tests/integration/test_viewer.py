"""The viewer and the lists behind it: which images there are, and a page that needs no script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from gateway.web import frames
from gateway.web.frames import WINDOWS
from record import accounts, admission, conflicts
from record.db import transaction
from record.models import User
from record.states import Role
from tests.conftest import FreshDatabase
from tests.instances import instance, saved
from tests.records import arrival, study_of, uid
from tests.shown import ct, pixels, rendered, take, viewer
from tests.web_records import Desk, desk_on


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture(scope="module")
def physician(desk: Desk) -> TestClient:
    return desk.signed_in(Role.ATTENDING)


def test_sides_of_a_conflict_are_marked_until_a_person_decides(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    first = ct(InstanceNumber=1)
    other = ct((0,) * 18, InstanceNumber=2, SOPInstanceUID=first.SOPInstanceUID)
    stranger = ct((1,) * 18, InstanceNumber=3, PatientID="P2", PatientName="Other^Patient")
    series = [each.SeriesInstanceUID for each in (first, first, first)]
    first.SeriesInstanceUID, other.SeriesInstanceUID, stranger.SeriesInstanceUID = series
    study_uid = uid()
    for n, ds in enumerate((first, other, stranger)):
        ds.StudyInstanceUID = study_uid
        desk.take([saved(tmp_path, ds, f"{n}.dcm")])

    def listed() -> list[list[str]]:
        items = physician.get(f"/api/v1/studies/{study_uid}/images").json()["items"]
        return [item["flags"] for item in items]

    assert listed() == [[], ["conflict"], ["conflict"]]
    with transaction(desk.engine) as session:
        sides = [str(side.id) for side in conflicts.undecided(session, study_of(session, study_uid).id)]
    assert len(sides) == 2
    for side in sides:
        page = physician.get(viewer(study_uid, side)).text
        assert "Nobody has decided yet whether this image belongs to the study" in page
        assert pixels(physician.get(rendered(study_uid, side))).size
    attending = desk.user(Role.ATTENDING)
    with transaction(desk.engine) as session:
        by = accounts.user_principal(session.query(User).filter_by(login=attending).one())
        for row in conflicts.undecided(session, study_of(session, study_uid).id):
            conflicts.decide(session, row.id, keep=False, by=by, reason="not this patient's")
    assert listed() == [[]]
    for side in sides:  # by its address it can still be looked at, since somebody may doubt the decision
        assert "it was taken out" in physician.get(viewer(study_uid, side)).text


def test_who_decides_is_told_what_differs_and_what_cannot_be_decoded(desk: Desk, tmp_path: Path) -> None:
    good, study_uid = ct(InstanceNumber=1, PatientName="One^Patient", PatientID="P1"), uid()
    cut = ct(InstanceNumber=1, PatientName="Two^Patient", PatientID="P1", SOPInstanceUID=good.SOPInstanceUID)
    cut.PixelData = cut.PixelData[:10]
    for n, ds in enumerate((good, cut)):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, study_uid + ".1"
        desk.take([saved(tmp_path, ds, f"{n}.dcm")])
    for role, sees_pictures in ((Role.OPERATOR, False), (Role.ATTENDING, True)):
        client = desk.signed_in(role)
        (side,) = client.get(f"/api/v1/studies/{study_uid}").json()["conflicts"]
        assert side["differs"] == ["patient_name", "size_bytes"]
        assert (side["href"] is not None, side["standing"]["patient_name"]) == (sees_pictures, "One^Patient")
        client.headers["Accept"] = "text/html"
        page = client.get(f"/studies/{study_uid}").text
        assert "The two name different patients." in page
        assert "no: it cannot be decoded" in page
        assert page.count("<td><bdi>yes</bdi></td>") == 1, "the one in the study can"
        assert ("/rendered?size=512" in page) is sees_pictures


def test_images_come_in_reading_order_and_in_parts(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    one, two = uid(), uid()
    made = [
        ct(SeriesInstanceUID=series, SeriesNumber=number, InstanceNumber=n, SeriesDescription=f"S{number}")
        for series, number in ((two, 2), (one, 1))
        for n in (3, 1, 2)
    ]
    made.append(ct(SeriesInstanceUID=uid()))
    study_uid, ids = take(desk, tmp_path, *made)
    address = f"/api/v1/studies/{study_uid}/images"
    whole = physician.get(address).json()
    assert [item["instance_id"] for item in whole["items"]] == [ids[n] for n in (4, 5, 3, 1, 2, 0, 6)]
    assert [(item["place"], item["of"]) for item in whole["items"]][:3] == [(1, 3), (2, 3), (3, 3)]
    assert whole["next"] is None
    found, start = [], 0
    while start is not None:
        part = physician.get(f"{address}?start={start}&limit=3").json()
        found += part["items"]
        start = part["next"]
    assert found == whole["items"]
    assert physician.get(found[0]["href"]).status_code == 200


@pytest.mark.slow
def test_a_series_of_two_thousand_images_costs_a_page_twelve_thumbnails(desk: Desk, physician: TestClient) -> None:
    study_uid = uid()
    with transaction(desk.engine) as session:
        slices = [arrival(study_uid, instance_number=n, modality="CT") for n in range(1, 2001)]
        admission.admit(session, slices)
        study = study_of(session, study_uid)
        shown = frames.images_of(session, study, per_series=12)
        assert [image.place for image in shown] == [int(2000 * (n + 0.5) / 12) + 1 for n in range(12)]
        assert {image.of for image in shown} == {2000}
        assert [image.place for image in frames.series_of(session, study)] == [1001]
        for several in (1, 2, 7, 2000, 3000):
            assert len(frames.images_of(session, study, per_series=several)) == min(several, 2000)
    physician.headers["Accept"] = "text/html"
    try:
        page = physician.get(f"/studies/{study_uid}").text
        assert page.count("/rendered?size=256") == 12
        assert len(page) < 60_000
        number_1000 = str(slices[999].instance_id)
        page = physician.get(viewer(study_uid, number_1000)).text
    finally:
        del physician.headers["Accept"]
    for n in (0, 998, 1000, 1999):
        assert f'href="/studies/{study_uid}/instances/{slices[n].instance_id}?frame=1"' in page
    assert len(page) < 150_000


@pytest.mark.slow
def test_a_study_of_many_series_shows_fewer_images_of_each(desk: Desk, physician: TestClient) -> None:
    study_uid = uid()
    with transaction(desk.engine) as session:
        several = [
            arrival(study_uid, series_instance_uid=f"{study_uid}.{s}", series_number=s, instance_number=n)
            for s in range(60)
            for n in range(8)
        ]
        admission.admit(session, several)
    page = physician.get(f"/studies/{study_uid}", headers={"Accept": "text/html"}).text
    assert page.count("/rendered?size=256") == 360


# ---- the page, without a script


def links(page: str) -> dict[str, str]:
    """The addresses of the steps by their name."""
    return {
        step: href.replace("&amp;", "&")
        for href, step in re.findall(r'href="([^"]+)" data-go="step" data-step="(\w+)"', page)
    }


def test_a_series_is_stepped_through_by_links(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    series = uid()
    several = instance(4, Modality="CT", NumberOfFrames=3, SeriesInstanceUID=series, InstanceNumber=2)
    several.PixelData = bytes(96)
    made = [ct(SeriesInstanceUID=series, InstanceNumber=1), several, ct(SeriesInstanceUID=series, InstanceNumber=3)]
    study_uid, ids = take(desk, tmp_path, *made)
    address, walked = viewer(study_uid, ids[0]), []
    for _ in range(10):
        page = physician.get(address).text
        where = re.search(r"<span data-at>(\d+)</span> / (\d+)", page)
        assert where
        walked.append((int(where[1]), address.partition("/instances/")[2]))
        assert where[2] == "5"
        if "next" not in links(page):
            break
        address = links(page)["next"]
    assert [n for n, _ in walked] == [1, 2, 3, 4, 5]
    assert [each.partition("?")[0] for _, each in walked] == [ids[0], ids[1], ids[1], ids[1], ids[2]]
    steps = links(page)
    assert steps.keys() == {"first", "previous"}
    assert steps["first"].endswith(f"{ids[0]}?frame=1")
    assert steps["previous"].endswith(f"{ids[1]}?frame=3")
    jump = physician.get(viewer(study_uid, ids[0]) + "&number=4&preset=lung")
    assert jump.headers["location"].endswith(f"{ids[1]}?frame=3&preset=lung")
    far = physician.get(viewer(study_uid, ids[0]) + "&number=999")
    assert far.headers["location"].endswith(f"{ids[2]}?frame=1")


def test_windows_are_chosen_by_links_and_by_a_form(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    said = {"WindowCenter": [40, 50], "WindowWidth": [400, 80], "WindowCenterWidthExplanation": ["<b>W1", "BRAIN"]}
    study_uid, (image,) = take(desk, tmp_path, ct(**said))
    page = physician.get(viewer(study_uid, image)).text
    for preset in ("as-sent", "as-sent-2", "auto", "full", *WINDOWS):
        assert f"?frame=1&amp;preset={preset}" in page
    assert "40 / 400" in page
    assert "&lt;b&gt;W1" in page
    assert "Not for primary diagnosis" in page
    assert f'href="/studies/{study_uid}"' in page
    lung = physician.get(viewer(study_uid, image) + "&preset=lung").text
    assert f'src="/api/v1/studies/{study_uid}/instances/{image}/frames/1/rendered?preset=lung"' in lung
    assert 'value="-600"' in lung
    typed = physician.get(viewer(study_uid, image) + "&center=1000000&width=0.5&invert=true")
    assert typed.headers["location"] == viewer(study_uid, image) + "&window=1000000,0.5&invert=true"
    assert physician.get(typed.headers["location"]).status_code == 200
    for unusable in ("center=nan&width=5", "center=1&width=-1e9", "window=5", "number=0", "frame=0", "preset=rose"):
        assert physician.get(viewer(study_uid, image) + "&" + unusable).status_code in {200, 422}


def test_a_view_that_does_not_fit_the_next_image_is_dropped_on_its_page(
    desk: Desk, physician: TestClient, tmp_path: Path
) -> None:
    study_uid, (image,) = take(desk, tmp_path, instance(4, Modality="CR"))
    page = physician.get(viewer(study_uid, image) + "&preset=lung").text
    assert f'src="/api/v1/studies/{study_uid}/instances/{image}/frames/1/rendered"' in page
    assert "Lung" not in page
    second = physician.get(viewer(study_uid, image) + "&preset=as-sent-6")
    assert second.status_code == 200
    assert f'src="/api/v1/studies/{study_uid}/instances/{image}/frames/1/rendered"' in second.text


def test_the_viewer_leads_to_the_picture_as_the_model_saw_it(desk: Desk, physician: TestClient) -> None:
    study_uid = desk.study()
    items = physician.get(f"/api/v1/studies/{study_uid}/images").json()["items"]
    page = physician.get(viewer(study_uid, items[0]["instance_id"])).text
    found = re.search(r'href="(/api/v1/pictures/[0-9a-f]{64})">As the model saw it', page)
    assert found
    assert physician.get(found[1]).headers["content-type"] == "image/png"
    waiting = desk.study(ends="abstained")
    items = physician.get(f"/api/v1/studies/{waiting}/images").json()["items"]
    page = physician.get(viewer(waiting, items[0]["instance_id"])).text
    assert "The model was not shown this frame." in page
    grid = physician.get(f"/studies/{waiting}", headers={"Accept": "text/html"}).text
    assert f'src="{items[0]["href"]}?size=256"' in grid, "what was not analysed can be looked at"


def test_edges_and_marks_say_which_side_is_which(desk: Desk, physician: TestClient, tmp_path: Path) -> None:
    axial = ct(ImageOrientationPatient=[1, 0, 0, 0, 1, 0], LossyImageCompression="01")
    axial.PixelSpacing = [0.5, 0.5]
    study_uid, (image,) = take(desk, tmp_path, axial)
    page = physician.get(viewer(study_uid, image)).text
    for side, letter in (("left", "R"), ("right", "L"), ("top", "A"), ("bottom", "P")):
        assert f'<span class="{side}">{letter}</span>' in page
    assert 'data-ruler="9.0"' in page  # 18 columns, half a millimetre apart
    assert "Compressed with loss" in page
    study_uid, (image,) = take(desk, tmp_path, ct())
    page = physician.get(viewer(study_uid, image)).text
    assert 'class="left"' not in page
    assert "data-ruler" not in page


def test_the_viewer_s_files_are_served_as_what_they_are(desk: Desk) -> None:
    for name, kind in (("viewer.css", "text/css"), ("viewer.js", "text/javascript"), ("dark.css", "text/css")):
        answer = desk.client().get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
