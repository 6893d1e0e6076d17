"""How a migration runs: as the owner, one at a time, with time-outs, in one transaction each."""

from __future__ import annotations

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from record.db import parse_url
from record.models import Table

_LOCK = 4_711_002


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or context.config.attributes.get("url", "")
    engine = create_engine(parse_url(url), poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.execute(text("SET statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            transaction_per_migration=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


_run()
