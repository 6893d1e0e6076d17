"""How a migration runs: as the owner, one at a time, with time-outs, in one transaction each.

That transaction also writes on the schema which programs can work on it (`record.migrate.mark`).
"""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import NullPool, create_engine, text

from record.db import parse_url
from record.migrate import mark
from record.models import Table

_LOCK = 4_711_002


def _mark(ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
    if ctx.connection is not None and step.up_revision_id is not None:
        mark(ctx.connection, step.up_revision_id)


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
            on_version_apply=_mark,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


_run()
