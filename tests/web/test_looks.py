"""How every page looks and is reached: axe in light and dark, wide and narrow; the Tab key; nothing wider than the window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.web import words
from tests.web.browsing import DESK, PHONE, Window, Windows
from tests.web.places import PLACES

pytestmark = pytest.mark.web

VIEWS = (("wide", DESK, "light"), ("narrow", PHONE, "dark"), ("wide", DESK, "dark"), ("narrow", PHONE, "light"))
AXED = VIEWS[:2]
"""Each width and each colour scheme once: contrast changes with the one, layout with the other, and axe takes its time."""
MOST_TABS = 60
"""Controls of a long page that the Tab key is tried on."""
_REACHABLE = """() => {
  const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((each) => each.type !== "hidden" && each.tabIndex >= 0 && !each.disabled && each.checkVisibility());
  controls.forEach((each, number) => { each.dataset.number = number; });
  document.body.focus();
  return controls.map((each) => (each.getAttribute("aria-label") || each.textContent || each.name).trim().slice(0, 40));
}"""
_AS_OPENED = """() => {
  document.activeElement?.blur();
  for (const each of [document.scrollingElement, ...document.querySelectorAll(".look")]) each.scrollTo(0, 0);
}"""
_FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at), seen = at.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return { number: Number(at.dataset.number), ring, visible: seen.width > 1 && seen.height > 1 && seen.right > 0 };
}"""


@pytest.mark.parametrize("name", PLACES)
def test_a_page_can_be_seen_reached_and_understood_by_everybody(windows: Windows, name: str) -> None:
    """One visit: the Tab key, the banner over unsigned words, then axe and the width in each size and colours."""
    place = PLACES[name]
    window = windows(place.role)
    window.page.add_init_script("window.setInterval = () => 0")  # a page that changes cannot be gone through
    place.go(window)
    window.page.wait_for_load_state("networkidle")  # its one look whether anything moved is over
    faults = [*_by_tab(window), *_banners(window, unsigned=place.unsigned)]
    for width, size, scheme in VIEWS if window.shots else AXED:
        window.page.set_viewport_size({"width": size[0], "height": size[1]})
        window.page.emulate_media(color_scheme=scheme)
        if window.overflow() > 0:
            faults.append(f"{width}: {window.overflow()} px wider than the window")
        if (width, size, scheme) in AXED:
            faults += [f"{width}, {scheme}: {fault}" for fault in _axe(window)]
        window.page.evaluate(_AS_OPENED)
        window.shot(f"{name}-{width}-{scheme}".replace(", ", "-").replace(" ", "-"), whole=True)
    assert not faults, "\n".join(faults)


def _by_tab(window: Window) -> Iterator[str]:
    """Controls that the Tab key does not reach, or that do not show that they have the focus."""
    controls = window.page.evaluate(_REACHABLE)[:MOST_TABS]
    reached: set[int] = set()
    ends = 0
    for _ in range(4 * len(controls) + 8):  # a date has three parts and a button
        window.page.keyboard.press("Tab")
        at = window.page.evaluate(_FOCUSED)
        if at is None:  # past the last control; a page that begins in the middle is gone through once more
            ends += 1
            if ends == 2:
                break
            continue
        if at["number"] >= len(controls) or len(reached) == len(controls):
            break
        if not (at["ring"] and at["visible"]):
            yield f"no visible focus on: {controls[at['number']]}"
        reached.add(at["number"])
    yield from (f"not reached: {name}" for number, name in enumerate(controls) if number not in reached)


def _banners(window: Window, *, unsigned: bool) -> Iterator[str]:
    """Unsigned words that stand under no banner."""
    banners = window.page.get_by_text(words.BANNER_DRAFT).or_(
        window.page.get_by_text(words.BANNER_UNSIGNED, exact=True)
    )
    if unsigned and not banners.first.is_visible():
        yield "no banner is seen"
    for section in window.page.locator("section:has(> form[data-unsaved]), section.machine").all():
        told = section.text_content() or ""  # also of one that is folded away
        if words.BANNER_DRAFT not in told and words.BANNER_UNSIGNED not in told:
            yield f"without a banner: {told[:60]}"


def _axe(window: Window) -> list[str]:
    found = Axe().run(window.page, options={"resultTypes": ["violations"]}).response
    violations: list[dict[str, Any]] = found["violations"]
    return [
        f"{fault['impact']} {fault['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in violations
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"][:3]
    ]
