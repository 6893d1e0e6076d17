"""The `countersign` command: every verb of the line, and the door where errors become sentences.

Knows verbs and options. Does not know how anything is done: each verb imports what it needs when it is called, so that
the listener loads no database and the API no DICOM network. What only the worker can do is handed on to it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.errors import CountersignError, Misconfigured
from record.states import Role

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from record.settings import Base

PATH = click.Path(path_type=Path)
DATA_DIR_HELP = "An embedded run's folder; without it the settings are taken from the environment."
ADMIN_DATA_DIR_HELP = (
    "An embedded run's folder. Without it the environment is taken, or, when that has no DATABASE_URL, the folder of "
    "`countersign up`."
)
UP_DATA_DIR_HELP = (
    "Where everything is kept (default: $XDG_STATE_HOME/countersign, that is ~/.local/state/countersign; for root "
    "/var/lib/countersign/data)."
)
PORT_HELP = "0 takes the last port of this folder, or a free one."


def main() -> None:
    """Run the command; an expected error is one sentence on standard error and a non-zero exit."""
    try:
        cli()
    except CountersignError as error:
        click.echo(f"countersign: {error.message}", err=True)
        sys.exit(1)


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
            _say(f"on the run in {usual}")
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="countersign")
def cli() -> None:
    """Studies come in by DICOM, a model drafts what it sees, a physician decides what is true."""


@cli.command()
@click.option("--data-dir", type=PATH, default=None, help=UP_DATA_DIR_HELP)
@click.option("--dicom-host", envvar="COUNTERSIGN_DICOM_HOST", default="127.0.0.1", show_default=True)
@click.option(
    "--dicom-port", envvar="COUNTERSIGN_DICOM_PORT", type=click.IntRange(0, 65535), default=11112, show_default=True,
    help=PORT_HELP,
)  # fmt: skip
@click.option("--http-host", envvar="COUNTERSIGN_HTTP_HOST", default="127.0.0.1", show_default=True)
@click.option(
    "--http-port", envvar="COUNTERSIGN_HTTP_PORT", type=click.IntRange(0, 65535), default=8042, show_default=True,
    help=PORT_HELP,
)  # fmt: skip
@click.option(
    "--aet",
    "ae_title",
    envvar="COUNTERSIGN_AE_TITLE",
    default="COUNTERSIGN",
    show_default=True,
    help="Our AE title: 1 to 16 printable ASCII characters.",
)
@click.option(
    "--stable-after", "stable_after_s", envvar="COUNTERSIGN_STABLE_AFTER_S", type=click.FloatRange(min=0), default=60.0,
    show_default=True, help="Seconds without a new instance after which a study is taken as complete.",
)  # fmt: skip
@click.option(
    "--model",
    envvar="COUNTERSIGN_MODEL",
    default="phantom",
    show_default=True,
    help="phantom, a checkpoint's folder, or a hub id.",
)
@click.option(
    "--open-peers",
    envvar="COUNTERSIGN_OPEN_PEERS",
    is_flag=True,
    help="Take images from unknown senders (loopback only).",
)
@click.option("--quiet", is_flag=True, help="Leave the parts' output to the folder's logs.")
def up(data_dir: Path | None, quiet: bool, **chosen: Any) -> None:
    """Run everything in the foreground until Ctrl-C.

    Says `ready dicom=HOST:PORT aet=TITLE http=URL` when both doors answer.
    """
    from gateway.launcher.folder import default_folder
    from gateway.launcher.processes import Stopped
    from gateway.launcher.up import Options, run

    options = Options(data_dir=data_dir or default_folder(), **chosen)
    with contextlib.suppress(Stopped):
        run(options, say=_say, echo=_drop if quiet else _echo)


@cli.command()
@click.option("--once", is_flag=True, help="Wait for the drafts, sign one, print a summary and end.")
@click.option("--data-dir", type=PATH, default=None, help="Keep the demo's data here (default: a temporary folder).")
def demo(once: bool, data_dir: Path | None) -> None:
    """Show the whole line with three phantom studies."""
    from gateway.launcher.demo import run
    from gateway.launcher.processes import Stopped

    with contextlib.suppress(Stopped):
        run(data_dir, once=once, say=_say)


@cli.command()
@data_dir
def migrate() -> None:
    """Bring the database's schema up to date, as its owner."""
    from record.migrate import upgrade

    url = os.environ.get("COUNTERSIGN_OWNER_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise Misconfigured("No database: set COUNTERSIGN_OWNER_DATABASE_URL (or DATABASE_URL), or pass --data-dir.")
    with _database_errors():
        upgrade(url)


@cli.group()
def gateway() -> None:
    """The doors, one process each."""


@gateway.command()
@data_dir
def listener() -> None:
    """Take images in by C-STORE, answer C-ECHO."""
    from gateway.dicom.listener import main as listen
    from record.settings import ListenerSettings, load

    sys.exit(listen(load(ListenerSettings)))


@gateway.command()
@data_dir
@click.option("--spool", type=PATH, default=None, help="Drain this spool folder instead (a dead listener's).")
def indexer(spool: Path | None) -> None:
    """Turn spooled files into rows."""
    from gateway.indexer import main as index
    from record.settings import IndexerSettings, load

    if spool:
        os.environ["COUNTERSIGN_SPOOL"] = str(spool)
    settings = load(IndexerSettings)
    _require_schema(settings)
    sys.exit(index(settings))


@gateway.command()
@data_dir
def api() -> None:
    """Serve the HTTP API and the pages."""
    from gateway.web.server import main as serve
    from record.settings import ApiSettings, load

    settings = load(ApiSettings)
    _require_schema(settings)
    sys.exit(serve(settings))


@gateway.command()
@data_dir
def sweep() -> None:
    """Close stable studies, take back leases, seal events, ring."""
    from record.settings import SweepSettings, load
    from record.sweep import main as keep_sweeping

    settings = load(SweepSettings)
    _require_schema(settings)
    sys.exit(keep_sweeping(settings))


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True, "help_option_names": []},
    add_help_option=False,
)
@data_dir
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """The reading room: cpu, gpu and what else only the worker can do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", *arguments])  # noqa: S606  ourselves, no shell


@cli.group()
def users() -> None:
    """People who sign in."""


@users.command("add")
@admin_data_dir
@click.argument("login")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--name", "printed_name", required=True, help="The name as it is printed under a report.")
@click.option("--site", default=None, help="Needed when there are several.")
def add_user(login: str, role: str, printed_name: str, site: str | None) -> None:
    """Add a person.

    The password is the first line of standard input; from a terminal or an empty input one is made and printed last.
    """
    from record import accounts

    given = "" if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    password = given or secrets.token_urlsafe(12)
    with _transaction() as session:
        accounts.add_user(
            session, site=site, login=login, printed_name=printed_name, role=Role(role), password=password
        )
    click.echo(f"{login} may sign in as {role}" + ("" if given else "; the password is shown this once:"), err=True)
    if not given:
        click.echo(password)


@cli.group()
def tokens() -> None:
    """Machines that call the API."""


@tokens.command("add")
@admin_data_dir
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--scope", "scopes", multiple=True, help="What the role alone does not allow, such as drafts:read.")
@click.option("--site", default=None, help="Needed when there are several.")
def add_token(name: str, role: str, scopes: tuple[str, ...], site: str | None) -> None:
    """Add a machine; its token is printed once, last."""
    from record import accounts

    with _transaction() as session:
        token = accounts.add_token(session, site=site, name=name, role=Role(role), scopes=scopes)
    click.echo(f"{name} may call the API as {role}; the token is shown this once:", err=True)
    click.echo(token)


@cli.group()
def peers() -> None:
    """Who may send images."""


@peers.command("add")
@admin_data_dir
@click.argument("ae_title")
@click.argument("address")
@click.option("--site", default=None, help="Needed when there are several.")
def add_peer(ae_title: str, address: str, site: str | None) -> None:
    """Let a sender in, by its AE title and IP address; the listener knows it within seconds."""
    from record import accounts

    with _transaction() as session:
        peer = accounts.add_peer(session, site=site, ae_title=ae_title, address=address)
    click.echo(f"{peer.ae_title} may send from {peer.address}", err=True)


@cli.command()
@admin_data_dir
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True, help="Stop after so many faults.")
def verify(most: int) -> None:
    """Walk the seals, the texts and the store; name what is wrong, the first thing first."""
    from record import audit, verification
    from record.db import connect
    from record.settings import Base, load
    from record.store import Store

    settings = load(Base)
    spool = os.environ.get("COUNTERSIGN_SPOOL")
    key = audit.read_key(settings.secrets)
    count = 0
    with _database_errors():
        faults = verification.verify(
            connect(settings.database_url, pool=1),
            Store(settings.store),
            key,
            heads_file=settings.heads_file,
            spool=Path(spool) if spool else None,
        )
        for fault in faults:
            click.echo(str(fault))
            count += 1
            if count >= most:
                break
    if key is None:
        click.echo("countersign: the seals were not checked, COUNTERSIGN_SECRETS is not set", err=True)
    if count:
        sys.exit(1)
    click.echo("nothing is wrong")


def _require_schema(settings: Base) -> None:
    """Refuse to start on an older schema; a database that is away is waited for by the part itself."""
    from record.migrate import require_current_at

    require_current_at(settings.database_url)


@contextlib.contextmanager
def _transaction() -> Iterator[Session]:
    """One transaction of an administrator's verb."""
    from record.db import connect, transaction
    from record.settings import Base, load

    engine = connect(load(Base).database_url, pool=1)
    try:
        with _database_errors(), transaction(engine) as session:
            yield session
    finally:
        engine.dispose()


@contextlib.contextmanager
def _database_errors() -> Iterator[None]:
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


def _say(line: str) -> None:
    click.echo(f"countersign: {line}", err=True)


def _echo(part: str, line: str) -> None:
    click.echo(f"{part:<10} | {line}", err=True)


def _drop(_part: str, _line: str) -> None:
    """The line is in the part's log already."""
