"""A strict peer's other bytes under a taken UID are refused, wherever the first ones lie; everybody else's are kept as a conflict."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Engine, select, text

from gateway.indexer import Indexer
from gateway.web.languages import ENGLISH
from gateway.web.moments import told
from record import peers, timeline
from record.db import connect, transaction
from record.models import Study
from record.store import Store
from tests.conftest import FreshDatabase
from tests.instances import encoded, instance, saved, uid
from tests.listeners import Running, associate, listening, store_raw

OTHER_BYTES, COME_AGAIN = 0x0111, 0xA700


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


def admitted(engine: Engine) -> None:
    with transaction(engine) as session:
        peers.add_peer(session, site=None, ae_title="STRICT", address="127.0.0.1", strict=True)
        peers.add_peer(session, site=None, ae_title="EASY", address="127.0.0.1")


def index(engine: Engine, listener: Running, folder: Path) -> None:
    indexer = Indexer(engine, Store(folder / "store"), listener.root)
    indexer.run_once()
    indexer.release()


def sides() -> tuple[Dataset, Dataset]:
    """Two instances of one UID that differ."""
    first = instance(side=64)
    other = instance(side=64, PatientComments="other")
    other.SOPInstanceUID, other.StudyInstanceUID = first.SOPInstanceUID, first.StudyInstanceUID
    return first, other


def test_other_bytes_are_refused_in_the_spool_and_on_record_and_the_same_ones_are_taken(
    engine: Engine, database: FreshDatabase, tmp_path: Path
) -> None:
    admitted(engine)
    first, other = sides()
    (tmp_path / "other").mkdir()
    one, two = saved(tmp_path, first), saved(tmp_path / "other", other)
    with listening(tmp_path / "spool", open_peers=0, database_url=database.url) as listener:
        index(engine, listener, tmp_path)
        assert listener.send(one, calling_aet="STRICT") == {one: 0}
        assert listener.send(two, calling_aet="STRICT") == {two: OTHER_BYTES}, "while the first waits in the spool"
        assert listener.send(one, calling_aet="STRICT") == {one: 0}, "the same bytes"
        index(engine, listener, tmp_path)
        assert listener.send(two, calling_aet="STRICT") == {two: OTHER_BYTES}, "when the first is on record"
        assert listener.send(one, calling_aet="STRICT") == {one: 0}
        assert listener.send(two, calling_aet="EASY") == {two: 0}
        index(engine, listener, tmp_path)
        assert listener.send(two, calling_aet="STRICT") == {two: 0}, "it is one of the sides now"
        assert list((listener.root / "00" / "incoming").iterdir()) == []
        index(engine, listener, tmp_path)
    with transaction(engine) as session:
        study = session.scalars(select(Study)).one()
        refused = [one for one in timeline.of_study(session, study) if one.code == "refused"]
    assert [(one.facts["status"], one.facts["count"], one.facts["peer_ae_title"]) for one in refused] == [
        ("0111", 1, "STRICT")
    ] * 2
    assert told(ENGLISH, refused[0]) == "refused: 1 objects from STRICT (127.0.0.1) (0x0111: other bytes)"
    with engine.connect() as connection:
        conflicts = connection.execute(text("SELECT count(*) FROM instances WHERE conflict_of_id IS NOT NULL"))
        assert conflicts.scalar_one() == 1


def test_two_at_once_never_pass_each_other(engine: Engine, database: FreshDatabase, tmp_path: Path) -> None:
    admitted(engine)
    study, instance_uid = uid(), uid()
    many = [instance(side=64, StudyInstanceUID=study, PatientComments=str(n)) for n in range(8)]
    for ds in many:
        ds.SOPInstanceUID = instance_uid
    with listening(tmp_path / "spool", open_peers=0, receivers=2, database_url=database.url) as listener:
        index(engine, listener, tmp_path)
        associations = [associate(listener, calling="STRICT") for _ in many]
        statuses: list[int] = []

        def send(number: int) -> None:
            content = encoded(many[number])
            statuses.append(store_raw(associations[number], content, sop_instance_uid=instance_uid))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(len(many))]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        for each in associations:
            each.release()
        assert sorted(statuses) == [0] + [OTHER_BYTES] * 7


def test_while_postgres_is_away_a_strict_peer_is_told_to_come_again_and_nobody_else(
    engine: Engine, database: FreshDatabase, tmp_path: Path
) -> None:
    admitted(engine)
    path = saved(tmp_path, instance(side=64))
    nowhere = "postgresql+psycopg://nobody:nothing@127.0.0.1:1/none"
    for number, settings in enumerate(({"database_url": nowhere}, {})):
        with listening(tmp_path / f"spool{number}", open_peers=0, **settings) as listener:
            index(engine, listener, tmp_path)
            assert listener.send(path, calling_aet="STRICT") == {path: COME_AGAIN}
            assert listener.send(path, calling_aet="EASY") == {path: 0}
            assert len(listener.files()) == 1
