"""The database: one sync engine a process, one transaction a door.

Knows how to connect (as the programs' role, whatever the login), and is the only place that commits. Does not know any
table.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session

from record.errors import Misconfigured

APP_ROLE = "countersign_app"
"""The role every program acts as: no UPDATE, DELETE or TRUNCATE on what is append-only."""
AWAY = (OperationalError, InterfaceError)
"""What SQLAlchemy raises while PostgreSQL is gone or in recovery."""

_TRUSTED_S = 1.0
"""A connection that was used so lately is handed out unasked: the question would cost as much as a statement."""


def parse_url(url: str | SecretStr) -> URL:
    """A database URL with psycopg 3 as its driver; `postgres://` and `postgresql://` are taken as well.

    Raises
    ------
    Misconfigured
        The URL cannot be read; the message does not repeat it.
    """
    raw = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(raw)
        if parsed.port is not None and not 0 < parsed.port < 65536:
            raise ValueError
    except (ArgumentError, ValueError):  # the latter for a port that is none
        message = "DATABASE_URL is not a database URL (postgresql://USER:PASSWORD@HOST:PORT/NAME)."
        raise Misconfigured(message) from None
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        message = "DATABASE_URL must name PostgreSQL (postgresql://USER:PASSWORD@HOST:PORT/NAME)."
        raise Misconfigured(message)
    return parsed.set(drivername="postgresql+psycopg")


def connect(url: str | SecretStr, *, pool: int = 5) -> Engine:
    """Make this process's engine. Nothing is connected yet; never share it across a fork.

    Parameters
    ----------
    url
        As `DATABASE_URL` holds it.
    pool
        Connections kept; twice as many may be open for a moment.
    """
    # Every statement is planned with its values: a generic plan cannot use the partial indexes that keep what waits apart from
    # what is over, and reads the whole archive (docs/performance.md).
    engine = create_engine(
        parse_url(url),
        pool_size=pool,
        max_overflow=pool,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "countersign",
            "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=15s -c lock_timeout=10s"
            " -c timezone=UTC -c plan_cache_mode=force_custom_plan",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )

    @event.listens_for(engine, "connect")
    def _become_the_programs_role(connection, _record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        former = connection.autocommit
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {APP_ROLE}")
        connection.autocommit = former

    @event.listens_for(engine, "checkin")
    def _note_when(_connection, record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask_whether_it_is_there(connection, record, _proxy):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < _TRUSTED_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error

    return engine


@contextlib.contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back if anything is raised."""
    with Session(engine, expire_on_commit=False) as session:
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise


def is_away(error: BaseException) -> bool:
    """Whether an error says that PostgreSQL is gone (rather than that a statement is wrong, locked out or too slow)."""
    if not isinstance(error, DBAPIError):
        return False
    code = str(getattr(error.orig, "sqlstate", None) or "")
    if code:  # PostgreSQL's appendix A: 08 connection exceptions, 57P operator intervention, 25P03 idled out
        return code.startswith(("08", "57P")) or code == "25P03"
    is_connecting = error.statement is None  # else psycopg itself may have refused a statement
    return error.connection_invalidated or (is_connecting and isinstance(error, AWAY))
