"""Backups that are damaged, interrupted or have no room, and what is refused: no half of one passes for a whole one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from gateway import cli
from gateway.backup import restoring
from gateway.backup.shelf import Shelf, find
from gateway.launcher.folder import DataFolder, State
from record.db import parse_url
from record.errors import Misconfigured
from record.store import Kind
from tests.instances import instance
from tests.keeping import Keeping, MakeRun, files_below, rows_of, whole

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"database": None},
        {"database": {"revision": "abc"}},
        {"database": {"tables": []}},
        {"database": {"tables": {"../../studies": {"columns": [], "rows": 0, "digest": ""}}}},
        {"database": {"database_bytes": "x"}},
        {"files": "many"},
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_sentence(run: Keeping, tmp_path: Path, wrong: dict[str, Any]) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    told = json.loads((backup / "manifest.json").read_text())
    for name, value in wrong.items():
        told[name] = told[name] | value if isinstance(value, dict) else value
    (backup / "manifest.json").write_text(json.dumps(told))
    code, said = run.command("restore", "--from", backup)
    assert (code, "no backup's manifest" in said) == (1, True)


@pytest.mark.parametrize(
    "path",
    [
        "STAMP/spool/00/{outside}/planted.dcm",
        "STAMP/spool/00/ready/../../../../planted.dcm",
        "STAMP/spool/../ready/planted.dcm",
        "STAMP/spool/00/incoming/planted.dcm",
        "STAMP/secrets/{outside}/planted.dcm",
        "STAMP/secrets/other.key",
        "STAMP/elsewhere/planted.dcm",
        "20200101T000000.000Z/heads.log",
        "store/junk/00/00/" + "0" * 32 + ".dcm",
        "store/instances/../../" + "0" * 32 + ".dcm",
        "/etc/planted.dcm",
    ],
)
def test_a_listing_that_leads_out_of_the_backup_is_refused_before_anything_is_written(
    run: Keeping, make: MakeRun, tmp_path: Path, path: str
) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    outside = tmp_path / "outside"
    outside.mkdir()
    path = path.replace("STAMP", backup.name).replace("{outside}", str(outside))
    source = tmp_path / "shelf" / path.lstrip("/")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"planted")
    listing = (backup / "files.sha256").read_bytes() + f"{hashlib.sha256(b'planted').hexdigest()}  {path}\n".encode()
    (backup / "files.sha256").write_bytes(listing)
    told = json.loads((backup / "manifest.json").read_text())
    told["listing_sha256"] = hashlib.sha256(listing).hexdigest()
    (backup / "manifest.json").write_text(json.dumps(told))
    fresh = make("fresh")
    code, said = fresh.command("restore", "--from", backup)
    assert (code, "names what cannot belong to it" in said) == (1, True), said
    assert list(outside.iterdir()) == []
    assert files_below(fresh.folder) == []
    with pytest.raises(Misconfigured):
        restoring.files(find(backup), fresh.places, tell=lambda _: None)
    assert list(outside.iterdir()) == []


def test_a_backup_that_was_renamed_is_refused(run: Keeping, make: MakeRun, tmp_path: Path) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    (backup,) = whole(tmp_path / "shelf")
    code, told = make("fresh").command("restore", "--from", backup.rename(tmp_path / "shelf" / "mine"))
    assert (code, "Was the folder renamed?" in told) == (1, True)


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


DIES = """
import os, signal, sys
from gateway import cli
from gateway.commands import data
words, say = sys.argv.pop(1), data.say
def say_or_die(line):
    if words in line:
        os.kill(os.getpid(), signal.SIGKILL)
    say(line)
data.say = say_or_die
cli.main()
"""


def killed_at(run: Keeping, words: str, *arguments: str | Path) -> None:
    """A command in a process of its own that dies of kill -9 where it would say this, and no later."""
    process = subprocess.run(
        [sys.executable, "-P", "-c", DIES, words, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", **run.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


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
    killed_at(run, words, "backup", "--to", shelf)
    assert whole(shelf) == former
    (left,) = Shelf(shelf).unfinished()
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
        killed_at(fresh, words, "restore", "--from", tmp_path / "shelf")
        assert fresh.count("events") == 0
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
    DataFolder(run.folder).prepare()
    DataFolder(run.folder).write_state(State(environment=run.environment, embedded=False))
    code, told = run.command("backup", "--to", run.folder / "backups", "--data-dir", run.folder)
    assert (code, "lies in what is to be backed up" in told) == (1, True)
    assert not (run.folder / "backups").exists()
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


def test_a_sealed_record_is_not_restored_without_a_place_for_its_key(
    run: Keeping, make: MakeRun, tmp_path: Path
) -> None:
    run.command("backup", "--to", tmp_path / "shelf")
    fresh = make("fresh")
    runner = CliRunner(env={**fresh.environment, "COUNTERSIGN_SECRETS": None})
    done = runner.invoke(cli.cli, ["restore", "--from", str(tmp_path / "shelf")])
    assert isinstance(done.exception, Misconfigured)
    assert "COUNTERSIGN_SECRETS" in done.exception.message
    assert fresh.count("events") == 0
    assert files_below(fresh.folder) == []


def test_a_schema_of_a_later_release_is_not_backed_up(run: Keeping, tmp_path: Path) -> None:
    owner = create_engine(parse_url(run.database.owner_url))
    with owner.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
        connection.execute(text("COMMENT ON TABLE alembic_version IS 'countersign: runs_from=0998'"))
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "was made by a later release" in told) == (1, True)
    assert not (tmp_path / "shelf").exists()
    with owner.begin() as connection:
        connection.execute(text("COMMENT ON TABLE alembic_version IS 'countersign: runs_from=0001'"))
    owner.dispose()
    code, told = run.command("backup", "--to", tmp_path / "shelf")
    assert (code, "only that release can put this backup back" in told) == (0, True)


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """As an account that owns nothing here."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_backup_that_may_not_be_read_is_a_sentence(run: Keeping, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    run.command("backup", "--to", shelf)
    (backup,) = whole(shelf)
    with somebody_else():
        for path in (shelf, backup):
            with pytest.raises(Misconfigured, match="cannot be read: Permission denied"):
                find(path)


def test_only_the_owner_can_read_a_backup(run: Keeping, tmp_path: Path) -> None:
    run.receive()
    umask = os.umask(0)
    try:
        run.command("backup", "--to", tmp_path / "shelf")
    finally:
        os.umask(umask)
    found = files_below(tmp_path / "shelf")
    assert {path.name: path.stat().st_mode & 0o077 for path in found if path.name != ".lock"} == dict.fromkeys(
        (path.name for path in found if path.name != ".lock"), 0
    )


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
