"""The API's audit: what happened, in the order of its seals, for auditors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from record import admission, audit, claims
from record.db import transaction
from record.models import Instance
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, drafting, study_of, uid
from tests.web_records import PASSWORD, Desk, desk_on, problem

PATH = "/api/v1/events"


@pytest.fixture
def desk(database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(database, tmp_path_factory.mktemp("store")) as made:
        yield made


def seal(desk: Desk) -> None:
    with transaction(desk.engine) as session:
        while audit.seal(session, b"k" * 32):
            pass


def everything(client: TestClient, query: str = "", limit: int = 4) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = client.get(f"{PATH}?limit={limit}&cursor={cursor}{query}").json()
        items += page["items"]
        cursor = page["next"]
    return items


def test_an_auditor_reads_what_happened_in_the_order_of_its_seals(desk: Desk) -> None:
    study_uid = desk.study(patient_name="CANARY^NAME", patient_id="CANARY1", accession_number="CANARY2")
    desk.signed_in(Role.ATTENDING).get(f"/api/v1/studies/{study_uid}")
    auditor = desk.machine(Role.AUDITOR)
    assert auditor.get(PATH).json() == {"items": [], "next": None}, "nothing is sealed yet"
    seal(desk)
    items = everything(auditor)
    positions = [item["position"] for item in items]
    assert positions == sorted(set(positions))
    kinds = [item["kind"] for item in items]
    assert {"study_closed", "signed_in", "study_opened"} <= set(kinds)
    (opened,) = [item for item in items if item["kind"] == "study_opened"]
    assert (opened["actor_kind"], opened["study_instance_uid"]) == ("user", study_uid)
    assert len(opened["hash"]) == 64
    assert "CANARY" not in str(items)


def test_events_are_narrowed_to_a_study_and_a_kind(desk: Desk) -> None:
    study_uid, other = desk.study(), desk.study()
    seal(desk)
    auditor = desk.machine(Role.AUDITOR)
    assert {item["study_instance_uid"] for item in everything(auditor, f"&study_instance_uid={study_uid}")} == {
        study_uid
    }
    assert {i["study_instance_uid"] for i in everything(auditor, "&kind=study_closed")} == {study_uid, other}
    assert everything(auditor, "&kind=nothing") == []
    problem(auditor.get(f"{PATH}?study_instance_uid=1.2.3"), 404, "not_found")


@pytest.mark.parametrize(
    "query", ["cursor=-1", "cursor=x", "cursor=9223372036854775808", "limit=0", "kind=A%20B", "after=4"]
)
def test_a_question_that_is_none_is_a_problem(desk: Desk, query: str) -> None:
    problem(desk.machine(Role.AUDITOR).get(f"{PATH}?{query}"), 422, "invalid_request")


def test_reading_the_audit_is_itself_an_event_and_a_page_without_events_is_none(desk: Desk) -> None:
    desk.study()
    seal(desk)
    auditor = desk.machine(Role.AUDITOR)
    page = auditor.get(f"{PATH}?limit=2").json()
    first, last = (item["position"] for item in page["items"])
    assert desk.events("audit_read") == [{"count": 2, "first": first, "last": last}]
    auditor.get(f"{PATH}?cursor=1000000")
    assert len(desk.events("audit_read")) == 1


def test_another_site_s_events_are_not_there(desk: Desk) -> None:
    desk.study()
    there = desk.study(site="elsewhere")
    seal(desk)
    items = everything(desk.machine(Role.AUDITOR, site="elsewhere"))
    assert {item["study_instance_uid"] for item in items if item["study_instance_uid"]} == {there}


def kinds_of(desk: Desk, study_uid: str) -> list[str]:
    """What an auditor reads of a study, in order."""
    seal(desk)
    return [item["kind"] for item in everything(desk.machine(Role.AUDITOR), f"&study_instance_uid={study_uid}")]


def test_an_auditor_reads_a_studys_whole_life_and_what_the_machine_did(desk: Desk) -> None:
    study_uid = desk.study()
    doctor = desk.signed_in(Role.ATTENDING)
    doctor.get(f"/api/v1/studies/{study_uid}")
    report = f"/api/v1/reports/{desk.report_of(study_uid).id}"
    doctor.put(f"{report}/text", json={"seen": 1, "text": "Findings:\nThe lungs are clear."})
    doctor.post(f"{report}/sign", json={"seen": 2, "shown": 1, "password": PASSWORD})
    assert kinds_of(desk, study_uid) == [
        "instances_admitted",
        "study_closed",
        "reading_prepared",
        "draft_written",
        "report_opened",
        "study_opened",
        "report_saved",
        "report_signed",
    ]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (lambda s, c: claims.abstain(s, c, "no_protocol", "None."), "reading_abstained"),
        (lambda s, c: claims.fail(s, c, "error", "Broke.", max_failures=5, backoff_s=0), "reading_stumbled"),
        (lambda s, c: claims.fail(s, c, "error", "Broke.", max_failures=1, backoff_s=0), "reading_failed"),
    ],
)
def test_an_auditor_reads_how_a_reading_ended(desk: Desk, ends: Any, told: str) -> None:
    study_uid = desk.study(ends="queued")
    with transaction(desk.engine) as session:
        claim = claims.claim_prepare(session, "test", 30, max_prepared=64, model="phantom")
        assert claim is not None
        ends(session, claim)
    assert kinds_of(desk, study_uid)[-1] == told


def test_an_auditor_reads_that_a_reading_was_sent_back(desk: Desk) -> None:
    study_uid = desk.study(ends="queued")
    with transaction(desk.engine) as session:
        claims.send_back(session, drafting(session))
    assert kinds_of(desk, study_uid)[-2:] == ["reading_prepared", "reading_sent_back"]


def test_an_event_about_a_study_without_a_site_cannot_be_written(desk: Desk) -> None:
    with transaction(desk.engine) as session:
        study = study_of(session, desk.study())
        with pytest.raises(ValueError, match="names no site"):
            audit.write(session, "something", study_id=study.id)
        session.expunge_all()


def test_what_an_earlier_release_wrote_without_a_site_is_its_studys(desk: Desk) -> None:
    study_uid = desk.study()
    with transaction(desk.engine) as session:
        session.execute(
            text(
                "INSERT INTO events (id, kind, actor_kind, study_id, facts) VALUES (gen_random_uuid(), 'draft_written',"
                " 'system', :study, '{\"old\": true}')"
            ),
            {"study": study_of(session, study_uid).id},
        )
    assert kinds_of(desk, study_uid).count("draft_written") == 2
    assert {"old": True} not in [e["facts"] for e in everything(desk.machine(Role.AUDITOR, site="elsewhere"))]


def test_what_is_of_no_site_is_told_to_every_sites_auditor(desk: Desk) -> None:
    desk.client().post("/api/v1/session", json={"login": "nobody", "password": "x"})
    seal(desk)
    for site in ("main", "elsewhere"):
        (refused,) = everything(desk.machine(Role.AUDITOR, site=site), "&kind=sign_in_refused")
        assert refused["facts"] == {"reason_code": "unknown_login", "client_address": "unknown", "count": 1}


def test_whoever_closes_retries_reads_or_decides_has_opened_the_study(desk: Desk) -> None:
    operator, doctor = desk.machine(Role.OPERATOR), desk.signed_in(Role.ATTENDING)
    receiving, failed, skipped = uid(), desk.study(ends="failed"), desk.study(has_pixels=True, ends="failed")
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(receiving, patient_name="DOE^JANE")])
        session.execute(text("UPDATE studies SET state = 'skipped' WHERE study_instance_uid = :u"), {"u": skipped})
    undecided = desk.study()
    with transaction(desk.engine) as session:
        first = session.query(Instance).filter_by(study_id=study_of(session, undecided).id).one()
        other = arrival(undecided, sop_instance_uid=first.sop_instance_uid)
        admission.admit(session, [other])
    for client, study_uid, verb, body in (
        (operator, receiving, "close", None),
        (operator, failed, "retry", None),
        (operator, skipped, "read", None),
        (doctor, undecided, f"conflicts/{other.instance_id}", {"keep": False, "reason": "a cut copy"}),
    ):
        answer = client.post(f"/api/v1/studies/{study_uid}/{verb}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["identity"]
        assert kinds_of(desk, study_uid)[-1] == "study_opened", verb
