"""Storage commitment: asked for at our door, judged when everything had time to come, told on an association of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import Engine, select, text

from gateway import cli, notices
from gateway.dicom import commit
from gateway.dicom.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from gateway.indexer import Indexer
from gateway.launcher.processes import free_port
from gateway.outbound.courier import Courier
from record import commitments, peers, sites, timeline
from record.db import connect, transaction
from record.errors import NotFound
from record.models import Study
from record.settings import CourierSettings
from record.store import Kind, Store
from tests.archives import asker
from tests.conftest import FreshDatabase
from tests.instances import CT, instance, saved, uid
from tests.listeners import AET, Running, listening

PACS = "PACS"


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


class Place:
    """A listener, its record, and a peer that asks."""

    def __init__(self, listener: Running, engine: Engine, database: FreshDatabase, folder: Path) -> None:
        self.listener, self.engine = listener, engine
        self.store = Store(folder / "store")
        settings = CourierSettings(database_url=database.url, store=folder / "store", call_timeout_s=5)
        self.courier = Courier(engine, self.store, settings)
        self.indexer = Indexer(engine, self.store, listener.root)
        self.index()

    def index(self) -> None:
        self.indexer.run_once()

    def ask(self, *references: tuple[str, str], calling: str = PACS, **more: Any) -> int:
        """Ask for storage commitment; the status that is answered."""
        asked = Dataset()
        asked.TransactionUID = more.get("transaction", uid())
        asked.ReferencedSOPSequence = []
        for class_uid, instance_uid in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
            asked.ReferencedSOPSequence.append(item)
        ae = AE(calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate("127.0.0.1", self.listener.port, ae_title=AET)
        assert association.is_established
        status, _ = association.send_n_action(
            asked,
            more.get("action", 1),
            UID(STORAGE_COMMITMENT),
            UID(more.get("instance", STORAGE_COMMITMENT_INSTANCE)),
        )
        association.release()
        return int(status.Status)

    def state(self) -> list[tuple[str, int, str | None]]:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT state, attempts, last_code FROM commitments ORDER BY id"))
            return [(row.state, row.attempts, row.last_code) for row in rows]

    def due(self) -> None:
        """What waits for its time is due now."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE commitments SET not_before = now()"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def place(tmp_path: Path, engine: Engine, database: FreshDatabase, port: int) -> Iterator[Place]:
    with transaction(engine) as session:
        peers.add_peer(session, site=None, ae_title=PACS, address="127.0.0.1", port=port)
        peers.add_peer(session, site=None, ae_title="MUTE", address="127.0.0.1")
    with listening(tmp_path / "spool", open_peers=0) as listener:
        yield Place(listener, engine, database, tmp_path)


def test_a_peer_is_told_what_is_kept_and_what_is_not(place: Place, port: int, tmp_path: Path, monkeypatch: Any) -> None:
    kept, lost = instance(side=64), instance(side=64)
    paths = [saved(tmp_path, ds) for ds in (kept, lost)]
    assert set(place.listener.send(*paths, calling_aet=PACS).values()) == {0}
    place.index()
    assert place.ask((CT, kept.SOPInstanceUID)) == 0
    place.index()
    with asker(PACS, port) as told:
        assert place.courier.run_once()
        ((event, report),) = told.reports
        assert event == 1
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [kept.SOPInstanceUID]
        assert place.state() == [("reported", 1, None)]
        assert not place.courier.run_once(), "once"
        with place.engine.connect() as connection:
            where = {"uid": lost.SOPInstanceUID}
            lost_id = connection.execute(
                text("SELECT id FROM instances WHERE sop_instance_uid = :uid"), where
            ).scalar_one()
        place.store.delete(Kind.INSTANCE, lost_id.hex)
        monkeypatch.setattr(commitments, "WAIT_S", 0.0)
        mr = "1.2.840.10008.5.1.4.1.1.4"
        assert (
            place.ask((CT, kept.SOPInstanceUID), (mr, kept.SOPInstanceUID), (CT, "1.2.3"), (CT, lost.SOPInstanceUID))
            == 0
        )
        place.index()
        assert place.courier.run_once()
        event, report = told.reports[-1]
        assert event == 2
        assert len(report.ReferencedSOPSequence) == 1
        why = {
            (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID): item.FailureReason
            for item in report.FailedSOPSequence
        }
        assert why == {(mr, kept.SOPInstanceUID): 0x0119, (CT, "1.2.3"): 0x0112, (CT, lost.SOPInstanceUID): 0x0110}


def test_what_is_still_on_its_way_is_waited_for(place: Place, port: int, tmp_path: Path) -> None:
    ds = instance(side=64)
    assert place.ask((CT, ds.SOPInstanceUID)) == 0
    place.index()
    assert place.courier.run_once()
    assert not place.courier.run_once(), "not due again"
    assert place.state() == [("queued", 0, None)]
    assert place.listener.send(saved(tmp_path, ds), calling_aet=PACS).popitem()[1] == 0
    place.index()
    place.due()
    with asker(PACS, port) as told:
        assert place.courier.run_once()
        assert [event for event, _ in told.reports] == [1]
    with transaction(place.engine) as session:
        moments = timeline.of_study(session, session.scalars(select(Study)).one())
        assert [one.facts["count"] for one in moments if one.code == "study_committed"] == [1]
        session.execute(text("UPDATE commitments SET created_at = now() - interval '91 days'"))
        commitments.forget_old(session)
    assert place.state() == []


def test_an_errand_that_always_breaks_is_given_up_and_keeps_no_other_waiting(
    place: Place, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "WAIT_S", 0.0)
    monkeypatch.setattr(commitments, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(commit, "report", lambda *_: 1 / 0)
    assert place.ask((CT, "1.2.3")) == 0
    place.index()
    for _ in range(2):
        assert place.courier.run_once()
        place.due()
    assert place.state() == [("dead", 2, "error")]


def test_a_backlog_longer_than_that_is_waited_for_too(
    place: Place, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "WAIT_S", 0.0)
    many = [instance(side=16) for _ in range(5)]
    assert set(place.listener.send(*(saved(tmp_path, ds) for ds in many), calling_aet=PACS).values()) == {0}
    assert place.ask(*((CT, ds.SOPInstanceUID) for ds in many)) == 0
    place.indexer._batch = 2
    place.index()
    assert place.state() == [], "images that came before it go first"
    with asker(PACS, port) as told:
        for _ in range(4):
            place.index()
            place.courier.run_once()
        assert [event for event, _ in told.reports] == [1]


def test_a_request_outlasts_a_restart_of_everybody_and_a_peer_that_is_away(
    place: Place, port: int, tmp_path: Path
) -> None:
    ds = instance(side=64)
    assert place.listener.send(saved(tmp_path, ds), calling_aet=PACS).popitem()[1] == 0
    assert place.ask((CT, ds.SOPInstanceUID)) == 0
    place.listener.process.kill()
    place.index()
    assert place.courier.run_once()
    assert place.state() == [("queued", 1, "no_association")]
    assert not place.courier.run_once(), "not at once again"
    with asker(PACS, port) as told:
        told.status = 0x0110
        place.due()
        assert place.courier.run_once()
        assert place.state() == [("queued", 2, "status_0110")]
        told.status = 0
        place.due()
        assert place.courier.run_once()
        assert place.state() == [("reported", 3, None)]


def test_what_cannot_be_done_is_refused_with_the_status_that_says_why(place: Place) -> None:
    assert place.ask((CT, "1.2.3"), instance="1.2.3") == 0x0112
    assert place.ask((CT, "1.2.3"), action=2) == 0x0123
    assert place.ask() == 0x0115
    assert place.ask((CT, "1.2.3"), calling="MUTE") == 0x0124, "nobody knows where to report to"
    place.index()
    assert place.state() == []
    assert list(notices.waiting(place.listener.root / "00")) == []


def test_a_notice_that_cannot_be_taken_up_is_kept_and_holds_up_no_other(place: Place, tmp_path: Path) -> None:
    folder = place.listener.root / "00"
    notices.keep(folder, {"kind": "commitment"})
    assert place.ask((CT, "1.2.3")) == 0
    place.index()
    assert [state for state, _, _ in place.state()] == ["queued"]
    assert [path.suffix for path in (folder / "notices").iterdir()] == [".failed"]
    environment = {
        "DATABASE_URL": str(place.courier.settings.database_url.get_secret_value()),
        "COUNTERSIGN_SPOOL": str(place.listener.root),
        "COUNTERSIGN_STORE": str(place.store.root),
    }
    assert place.indexer.facts()["spools"][0]["failed_notices"] == 1
    assert json.loads(run(environment, "notices", "list", "--json").stdout)[0]["why"] == "not taken up"
    assert "0 commitments and 1 notice are tried again" in run(environment, "notices", "retry").stderr
    place.index()
    assert [path.suffix for path in (folder / "notices").iterdir()] == [".failed"], "it is no better than it was"
    refused = CliRunner(env=environment).invoke(cli.cli, ("notices", "drop"))
    assert "say --yes" in str(refused.exception)
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE commitments SET state = 'dead'"))
    assert "1 commitment and 1 notice are let go" in run(environment, "notices", "drop", "--yes").stderr
    assert (list((folder / "notices").iterdir()), place.state()) == ([], [])


def test_what_one_site_asked_is_never_another_s(place: Place) -> None:
    with transaction(place.engine) as session:
        sites.add_site(session, name="north")
        for site, name in (("main", "a.example"), ("north", "b.example")):
            peers.add_peer(session, site=site, ae_title="CT1", certificate_name=name)
        gone = peers.find_peer(session, "CT1", "", "a.example")
        told = {
            "peer_id": gone.id.hex,
            "ae_title": "CT1",
            "address": "",
            "certificate_name": "a.example",
            "site": "main",
        }
        assert peers.sender_of(session, told) is gone
        peers.remove_peer(session, gone)
    with transaction(place.engine) as session, pytest.raises(NotFound):
        peers.sender_of(session, told)


def test_a_peer_that_is_entered_anew_is_told_all_the_same(place: Place, port: int) -> None:
    assert place.ask((CT, "1.2.3")) == 0
    with transaction(place.engine) as session:
        peers.remove_peer(session, peers.find_peer(session, PACS))
        peers.add_peer(session, site=None, ae_title=PACS, address="127.0.0.1", port=port, strict=True)
    place.index()
    assert [state for state, _, _ in place.state()] == ["queued"]


def test_a_request_that_is_repeated_while_it_waits_is_told_once(place: Place) -> None:
    again = uid()
    assert place.ask((CT, "1.2.3"), transaction=again) == 0
    assert place.ask((CT, "1.2.3"), transaction=again) == 0
    place.index()
    assert len(place.state()) == 1


def test_a_passing_error_of_the_database_loses_no_notice(place: Place, database: FreshDatabase) -> None:
    assert place.ask((CT, "1.2.3")) == 0
    with psycopg.connect(database.owner_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("ALTER TABLE commitments RENAME TO elsewhere")
        place.index()
        owner.execute("ALTER TABLE elsewhere RENAME TO commitments")
    place.indexer._aside.clear()
    place.index()
    assert [state for state, _, _ in place.state()] == ["queued"]


def test_an_emptied_file_is_not_told_to_be_kept(place: Place, port: int, tmp_path: Path) -> None:
    ds = instance(side=64)
    assert place.listener.send(saved(tmp_path, ds), calling_aet=PACS).popitem()[1] == 0
    place.index()
    (key,) = place.store.list(Kind.INSTANCE)
    with place.store.local(Kind.INSTANCE, key) as path:
        path.chmod(0o600)
        path.write_bytes(b"")
    assert place.ask((CT, ds.SOPInstanceUID)) == 0
    place.index()
    with asker(PACS, port) as told:
        assert place.courier.run_once()
        ((event, report),) = told.reports
        assert (event, report.FailedSOPSequence[0].FailureReason) == (2, 0x0110)


def test_a_peer_that_does_not_answer_keeps_no_other_waiting(place: Place, tmp_path: Path) -> None:
    other = free_port()
    with transaction(place.engine) as session:
        peers.add_peer(session, site=None, ae_title="GOOD", address="127.0.0.1", port=other)
    place.indexer._peers_due = 0.0
    place.index()
    ds = instance(side=64)
    assert place.listener.send(saved(tmp_path, ds), calling_aet=PACS).popitem()[1] == 0
    for _ in range(3):
        assert place.ask((CT, ds.SOPInstanceUID)) == 0
    assert place.ask((CT, ds.SOPInstanceUID), calling="GOOD") == 0
    place.index()
    with asker("GOOD", other) as told:
        assert place.courier.run_once()
        assert place.courier.run_once()
        assert len(told.reports) == 1


def run(environment: dict[str, str], *arguments: str) -> Result:
    done = CliRunner(env=environment).invoke(cli.cli, arguments)
    assert done.exit_code == 0, done.output
    return done


def test_a_peer_that_is_no_more_is_told_when_it_is_let_in_again(
    place: Place, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.ask((CT, "1.2.3")) == 0
    place.index()
    with transaction(place.engine) as session:
        peers.remove_peer(session, peers.find_peer(session, PACS))
    assert place.courier.run_once()
    assert place.state() == [("dead", 0, "peer_unknown")]
    environment = {
        "DATABASE_URL": str(place.courier.settings.database_url.get_secret_value()),
        "COUNTERSIGN_SPOOL": str(place.listener.root),
        "COUNTERSIGN_STORE": str(place.store.root),
    }
    (line,) = json.loads(run(environment, "notices", "list", "--json").stdout)
    assert (line["kind"], line["ae_title"], line["instances"], line["why"]) == ("commitment", PACS, 1, "peer unknown")
    with transaction(place.engine) as session:
        peers.add_peer(session, site=None, ae_title=PACS, address="127.0.0.1", port=port)
    assert "1 commitment and 0 notices are tried again" in run(environment, "notices", "retry").stderr
    monkeypatch.setattr(commitments, "WAIT_S", 0.0)
    with asker(PACS, port) as told:
        assert place.courier.run_once()
        assert len(told.reports) == 1
    assert "is done, or under way" in run(environment, "notices", "list").stderr
