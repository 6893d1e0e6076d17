"""The editor in a browser: what somebody typed is never lost, whatever happens beside it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Dialog, expect
from sqlalchemy import text

from record.db import transaction
from record.states import Role
from tests.web import words
from tests.web.browsing import Window, Windows, is_on_study
from tests.web.ward import Ward, images
from tests.web_records import PASSWORD

pytestmark = pytest.mark.web

MINE = "Findings:\nThe left upper zone is clear.\n\nImpression:\nNormal chest.\n"
THEIRS = "Findings:\nThere is a nodule in the left upper zone.\n"


def banner(window: Window, words_of_it: str) -> None:
    """Every banner over the editor says this."""
    section = window.page.get_by_role("region", name="Report")
    expect(section.get_by_text(words_of_it, exact=True)).to_be_visible()


def end_sessions(ward: Ward, login: str) -> None:
    """Whoever this is has done nothing for too long."""
    with transaction(ward.desk.engine) as session:
        changed = session.execute(
            text(
                "UPDATE user_sessions SET expires_at = now() - interval '1 second'"
                " WHERE user_id = (SELECT id FROM users WHERE login = :login)"
            ),
            {"login": login},
        )
    assert changed.rowcount


def test_a_draft_is_edited_and_saved_and_stays_marked_as_unsigned(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Edited^Here")
    window = windows(Role.ATTENDING)
    window.open_study(study_uid)
    banner(window, words.BANNER_DRAFT)
    expect(window.page.get_by_role("img", name="Picture 1")).to_be_visible()
    assert window.page.get_by_role("img", name="Picture 1").evaluate("each => each.naturalWidth") > 100
    window.editor.fill(MINE)
    expect(window.page.get_by_text(words.UNSAVED)).to_be_visible()
    window.press(words.SAVE)
    window.says(words.SAVED)
    banner(window, words.BANNER_UNSIGNED)
    window.page.reload()
    expect(window.editor).to_have_value(MINE)
    expect(window.page.get_by_text(words.UNSAVED)).to_have_count(0)
    window.shot("edited")


def test_unsaved_words_are_not_left_behind_without_a_question(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Guarded^Words")
    window = windows(Role.RESIDENT)
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    window.open_study(study_uid)
    window.editor.fill(MINE)
    window.page.once("dialog", stay)
    window.link(words.WORKLIST).click()
    expect(window.editor).to_have_value(MINE)
    is_on_study(window, study_uid)
    window.page.once("dialog", leave)
    window.link(words.WORKLIST).click()
    expect(window.page.get_by_role("heading", name=words.WORKLIST, exact=True)).to_be_visible()
    assert asked == ["beforeunload", "beforeunload"]
    window.open_study(study_uid)  # nothing typed: nobody asks
    window.link(words.WORKLIST).click()
    expect(window.page.get_by_role("heading", name=words.WORKLIST, exact=True)).to_be_visible()


def test_of_two_editors_the_second_keeps_their_words_and_merges_what_the_first_saved(
    ward: Ward, windows: Windows
) -> None:
    study_uid = ward.study("Two^Editors")
    first, second = windows(Role.RESIDENT), windows(Role.ATTENDING)
    for window in (first, second):
        window.open_study(study_uid)
    second.editor.fill(MINE)
    first.editor.fill(THEIRS)
    first.press(words.SAVE)
    first.says(words.SAVED)

    second.press(words.SAVE)
    expect(second.alert).to_contain_text(words.SAVED_BETWEEN)
    expect(second.editor).to_have_value(MINE)
    saved_now = second.page.get_by_role("group").filter(has_text=words.SAVED_NOW)
    expect(saved_now).to_contain_text("There is a nodule in the left upper zone.")
    expect(saved_now).to_contain_text(words.BANNER_UNSIGNED)
    second.shot("two-editors")
    merged = MINE.replace("Findings:\n", THEIRS)
    second.editor.fill(merged)
    second.press(words.SAVE)
    second.says(words.SAVED)

    first.editor.fill("Findings:\nA third opinion.\n")
    first.press(words.SAVE)
    expect(first.alert).to_contain_text(words.SAVED_BETWEEN)
    expect(first.page.get_by_role("group").filter(has_text=words.SAVED_NOW)).to_contain_text("Normal chest.")
    first.open_study(study_uid)
    expect(first.editor).to_have_value(merged)


def test_words_typed_while_the_session_ended_survive_signing_in_again(ward: Ward, windows: Windows) -> None:
    study_uid, login = ward.study("Session^Over"), ward.desk.user(Role.ATTENDING, login="sleepy")
    window = windows(Role.ATTENDING, login=login)
    window.open_study(study_uid)
    window.editor.fill(MINE)
    end_sessions(ward, login)
    window.press(words.SAVE)
    expect(window.alert).to_contain_text("Your session is over")
    expect(window.page.get_by_role("textbox", name=words.KEPT_TEXT, exact=True)).to_have_value(MINE)
    window.shot("session-over")
    for password, kept in (("not mine", words.KEPT_TEXT), (PASSWORD, words.TEXT)):
        window.page.get_by_label(words.LOGIN, exact=True).fill(login)
        window.page.get_by_label(words.PASSWORD, exact=True).fill(password)
        window.press(words.SIGN_IN_AND_GO_ON)
        expect(window.page.get_by_role("textbox", name=kept, exact=True)).to_have_value(MINE)
    expect(window.alert).to_contain_text("Signed in again")
    window.press(words.SAVE)
    window.says(words.SAVED)
    is_on_study(window, study_uid)


def test_words_of_a_page_survive_that_another_session_began_in_the_same_browser(ward: Ward, windows: Windows) -> None:
    study_uid, login = ward.study("Other^Tab"), ward.desk.user(Role.ATTENDING, login="tabby")
    window = windows(Role.ATTENDING, login=login)
    window.open_study(study_uid)
    window.editor.fill(MINE)
    other = window.context.new_page()
    end_sessions(ward, login)
    other.goto(f"{ward.url}/sign-in")
    other.get_by_label(words.LOGIN, exact=True).fill(login)
    other.get_by_label(words.PASSWORD, exact=True).fill(PASSWORD)
    other.get_by_role("button", name=words.SIGN_IN, exact=True).click()
    expect(other.get_by_role("heading", name=words.WORKLIST, exact=True)).to_be_visible()
    window.press(words.SAVE)
    expect(window.alert).to_contain_text("another session")
    window.sign_in(login, PASSWORD)
    expect(window.editor).to_have_value(MINE)


def test_a_report_is_cancelled_with_a_reason_and_begun_by_hand(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(ward.study("Begun^Byhand"))
    window.page.get_by_text(words.CANCEL, exact=True).click()
    window.press(words.CANCEL_IT)  # without a reason the browser does not send it
    expect(window.page.get_by_label(words.REASON)).to_be_focused()
    window.page.get_by_label(words.REASON).fill("Draft of another patient's picture.")
    window.press(words.CANCEL_IT)
    window.says(words.CANCELLED)
    expect(window.editor).to_have_count(0)
    window.press(words.BEGIN)
    window.says(words.BEGUN)
    banner(window, words.BANNER_UNSIGNED)
    window.editor.fill(MINE)
    window.press(words.SAVE)
    window.says(words.SAVED)


def test_a_study_that_the_machine_did_not_analyse_is_reported_by_hand(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(ward.study("Abstained^Of", sent="CT", ends="abstained"))
    expect(window.page.get_by_text(words.NOT_ANALYSED, exact=True)).to_be_visible()
    shown = window.page.get_by_role("img", name=re.compile("^Image "))
    expect(shown).to_have_count(9)
    shown.first.scroll_into_view_if_needed()
    expect(shown.first).to_have_js_property("complete", True)
    assert shown.first.evaluate("each => each.naturalWidth") > 50
    window.shot("abstained", whole=True)
    window.press(words.BEGIN)
    window.editor.fill(MINE)
    window.press(words.GO_ON_TO_SIGN)
    window.page.get_by_label(re.compile("^Password of")).fill(PASSWORD)
    window.press("Sign as Dr. Attending")
    window.says(words.SIGNED)


def test_who_is_writing_is_told_that_the_study_changed_and_keeps_their_words(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Changing^Study")
    window = windows(Role.ATTENDING)
    window.open_study(study_uid)
    window.editor.fill(MINE)
    ward.write(study_uid, THEIRS, role=Role.RESIDENT)
    expect(window.link(words.CHANGED)).to_be_visible()
    expect(window.editor).to_have_value(MINE)
    window.page.on("dialog", lambda dialog: dialog.accept())
    window.link(words.CHANGED).click()
    expect(window.editor).to_have_value(THEIRS)


def test_the_page_of_a_study_that_is_waited_for_shows_its_draft_by_itself(ward: Ward, windows: Windows) -> None:
    study_uid = ward.send(images("Awaited^Study"))
    window = windows(Role.ATTENDING)
    window.open_study(study_uid)
    expect(window.page.get_by_text("Images of this study are still arriving.")).to_be_visible()
    ward.close(study_uid)
    expect(window.editor).to_be_visible()
    banner(window, words.BANNER_DRAFT)
