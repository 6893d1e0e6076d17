"""The API's search, and what an operator may ask of a study: close, retry, read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from record import admission
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, study_of, uid
from tests.web_records import Desk, desk_on, problem

PATH = "/api/v1/studies/search"


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture(scope="module")
def known(desk: Desk) -> dict[str, str]:
    """Three studies at one site, and one elsewhere."""
    return {
        "jane": desk.study(patient_name="DOE^JANE^A", patient_id="P-100", accession_number="A1", study_date="20260102"),
        "john": desk.study(
            patient_name="DOE^JOHN", patient_id="P-200", accession_number="A2", study_date="20260203", modality="MR"
        ),
        "yamada": desk.study(
            patient_name="YAMADA^TAROU=山田^太郎", patient_id="Q%1", accession_number="", study_date=""
        ),
        "nunez": desk.study(patient_name="NÚÑEZ^Zoë^Ø=김^철수", patient_id="N-1", accession_number="", study_date=""),
        "elsewhere": desk.study(patient_name="DOE^JANE", patient_id="P-100", accession_number="A1", site="elsewhere"),
    }


def found(desk: Desk, known: dict[str, str], **asked: Any) -> set[str]:
    answer = desk.machine(Role.OPERATOR).post(PATH, json=asked)
    assert answer.status_code == 200, answer.text
    names = {study_uid: name for name, study_uid in known.items()}
    return {names.get(line["study_instance_uid"], "another") for line in answer.json()["items"]}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"patient_name": "doe"}, {"jane", "john"}),
        ({"patient_name": "jan doe"}, {"jane"}),
        ({"patient_name": "Do*"}, {"jane", "john"}),
        ({"patient_name": "山田"}, {"yamada"}),
        ({"patient_name": "山田太郎"}, {"yamada"}),
        ({"patient_name": "山田太"}, {"yamada"}),
        ({"patient_name": "山田次"}, set()),
        ({"patient_name": "oe"}, set()),
        ({"patient_name": "nunez zoe"}, {"nunez"}),
        ({"patient_name": "Núñez"}, {"nunez"}),
        ({"patient_name": "Nu\u0301n\u0303ez o"}, {"nunez"}),
        ({"patient_name": "김철수"}, {"nunez"}),
        ({"patient_name": "ñunez"}, {"nunez"}),
        ({"patient_name": "^^"}, set()),
        ({"patient_id": "P-100"}, {"jane"}),
        ({"patient_id": "P-*"}, {"jane", "john"}),
        ({"patient_id": "p-100"}, set()),
        ({"patient_id": "Q%*"}, {"yamada"}),
        ({"patient_id": "%*"}, set()),
        ({"accession_number": "A2"}, {"john"}),
        ({"study_date": "2026-01-02"}, {"jane"}),
        ({"study_date_from": "2026-01-02", "study_date_to": "2026-02-03"}, {"jane", "john"}),
        ({"study_date_from": "2026-01-03"}, {"john"}),
        ({"study_date_to": "2026-01-31"}, {"jane"}),
        ({"patient_name": "doe", "modality": "mr"}, {"john"}),
        ({"patient_name": "doe", "report_state": "final"}, set()),
        ({"patient_name": "doe", "patient_id": "P-200"}, {"john"}),
        ({"patient_name": "'); DROP TABLE studies; --"}, set()),
    ],
)
def test_a_search_finds_whose_studies_are_asked_for(
    desk: Desk, known: dict[str, str], asked: dict[str, str], names: set[str]
) -> None:
    assert found(desk, known, **asked) == names


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"modality": "CR"},
        {"patient_name": " * "},
        {"patient_name": ""},
        {"patient_nam": "CANARY"},
        {"patient_name": "x" * 65},
        {"patient_name": "CANARY\x00"},
        {"patient_name": ["CANARY"]},
        {"patient_id": 5},
        {"study_date": "20260102"},
        {"study_date": 20260102},
        {"study_date": "2026-13-01"},
        {"study_date_from": "2026-02-03", "study_date_to": "2026-01-02"},
        {"study_date": "2026-01-02", "study_date_from": "2026-01-01"},
        {"patient_id": "CANARY", "limit": 0},
        {"patient_id": "CANARY", "limit": "7"},
        {"patient_id": "CANARY", "cursor": "CANARY"},
        {"patient_id": "CANARY", "state": "CANARY"},
        {"patient_id": "CANARY", "updated_since": "2026-01-01T00:00:00"},
    ],
)
def test_a_search_that_cannot_be_used_is_a_problem_that_repeats_nothing(desk: Desk, asked: dict[str, Any]) -> None:
    answer = desk.machine(Role.OPERATOR).post(PATH, json=asked)
    problem(answer, 422, "invalid_request")
    assert "CANARY" not in answer.text


def test_a_search_turns_pages(desk: Desk, known: dict[str, str]) -> None:
    client = desk.machine(Role.OPERATOR)
    first = client.post(PATH, json={"patient_name": "doe", "limit": 1}).json()
    second = client.post(PATH, json={"patient_name": "doe", "limit": 1, "cursor": first["next"]}).json()
    assert {page["items"][0]["study_instance_uid"] for page in (first, second)} == {known["jane"], known["john"]}
    assert second["next"] is None


def test_searching_is_one_event_that_holds_no_word_of_it(database: FreshDatabase, tmp_path_factory: Any) -> None:
    with desk_on(database, tmp_path_factory.mktemp("store")) as alone:
        study_uid = alone.study(patient_name="CANARY^JANE", accession_number="CANARY7")
        client = alone.signed_in(Role.RESIDENT)
        asked = {"patient_name": "CANARY", "accession_number": "CANARY*", "patient_id": "  ", "modality": "CR"}
        (line,) = client.post(PATH, json=asked).json()["items"]
        assert line["patient_name"] == "CANARY^JANE"
        assert client.post(PATH, json={"patient_id": "CANARY"}).json()["items"] == []
        with transaction(alone.engine) as session:
            study_id = str(study_of(session, study_uid).id)
            rows = session.execute(text("SELECT kind, actor_kind, facts FROM events ORDER BY at DESC LIMIT 2")).all()
        empty, one = rows
        assert (one.kind, one.actor_kind) == ("studies_searched", "user")
        assert one.facts == {"fields": ["patient_name", "accession_number"], "count": 1, "studies": [study_id]}
        assert empty.facts == {"fields": ["patient_id"], "count": 0, "studies": []}
        assert not alone.events("worklist_shown")
        assert "CANARY" not in json.dumps([list(row) for row in rows], default=str)


def test_an_operator_closes_a_study_that_is_still_receiving(desk: Desk) -> None:
    study_uid, there = uid(), desk.study(site="elsewhere")
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(study_uid)])
    client = desk.signed_in(Role.OPERATOR)
    answer = client.post(f"/api/v1/studies/{study_uid}/close")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["state"], shown["revision"], shown["reading_state"]) == ("ready", 1, "queued")
    assert shown["revisions"][0]["evidence_kind"] == "operator"
    told = problem(client.post(f"/api/v1/studies/{study_uid}/close"), 409, "illegal_move")
    assert "still receiving" in told["detail"]
    problem(client.post(f"/api/v1/studies/{there}/close"), 404, "not_found")
    problem(desk.signed_in(Role.ATTENDING).post(f"/api/v1/studies/{study_uid}/close"), 403, "not_permitted")
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))


@pytest.mark.parametrize("ends", ["failed", "abstained"])
def test_an_operator_has_a_reading_done_again_once(desk: Desk, ends: str) -> None:
    study_uid = desk.study(ends=ends)
    client = desk.machine(Role.OPERATOR)
    shown = client.post(f"/api/v1/studies/{study_uid}/retry")
    assert shown.status_code == 200
    assert (shown.json()["reading_state"], shown.json()["reason_code"]) == ("queued", None)
    assert shown.json()["readings"][0]["failures"] == 0
    problem(client.post(f"/api/v1/studies/{study_uid}/retry"), 409, "illegal_move")
    with transaction(desk.engine) as session:
        desk.read(session, study_uid)
    problem(client.post(f"/api/v1/studies/{study_uid}/retry"), 409, "illegal_move")


@pytest.mark.parametrize("state", ["queued", "preparing", "prepared", "drafting", "done"])
def test_a_reading_that_did_not_end_in_vain_is_left_alone(desk: Desk, state: str) -> None:
    study_uid = desk.study()
    lease = "now() + interval '1 minute'" if state in {"preparing", "drafting"} else "NULL"
    with transaction(desk.engine) as session:
        session.execute(
            text(
                f"UPDATE readings SET state = :state, lease_until = {lease} WHERE study_id ="
                " (SELECT id FROM studies WHERE study_instance_uid = :uid)"
            ),
            {"state": state, "uid": study_uid},
        )
    told = problem(desk.machine(Role.OPERATOR).post(f"/api/v1/studies/{study_uid}/retry"), 409, "illegal_move")
    assert told["state"] == state
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE readings SET state = 'superseded', lease_until = NULL WHERE state <> 'done'"))


def test_an_operator_has_a_skipped_study_read(desk: Desk) -> None:
    pictureless, drafted = desk.study(has_pixels=False), desk.study()
    client = desk.machine(Role.OPERATOR)
    told = problem(client.post(f"/api/v1/studies/{pictureless}/read"), 409, "illegal_move")
    assert told["reason_code"] == "no_images"
    problem(client.post(f"/api/v1/studies/{pictureless}/retry"), 409, "illegal_move")
    problem(client.post(f"/api/v1/studies/{drafted}/read"), 409, "illegal_move")
    prior = uid()
    with transaction(desk.engine) as session:
        desk.add_images(session, prior)
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))
        session.execute(
            text(
                "UPDATE studies SET state = 'skipped', skipped_code = 'fetched_as_prior' WHERE study_instance_uid = :u"
            ),
            {"u": prior},
        )
        session.execute(
            text(
                "UPDATE instances SET prior = true WHERE study_id = (SELECT id FROM studies WHERE study_instance_uid = :u)"
            ),
            {"u": prior},
        )
    answer = client.post(f"/api/v1/studies/{prior}/read")
    assert (answer.status_code, answer.json()["state"]) == (200, "receiving")
