"""The `countersign` command's verbs, a module a subject, and what they share.

Knows where a verb finds its settings and its transaction. Does not know any verb, nor how anything is printed
(`record.terminal`, whose words for a database that is not as it should be are handed on here).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from record.errors import Misconfigured
from record.states import Role
from record.terminal import NO_SCHEMA, Ordered, as_json, database_errors, example, one_transaction, say

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from record.access import Principal
    from record.settings import Base

__all__ = [
    "ADMIN_DATA_DIR_HELP",
    "DATA_DIR_HELP",
    "NO_SCHEMA",
    "PATH",
    "Ordered",
    "admin_data_dir",
    "administrating",
    "as_json",
    "by_command",
    "data_dir",
    "database_errors",
    "example",
    "find_environment",
    "names_a_database",
    "say",
    "settings_of_run",
    "site",
    "use_usual_folder",
]
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

        found = environment_of(folder, owner=context.info_name == "migrate")
        for name in found:
            os.environ.pop(name + "_FILE", None)  # the caller's file for a value that the folder gives
        os.environ.update(found)


def find_environment(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    """The same for a person's verb, which also finds the run that `countersign up` keeps where nobody said otherwise."""
    if folder is None and not context.resilient_parsing and not names_a_database():
        use_usual_folder(say)
    _take_environment(context, option, folder)


def use_usual_folder(tell: Callable[[str], None] = lambda _: None) -> bool:
    """Fill the environment from the folder that `countersign up` keeps where nobody said otherwise, if there is one.

    Raises
    ------
    Misconfigured
        Its servers are not running.
    """
    from gateway.launcher.folder import default_folder, environment_of, holds_run

    usual = default_folder()
    if not holds_run(usual):
        return False
    tell(f"on the run in {usual}")
    os.environ.update(environment_of(usual))
    return True


def names_a_database() -> bool:
    """Whether the environment says which database."""
    names = ("DATABASE_URL", "DATABASE_URL_FILE", "COUNTERSIGN_DATABASE_URL")
    return any(os.environ.get(name) for name in names)


def settings_of_run() -> Base:
    """The settings that every verb on a run needs.

    Raises
    ------
    Misconfigured
        Nobody says which run, and there is none where `up` keeps one; or a setting is wrong.
    """
    from gateway.launcher.folder import default_folder, holds_run
    from record.settings import Base, load

    if not names_a_database() and not holds_run(default_folder()):
        raise Misconfigured(
            f"There is no run in {default_folder()}: start `countersign up`, pass --data-dir, or set DATABASE_URL."
        )
    return load(Base)


data_dir = click.option(
    "--data-dir", type=PATH, expose_value=False, is_eager=True, callback=_take_environment, help=DATA_DIR_HELP
)
admin_data_dir = click.option(
    "--data-dir",
    type=PATH,
    expose_value=False,
    is_eager=True,
    callback=find_environment,
    help=ADMIN_DATA_DIR_HELP,
)


def _complete_sites(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
    from gateway.commands.completion import complete_sites

    return complete_sites(context, option, begun)


site = click.option(
    "--site", default=None, shell_complete=_complete_sites, help="Which site; may be left out while there is only one."
)


@contextlib.contextmanager
def administrating() -> Iterator[Session]:
    """One transaction of an administrator's verb."""
    with one_transaction(settings_of_run().database_url) as session:
        yield session


def by_command() -> Principal:
    """Who is on record for what an administrator's verb changes."""
    from record.access import commander

    return commander(None, Role.ADMIN)
