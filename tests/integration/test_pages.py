"""The pages, as a browser without scripts uses them."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from gateway.web import proving
from gateway.web.app import create_app
from record import admission, audit
from record.body import BANNER_DRAFT
from record.db import transaction
from record.models import Instance
from record.settings import ApiSettings
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, study_of
from tests.web_records import PASSWORD, Desk, csrf_of, desk_on

WORDS = "Findings:\nThere is an opacity in the right upper zone.\n\nImpression:\nOpacity, right.\n"


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def browser(desk: Desk, role: Role, **who: str) -> TestClient:
    client = desk.client(headers={"Accept": "text/html,*/*"})
    answer = client.post("/sign-in", data={"login": desk.user(role, **who), "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return client


def submit(client: TestClient, page: httpx.Response, action: str, **values: str) -> httpx.Response:
    """Fill in the form of a page that goes to `action`, and send it."""
    form = re.search(rf'<form method="post" action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    assert form, f"no form goes to {action}"
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[0]))
    return client.post(action, data={**hidden, **values})


def editor_text(page: httpx.Response) -> str:
    found = re.search(r'<textarea id="text"[^>]*>\n(.*?)</textarea>', page.text, re.DOTALL)
    assert found
    return html.unescape(found[1])


def editor_text_kept(page: httpx.Response) -> str:
    """The text on the page that needs no database."""
    found = re.search(r'<textarea name="text"[^>]*>\n(.*?)</textarea>', page.text, re.DOTALL)
    assert found
    return html.unescape(found[1])


def test_who_is_not_signed_in_is_sent_to_sign_in(desk: Desk) -> None:
    client = desk.client(headers={"Accept": "text/html"})
    for path in ("/", "/studies/1.2.3"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    refused = client.post("/sign-in", data={"login": "nobody", "password": "wrong"})
    assert refused.status_code == 401
    assert 'role="alert"' in refused.text


def test_a_page_with_patients_is_not_kept_by_the_browser_and_is_an_event(desk: Desk) -> None:
    desk.study(patient_name="DOE^JANE", study_description="Chest <b>PA</b>", study_date="20260102")
    before = len(desk.events("worklist_shown"))
    page = browser(desk, Role.RESIDENT).get("/")
    assert page.headers["cache-control"] == "no-store"
    assert "DOE, JANE" in page.text
    assert "2026-01-02" in page.text
    assert "Chest &lt;b&gt;PA" in page.text
    assert len(desk.events("worklist_shown")) == before + 1


def test_who_may_not_see_identities_gets_a_worklist_without_names(desk: Desk) -> None:
    desk.study(patient_name="CANARY^NAME", patient_id="CANARY1", study_description="CANARY")
    before = len(desk.events("worklist_shown"))
    for role in (Role.AUDITOR, Role.ADMIN, Role.INTAKE, Role.DASHBOARD):
        page = browser(desk, role).get("/")
        assert page.status_code == 200
        assert "CANARY" not in page.text
    assert len(desk.events("worklist_shown")) == before


def test_the_worklist_is_filtered_and_paged_without_a_script(desk: Desk) -> None:
    desk.study(modality="NM", ends="abstained", patient_name="NUCLEAR^ONE")
    client = browser(desk, Role.ATTENDING)
    page = client.get("/?modality=NM&reading_state=abstained")
    assert page.text.count("<tr id=") == 1
    assert "no protocol" in page.text
    assert "No study matches" in client.get("/?modality=XX").text
    assert client.get("/?state=nonsense").status_code == 422


def test_empty_choices_of_the_filter_form_ask_for_all(desk: Desk) -> None:
    desk.study()
    page = browser(desk, Role.ATTENDING).get("/?modality=&state=&reading_state=&report_state=&lane=")
    assert page.status_code == 200
    assert "/studies/" in page.text


def test_the_study_page_shows_pictures_the_marked_draft_and_where_it_comes_from(desk: Desk) -> None:
    study_uid = desk.study(patient_name="DOE^JANE")
    before = len(desk.events("study_opened"))
    page = browser(desk, Role.RESIDENT).get(f"/studies/{study_uid}")
    assert page.headers["cache-control"] == "no-store"
    assert '<img src="/api/v1/pictures/' in page.text
    assert page.text.count(BANNER_DRAFT) >= 2
    for said in ("phantom-chest", "d" * 64, "e" * 64, "low confidence", "opacity in the left upper zone"):
        assert said in page.text
    opened = desk.events("study_opened")[before:]
    assert len(opened) == 1
    assert opened[0]["pictures"]
    assert "Save and go on to sign" not in page.text


def test_a_physician_edits_saves_and_signs_exactly_what_is_shown(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    page = client.get(f"/studies/{study_uid}")
    text_now = editor_text(page)
    assert BANNER_DRAFT not in text_now
    saved = submit(
        client, page, f"{report}/text", text=text_now.replace("left", "right").replace("\n", "\r\n"), then="sign"
    )
    assert (saved.status_code, saved.headers["location"]) == (303, f"{report}/sign")
    signing = client.get(f"{report}/sign")
    assert "opacity in the right upper zone" in signing.text
    assert "UNSIGNED" in signing.text
    refused = submit(client, signing, f"{report}/sign", password="wrong")
    assert refused.status_code == 401
    assert "password" in refused.text
    signed = submit(client, refused, f"{report}/sign", password=PASSWORD)
    assert signed.headers["location"] == f"/studies/{study_uid}?done=signed"
    page = client.get(signed.headers["location"])
    assert "Signed by <strong><bdi>Dr. Attending</bdi></strong>" in page.text
    assert "authorship and approval" in page.text
    assert "<textarea" not in page.text
    assert client.get(f"{report}/sign").status_code == 303


def test_of_two_editors_the_second_finds_both_texts_on_the_page(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    one, two = browser(desk, Role.RESIDENT), browser(desk, Role.ATTENDING)
    of_one, of_two = one.get(f"/studies/{study_uid}"), two.get(f"/studies/{study_uid}")
    submit(one, of_one, f"{report}/text", text="Findings:\nWords of the first.")
    page = submit(two, of_two, f"{report}/text", text="Findings:\nWords of the <second>.")
    assert page.status_code == 409
    assert "Somebody saved in between" in page.text
    assert "Words of the first." in page.text
    assert editor_text(page) == "Findings:\nWords of the <second>."
    assert submit(two, page, f"{report}/text", text=editor_text(page)).status_code == 303
    assert "Words of the &lt;second&gt;." in one.get(f"/studies/{study_uid}").text


def test_a_text_with_the_banner_is_refused_and_kept(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT)
    page = submit(client, client.get(f"/studies/{study_uid}"), f"{report}/text", text=f"{BANNER_DRAFT}\nMy words.")
    assert page.status_code == 422
    assert editor_text(page) == f"{BANNER_DRAFT}\nMy words."
    assert desk.report_of(study_uid).revision == 1


def test_a_text_for_a_report_that_was_signed_meanwhile_is_kept_for_copying(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    resident, attending = browser(desk, Role.RESIDENT), browser(desk, Role.ATTENDING)
    page = resident.get(f"/studies/{study_uid}")
    submit(attending, attending.get(f"{report}/sign"), f"{report}/sign", password=PASSWORD)
    late = submit(resident, page, f"{report}/text", text="Findings:\nToo late.")
    assert late.status_code == 409
    assert "Too late." in late.text
    assert "not saved" in late.text


def test_a_text_outlives_the_session_it_was_typed_in(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT, login="slow-writer")
    page = client.get(f"/studies/{study_uid}")
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE user_sessions SET ended_at = now()"))
    over = submit(client, page, f"{report}/text", text="Findings:\nMy <long> text.")
    assert over.status_code == 401
    assert "My &lt;long&gt; text." in over.text
    wrong = submit(client, over, "/sign-in", login="slow-writer", password="wrong", text="Findings:\nMy <long> text.")
    assert wrong.status_code == 401
    assert "My &lt;long&gt; text." in wrong.text
    back = submit(client, wrong, "/sign-in", login="slow-writer", password=PASSWORD, text="Findings:\nMy <long> text.")
    assert back.status_code == 200
    assert editor_text(back) == "Findings:\nMy <long> text."
    assert submit(client, back, f"{report}/text", text=editor_text(back)).status_code == 303
    assert desk.report_of(study_uid).revision == 2


@pytest.fixture
def away(tmp_path: Path) -> FastAPI:
    """The same pages while PostgreSQL is gone: nothing listens where their engine looks."""
    return create_app(ApiSettings(database_url="postgresql://x:y@127.0.0.1:9/z", store=tmp_path))


def as_now(client: TestClient, app: FastAPI) -> TestClient:
    """The same browser, whose server has lost its database."""
    now = TestClient(app, raise_server_exceptions=False, follow_redirects=False, headers={"Accept": "text/html,*/*"})
    now.cookies.update(dict(client.cookies))
    return now


def test_a_text_outlives_the_database(desk: Desk, away: FastAPI) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT)
    page = client.get(f"/studies/{study_uid}")
    kept = submit(as_now(client, away), page, f"{report}/text", text="Findings:\nMy <long> text.")
    assert kept.status_code == 503
    assert "The database does not answer" in kept.text
    assert editor_text_kept(kept) == "Findings:\nMy <long> text."
    still = submit(as_now(client, away), kept, f"{report}/text", text=editor_text_kept(kept))
    assert (still.status_code, editor_text_kept(still)) == (503, editor_text_kept(kept))
    assert submit(client, still, f"{report}/text", text=editor_text_kept(still)).status_code == 303
    assert desk.report_of(study_uid).revision == 2


def test_a_text_outlives_its_session_and_then_the_database(desk: Desk, away: FastAPI) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT, login="unlucky")
    page = client.get(f"/studies/{study_uid}")
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE user_sessions SET ended_at = now()"))
    over = submit(client, page, f"{report}/text", text="Findings:\nMy text.")
    right = {"login": "unlucky", "password": PASSWORD, "text": "Findings:\nMy text."}
    kept = submit(as_now(client, away), over, "/sign-in", **right)
    assert kept.status_code == 503
    assert "The database does not answer" in kept.text
    assert editor_text_kept(kept) == "Findings:\nMy text."
    back = submit(client, kept, "/sign-in", **right)
    assert (back.status_code, editor_text(back)) == (200, "Findings:\nMy text.")


def test_a_text_outlives_a_door_that_many_stand_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    web, right = desk.app.state.web, {"login": desk.user(Role.RESIDENT), "password": PASSWORD}
    form = {**right, "report_id": str(desk.report_of(desk.study()).id), "seen": "1", "text": "My text."}
    client = desk.client(headers={"Accept": "text/html"})
    with contextlib.ExitStack() as others:
        for _ in range(2):
            others.enter_context(web.proving.strangers.entered())
        monkeypatch.setattr(proving, "_WAIT_S", 0.01)
        kept = client.post("/sign-in", data=form)
        page = client.post("/sign-in", data=right)
    assert (kept.status_code, editor_text_kept(kept)) == (503, "My text.")
    assert (page.status_code, page.headers["retry-after"]) == (503, "2")
    assert "Too much is asked for at once" in page.text
    assert client.post("/sign-in", data=right).status_code == 303


def test_a_text_outlives_a_database_that_goes_once_the_session_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from gateway.web import report_pages

    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT)
    page = client.get(f"/studies/{study_uid}")

    def gone(*_: object, **__: object) -> int:
        raise OperationalError("SELECT", {}, Exception("gone"), connection_invalidated=True)

    with monkeypatch.context() as patched:
        patched.setattr(report_pages, "save_text", gone)
        kept = submit(client, page, f"{report}/text", text="Findings:\nMy text.")
    assert kept.status_code == 503
    assert "My text." in kept.text
    assert submit(client, kept, f"{report}/text", text="Findings:\nMy text.").status_code == 303


def test_images_that_came_later_must_be_looked_at_before_signing(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    submit(client, client.get(f"/studies/{study_uid}"), f"{report}/text", text=WORDS)
    before = client.get(f"{report}/sign")
    assert 'name="reason"' not in before.text
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))
    assert "outdated" in client.get(f"/studies/{study_uid}").text
    refused = submit(client, before, f"{report}/sign", password=PASSWORD)
    assert refused.status_code == 409
    assert 'name="reason"' in refused.text
    signed = submit(client, refused, f"{report}/sign", password=PASSWORD, reason="Only a doubled view.")
    assert signed.status_code == 303
    assert "Only a doubled view." in client.get(f"/studies/{study_uid}").text


def test_an_undecided_conflict_leaves_no_form_to_sign(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    before = client.get(f"{report}/sign")
    with transaction(desk.engine) as session:
        session.execute(
            text(
                "UPDATE instances SET conflict_kind = 'identity' WHERE study_id = (SELECT id FROM studies WHERE"
                " study_instance_uid = :u)"
            ),
            {"u": study_uid},
        )
    refused = submit(client, before, f"{report}/sign", password=PASSWORD)
    assert refused.status_code == 409
    assert 'name="password"' not in refused.text


def test_declaring_preliminary_saves_first(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT)
    answer = submit(client, client.get(f"/studies/{study_uid}"), f"{report}/text", text=WORDS, then="preliminary")
    assert answer.headers["location"].endswith("done=preliminary")
    row = desk.report_of(study_uid)
    assert (row.state, row.revision) == ("preliminary", 2)
    page = client.get(f"/studies/{study_uid}")
    assert "declare preliminary" not in page.text
    assert "Former texts" in page.text


def test_a_report_is_cancelled_with_a_reason_and_may_be_begun_again(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.RESIDENT)
    page = client.get(f"/studies/{study_uid}")
    assert submit(client, page, f"{report}/cancel", reason="").status_code == 422
    assert submit(client, page, f"{report}/text", text="Findings:\nThe opacity is on the right.\n").status_code == 303
    page = client.get(f"/studies/{study_uid}")
    assert submit(client, page, f"{report}/cancel", reason="Wrong side.").status_code == 303
    page = client.get(f"/studies/{study_uid}")
    ended = page.text[page.text.index("A former report") :]
    assert "Wrong side." in ended, "why"
    assert "Dr. Resident" in ended, "who"
    assert "UNSIGNED\n\nFindings:\nThe opacity is on the right." in ended, "the words are not gone"
    assert "A former report" not in browser(desk, Role.OPERATOR).get(f"/studies/{study_uid}").text
    assert submit(client, page, f"/studies/{study_uid}/report").headers["location"].endswith("done=begun")


def test_words_that_were_saved_without_a_change_are_called_the_machines(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    page = client.get(f"/studies/{study_uid}")
    said = "Every word of it is the machine&#39;s, saved without a change."
    assert said not in page.text, "the banner of the draft says it"
    submit(client, page, f"{report}/text", text=editor_text(page))
    page = client.get(f"/studies/{study_uid}")
    assert said in page.text
    submit(client, page, f"{report}/text", text=editor_text(page) + "\nSeen by me.\n")
    assert said not in client.get(f"/studies/{study_uid}").text


@pytest.mark.parametrize(
    ("ends", "header", "why"),
    [("abstained", {}, "no protocol"), ("failed", {}, "It broke."), ("done", {"has_pixels": False}, "no images")],
)
def test_what_was_not_analysed_says_why_and_is_begun_by_hand(
    desk: Desk, ends: str, header: dict[str, object], why: str
) -> None:
    study_uid = desk.study(ends=ends, **header)
    client = browser(desk, Role.ATTENDING)
    page = client.get(f"/studies/{study_uid}")
    assert why in page.text
    assert BANNER_DRAFT not in page.text
    assert submit(client, page, f"/studies/{study_uid}/report").status_code == 303
    page = client.get(f"/studies/{study_uid}")
    assert editor_text(page).split() == ["Findings:", "Impression:"]
    again = client.post(f"/studies/{study_uid}/report", data={"csrf": csrf_of(page)})
    assert again.status_code == 409


def test_an_operator_has_a_failed_reading_done_again(desk: Desk) -> None:
    study_uid = desk.study(ends="failed")
    client = browser(desk, Role.OPERATOR)
    page = client.get(f"/studies/{study_uid}")
    action = re.search(r'action="(/readings/[^"]+/retry)"', page.text)
    assert action
    assert submit(client, page, action[1]).headers["location"].endswith("done=retried")
    assert "The machine is at work on this study" in client.get(f"/studies/{study_uid}").text
    assert "/retry" not in browser(desk, Role.ATTENDING).get(f"/studies/{study_uid}").text
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))


def test_a_form_without_its_token_changes_nothing(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    page = client.post(f"{report}/text", data={"seen": "1", "text": WORDS})
    assert page.status_code == 403
    assert "right upper zone" in page.text
    assert client.post(f"{report}/sign", data={"seen": "1", "shown": "1", "password": PASSWORD}).status_code == 403
    assert client.post("/sign-out").status_code == 403
    assert desk.report_of(study_uid).state == "draft"


def test_signing_out_ends_the_session(desk: Desk) -> None:
    client = browser(desk, Role.ATTENDING)
    page = client.get("/")
    assert submit(client, page, "/sign-out").headers["location"] == "/sign-in"
    assert client.get("/").headers["location"] == "/sign-in"


def test_only_messages_of_ours_are_shown_after_a_form(desk: Desk) -> None:
    study_uid = desk.study()
    page = browser(desk, Role.ATTENDING).get(f"/studies/{study_uid}?done=CANARY")
    assert page.status_code == 200
    assert "CANARY" not in page.text


def test_hostile_text_from_a_header_and_from_the_model_stays_text(desk: Desk) -> None:
    from tests.records import draft_body

    evil = "<script>alert(1)</script>"
    study_uid = desk.study(
        body=draft_body(evil), patient_name=evil, study_description=evil, series_description=evil, patient_id=evil
    )
    client = browser(desk, Role.ATTENDING)
    for path in ("/", f"/studies/{study_uid}", f"/reports/{desk.report_of(study_uid).id}/sign"):
        assert "<script>alert" not in client.get(path).text


def test_pages_work_from_another_folder(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    made = create_app(
        ApiSettings(database_url="postgresql://x:y@127.0.0.1:9/z", store=tmp_path_factory.mktemp("store"))
    )
    assert TestClient(made).get("/sign-in").status_code == 200


def test_a_conflict_is_decided_on_the_study_page(desk: Desk) -> None:
    study_uid = desk.study()
    with transaction(desk.engine) as session:
        study = study_of(session, study_uid)
        known = session.query(Instance).filter_by(study_id=study.id).first()
        assert known is not None
        admission.admit(
            session, [arrival(study_uid, sop_instance_uid=known.sop_instance_uid, patient_id=study.patient_id)]
        )
    doctor = browser(desk, Role.ATTENDING)
    page = doctor.get(f"/studies/{study_uid}")
    action = re.search(rf'action="(/studies/{re.escape(study_uid)}/conflicts/([0-9a-f-]+))"', page.text)
    assert action is not None
    conflict = page.text[page.text.index(action[0]) : page.text.index("Leave it out")]
    shown = re.findall(r'<img src="[^"]+/instances/([0-9a-f-]+)/frames/1/rendered\?', conflict)
    assert shown == [str(known.id), action[2]], "both images, side by side"
    assert "Say why" in submit(doctor, page, action[1], keep="false", reason=" ").text
    answer = submit(doctor, page, action[1], keep="false", reason="a cut copy")
    assert answer.status_code == 303
    page = doctor.get(f"/studies/{study_uid}")
    assert "Decided conflicts (1)" in page.text
    assert "a cut copy" in page.text, "who, when and why stay to be read"
    assert "Take it in the other&#39;s place after all" in page.text
    late = dict(re.findall(r'name="(overrules)" value="([^"]*)"', page.text))
    answer = submit(doctor, page, action[1], keep="true", reason="it was the other one that is cut")
    assert answer.status_code == 303
    page = doctor.get(f"/studies/{study_uid}")
    assert f'action="{action[1]}"' not in page.text, "it has taken the other's place"
    assert f'action="/studies/{study_uid}/conflicts/{known.id}"' in page.text, "which can be put back"
    token = {"csrf": csrf_of(page), **late}
    assert doctor.post(action[1], data={**token, "keep": "true", "reason": "late"}).status_code == 409


def test_an_auditor_reads_on_a_page_what_happened_to_a_study_and_who_did_it(desk: Desk) -> None:
    study_uid, other = desk.study(patient_name="CANARY^NAME", patient_id="CANARY1"), desk.study()
    doctor = browser(desk, Role.ATTENDING)
    for seen in (study_uid, other, study_uid):
        doctor.get(f"/studies/{seen}")
    seal_all(desk)
    auditor = browser(desk, Role.AUDITOR)
    assert 'href="/audit"' in auditor.get("/").text
    page = auditor.get("/audit", params={"study_instance_uid": f" {study_uid} ", "kind": "study_opened"})
    assert page.text.count("<code>study_opened</code>") == 2
    assert "Dr. Attending" in page.text
    assert other not in page.text
    assert "CANARY" not in auditor.get("/audit").text
    positions = [int(n) for n in re.findall(r'<td class="number right">(\d+)</td>', auditor.get("/audit").text)]
    assert positions == sorted(positions, reverse=True)
    older = auditor.get("/audit", params={"before": positions[1]})
    assert f'<td class="number right">{positions[2]}</td>' in older.text
    assert f'<td class="number right">{positions[1]}</td>' not in older.text
    assert auditor.get("/audit", params={"study_instance_uid": "1.2.3"}).status_code == 404
    refused = doctor.get("/audit")
    assert (refused.status_code, "audit:read" in refused.text) == (403, False)
    assert "Your role, attending, does not include this." in refused.text
    seal_all(desk)
    assert auditor.get("/audit", params={"kind": "audit_read"}).text.count("<code>audit_read</code>") >= 3


def seal_all(desk: Desk) -> None:
    with transaction(desk.engine) as session:
        while audit.seal(session, b"k" * 32):
            pass


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "raw_unicode_escape", "punycode", "utf-16-le"])
def test_a_form_in_other_characters_than_utf_8_is_refused(desk: Desk, charset: str) -> None:
    study_uid = desk.study()
    client = browser(desk, Role.ATTENDING)
    fields = {"csrf": csrf_of(client.get(f"/studies/{study_uid}")), "seen": "1", "text": "x \\ud800 +2AA- x"}
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    answer = client.post(
        f"/reports/{desk.report_of(study_uid).id}/text",
        content=("".join(parts) + "--x--\r\n").encode(),
        headers={"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"},
    )
    assert answer.status_code == 415


def test_signing_out_is_on_record(desk: Desk) -> None:
    client = browser(desk, Role.RESIDENT)
    before = len(desk.events("signed_out"))
    page = client.get("/")
    client.post("/sign-out", data={"csrf": csrf_of(page)})
    assert len(desk.events("signed_out")) == before + 1
