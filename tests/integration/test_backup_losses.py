"""A run that lost files, or holds others than were received: its backups say so, and the former ones stay good."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.backup.shelf import Shelf
from gateway.launcher.folder import DataFolder
from record.db import transaction
from record.models import Instance, Reading, ReadingPicture
from record.store import Kind
from tests.instances import instance
from tests.keeping import Keeping, MakeRun, whole

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def with_picture(run: Keeping) -> None:
    """A reading's picture, in the store and on record."""
    content = b"picture"
    sha256 = hashlib.sha256(content).hexdigest()
    run.store.put(Kind.PICTURE, sha256, content)
    with transaction(run.engine) as session:
        session.add(
            ReadingPicture(
                reading_id=session.scalars(select(Reading.id)).one(),
                instance_id=session.scalars(select(Instance.id)).one(),
                position=0, frame=0, sha256=sha256, height=1, width=1, rendering={},
            )
        )  # fmt: skip


@pytest.mark.parametrize("damage", [emptied, swapped, unreadable, Path.unlink])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_copy_that_a_backup_needs_outlives_the_runs_own(
    run: Keeping, make: MakeRun, tmp_path: Path, kind: Kind, damage: Callable[[Path], None]
) -> None:
    shelf = tmp_path / "shelf"
    with_picture(run)
    key, *_ = run.store.list(kind)
    with run.store.local(kind, key) as path:
        content = path.read_bytes()
    assert run.command("backup", "--to", shelf)[0] == 0
    damage(path)
    code, told = run.command("backup", "--to", shelf, "--keep", "1")
    assert code == 1
    assert "of which the record speaks are not in the store" in told or f"{kind}/{key}: the run's own file" in told
    assert "no older backup was removed" in told
    assert len(whole(shelf)) == 2
    for number, backup in enumerate(whole(shelf)):
        fresh = make(f"fresh{number}")
        code, told = fresh.command("restore", "--from", backup)
        assert code == 0, told
        with fresh.store.local(kind, key) as restored:
            assert restored.read_bytes() == content


def test_a_damaged_copy_on_the_shelf_is_replaced_by_one_that_its_row_vouches_for(
    run: Keeping, make: MakeRun, tmp_path: Path
) -> None:
    (key,) = run.stored()
    assert run.command("backup", "--to", tmp_path / "shelf")[0] == 0
    with Shelf(tmp_path / "shelf").store().local(Kind.INSTANCE, key) as path:
        emptied(path)
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "was damaged and is copied anew" in told) == (0, True)
    for number, backup in enumerate(whole(tmp_path / "shelf")):
        assert make(f"fresh{number}").command("restore", "--from", backup)[0] == 0


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (emptied, "instances/{bad}: it is not what was received"),
        (unreadable, "instances/{bad}: it cannot be read"),
        (swapped, "1 files of which the record speaks are not in the store"),
    ],
)
def test_a_file_that_was_bad_from_the_first_holds_up_no_other_and_is_named(
    run: Keeping, make: MakeRun, tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    (fine,) = run.stored()
    (bad,) = run.receive()
    run.index()
    with run.store.local(Kind.INSTANCE, bad) as path:
        damage(path)
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, named.format(bad=bad) in told) == (1, True), told
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "the run is not what it was" in told) == (1, True), "and it is not forgotten"
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 1
    assert "restored into the servers" in told
    assert f"instance {bad[:8]}" in told
    assert fresh.count("signatures") == 1
    assert fine in fresh.stored()


def test_a_store_that_is_not_there_costs_no_backup(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    kept = run.stored()
    for _ in range(2):
        assert run.command("backup", "--to", shelf)[0] == 0
    (run.folder / "store").rename(run.folder / "store.away")
    for count in (3, 4):
        code, told = run.command("backup", "--to", shelf, "--keep", "2")
        assert code == 1
        assert "not in the store, or cannot be read there, but former backups have them" in told
        assert len(whole(shelf)) == count
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", shelf)  # the newest one lists what only the shelf has
    assert code == 0, told
    assert fresh.stored() == kept


def test_backups_that_hold_far_more_than_the_newest_are_not_removed(
    run: Keeping, make: MakeRun, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    run.receive(*(instance() for _ in range(4)))
    run.index()
    run.command("backup", "--to", shelf)
    (larger,) = whole(shelf)
    small = make("small")
    small.make_key()
    small.receive()
    small.index()
    code, told = small.command("backup", "--to", shelf, "--keep", "1")
    assert (code, f"Nothing was removed: {larger} holds" in told) == (1, True)
    assert larger in whole(shelf)
    assert make("fresh").command("restore", "--from", larger)[0] == 0


def test_what_is_none_of_ours_stops_neither_backup_nor_repair_and_is_named(run: Keeping, tmp_path: Path) -> None:
    stray = run.folder / "store" / "instances" / "junk.dcm"
    stray.touch()
    (run.folder / "spool" / "00" / "quarantine" / "odd.dcm").mkdir()
    assert run.command("backup", "--to", tmp_path / "shelf")[0] == 0
    for arguments in (["verify"], ["verify", "--after-restore", "--repair"]):
        code, told = run.command(*arguments)
        assert (code, f"store {stray}: it is none of the store's files" in told) == (1, True)
    assert run.waiting() == []


def test_what_the_closing_check_says_does_not_undo_a_restore(run: Keeping, tmp_path: Path) -> None:
    (run.secrets / "seal.key").write_text("no key")
    run.command("backup", "--to", tmp_path / "shelf")
    place = Path(tempfile.mkdtemp(prefix="countersign-restored-"))
    try:
        place.chmod(0o711)
        code, told = run.command("restore", "--from", tmp_path / "shelf", "--data-dir", place / "data")
        assert (code, "holds no usable seal.key" in told) == (1, True)
        assert "go on with: countersign up" in told
        folder = DataFolder(place / "data")
        folder.require_whole(folder.read_state())
    finally:
        shutil.rmtree(place)
