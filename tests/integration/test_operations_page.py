"""The operator's page: alarms first, failures read again, nothing of another site, every language."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from gateway.web.languages import catalogue
from record import alarms
from record.db import transaction
from record.models import Event
from record.states import ReasonCode, Role
from tests.conftest import FreshDatabase
from tests.situations import CANARY, made_up, spool_facts, tell
from tests.web_records import Desk, csrf_of, desk_on


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path) -> Iterator[Desk]:
    with desk_on(database, tmp_path / "store") as made:
        yield made


def look_at(client: TestClient, path: str = "/operations", **headers: str) -> Any:
    return client.get(path, headers={"Accept": "text/html", **headers})


def test_the_page_shows_alarms_first_and_has_readings_read_again_each_or_all_of_a_reason(desk: Desk) -> None:
    made = made_up(desk)
    operator = desk.signed_in(Role.OPERATOR)
    answer = look_at(operator)
    assert answer.status_code == 200
    assert "No cpu worker is running" in answer.text
    assert answer.text.index("No cpu worker is running") < answer.text.index('id="queue-heading"')
    assert f"…{made['failed'][-12:]}" in answer.text
    assert f"/studies/{made['receiving']}/close" in answer.text
    assert f'href="/studies/{made["conflicting"]}"' in answer.text
    assert '<noscript><meta http-equiv="refresh"' in answer.text
    assert CANARY not in answer.text
    assert look_at(operator, **{"If-None-Match": answer.headers["etag"]}).status_code == 304

    again = {"csrf": csrf_of(answer), "state": "failed", "reason_code": "error"}
    retried = operator.post("/operations/retry", data=again)
    assert (retried.status_code, retried.headers["location"]) == (303, "/operations?retried=1")
    assert operator.post("/operations/retry", data=again).headers["location"] == "/operations?retried=0"
    assert "Readings that are read again: 1" in look_at(operator, "/operations?retried=1").text
    assert [event["reading_id"] is not None for event in event_rows(desk, "reading_retried")] == [True]
    changed = look_at(operator, **{"If-None-Match": answer.headers["etag"]})
    assert changed.status_code == 200
    assert "/readings/" in changed.text  # the abstained one, each by itself
    assert operator.post("/operations/retry", data={**again, "state": "done"}).headers["location"].endswith("=0")
    assert operator.post("/operations/retry", data={**again, "csrf": "x"}).status_code == 403


@pytest.mark.parametrize("language", ["es", "zh"])
def test_what_needs_a_person_is_said_in_the_operator_s_language(desk: Desk, language: str) -> None:
    made_up(desk)
    with transaction(desk.engine) as session:
        tell(session, "indexer", **spool_facts(files=7, oldest_s=300.0), failing="store_full")
        tell(session, "api", every_s=0.001)
        session.execute(text("UPDATE parts SET seen_at = now() - interval '5 minutes' WHERE kind = 'api'"))
        session.execute(text("UPDATE parts SET started_at = now() - interval '1 hour'"))
        session.execute(text("UPDATE readings SET not_before = now() - interval '3 days'"))
    page = unescape(look_at(desk.signed_in(Role.OPERATOR), **{"Accept-Language": language}).text)
    known = catalogue(language)
    for part in (alarms.KINDS["no_cpu"].text, alarms.KINDS["no_cpu"].remedy, alarms.ADVICE[ReasonCode.ERROR]):
        assert part not in page
        assert known.texts[part] in page
    assert f"5 {known.texts['min']}" in page
    for code in ("the store is full", "critical", "api", "silent", "routine"):
        assert known.codes[code].casefold() in page.casefold(), code
    for english in ("the store is full", "store full", ">silent<", "listener</th>", "<strong>Critical", ">routine<"):
        assert english not in page, english


def event_rows(desk: Desk, kind: str) -> list[dict[str, Any]]:
    with transaction(desk.engine) as session:
        rows = session.scalars(select(Event).where(Event.kind == kind)).all()
        return [{"reading_id": row.reading_id, "site_id": row.site_id} for row in rows]


def test_an_admin_may_look_and_press_nothing_and_the_other_site_s_operator_sees_nothing_of_it(desk: Desk) -> None:
    made = made_up(desk)
    admin = look_at(desk.signed_in(Role.ADMIN)).text
    assert f"…{made['failed'][-12:]}" in admin
    assert "/retry" not in admin
    assert "/close" not in admin
    assert f"/studies/{made['failed']}" not in admin
    other = desk.signed_in(Role.OPERATOR, site="elsewhere")
    page = look_at(other)
    assert "No cpu worker is running" in page.text
    assert not any(study_uid[-12:] in page.text for study_uid in made.values())
    form = {"csrf": csrf_of(page) or other.headers["X-CSRF-Token"], "state": "failed", "reason_code": "error"}
    assert other.post("/operations/retry", data=form).headers["location"] == "/operations?retried=0"
    assert look_at(desk.signed_in(Role.ATTENDING)).status_code == 403
