"""`up`, `demo`, `migrate` and the parts one by one: what runs.

Knows options. Does not know how a part works: each verb imports what it needs when it is called, so that the listener
loads no database and the API no DICOM network. What only the worker can do is handed on to it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import PATH, Ordered, data_dir, database_errors, example, say
from gateway.commands.handed import to_worker
from record.errors import Misconfigured

if TYPE_CHECKING:
    from record.settings import Base

UP_DATA_DIR_HELP = (
    "Where everything is kept (default: $XDG_STATE_HOME/countersign, that is ~/.local/state/countersign; for root "
    "/var/lib/countersign/data)."
)
PORT_HELP = "0 takes the last port of this folder, or a free one."


@click.command(
    epilog=example(
        "countersign up --open-peers", "countersign up --dicom-host 10.0.0.5 --model /models/huatuogpt-vision-7b"
    )
)
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
        run(options, say=say, echo=_drop if quiet else _echo)


@click.command(epilog=example("countersign demo", "countersign demo --once"))
@click.option("--once", is_flag=True, help="Wait for the drafts, sign one, print a summary and end.")
@click.option("--data-dir", type=PATH, default=None, help="Keep the demo's data here (default: a temporary folder).")
def demo(once: bool, data_dir: Path | None) -> None:
    """Show the whole line with three phantom studies."""
    from gateway.launcher.demo import run
    from gateway.launcher.processes import Stopped

    with contextlib.suppress(Stopped):
        run(data_dir, once=once, say=say)


@click.command(epilog=example("COUNTERSIGN_OWNER_DATABASE_URL=postgresql://owner@db/countersign countersign migrate"))
@data_dir
def migrate() -> None:
    """Bring the database's schema up to date, as its owner."""
    from record.migrate import upgrade
    from record.settings import secret

    url = secret("COUNTERSIGN_OWNER_DATABASE_URL") or secret("DATABASE_URL")
    if not url:
        raise Misconfigured("No database: set COUNTERSIGN_OWNER_DATABASE_URL (or DATABASE_URL), or pass --data-dir.")
    with database_errors():
        if not upgrade(url):
            say("the schema is the next release's already; this release can work on it, and it was left as it is")


@click.group(cls=Ordered, epilog=example("countersign gateway listener", "countersign gateway api"))
def gateway() -> None:
    """The doors, one process each, as many of each as one likes, on as many machines.

    `up` starts all of them; alone they find DATABASE_URL, REDIS_URL, COUNTERSIGN_STORE and COUNTERSIGN_SPOOL in the
    environment. The order does not matter: each waits for what it needs.
    """


@gateway.command(epilog=example("COUNTERSIGN_SPOOL=/var/spool/countersign countersign gateway listener"))
@data_dir
def listener() -> None:
    """Take images in by C-STORE, answer C-ECHO, and take what senders ask and tell besides.

    That is storage commitment, Instance Availability Notification and Modality Performed Procedure Step. With
    COUNTERSIGN_DICOM_TLS_PORT it listens there too, for DICOM over TLS with certificates on both sides. It needs its spool's disk
    alone, so that images are taken whatever is away; only a sender that was added with --strict needs PostgreSQL as well.
    """
    from gateway.dicom.receivers import main as listen
    from record.settings import ListenerSettings, load

    sys.exit(listen(load(ListenerSettings)))


@gateway.command(
    epilog=example("countersign gateway indexer", "countersign gateway indexer --spool /mnt/dead-machine/spool/00")
)
@data_dir
@click.option("--spool", type=PATH, default=None, help="Drain this spool folder instead (a dead listener's).")
def indexer(spool: Path | None) -> None:
    """Turn spooled files into rows: one beside each listener, and one for the spool of a listener that is no more."""
    from gateway.indexer import main as index
    from record.mounted import require_mounted_at
    from record.settings import IndexerSettings, load

    if spool:
        os.environ["COUNTERSIGN_SPOOL"] = str(spool)
    settings = load(IndexerSettings)
    _require_schema(settings)
    require_mounted_at(settings.database_url, settings.store)
    sys.exit(index(settings))


@gateway.command(epilog=example("COUNTERSIGN_HTTP_PORT=8042 countersign gateway api"))
@data_dir
def api() -> None:
    """Serve the HTTP API and the pages to people and machines; put a TLS proxy before it on a network."""
    from gateway.web.server import main as serve
    from record.settings import ApiSettings, load

    settings = load(ApiSettings)
    _require_schema(settings)
    sys.exit(serve(settings))


@gateway.command(epilog=example("countersign gateway sweep"))
@data_dir
def sweep() -> None:
    """Close stable studies, take back leases, seal events, ring. Several may run: one at a time does the work."""
    from record.mounted import require_mounted_at
    from record.settings import SweepSettings, load
    from record.sweep import main as keep_sweeping

    settings = load(SweepSettings)
    _require_schema(settings)
    require_mounted_at(settings.database_url, settings.store)
    sys.exit(keep_sweeping(settings))


@gateway.command(epilog=example("countersign gateway courier"))
@data_dir
def courier() -> None:
    """Make the calls to others: ask peers for their counts, report storage commitments. Several may run."""
    from gateway.outbound.courier import main as deliver
    from record.mounted import require_mounted_at
    from record.settings import CourierSettings, load

    settings = load(CourierSettings)
    _require_schema(settings)
    require_mounted_at(settings.database_url, settings.store)
    sys.exit(deliver(settings))


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True, "help_option_names": []},
    add_help_option=False,
    epilog=example("countersign worker cpu", "countersign worker phantoms /tmp/phantoms --count 2"),
)
@data_dir
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """The reading room: cpu, gpu and what else only the worker can do."""
    to_worker(*arguments)


def _require_schema(settings: Base) -> None:
    """Refuse to start on an older schema; a database that is away is waited for by the part itself."""
    from record.migrate import require_current_at

    require_current_at(settings.database_url)


def _echo(part: str, line: str) -> None:
    click.echo(f"{part:<10} | {line}", err=True)


def _drop(_part: str, _line: str) -> None:
    """The line is in the part's log already."""
