"""One person's browser window, in which nothing may go wrong unseen.

Knows the browser's ways of telling: the console, exceptions, refused content, answers, requests. Does not know our pages,
save that nothing of a patient may stand in an address or a title, since a browser keeps both.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, Page, Request, Response, expect

from gateway.web import auth
from record import sessions
from record.db import transaction
from record.models import User
from record.states import Role
from tests.web import words
from tests.web.ward import Ward

SHOTS = "COUNTERSIGN_SCREENSHOTS"
"""Names the folder that screenshots are left in; without it none are made."""
PATIENCE_MS = 20_000
"""For what a busy machine does in a tenth of it."""
DESK, PHONE = (1280, 800), (390, 844)
_BY_STATUS = re.compile(r"^Failed to load resource: the server responded with a status of \d+")
"""The console repeats what `_answered` judges with more knowledge."""


@dataclass
class Window:
    """A window on the ward's pages: the page, and whatever went wrong in it."""

    ward: Ward
    context: BrowserContext
    page: Page
    shots: Path | None
    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=lambda: {401, 403, 404, 409, 422})
    """Statuses that a page may have; whatever a page loads must come with less than 400."""

    def open(self, path: str) -> None:
        """Go to an address of ours."""
        self.page.goto(self.ward.url + path)

    def open_study(self, study_uid: str) -> None:
        """Go to a study."""
        self.open(f"/studies/{study_uid}")

    def button(self, name: str) -> Locator:
        """The button of this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        """The link of this name."""
        return self.page.get_by_role("link", name=name, exact=True)

    def press(self, name: str) -> None:
        """Click the button of this name."""
        self.button(name).click()

    @property
    def editor(self) -> Locator:
        """The report's text."""
        return self.page.get_by_role("textbox", name=words.TEXT, exact=True)

    @property
    def alert(self) -> Locator:
        """What went wrong, as the page says it."""
        return self.page.get_by_role("alert")

    def says(self, words: str) -> None:
        """The page says, where it says what happened, these words."""
        expect(self.page.get_by_role("main").get_by_role("status").filter(has_text=words)).to_be_visible()

    @property
    def rows(self) -> Locator:
        """The names of the worklist's studies, as links, from the top."""
        return self.page.get_by_role("table").get_by_role("rowheader").get_by_role("link")

    @property
    def path(self) -> str:
        """The address's path."""
        return urlsplit(self.page.url).path

    def sign_in(self, login: str, password: str) -> None:
        """Fill in the form that asks who it is, and send it."""
        self.page.get_by_label(words.LOGIN, exact=True).fill(login)
        self.page.get_by_label(words.PASSWORD, exact=True).fill(password)
        self.page.get_by_role("main").get_by_role("button").click()

    def shot(self, name: str, *, whole: bool = False) -> None:
        """Leave a screenshot, where somebody wants them."""
        if self.shots is None:
            return
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=whole, timeout=90_000)

    def kept_by_the_browser(self) -> list[str]:
        """Every address and title in the window's history."""
        entries = self._history()
        return [text for entry in entries for text in (unquote_plus(entry["url"]), entry["title"])]

    def go_back(self) -> None:
        """As the browser's own button does."""
        self._history()
        self.page.go_back()

    def _history(self) -> list[dict[str, str]]:
        """The window's history. Signing out empties the browser's caches, and for a moment the page is none of its window's."""
        until = time.monotonic() + PATIENCE_MS / 1000
        while True:
            session = self.context.new_cdp_session(self.page)
            try:
                entries: list[dict[str, str]] = session.send("Page.getNavigationHistory")["entries"]
            except Error as error:
                if "Not attached to an active page" not in error.message or time.monotonic() > until:
                    raise
                self.page.wait_for_timeout(50)
            else:
                return entries
            finally:
                session.detach()

    def overflow(self) -> float:
        """By how many pixels the page is wider than the window."""
        return float(self.page.evaluate("document.scrollingElement.scrollWidth - innerWidth"))

    def watch(self) -> Window:
        """Note whatever goes wrong from now on."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("crash", lambda _: self.faults.append("the page crashed"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        return self

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _BY_STATUS.match(message.text):
            self.faults.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self.ward.url + "/"):
            self.faults.append(f"a request to somebody else: {request.url}")
        self.faults += [f"in an address: {secret}" for secret in found_in(self.ward, [unquote_plus(request.url)])]

    def _answered(self, response: Response) -> None:
        allowed = self.expected if response.request.is_navigation_request() else self.expected & {401}
        if response.status >= 400 and response.status not in allowed:
            self.faults.append(f"{response.status} for {response.request.method} {urlsplit(response.url).path}")


class Windows:
    """All windows of one test, closed at its end, each asked then for what went wrong."""

    def __init__(self, browser: Browser, ward: Ward) -> None:
        self._browser, self._ward = browser, ward
        self._shots = Path(os.environ[SHOTS]) if os.environ.get(SHOTS) else None
        if self._shots:
            self._shots.mkdir(parents=True, exist_ok=True)
        self._opened: list[Window] = []

    def __call__(
        self,
        role: Role | None = None,
        *,
        login: str | None = None,
        size: tuple[int, int] = DESK,
        dark: bool = False,
        locale: str = "en-US",
        zone: str | None = None,
        script: bool = True,
    ) -> Window:
        """A window of somebody who is signed in, or of nobody yet."""
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            locale=locale,
            timezone_id=zone,
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        if role is not None:
            context.add_cookies([{"name": auth.COOKIE, "value": self._secret(role, login), "url": self._ward.url}])
        context.set_default_timeout(PATIENCE_MS)
        window = Window(self._ward, context, context.new_page(), self._shots).watch()
        self._opened.append(window)
        return window

    def close(self) -> list[str]:
        """Close all; returns what went wrong in any."""
        faults = []
        for window in self._opened:
            faults += window.faults
            if not window.page.is_closed():
                faults += [f"in the history: {secret}" for secret in found_in(self._ward, window.kept_by_the_browser())]
            window.context.close()
        return faults

    def _secret(self, role: Role, login: str | None) -> str:
        login = self._ward.desk.user(role, login=login)
        with transaction(self._ward.desk.engine) as session:
            user = session.query(User).filter_by(login=login).one()
            return sessions.open_session(session, user, lasts_s=3600)[1]


def found_in(ward: Ward, texts: Sequence[str]) -> list[str]:
    """What of a patient stands in texts that hold nothing of one."""
    return sorted({secret for secret in ward.secrets for text in texts if secret.casefold() in text.casefold()})


def is_on_study(window: Window, study_uid: str) -> None:
    """The window shows this study."""
    expect(window.page).to_have_url(re.compile(rf"/studies/{re.escape(study_uid)}(\?done=\w+)?$"))
