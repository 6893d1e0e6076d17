"""The `countersign` command's verbs, a module a subject, and what they share.

Knows where a verb finds its settings, its transaction, and the words for a database that is not as it should be. Does not
know any verb.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from record.errors import Misconfigured

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PATH = click.Path(path_type=Path)
DATA_DIR_HELP = "An embedded run's folder; without it the settings are taken from the environment."
ADMIN_DATA_DIR_HELP = (
    "An embedded run's folder. Without it the environment is taken, or, when that has no DATABASE_URL, the folder of "
    "`countersign up`."
)


def _take_environment(context: click.Context, _option: click.Parameter, folder: Path | None) -> None:
    """Fill the environment from an embedded run's folder; what the command line says wins over the caller's."""
    if folder is not None:
        from gateway.launcher.folder import environment_of

        os.environ.update(environment_of(folder, owner=context.info_name == "migrate"))


def _find_environment(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    """The same for a person's verb, which also finds the run that `countersign up` keeps where nobody said otherwise."""
    if folder is None and not context.resilient_parsing and not _names_a_database():
        from gateway.launcher.folder import default_folder, holds_run

        usual = default_folder()
        if holds_run(usual):
            say(f"on the run in {usual}")
            folder = usual
    _take_environment(context, option, folder)


def _names_a_database() -> bool:
    return bool(os.environ.get("DATABASE_URL") or os.environ.get("COUNTERSIGN_DATABASE_URL"))


data_dir = click.option(
    "--data-dir", type=PATH, expose_value=False, is_eager=True, callback=_take_environment, help=DATA_DIR_HELP
)
admin_data_dir = click.option(
    "--data-dir",
    type=PATH,
    expose_value=False,
    is_eager=True,
    callback=_find_environment,
    help=ADMIN_DATA_DIR_HELP,
)


def say(line: str) -> None:
    """Tell the person at the terminal, on standard error."""
    click.echo(f"countersign: {line}", err=True)


@contextlib.contextmanager
def administrating() -> Iterator[Session]:
    """One transaction of an administrator's verb."""
    from record.db import connect, transaction
    from record.settings import Base, load

    engine = connect(load(Base).database_url, pool=1)
    try:
        with database_errors(), transaction(engine) as session:
            yield session
    finally:
        engine.dispose()


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """An unreachable or unmigrated database is an expected error."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    try:
        yield
    except OperationalError as error:
        raise Misconfigured(f"PostgreSQL does not answer as it should: {_first_line(error)}") from None
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", "") != "42P01":  # undefined_table
            raise
        raise Misconfigured("The database has no schema yet. Run `countersign migrate` first.") from None


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
