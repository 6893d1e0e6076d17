"""The operator's page in a browser: what failed is seen, and read again; a study is closed by hand."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from record.db import transaction
from record.states import Role
from tests.web import words
from tests.web.browsing import Window, Windows, is_on_study
from tests.web.ward import Ward, images

pytestmark = pytest.mark.web


def test_an_operator_sees_a_failed_reading_and_has_it_read_again(ward: Ward, windows: Windows) -> None:
    study_uid = ward.study("Failed^Reading", ends="failed")
    window = windows(Role.OPERATOR)
    window.open("/")
    window.link(words.OPERATIONS).click()
    failures = window.page.get_by_role("region", name="Readings without a draft, last 7 days")
    expect(failures).to_be_visible()
    window.shot("operations", whole=True)
    failures.get_by_role("button", name=f"Read study {study_uid[-12:]} again").click()
    is_on_study(window, study_uid)
    window.says("The reading is queued again.")
    _keep_from_the_others(ward)
    window.open("/operations")
    expect(window.page.get_by_role("button", name=f"Read study {study_uid[-12:]} again")).to_have_count(0)


def test_the_page_of_an_operator_names_no_patient(ward: Ward, windows: Windows) -> None:
    window = windows(Role.OPERATOR)
    window.open("/operations")
    told = window.page.get_by_role("main").inner_text().casefold()
    assert sorted(secret for secret in ward.secrets if secret.casefold() in told) == []


def test_an_operator_closes_a_study_that_is_still_receiving(ward: Ward, windows: Windows) -> None:
    study_uid = ward.send(images("Closed^Byhand"))
    window = windows(Role.OPERATOR)
    window.open_study(study_uid)
    window.press(words.CLOSE_NOW)
    window.says("The study is closed; its reading is queued.")
    _keep_from_the_others(ward)
    expect(window.page.get_by_text("still arriving")).to_have_count(0)


def test_the_page_tells_of_a_new_failure_by_itself(ward: Ward, windows: Windows) -> None:
    window: Window = windows(Role.OPERATOR)
    window.open("/operations")
    study_uid = ward.study("Fails^Meanwhile", ends="failed")
    expect(window.page.get_by_role("button", name=f"Read study {study_uid[-12:]} again")).to_be_visible()


def _keep_from_the_others(ward: Ward) -> None:
    """What is queued is taken up by no other test."""
    with transaction(ward.desk.engine) as session:
        session.execute(text("UPDATE readings SET not_before = now() + interval '1 day' WHERE state = 'queued'"))
