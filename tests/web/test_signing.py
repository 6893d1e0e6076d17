"""Signing in a browser: by whom, with what proof, and of which images."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from record.states import Role
from tests.web import words
from tests.web.browsing import Window, Windows, is_on_study
from tests.web.ward import SAID, Ward
from tests.web_records import PASSWORD

pytestmark = pytest.mark.web


def go_to_sign(window: Window, study_uid: str, said: str = SAID) -> None:
    """Write, and go on to the page to sign on."""
    window.open_study(study_uid)
    window.editor.fill(said)
    window.press(words.GO_ON_TO_SIGN)
    expect(window.page.get_by_role("heading", name="Exactly this will be signed")).to_be_visible()


def sign(window: Window, password: str = PASSWORD) -> None:
    """Give a password and sign."""
    window.page.get_by_label(re.compile("^Password of")).fill(password)
    window.press("Sign as Dr. Attending")


def test_a_resident_declares_preliminary_and_an_attending_signs_it(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Preliminary^Then")
    resident = windows(Role.RESIDENT)
    resident.open_study(study_uid)
    expect(resident.button(words.GO_ON_TO_SIGN)).to_have_count(0)
    resident.editor.fill(SAID)
    resident.press(words.PRELIMINARY)
    resident.says(words.DECLARED)
    expect(resident.page.get_by_text(words.BANNER_UNSIGNED, exact=True).first).to_be_visible()

    attending = windows(Role.ATTENDING)
    attending.open("/?tab=preliminary")
    attending.link("Preliminary, Then").click()
    attending.press(words.GO_ON_TO_SIGN)
    expect(attending.page.get_by_text("Old healed rib fractures on the right.").first).to_be_visible()
    sign(attending)
    attending.says(words.SIGNED)
    resident.page.reload()
    expect(resident.page.get_by_text(re.compile("^Signed by Dr. Attending"))).to_be_visible()
    expect(resident.editor).to_have_count(0)


def test_a_wrong_password_signs_nothing_and_the_right_one_signs_exactly_what_is_shown(
    ward: Ward, windows: Windows
) -> None:
    study_uid = ward.study("Signed^Here")
    window = windows(Role.ATTENDING)
    go_to_sign(window, study_uid)
    expect(window.page.get_by_text(words.BANNER_UNSIGNED, exact=True)).to_be_visible()
    window.shot("sign", whole=True)
    sign(window, "wrong")
    expect(window.alert).to_contain_text(words.WRONG_PASSWORD)
    assert ward.desk.report_of(study_uid).state == "draft"
    window.shot("sign-wrong-password")
    sign(window)
    window.says(words.SIGNED)
    is_on_study(window, study_uid)
    report = window.page.get_by_role("region", name="Report final")
    for sentence in SAID.splitlines():
        if sentence and not sentence.endswith(":"):
            expect(report.get_by_role("listitem").filter(has_text=sentence)).to_be_visible()
    expect(report.get_by_text(re.compile("^Signed by Dr. Attending"))).to_be_visible()
    expect(report.get_by_text(words.BANNER_UNSIGNED)).to_have_count(0)
    expect(window.editor).to_have_count(0)
    window.open("/?tab=signed")
    expect(window.link("Signed, Here")).to_be_visible()


def test_images_that_came_in_between_ask_for_a_reason(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Images^Between")
    window = windows(Role.ATTENDING)
    go_to_sign(window, study_uid)
    ward.more_images(study_uid)
    sign(window)
    expect(window.alert).to_contain_text("The images are not those that were shown")
    window.shot("sign-other-images", whole=True)
    expect(window.page.get_by_label(words.REASON_FOR_NEW_IMAGES)).to_be_focused()
    window.page.get_by_label(words.REASON_FOR_NEW_IMAGES).fill("The new image is a copy of the first.")
    sign(window)
    window.says(words.SIGNED)
    expect(window.page.get_by_text("The new image is a copy of the first.")).to_be_visible()


def test_nothing_is_signed_while_a_conflict_is_undecided_and_deciding_it_opens_the_way(
    ward: Ward, windows: Windows
) -> None:
    study_uid = ward.conflicting("Undecided^Conflict")
    window = windows(Role.ATTENDING)
    go_to_sign(window, study_uid)
    expect(window.page.get_by_text(words.MAY_NOT_SIGN_CONFLICT)).to_be_visible()
    expect(window.page.get_by_label(re.compile("^Password of"))).to_have_count(0)
    window.link("To the decision").click()
    window.page.get_by_label("Why").fill("Sent twice, cropped the second time.")
    window.press("Leave it out")
    window.says("The conflict is decided.")
    window.press(words.GO_ON_TO_SIGN)
    sign(window)
    window.says(words.SIGNED)


def test_who_has_no_words_to_sign_is_sent_to_write_them(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(ward.study("Nothing^Written", ends="abstained", sent="CT"))
    window.press(words.BEGIN)
    window.press(words.GO_ON_TO_SIGN)
    expect(window.page.get_by_text("The report has no words yet, so it cannot be signed.")).to_be_visible()
    window.link("Write the report first").click()
    expect(window.editor).to_be_visible()


def test_a_session_that_ends_before_the_signature_signs_nothing_and_the_saved_words_are_there(
    ward: Ward, windows: Windows
) -> None:
    study_uid = ward.study("Signs^Late")
    window = windows(Role.ATTENDING)
    go_to_sign(window, study_uid)
    window.context.clear_cookies()
    sign(window)
    expect(window.page.get_by_text("Your session is over.")).to_be_visible()
    window.shot("sign-session-over")
    window.page.get_by_role("main").get_by_role("link", name=words.SIGN_IN).click()
    assert ward.desk.report_of(study_uid).state == "draft"
    window.sign_in(ward.desk.user(Role.ATTENDING), PASSWORD)
    expect(window.page.get_by_role("heading", name=words.WORKLIST, exact=True)).to_be_visible()
    window.open_study(study_uid)
    expect(window.editor).to_have_value(SAID)
