"""Every route of the app with every role, without a token, and with the other site's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import text

from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import MACHINES, PASSWORD, Desk, csrf_of, desk_on, problem

EVERYBODY = set(Role)
PHYSICIANS = {Role.RESIDENT, Role.ATTENDING}
READERS = PHYSICIANS | {Role.OPERATOR, Role.DASHBOARD}

# Written down a second time, on purpose: what each role may ask for. A route that is missing here fails.
MAY = {
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /openapi.json": None,
    "GET /docs": None,
    "GET /static/{name}": None,
    "GET /sign-in": None,
    "POST /sign-in": None,
    "POST /language": None,
    "POST /appearance": None,
    "POST /api/v1/session": None,
    "DELETE /api/v1/session": EVERYBODY,
    "GET /api/v1/studies": EVERYBODY,
    "HEAD /api/v1/studies": EVERYBODY,
    "POST /api/v1/studies/search": PHYSICIANS | {Role.OPERATOR},
    "POST /api/v1/studies/{study_instance_uid}/close": {Role.OPERATOR},
    "POST /api/v1/studies/{study_instance_uid}/retry": {Role.OPERATOR},
    "POST /api/v1/studies/{study_instance_uid}/read": {Role.OPERATOR},
    "GET /api/v1/events": {Role.AUDITOR},
    "GET /api/v1/studies/{study_instance_uid}": READERS,
    "POST /api/v1/studies/{study_instance_uid}/report": PHYSICIANS,
    "POST /api/v1/studies/{study_instance_uid}/conflicts/{instance_id}": {Role.OPERATOR, Role.ATTENDING},
    "GET /api/v1/pictures/{sha256}": PHYSICIANS,
    "GET /api/v1/studies/{study_instance_uid}/images": PHYSICIANS,
    "GET /api/v1/studies/{study_instance_uid}/instances/{instance_id}/frames/{frame}/rendered": PHYSICIANS,
    "GET /studies/{study_instance_uid}/instances/{instance_id}": PHYSICIANS,
    "GET /api/v1/reports/{report_id}": PHYSICIANS | {Role.DASHBOARD},
    "PUT /api/v1/reports/{report_id}/text": PHYSICIANS,
    "POST /api/v1/reports/{report_id}/preliminary": PHYSICIANS,
    "POST /api/v1/reports/{report_id}/sign": {Role.ATTENDING},
    "POST /api/v1/reports/{report_id}/cancel": PHYSICIANS,
    "GET /": EVERYBODY,
    "GET /search": PHYSICIANS | {Role.OPERATOR},
    "POST /search": PHYSICIANS | {Role.OPERATOR},
    "GET /next": PHYSICIANS,
    "GET /studies/{study_instance_uid}/tag": READERS,
    "POST /studies/{study_instance_uid}/close": {Role.OPERATOR},
    "POST /studies/{study_instance_uid}/read": {Role.OPERATOR},
    "GET /studies/{study_instance_uid}": READERS,
    "POST /studies/{study_instance_uid}/report": PHYSICIANS,
    "POST /studies/{study_instance_uid}/conflicts/{instance_id}": {Role.OPERATOR, Role.ATTENDING},
    "POST /readings/{reading_id}/retry": {Role.OPERATOR},
    "GET /metrics": {Role.OPERATOR, Role.DASHBOARD, Role.ADMIN},
    "GET /audit": {Role.AUDITOR},
    "GET /operations": {Role.OPERATOR, Role.ADMIN},
    "POST /operations/retry": {Role.OPERATOR},
    "POST /reports/{report_id}/text": PHYSICIANS,
    "GET /reports/{report_id}/sign": {Role.ATTENDING},
    "POST /reports/{report_id}/sign": {Role.ATTENDING},
    "POST /reports/{report_id}/cancel": PHYSICIANS,
    "POST /sign-out": EVERYBODY,
}
BODIES = {
    "POST /api/v1/studies/search": {"patient_id": "P1"},
    "PUT /api/v1/reports/{report_id}/text": {"seen": 1, "text": "Findings:\nNothing."},
    "POST /api/v1/reports/{report_id}/preliminary": {"seen": 1},
    "POST /api/v1/reports/{report_id}/sign": {"seen": 1, "shown": 1, "password": PASSWORD},
    "POST /api/v1/reports/{report_id}/cancel": {"seen": 1, "reason": "wrong study"},
    "POST /api/v1/studies/{study_instance_uid}/conflicts/{instance_id}": {"keep": False, "reason": "because"},
}
FORM = {
    "seen": "1",
    "shown": "1",
    "text": "Findings:\nNothing.",
    "password": PASSWORD,
    "reason": "because",
    "patient_id": "P1",
}

OF_PEOPLE = {
    "DELETE /api/v1/session",
    "POST /api/v1/studies/{study_instance_uid}/conflicts/{instance_id}",
}
"""No machine's token may, whatever its role."""


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def routes(desk: Desk) -> list[str]:
    return [
        f"{method} {route.path}"
        for route in desk.app.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]


def is_served(status: int) -> bool:
    """Whether somebody got as far as the thing itself, even if its state refuses."""
    return status < 500 and status not in {401, 403, 404, 422}


def is_api(route: str) -> bool:
    """Whether a machine's token is asked for, rather than a page's session."""
    return route.partition(" ")[2].startswith(("/api/", "/metrics"))


def ask(desk: Desk, client: TestClient, route: str, study_uid: str, csrf: str = "") -> int:
    method, _, template = route.partition(" ")
    missing = set(re.findall(r"{(\w+)", template)) - (known := values_of(desk, study_uid)).keys()
    assert not missing, f"{route}: say in values_of() what stands for {missing}"
    path = re.sub(r"{(\w+)[^}]*}", lambda found: known[found[1]], template)
    if is_api(route):
        return client.request(method, path, json=BODIES.get(route)).status_code
    return client.request(method, path, data={**FORM, "csrf": csrf} if method == "POST" else None).status_code


def values_of(desk: Desk, study_uid: str) -> dict[str, str]:
    """What stands for the parameters of an address about this study."""
    query = text(
        "SELECT r.id::text AS reading_id, p.sha256, p.instance_id::text FROM readings r JOIN studies s"
        " ON s.id = r.study_id JOIN reading_pictures p ON p.reading_id = r.id WHERE s.study_instance_uid = :uid"
    )
    with transaction(desk.engine) as session:
        found = dict(session.execute(query, {"uid": study_uid}).one()._mapping)
    report_id = str(desk.report_of(study_uid).id)
    return {**found, "study_instance_uid": study_uid, "report_id": report_id, "frame": "1", "name": "style.css"}


def test_the_table_above_names_exactly_the_routes_there_are(desk: Desk) -> None:
    assert set(routes(desk)) == MAY.keys()


@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_a_person_gets_what_the_table_says_and_403_for_the_rest(desk: Desk, role: Role) -> None:
    study_uid = desk.study()
    client = desk.signed_in(role)
    for route, roles in MAY.items():
        if roles is None or "session" in route or "sign-out" in route:
            continue
        status = ask(desk, client, route, study_uid, csrf=client.headers["X-CSRF-Token"])
        if role in roles:
            assert is_served(status), f"{role}: {route} gives {status}"
        else:
            assert status == 403, f"{role}: {route} gives {status}"


@pytest.mark.slow
@pytest.mark.parametrize("role", MACHINES)
def test_a_machine_gets_what_the_table_says_of_the_api(desk: Desk, role: Role) -> None:
    study_uid = desk.study()
    client = desk.machine(role)
    for route, roles in MAY.items():
        if roles is None or not is_api(route) or "session" in route:
            continue
        status = ask(desk, client, route, study_uid)
        if role in roles and route not in OF_PEOPLE:
            assert is_served(status), f"{role}: {route} gives {status}"
        else:
            assert status == 403, f"{role}: {route} gives {status}"


@pytest.mark.slow
@pytest.mark.parametrize("role", MACHINES)
def test_a_machine_s_token_opens_no_page(desk: Desk, role: Role) -> None:
    study_uid = desk.study()
    for route, roles in MAY.items():
        if roles is not None and not is_api(route):
            assert ask(desk, desk.machine(role), route, study_uid) == 401


@pytest.mark.slow
def test_nobody_gets_401_everywhere_but_where_anybody_may_ask(desk: Desk) -> None:
    study_uid = desk.study()
    for route, roles in MAY.items():
        if roles is not None:
            assert ask(desk, desk.client(), route, study_uid) == 401, route


def test_an_unknown_token_and_a_forged_cookie_are_nobody(desk: Desk) -> None:
    client = desk.client()
    client.headers["Authorization"] = "Bearer cs_unknown"
    problem(client.get("/api/v1/studies"), 401, "not_authenticated")
    client.headers["Authorization"] = "Basic YTpi"
    answer = client.get("/api/v1/studies")
    problem(answer, 401, "not_authenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    forged = desk.client()
    forged.cookies.set("countersign_session", "forged")
    problem(forged.get("/api/v1/studies"), 401, "not_authenticated")


@pytest.mark.slow
def test_the_other_site_s_people_find_nothing(desk: Desk) -> None:
    study_uid = desk.study()
    for role in Role:
        client = desk.signed_in(role, site="elsewhere")
        for route, roles in MAY.items():
            if roles is None or role not in roles or "{" not in route:
                continue
            status = ask(desk, client, route, study_uid, csrf=client.headers["X-CSRF-Token"])
            assert status == 404, f"{role}: {route} gives {status}"


@pytest.mark.slow
def test_the_other_site_s_machines_find_nothing(desk: Desk) -> None:
    study_uid = desk.study()
    asked = set()
    for role in MACHINES:
        client = desk.machine(role, *(["drafts:read"] if role == Role.DASHBOARD else []), site="elsewhere")
        for route, roles in MAY.items():
            if roles is None or role not in roles or "{" not in route or not is_api(route):
                continue
            status = ask(desk, client, route, study_uid)
            assert status == (403 if route in OF_PEOPLE else 404), f"{role}: {route} gives {status}"
            asked.add(route)
    for_machines = {r for r, roles in MAY.items() if roles and roles & set(MACHINES) and "{" in r and is_api(r)}
    assert asked == for_machines
    assert len(asked) >= 6


def test_the_other_site_s_lists_are_empty(desk: Desk) -> None:
    study_uid = desk.study()
    token = desk.machine(Role.DASHBOARD, "drafts:read", site="elsewhere")
    assert token.get("/api/v1/studies").json() == {"items": [], "next": None}
    problem(token.get(f"/api/v1/studies/{study_uid}"), 404, "not_found")
    page = desk.signed_in(Role.ATTENDING, site="elsewhere").get("/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert study_uid not in page.text
    assert csrf_of(page)


def test_the_same_uid_at_two_sites_is_two_studies(desk: Desk) -> None:
    study_uid = desk.study()
    with transaction(desk.engine) as session:
        session.execute(
            text(
                "INSERT INTO studies (id, site_id, study_instance_uid, state, modality) SELECT gen_random_uuid(), id,"
                " :uid, 'receiving', 'MR' FROM sites WHERE name = 'elsewhere'"
            ),
            {"uid": study_uid},
        )
    assert desk.machine(Role.DASHBOARD).get(f"/api/v1/studies/{study_uid}").json()["modality"] == "CR"
    assert desk.machine(Role.DASHBOARD, site="elsewhere").get(f"/api/v1/studies/{study_uid}").json()["modality"] == "MR"
