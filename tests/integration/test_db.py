"""Connections that the server closed behind the pool's back."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from record import db
from record.db import connect, is_away, transaction
from tests.conftest import FreshDatabase, RunningServers


def pid_of(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def cut(servers: RunningServers, pid: int) -> None:
    with psycopg.connect(servers.admin_url.replace("+psycopg", ""), autocommit=True) as admin:
        assert admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)


def test_a_connection_that_was_lost_while_it_lay_idle_is_never_handed_out(
    servers: RunningServers, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_TRUSTED_S", 0.0)
    engine = connect(database.url, pool=1)
    former = pid_of(engine)
    assert pid_of(engine) == former
    cut(servers, former)
    assert pid_of(engine) != former
    engine.dispose()


def test_one_lost_right_after_use_costs_one_transaction_that_says_why(
    servers: RunningServers, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_TRUSTED_S", 60.0)
    engine = connect(database.url, pool=1)
    former = pid_of(engine)
    cut(servers, former)
    with pytest.raises(OperationalError) as caught:
        pid_of(engine)
    assert is_away(caught.value)
    assert pid_of(engine) != former
    engine.dispose()
