"""A run of `countersign up` is backed up while it works and while it is down, and goes on somewhere else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.keeping import files_below, kill_at, whole
from tests.line import COMMAND, PASSWORD, Line, files_of, phantoms

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
UP = ("--open-peers", "--stable-after", "1", "--quiet")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that the servers' account can reach."""
    made = Path(tempfile.mkdtemp(prefix="countersign-backup-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def countersign(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("COUNTERSIGN_", "DATABASE_URL", "REDIS_URL"))
    }
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def told_by(*arguments: str | Path, status: int = 0) -> str:
    process = countersign(*arguments)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == status, told
    assert "Traceback" not in told
    return told


@contextlib.contextmanager
def up(folder: Path, token: str = "") -> Iterator[Line]:
    folder.mkdir(exist_ok=True, mode=0o711)
    line = Line(folder, *UP, token=token)
    try:
        yield line
    finally:
        line.close()


def sign(line: Line, report_id: str, revision: int) -> None:
    with httpx.Client(base_url=line.url, timeout=10) as doctor:
        opened = doctor.post("/api/v1/session", json={"login": "dr.lee", "password": PASSWORD})
        assert opened.status_code == 200, opened.text
        doctor.headers["X-CSRF-Token"] = opened.json()["csrf"]
        seen = doctor.get(f"/api/v1/reports/{report_id}").json()["text_revision"]
        asked = {"seen": seen, "shown": revision, "password": PASSWORD}
        signed = doctor.post(f"/api/v1/reports/{report_id}/sign", json=asked)
        assert signed.status_code == 200, signed.text


@dataclass(frozen=True)
class Kept:
    """A run that was backed up twice: while it worked, with an image in its spool, and while it was down."""

    folder: Path
    shelf: Path
    token: str
    read: list[str]
    spooled: str
    shown: dict[str, Any]


@pytest.fixture(scope="module")
def kept(place: Path) -> Kept:
    shelf = place / "shelf"
    *first, last = phantoms(place / "phantoms", "--count", "3")
    uids = [study["study_instance_uid"] for study in first]
    with up(place / "line") as line:
        line.command("users", "add", "dr.lee", "--role", "attending", "--name", "Dr. Ana Lee", stdin=PASSWORD + "\n")
        for study in first:
            assert line.send(files_of(study)).returncode == 0
        items = line.wait_until_ended(uids)
        sign(line, items[uids[0]]["report_id"], items[uids[0]]["revision"])
        indexer = json.loads((line.folder / "data" / "run" / "state.json").read_text())["pids"]["indexer"]
        os.kill(indexer, signal.SIGSTOP)
        try:
            assert line.send(files_of(last)).returncode == 0
            told_by("backup", "--to", shelf, "--data-dir", line.folder / "data")
        finally:
            os.kill(indexer, signal.SIGCONT)
        (backup,) = whole(shelf)
        assert len(list(backup.glob("spool/*/ready/*.dcm"))) == len(files_of(last))
        shown = {uid: shown_of(line, uid) for uid in uids}
        assert shown[uids[0]]["report"]["state"] == "final"
        line.wait_until_ended([last["study_instance_uid"]])
    told = told_by("backup", "--to", shelf, "--data-dir", place / "line" / "data")
    assert "it is down; PostgreSQL is started for the time being" in told
    return Kept(place / "line", shelf, line.token, uids, last["study_instance_uid"], shown)


def shown_of(line: Line, uid: str) -> dict[str, Any]:
    """What a dashboard sees of a study and its report."""
    study = line.study(uid)
    assert study is not None
    report = line.get(f"/api/v1/reports/{line.items()[uid]['report_id']}")
    return {"drafts": study["drafts"], "report": report}


def test_a_run_that_was_backed_up_while_it_worked_goes_on_elsewhere(kept: Kept, place: Path) -> None:
    (backup, *_) = whole(kept.shelf)
    told = told_by("restore", "--from", backup, "--data-dir", place / "elsewhere" / "data")
    assert "nothing is wrong" in told
    (place / "elsewhere").chmod(0o711)
    with up(place / "elsewhere", token=kept.token) as line:  # the token is good there as well
        assert {uid: shown_of(line, uid) for uid in kept.read} == kept.shown
        items = line.wait_until_ended([*kept.read, kept.spooled])
        assert items[kept.spooled]["reading_state"] == "done"
        sign(line, items[kept.spooled]["report_id"], items[kept.spooled]["revision"])
        assert line.command("verify") == "nothing is wrong\n"


def test_a_run_that_is_down_is_backed_up_and_is_down_again(kept: Kept, place: Path) -> None:
    newest = whole(kept.shelf)[-1]
    assert list(newest.glob("spool/*/ready/*.dcm")) == []
    assert not list(kept.folder.rglob("postmaster.pid"))
    assert "nothing is wrong" in told_by("restore", "--from", kept.shelf, "--data-dir", place / "again")
    told = told_by("restore", "--from", kept.shelf, "--data-dir", place / "again", status=1)
    assert "is not empty" in told


@pytest.mark.kill
def test_a_killed_restore_is_refused_by_up_and_repeated(kept: Kept, place: Path) -> None:
    backup, other, *_ = whole(kept.shelf)
    data = place / "killed"
    for words in ("the store:", "the database:"):
        assert kill_at(countersign("restore", "--from", backup, "--data-dir", data), words)
        assert f"countersign restore --from {backup} --data-dir {data}" in told_by("up", "--data-dir", data, status=1)
    assert "not whole" in told_by("backup", "--to", place / "none", "--data-dir", data, status=1)
    assert "half of another" in told_by("restore", "--from", other, "--data-dir", data, status=1)
    assert "nothing is wrong" in told_by("restore", "--from", backup, "--data-dir", data)
    assert [path.name for path in files_below(data / "secrets")] == ["seal.key"]


@pytest.mark.kill
@pytest.mark.parametrize("words", ["it is down", "the database"])
def test_a_killed_backup_of_a_run_that_is_down_leaves_no_server_and_is_repeated(
    kept: Kept, place: Path, words: str
) -> None:
    data, before = kept.folder / "data", whole(kept.shelf)
    assert kill_at(countersign("backup", "--to", kept.shelf, "--data-dir", data), words)
    assert whole(kept.shelf) == before
    told_by("backup", "--to", kept.shelf, "--data-dir", data)
    assert len(whole(kept.shelf)) == len(before) + 1
