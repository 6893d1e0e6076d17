"""Signing in and out, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from record.states import Role
from tests.web import words
from tests.web.browsing import DESK, Windows
from tests.web.ward import Ward
from tests.web_records import PASSWORD

pytestmark = pytest.mark.web


def test_who_gives_the_wrong_password_is_told_and_then_gets_in_and_out(ward: Ward, windows: Windows) -> None:
    login = ward.desk.user(Role.ATTENDING, login="amelia")
    window = windows()
    window.open("/")
    assert window.path == "/sign-in"
    expect(window.page.get_by_label(words.LOGIN, exact=True)).to_be_focused()
    window.sign_in(login, "not her password")
    expect(window.alert).to_contain_text(words.WRONG)
    expect(window.page.get_by_label(words.LOGIN, exact=True)).to_have_value(login)
    expect(window.page.get_by_label(words.PASSWORD, exact=True)).to_be_focused()
    expect(window.page.get_by_text(words.VIEW, exact=True)).to_be_visible()
    card = window.page.locator(".sign-in").bounding_box()
    assert card
    assert abs(card["x"] + card["width"] / 2 - DESK[0] / 2) < 12
    window.shot("sign-in-refused")
    window.sign_in(login, PASSWORD)
    expect(window.page.get_by_role("heading", name=words.WORKLIST, exact=True)).to_be_visible()
    assert window.path == "/"
    window.press(words.SIGN_OUT)
    assert window.path == "/sign-in"
    window.go_back()
    expect(window.page.get_by_label(words.LOGIN, exact=True)).to_be_visible()


def test_after_too_many_wrong_passwords_the_right_one_is_refused_and_the_page_says_why(
    ward: Ward, windows: Windows
) -> None:
    login = ward.desk.user(Role.RESIDENT, login="forgetful")
    window = windows()
    window.open("/sign-in")
    for _ in range(12):
        window.sign_in(login, "wrong")
    window.sign_in(login, PASSWORD)
    expect(window.alert).to_contain_text("locked")
    assert window.path == "/sign-in"
