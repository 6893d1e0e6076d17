"""`backup`, `restore` and `upgrade`: the data of a run, kept, put back, and brought to a newer PostgreSQL.

Knows which run is meant, and whether its servers are up or have to be started for the time being. Does not know how a
backup lies on a disk.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands import PATH, database_errors, example, names_a_database, say
from record.errors import Misconfigured

if TYPE_CHECKING:
    from gateway.backup.restoring import Restored
    from gateway.backup.shelf import Backup, Places

MOST = 20
"""So many faults are named one by one."""
RUN_HELP = (
    "An embedded run's folder; it may be up or down. Without it the environment is taken, or, when that has no "
    "DATABASE_URL, the folder of `countersign up`."
)


@click.command(
    short_help="Copy everything a run keeps into a folder, while it works or is down.",
    epilog=example("countersign backup --to /mnt/backup/countersign", "countersign backup --to /mnt/nas/cs --keep 14"),
)
@click.option("--to", "target", type=PATH, required=True, help="The folder of backups; made if it is not there.")
@click.option("--data-dir", type=PATH, default=None, help=RUN_HELP)
@click.option("--keep", type=click.IntRange(min=1), default=None, help="Then remove all but so many of the newest.")
def backup(target: Path, data_dir: Path | None, keep: int | None) -> None:
    """Copy the database, the spools, the store and the secrets into DIR, consistently, while the line works.

    Instances and pictures never change and are shared by all backups in DIR, so each further backup is quick. A backup
    holds patients' data and the key of the seals: keep it as secret as the run itself, on another disk.
    """
    from gateway.backup.shelf import Shelf
    from gateway.backup.taking import take
    from record.db import connect

    shelf = Shelf(target)
    with _run(data_dir) as (url, places), database_errors():
        engine = connect(url, pool=1)
        try:
            taken = take(engine, places, shelf, tell=say)
        finally:
            engine.dispose()
    click.echo(taken.backup.folder)
    for fault in taken.faults[-MOST:]:
        say(fault)
    if len(taken.faults) > MOST:
        say(f"{len(taken.faults) - MOST} more of this kind")
    if taken.faults:
        say("the backup is kept, but the run is not what it was" + "; so no older backup was removed" * bool(keep))
        sys.exit(1)
    if keep:
        with shelf.locked():
            older, gone = shelf.prune(keep)
        say(f"{older} older backups were removed, and {gone} stored files that no other one needs")


@click.command(
    short_help="Put a backup back, into a new folder or into your own servers.",
    epilog=example(
        "countersign restore --from /mnt/backup/countersign --data-dir ~/countersign-restored",
        "countersign restore --from /mnt/backup/countersign/20261125T214500.123Z --data-dir ~/countersign-restored",
    ),
)
@click.option(
    "--from", "source", type=PATH, required=True, help="One backup, or a folder of backups: then the newest whole one."
)
@click.option("--data-dir", type=PATH, default=None, help="A new or empty folder for an embedded run.")
def restore(source: Path, data_dir: Path | None) -> None:
    """Put a backup back into a new folder; `countersign up --data-dir` then goes on from there.

    Without --data-dir it goes into the servers and folders that the environment names (COUNTERSIGN_OWNER_DATABASE_URL,
    DATABASE_URL, COUNTERSIGN_STORE …): the database must be empty. That is also the way from an embedded run to servers
    of your own.
    """
    from gateway.backup.restoring import check
    from gateway.backup.shelf import find

    if data_dir is None and not names_a_database():
        raise click.UsageError("Name a new folder with --data-dir, or your own servers in the environment.")
    found = find(source)
    say(f"the backup of {found.dump.taken_at} ({found.version}, {found.dump.rows} rows, {found.files} files)")
    check(found)
    faults = _restore_into_folder(found, data_dir) if data_dir else _restore_into_servers(found)
    if faults:
        sys.exit(1)


@click.command(
    short_help="Bring a folder that an older PostgreSQL made to the present one.",
    epilog=example("countersign upgrade --data-dir ~/countersign"),
)
@click.option("--data-dir", type=PATH, default=None, help="The run's folder (default: the one of `countersign up`).")
def upgrade(data_dir: Path | None) -> None:
    """Bring a folder that an older PostgreSQL made to the present one; the schema is migrated by `up` as always.

    The run must be down. The old PostgreSQL's programs are needed once: they come with ours, lie on this machine, or are
    named in EMBEDDED_POSTGRES_OLD_BIN. The old files are kept. It may be interrupted and repeated.
    """
    from gateway.launcher.folder import default_folder
    from gateway.launcher.upgrade import upgrade as upgrade_cluster

    root = (data_dir or default_folder()).expanduser().resolve()
    with database_errors():
        done = upgrade_cluster(root, tell=say)
    if done is None:
        say(f"{root} is on the present PostgreSQL already; nothing was done")
        return
    say(f"from PostgreSQL {done.former} to {done.present}: {done.rows} rows, every one compared")
    say(f"the old files are kept in {done.kept}; when all is well: rm -r {shlex.quote(str(done.kept))}")
    say(f"go on with: countersign up --data-dir {shlex.quote(str(root))}")


@contextlib.contextmanager
def _run(data_dir: Path | None) -> Iterator[tuple[str, Places]]:
    """The database's URL and the places of the run that is meant; its PostgreSQL is started if it is down."""
    from gateway.launcher.folder import DataFolder, default_folder, environment_of, holds_run
    from gateway.launcher.grounds import settle
    from gateway.launcher.offline import database_of, places_of

    if data_dir is None and (names_a_database() or not holds_run(default_folder())):
        yield _from_environment()
        return
    folder = DataFolder(data_dir or default_folder())
    say(f"on the run in {folder.root}")
    state = folder.read_state()
    servers = (settle(folder.root, folder.logs).home,) if state.embedded and folder.run.is_dir() else ()
    places = replace(places_of(folder, state), around=(folder.root, *servers))
    if state.embedded and not folder.is_running():
        say("it is down; PostgreSQL is started for the time being")
        with database_of(folder) as (url, _):
            yield url, places
        return
    yield environment_of(folder.root)["DATABASE_URL"], places


def _from_environment() -> tuple[str, Places]:
    from gateway.backup.shelf import Places
    from record.settings import Base, load

    settings = load(Base)
    spool = os.environ.get("COUNTERSIGN_SPOOL")
    if not spool:
        say("COUNTERSIGN_SPOOL is not set: what waits in a spool is left out")
    places = Places(settings.store, Path(spool) if spool else None, settings.secrets, settings.heads_file)
    return settings.database_url.get_secret_value(), places


def _restore_into_folder(found: Backup, data_dir: Path) -> int:
    from gateway.backup import restoring
    from gateway.launcher.folder import DataFolder
    from gateway.launcher.offline import cluster_of, places_of, postgres_of, started

    folder = DataFolder(data_dir)
    command = shlex.join(["countersign", "restore", "--from", str(found.folder), "--data-dir", str(folder.root)])
    interrupted = folder.read_state().unfinished
    if interrupted not in {"", command}:
        raise Misconfigured(
            f"{folder.root} holds half of another backup. Repeat that: {interrupted}; or remove the folder."
        )
    if not interrupted and not folder.is_new():
        raise Misconfigured(
            f"{folder.root} is not empty. A backup is put back into a new folder only; nothing was changed."
        )
    folder.make()
    if not interrupted and (cluster := cluster_of(folder.root)):
        raise Misconfigured(
            f"The database of a former run of {folder.root} lies in {cluster.parent}. Choose another --data-dir, or move "
            "that folder away."
        )
    restoring.require_room(found, folder.root, database=True)
    with folder.filling(command) as state:
        if interrupted:
            postgres_of(folder, state).discard()
        places = places_of(folder, state)
        restored = restoring.files(found, places, tell=say)
        with started(folder, state) as (url, owner_url), database_errors():
            restored = restoring.database(found, restored, places, owner_url, url, tell=say)
            state.unfinished = ""  # everything is there: what is found from here on does not undo it
            folder.write_state(state)
            say(f"restored into {folder.root}; go on with: countersign up --data-dir {shlex.quote(str(folder.root))}")
            return _faults(restored, places, url)


def _restore_into_servers(found: Backup) -> int:
    from gateway.backup import restoring
    from record import dump
    from record.settings import secret

    url, places = _from_environment()
    restoring.require_place_for_key(found, places)
    if places.heads_file is None:
        say("COUNTERSIGN_HEADS_FILE is not set: the seal heads that were kept outside the database are left out")
    owner_url = secret("COUNTERSIGN_OWNER_DATABASE_URL") or url
    with database_errors():
        dump.require_empty(owner_url, found.dump.revision)
    places.store.mkdir(parents=True, exist_ok=True, mode=0o700)
    restoring.require_room(found, places.store, database=False)
    restored = restoring.files(found, places, tell=say)
    with database_errors():
        restored = restoring.database(found, restored, places, owner_url, url, tell=say)
        say("restored into the servers and folders of the environment; go on by starting the parts")
        return _faults(restored, places, url)


def _faults(restored: Restored, places: Places, url: str) -> int:
    """Tell what was put back, and hold it against itself; returns how many faults were found."""
    from pydantic import SecretStr

    from gateway.commands.checks import check
    from record.audit import SEAL_KEY
    from record.settings import Base

    for path in restored.damaged:
        say(f"the backup's own copy is damaged or gone, so it was left out: {path}")
    if restored.respooled:
        say(f"{restored.respooled} instances came while the backup was taken; the indexer makes their rows")
    say("holding what was put back against itself")
    has_key = places.secrets is not None and (places.secrets / SEAL_KEY).is_file()
    settings = Base(
        database_url=SecretStr(url),
        store=places.store,
        secrets=places.secrets if has_key else None,
        heads_file=places.heads_file,
    )
    return check(settings, spool=places.spool, most=MOST, after_restore=True) + len(restored.damaged)
