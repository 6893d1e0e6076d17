"""A folder of an older PostgreSQL: recognised, brought over by one command that may be killed, or refused with that command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from gateway import cli
from gateway.launcher import upgrade as upgrading
from gateway.launcher.binaries import find_postgres, find_postgres_of
from gateway.launcher.folder import DataFolder
from gateway.launcher.grounds import settle
from gateway.launcher.offline import database_of, started
from gateway.launcher.postgres import current_cluster, major_of
from record import accounts, migrate
from record.db import connect, transaction
from record.errors import CountersignError, Misconfigured
from record.states import Role
from tests.conftest import missing
from tests.keeping import kill_at

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def older() -> int:
    """The newest major version before the present one whose programs are at hand."""
    present = find_postgres().major
    for major in range(present - 1, 14, -1):
        if find_postgres_of(major):
            return major
    missing("no older PostgreSQL is at hand")
    raise AssertionError


@pytest.fixture(scope="module")
def made(older: int) -> Iterator[Path]:
    """A data folder that the older PostgreSQL made: a migrated database with a user and events in it."""
    root = Path(tempfile.mkdtemp(prefix="countersign-older-"))
    root.chmod(0o711)
    data = DataFolder(root / "data")
    data.prepare()
    data.write_state(data.read_state())
    with pytest.MonkeyPatch.context() as patch, data.locked():
        patch.setenv("EMBEDDED_POSTGRES_BIN", bin_of(older))
        with started(data, data.read_state()) as (url, owner_url):
            migrate.upgrade(owner_url)
            engine = connect(url)
            with transaction(engine) as session:
                accounts.add_user(
                    session, site=None, login="lee", printed_name="Dr. Lee", role=Role.ATTENDING, password="p" * 12
                )
                session.execute(
                    text(
                        "INSERT INTO parts (owner, kind, host, version, facts) SELECT n::text, 'x', 'x', 'x',"
                        " jsonb_build_object('e', 'é\\\\\\n\\t', 'f', n / 7.0) FROM generate_series(1, 5000) n"
                    )
                )
            engine.dispose()
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def data(made: Path) -> Iterator[DataFolder]:
    """A copy of it to work on."""
    root = Path(tempfile.mkdtemp(prefix="countersign-older-"))
    root.chmod(0o711)
    subprocess.run(["cp", "-a", str(made / "data"), str(root / "data")], check=True)
    yield DataFolder(root / "data")
    shutil.rmtree(root, ignore_errors=True)


def bin_of(major: int) -> str:
    found = find_postgres_of(major)
    assert found is not None
    return str(found.executable.parent)


def command(*arguments: str | Path) -> tuple[int, str]:
    """What a command says; `up` is a process of its own, since it listens to signals."""
    if arguments[0] == "up":
        argv = [sys.executable, "-P", "-m", "gateway", *map(str, arguments)]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        return ended.returncode, ended.stdout + ended.stderr
    done = CliRunner().invoke(cli.cli, list(map(str, arguments)))
    if isinstance(done.exception, CountersignError):
        return 1, done.output + done.exception.message
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def cluster_of(data: DataFolder) -> Path:
    return current_cluster(settle(data.root, data.logs).home / "postgres")


def held(data: DataFolder) -> tuple[int, str, str]:
    """What the database holds, and the major version that keeps it."""
    with database_of(data) as (url, _):
        engine = connect(url)
        with engine.connect() as connection:
            version = connection.execute(text("SHOW server_version_num")).scalar_one()
            digest = connection.execute(
                text("SELECT md5(string_agg(p::text, '|' ORDER BY owner)) FROM parts p")
            ).scalar_one()
            login = connection.execute(text("SELECT login FROM users")).scalar_one()
        engine.dispose()
    return int(version) // 10000, digest, login


def test_an_older_folder_is_refused_with_the_command_that_brings_it_over(
    data: DataFolder, older: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = find_postgres().major
    told = f"was made by PostgreSQL {older}, the program here is PostgreSQL {present}. Nothing was changed. Run: "
    for verb in (("up",), ("backup", "--to", data.root.parent / "shelf")):
        code, said = command(*verb, "--data-dir", data.root)
        assert code == 1
        assert f"{told}countersign upgrade --data-dir {data.root}" in said
    with monkeypatch.context() as patch:
        patch.setenv("EMBEDDED_POSTGRES_BIN", bin_of(older))
        before = held(data)
    code, said = command("upgrade", "--data-dir", data.root)
    assert code == 0, said
    assert f"from PostgreSQL {older} to {present}" in said
    assert held(data) == (present, *before[1:])
    assert major_of(cluster_of(data)) == present
    assert "nothing was done" in command("upgrade", "--data-dir", data.root)[1]
    # and the older release can neither start on what it left, nor on what is new
    monkeypatch.setenv("EMBEDDED_POSTGRES_BIN", bin_of(older))
    with pytest.raises(Misconfigured, match=f"made by PostgreSQL {present}, the program here is PostgreSQL {older}"):
        held(data)
    code, said = command("upgrade", "--data-dir", data.root)
    assert (code, "Use the release of countersign that made it" in said) == (1, True)
    left = cluster_of(data).with_name("cluster")
    assert not (left / "global" / "pg_control").exists()
    assert (left / "global" / "pg_control.old").exists()


def test_without_the_old_programs_it_says_how_to_get_them(
    data: DataFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (cluster_of(data) / "PG_VERSION").write_text("14\n")
    monkeypatch.setenv("EMBEDDED_POSTGRES_OLD_BIN", str(tmp_path))
    for verb in ("up", "upgrade"):
        code, said = command(verb, "--data-dir", data.root)
        assert code == 1
        assert "apt-get install postgresql-14" in said
        assert "EMBEDDED_POSTGRES_OLD_BIN" in said
        assert f"then run: countersign upgrade --data-dir {data.root}" in said


def test_a_folder_of_a_newer_postgresql_is_refused(data: DataFolder) -> None:
    (cluster_of(data) / "PG_VERSION").write_text("99\n")
    for verb in ("up", "upgrade"):
        code, said = command(verb, "--data-dir", data.root)
        assert (code, "was made by PostgreSQL 99" in said, "Nothing was changed" in said) == (1, True, True)


def test_a_running_folder_and_a_strangers_are_refused(data: DataFolder, tmp_path: Path) -> None:
    with data.locked():
        assert "already running" in command("upgrade", "--data-dir", data.root)[1]
    assert "is no data folder" in command("upgrade", "--data-dir", tmp_path)[1]


def test_no_room_is_told_before_anything_is_done(data: DataFolder, older: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "MARGIN_BYTES", 1 << 60)
    code, said = command("upgrade", "--data-dir", data.root)
    assert (code, "nothing was changed" in said) == (1, True)
    assert major_of(cluster_of(data)) == older


@pytest.mark.kill
def test_a_killed_upgrade_leaves_the_old_database_as_it_was_and_is_repeated(
    data: DataFolder, older: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("EMBEDDED_POSTGRES_BIN", bin_of(older))
        before = held(data)
    for words in ("reading what", "writing it with"):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "upgrade", "--data-dir", str(data.root)],
            env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert kill_at(process, words)
        assert major_of(cluster_of(data)) == older
        assert f"Run: countersign upgrade --data-dir {data.root}" in command("up", "--data-dir", data.root)[1]
        with monkeypatch.context() as patch:
            patch.setenv("EMBEDDED_POSTGRES_BIN", bin_of(older))
            assert held(data) == before
    assert command("upgrade", "--data-dir", data.root)[0] == 0
    assert held(data)[1:] == before[1:]
    assert not list(cluster_of(data).parent.glob("upgrading-*"))
