"""Which schema a program works on: its own release's or the next one's; anything else is refused with what helps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from record.db import connect, parse_url
from record.errors import Misconfigured
from record.migrate import Schema, config, own_revision, require_current_at, schema_of, upgrade
from tests.conftest import FreshDatabase, RunningServers

OWN = own_revision()
NEXT = f"{int(OWN) + 1:04}"


@pytest.fixture
def owner(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.owner_url)
    yield made
    made.dispose()


def change(owner: Engine, *statements: str) -> None:
    with owner.begin() as connection:
        connection.execute(text("RESET ROLE"))
        for statement in statements:
            connection.execute(text(statement))


def pretend(owner: Engine, revision: str, runs_from: str | None) -> None:
    """A schema that some other release has left behind."""
    told = f"'countersign: runs_from={runs_from}'" if runs_from else "NULL"
    change(
        owner, f"UPDATE alembic_version SET version_num = '{revision}'", f"COMMENT ON TABLE alembic_version IS {told}"
    )


def test_the_schema_says_which_programs_can_work_on_it(database: FreshDatabase, owner: Engine) -> None:
    with owner.connect() as connection:
        assert schema_of(connection) == Schema(OWN, "0001")
    programs = connect(database.url)  # the programs' role reads it as well
    with programs.connect() as connection:
        assert schema_of(connection) == Schema(OWN, "0001")
    programs.dispose()


def test_a_database_that_cannot_hold_every_name_is_refused(servers: RunningServers) -> None:
    name = "countersign_test_latin1"
    admin = create_engine(parse_url(servers.admin_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
        )
        try:
            with pytest.raises(Misconfigured, match=r"LATIN1.*UTF8"):
                upgrade(servers.admin_url.rpartition("/")[0] + "/" + name)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_every_migration_names_the_programs_that_can_work_on_it_and_that_never_falls() -> None:
    scripts = sorted(ScriptDirectory.from_config(config()).walk_revisions(), key=lambda script: script.revision)
    named = [(int(script.revision), int(script.module.runs_from)) for script in scripts]
    assert [revision for revision, _ in named] == list(range(1, len(named) + 1))
    assert all(oldest <= revision for revision, oldest in named)
    assert [oldest for _, oldest in named] == sorted(oldest for _, oldest in named)


def test_an_older_schema_is_refused_with_the_command_that_helps(database: FreshDatabase, owner: Engine) -> None:
    require_current_at(database.url)
    pretend(owner, "0000", None)
    with pytest.raises(Misconfigured, match="countersign migrate"):
        require_current_at(database.url)


def test_the_next_releases_schema_is_worked_on_and_not_migrated(database: FreshDatabase, owner: Engine) -> None:
    pretend(owner, f"{int(OWN) + 5:04}", OWN)  # one release may bring several migrations
    require_current_at(database.url)
    assert not upgrade(database.owner_url)


@pytest.mark.parametrize("runs_from", [NEXT, None])
def test_the_schema_of_a_release_after_that_is_refused(
    database: FreshDatabase, owner: Engine, runs_from: str | None
) -> None:
    pretend(owner, f"{int(OWN) + 5:04}", runs_from)
    with pytest.raises(Misconfigured, match="made by a later release"):
        require_current_at(database.url)
    with pytest.raises(Misconfigured, match="Nothing was changed"):
        upgrade(database.owner_url)


def test_a_revision_that_is_none_of_ours_is_refused(database: FreshDatabase, owner: Engine) -> None:
    pretend(owner, "a1b2c3", None)
    with pytest.raises(Misconfigured, match="none of countersign's"):
        require_current_at(database.url)


@pytest.mark.parametrize(
    "verb",
    [("gateway", part) for part in ("sweep", "indexer", "courier", "api")] + [("worker", "cpu"), ("worker", "gpu")],
)
@pytest.mark.slow
def test_a_part_on_a_schema_that_is_not_its_own_ends_with_a_sentence(
    database: FreshDatabase, owner: Engine, tmp_path: Path, verb: tuple[str, str]
) -> None:
    pretend(owner, NEXT, NEXT)
    assert "made by a later release" in command(database, tmp_path, *verb)
    change(owner, "DELETE FROM alembic_version")
    assert "countersign migrate" in command(database, tmp_path, *verb)


def test_the_migration_leaves_a_later_schema_alone(database: FreshDatabase, owner: Engine, tmp_path: Path) -> None:
    pretend(owner, NEXT, NEXT)
    assert "made by a later release" in command(database, tmp_path, "migrate")


def command(database: FreshDatabase, folder: Path, *verb: str) -> str:
    """What a part, or the migration, says when it will not start."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", *verb],
        env={
            "DATABASE_URL": database.url,
            "COUNTERSIGN_OWNER_DATABASE_URL": database.owner_url,
            "COUNTERSIGN_STORE": str(folder),
            "COUNTERSIGN_SPOOL": str(folder),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_database_that_is_away_is_no_reason_to_refuse() -> None:
    require_current_at("postgresql://nobody:x@127.0.0.1:1/none")
