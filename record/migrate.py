"""The schema's version: bring a database up to this release, or say why it cannot be used.

Knows Alembic and the owner's role. Does not know what a migration contains.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from record.db import connect, is_away, parse_url
from record.errors import Misconfigured


def config(owner_url: str | SecretStr | None = None) -> Config:
    """Alembic's configuration for the migrations that lie in this release."""
    found = Config()
    found.set_main_option("script_location", "migrations:")
    if owner_url is not None:
        found.attributes["url"] = parse_url(owner_url).render_as_string(hide_password=False)
    return found


def upgrade(owner_url: str | SecretStr) -> None:
    """Migrate to this release's schema, as the owner; does nothing where it is there already."""
    command.upgrade(config(owner_url), "head")


def check(owner_url: str | SecretStr) -> None:
    """Raise where the tables and the models differ (`alembic check`)."""
    command.check(config(owner_url))


def require_current(engine: Engine) -> None:
    """Refuse to run on a schema this release does not know.

    A process runs on its own revision or one newer; with one linear history that is: on any revision that is not older
    than its own, so that an upgrade's expand step may come first.

    Raises
    ------
    Misconfigured
        The database is empty or older; the message names the command that helps.
    """
    own = ScriptDirectory.from_config(config()).get_current_head()
    with engine.connect() as connection:
        there = MigrationContext.configure(connection).get_current_revision()
    if there is None or (own is not None and there < own):
        message = f"The database's schema is {there or 'not there'}; this release needs {own}. Run: countersign migrate"
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
