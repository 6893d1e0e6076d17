"""Events, seals, verify and erasure on a real PostgreSQL and a real store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gateway.spool import SopIdentity, Source, file_meta
from record import admission, audit, claims, reports, studies, verification
from record.admission import Arrival
from record.db import connect, transaction
from record.errors import LeaseLost
from record.states import Role
from record.store import Kind, Store
from tests.conftest import FreshDatabase, RunningServers
from tests.records import again, arrival, closed, count, drafted, person, proof, study_of, uid

KEY = b"k" * 32
FRAME = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def stored_arrival(store: Store) -> Arrival:
    """An arrival whose file lies in the store."""
    one = arrival(uid(), sha256=hashlib.sha256(b"data set").hexdigest())
    sop = SopIdentity(one.header.sop_class_uid, one.header.sop_instance_uid, one.header.transfer_syntax_uid)
    meta = file_meta(sop, Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", None))
    store.put(Kind.INSTANCE, one.instance_id.hex, bytes(128) + b"DICM" + meta + b"data set")
    return one


@pytest.fixture
def signed(engine: Engine, store: Store, tmp_path: Path) -> str:
    """A study with a stored file, a signed report and sealed events; returns its UID."""
    one = stored_arrival(store)
    with transaction(engine) as session:
        report = drafted(session, closed(session, [one]))
        doctor = person(session, Role.ATTENDING)
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    seal_all(engine, tmp_path)
    return one.header.study_instance_uid


def seal_all(engine: Engine, tmp_path: Path) -> None:
    while True:
        with transaction(engine) as session:
            last = audit.seal(session, KEY)
        if last is None:
            return
        audit.keep_head(tmp_path / "heads", last)


def faults(engine: Engine, store: Store, tmp_path: Path) -> list[str]:
    return [str(f) for f in verification.verify(engine, store, KEY, heads_file=tmp_path / "heads")]


@pytest.mark.usefixtures("signed")
def test_an_untouched_record_has_no_fault(engine: Engine, store: Store, tmp_path: Path) -> None:
    assert faults(engine, store, tmp_path) == []


@pytest.mark.usefixtures("signed")
def test_seals_have_no_gaps_and_cover_every_event(engine: Engine) -> None:
    with transaction(engine) as session:
        assert count(session, "seals") == count(session, "events") > 5
        assert count(session, "unsealed_events") == 0


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    ("tampering", "named"),
    [
        ("UPDATE report_revisions SET body = replace(body, 'left', 'right')", "report"),
        ("UPDATE drafts SET body = body || ' '", "draft"),
        ("UPDATE signatures SET body_sha256 = 'x'", "signature"),
        ("UPDATE events SET kind = 'nothing' WHERE kind = 'report_signed'", "seal"),
        ("DELETE FROM seals WHERE position = (SELECT max(position) FROM seals)", "head of"),
        ("DELETE FROM seals WHERE position = 2", "missing"),
        ("UPDATE instances SET sha256 = 'x'", "instance"),
    ],
)
def test_what_is_changed_behind_its_back_is_found(
    engine: Engine,
    store: Store,
    tmp_path: Path,
    servers: RunningServers,
    database: FreshDatabase,
    tampering: str,
    named: str,
) -> None:
    admin = connect(servers.admin_url.rpartition("/")[0] + "/" + database.url.rpartition("/")[2])
    with admin.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("SET session_replication_role = replica"))  # a superuser switches the triggers off
        connection.execute(text(tampering))
    admin.dispose()
    found = faults(engine, store, tmp_path)
    assert found
    assert any(named in fault for fault in found), found


def test_a_changed_or_missing_file_and_a_stray_one_are_named(
    engine: Engine, store: Store, tmp_path: Path, signed: str
) -> None:
    (key,) = store.list(Kind.INSTANCE)
    with store.local(Kind.INSTANCE, key) as path:
        os.chmod(path, 0o600)
        path.write_bytes(FRAME + b"data sex")
    assert any("bytes were changed" in f for f in faults(engine, store, tmp_path))
    store.delete(Kind.INSTANCE, key)
    assert any("missing from the store" in f for f in faults(engine, store, tmp_path))
    store.put(Kind.INSTANCE, "ab" * 16, FRAME)
    assert any("no row" in f for f in faults(engine, store, tmp_path))
    assert signed


def test_erasing_a_study_blanks_its_words_and_verify_accepts_the_tombstone(
    engine: Engine, store: Store, tmp_path: Path, signed: str
) -> None:
    with transaction(engine) as session:
        admission.admit(session, [stored_arrival(store)])
        study = study_of(session, signed)
        studies.erase(session, study.id, by=person(session, Role.ADMIN))
    seal_all(engine, tmp_path)
    with transaction(engine) as session:
        words = session.execute(
            text(
                "SELECT s.patient_name || s.patient_id || v.body || d.body || i.header::text FROM studies s"
                " JOIN reports r ON r.study_id = s.id JOIN report_revisions v ON v.report_id = r.id"
                " JOIN drafts d ON d.study_id = s.id JOIN instances i ON i.study_id = s.id"
                " WHERE s.study_instance_uid = :uid"
            ),
            {"uid": signed},
        ).scalar_one()
        assert words == "{}"
        assert count(session, "store_deletions") == 1
        assert count(session, "patients") == 1, "another study names the same patient"
    assert faults(engine, store, tmp_path) == []


def superuser(servers: RunningServers, database: FreshDatabase) -> Engine:
    return connect(servers.admin_url.rpartition("/")[0] + "/" + database.url.rpartition("/")[2])


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM signatures",
        "UPDATE signatures SET printed_name = 'Dr. Other'",
        "UPDATE signatures SET role = 'resident'",
        "UPDATE drafts SET body = '', erased_at = now()",
        "UPDATE report_revisions SET body = '', erased_at = now()",
        "UPDATE draft_steps SET completion = 'x', completion_sha256 = encode(sha256('x'), 'hex')",
        'UPDATE drafts SET provenance = \'{"model": "other"}\'',
        "DELETE FROM report_revisions WHERE number = 1",
        "DELETE FROM draft_steps",
    ],
)
def test_what_hashes_alone_would_not_show_is_found_by_the_events(
    engine: Engine, store: Store, tmp_path: Path, servers: RunningServers, database: FreshDatabase, tampering: str
) -> None:
    admin = superuser(servers, database)
    with admin.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(tampering))
    admin.dispose()
    assert faults(engine, store, tmp_path)


@pytest.mark.usefixtures("signed")
def test_a_draft_is_never_made_a_signed_report_by_a_program(engine: Engine) -> None:
    with transaction(engine) as session:
        report = drafted(session, closed(session, [arrival(uid())]))
        report_id = report.id
    with pytest.raises(DBAPIError), transaction(engine) as session:
        session.execute(
            text("UPDATE reports SET state = 'final', signed_revision = 1 WHERE id = :id"), {"id": report_id}
        )


def test_erasing_ends_what_is_under_way_and_takes_the_same_images_again(
    engine: Engine, store: Store, tmp_path: Path
) -> None:
    one = stored_arrival(store)
    with transaction(engine) as session:
        study = closed(session, [one])
        admin = person(session, Role.ADMIN)
        claim = claims.claim_prepare(session, "w", 30, max_prepared=64, model="phantom")
        studies.erase(session, study.id, by=admin)
    with pytest.raises(LeaseLost), transaction(engine) as session:
        claims.release(session, claim)
    with transaction(engine) as session:
        admitted = admission.admit(session, [again(one)])
        assert (admitted.new, admitted.duplicates) == (1, 0)
        study = study_of(session, one.header.study_instance_uid)
        assert (study.patient_id, study.erased_at) == ("P1", None)
        studies.freeze(session, study, "test", {})
        assert count(session, "revision_instances") == 2
        assert drafted(session, study) is not None
