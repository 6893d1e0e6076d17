"""`countersign status`: what needs a person, on eighty columns, with and without a database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from gateway import heartbeat
from gateway.cli import cli
from gateway.launcher.folder import DataFolder, State
from gateway.spool import Spool
from record import readings
from record.db import transaction
from tests.conftest import FreshDatabase, RunningServers, _create, _drop, _named, _role
from tests.situations import CANARY, everybody, made_up
from tests.web_records import Desk, desk_on


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path) -> Iterator[Desk]:
    with desk_on(database, tmp_path / "store") as made:
        yield made


def run(*argv: str, **environment: str) -> Any:
    """One call of the command, with these settings and no others."""
    names = ("DATABASE_URL", "REDIS_URL", "COUNTERSIGN_STORE", "COUNTERSIGN_SPOOL", "COUNTERSIGN_DATABASE_URL")
    return CliRunner().invoke(
        cli, ["status", *argv], env={**dict.fromkeys(names), **environment}, standalone_mode=False
    )


def test_the_command_says_on_eighty_columns_what_needs_a_person_and_exits_so(
    desk: Desk, database: FreshDatabase, tmp_path: Path
) -> None:
    made = made_up(desk)
    settings = {"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:9/0"}
    said = run(**settings)
    assert isinstance(said.exception, SystemExit)
    assert said.exception.code == 1
    assert max(map(len, said.stdout.splitlines())) <= 80
    assert (
        "CRITICAL No cpu worker is running: no study is prepared.\n         → Start one: countersign worker cpu"
        in said.stdout
    )
    assert "Redis does not answer" in said.stdout
    assert made["failed"] in said.stdout
    assert CANARY not in said.stdout
    with transaction(desk.engine) as session:
        everybody(session)
    del settings["REDIS_URL"]
    assert "nobody reports their studies: 1" in " ".join(run(**settings).stdout.split())
    elsewhere = run("--site", "elsewhere", **settings)
    assert elsewhere.exception is None
    assert "All is well." in elsewhere.stdout
    assert made["failed"] not in elsewhere.stdout
    told = json.loads(run("--json", **settings).stdout)
    assert told["well"] is False
    assert told["ended"][0]["study_instance_uid"] == made["failed"]
    assert {one["code"] for one in told["alarms"]} == {"readings_failed", "conflicts", "outdated"}
    unknown = run("--site", "nowhere", **settings)
    assert getattr(unknown.exception, "code", "") == "not_found"


def test_a_part_that_was_taken_away_for_good_is_forgotten_by_command(
    desk: Desk, database: FreshDatabase, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(tmp_path)}
    with transaction(desk.engine) as session:
        everybody(session)
        readings.report_worker(session, "gone:7", "cpu", model="phantom", slots=1, identity={})
        session.execute(text("UPDATE workers SET seen_at = now() - interval '1 hour' WHERE owner = 'gone:7'"))
    said = run(**settings)
    assert said.exception.code == 1
    assert "countersign status --forget gone" in said.stdout
    assert getattr(run("--forget", "host", **settings).exception, "code", "") == "not_found", (
        "who lives is not forgotten"
    )
    said = run("--forget", "gone", **settings)
    assert said.exception is None, said.output
    assert "not missed any more on gone: cpu" in said.stderr
    assert "All is well." in said.stdout


def test_without_a_database_the_command_tells_of_this_machine_s_spool_and_disk(tmp_path: Path) -> None:
    spool = Spool.claim(tmp_path / "spool")
    (spool.ready / f"{uuid.uuid4().hex}.dcm").write_bytes(b"x")
    heartbeat.beat(spool, {"owner": "o", "port": 11112, "every_s": 60})
    settings = {
        "DATABASE_URL": "postgresql://nobody:SECRET@127.0.0.1:9/none",
        "COUNTERSIGN_STORE": str(tmp_path),
        "COUNTERSIGN_SPOOL": str(tmp_path / "spool"),
    }
    said = run(**settings)
    assert said.exception.code == 1
    assert "PostgreSQL does not answer." in said.stdout
    assert "listener up" in said.stdout
    assert "spool 00" in said.stdout
    assert "disk of the store" in said.stdout
    assert "SECRET" not in said.output
    told = json.loads(run("--json", **settings).stdout)
    assert (told["well"], told["spools"][0]["files"]) == (False, 1)
    spool.release()


def test_without_a_schema_the_command_names_the_one_that_migrates(servers: RunningServers, tmp_path: Path) -> None:
    name = f"countersign_empty_{uuid.uuid4().hex[:8]}"
    _create(servers, name, f'OWNER "{_role(servers.owner_url)}"')
    try:
        said = run(DATABASE_URL=_named(servers.database_url, name), COUNTERSIGN_STORE=str(tmp_path))
    finally:
        _drop(servers, name)
    assert said.exception.code == 1
    assert "countersign migrate" in said.stdout


def test_a_run_that_is_stopped_still_tells_of_its_spool_and_disk(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "run")
    folder.prepare()
    spool = Spool.claim(folder.spool)
    (spool.ready / f"{uuid.uuid4().hex}.dcm").write_bytes(b"x")
    environment = {
        "DATABASE_URL": "postgresql://nobody:SECRET@127.0.0.1:9/none",
        "COUNTERSIGN_STORE": str(folder.store),
        "COUNTERSIGN_SPOOL": str(folder.spool),
    }
    folder.write_state(State(environment=environment))
    said = run("--data-dir", str(folder.root))
    assert said.exception.code == 1
    words = " ".join(said.stdout.split())
    assert f"CRITICAL The run in {folder.root} is stopped: no image can be sent here." in words
    assert f"→ Start it: countersign up --data-dir {folder.root}" in words
    assert "spool 00" in words
    assert "1 file waits" in words
    assert "disk of the store" in words
    assert "SECRET" not in said.output
    told = json.loads(run("--data-dir", str(folder.root), "--json").stdout)
    assert next(one["code"] for one in told["alarms"]) == "run_stopped"
    assert "start it before" in str(run("--data-dir", str(folder.root), "--forget", "host").exception)
    spool.release()
