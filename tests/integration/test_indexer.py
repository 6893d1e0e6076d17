"""The indexer on a real PostgreSQL: every spooled file ends as one row and one stored file, whatever happens between."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from gateway.dicom.peers import KnownPeer, read_peers
from gateway.dicom.send import send
from gateway.indexer import Indexer, Round, arrival_of
from gateway.intake import Intake, SopIdentity, Source
from gateway.launcher.processes import free_port, wait_until
from gateway.spool import Spool
from record.db import connect, is_away
from record.errors import InvalidInstance
from record.models import Instance, Peer, Site, Study
from record.states import InstanceKind, StudyState
from record.store import Kind, Store
from tests.instances import EXPLICIT, encoded, instance, uid

SOURCE = Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", None)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def spool(root):
    taken = Spool.claim(root)
    yield taken
    taken.release()


@pytest.fixture
def indexer(engine, store, root, spool):
    made = Indexer(engine, store, root, batch=8, aside_s=0.0)
    yield made
    made.release()


def push(spool, *many, source=SOURCE):
    """Take instances in; their ids in hex."""
    ids = []
    for ds in many:
        with Intake(spool).begin(source, SopIdentity(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)) as incoming:
            incoming.write(memoryview(encoded(ds)))
            ids.append(incoming.commit().instance_id.hex)
    return ids


def rows(engine, what=Instance):
    with Session(engine) as session:
        return list(session.scalars(select(what)))


def drain(indexer):
    while indexer.run_once().instances:
        pass


def test_a_spooled_file_becomes_a_row_and_a_stored_file(engine, store, spool, indexer):
    ds = instance(StudyDescription="Thorax")
    (name,) = push(spool, ds)
    assert indexer.run_once().instances == 1
    (row,) = rows(engine)
    assert row.id.hex == name
    assert row.sha256 == hashlib.sha256(encoded(ds)).hexdigest()
    assert (row.kind, row.peer_ae_title, row.peer_address) == (InstanceKind.IMAGE, "MODALITY1", "10.0.0.7")
    assert row.header["patient_name"] == "Canary^Yellow"
    (study,) = rows(engine, Study)
    assert (study.state, study.study_instance_uid) == (StudyState.RECEIVING, ds.StudyInstanceUID)
    assert spool.waiting() == []
    with store.open(Kind.INSTANCE, name) as stream:
        assert stream.read().endswith(encoded(ds))


def test_many_files_of_several_studies_and_spools_are_drained_in_batches(engine, store, root, spool, indexer):
    studies = [uid() for _ in range(3)]
    names = push(spool, *(instance(StudyInstanceUID=studies[i % 3]) for i in range(20)))
    other = Spool.claim(root)
    names += push(other, instance())
    other.release()  # a dead listener's folder is drained likewise
    assert indexer.run_once().instances == 9
    drain(indexer)
    assert {row.id.hex for row in rows(engine)} == set(names) == set(store.list(Kind.INSTANCE))
    assert len(rows(engine, Study)) == 4


def test_two_indexers_never_share_a_spool(engine, store, root, spool, indexer):
    push(spool, instance())
    second = Indexer(engine, store, root)
    assert indexer.run_once().instances == 1
    push(spool, instance())
    assert second.run_once().instances == 0
    indexer.release()
    assert second.run_once().instances == 1
    second.release()


@pytest.mark.parametrize("stored", [True, False])
def test_a_death_between_any_two_steps_is_harmless(engine, store, root, spool, indexer, tmp_path, stored):
    (name,) = push(spool, instance())
    path = spool.waiting()[0]
    if stored:  # died after (a)
        store.put(Kind.INSTANCE, name, path)
    shutil.copy(path, tmp_path / path.name)
    drain(indexer)
    shutil.copy(tmp_path / path.name, path)  # died after (b)
    indexer.release()
    successor = Indexer(engine, store, root)
    successor.run_once()
    successor.release()
    (row,) = rows(engine)
    assert row.duplicate_of_id is None
    assert spool.waiting() == []
    assert list(store.list(Kind.INSTANCE)) == [name]


def test_the_same_instance_again_starts_nothing(engine, spool, indexer):
    ds = instance()
    push(spool, ds, ds)
    drain(indexer)
    assert sorted(row.duplicate_of_id is None for row in rows(engine)) == [False, True]
    (study,) = rows(engine, Study)
    assert study.state == StudyState.RECEIVING


def test_a_damaged_file_goes_aside_with_its_reason_and_others_pass(engine, spool, indexer):
    push(spool, instance(), instance(), instance())
    first, second, _ = spool.waiting()
    hurt = bytearray(first.read_bytes())
    hurt[-3] ^= 1
    first.write_bytes(hurt)
    second.write_bytes(b"")
    found = indexer.run_once()
    assert (found.instances, found.quarantined) == (1, 2)
    assert {path.name.split(".")[1] for path in spool.quarantine.iterdir()} == {"damaged", "not_spooled"} or {
        path.name.split(".")[1] for path in spool.quarantine.iterdir()
    } == {"damaged"}
    assert len(rows(engine)) == 1


def test_whatever_bit_falls_over_is_found_and_keeps_no_other_file_from_its_turn(engine, spool, indexer):
    push(spool, instance())
    (path,) = spool.waiting()
    whole = path.read_bytes()
    for at in range(path.stat().st_size):
        for bit in range(8) if at < 1200 else (0,):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(InvalidInstance):
                arrival_of(path)
    damaged = bytearray(whole)
    damaged[whole.index(b'{"address"') + 1] ^= 1  # JSON no more
    path.write_bytes(damaged)
    push(spool, instance())
    assert indexer.run_once() == Round(instances=1, quarantined=1)


@pytest.mark.slow
def test_a_file_the_database_refuses_steps_aside_and_is_tried_again(engine, database, spool, indexer):
    owner = connect(database.owner_url)
    with owner.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(
            text("ALTER TABLE instances ADD CONSTRAINT passing CHECK (instance_number IS DISTINCT FROM 13)")
        )
    good, bad = push(spool, instance(), instance(InstanceNumber=13))
    assert indexer.run_once().instances == 1
    assert [path.stem for path in spool.waiting()] == [bad]
    with owner.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("ALTER TABLE instances DROP CONSTRAINT passing"))
    owner.dispose()
    assert indexer.run_once().instances == 1
    assert {row.id.hex for row in rows(engine)} == {good, bad}


def test_without_postgres_everything_waits(store, root, spool):
    push(spool, instance())
    away = connect(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    indexer = Indexer(away, store, root)
    with pytest.raises(Exception) as failed:  # noqa: PT011  what it is, is_away tells
        indexer.run_once()
    assert is_away(failed.value)
    assert len(spool.waiting()) == 1
    indexer.release()


def test_the_peers_of_the_database_become_the_listeners_snapshot(engine, root, spool, indexer):
    with Session(engine) as session:
        site = session.scalars(select(Site)).one()
        session.add(Peer(site_id=site.id, ae_title="PACS", address="10.0.0.9"))
        session.commit()
        name = site.name
    indexer.run_once()
    (known,) = read_peers(root)
    assert known == KnownPeer("PACS", "10.0.0.9", name, peer_id=known.peer_id)
    assert known.peer_id


def test_real_files_of_every_kind_are_indexed(engine, root, spool, indexer, tmp_path):
    from gateway.dicom.listener import Listener, listen_at
    from record.settings import ListenerSettings

    folder = Path(get_testdata_file("CT_small.dcm")).parent
    names = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm", "examples_palette.dcm", "waveform_ecg.dcm"]
    settings = ListenerSettings(spool=root, dicom_port=0, open_peers=True, min_free_bytes=0)
    listener = Listener(settings, listen_at(settings))
    listener.start()
    statuses = {}
    send([folder / name for name in names], "127.0.0.1", listener.port, "COUNTERSIGN", statuses.__setitem__)
    listener.stop()
    assert set(statuses.values()) == {0}
    drain(indexer)
    kinds = sorted(row.kind for row in rows(engine))
    assert kinds.count(InstanceKind.IMAGE) == 3
    assert kinds.count(InstanceKind.OTHER) == 3


@contextmanager
def running(database, root, store_folder, log):
    environment = {
        "DATABASE_URL": database.url,
        "COUNTERSIGN_SPOOL": str(root),
        "COUNTERSIGN_STORE": str(store_folder),
        "COUNTERSIGN_POLL_S": "0.05",
        "COUNTERSIGN_BATCH": "4",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "gateway", "indexer"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def count(engine):
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(Instance))


def test_the_program_drains_and_stops_cleanly_and_says_no_names(engine, database, root, spool, tmp_path):
    push(spool, *(instance() for _ in range(5)))
    log = tmp_path / "indexer.log"
    with running(database, root, tmp_path / "store", log) as process:
        assert wait_until(lambda: count(engine) == 5, within_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "instances_indexed" in log.read_text()
    assert "Canary" not in log.read_text()


@pytest.mark.kill
def test_kill_9_at_any_moment_loses_and_doubles_nothing(engine, database, root, spool, store, tmp_path):
    chance, names = random.Random(3), []
    for _ in range(4):
        names += push(spool, *(instance(StudyInstanceUID="1.2.3") for _ in range(30)))
        already = count(engine)
        with running(database, root, tmp_path / "store", tmp_path / "log") as process:
            goal = already + chance.randrange(1, 20)
            assert wait_until(lambda goal=goal: count(engine) >= goal, within_s=30, every_s=0.01)
            os.kill(process.pid, signal.SIGKILL)
    with running(database, root, tmp_path / "store", tmp_path / "log"):
        assert wait_until(lambda: spool.waiting() == [], within_s=30)
    assert sorted(row.id.hex for row in rows(engine)) == sorted(names) == sorted(store.list(Kind.INSTANCE))
    (study,) = rows(engine, Study)
    assert study.instances == len(names)
