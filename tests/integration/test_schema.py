"""A program on an older schema says which command helps; one whose database is away starts and waits."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import text

from record.db import connect
from record.errors import Misconfigured
from record.migrate import require_current_at
from tests.conftest import FreshDatabase


def test_an_older_schema_is_refused_with_the_command_that_helps(database: FreshDatabase) -> None:
    require_current_at(database.url)
    owner = connect(database.owner_url)
    with owner.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    owner.dispose()
    with pytest.raises(Misconfigured, match="countersign migrate"):
        require_current_at(database.url)


def test_a_part_on_an_older_schema_ends_with_a_sentence(database: FreshDatabase, tmp_path: object) -> None:
    owner = connect(database.owner_url)
    with owner.begin() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("DELETE FROM alembic_version"))
    owner.dispose()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "gateway", "sweep"],
        env={"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "countersign migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_no_reason_to_refuse() -> None:
    require_current_at("postgresql://nobody:x@127.0.0.1:1/none")
