"""What somebody new to the pages sees in a browser: times of their own, the report first on a phone, whose words are whose."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from record.states import Role
from tests.web.browsing import PHONE, Windows
from tests.web.ward import Ward

pytestmark = pytest.mark.web

INDIA = "Asia/Kolkata"
_BAR = "(each) => [getComputedStyle(each).borderLeftColor, getComputedStyle(each).borderLeftWidth]"


def test_times_are_those_of_the_browser_with_its_offset_and_the_title_keeps_utc(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING, zone=INDIA)
    window.open_study(ward.uids["draft"])
    received = window.page.locator(".states time")
    expect(received).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\+05:30$"))
    utc = received.get_attribute("title") or ""
    assert utc.endswith(" UTC")
    apart = window.page.evaluate(
        "([here, utc]) => new Date(here.replace(' UTC', '').replace(' ', 'T')) - new Date(utc.replace(' UTC', 'Z').replace(' ', 'T'))",
        [received.inner_text(), utc],
    )
    assert apart == 0
    window.open("/?tab=signed")
    expect(window.page.get_by_text("times in UTC+05:30")).to_be_visible()
    plain = windows(Role.ATTENDING, zone=INDIA, script=False)
    plain.open_study(ward.uids["draft"])
    expect(plain.page.locator(".states time")).to_have_text(utc)


def test_on_a_phone_the_report_comes_before_the_pictures(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING, size=PHONE)
    window.open_study(ward.uids["draft"])
    editor, pictures = window.editor.bounding_box(), window.page.locator(".look").bounding_box()
    assert editor
    assert pictures
    assert editor["y"] < pictures["y"]


@pytest.mark.parametrize("dark", [False, True])
def test_the_legend_shows_a_persons_words_as_they_stand_in_the_report(
    ward: Ward, windows: Windows, *, dark: bool
) -> None:
    window = windows(Role.ATTENDING, dark=dark)
    window.open_study(ward.uids["final"])
    report = window.page.locator(".final")
    bar = report.locator("li.by-human").first.evaluate(_BAR)
    assert bar == report.locator(".legend .by-human").evaluate(_BAR)
    assert bar[0] != "rgba(0, 0, 0, 0)"


def test_a_signed_report_prints_with_its_title_and_without_references_to_pictures(ward: Ward, windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(ward.uids["final"])
    title = window.page.get_by_text("Radiology report · main", exact=True)
    expect(title).to_be_hidden()
    window.page.emulate_media(media="print")
    expect(title).to_be_visible()
    expect(window.page.get_by_text("Drafted with the help of a machine")).to_be_visible()
    expect(window.page.get_by_text("What the machine said before the review")).to_be_hidden()
    expect(window.page.locator(".patient .name").first).to_be_visible()
    expect(window.page.get_by_text("Not a medical device.")).to_be_visible()
    bars = [window.page.locator(f".legend .by-{whose}").last for whose in ("machine", "edited", "human")]
    styles = [bar.evaluate("bar => getComputedStyle(bar).borderLeftStyle") for bar in bars]
    assert styles == ["dashed", "double", "solid"], "told apart in grey"
