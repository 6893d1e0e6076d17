"""The viewer in a browser: keys and wheel with a script, links and forms without one."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from record.states import Role
from tests.web.browsing import Window, Windows, is_on_study
from tests.web.places import viewer

pytestmark = pytest.mark.web

NEXT, LAST = "Next picture", "Last picture of the series"


def number(window: Window) -> Locator:
    """Which picture of its series is shown, as the page says it."""
    return window.page.locator("[data-at]")


def picture(window: Window) -> Locator:
    return window.page.locator("[data-picture]")


def settled(window: Window, at: int, view: str = "") -> None:
    """The picture, its number and the address are those of one frame; nothing on the page is of the former one."""
    expect(number(window)).to_have_text(str(at))
    expect(window.page.locator(".viewer.stale")).to_have_count(0)
    expect(picture(window)).to_have_attribute("src", re.compile(rf"/rendered{re.escape(view)}$"))
    expect(picture(window)).to_have_js_property("complete", value=True)
    assert picture(window).evaluate("shown => shown.naturalWidth") == 256
    shown = picture(window).get_attribute("src") or ""
    assert window.path.rpartition("/")[2] == shown.split("/instances/")[1].split("/")[0]


def test_keys_step_choose_windows_and_lead_back(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(window.ward.uids["CT"])
    viewer("CT")(window)
    settled(window, 1)
    press = window.page.keyboard.press
    for key, at in (("ArrowRight", 2), ("ArrowDown", 3), ("ArrowLeft", 2), ("End", 9), ("ArrowRight", 9), ("Home", 1)):
        press(key)
        settled(window, at)
    press("PageDown")
    settled(window, 9)
    press("3")
    settled(window, 9, "?preset=lung")
    expect(window.page.locator('[data-key="3"]')).to_have_attribute("aria-current", "true")
    press("i")
    settled(window, 9, "?preset=lung&invert=true")
    press("ArrowLeft")
    settled(window, 8, "?preset=lung&invert=true")
    window.shot("viewer-lung-inverted")
    press("Escape")
    is_on_study(window, window.ward.uids["CT"])


def test_who_steps_fast_ends_at_one_picture_and_everything_is_of_that_one(windows: Windows) -> None:
    window = windows(Role.RESIDENT)
    viewer("CT")(window)
    settled(window, 1)
    for _ in range(7):
        window.page.keyboard.press("ArrowRight")
    settled(window, 8)
    window.page.locator("[data-stage]").hover()
    for _ in range(3):
        window.page.mouse.wheel(0, -100)
    settled(window, 5)
    window.page.go_back()  # the steps are no pages to go back through
    assert "/instances/" not in window.page.url


def test_keys_that_are_typed_into_a_field_are_typed(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    viewer("CT")(window)
    window.page.get_by_label("Centre", exact=True).fill("")
    window.page.keyboard.type("35")
    settled(window, 1)
    window.page.get_by_label("Width", exact=True).fill("120")
    window.page.keyboard.press("Enter")
    settled(window, 1, "?window=35,120")


def test_the_viewer_needs_no_script(windows: Windows) -> None:
    window = windows(Role.ATTENDING, script=False)
    viewer("CT")(window)
    window.link(NEXT).click()
    expect(number(window)).to_have_text("2")
    window.page.get_by_role("link", name=re.compile("Bone")).click()
    expect(picture(window)).to_have_attribute("src", re.compile("preset=bone"))
    window.link(LAST).click()
    expect(number(window)).to_have_text("9")
    expect(picture(window)).to_have_attribute("src", re.compile("preset=bone"))
    window.page.get_by_label("Go to picture").fill("4")
    window.press("Go")
    expect(number(window)).to_have_text("4")
    expect(window.page.get_by_text("Not for primary diagnosis")).to_be_visible()


def test_every_frame_of_a_loop_in_colour_can_be_reached(windows: Windows) -> None:
    window = windows(Role.ATTENDING, size=(390, 844))
    viewer("US")(window)
    window.page.keyboard.press("End")
    expect(number(window)).to_have_text("6")
    expect(window.page.get_by_text("frame 6 of 6")).to_be_visible()
    expect(picture(window)).to_have_attribute("src", re.compile("/frames/6/rendered$"))
    expect(window.page.get_by_role("heading", name="Window", exact=True)).to_have_count(0)
    assert window.overflow() <= 0


def test_two_keys_at_once_are_both_done(windows: Windows) -> None:
    """The second comes before the page of the first: it builds on what was asked for, not on what still stands."""
    window = windows(Role.ATTENDING)
    viewer("CT")(window)
    settled(window, 1)
    at_once(window, "2", "i")
    settled(window, 1, "?preset=auto&invert=true")
    at_once(window, "i", "i")
    settled(window, 1, "?preset=auto&invert=true")
    at_once(window, "ArrowRight", "i", "3", "ArrowRight")
    settled(window, 3, "?preset=lung")


def test_which_way_the_picture_faces_stands_at_its_own_edges(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    viewer("CT")(window)
    settled(window, 1)
    for full in (False, True):
        if full:
            window.page.keyboard.press("f")
            expect(window.page.locator(".stage.full")).to_be_visible()
            expect(picture(window)).to_have_js_property("complete", value=True)
        shown = picture(window).bounding_box()
        left, right = (window.page.locator(f".marks .{side}").bounding_box() for side in ("left", "right"))
        assert shown
        assert left
        assert right
        side = min(shown["width"], shown["height"])  # a square picture, as large as fits
        centre = shown["x"] + shown["width"] / 2
        assert centre - side / 2 <= left["x"] < centre - side / 2 + 40, full
        assert centre + side / 2 - 40 < right["x"] + right["width"] <= centre + side / 2, full
    window.shot("viewer-100-percent")


def test_a_view_says_its_window_in_numbers_where_it_has_any(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    viewer("CT")(window)
    expect(window.page.get_by_text("from the values of the frame")).to_be_visible()
    window.page.keyboard.press("3")
    expect(window.page.locator(".marks .told")).to_have_text("-600 / 1500")


def test_a_clip_opens_at_its_first_frame(windows: Windows) -> None:
    window = windows(Role.ATTENDING)
    window.open_study(window.ward.uids["US"])
    window.page.get_by_role("link", name=re.compile("Open in the viewer")).first.click()
    expect(number(window)).to_have_text("1")


def at_once(window: Window, *keys: str) -> None:
    """Keys that follow one another faster than any page comes."""
    window.page.evaluate(
        "keys => keys.forEach((key) => document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })))",
        list(keys),
    )
