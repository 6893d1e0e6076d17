"""Names that turn the direction of writing stay in their place: whatever a sender wrote stands isolated on every page."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from record.db import transaction
from record.models import Instance
from record.states import Role
from tests.conftest import FreshDatabase
from tests.records import study_of
from tests.web_records import Desk, desk_on

TURNED = "CANARY\u202eTURNED"
"""With a right-to-left override, which holds until its paragraph or its isolate ends (UAX 9)."""
OPEN = {"meta", "link", "input", "img", "br", "hr"}
"""Elements that have no end."""
SENT = {
    "patient_name": f"{TURNED}^NAME",
    "patient_id": f"{TURNED}-ID",
    "accession_number": TURNED[:16],
    "study_description": f"{TURNED} study",
    "series_description": f"{TURNED} series",
    "referring_physician_name": f"{TURNED}^PHYSICIAN",
}


class Texts(HTMLParser):
    """The canary's texts on a page, and whether each stands in a `<bdi>`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._around: list[str] = []
        self.isolated: list[str] = []
        self.loose: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in OPEN:
            self._around.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._around and self._around.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "\u202e" in data:
            (self.isolated if "bdi" in self._around else self.loose).append(data.strip())


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def test_what_a_sender_wrote_stands_isolated_on_every_page_that_shows_it(desk: Desk) -> None:
    study_uid = desk.study(**SENT)
    client = desk.signed_in(Role.ATTENDING)
    with transaction(desk.engine) as session:
        study = study_of(session, study_uid)
        instance_id = session.query(Instance.id).filter_by(study_id=study.id).scalar()
    sought = client.post("/search", data={"csrf": client.headers["X-CSRF-Token"], "patient_name": "canary"})
    expected = {
        "/": 4,
        sought.headers["location"]: 4,
        f"/studies/{study_uid}": 5,
        f"/reports/{desk.report_of(study_uid).id}/sign": 5,
        f"/studies/{study_uid}/instances/{instance_id}": 5,
    }
    for path, least in expected.items():
        answer = client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, path
        found = Texts(answer.text)
        assert len(found.isolated) >= least, (path, found.isolated)
        assert found.loose == [], path
