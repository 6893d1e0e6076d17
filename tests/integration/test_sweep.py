"""The sweep's rounds on a real PostgreSQL: what goes wrong with one study is nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from record import admission, sweep
from record.db import connect, transaction
from record.settings import SweepSettings
from record.states import StudyState
from tests.conftest import FreshDatabase
from tests.records import arrival, study_of, uid

POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.study_id = '{study}' THEN RAISE 'poison'; END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE INSERT ON study_revisions FOR EACH ROW EXECUTE FUNCTION poison();
"""


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


@pytest.fixture
def round_of(engine: Engine, database: FreshDatabase, tmp_path: Path) -> sweep.Sweep:
    settings = SweepSettings(database_url=database.url, redis_url=None, store=tmp_path, stable_after_s=0.0)
    return sweep.Sweep.of(engine, settings)


def received(engine: Engine) -> str:
    with transaction(engine) as session:
        admission.admit(session, [arrival(study_uid := uid())])
    return study_uid


def state_of(engine: Engine, study_uid: str) -> StudyState:
    with transaction(engine) as session:
        return StudyState(study_of(session, study_uid).state)


def test_a_study_that_cannot_be_closed_keeps_no_other_from_being_read(
    engine: Engine, database: FreshDatabase, round_of: sweep.Sweep
) -> None:
    poison, sound = received(engine), received(engine)
    with transaction(engine) as session:
        poison_id = study_of(session, poison).id
    owner = database.owner_url.replace("+psycopg", "")
    with psycopg.connect(owner, autocommit=True) as admin:
        admin.execute(POISON.format(study=poison_id))
    with capture_logs() as told:
        assert sweep.run_once(round_of)
    assert (state_of(engine, poison), state_of(engine, sound)) == (StudyState.RECEIVING, StudyState.READY)
    assert [line["study_id"] for line in told if line["event"] == "sweep_stumbled"] == [str(poison_id)]
    assert round_of.held_up, "so that it is not tried fifty times a second"
    with psycopg.connect(owner, autocommit=True) as admin:
        admin.execute("DROP TRIGGER poison ON study_revisions")
    sweep.run_once(round_of)
    assert state_of(engine, poison) == StudyState.READY
    assert not round_of.held_up


def test_a_study_that_somebody_has_locked_waits_for_the_next_round(engine: Engine, round_of: sweep.Sweep) -> None:
    study_uid = received(engine)
    with transaction(engine) as session:
        session.refresh(study_of(session, study_uid), with_for_update=True)
        sweep.run_once(round_of)
        assert round_of.held_up
    sweep.run_once(round_of)
    assert state_of(engine, study_uid) == StudyState.READY
