"""How somebody likes the pages: the language, light or dark; and that nothing needs a script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from gateway.web.languages import catalogue
from record.states import Role
from tests.web import words
from tests.web.browsing import PHONE, Window, Windows, is_on_study
from tests.web.places import PLACES
from tests.web.ward import SAID, Ward
from tests.web_records import PASSWORD

pytestmark = pytest.mark.web

SAID_MUCH = (
    *(
        "operations",
        "operations of an admin",
        "audit",
        "worklist, all",
        "study of an operator",
        "study, abstained",
        "study, queued",
    ),
    *(
        "study, final",
        "study, in conflict",
        "study, conflict decided",
        "study, cancelled",
        "study, images after signing",
        "sign, other images",
        "viewer, slices",
    ),
    *("text kept", "text of two editors", "no such page"),
)
"""The pages that say most, and what seldom happens."""
_ALL_OPEN = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
_GROUND = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"


def is_dark(window: Window) -> bool:
    """Whether the page's ground is dark."""
    return max(window.page.evaluate(_GROUND)) < 80


def test_the_language_is_the_browsers_and_then_the_chosen_one_and_reports_stay_in_their_own(
    ward: Ward, windows: Windows
) -> None:
    window = windows(Role.ATTENDING, locale="es-ES")
    html = window.page.locator("html")
    window.open("/")
    expect(html).to_have_attribute("lang", "es")
    expect(window.page.get_by_role("heading", name="Lista de trabajo", exact=True)).to_be_visible()
    assert window.page.locator(".scroll").evaluate("each => each.scrollWidth - each.clientWidth") == 0
    window.shot("worklist-es")
    window.open_study(ward.uids["draft"])
    for menu, language, heading, tag in [
        ("Vista", "简体中文", "机器的草稿", "zh-Hans"),
        ("显示", "English", "What the machine said", "en"),
    ]:
        window.page.get_by_text(menu, exact=True).click()
        window.press(language)
        expect(html).to_have_attribute("lang", tag)
        expect(window.page.get_by_role("heading", name=heading)).to_be_visible()
        is_on_study(window, ward.uids["draft"])
        said = window.page.get_by_text("Focal opacity in the left upper zone.", exact=True)
        assert said.first.evaluate("each => each.closest('[lang]').lang") == "en"
        expect(window.page.get_by_text(words.BANNER_DRAFT).first).to_be_visible()
        window.shot(f"study-{tag}")


@pytest.mark.parametrize(("locale", "language"), [("es-ES", "es"), ("zh-CN", "zh")])
def test_a_page_in_another_language_has_no_english_sentence_of_ours_and_fits(
    windows: Windows, locale: str, language: str
) -> None:
    known = catalogue(language)
    sentences = {key for part in (known.texts, known.messages) for key, said in part.items() if key != said}
    english = [key for key in sentences if len(key.split()) > 2 and "{" not in key]
    for name in SAID_MUCH:
        place = PLACES[name]
        window = windows(place.role, locale=locale)
        place.go(window)
        expect(window.page.locator("html")).to_have_attribute("lang", {"es": "es", "zh": "zh-Hans"}[language])
        window.page.evaluate(_ALL_OPEN)
        shown = window.page.locator("body").inner_text()
        assert [key for key in english if key in shown] == [], name
        assert window.overflow() <= 0, name
        if name.startswith("worklist"):
            assert window.page.locator(".scroll").evaluate("each => each.scrollWidth - each.clientWidth") == 0, name
        window.shot(f"{name}-{language}".replace(", ", "-").replace(" ", "-"), whole=True)


def test_light_and_dark_are_the_devices_and_then_the_chosen_one(windows: Windows) -> None:
    window = windows(Role.ATTENDING, dark=True)
    window.open("/")
    assert is_dark(window)
    window.page.get_by_text(words.VIEW, exact=True).click()
    window.press(words.LIGHT)
    expect(window.page.locator("html")).to_have_attribute(
        "data-appearance", "light"
    )  # the new page, not the one before
    assert not is_dark(window)
    window.page.emulate_media(color_scheme="light")
    window.page.get_by_text(words.VIEW, exact=True).click()
    window.press(words.DARK)
    expect(window.page.locator("html")).to_have_attribute("data-appearance", "dark")
    window.open("/docs")
    assert is_dark(window)


def test_who_is_on_a_telephone_signs_out_in_the_menu(windows: Windows) -> None:
    window = windows(Role.RESIDENT, login="on-call", size=PHONE)
    window.open("/")
    expect(window.button(words.SIGN_OUT)).to_have_count(0)
    window.page.get_by_text(words.VIEW, exact=True).click()
    window.shot("menu-narrow")
    window.press(words.SIGN_OUT)
    assert window.path == "/sign-in"


def test_the_main_job_needs_no_script(ward: Ward, windows: Windows) -> None:
    """Sign in, search, open, edit, look again, sign, sign out."""
    study_uid = ward.study("WITHOUT^SCRIPT")
    login = ward.desk.user(Role.ATTENDING)
    window = windows(script=False)
    window.open("/")
    window.sign_in(login, PASSWORD)
    window.page.get_by_label(words.PATIENT_NAME).fill("without")
    window.press(words.SEARCH)
    window.link("WITHOUT, SCRIPT").click()
    is_on_study(window, study_uid)
    window.editor.fill(SAID)
    window.press(words.SAVE)
    window.says(words.SAVED)
    window.page.get_by_text("What differs from the machine's draft", exact=True).click()
    expect(window.page.get_by_role("cell", name="CT of the chest is recommended.")).to_be_visible()
    window.page.get_by_text(words.VIEW, exact=True).click()
    window.press(words.DARK)
    is_on_study(window, study_uid)
    window.press(words.GO_ON_TO_SIGN)
    window.page.get_by_label(re.compile("^Password of")).fill(PASSWORD)
    window.press("Sign as Dr. Attending")
    window.says(words.SIGNED)
    window.press(words.SIGN_OUT)
    assert window.path == "/sign-in"
