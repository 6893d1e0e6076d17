"""What `verify` makes of rows and files that cannot even be read, and of a line that works on meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from sqlalchemy import create_engine, event, select, text

from record import admission, conflicts, verification
from record.db import parse_url, transaction
from record.models import Study
from record.part10 import data_set_offset, meta_uids
from record.states import Role
from record.store import Kind, Store
from tests.conftest import RunningServers
from tests.keeping import KEY, Keeping
from tests.records import arrival, person

pytestmark = pytest.mark.integration


def tamper(servers: RunningServers, run: Keeping, statement: str) -> None:
    """As a superuser, who switches the triggers off."""
    admin = create_engine(parse_url(servers.admin_url.rpartition("/")[0] + "/" + run.database.url.rpartition("/")[2]))
    with admin.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement))
    admin.dispose()


def faults(run: Keeping, store: Store | None = None) -> list[str]:
    key = bytes.fromhex(KEY)
    return [
        str(fault)
        for fault in verification.verify(
            run.engine, store or run.store, key, heads_file=run.heads, spool=run.spool, after_restore=False
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tampering", "named"),
    [
        ("UPDATE events SET facts = facts - 'body_sha256' WHERE kind = 'draft_written'", "draft "),
        ("UPDATE events SET facts = facts - 'provenance_sha256' WHERE kind = 'draft_written'", "draft "),
        ("UPDATE events SET facts = facts - 'steps' WHERE kind = 'draft_written'", "draft "),
        ("UPDATE events SET facts = facts - 'draft_id' WHERE kind = 'draft_written'", "draft "),
        ("UPDATE events SET facts = facts || '{\"revision\": \"one\"}' WHERE kind = 'report_opened'", "report "),
        ("UPDATE events SET facts = facts - 'signature_id' WHERE kind = 'report_signed'", "signature "),
        ("UPDATE events SET facts = facts - 'body_sha256' WHERE kind = 'report_signed'", "signature "),
        ("UPDATE events SET facts = facts - 'signature_sha256' WHERE kind = 'report_signed'", "signature "),
        ("UPDATE events SET facts = '[]'", "signature "),
        ("UPDATE events SET facts = '7'", "draft "),
        ("UPDATE seals SET hash = 'ö'", "seal "),
    ],
)
def test_a_row_that_lost_what_it_is_held_against_is_a_fault_and_the_walk_goes_on(
    run: Keeping, servers: RunningServers, tampering: str, named: str
) -> None:
    (key,) = run.stored()
    run.store.delete(Kind.INSTANCE, key)
    tamper(servers, run, tampering)
    found = faults(run)
    assert any(fault.startswith(named) for fault in found), found
    assert found[-1].endswith("its file is missing from the store"), "what comes last is reached"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tampering", "named"),
    [
        ("UPDATE conflict_decisions SET reason = 'something else'", "its reason was changed"),
        ("UPDATE conflict_decisions SET kept = NOT kept", "its event names another decision"),
        ("UPDATE conflict_decisions SET reason_sha256 = '00'", "its event names another decision"),
        ("DELETE FROM conflict_decisions", "it is gone"),
    ],
)
def test_a_decision_that_somebody_changed_is_named(
    run: Keeping, servers: RunningServers, tampering: str, named: str
) -> None:
    with transaction(run.engine) as session:
        study = session.scalars(select(Study)).one()
        admission.admit(session, [arrival(study.study_instance_uid, patient_id="P2")])
        (side,) = conflicts.undecided(session, study.id)
        doctor = person(session, Role.ATTENDING)
        conflicts.decide(session, side.id, keep=False, by=doctor, reason="another patient's")
    before = [fault for fault in faults(run) if fault.startswith("decision")]
    tamper(servers, run, tampering)
    after = [fault for fault in faults(run) if fault.startswith("decision")]
    assert (before, len(after)) == ([], 1)
    assert named in after[0]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, folder])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_looked_at(
    run: Keeping, damage: Callable[[Path], None]
) -> None:
    run.receive()
    run.index()
    first, last = run.stored()
    with run.store.local(Kind.INSTANCE, first) as path:
        damage(path)
    run.store.delete(Kind.INSTANCE, last)
    code, told = run.command("verify")
    assert code == 1
    assert [line.partition("-")[0] for line in told.splitlines() if line.startswith("instance")] == [
        f"instance {key[:8]}" for key in (first, last)
    ]


@pytest.mark.slow
def test_heads_that_cannot_be_read_are_named_and_the_seals_are_walked(run: Keeping, servers: RunningServers) -> None:
    run.heads.unlink()
    run.heads.mkdir()
    tamper(servers, run, "UPDATE events SET kind = 'nothing' WHERE kind = 'report_signed'")
    found = faults(run)
    assert found[0].startswith("seal heads")
    assert any(fault.startswith("seal ") and "was changed" in fault for fault in found)


def test_a_store_that_cannot_be_entered_is_a_sentence(run: Keeping) -> None:
    (run.folder / "store").rename(run.folder / "away")
    (run.folder / "store").touch()
    code, told = run.command("verify")
    assert (code, "cannot be used (Not a directory)" in told) == (1, True)


class Working(Store):
    """A store on a line that works: whenever a file is read, something happens."""

    def __init__(self, root: Path, happens: Callable[[], Any]) -> None:
        super().__init__(root)
        self._happens = happens

    def open(self, kind: Kind, key: str) -> BinaryIO:
        stored = super().open(kind, key)
        self._happens()
        return stored


def test_what_arrives_while_files_are_hashed_is_no_fault(run: Keeping) -> None:
    arriving = [run.receive, run.index, run.receive]

    def come() -> None:
        while arriving:
            arriving.pop()()

    assert faults(run, Working(run.folder / "store", come)) == []
    assert run.count("instances") == 2


def test_what_is_erased_while_files_are_hashed_is_no_fault(run: Keeping) -> None:
    run.receive()
    run.index()
    _, last = run.stored()

    def erase() -> None:
        with run.engine.begin() as connection:
            statement = text("UPDATE instances SET erased_at = now() WHERE id = CAST(:id AS uuid)")
            connection.execute(statement, {"id": last})
        run.store.delete(Kind.INSTANCE, last)

    assert faults(run, Working(run.folder / "store", erase)) == []


def test_what_is_signed_between_two_queries_is_no_fault(run: Keeping) -> None:
    left = ["report_revisions", "signatures"]

    @event.listens_for(run.engine, "before_cursor_execute")
    def sign_meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if left and f"FROM {left[0]}" in statement:
            left.pop(0)
            run.signed()

    assert faults(run) == []
    assert left == []
    assert run.count("signatures") == 3


# --- the file of heads ------------------------------------------------------------------------------------------------


def gone(path: Path) -> None:
    path.unlink()


def garbage(path: Path) -> None:
    path.write_text("some-host\n")


@pytest.mark.parametrize(
    ("damage", "told"), [(gone, "is missing"), (empty, "holds no head"), (garbage, "holds no head")]
)
def test_heads_that_are_gone_although_the_chain_is_older_than_their_interval_are_a_fault(
    run: Keeping, servers: RunningServers, damage: Callable[[Path], None], told: str
) -> None:
    damage(run.heads)
    assert faults(run) == [], "the first head of a chain that began just now may still be on its way"
    tamper(servers, run, "UPDATE seals SET created_at = now() - interval '2 minutes'")
    last = run.count("seals")
    assert faults(run) == [f"seal heads {run.heads}: the file of heads {told}, although there are seals up to {last}"]


def test_a_file_of_heads_that_is_named_and_not_there_is_a_mistake(run: Keeping) -> None:
    code, told = run.command("verify", "--heads", run.folder / "nosuch")
    assert (code, "nosuch' does not exist" in told) == (2, True)


def test_a_file_that_is_no_file_of_heads_is_a_fault(run: Keeping, servers: RunningServers, tmp_path: Path) -> None:
    tamper(servers, run, "UPDATE seals SET created_at = now() - interval '2 minutes'")
    (tmp_path / "hostname").write_text("some-host\n")
    code, told = run.command("verify", "--heads", tmp_path / "hostname")
    assert (code, "holds no head" in told, "nothing is wrong" in told) == (1, True, False)


# --- what a file says that it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SOP Class UID", "SOP Instance UID", "Transfer Syntax UID"])
def test_a_file_whose_meta_information_was_rewritten_is_named(run: Keeping, name: str) -> None:
    (key,) = run.stored()
    with run.store.local(Kind.INSTANCE, key) as path:
        stored = path.read_bytes()
        meta, data_set = stored[: data_set_offset(BytesIO(stored))], stored[data_set_offset(BytesIO(stored)) :]
        uids = dict(
            zip(("SOP Class UID", "SOP Instance UID", "Transfer Syntax UID"), meta_uids(BytesIO(stored)), strict=True)
        )
        former = uids[name].encode()
        at = meta.rindex(former)
        another = former[:-1] + (b"8" if former.endswith(b"9") else b"9")
        path.chmod(0o600)
        path.write_bytes(meta[:at] + another + meta[at + len(former) :] + data_set)
    assert faults(run) == [
        f"instance {uuid.UUID(key)}: the {name} in its file meta information is another than on record"
    ]


def test_how_much_was_looked_at_is_told(run: Keeping) -> None:
    code, told = run.command("verify")
    looked = f"looked at events up to position {run.count('seals')}, 1 report, 1 signature, 1 stored instance\n"
    assert (code, looked in told) == (0, True), told
