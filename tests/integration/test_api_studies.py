"""The API's studies: lists, filters, paging, what each role sees of one, and the events of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from record import admission, studies
from record.body import BANNER_DRAFT
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, study_of
from tests.web_records import Desk, desk_on, problem

ITEM = {
    "study_instance_uid",
    "state",
    "revision",
    "instances",
    "modality",
    "lane",
    "reading_state",
    "reason_code",
    "report_state",
    "report_id",
    "patient_name",
    "patient_id",
    "patient_sex",
    "patient_age",
    "accession_number",
    "study_description",
    "study_date",
    "site",
    "flags",
    "created_at",
    "first_image_at",
    "last_image_at",
    "updated_at",
}
IDENTITY = (
    "patient_name",
    "patient_id",
    "patient_sex",
    "patient_age",
    "accession_number",
    "study_description",
    "study_date",
)


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def alone(database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(database, tmp_path_factory.mktemp("store")) as made:
        yield made


def test_a_line_of_the_list_says_where_the_study_stands_and_nothing_of_the_patient(alone: Desk) -> None:
    study_uid = alone.study(patient_name="CANARY^NAME", patient_id="CANARY1", accession_number="CANARY2")
    answer = alone.machine(Role.DASHBOARD).get("/api/v1/studies")
    assert answer.status_code == 200
    (line,) = answer.json()["items"]
    assert line.keys() == ITEM
    times = ("created_at", "first_image_at", "last_image_at", "updated_at")
    assert {name: value for name, value in line.items() if name not in times} | {"report_id": ""} == {
        "study_instance_uid": study_uid,
        "state": "ready",
        "revision": 1,
        "instances": 1,
        "modality": "CR",
        "lane": "routine",
        "reading_state": "done",
        "reason_code": None,
        "report_state": "draft",
        "report_id": "",
        "site": "main",
        "flags": [],
        **dict.fromkeys(IDENTITY),
    }
    assert all(line[name] for name in times)
    assert line["report_id"] == str(alone.report_of(study_uid).id)
    assert "CANARY" not in answer.text
    assert answer.headers["cache-control"] == "private, no-cache"
    assert not alone.events("worklist_shown")


@pytest.mark.parametrize("role", [Role.RESIDENT, Role.ATTENDING, Role.OPERATOR])
def test_a_list_that_names_patients_goes_to_who_may_see_them_and_is_one_event(alone: Desk, role: Role) -> None:
    study_uid = alone.study(patient_name="DOE^JANE", patient_id="P1", accession_number="A1", patient_sex="F")
    client = alone.signed_in(role)
    answer = client.get("/api/v1/studies")
    (line,) = answer.json()["items"]
    assert (line["patient_name"], line["patient_id"], line["accession_number"]) == ("DOE^JANE", "P1", "A1")
    assert line["patient_sex"] == "F"
    assert answer.headers["cache-control"] == "no-store", "what names a patient is kept nowhere"
    (told,) = alone.events("worklist_shown")
    assert told == {"count": 1, "studies": [id_of(alone, study_uid)]}
    again = client.get("/api/v1/studies", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    watched = client.head("/api/v1/studies")
    assert (watched.status_code, watched.content, watched.headers["etag"]) == (200, b"", answer.headers["etag"])
    assert client.head("/api/v1/studies", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/api/v1/studies?modality=MR").json()["items"] == []
    assert len(alone.events("worklist_shown")) == 1, "what was not sent is none"


def test_one_role_s_list_is_never_taken_for_another_s(alone: Desk) -> None:
    alone.study()
    tags = {alone.machine(role).get("/api/v1/studies").headers["etag"] for role in (Role.OPERATOR, Role.DASHBOARD)}
    tags.add(alone.machine(Role.DASHBOARD, "drafts:read").get("/api/v1/studies").headers["etag"])
    assert len(tags) == 3


CHANGES = {
    "a lane": "UPDATE studies SET lane = 'stat'",
    "a name that was corrected": "UPDATE studies SET patient_name = 'OTHER'",
    "a reading that was claimed": "UPDATE readings SET state = 'prepared', model = 'phantom'",
    "a reading that fails again": "UPDATE readings SET failures = 1",
    "a report that was saved": "UPDATE reports SET revision = revision + 1",
    "a site's name": "UPDATE sites SET name = 'renamed' WHERE name = 'main'",
    "a conflict": "UPDATE instances SET conflict_kind = 'bytes'",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_tag_moves_with_every_visible_change(alone: Desk, change: str) -> None:
    study_uid = alone.study()
    alone.study(ends="queued")
    client = alone.machine(Role.DASHBOARD)
    tag = {"If-None-Match": client.get("/api/v1/studies").headers["etag"]}
    with transaction(alone.engine) as session:
        session.execute(text("UPDATE readings SET rank = 7"))
    assert client.get("/api/v1/studies", headers=tag).status_code == 304, "what nobody sees is no change"
    with transaction(alone.engine) as session:
        session.execute(text(change + (" WHERE state = 'queued'" if "readings" in change else "")))
    answer = client.get("/api/v1/studies", headers=tag)
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag["If-None-Match"]
    assert study_uid in answer.text


def test_a_line_s_flags_tell_what_stands_out(alone: Desk) -> None:
    study_uid = alone.study()
    with transaction(alone.engine) as session:
        admission.admit(session, [arrival(study_uid)])
        admission.admit(session, [arrival(study_uid, patient_id="P2")])

    def flags(*scopes: str) -> list[str]:
        (line,) = alone.machine(Role.DASHBOARD, *scopes).get("/api/v1/studies").json()["items"]
        return list(line["flags"])

    assert flags() == ["conflict", "receiving_late"]
    assert flags("drafts:read") == ["conflict", "receiving_late", "low_confidence"], "the draft's, for who may read it"
    with transaction(alone.engine) as session:
        session.execute(text("UPDATE instances SET conflict_decided_at = now() WHERE conflict_kind IS NOT NULL"))
        study = study_of(session, study_uid)
        session.refresh(study, with_for_update=True)
        studies.freeze(session, study, "test", {})
    assert flags() == ["outdated"]
    with transaction(alone.engine) as session:
        session.execute(text("UPDATE readings SET failures = 2 WHERE state = 'queued'"))
    assert flags() == ["outdated", "retrying"]


@pytest.mark.parametrize("query", ["sate=ready", "patient_name=CANARY", "state=ready&state=skipped", "limit=2&CANARY"])
def test_a_parameter_that_is_none_or_stands_twice_is_refused_by_name(desk: Desk, query: str) -> None:
    client = desk.machine(Role.DASHBOARD)
    detail = problem(client.get(f"/api/v1/studies?{query}"), 422, "invalid_request")["detail"]
    assert "modality" in detail or "state" in detail
    problem(client.get(f"/api/v1/studies/1.2.3?{query}"), 422, "invalid_request")


def test_an_intake_sees_nothing_that_others_sent(desk: Desk) -> None:
    desk.study()
    assert desk.machine(Role.INTAKE).get("/api/v1/studies").json()["items"] == []


def test_a_list_costs_as_many_queries_as_it_has_none(alone: Desk) -> None:
    client, asked = alone.machine(Role.OPERATOR), []
    client.get("/api/v1/studies")
    from sqlalchemy import event

    @event.listens_for(alone.engine, "before_cursor_execute")
    def count(*_: object) -> None:
        asked.append(1)

    client.get("/api/v1/studies")
    nothing = len(asked)
    for _ in range(5):
        alone.study()
    asked.clear()
    client.get("/api/v1/studies")
    assert len(asked) <= nothing + 1, "the event"


def id_of(desk: Desk, study_uid: str) -> str:
    with transaction(desk.engine) as session:
        return str(study_of(session, study_uid).id)


def test_a_study_without_a_draft_says_why(desk: Desk) -> None:
    abstained, failed = desk.study(ends="abstained"), desk.study(ends="failed")
    skipped = desk.study(has_pixels=False)
    lines = {i["study_instance_uid"]: i for i in desk.machine(Role.DASHBOARD).get("/api/v1/studies").json()["items"]}
    assert [
        (lines[u]["state"], lines[u]["reading_state"], lines[u]["reason_code"]) for u in (abstained, failed, skipped)
    ] == [
        ("ready", "abstained", "no_protocol"),
        ("ready", "failed", "error"),
        ("skipped", None, "no_images"),
    ]


def test_the_filters_narrow_the_list(alone: Desk) -> None:
    drafted, magnetic = alone.study(), alone.study(modality="MR", ends="abstained")
    client = alone.machine(Role.DASHBOARD)

    def listed(query: str) -> set[str]:
        return {line["study_instance_uid"] for line in client.get(f"/api/v1/studies?{query}").json()["items"]}

    assert listed("modality=MR") == {magnetic}
    assert listed("reading_state=done") == {drafted}
    assert listed("report_state=draft") == {drafted}
    assert listed("state=ready") == {drafted, magnetic}
    assert listed("state=receiving") == set()
    assert listed("lane=stat") == set()
    assert listed("modality=MR&reading_state=done") == set()
    newest = client.get("/api/v1/studies").json()["items"][0]
    assert listed("updated_since=2999-01-01T00:00:00Z") == set()
    since = newest["updated_at"].replace("+", "%2B")
    assert listed(f"updated_since={since}") == {newest["study_instance_uid"]}


@pytest.mark.parametrize(
    "query",
    [
        "state=nonsense",
        "limit=0",
        "limit=201",
        "cursor=nonsense",
        "cursor=W10",
        "cursor=%00",
        "updated_since=2026-01-01T00:00:00",
        "modality=%00",
    ],
)
def test_a_query_that_cannot_be_used_is_a_problem(desk: Desk, query: str) -> None:
    problem(desk.machine(Role.DASHBOARD).get(f"/api/v1/studies?{query}"), 422, "invalid_request")


def test_turning_pages_shows_every_study_once_even_where_times_are_equal(alone: Desk) -> None:
    with transaction(alone.engine) as session:
        session.execute(
            text(
                "INSERT INTO studies (id, site_id, study_instance_uid, state, updated_at) SELECT gen_random_uuid(), id,"
                " '1.2.' || n, 'receiving', now() - interval '1 minute' * (n / 7) FROM sites, generate_series(1, 50) n"
                " WHERE name = 'main'"
            )
        )
    client, seen, cursor = alone.machine(Role.DASHBOARD), [], ""
    while True:
        page = client.get(f"/api/v1/studies?limit=8{cursor}").json()
        seen += [line["study_instance_uid"] for line in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(seen) == len(set(seen)) == 50
    assert seen == [i["study_instance_uid"] for i in client.get("/api/v1/studies?limit=200").json()["items"]]


def test_a_study_that_moves_while_pages_are_turned_doubles_no_other(alone: Desk) -> None:
    uids = [alone.study(ends="abstained") for _ in range(4)]
    client = alone.machine(Role.DASHBOARD)
    first = client.get("/api/v1/studies?limit=2").json()
    with transaction(alone.engine) as session:
        session.execute(text("UPDATE studies SET updated_at = now() WHERE study_instance_uid = :u"), {"u": uids[0]})
    second = client.get(f"/api/v1/studies?limit=2&cursor={first['next']}").json()
    assert [i["study_instance_uid"] for i in second["items"]] == [uids[1]]


def test_an_unchanged_list_is_not_sent_again(alone: Desk) -> None:
    alone.study()
    client = alone.machine(Role.DASHBOARD)
    answer = client.get("/api/v1/studies")
    tag = {"If-None-Match": answer.headers["etag"]}
    assert client.get("/api/v1/studies", headers=tag).status_code == 304
    alone.study(ends="abstained")
    assert client.get("/api/v1/studies", headers=tag).status_code == 200


def test_a_physician_sees_everything_of_a_study(desk: Desk) -> None:
    study_uid = desk.study(patient_name="DOE^JANE", study_description="Chest")
    shown = desk.signed_in(Role.RESIDENT).get(f"/api/v1/studies/{study_uid}").json()
    assert shown["identity"]["patient_name"] == "DOE^JANE"
    assert shown["revisions"][0]["evidence_kind"] == "test"
    assert shown["series"][0]["instances"] == 1
    (reading,), (draft,), (report,) = shown["readings"], shown["drafts"], shown["reports"]
    assert (reading["state"], reading["protocol"], reading["revision"]) == ("done", "phantom-chest", 1)
    assert reading["pictures"][0]["href"] == f"/api/v1/pictures/{reading['pictures'][0]['sha256']}"
    assert draft["reading_id"] == reading["id"]
    assert draft["provenance"]["model"]["name"] == "phantom"
    assert report["state"] == "draft"


def test_a_draft_never_comes_without_its_banner(desk: Desk) -> None:
    study_uid = desk.study()
    for client in (desk.signed_in(Role.ATTENDING), desk.machine(Role.DASHBOARD, "drafts:read")):
        (draft,) = client.get(f"/api/v1/studies/{study_uid}").json()["drafts"]
        assert draft["banner"] == BANNER_DRAFT
        assert draft["labelled_text"].startswith(BANNER_DRAFT)
        assert "text" not in draft, "a name means the same everywhere: `text` is bare"


def test_a_dashboard_sees_no_draft_no_identity_and_no_picture(desk: Desk) -> None:
    study_uid = desk.study(patient_name="CANARY^NAME", series_description="CANARY series", study_description="CANARY")
    answer = desk.machine(Role.DASHBOARD).get(f"/api/v1/studies/{study_uid}")
    shown = answer.json()
    assert (shown["drafts"], shown["identity"], shown["readings"][0]["pictures"]) == (None, None, None)
    assert "CANARY" not in answer.text
    assert "opacity" not in answer.text


def test_an_operator_sees_the_patient_and_the_failure_but_no_words(desk: Desk) -> None:
    study_uid = desk.study()
    shown = desk.machine(Role.OPERATOR).get(f"/api/v1/studies/{study_uid}").json()
    assert shown["identity"] is not None
    assert shown["drafts"] is None


def test_what_a_shadow_reading_saw_is_seen_by_nobody(alone: Desk) -> None:
    study_uid = alone.study()
    client = alone.signed_in(Role.ATTENDING)
    (reading,) = client.get(f"/api/v1/studies/{study_uid}").json()["readings"]
    with transaction(alone.engine) as session:
        session.execute(text("UPDATE readings SET purpose = 'shadow'"))
    shown = client.get(f"/api/v1/studies/{study_uid}").json()
    assert (shown["readings"], shown["drafts"]) == ([], [])
    problem(client.get(reading["pictures"][0]["href"]), 404, "not_found")


def test_opening_a_study_is_an_event(alone: Desk) -> None:
    study_uid = alone.study()
    alone.machine(Role.DASHBOARD).get(f"/api/v1/studies/{study_uid}")
    assert [facts["revision"] for facts in alone.events("study_opened")] == [1]


def test_a_picture_is_served_exactly_as_the_model_saw_it_and_that_is_an_event(alone: Desk) -> None:
    study_uid = alone.study()
    client = alone.signed_in(Role.RESIDENT)
    picture = client.get(f"/api/v1/studies/{study_uid}").json()["readings"][0]["pictures"][0]
    answer = client.get(picture["href"])
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, no-cache", "what was seen is gone with the session"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert hashlib.sha256(answer.content).hexdigest() == picture["sha256"]
    assert [facts["sha256"] for facts in alone.events("picture_served")] == [picture["sha256"]]
    assert client.get(picture["href"], headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert len(alone.events("picture_served")) == 1


def test_a_picture_of_nobody_s_and_one_that_is_gone_are_not_found(desk: Desk) -> None:
    client = desk.signed_in(Role.RESIDENT)
    problem(client.get(f"/api/v1/pictures/{'0' * 64}"), 404, "not_found")
    problem(client.get("/api/v1/pictures/..%2Fx"), 404, "not_found")
    problem(client.get("/api/v1/pictures/nonsense"), 422, "invalid_request")


def test_a_physician_begins_by_hand_what_was_not_analysed(desk: Desk) -> None:
    client = desk.signed_in(Role.RESIDENT)
    for study_uid in (desk.study(ends="abstained"), desk.study(ends="failed"), desk.study(has_pixels=False)):
        answer = client.post(f"/api/v1/studies/{study_uid}/report")
        assert answer.status_code == 201
        begun = answer.json()
        assert answer.headers["location"] == f"/api/v1/reports/{begun['id']}"
        assert (begun["state"], begun["banner"], begun["revision"]) == ("draft", "UNSIGNED", 1)
        again = problem(client.post(f"/api/v1/studies/{study_uid}/report"), 409, "conflict")
        assert again["report_id"] == begun["id"]
    problem(client.post("/api/v1/studies/1.2.3/report"), 404, "not_found")


def test_a_conflict_is_listed_and_decided_once(desk: Desk) -> None:
    study_uid, elsewhere = desk.study(), desk.study()
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(study_uid, patient_id="P2", patient_name="CANARY")])
    client = desk.signed_in(Role.OPERATOR)
    shown = client.get(f"/api/v1/studies/{study_uid}").json()
    (side,) = shown["conflicts"]
    assert (shown["undecided_conflicts"], side["kind"], side["beside"]) == (1, "identity", None)
    seen_by_a_dashboard = desk.machine(Role.DASHBOARD).get(f"/api/v1/studies/{study_uid}")
    assert len(seen_by_a_dashboard.json()["conflicts"]) == 1
    assert "CANARY" not in seen_by_a_dashboard.text
    assert (side["patient_id"], side["patient_name"]) == ("P2", "CANARY"), "who decides sees whose it is"
    asked = {"keep": True, "reason": "A relabelled film."}
    address = f"/api/v1/studies/{study_uid}/conflicts/{side['instance_id']}"
    wrong = f"/api/v1/studies/{elsewhere}/conflicts/{side['instance_id']}"
    problem(client.post(wrong, json=asked), 404, "not_found")
    problem(client.post(address, json=asked | {"reason": " "}), 422, "invalid_request")
    problem(client.post(address, json={"keep": True}), 422, "invalid_request")
    answer = client.post(address, json=asked)
    assert answer.status_code == 200
    assert (answer.json()["conflicts"], answer.json()["state"]) == ([], "receiving")
    problem(client.post(address, json=asked), 409, "illegal_move")
