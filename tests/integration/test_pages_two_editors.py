"""Two people, or a person and the machine, at one report: nobody's words are replaced or signed unseen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from gateway.web.report_pages import REPLACED
from gateway.web.study_page import OTHER_WORDS
from record.body import BANNER_DRAFT
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.integration.test_pages import browser, editor_text, submit
from tests.records import draft_body
from tests.web_records import PASSWORD, Desk, desk_on

THEIRS = "Findings:\nThere is a pneumothorax on the left."
MINE = "Findings:\nThe lungs are clear."


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def test_words_saved_while_a_session_was_over_are_shown_before_they_can_be_replaced(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    mine, theirs = browser(desk, Role.RESIDENT, login="slow"), browser(desk, Role.ATTENDING)
    page = mine.get(f"/studies/{study_uid}")
    submit(theirs, theirs.get(f"/studies/{study_uid}"), f"{report}/text", text=THEIRS)
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE user_sessions SET ended_at = now() WHERE user_id = :id"), {"id": user_id(desk)})
    over = submit(mine, page, f"{report}/text", text=MINE)
    back = submit(mine, over, "/sign-in", login="slow", password=PASSWORD, text=MINE)
    assert editor_text(back) == MINE
    assert "There is a pneumothorax on the left." in back.text
    assert "Somebody saved in between" in back.text


def test_a_text_refused_for_another_reason_shows_what_was_saved_meanwhile(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    mine, theirs = browser(desk, Role.RESIDENT), browser(desk, Role.ATTENDING)
    page = mine.get(f"/studies/{study_uid}")
    submit(theirs, theirs.get(f"/studies/{study_uid}"), f"{report}/text", text=THEIRS)
    refused = submit(mine, page, f"{report}/text", text=f"{BANNER_DRAFT}\n{MINE}")
    assert refused.status_code in {409, 422}
    assert "There is a pneumothorax on the left." in refused.text
    assert "Somebody saved in between" in refused.text


def test_a_wrong_password_does_not_lead_to_signing_words_that_were_never_shown(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    mine, theirs = browser(desk, Role.ATTENDING), browser(desk, Role.RESIDENT)
    signing = mine.get(f"{report}/sign")
    submit(theirs, theirs.get(f"/studies/{study_uid}"), f"{report}/text", text=THEIRS)
    for password in ("wrong", PASSWORD):
        refused = submit(mine, signing, f"{report}/sign", password=password)
        assert refused.status_code == 409
        assert OTHER_WORDS in refused.text
        assert 'type="password"' not in refused.text
        assert "There is a pneumothorax on the left." in refused.text
    assert desk.report_of(study_uid).state == "draft"
    assert submit(mine, mine.get(f"{report}/sign"), f"{report}/sign", password=PASSWORD).status_code == 303


def test_words_for_a_draft_that_was_replaced_stand_beside_the_new_one_and_not_in_its_editor(desk: Desk) -> None:
    study_uid = desk.study()
    former = desk.report_of(study_uid).id
    client = browser(desk, Role.RESIDENT)
    page = client.get(f"/studies/{study_uid}")
    read_again(desk, study_uid)
    newer = desk.report_of(study_uid).id
    assert newer != former
    late = submit(client, page, f"/reports/{former}/text", text=MINE)
    assert late.status_code == 409
    assert REPLACED in late.text
    assert "The lungs are clear." in late.text
    assert f'action="/reports/{newer}/text"' in late.text
    assert "The lungs are clear." not in editor_text(late)


def test_a_report_is_compared_with_the_draft_it_builds_on_not_with_one_that_is_only_offered(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    client = browser(desk, Role.ATTENDING)
    page = client.get(f"/studies/{study_uid}")
    submit(client, page, f"{report}/text", text=editor_text(page))
    read_again(desk, study_uid)
    signing = client.get(f"{report}/sign")
    assert "only offered" in signing.text
    assert "Nothing was changed" in signing.text


def read_again(desk: Desk, study_uid: str) -> None:
    """An image comes, the study closes again, and the machine reads it again, other than before."""
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid, body=draft_body("The heart is large."))


def user_id(desk: Desk) -> str:
    with transaction(desk.engine) as session:
        return str(session.scalar(text("SELECT id FROM users WHERE login = 'slow'")))


def test_the_worklist_and_the_editor_say_who_saved_a_report_last(desk: Desk) -> None:
    study_uid = desk.study()
    report = f"/reports/{desk.report_of(study_uid).id}"
    theirs, mine = browser(desk, Role.RESIDENT), browser(desk, Role.ATTENDING)
    row = f'/studies/{study_uid}".*?</tr>'
    assert "Dr. Resident" not in found(row, mine.get("/").text)
    submit(theirs, theirs.get(f"/studies/{study_uid}"), f"{report}/text", text=THEIRS)
    assert "Dr. Resident" in found(row, mine.get("/").text)
    assert "<bdi>Dr. Resident</bdi>" in mine.get(f"/studies/{study_uid}").text
    assert "Dr. Resident" not in browser(desk, Role.OPERATOR).get("/").text


def found(pattern: str, page: str) -> str:
    matched = re.search(pattern, page, re.DOTALL)
    assert matched
    return matched[0]
