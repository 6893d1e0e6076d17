"""How every page looks and is reached: axe in light and dark, wide and narrow; the Tab key; nothing wider than the window."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.web import words
from tests.web.browsing import DESK, PHONE, Window, Windows
from tests.web.places import PLACES

pytestmark = pytest.mark.web

_REACHABLE = """() => {
  const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((each) => each.type !== "hidden" && each.tabIndex >= 0 && !each.disabled && each.checkVisibility());
  controls.forEach((each, number) => { each.dataset.number = number; });
  document.body.focus();
  return controls.map((each) => (each.getAttribute("aria-label") || each.textContent || each.name).trim().slice(0, 40));
}"""
_FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at), seen = at.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return { number: Number(at.dataset.number), ring, visible: seen.width > 1 && seen.height > 1 && seen.right > 0 };
}"""


@pytest.mark.parametrize("name", PLACES)
def test_axe_finds_no_serious_fault_and_nothing_is_wider_than_the_window(windows: Windows, name: str) -> None:
    place = PLACES[name]
    window = windows(place.role)
    place.go(window)
    faults: list[str] = []
    for width, size in (("wide", DESK), ("narrow", PHONE)):
        window.page.set_viewport_size({"width": size[0], "height": size[1]})
        if window.overflow() > 0:
            faults.append(f"{width}: {window.overflow()} px wider than the window")
        for scheme in ("light", "dark"):
            window.page.emulate_media(color_scheme=scheme)
            faults += [f"{width}, {scheme}: {fault}" for fault in _axe(window)]
            window.shot(f"{name}-{width}-{scheme}".replace(", ", "-").replace(" ", "-"), whole=True)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", PLACES)
def test_every_control_is_reached_with_the_tab_key_and_shows_that_it_has_the_focus(windows: Windows, name: str) -> None:
    place = PLACES[name]
    window = windows(place.role)
    place.go(window)
    controls = window.page.evaluate(_REACHABLE)
    reached: set[int] = set()
    faults = []
    for _ in range(4 * len(controls) + 8):  # a date has three parts and a button
        window.page.keyboard.press("Tab")
        at = window.page.evaluate(_FOCUSED)
        if at is None:
            break
        if not (at["ring"] and at["visible"]):
            faults.append(f"no visible focus on: {controls[at['number']]}")
        reached.add(at["number"])
    faults += [f"not reached: {name}" for number, name in enumerate(controls) if number not in reached]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", [name for name, place in PLACES.items() if place.role is not None])
def test_unsigned_words_stand_under_a_banner_that_can_be_seen(windows: Windows, name: str) -> None:
    place = PLACES[name]
    window = windows(place.role)
    place.go(window)
    banners = window.page.get_by_text(words.BANNER_DRAFT).or_(
        window.page.get_by_text(words.BANNER_UNSIGNED, exact=True)
    )
    if place.unsigned:
        expect(banners.first).to_be_visible()
    for unsigned in window.page.locator(".machine, [data-unsaved]").all():
        assert unsigned.is_visible()
        told = unsigned.locator("xpath=ancestor-or-self::section").inner_text()
        assert words.BANNER_DRAFT in told or words.BANNER_UNSIGNED in told


def _axe(window: Window) -> list[str]:
    found: list[dict[str, Any]] = Axe().run(window.page).response["violations"]
    return [
        f"{fault['impact']} {fault['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in found
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"][:3]
    ]
