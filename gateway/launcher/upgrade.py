"""From one major version of PostgreSQL to the next: the old cluster's record is copied into a new one and compared.

The new cluster is filled beside the old one and takes its place by one rename, when everything in it has been read again
and is the same. Until then the old one counts and only its own server touches it, so the command may be killed at any
moment and repeated. Afterwards the old one is kept, but made unfit for a start by mistake, as pg_upgrade does.

Knows clusters. Does not know the schema, which `up` migrates as always.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.launcher.binaries import find_postgres, find_postgres_of
from gateway.launcher.folder import DataFolder
from gateway.launcher.grounds import settle
from gateway.launcher.postgres import DATABASE, OWNER, PROGRAM, Postgres, current_cluster, major_of, other_major
from gateway.launcher.processes import StopRequest
from record import dump
from record.alarms import size
from record.db import connect
from record.durable import sync_folder
from record.errors import Misconfigured, StoreFull

MARGIN_BYTES = 256 * 1024 * 1024
CONTROL = Path("global") / "pg_control"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was done: from which major version to which, how many rows, and where the former cluster is kept."""

    former: int
    present: int
    rows: int
    kept: Path


def upgrade(root: Path, *, tell: Callable[[str], None]) -> Upgraded | None:
    """Bring a data folder's cluster to the PostgreSQL that is installed; None where it is there already.

    Raises
    ------
    Misconfigured
        It is running, made by a newer one, or the old one's programs are not to be found.
    StoreFull
        There is no room for a second cluster.
    """
    folder = DataFolder(root)
    if not folder.run.is_dir():
        raise Misconfigured(f"{folder.root} is no data folder of countersign. Was it made by `countersign up`?")
    with folder.locked():
        state = folder.read_state()
        folder.require_whole(state)
        grounds, program = settle(folder.root, folder.logs), find_postgres()
        home = grounds.folder("postgres")
        _retire_former(home)
        old = current_cluster(home)
        made_by = major_of(old)
        if made_by is None or made_by == program.major:
            return None
        former = find_postgres_of(made_by)
        if former is None or made_by > program.major:
            raise Misconfigured(other_major(grounds, old, made_by, program.major))
        _clear(home, lambda cluster: Postgres(grounds, program, state, cluster=cluster))
        _require_room(old, home)
        dumped, new = home / "upgrading-dump", home / f"upgrading-{program.major}"
        dumped.mkdir(mode=0o700)
        tell(f"reading what PostgreSQL {made_by} keeps")
        with _running(Postgres(grounds, former, state, cluster=old)) as server:
            kept = _take(server, dumped)
        folder.write_state(state)
        tell(f"writing it with PostgreSQL {program.major} and comparing it")
        with _running(Postgres(grounds, program, state, cluster=new)) as server:
            if kept is not None:
                dump.load(server.url(OWNER), dumped, kept)
        new.rename(home / f"cluster-{program.major}")  # from here on the new one counts
        sync_folder(home)
        _retire_former(home)
        shutil.rmtree(dumped)
        return Upgraded(made_by, program.major, kept.rows if kept else 0, old)


@contextmanager
def _running(server: Postgres) -> Iterator[Postgres]:
    hurry = StopRequest()
    try:
        server.start(hurry)
        yield server
    finally:
        server.stop(hurry)


def _take(server: Postgres, folder: Path) -> dump.Dump | None:
    """The record, or None where nobody ever migrated this database."""
    with server.connect("postgres") as session:
        others = session.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', %s)", [DATABASE]
        ).fetchall()
    if others:
        raise Misconfigured(
            f"This PostgreSQL holds a database that is none of ours ({others[0][0]}), which would stay behind. Move it "
            "elsewhere, then upgrade."
        )
    with server.connect(DATABASE) as session:
        if session.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return None
    engine = connect(server.url(PROGRAM), pool=1)
    try:
        return dump.take(engine, folder)
    finally:
        engine.dispose()


def _retire_former(home: Path) -> None:
    """No older release shall start on a cluster that no longer counts."""
    present = current_cluster(home)
    for cluster in home.glob("cluster*"):
        if cluster != present and (cluster / CONTROL).exists():
            os.replace(cluster / CONTROL, cluster / f"{CONTROL}.old")


def _clear(home: Path, server_on: Callable[[Path], Postgres]) -> None:
    """What an interrupted upgrade left goes, with the server that may still be leaving; it never counted."""
    for leftover in home.glob("upgrading-*"):
        server_on(leftover).discard()


def _require_room(old: Path, home: Path) -> None:
    held = sum(path.stat().st_size for path in old.rglob("*") if path.is_file())
    needed, free = 2 * held + MARGIN_BYTES, shutil.disk_usage(home).free
    if free < needed:
        raise StoreFull(
            f"{home} has {size(free)} free; beside the old cluster the upgrade needs {size(needed)}. Make room; nothing was "
            "changed."
        )
