"""The schema's version: bring a database up to this release, or say why it cannot be used.

Each migration names in `runs_from` the oldest revision whose programs still work on the schema it leaves behind: the last
one of the release before it, as long as it only adds. Where a schema is migrated, that is written on it (a comment on
Alembic's own table), so that an older program can tell a schema of the next release from one of the release after that.

Knows Alembic and the owner's role. Does not know what a migration contains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from record.db import connect, is_away, parse_url
from record.errors import Misconfigured

_MARK = re.compile(r"runs_from=(\d+)")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database says of its schema: its revision, and the oldest one whose programs can work on it."""

    revision: str | None
    runs_from: str | None

    def is_newer_than(self, own: str) -> bool:
        """Whether a later release made it."""
        return self.revision is not None and _number(self.revision) > _number(own)

    def takes(self, own: str) -> bool:
        """Whether programs of this revision can work on it: it is theirs, or that of the next release."""
        if self.revision == own:
            return True
        return self.is_newer_than(own) and self.runs_from is not None and _number(self.runs_from) <= _number(own)


def config(owner_url: str | SecretStr | None = None) -> Config:
    """Alembic's configuration for the migrations that lie in this release."""
    found = Config()
    found.set_main_option("script_location", "migrations:")
    if owner_url is not None:
        found.attributes["url"] = parse_url(owner_url).render_as_string(hide_password=False)
    return found


def own_revision() -> str:
    """The schema's revision that this release brings."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    if head is None:
        raise Misconfigured("This installation has no migrations: it is not whole. Install countersign again.")
    return head


def schema_of(connection: Connection) -> Schema:
    """What the database behind a connection says of its schema."""
    there = MigrationContext.configure(connection).get_current_revision()
    told = connection.execute(text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")).scalar()
    mark = _MARK.search(told or "")
    return Schema(there, mark[1] if mark else None)


def mark(connection: Connection, revision: str) -> None:
    """Write on a schema which programs can work on it; part of the transaction that migrates."""
    script = ScriptDirectory.from_config(config()).get_revision(revision)
    oldest = script.module.runs_from
    if not re.fullmatch(r"\d+", oldest):
        raise Misconfigured(f"The migration {revision} does not say which programs can work on its schema.")
    connection.execute(text(f"COMMENT ON TABLE alembic_version IS 'countersign: runs_from={oldest}'"))


def upgrade(owner_url: str | SecretStr, revision: str = "head") -> bool:
    """Migrate to this release's schema, as the owner.

    Returns False, and does nothing, where the schema is the next release's and this one's programs can work on it.

    Raises
    ------
    Misconfigured
        The schema is that of a later release whose schema this one cannot work on, or the database is not in UTF-8.
    """
    own = own_revision()
    engine = create_engine(parse_url(owner_url), poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        there = schema_of(connection)
        encoding = connection.scalar(text("SHOW server_encoding"))
    engine.dispose()
    if encoding != "UTF8":
        message = f"The database keeps its text as {encoding}. Make one with ENCODING 'UTF8' TEMPLATE template0."
        raise Misconfigured(message)
    if there.is_newer_than(own):
        if not there.takes(own):
            raise Misconfigured(_too_new(there, own))
        return False
    command.upgrade(config(owner_url), revision)
    return True


def check(owner_url: str | SecretStr) -> None:
    """Raise where the tables and the models differ (`alembic check`)."""
    command.check(config(owner_url))


def require_current(engine: Engine) -> None:
    """Refuse to run on a schema this release does not know.

    A process runs on its own release's schema or on the next one's, so that an upgrade's expand step may come first.

    Raises
    ------
    Misconfigured
        The database is empty, older, or newer than that; the message names what helps.
    """
    own = own_revision()
    with engine.connect() as connection:
        there = schema_of(connection)
    if there.takes(own):
        return
    if there.is_newer_than(own):
        raise Misconfigured(_too_new(there, own))
    message = (
        f"The database's schema is {there.revision or 'not there'}; this release needs {own}. Run: countersign migrate"
    )
    raise Misconfigured(message)


def require_current_at(url: str | SecretStr) -> None:
    """As `require_current`, at a program's start; says nothing while PostgreSQL is away, which the program waits for."""
    engine = connect(url, pool=1)
    try:
        require_current(engine)
    except DBAPIError as error:
        if not is_away(error):
            message = "The database refuses the programs' role. Was it migrated? Run: countersign migrate"
            raise Misconfigured(message) from None
    finally:
        engine.dispose()


def _too_new(there: Schema, own: str) -> str:
    needs = f"which programs from {there.runs_from} on can use" if there.runs_from else "which this one does not know"
    return (
        f"The database's schema is {there.revision}, {needs}; this release brings {own}. It was made by a later release: "
        "install that one, or restore the backup that was taken before the upgrade. Nothing was changed."
    )


def _number(revision: str) -> int:
    """Revisions are numbers, one after the other."""
    if not revision.isdigit():
        raise Misconfigured(f"The database's schema revision, {revision!r:.40}, is none of countersign's.")
    return int(revision)
