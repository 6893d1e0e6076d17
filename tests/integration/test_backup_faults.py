"""Backups that are damaged, interrupted or have no room, and what is refused: no half of one passes for a whole one."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backup import restoring
from gateway.backup.shelf import Shelf, find
from record.errors import Misconfigured
from record.store import Kind
from tests.instances import instance
from tests.keeping import Keeping, MakeRun, files_below, kill_at, rows_of, whole

pytestmark = [pytest.mark.integration, pytest.mark.slow]


# --- what is damaged ------------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [spoil, Path.unlink])
def test_a_damaged_instance_of_the_backup_is_named_and_the_rest_restored(
    run: Keeping, make: MakeRun, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run.receive()
    run.index()
    run.command("backup", "--to", tmp_path / "shelf")
    victim, fine = run.stored()
    with Shelf(tmp_path / "shelf").store().local(Kind.INSTANCE, victim) as path:
        damage(path)
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 1
    assert f"damaged or gone, so it was left out: store/instances/{victim}" in told
    assert "its file is missing from the store" in told
    assert fresh.stored() == [fine]
    assert fresh.count("signatures") == 1


@pytest.mark.parametrize("name", ["database/studies.copy.gz", "secrets/seal.key", "files.sha256", "heads.log"])
@pytest.mark.parametrize("damage", [spoil, Path.unlink])
def test_a_backup_that_is_damaged_where_it_counts_is_refused_before_anything_is_touched(
    run: Keeping, make: MakeRun, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    damage(backup / name)
    fresh = make("fresh")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 1
    assert str(backup / name) in told
    assert fresh.count("studies") == 0
    assert [path for path in files_below(fresh.folder) if path.name != "seal.key"] == []


def test_a_manifest_that_cannot_be_read_is_a_sentence(run: Keeping, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    (backup / "manifest.json").write_text('{"format": 1}')
    code, told = run.command("restore", "--from", backup)
    assert (code, "no backup's manifest" in told) == (1, True)


@pytest.mark.parametrize("name", ["manifest.json", "files.sha256"])
def test_a_damaged_backup_does_not_stand_in_the_way_of_the_next(
    run: Keeping, make: MakeRun, tmp_path: Path, name: str
) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (former,) = whole(tmp_path / "shelf")
    (former / name).write_text("?")
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert code == 0, told
    assert make("fresh").command("restore", "--from", tmp_path / "shelf")[0] == 0
    code, told = run.command("backup", "--to", tmp_path / "shelf", "--keep", "2")
    assert (code, str(former / name) in told) == ((1, True) if name == "manifest.json" else (0, False))


def test_a_backup_of_a_later_release_is_refused(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    told = json.loads((backup / "manifest.json").read_text())
    told["database"]["revision"] = "0999"
    (backup / "manifest.json").write_text(json.dumps(told))
    code, said = make("fresh").command("restore", "--from", backup)
    assert code == 1
    assert "written by a later release" in said
    with pytest.raises(Misconfigured, match="later release"):
        restoring.check(find(backup))


# --- what interrupts ------------------------------------------------------------------------------------------------


@pytest.mark.kill
@pytest.mark.parametrize("words", ["the database", "the database:", "the store:"])
def test_a_killed_backup_is_known_as_none_and_the_next_one_goes_on(
    run: Keeping, make: MakeRun, tmp_path: Path, words: str
) -> None:
    shelf = tmp_path / "shelf"
    assert run.command("backup", "--to", shelf)[0] == 0
    former = whole(shelf)
    run.receive()
    run.index()
    killed = kill_at(run.process("backup", "--to", shelf), words)
    if killed and whole(shelf) == former:
        (left,) = set(Shelf(shelf).unfinished())
        code, told = make("none").command("restore", "--from", left)
        assert (code, "interrupted" in told) == (1, True)
        assert find(shelf).folder == former[0], "the newest whole one counts"
    code, told = run.command("backup", "--to", shelf)
    assert code == 0, told
    assert Shelf(shelf).unfinished() == []
    assert list(shelf.rglob(".put-*")) == []
    fresh = make("fresh")
    assert fresh.command("restore", "--from", shelf)[0] == 0
    assert fresh.stored() == run.stored()


@pytest.mark.kill
def test_a_killed_restore_leaves_no_half_record_and_is_repeated(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    fresh = make("fresh")
    for words in ("the store:", "the database:"):
        kill_at(fresh.process("restore", "--from", tmp_path / "shelf"), words)
        if fresh.count("events"):
            break  # it was too late: everything is there
    else:
        assert fresh.command("restore", "--from", tmp_path / "shelf")[0] == 0
    assert rows_of(fresh) == rows_of(run)
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert (code, "holds a record already" in told) == (1, True)


@pytest.mark.parametrize("limit_blocks", [1, 8, 40])
def test_a_full_disk_ends_a_backup_with_a_sentence(run: Keeping, tmp_path: Path, limit_blocks: int) -> None:
    shelf = tmp_path / "shelf"
    assert run.command("backup", "--to", shelf)[0] == 0
    former = whole(shelf)
    run.receive(instance(side=128))  # 32 KB
    run.index()
    process = run.process("backup", "--to", shelf, limit_blocks=limit_blocks)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The backup was not finished: File too large" in told
    assert "Traceback" not in told
    assert whole(shelf) == former
    assert run.command("backup", "--to", shelf)[0] == 0
    assert len(whole(shelf)) == 2


def test_a_full_disk_ends_a_restore_with_a_sentence(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    fresh = make("fresh")
    process = fresh.process("restore", "--from", tmp_path / "shelf", limit_blocks=2)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Not everything was put back: File too large" in told
    assert "Traceback" not in told
    assert fresh.count("studies") == 0
    assert fresh.command("restore", "--from", tmp_path / "shelf")[0] == 0


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_backup_goes_into_a_folder_of_its_own(run: Keeping, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    assert "holds other things (holiday.jpg" in run.command("backup", "--to", tmp_path / "photos")[1]
    assert "lies in what is to be backed up" in run.command("backup", "--to", run.folder / "store" / "backups")[1]
    (tmp_path / "file").touch()
    code, told = run.command("backup", "--to", tmp_path / "file" / "below")
    assert (code, "cannot be made" in told) == (1, True)


def test_two_backups_do_not_write_to_one_folder_at_once(run: Keeping, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    with (tmp_path / "shelf" / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "Another backup is being written" in told) == (1, True)


def test_a_sealed_record_is_not_backed_up_without_its_key(run: Keeping, tmp_path: Path) -> None:
    (run.secrets / "seal.key").unlink()
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "COUNTERSIGN_SECRETS" in told) == (1, True)
    assert not (tmp_path / "shelf").exists()


def test_a_record_is_never_restored_over_another(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    before = rows_of(run)
    code, told = run.command("restore", "--from", tmp_path / "shelf")
    assert (code, "holds a record already" in told) == (1, True)
    assert rows_of(run) == before
    code, told = run.command("restore", "--from", tmp_path / "shelf", "--data-dir", run.folder)
    assert (code, "is not empty" in told) == (1, True)
    code, told = run.command("restore", "--from", tmp_path / "nothing", "--data-dir", tmp_path / "new")
    assert (code, "holds no backup" in told) == (1, True)
    assert not (tmp_path / "new").exists()


def test_the_key_that_was_there_is_kept_aside(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    fresh = make("fresh")
    (fresh.secrets / "seal.key").write_text("cd" * 32)
    (fresh.secrets / "database-url").write_text("mine")
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert code == 0, told
    assert "is kept as seal.key.before-restore" in told
    assert (fresh.secrets / "seal.key.before-restore").read_text() == "cd" * 32
    assert (fresh.secrets / "database-url").read_text() == "mine"


def test_a_file_that_went_missing_from_the_store_is_told_at_once(run: Keeping, tmp_path: Path) -> None:
    shutil.rmtree(run.folder / "store" / "instances")
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert code == 1
    assert "1 files of which the record speaks are not in the store" in told


def test_without_the_owners_url_it_says_whose_is_needed(
    run: Keeping, make: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    fresh = make("fresh")
    monkeypatch.setattr(fresh, "database", replace(fresh.database, owner_url=fresh.database.url))
    code, told = fresh.command("restore", "--from", tmp_path / "shelf")
    assert (code, "COUNTERSIGN_OWNER_DATABASE_URL" in told) == (1, True)
    monkeypatch.undo()
    assert fresh.command("restore", "--from", tmp_path / "shelf")[0] == 0


def test_what_an_interrupted_backup_left_is_held_against_the_run(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    run.command("backup", "--to", shelf)
    (only,) = whole(shelf)
    (only / "manifest.json").unlink()
    (key,) = run.stored()
    with Shelf(shelf).store().local(Kind.INSTANCE, key) as path:
        spoil(path)
    assert run.command("backup", "--to", shelf)[0] == 0
    assert not only.exists()
    assert make("fresh").command("restore", "--from", shelf)[0] == 0
