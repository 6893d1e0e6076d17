"""Backup and restore on servers of one's own: what is kept, in which order, and what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from gateway import notices
from gateway.backup import taking
from gateway.backup.shelf import Shelf
from record import accounts, sessions
from record.db import transaction
from record.errors import NotAuthenticated
from record.states import Role
from record.store import Kind
from tests.instances import instance
from tests.keeping import Keeping, MakeRun, files_below, rows_of, whole

pytestmark = pytest.mark.integration


def test_everything_comes_back(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    with transaction(run.engine) as session:
        token = accounts.add_token(session, site=None, name="board", role=Role.DASHBOARD)
        lee = accounts.add_user(
            session, site=None, login="lee", printed_name="Lee", role=Role.ATTENDING, password="a" * 12
        )
        opened, cookie = sessions.open_session(session, lee, lasts_s=3600)
        kept = sessions.keep_search(session, opened.id, {"patient_name": "doe"})
    (waiting,) = run.receive()
    (run.spool / "00" / "quarantine" / f"{'0' * 32}.damaged.dcm").write_bytes(b"kept aside")
    notice = notices.keep(run.spool / "00", {"kind": "commitment"})
    run.seal()
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert code == 0, told
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 0, told
    assert "nothing is wrong" in told
    assert {table: len(rows) for table, rows in rows_of(run).items()}["signatures"] == 1
    assert rows_of(fresh) == rows_of(run)
    assert fresh.stored() == run.stored()
    assert fresh.heads.read_bytes() == run.heads.read_bytes()
    assert (fresh.secrets / "seal.key").read_bytes() == (run.secrets / "seal.key").read_bytes()
    assert fresh.waiting() == [waiting]
    assert (fresh.spool / "00" / "quarantine" / f"{'0' * 32}.damaged.dcm").read_bytes() == b"kept aside"
    assert [(name, said) for _, name, said in notices.waiting(fresh.spool / "00")] == [(notice, {"kind": "commitment"})]
    assert fresh.count("events", "kind = 'record_restored'") == 1
    with transaction(fresh.engine) as session:
        assert accounts.token_principal(session, token).role == Role.DASHBOARD
        assert accounts.check_password(session, "lee", "a" * 12).login == "lee"
        with pytest.raises(NotAuthenticated):
            sessions.session_principal(session, cookie, idle_s=3600)
        assert sessions.kept_search(session, opened.id, kept) == {}
    assert fresh.index() == 1
    fresh.seal()
    code, told = fresh.command("verify")
    assert (code, told.endswith("\nnothing is wrong\n")) == (0, True), told


def test_an_image_that_is_indexed_while_a_backup_is_taken_is_in_it(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    (late,) = run.receive()

    def index_in_between(line: str) -> None:
        if line.startswith("the database: "):  # the snapshot is over, the spools are not looked at yet
            assert run.index() == 1

    taking.take(run.engine, run.places, Shelf(tmp_path / "shelf"), tell=index_in_between)
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 0, told
    assert "1 instances came while the backup was taken" in told
    assert fresh.count("instances") == 1
    assert fresh.waiting() == [late]
    assert fresh.index() == 1
    assert fresh.command("verify")[0] == 0
    assert fresh.stored() == run.stored()


@pytest.mark.slow
def test_an_image_that_comes_while_a_backup_is_taken_does_no_harm(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    def come(_line: str) -> None:
        run.receive()
        run.index()
        run.seal()

    taking.take(run.engine, run.places, Shelf(tmp_path / "shelf"), tell=come)
    fresh = make("fresh")
    assert fresh.command("restore", "--from", tmp_path / "shelf")[0] == 0
    fresh.index()
    assert fresh.count("instances") >= 2
    assert fresh.command("verify")[0] == 0


def test_a_second_backup_copies_only_what_is_new(run: Keeping, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    run.command("backup", "--to", shelf)
    before = {path: path.stat().st_ino for path in files_below(shelf / "store")}
    run.receive()
    run.index()
    code, told = run.command("backup", "--to", shelf)
    assert code == 0
    assert "the store: 2 files, 1 of them new" in told
    after = {path: path.stat().st_ino for path in files_below(shelf / "store")}
    assert before.items() < after.items()
    code, told = run.command("backup", "--to", shelf, "--keep", "1")
    assert "2 older backups were removed, and 0 stored files" in told
    assert len(whole(shelf)) == 1


@pytest.mark.slow
def test_a_removed_backup_takes_along_what_no_other_needs(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (key,) = run.stored()
    other = make("other")
    other.make_key()
    other.receive()
    other.index()
    run.command("backup", "--to", shelf)
    assert (
        "1 older backups were removed, and 1 stored files" in other.command("backup", "--to", shelf, "--keep", "1")[1]
    )
    assert key not in set(Shelf(shelf).store().list(Kind.INSTANCE))
    assert make("fresh").command("restore", "--from", shelf)[0] == 0


@pytest.mark.slow
def test_rows_may_lie_in_another_order_than_before(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    """A table with gaps is filled in another order when it is loaded, since the server puts a row where it fits."""
    with transaction(run.engine) as session:
        session.execute(
            text(
                "INSERT INTO parts (owner, kind, host, version, facts) SELECT n::text, 'x', 'x', 'x',"
                " jsonb_build_object('x', (SELECT string_agg(md5((n * 100 + m)::text), '')"
                " FROM generate_series(0, n * 7919 % 58) m)) FROM generate_series(1, 6000) n"
            )
        )
        session.execute(text("DELETE FROM parts WHERE owner::int * 7907 % 5 IN (1, 3)"))
    run.command("backup", "--to", tmp_path / "shelf")
    code, told = make("fresh").command("restore", "--from", tmp_path / "shelf")
    assert code == 0, told


def test_what_survived_beside_a_lost_database_is_taken_up_again(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    run.receive(instance(), instance())
    run.index()
    run.signed()
    lost = run.seal()
    anew = Keeping(make("anew").database, run.folder)
    try:
        code, told = anew.command("restore", "--from", tmp_path / "shelf")
        assert code == 0, told
        assert "later events, up to" in told
        assert "3 instances came while the backup was taken" in told
        assert anew.index() == 3
        assert anew.count("instances") == 4
        code, told = anew.command("verify")
        assert code == 1
        assert f"but a head of {lost} was kept outside the database" in told
        assert anew.command("verify", "--after-restore")[0] == 0
        code, told = anew.command("verify", "--after-restore", "--repair")
        assert code == 0
        assert "now says that the record was restored" in told
        anew.seal()
        code, told = anew.command("verify")
        assert code == 0, told
        assert "are lost" in told  # and it stays to be seen
    finally:
        anew.engine.dispose()


@pytest.mark.slow
def test_verify_after_a_restore_names_what_no_restore_explains(run: Keeping) -> None:
    (key,) = run.stored()
    with run.store.local(Kind.INSTANCE, key) as path:
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    code, told = run.command("verify", "--after-restore")
    assert code == 1
    assert "its bytes were changed" in told


@pytest.mark.slow
def test_stored_files_without_a_row_get_one(run: Keeping) -> None:
    (spooled,) = run.receive()
    run.store.put(Kind.INSTANCE, spooled, run.spool / "00" / "ready" / f"{spooled}.dcm")
    (run.spool / "00" / "ready" / f"{spooled}.dcm").unlink()
    code, told = run.command("verify")
    assert (code, "a stored file has no row and lies in no spool" in told) == (1, True)
    code, told = run.command("verify", "--after-restore", "--repair")
    assert code == 0, told
    assert "1 stored files without a row were put back" in told
    assert run.index() == 1
    assert run.command("verify")[0] == 0
    assert "0 stored files" in run.command("verify", "--after-restore", "--repair")[1]
