"""The API's examples are sent to their routes as they stand, and are what the routes take."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from gateway.web import described, examples
from gateway.web.auth import CSRF_HEADER
from record.body import Body
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import study_of
from tests.web_records import Desk, desk_on

UID, REPORT, INSTANCE = (examples.PARAMETERS[name] for name in ("study_instance_uid", "report_id", "instance_id"))


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def bodies(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every body in an example, however deep, and where it stands."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "body":
                yield where, part
            yield from bodies(part, f"{where}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from bodies(part, f"{where}.{number}")


def test_every_body_in_the_examples_is_one() -> None:
    found = [*bodies(dict(examples.EXAMPLES)), *bodies(dict(examples.OTHERS))]
    assert len(found) >= 3, "a draft's, a report's, and one that is sent"
    for where, body in found:
        assert Body.from_dict(body).as_dict() == body, where
    said = examples.EXAMPLES["ReportShown"]
    assert (said["text"], said["body_sha256"]) == (
        Body.from_dict(said["body"]).plain(),
        Body.from_dict(said["body"]).digest(),
    )


def test_every_example_of_a_request_is_taken_by_its_route(desk: Desk) -> None:
    desk.user(Role.ATTENDING, login=examples.EXAMPLES["SignIn"]["login"])
    attending = desk.signed_in(Role.ATTENDING)
    document = attending.get("/openapi.json").json()
    sent = []
    for operation in described.operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for body in described.examples_of(content):
                address = address_on(desk, operation["path"], body)
                asking = attending if operation["security"] else desk.client()
                answer = asking.request(operation["method"], address, json=body)
                assert answer.status_code < 300, f"{operation['method']} {operation['path']}: {answer.text}"
                if "csrf" in answer.text and asking is attending:
                    attending.headers[CSRF_HEADER] = answer.json()["csrf"]
                sent.append((operation["path"], tuple(body)))
    assert ("/api/v1/reports/{report_id}/text", ("seen", "body")) in sent
    assert len(sent) >= 8


def address_on(desk: Desk, path: str, body: dict[str, Any]) -> str:
    """The address on a study of its own that is as the example has it."""
    study_uid = desk.study()
    instance_id = uuid.UUID(int=0)
    if "conflicts" in path:
        instance_id = conflicting(desk, study_uid)
    report = desk.report_of(study_uid)
    if path.startswith("/api/v1/reports/") and body["seen"] == 2:
        saved = desk.signed_in(Role.ATTENDING).put(
            f"/api/v1/reports/{report.id}/text", json=dict(examples.EXAMPLES["SavedText"])
        )
        assert saved.status_code == 200, saved.text
    return path.format(study_instance_uid=study_uid, report_id=report.id, instance_id=instance_id)


def conflicting(desk: Desk, study_uid: str) -> uuid.UUID:
    """An instance of the study that waits for a decision."""
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid)
        study = study_of(session, study_uid)
        found: uuid.UUID = session.execute(
            text(
                "UPDATE instances SET conflict_kind = 'identity' WHERE id ="
                " (SELECT id FROM instances WHERE study_id = :study ORDER BY created_at DESC LIMIT 1) RETURNING id"
            ),
            {"study": study.id},
        ).scalar_one()
    return found
