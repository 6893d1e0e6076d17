"""The worklist's page: tabs, order, search, paging, and what keeps it live."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from gateway.web import worklist_pages
from record import admission
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import SR, arrival, uid
from tests.web_records import PASSWORD, Desk, csrf_of, desk_on


@pytest.fixture
def desk(database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(database, tmp_path_factory.mktemp("store")) as made:
        yield made


def browser(desk: Desk, role: Role = Role.ATTENDING) -> TestClient:
    client = desk.client(headers={"Accept": "text/html,*/*"})
    client.post("/sign-in", data={"login": desk.user(role), "password": PASSWORD})
    return client


def names(page: httpx.Response) -> list[str]:
    """The patients of a worklist, from top to bottom."""
    assert page.status_code == 200
    return re.findall(r'<th scope="row"><a href="[^"]*"><bdi>([^<]*)</bdi></a>', page.text)


def search(client: TestClient, **words: str) -> httpx.Response:
    answer = client.post("/search", data={"csrf": csrf_of(client.get("/")), **words})
    if answer.status_code != 303 or answer.headers["location"] == "/":
        return answer
    assert re.fullmatch(r"/search\?kept=[0-9a-f]{8}", answer.headers["location"])
    return client.get(answer.headers["location"])


def change(desk: Desk, study_uid: str, changes: str) -> None:
    with transaction(desk.engine) as session:
        session.execute(text(f"UPDATE studies SET {changes} WHERE study_instance_uid = :uid"), {"uid": study_uid})


def sign(desk: Desk, study_uid: str) -> None:
    report = desk.report_of(study_uid)
    asked = {"seen": report.revision, "shown": 1, "password": PASSWORD}
    answer = desk.signed_in(Role.ATTENDING).post(f"/api/v1/reports/{report.id}/sign", json=asked)
    assert answer.status_code == 200, answer.text


def test_each_study_stands_in_the_tab_of_what_is_to_be_done(desk: Desk) -> None:
    desk.study(patient_name="DRAFT")
    desk.study(patient_name="ABSTAINED", ends="abstained")
    desk.study(patient_name="FAILED", ends="failed")
    desk.study(patient_name="NOPIXELS", has_pixels=False)
    sign(desk, desk.study(patient_name="SIGNED"))
    report = desk.report_of(desk.study(patient_name="PRELIMINARY"))
    resident = desk.signed_in(Role.RESIDENT)
    assert resident.post(f"/api/v1/reports/{report.id}/preliminary", json={"seen": 1}).status_code == 200
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(uid(), patient_name="ARRIVING")])
    client = browser(desk)
    assert set(names(client.get("/"))) == {"DRAFT", "ABSTAINED", "FAILED"}
    assert names(client.get("/?tab=not_ready")) == ["ARRIVING"]
    assert names(client.get("/?tab=preliminary")) == ["PRELIMINARY"]
    assert names(client.get("/?tab=signed")) == ["SIGNED"]
    assert names(client.get("/?tab=attention")) == ["FAILED"]
    assert len(names(client.get("/?tab=all"))) == 7
    page = client.get("/").text
    counts = re.findall(r'data-tab="\d">([^<]*) <span class="count[^"]*">(\d+)<', page)
    assert counts == [("To read", "3"), ("Not ready", "1"), ("Preliminary", "1"), ("Needs attention", "1")]


def test_a_cancelled_report_leaves_the_study_out_of_what_is_to_be_read(desk: Desk) -> None:
    report = desk.report_of(desk.study())
    client = browser(desk)
    assert len(names(client.get("/"))) == 1
    cancel = {"seen": 1, "reason": "Wrong patient."}
    assert desk.signed_in(Role.RESIDENT).post(f"/api/v1/reports/{report.id}/cancel", json=cancel).status_code == 200
    assert names(client.get("/")) == []


def test_work_is_ordered_by_lane_and_then_by_waiting_and_pages_follow_that_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, lane, minutes in (("C", "routine", 60), ("A", "stat", 1), ("D", "routine", 5), ("B", "routine", 90)):
        study_uid = desk.study(patient_name=name)
        change(desk, study_uid, f"lane = '{lane}', created_at = now() - interval '{minutes} minutes'")
    monkeypatch.setattr(worklist_pages, "PAGE_ROWS", 3)
    client = browser(desk)
    first = client.get("/")
    assert names(first) == ["A", "B", "C"]
    assert "1 h 30 min" in first.text
    following = re.search(r'href="([^"]*)" rel="next"', first.text)
    assert following
    second = client.get(following[1].replace("&amp;", "&"))
    assert names(second) == ["D"]
    assert 'rel="first"' in second.text
    assert client.get("/?tab=to_read&cursor=nonsense").status_code == 422


def test_a_patient_is_found_and_the_words_stand_in_no_address_and_no_event(desk: Desk) -> None:
    desk.study(patient_name="CANARY^JANE", patient_id="CAN-1", accession_number="ACC-1", study_date="20260102")
    desk.study(patient_name="OTHER^ONE", patient_id="OTH-1")
    client = browser(desk)
    for words in (
        {"patient_name": "canary"},
        {"patient_id": "CAN-*"},
        {"accession_number": "ACC-1"},
        {"study_date_from": "2026-01-01", "study_date_to": "2026-01-03"},
    ):
        page = search(client, **words)
        assert names(page) == ["CANARY, JANE"]
        assert not [link for link in re.findall(r'(?:href|action)="([^"]*)"', page.text) if "CAN" in link.upper()]
    assert "CANARY" not in str(desk.events("studies_searched")).upper()
    assert "No study matches this search" in search(client, patient_name="nobody").text
    assert search(client).headers["location"] == "/"
    assert search(client, study_date_from="yesterday").status_code == 422


def test_what_was_found_is_turned_page_by_page_and_can_be_come_back_to(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        desk.study(patient_name=f"MANY^{number}")
    monkeypatch.setattr(worklist_pages, "PAGE_ROWS", 2)
    client = browser(desk)
    page = search(client, patient_name="MANY")
    assert names(page) == ["MANY, 2", "MANY, 1"]
    following = re.search(r'<a class="button" href="([^"]*)" rel="next"', page.text)
    assert following
    assert "MANY" not in following[1]
    assert names(client.get(following[1].replace("&amp;", "&"))) == ["MANY, 0"]
    search(client, patient_name="another")
    assert names(client.get(str(page.url))) == ["MANY, 2", "MANY, 1"], "each tab has its own"
    for number in range(8):
        search(client, patient_name=f"another {number}")
    assert client.get(str(page.url)).headers["location"] == "/"


def test_what_was_searched_for_is_its_session_s_alone_and_forgotten_with_it(desk: Desk) -> None:
    desk.study(patient_name="KEPT^ONE")
    client, other = browser(desk), browser(desk)
    page = search(client, patient_name="kept")
    assert names(page) == ["KEPT, ONE"]
    assert other.get(str(page.url)).headers["location"] == "/"
    client.post("/sign-out", data={"csrf": csrf_of(client.get("/"))})
    forgotten = browser(desk)
    assert names(search(forgotten, patient_name="kept")) == ["KEPT, ONE"]
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE user_sessions SET expires_at = now() - interval '1 s' WHERE search IS NOT NULL"))
    browser(desk)
    with transaction(desk.engine) as session:
        assert session.scalar(text("SELECT count(*) FROM user_sessions WHERE search IS NOT NULL")) == 0


def test_who_may_not_search_has_no_form_for_it(desk: Desk) -> None:
    client = browser(desk, Role.AUDITOR)
    page = client.get("/")
    assert 'action="/search"' not in page.text
    assert client.post("/search", data={"csrf": csrf_of(page), "patient_name": "x"}).status_code == 403


def test_a_page_that_looks_again_is_told_that_nothing_moved_and_that_is_no_event(desk: Desk) -> None:
    study_uid = desk.study()
    client = browser(desk)
    page = client.get("/")
    tag = page.headers["etag"]
    assert f'data-tag="{tag.replace(chr(34), "&#34;")}"' in page.text
    before = len(desk.events("worklist_shown"))
    again = client.get("/?tab=to_read", headers={"If-None-Match": tag, "X-Countersign-Background": "1"})
    assert again.status_code == 304
    assert len(desk.events("worklist_shown")) == before
    sign(desk, study_uid)
    assert client.get("/?tab=to_read", headers={"If-None-Match": tag}).status_code == 200
    assert client.get("/", headers={"If-None-Match": tag, "Accept-Language": "es"}).status_code == 200


def test_images_are_counted_without_reports_and_notes(desk: Desk) -> None:
    study_uid = uid()
    with transaction(desk.engine) as session:
        report = arrival(study_uid, sop_class_uid=SR, modality="SR", has_pixels=False)
        admission.admit(session, [arrival(study_uid, patient_name="ONE^IMAGE"), report])
    client = browser(desk)
    row = re.search(r"ONE, IMAGE.*?</tr>", client.get("/?tab=all").text, re.DOTALL)
    assert row
    assert 'data-title="Images">1<' in row[0]
    assert "<dt>Images</dt><dd>1</dd>" in client.get(f"/studies/{study_uid}").text


def test_the_next_study_to_read_is_the_first_that_is_another_one(desk: Desk) -> None:
    client = browser(desk)
    assert client.get("/next").headers["location"] == "/"
    first, second = desk.study(), desk.study()
    assert client.get("/next").headers["location"] == f"/studies/{first}"
    assert client.get(f"/next?after={first}").headers["location"] == f"/studies/{second}"


def test_without_filters_who_does_not_report_sees_all(desk: Desk) -> None:
    sign(desk, desk.study(patient_name="SIGNED"))
    assert names(browser(desk, Role.OPERATOR).get("/")) == ["SIGNED"]
