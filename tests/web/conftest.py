"""A real browser on a ward of studies. One browser and one ward a worker; a fresh context, with no past, a test.

Debian's chromium, by its path: nothing is downloaded. Screenshots go to the folder that COUNTERSIGN_SCREENSHOTS names.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import FreshDatabaseMaker, missing
from tests.web.browsing import PATIENCE_MS, Windows
from tests.web.ward import Ward, furnish, served_ward

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing(f"no browser is installed: one of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def ward(
    browser: Browser, fresh_database: FreshDatabaseMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ward]:
    """All studies there are; a test that changes one makes one of its own with `ward.study`."""
    with fresh_database() as database, served_ward(database, tmp_path_factory.mktemp("ward")) as made:
        furnish(made)
        yield made


@pytest.fixture
def windows(browser: Browser, ward: Ward) -> Iterator[Windows]:
    """Opens windows, and fails the test for whatever went wrong in one."""
    made = Windows(browser, ward)
    yield made
    faults = made.close()
    assert not faults, "\n".join(faults)
