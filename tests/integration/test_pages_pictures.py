"""What a study's page says of the pictures of former images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import Desk, desk_on

TO_COME = "Of revision 2, the newest, none are rendered yet."
NONE = "Of revision 2, the newest, there are none: it was not analysed."


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.mark.parametrize(("ends", "said", "not_said"), [("failed", NONE, TO_COME), ("queued", TO_COME, NONE)])
def test_pictures_are_only_promised_while_the_newest_images_are_still_being_read(
    desk: Desk, ends: str, said: str, not_said: str
) -> None:
    study_uid = desk.study()
    with transaction(desk.engine) as session:
        desk.add_images(session, study_uid)
        desk.read(session, study_uid, ends=ends)
    client = desk.signed_in(Role.ATTENDING)
    page = client.get(f"/studies/{study_uid}", headers={"Accept": "text/html"}).text
    assert "These are the pictures of revision 1." in page
    assert said in page
    assert not_said not in page
