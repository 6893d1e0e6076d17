"""Pages that ask for themselves again without a script: that is no sign of a person, and ends where a session ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import Desk, desk_on

PAGES = [
    (Role.ATTENDING, "/"),
    (Role.ATTENDING, "/?tab=all&modality=CT%26MR"),
    (Role.OPERATOR, "/operations?retried=3"),
]


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        for _ in range(2):
            made.study(patient_name="DOE^JANE")
        yield made


def look_at(client: TestClient, path: str) -> httpx.Response:
    return client.get(path, headers={"Accept": "text/html"})


def refreshed_by(page: httpx.Response) -> str:
    """The address that the page asks for again by itself."""
    found = re.search(r'<noscript><meta http-equiv="refresh" content="\d+; url=([^"]+)"></noscript>', page.text)
    assert found, page.text[:600]
    return unescape(found[1])


def grow_old(desk: Desk, minutes: int) -> None:
    """All sessions were last seen that much earlier."""
    with transaction(desk.engine) as session:
        session.execute(text(f"UPDATE user_sessions SET seen_at = seen_at - interval '{minutes} minutes'"))


@pytest.mark.parametrize(("role", "path"), PAGES)
def test_a_page_that_refreshes_itself_keeps_no_session_alive(desk: Desk, role: Role, path: str) -> None:
    client = desk.signed_in(role)
    address = refreshed_by(look_at(client, path))
    grow_old(desk, 40)
    assert look_at(client, address).status_code == 200
    grow_old(desk, 25)
    over = look_at(client, address)
    assert (over.status_code, over.headers.get("location")) == (303, "/sign-in")


@pytest.mark.parametrize(("role", "path"), PAGES)
def test_a_person_who_looks_at_the_same_page_does(desk: Desk, role: Role, path: str) -> None:
    client = desk.signed_in(role)
    for _ in range(2):
        grow_old(desk, 40)
        assert look_at(client, path).status_code == 200


@pytest.mark.parametrize(("role", "path"), PAGES)
def test_a_refreshed_page_is_the_same_page_and_none_of_its_links_and_forms_says_that_nobody_asked(
    desk: Desk, role: Role, path: str
) -> None:
    client = desk.signed_in(role)
    first = look_at(client, path)
    address = refreshed_by(first)
    assert "retried" not in address
    again = look_at(client, address)
    assert refreshed_by(again) == address
    told = re.sub(r"<noscript>.*?</noscript>", "", again.text)
    assert "refresh" not in told
    if role is Role.ATTENDING:  # the operator's page has another tag twice a minute
        assert again.headers["etag"] == first.headers["etag"]
