"""The API's reports: save, conflict of two editors, preliminary, sign, cancel, and who reads which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.web.auth import CSRF_HEADER
from record import accounts, studies
from record.body import BANNER_DRAFT
from record.db import transaction
from record.models import User
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import draft_body, study_of
from tests.web_records import PASSWORD, Desk, csrf_of, desk_on, problem

WORDS = "Findings:\nThere is an opacity in the right upper zone.\n\nImpression:\nOpacity, right.\n"


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def attending(desk: Desk) -> TestClient:
    return desk.signed_in(Role.ATTENDING)


@pytest.fixture
def address(desk: Desk) -> str:
    return f"/api/v1/reports/{desk.report_of(desk.study()).id}"


def signature(seen: int = 1, shown: int = 1, **changed: object) -> dict[str, object]:
    return {"seen": seen, "shown": shown, "password": PASSWORD, "reasons": {}, **changed}


def test_what_is_read_can_be_edited_saved_and_signed(attending: TestClient, address: str) -> None:
    report = attending.get(address).json()
    assert (report["state"], report["banner"], report["revision"]) == ("draft", BANNER_DRAFT, 1)
    saved = attending.put(f"{address}/text", json={"seen": 1, "text": report["text"] + "Seen by me."}).json()
    assert (saved["revision"], saved["banner"]) == (2, "UNSIGNED")
    origins = [s["origin"] for section in saved["body"]["sections"] for s in section["sentences"]]
    assert origins == ["machine", "machine", "human"]
    answer = attending.post(f"{address}/sign", json=signature(seen=2))
    assert answer.status_code == 200
    signed = answer.json()
    assert (signed["state"], signed["banner"], signed["signed_revision"]) == ("final", None, 2)
    (under,) = signed["signatures"]
    assert under["printed_name"] == "Dr. Attending"
    assert under["body_sha256"] == signed["body_sha256"] == saved["body_sha256"]
    assert signed["labelled_text"] == signed["text"]


def test_a_structured_body_can_be_saved_and_its_origins_are_not_believed(attending: TestClient, address: str) -> None:
    body = attending.get(address).json()["body"]
    body["sections"][0]["sentences"][0]["text"] = "Changed."
    body["sections"][0]["sentences"].append({"id": "x", "text": "Forged.", "origin": "machine"})
    saved = attending.put(f"{address}/text", json={"seen": 1, "body": body}).json()
    assert [s["origin"] for s in saved["body"]["sections"][0]["sentences"]] == ["edited", "human"]


@pytest.mark.parametrize(
    "asked",
    [
        {"seen": 1},
        {"seen": 1, "text": "a", "body": {}},
        {"seen": 1, "body": {"schema": 99}},
        {"seen": 1, "body": {"schema": 1, "sections": [{"code": "findings", "sentences": [{"id": 1}]}]}},
        {"seen": -1, "text": "a"},
        {"seen": "CANARY", "text": "a"},
        {"seen": 1, "text": "null \x00 byte"},
        {"seen": 1, "text": "bell \x07"},
        {"text": "a"},
        {"seen": 1, "text": "x" * 60_000},
        {"seen": 1, "text": "x\n" * 5_000},
        {"seen": 1, "text": "half a pair \ud800"},
        {"seen": 1, "body": {"schema": 1, "language": "\ud800", "sections": []}},
        {"seen": 1, "body": {"schema": 1, "sections": 5}},
        {"seen": 1, "text": "a", "more": 1},
    ],
)
def test_a_save_that_cannot_be_used_is_refused(attending: TestClient, address: str, asked: dict[str, object]) -> None:
    headers = {"Content-Type": "application/json"}
    answer = attending.put(f"{address}/text", content=json.dumps(asked), headers=headers)
    problem(answer, 422, "invalid_request")
    assert "CANARY" not in answer.text
    assert attending.get(address).json()["revision"] == 1


@pytest.mark.parametrize("banner", [BANNER_DRAFT, "ai draft - not reviewed", "AI DRAFT\n– NOT REVIEWED", "UNSIGNED"])
def test_the_banner_cannot_be_stored(attending: TestClient, address: str, banner: str) -> None:
    problem(attending.put(f"{address}/text", json={"seen": 1, "text": f"{banner}\n{WORDS}"}), 422, "invalid_request")
    labelled = attending.get(address).json()["labelled_text"]
    problem(attending.put(f"{address}/text", json={"seen": 1, "text": labelled}), 422, "invalid_request")


def test_plain_text_bears_the_banner_until_it_is_signed(attending: TestClient, address: str) -> None:
    plain = {"Accept": "text/plain"}
    assert attending.get(address, headers=plain).text.startswith(BANNER_DRAFT + "\n")
    attending.put(f"{address}/text", json={"seen": 1, "text": WORDS})
    assert attending.get(address, headers=plain).text.startswith("UNSIGNED\n")
    attending.post(f"{address}/sign", json=signature(seen=2))
    assert attending.get(address, headers=plain).text == WORDS


def test_of_two_editors_the_second_is_told_and_loses_nothing(desk: Desk, attending: TestClient, address: str) -> None:
    resident = desk.signed_in(Role.RESIDENT)
    assert resident.put(f"{address}/text", json={"seen": 1, "text": WORDS}).json()["revision"] == 2
    refused = problem(
        attending.put(f"{address}/text", json={"seen": 1, "text": "Findings:\nMine."}), 409, "stale_revision"
    )
    assert refused["revision"] == 2
    assert attending.get(address).json()["text"] == WORDS
    assert attending.put(f"{address}/text", json={"seen": 2, "text": "Findings:\nMine."}).status_code == 200


def test_who_has_not_seen_the_newest_words_cannot_sign(attending: TestClient, address: str) -> None:
    attending.put(f"{address}/text", json={"seen": 1, "text": WORDS})
    refused = problem(attending.post(f"{address}/sign", json=signature(seen=1)), 409, "stale_revision")
    assert refused["revision"] == 2
    assert attending.get(address).json()["state"] == "draft"


def test_a_wrong_password_signs_nothing_and_is_counted(desk: Desk, address: str) -> None:
    client = desk.signed_in(Role.ATTENDING, login="forgetful")
    problem(client.post(f"{address}/sign", json=signature(password="not this one")), 401, "not_authenticated")
    assert client.get(address).json()["state"] == "draft"
    with transaction(desk.engine) as session:
        counted = text("SELECT failed_proofs, failed_logins FROM users u JOIN user_sessions s ON s.user_id = u.id")
        failed = session.execute(text(f"{counted} WHERE login = 'forgetful'")).one()
    assert failed == (1, 0), "in this session, and not at the door"


def test_new_images_are_signed_over_only_with_a_reason(desk: Desk, attending: TestClient) -> None:
    study_uid = desk.study()
    address = f"/api/v1/reports/{desk.report_of(study_uid).id}"
    attending.put(f"{address}/text", json={"seen": 1, "text": WORDS})
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
    refused = problem(attending.post(f"{address}/sign", json=signature(seen=2)), 409, "new_images")
    assert refused["revision"] == 2
    assert attending.get(address).json()["outdated"] is True
    answer = attending.post(
        f"{address}/sign", json=signature(seen=2, reasons={"new_images": "A doubled view."}, shown=2)
    )
    assert answer.status_code == 200
    assert answer.json()["signatures"][0]["reasons"] == {"new_images": "A doubled view."}
    with transaction(desk.engine) as session:  # leave no reading waiting for the next test
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))


def test_an_unknown_guard_is_no_reason(attending: TestClient, address: str) -> None:
    answer = attending.post(f"{address}/sign", json=signature(reasons={"CANARY": "x"}))
    problem(answer, 422, "invalid_request")
    assert "CANARY" not in answer.text


def test_a_signed_report_is_neither_saved_nor_signed_nor_cancelled_again(attending: TestClient, address: str) -> None:
    attending.post(f"{address}/sign", json=signature())
    problem(attending.put(f"{address}/text", json={"seen": 1, "text": WORDS}), 409, "illegal_move")
    problem(attending.post(f"{address}/sign", json=signature()), 409, "illegal_move")
    problem(attending.post(f"{address}/cancel", json={"seen": 1, "reason": "x"}), 409, "illegal_move")


def test_a_resident_declares_preliminary_and_cannot_sign(desk: Desk, address: str) -> None:
    resident = desk.signed_in(Role.RESIDENT)
    answer = resident.post(f"{address}/preliminary", json={"seen": 1})
    assert (answer.json()["state"], answer.json()["banner"]) == ("preliminary", "UNSIGNED")
    problem(resident.post(f"{address}/preliminary", json={"seen": 1}), 409, "illegal_move")
    problem(resident.post(f"{address}/sign", json=signature()), 403, "not_permitted")


def test_cancelling_needs_a_reason(attending: TestClient, address: str) -> None:
    problem(attending.post(f"{address}/cancel", json={"seen": 1, "reason": " "}), 422, "invalid_request")
    answer = attending.post(f"{address}/cancel", json={"seen": 1, "reason": "The wrong patient was scanned."})
    told = answer.json()
    assert (told["state"], told["ended_reason"]) == ("cancelled", "The wrong patient was scanned.")
    assert (told["ended_by"].startswith("Dr"), told["ended_at"][:4].isdigit()) == (True, True)
    assert answer.json()["banner"] == BANNER_DRAFT


def test_an_empty_report_cannot_be_signed(desk: Desk, attending: TestClient) -> None:
    begun = attending.post(f"/api/v1/studies/{desk.study(ends='abstained')}/report").json()
    problem(attending.post(f"/api/v1/reports/{begun['id']}/sign", json=signature()), 422, "invalid_request")


def test_a_dashboard_reads_signed_words_only(desk: Desk, attending: TestClient, address: str) -> None:
    for client in (desk.machine(Role.DASHBOARD), desk.machine(Role.DASHBOARD, "drafts:read")):
        unsigned = client.get(address).json()
        assert (unsigned["state"], unsigned["text"], unsigned["body"], unsigned["labelled_text"]) == (
            "draft",
            None,
            None,
            None,
        )
    attending.put(f"{address}/text", json={"seen": 1, "text": WORDS})
    attending.post(f"{address}/sign", json=signature(seen=2))
    signed = desk.machine(Role.DASHBOARD).get(address).json()
    assert (signed["text"], signed["banner"], len(signed["signatures"])) == (WORDS, None, 1)


def test_reading_a_report_is_an_event(desk: Desk, attending: TestClient, address: str) -> None:
    before = len(desk.events("report_shown"))
    attending.get(address)
    assert [facts["revision"] for facts in desk.events("report_shown")[before:]] == [1]


def test_a_report_of_nobody_s_is_not_found(attending: TestClient) -> None:
    missing = "/api/v1/reports/00000000-0000-7000-8000-000000000000"
    problem(attending.get(missing), 404, "not_found")
    problem(attending.put(f"{missing}/text", json={"seen": 1, "text": "a"}), 404, "not_found")
    problem(attending.get("/api/v1/reports/nonsense"), 422, "invalid_request")


def erased(desk: Desk, study_uid: str) -> None:
    login = desk.user(Role.ADMIN)
    with transaction(desk.engine) as session:
        by = accounts.user_principal(session.query(User).filter_by(login=login).one())
        studies.erase(session, study_of(session, study_uid).id, by=by)


def test_a_report_without_words_for_the_one_who_asks_is_no_empty_text(desk: Desk, address: str) -> None:
    plain = {"Accept": "text/plain"}
    before = len(desk.events("report_shown"))
    problem(desk.machine(Role.DASHBOARD).get(address, headers=plain), 404, "not_found")
    assert len(desk.events("report_shown")) == before, "nothing was shown"


@pytest.mark.parametrize("signed", [True, False])
def test_a_report_that_is_erased_says_so_and_never_breaks(desk: Desk, attending: TestClient, signed: bool) -> None:
    study_uid = desk.study()
    report_id = desk.report_of(study_uid).id
    address = f"/api/v1/reports/{report_id}"
    if signed:
        attending.post(f"{address}/sign", json=signature())
    picture = attending.get(f"/api/v1/studies/{study_uid}").json()["readings"][0]["pictures"][0]["href"]
    tag = attending.get(picture).headers["etag"]
    erased(desk, study_uid)
    for client in (attending, desk.signed_in(Role.RESIDENT), desk.machine(Role.DASHBOARD)):
        shown = client.get(address).json()
        assert (shown["erased"], shown["text"], shown["labelled_text"], shown["body"]) == (True, None, None, None)
        assert shown["state"] == ("final" if signed else "cancelled")
        problem(client.get(address, headers={"Accept": "text/plain"}), 410, "erased")
        assert client.get(f"/api/v1/studies/{study_uid}").json()["erased_at"]
    for asked in ({"text": WORDS}, {"body": {"schema": 1, "sections": []}}):
        problem(attending.put(f"{address}/text", json={"seen": 1, **asked}), 409, "illegal_move")
    problem(attending.post(f"{address}/sign", json=signature()), 409, "illegal_move")
    problem(attending.post(f"{address}/preliminary", json={"seen": 1}), 409, "illegal_move")
    problem(attending.get(picture), 404, "not_found")
    problem(attending.get(picture, headers={"If-None-Match": tag}), 404, "not_found")
    page = attending.get(f"/studies/{study_uid}", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "erased" in page.text
    assert "/api/v1/pictures/" not in page.text
    assert attending.get(f"/reports/{report_id}/sign", headers={"Accept": "text/html"}).status_code == 303


def test_words_count_as_signed_only_where_a_signature_covers_exactly_them(desk: Desk, attending: TestClient) -> None:
    study_uid = desk.study()
    report = desk.report_of(study_uid)
    address = f"/api/v1/reports/{report.id}"
    login = desk.user(Role.ATTENDING)
    with transaction(desk.engine) as session:
        session.execute(
            text(
                "INSERT INTO signatures (id, report_id, report_revision, study_revision, body_sha256, user_id, printed_name,"
                " role, meaning, method, proven_at, client_address, reasons) SELECT gen_random_uuid(), :report, 1, 1, 'other',"
                " id, 'Dr. Forged', 'attending', 'x', 'x', now(), '', '{}' FROM users WHERE login = :login"
            ),
            {"report": report.id, "login": login},
        )
        session.execute(
            text("UPDATE reports SET state = 'final', signed_revision = 1, touched_at = now() WHERE id = :report"),
            {"report": report.id},
        )
    shown = attending.get(address).json()
    assert (shown["banner"], shown["signed_revision"]) == ("UNSIGNED", None)
    assert shown["labelled_text"].startswith("UNSIGNED\n")
    assert desk.machine(Role.DASHBOARD).get(address).json()["text"] is None
    problem(desk.machine(Role.DASHBOARD).get(address, headers={"Accept": "text/plain"}), 404, "not_found")
    page = attending.get(f"/studies/{study_uid}", headers={"Accept": "text/html"})
    assert "UNSIGNED" in page.text
    assert "Dr. Forged" not in page.text


def origins(answer: Response) -> dict[str, tuple[str, str | None]]:
    assert answer.status_code == 200, answer.text
    sections = answer.json()["body"]["sections"]
    return {s["text"]: (s["origin"], s["source"]) for section in sections for s in section["sentences"]}


def test_what_is_pasted_from_an_offered_draft_is_the_machine_s(desk: Desk, attending: TestClient) -> None:
    study_uid = desk.study()
    report = desk.report_of(study_uid)
    address = f"/api/v1/reports/{report.id}"
    attending.put(f"{address}/text", json={"seen": 1, "text": "Findings:\nThe trachea lies in the midline."})
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid, body=draft_body("A nodule of 8 mm lies in the right lower zone."))
    drafts = attending.get(f"/api/v1/studies/{study_uid}").json()["drafts"]
    assert [draft["offered"] for draft in drafts] == [True, False]
    text = (
        "Findings:\nThe trachea lies in the midline.\nA nodule of 8 mm lies in the right lower zone.\n"
        "There is an opacity in the left upper zone.\nImpression:\nOpacity."
    )
    saved = attending.put(f"{address}/text", json={"seen": 2, "text": text})
    assert origins(saved) == {
        "The trachea lies in the midline.": ("human", None),
        "A nodule of 8 mm lies in the right lower zone.": ("machine", "findings-m1"),
        "There is an opacity in the left upper zone.": ("machine", "findings-m1"),
        "Opacity.": ("machine", "impression-m1"),
    }
    named = [s.get("draft") for section in saved.json()["body"]["sections"] for s in section["sentences"]]
    assert named == [None, drafts[0]["id"], None, None], "ids repeat between drafts"


def test_what_the_machine_says_after_a_physician_wrote_it_stays_the_physician_s(
    desk: Desk, attending: TestClient
) -> None:
    study_uid = desk.study(ends="abstained")
    begun = attending.post(f"/api/v1/studies/{study_uid}/report").json()
    address = f"/api/v1/reports/{begun['id']}"
    attending.put(f"{address}/text", json={"seen": 1, "text": "The lungs are clear."})
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid, body=draft_body("The lungs are clear."))
    saved = attending.put(f"{address}/text", json={"seen": 2, "text": "The lungs are clear.\nOpacity."})
    assert origins(saved) == {"The lungs are clear.": ("human", None), "Opacity.": ("machine", "impression-m1")}


def test_words_that_are_deleted_and_put_back_are_the_machine_s_again(attending: TestClient, address: str) -> None:
    text = attending.get(address).json()["text"]
    attending.put(f"{address}/text", json={"seen": 1, "text": "Findings:\nRib fractures."})
    saved = attending.put(f"{address}/text", json={"seen": 2, "text": f"{text}Rib fractures."})
    assert {origin for origin, _ in origins(saved).values()} == {"machine", "human"}
    assert origins(saved)["Rib fractures."] == ("human", None)


def test_a_body_under_new_ids_is_the_machine_s_all_the_same(attending: TestClient, address: str) -> None:
    body = attending.get(address).json()["body"]
    for section in body["sections"]:
        for number, sentence in enumerate(section["sentences"]):
            sentence |= {"id": f"{section['code']}-{number}", "origin": "human", "source": None, "flags": []}
    saved = attending.put(f"{address}/text", json={"seen": 1, "body": body})
    assert {origin for origin, _ in origins(saved).values()} == {"machine"}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"text": "Findings:\n" + "No effusion.\n" * 301}, "301"),
        ({"body": ["No effusion."] * 301}, "301"),
        ({"body": ["Clear.", ""]}, "Sentence 2 is empty"),
        ({"text": "Findings:\nNo\u202e effusion."}, "Line 2 holds the character U+202E"),
        ({"text": "No\u2066 effusion."}, "Line 1 holds the character U+2066"),
        ({"body": ["Clear.", "No\u200b effusion."]}, "Sentence 2 holds the character U+200B"),
    ],
)
def test_a_text_that_is_too_long_or_not_what_is_seen_is_refused(
    attending: TestClient, address: str, asked: dict[str, Any], named: str
) -> None:
    if "body" in asked:
        sentences = [{"id": f"s{n}", "text": each, "origin": "human"} for n, each in enumerate(asked["body"])]
        asked = {"body": {"schema": 1, "sections": [{"code": "findings", "sentences": sentences}]}}
    refused = problem(attending.put(f"{address}/text", json={"seen": 1, **asked}), 422, "invalid_request")
    assert named in refused["detail"]
    report = attending.get(address).json()
    assert report["revision"] == 1
    if text := asked.get("text"):
        html = {"Accept": "text/html"}
        csrf = csrf_of(attending.get(f"/studies/{report['study_instance_uid']}", headers=html))
        form = {"csrf": csrf, "seen": 1, "text": text}
        page = attending.post(f"/reports/{report['id']}/text", data=form, headers=html)
        assert page.status_code == 422
        assert named in page.text


def test_what_a_person_said_before_a_later_draft_stays_theirs_however_often_it_is_saved(
    desk: Desk, attending: TestClient
) -> None:
    study_uid = desk.study()
    address = f"/api/v1/reports/{desk.report_of(study_uid).id}"
    mine = "The trachea lies in the midline."
    shown = attending.put(f"{address}/text", json={"seen": 1, "text": f"Findings:\n{mine}"}).json()
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid, body=draft_body(mine))
    with transaction(desk.engine) as session:  # as many texts as a careful physician would never save
        session.execute(
            text(
                "INSERT INTO report_revisions (id, report_id, number, kind, body, body_sha256, previous_sha256, author_id)"
                " SELECT gen_random_uuid(), report_id, number + n, kind, body, body_sha256, body_sha256, author_id"
                " FROM report_revisions, generate_series(1, 120) n WHERE report_id = :id AND number = :number"
            ),
            {"id": shown["id"], "number": shown["revision"]},
        )
        session.execute(
            text("UPDATE reports SET revision = revision + 120 WHERE id = :id"),
            {"id": shown["id"]},
        )
    saved = attending.put(
        f"{address}/text", json={"seen": shown["revision"] + 120, "text": f"Findings:\n{mine}\nAnd more."}
    ).json()
    assert [s["origin"] for s in saved["body"]["sections"][0]["sentences"]] == ["human", "human"]


def test_an_erased_study_is_not_reported(desk: Desk, attending: TestClient) -> None:
    study_uid = desk.study(ends="abstained")
    erased(desk, study_uid)
    problem(attending.post(f"/api/v1/studies/{study_uid}/report"), 409, "illegal_move")


def test_a_save_that_changes_nothing_and_gives_the_words_back_is_an_opening(
    desk: Desk, attending: TestClient, address: str
) -> None:
    saved = attending.put(f"{address}/text", json={"seen": 1, "text": WORDS}).json()
    before = len(desk.events("report_shown"))
    assert attending.put(f"{address}/text", json={"seen": 2, "text": WORDS}).json()["revision"] == saved["revision"]
    assert len(desk.events("report_shown")) == before + 1


def test_a_proxys_word_for_an_address_is_no_text_on_record(desk: Desk, attending: TestClient, address: str) -> None:
    behind = TestClient(ProxyHeadersMiddleware(desk.app, trusted_hosts=["127.0.0.1"]), client=("127.0.0.1", 5))
    behind.cookies, behind.headers[CSRF_HEADER] = attending.cookies, attending.headers[CSRF_HEADER]
    asked = {"seen": 1, "shown": 1, "password": PASSWORD}
    for told in ("CANARY^ANA born 1970", "a" * 60_000):
        behind.headers["X-Forwarded-For"] = told
        problem(behind.post(f"{address}/sign", json=asked | {"password": "wrong"}), 401, "not_authenticated")
    assert behind.post(f"{address}/sign", json=asked).status_code == 200
    assert {event["client_address"] for event in desk.events("proof_refused")} <= {"unknown", "testclient"}
    with transaction(desk.engine) as session:
        assert "unknown" in session.scalars(text("SELECT client_address FROM signatures")).all()
