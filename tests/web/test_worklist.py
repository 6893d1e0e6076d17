"""The worklist in a browser: search, tabs, filters, keys, and how it keeps itself up to date."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from record.states import Lane, Role
from tests.web import words
from tests.web.browsing import Window, Windows, found_in, is_on_study
from tests.web.ward import Ward

pytestmark = pytest.mark.web

SOUGHT = "OKONKWO^ADAEZE=奥^孔科沃"


@pytest.fixture
def sought(ward: Ward) -> str:
    """A study unlike the others in all that one can search for."""
    if "sought" not in ward.uids:
        said = {"PatientID": "PID-OKO-77", "AccessionNumber": "ACC-OKO-31", "StudyDate": "20250314"}
        ward.uids["sought"] = ward.study(SOUGHT, **said)
    return ward.uids["sought"]


def ready(window: Window) -> None:
    """The page's script has begun: its menu of keys is there."""
    expect(window.page.get_by_text("Keys", exact=True)).to_be_visible()


def rows_are(window: Window, *names: str) -> None:
    """The worklist holds these studies, and no others."""
    expect(window.rows).to_have_text(list(names))


@pytest.mark.parametrize(
    "asked",
    [
        {words.PATIENT_NAME: "okonkwo"},
        {words.PATIENT_NAME: "奥孔科"},
        {words.PATIENT_ID: "PID-OKO-77"},
        {words.ACCESSION: "ACC-OKO-31"},
        {words.FROM: "2025-03-14", words.TO: "2025-03-14"},
    ],
    ids=["name", "name in ideographs", "patient ID", "accession number", "study date"],
)
def test_a_search_finds_the_study_and_no_address_tells_of_whom(
    ward: Ward, windows: Windows, sought: str, asked: dict[str, str]
) -> None:
    window = windows(Role.ATTENDING)
    window.open("/")
    for label, value in asked.items():
        window.page.get_by_label(label, exact=True).fill(value)
    window.press(words.SEARCH)
    rows_are(window, "OKONKWO, ADAEZE 奥孔科沃")
    assert window.path == "/search"
    window.rows.click()
    is_on_study(window, sought)
    kept = window.kept_by_the_browser()
    assert [text for text in kept if "search" in text]
    assert found_in(ward, kept) == []
    assert window.page.evaluate("[history.state, localStorage.length, sessionStorage.length]") == [None, 0, 0]


def test_a_search_that_finds_nothing_says_so_and_leads_back(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open("/")
    window.page.get_by_label(words.PATIENT_NAME).fill("Nobody of this name")
    window.press(words.SEARCH)
    expect(window.page.get_by_text(words.NOTHING_FOUND)).to_be_visible()
    expect(window.page.get_by_label(words.PATIENT_NAME)).to_have_value("Nobody of this name")
    window.link(words.BACK_TO_WORKLIST).click()
    assert window.path == "/"
    window.page.go_back()
    expect(window.page.get_by_text(words.NOTHING_FOUND)).to_be_visible()
    window.page.get_by_label(words.PATIENT_NAME).fill("")
    window.press(words.SEARCH)
    expect(window.page).to_have_url(re.compile(r"/$"))  # nothing asked for: everything there is


def test_tabs_show_what_a_physician_looks_for_and_filters_are_an_address(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open("/")
    lanes = window.page.get_by_role("table").get_by_role("row")
    expect(lanes.nth(1)).to_contain_text("stat")  # urgent first
    for tab, there, absent in [
        ("Not ready", "Li, Wei", "Preliminary, Lucía"),
        ("Preliminary", "Preliminary, Lucía", "Final, Lucía"),
        ("Signed", "Final, Lucía", "Edited, Lucía"),
        ("Needs attention", "Conflict, Lucía", "Final, Lucía"),
        ("All", "REPORT, ONLY", None),
    ]:
        window.page.get_by_role("navigation", name="Tabs").get_by_role("link", name=tab).click()
        expect(window.link(there)).to_be_visible()
        if absent:
            expect(window.link(absent)).to_have_count(0)
    window.page.get_by_text(words.FILTERS, exact=True).click()
    window.page.get_by_label("Modality").fill("CT")
    window.page.get_by_label("Lane").select_option("routine")
    window.press(words.FILTER)
    expect(window.link("Müller, Jörg")).to_be_visible()
    expect(window.link("NGUYEN, THI")).to_have_count(0)
    assert "modality=CT" in window.page.url
    window.page.reload()
    expect(window.link("Müller, Jörg")).to_be_visible()
    window.link(words.CLEAR).click()
    expect(window.link("NGUYEN, THI")).to_be_visible()


def test_the_keyboard_alone_leads_from_the_worklist_to_saved_words(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("KEYS^ONLY", minutes=9)
    window = windows(Role.ATTENDING)
    window.open("/")
    press = window.page.keyboard.press
    ready(window)
    press("j")
    expect(window.rows.first).to_be_focused()
    press("j")
    expect(window.rows.nth(1)).to_be_focused()
    press("k")
    expect(window.rows.first).to_be_focused()
    press("6")
    expect(window.page.get_by_role("link", name="All", exact=True)).to_have_attribute("aria-current", "page")
    ready(window)
    press("/")
    expect(window.page.get_by_label(words.PATIENT_NAME)).to_be_focused()
    window.page.keyboard.type("keys, only")
    press("Enter")
    rows_are(window, "KEYS, ONLY")
    ready(window)
    press("j")
    press("Enter")
    is_on_study(window, study_uid)
    for _ in range(40):
        if window.editor.evaluate("each => each === document.activeElement"):
            break
        press("Tab")
    expect(window.editor).to_be_focused()
    press("Control+Home")
    window.page.keyboard.type("Findings:\nTyped without a mouse.\n")
    press("Control+s")
    window.says(words.SAVED)
    expect(window.editor).to_have_value(re.compile("Typed without a mouse."))


def test_a_new_study_comes_into_the_list_by_itself_and_the_focus_stays(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open("/")
    ready(window)
    window.page.keyboard.press("j")
    focused = window.rows.first.text_content() or ""
    window.page.evaluate("window.loadedOnce = true")
    ward.study("ARRIVED^BYITSELF", lane=Lane.ROUTINE, minutes=2)
    expect(window.link("ARRIVED, BYITSELF")).to_be_visible()
    expect(window.link(focused)).to_be_focused()
    assert window.page.evaluate("window.loadedOnce") is True


def test_next_to_read_leads_on_and_not_back_to_the_same_study(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(ward.uids["stat"])
    window.link(words.NEXT).click()
    expect(window.page.get_by_role("heading", name="Report", exact=False).first).to_be_visible()
    assert window.path.startswith("/studies/")
    assert ward.uids["stat"] not in window.path
