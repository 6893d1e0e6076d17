"""Associations on record: who came, what was offered and taken, how it ended and what to do, whether a database was there or not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from gateway import cli, logbook
from gateway.dicom.peers import KnownPeer, write_peers
from gateway.indexer import Indexer
from gateway.launcher.processes import wait_until
from gateway.logbook import Logbook, Reader, pages
from record import associations, peers, status
from record.db import connect, transaction
from record.errors import CountersignError
from record.ids import new_id
from record.models import Association
from record.store import Store
from tests.instances import CT, EXPLICIT, instance, saved
from tests.listeners import associate, listening, raw_connection, store_raw
from tests.pdus import asking, context, part, talk


@pytest.fixture
def engine(database):
    made = connect(database.url)
    yield made
    made.dispose()


def countersign(database, *arguments):
    done = CliRunner(env={"DATABASE_URL": database.url, "COUNTERSIGN_STORE": "/tmp"}).invoke(cli.cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def indexed(engine, root, store, *, within_s=10):
    """Everything that waits becomes rows; the logbook's lines among it."""
    indexer = Indexer(engine, Store(store), root)
    indexer.run_once()
    indexer.run_once()
    indexer.release()
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM associations")).scalar_one()


def test_every_association_leaves_a_record_and_says_what_to_do(tmp_path, engine, database):
    with transaction(engine) as session:
        peer = peers.add_peer(session, site=None, ae_title="FRIEND", address="127.0.0.1")
        peer_id, site_id = peer.id, peer.site_id
    path = saved(tmp_path, instance(side=64))
    with listening(tmp_path / "spool", open_peers=0) as listener:
        indexed(engine, listener.root, tmp_path / "store")  # writes the snapshot; from now on no database is needed
        assert listener.send(path, calling_aet="FRIEND") == {path: 0}
        assert listener.send(path, calling_aet="STRANGER") == {path: None}
        association = associate(listener, calling="FRIEND", contexts=((CT, EXPLICIT), ("1.2.3.4.5", EXPLICIT)))
        assert store_raw(association, b"rubbish") == 0xC000
        association.abort()
        raw_connection(listener).close()  # who only knocks
        with raw_connection(listener) as web:
            web.sendall(b"GET / HTTP/1.1\r\n\r\n")
            web.recv(100)
        assert listener.answers(), "our own question leaves nothing"
        assert wait_until(lambda: sum(map(len, _lines(listener))) == 4, within_s=5)
        assert indexed(engine, listener.root, tmp_path / "store") == 4
        assert indexed(engine, listener.root, tmp_path / "store") == 4, "a line that is read again is no other"
    found = {one["calling_ae_title"] + one["outcome"]: one for one in json.loads(countersign(database, *_LIST))}
    assert set(found) == {"FRIENDreleased", "FRIENDaborted", "STRANGERrejected", "aborted"}
    assert found["FRIENDreleased"]["instances"] == 1
    assert found["FRIENDaborted"]["refusals"] == {"C000": 1}
    assert found["FRIENDaborted"]["requests"] == {"C-STORE": 1}
    add = "Let the sender in with `countersign peers add STRANGER 127.0.0.1`."
    assert found["STRANGERrejected"]["remedies"] == [add]
    assert found["aborted"]["how"] == "aborted: it speaks HTTP"
    with transaction(engine) as session:
        sent = session.get_one(Association, found["FRIENDreleased"]["id"])
        assert (sent.peer_id, sent.site_id) == (peer_id, site_id)
        (came_by,) = session.scalars(text("SELECT association_id FROM instances"))
        assert came_by == sent.id, "an instance knows by which association it came"
    assert len(json.loads(countersign(database, *_LIST, "--troubled"))) == 3
    assert len(json.loads(countersign(database, *_LIST, "--from", "FRIEND", "--hours", "1"))) == 2
    shown = countersign(database, "associations", "show", found["FRIENDaborted"]["id"][:13])
    assert "not taken: 1.2.3.4.5" in shown
    assert "COUNTERSIGN_PRIVATE_SOP_CLASSES" in shown
    assert "taken in Explicit VR Little Endian:\n    CT Image Storage\n" in shown
    assert "refused with 0xC000" in shown
    assert "what to do:\n    Look at what was kept aside, with `countersign quarantine list`" in shown
    listed = countersign(database, "associations", "list")
    assert (
        f"1 class that it offered is not taken: `countersign associations show {found['FRIENDaborted']['id'][:13]}`"
        in (" ".join(listed.split()))
    )
    with transaction(engine) as session:
        assert "senders_refused" in {one.code for one in status.read(session).alarms}
    assert add in " ".join(listed.split())
    assert max(map(len, listed.splitlines())) <= 80


_LIST = ("associations", "list", "--json")


def _line(key, began=None, peer_id=None):
    """A line of a logbook, of a release that told no more."""
    began = began or datetime.now(UTC)
    return {
        "id": key,
        "listener": "here/00",
        "calling_ae_title": "PACS",
        "called_ae_title": "COUNTERSIGN",
        "peer_address": "10.0.0.9",
        "peer_id": peer_id,
        "is_secure": False,
        "offers": [],
        "instances": 1,
        "bytes": 1,
        "refusals": {},
        "outcome": "released",
        "reason_code": "",
        "began_at": began.isoformat(),
        "ended_at": (began + timedelta(seconds=5)).isoformat(),
    }


def _lines(listener):
    return [page.read_bytes().splitlines() for page in pages(listener.root / "00")]


def test_what_came_to_nothing_says_why_and_what_helps(tmp_path, engine, database):
    with transaction(engine) as session:
        peers.add_peer(session, site=None, ae_title="FRIEND", address="127.0.0.1")
    with listening(tmp_path / "spool", open_peers=0) as listener:
        indexed(engine, listener.root, tmp_path / "store")
        private, deflated = "1.2.3.4.5", "1.2.840.10008.1.2.1.99"
        associate(listener, calling="FRIEND", contexts=((private, EXPLICIT), (CT, deflated))).release()
        with raw_connection(listener) as secret:
            secret.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100))
            secret.recv(100)
        twice = asking(part(0x10, b"1.2.840.10008.3.1.1.1"), context(1, CT, EXPLICIT), context(1, private, EXPLICIT))
        talk(listener.port, [twice])
        assert wait_until(lambda: sum(map(len, _lines(listener))) == 3, within_s=5)
        assert indexed(engine, listener.root, tmp_path / "store") == 3
    troubled = json.loads(countersign(database, *_LIST, "--troubled"))
    assert {one["reason_code"] for one in troubled} == {"nothing_taken", "speaks_tls", "malformed_request"}
    by_code = {one["reason_code"]: one for one in troubled}
    assert "COUNTERSIGN_DICOM_TLS_PORT" in by_code["speaks_tls"]["remedies"][0]
    shown = countersign(database, "associations", "show", by_code["nothing_taken"]["id"])
    assert ": nothing that it offered is taken\n" in shown
    assert f"not taken: {private} (Explicit VR Little Endian)\n    no class that is taken" in shown
    assert "its transfer syntaxes (deflated) are not taken" in shown
    assert "associations show" not in shown, "it is here already"
    listed = " ".join(countersign(database, "associations", "list").split())
    assert f"`countersign associations show {by_code['nothing_taken']['id'][:13]}`" in listed


def test_a_stranger_s_title_cannot_become_a_command(tmp_path, engine, database):
    with listening(tmp_path / "spool", open_peers=0) as listener:
        refused = associate(listener, calling="X; rm -rf ~", called="$(id)")
        assert refused.is_rejected
        assert associate(listener, calling="X; rm -rf ~").is_rejected
        assert wait_until(lambda: sum(map(len, _lines(listener))) == 2, within_s=5)
        indexed(engine, listener.root, tmp_path / "store")
    unknown, called = json.loads(countersign(database, *_LIST))
    assert unknown["remedies"] == ["Let the sender in with `countersign peers add 'X; rm -rf ~' 127.0.0.1`."]
    assert called["how"] == "rejected: it calls us '$(id)'"


def test_an_association_is_named_by_how_its_id_begins(session):
    ids = [f"0199aaaa00000000000000000000000{n}" for n in range(2)]
    associations.note(session, [_line(each) for each in ids])
    assert associations.find(session, ids[1])[0].id.hex == ids[1]
    for named, why in (("0199AAAA-0000", "Several"), ("0199bbbb", "no such"), ("01", "six"), ("x" * 32, "six")):
        with pytest.raises(CountersignError, match=why):
            associations.find(session, named)


def test_a_peer_has_no_more_associations_than_it_may_in_all_processes_together(tmp_path):
    with listening(tmp_path / "spool", open_peers=0, receivers=2) as listener:
        few = KnownPeer("FEW", "127.0.0.1", "main", "1" * 32, max_associations=2)
        write_peers(listener.root, [few, KnownPeer("MANY", "127.0.0.1", "main", "2" * 32)])
        held = [associate(listener, calling="FEW") for _ in range(2)]
        assert all(one.is_established for one in held)
        refused = associate(listener, calling="FEW")
        assert refused.is_rejected
        assert associate(listener, calling="MANY").is_established, "that is nobody else's limit"
        held[0].release()
        assert wait_until(lambda: associate(listener, calling="FEW").is_established, within_s=5)


def test_a_private_class_is_taken_where_it_is_configured(tmp_path):
    private = "1.3.12.2.1107.5.9.1"
    ds = instance(side=16)
    ds.SOPClassUID = private
    path = saved(tmp_path, ds)
    with listening(tmp_path / "without") as listener:
        assert listener.send(path) == {path: None}
    with listening(tmp_path / "with", private_sop_classes=f" {private},1.2.3.4") as listener:
        assert listener.send(path) == {path: 0}


def test_a_logbook_stays_within_bounds_and_what_is_torn_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(logbook, "_FILE_BYTES", 1000)
    monkeypatch.setattr(logbook, "_MOST_FILES", 3)
    book, reader = Logbook(tmp_path), Reader(tmp_path)
    for number in range(100):
        book.write({"number": number, "more": "x" * 80})
    assert len(pages(tmp_path)) == 3, "the oldest went"
    with pages(tmp_path)[-1].open("ab") as page:
        page.write(b'[1]\nnot json\n{"number": 100')  # as a full disk leaves it
    lines, seen = reader.read()
    assert [line["number"] for line in lines][-1] == 99
    again, _ = reader.read()
    assert again == lines, "until they are kept, they are read again"
    reader.done(seen)
    assert len(pages(tmp_path)) == 1, "what was read goes, but for the page that is written on"
    book.write({"number": 101})
    assert [line["number"] for line in reader.read()[0]] == [] or reader.read()[0][-1]["number"] == 101
    book.close()


def test_a_sender_that_is_silent_past_its_habit_is_missed(engine, database):
    def came(days_ago, peer_id):
        return _line(new_id().hex, datetime.now(UTC) - timedelta(days=days_ago), peer_id)

    with transaction(engine) as session:
        peer_id = peers.add_peer(session, site=None, ae_title="PACS", address="10.0.0.9").id.hex
    with transaction(engine) as session:
        associations.note(session, [came(0.05 + 0.1 * n, peer_id) for n in range(20)])
    with transaction(engine) as session:
        found = status.read(session)
        (sender,) = found.senders
        assert sender.usual_s is None, "too little is known of it"
        associations.note(session, [came(4.0, peer_id)])
    with transaction(engine) as session:
        (sender,) = status.read(session).senders
        assert 2.3 * 3600 < sender.usual_s < 2.5 * 3600
        assert "peer_silent" not in {one.code for one in status.read(session).alarms}
        session.execute(text("UPDATE associations SET ended_at = ended_at - interval '6 hours'"))
    with transaction(engine) as session:
        (alarm,) = [one for one in status.read(session).alarms if one.code == "peer_silent"]
        assert alarm.values["peer"] == "PACS"
        assert alarm.command == "countersign associations list --from PACS"
