"""The pages' language and colours, and what the study and signing pages say where something is missing or wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from record import admission
from record.body import BANNER_DRAFT
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import arrival, uid
from tests.web_records import PASSWORD, Desk, csrf_of, desk_on


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def browser(desk: Desk, role: Role = Role.ATTENDING, **headers: str) -> TestClient:
    client = desk.client(headers={"Accept": "text/html,*/*", **headers})
    client.post("/sign-in", data={"login": desk.user(role), "password": PASSWORD})
    return client


def test_a_page_is_in_the_language_that_the_browser_asks_for(desk: Desk) -> None:
    for header, lang, word in (("es-ES,en;q=0.5", "es", "Iniciar sesión"), ("zh-CN", "zh-Hans", "登录")):
        page = desk.client(headers={"Accept-Language": header}).get("/sign-in")
        assert f'<html lang="{lang}"' in page.text
        assert word in page.text
        assert "Accept-Language" in page.headers["vary"]


def test_a_chosen_language_and_appearance_stay_and_lead_back(desk: Desk) -> None:
    client = browser(desk, **{"Accept-Language": "en"})
    answer = client.post("/language", data={"language": "es", "back": "/?tab=all"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?tab=all")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "Lista de trabajo" in client.get("/").text
    assert "dark.css" in client.get("/").text
    client.post("/appearance", data={"appearance": "light"})
    assert "dark.css" not in client.get("/").text
    client.post("/appearance", data={"appearance": "dark"})
    assert '/static/dark.css" media="screen"' in client.get("/").text
    assert client.get("/static/dark.css").status_code == 200
    assert client.post("/language", data={"language": "tlh"}).status_code == 422


@pytest.mark.parametrize(
    "back", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/x\r\nSet-Cookie: a=b"]
)
def test_a_choice_leads_to_no_other_site(desk: Desk, back: str) -> None:
    answer = desk.client().post("/language", data={"language": "en", "back": back})
    assert answer.headers["location"] == "/"


def test_another_sites_page_changes_no_choice(desk: Desk) -> None:
    answer = desk.client().post("/language", data={"language": "es"}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_without_a_wish_of_the_browser_the_sites_language_stands(desk: Desk) -> None:
    client = browser(desk)
    client.headers["Accept-Language"] = ""
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE sites SET language = 'zh-Hans' WHERE name = 'main'"))
    try:
        assert 'lang="zh-Hans"' in client.get("/").text
        assert '<html lang="en"' in client.get("/sign-in").text  # the sites differ, and nobody is known yet
    finally:
        with transaction(desk.engine) as session:
            session.execute(text("UPDATE sites SET language = 'en'"))


def test_what_belongs_to_the_record_is_not_translated(desk: Desk) -> None:
    study_uid = desk.study(patient_name="DOE^JANE", study_description="Report")
    page = browser(desk, **{"Accept-Language": "zh"}).get(f"/studies/{study_uid}").text
    assert BANNER_DRAFT in page
    assert "以下文字由机器撰写" in page
    assert "There is an opacity in the left upper zone." in page
    assert "· Report</bdi></dd>" in page
    assert "置信度低" in page


def test_errors_speak_the_language_of_the_page(desk: Desk) -> None:
    client = browser(desk, **{"Accept-Language": "es"})
    page = client.get("/studies/1.2.3")
    assert page.status_code == 404
    assert "No existe ese estudio." in page.text


def test_a_page_that_answers_a_form_offers_no_choice_that_would_lose_words(desk: Desk) -> None:
    report = f"/reports/{desk.report_of(desk.study()).id}"
    client = browser(desk)
    signing = client.get(f"{report}/sign")
    assert 'action="/language"' in signing.text
    form = {"csrf": csrf_of(signing), "seen": "1", "text": f"{BANNER_DRAFT}\nMy words."}
    refused = client.post(f"{report}/text", data=form)
    assert refused.status_code == 422
    assert 'action="/language"' not in refused.text
    assert "What is saved now" not in refused.text
    assert "Your text is not saved yet" in refused.text


def test_a_wrong_password_is_said_to_be_wrong_and_the_text_to_be_kept(desk: Desk) -> None:
    report = f"/reports/{desk.report_of(desk.study()).id}"
    client = browser(desk)
    form = {"csrf": csrf_of(client.get(f"{report}/sign")), "seen": "1", "shown": "1", "password": "wrong"}
    refused = client.post(f"{report}/sign", data=form)
    assert refused.status_code == 401
    assert "The password was wrong" in refused.text
    assert "the text is saved as it stands here" in refused.text
    assert "Not signed in" not in refused.text


def test_an_empty_report_is_said_to_be_empty_before_a_password_is_asked_for(desk: Desk) -> None:
    study_uid = desk.study(ends="abstained")
    client = browser(desk)
    client.post(f"/studies/{study_uid}/report", data={"csrf": csrf_of(client.get("/"))})
    signing = client.get(f"/reports/{desk.report_of(study_uid).id}/sign")
    assert "The report has no words yet" in signing.text
    assert 'name="password"' not in signing.text


def test_the_page_to_sign_on_shows_what_differs_from_the_machines_words(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk)
    assert "Nothing was changed" in client.get(f"{report}/sign").text
    words = "Findings:\nThere is an opacity in the right upper zone.\n\nImpression:\nOpacity.\n"
    client.post(f"{report}/text", data={"csrf": csrf_of(client.get("/")), "seen": "1", "text": words})
    page = client.get(f"{report}/sign").text
    assert "<del>left</del>" in page
    assert "<ins>right</ins>" in page


def test_a_study_page_can_ask_whether_something_moved_and_that_is_no_opening(desk: Desk) -> None:
    study_uid = desk.study()
    client = browser(desk)
    page = client.get(f"/studies/{study_uid}")
    found = re.search(r'data-tag="&#34;(\w+)&#34;"', page.text)
    assert found
    before = len(desk.events("study_opened"))
    tag = {"If-None-Match": f'"{found[1]}"'}
    assert client.get(f"/studies/{study_uid}/tag", headers=tag).status_code == 304
    with transaction(desk.engine) as session:
        session.execute(
            text("UPDATE studies SET updated_at = now() + interval '1 s' WHERE study_instance_uid = :u"),
            {"u": study_uid},
        )
    moved = client.get(f"/studies/{study_uid}/tag", headers=tag)
    assert (moved.status_code, moved.content) == (204, b"")
    assert len(desk.events("study_opened")) == before


def test_an_operator_closes_a_study_that_is_still_receiving(desk: Desk) -> None:
    study_uid = uid()
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(study_uid)])
    assert "close it now" not in browser(desk).get(f"/studies/{study_uid}").text
    client = browser(desk, Role.OPERATOR)
    page = client.get(f"/studies/{study_uid}")
    assert "close it now" in page.text
    answer = client.post(f"/studies/{study_uid}/close", data={"csrf": csrf_of(page)})
    assert answer.headers["location"] == f"/studies/{study_uid}?done=closed"
    assert "The machine is at work" in client.get(f"/studies/{study_uid}").text
    assert client.post(f"/studies/{study_uid}/close", data={"csrf": csrf_of(page)}).status_code == 409
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))


def test_a_study_fetched_as_prior_is_taken_up_by_an_operator(desk: Desk) -> None:
    study_uid = desk.study()
    with transaction(desk.engine) as session:
        where = "WHERE study_instance_uid = :u"
        session.execute(
            text(f"UPDATE studies SET state = 'skipped', skipped_code = 'fetched_as_prior' {where}"), {"u": study_uid}
        )
    client = browser(desk, Role.OPERATOR)
    page = client.get(f"/studies/{study_uid}")
    assert "only fetched as an earlier study" in page.text
    answer = client.post(f"/studies/{study_uid}/read", data={"csrf": csrf_of(page)})
    assert answer.headers["location"].endswith("done=taken_up")


def test_every_image_of_a_study_without_a_draft_can_be_opened(desk: Desk) -> None:
    study_uid = desk.study(ends="failed", series_description="PA")
    page = browser(desk).get(f"/studies/{study_uid}").text
    assert re.search(rf'href="/studies/{re.escape(study_uid)}/instances/[0-9a-f-]+\?frame=1"', page)
    assert re.search(r'<img src="/api/v1/studies/[^"]+/frames/1/rendered\?size=256"', page)
    assert "/instances/" not in browser(desk, Role.OPERATOR).get(f"/studies/{study_uid}").text
