"""The API's audit: what happened, in the order of its seals, for auditors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from record import audit
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import Desk, desk_on, problem

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
