"""The sweep's rounds on a real PostgreSQL: what goes wrong with one study is nobody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, select, text
from structlog.testing import capture_logs

from record import admission, sessions, sweep
from record.db import transaction
from record.models import StoreDeletion, User
from record.settings import SweepSettings
from record.states import Role, StudyState
from record.store import Kind
from tests.conftest import FreshDatabase
from tests.records import arrival, person, study_of, uid

POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.study_id = '{study}' THEN RAISE 'poison'; END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE INSERT ON study_revisions FOR EACH ROW EXECUTE FUNCTION poison();
"""


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


def test_a_session_that_is_over_keeps_no_words_and_goes_after_ninety_days(
    engine: Engine, round_of: sweep.Sweep
) -> None:
    ends = {
        "open": "seen_at = now() - interval '59 minutes'",
        "idle": "seen_at = now() - interval '61 minutes'",
        "ended": "ended_at = now() - interval '89 days', expires_at = now() - interval '89 days'",
        "expired": "expires_at = now() - interval '1 s'",
        "ended long ago": "ended_at = now() - interval '91 days'",
        "expired long ago": "expires_at = now() - interval '91 days'",
    }
    with transaction(engine) as session:
        user = session.get_one(User, person(session, Role.ATTENDING).id)
        ids = {name: sessions.open_session(session, user, lasts_s=3600)[0].id for name in ends}
        for name, how in ends.items():
            change = f"UPDATE user_sessions SET search = '{{}}', csrf_secret = :name, {how} WHERE id = :id"
            session.execute(text(change), {"name": name, "id": ids[name]})

    def left() -> dict[str, bool]:
        with transaction(engine) as session:
            rows = session.execute(text("SELECT csrf_secret, search IS NOT NULL FROM user_sessions"))
            return dict(rows.all())

    sweep.run_once(round_of)
    assert left() == {"open": True, "idle": False, "ended": False, "expired": False}
    with transaction(engine) as session:
        session.execute(text("UPDATE user_sessions SET ended_at = now()"))
    sweep.run_once(round_of)
    assert left()["open"], "once a minute is enough"


def test_a_file_that_cannot_be_deleted_keeps_no_other_from_going(engine: Engine, round_of: sweep.Sweep) -> None:
    keys = [f"{number:032x}" for number in range(1, 4)]
    for key in keys:
        round_of.store.put(Kind.INSTANCE, key, b"bytes")
    with round_of.store.local(Kind.INSTANCE, keys[1]) as path:
        path.unlink()
        (path / "in the way").mkdir(parents=True)
    with transaction(engine) as session:
        session.add_all([StoreDeletion(kind=Kind.INSTANCE, key=key) for key in keys])

    def left() -> list[str]:
        with transaction(engine) as session:
            return list(session.scalars(select(StoreDeletion.key)))

    for _ in range(2):
        sweep.run_once(round_of)
        assert left() == [keys[1]]
    shutil.rmtree(path)
    sweep.run_once(round_of)
    assert left() == []
