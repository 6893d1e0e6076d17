"""The database of a run that is down, for a command that needs it: PostgreSQL alone, for the time being.

Does not know what the command does with it. Whoever is killed meanwhile takes the server along, as `up` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.backup.shelf import Places
from gateway.launcher.binaries import find_postgres
from gateway.launcher.folder import DataFolder, State
from gateway.launcher.grounds import settle
from gateway.launcher.postgres import OWNER, PROGRAM, Postgres, current_cluster
from gateway.launcher.processes import StopRequest
from record.errors import Misconfigured


def postgres_of(folder: DataFolder, state: State) -> Postgres:
    """The embedded PostgreSQL of a data folder whose lock the caller holds; not started."""
    return Postgres(settle(folder.root, folder.logs), find_postgres(), state)


def places_of(folder: DataFolder, state: State) -> Places:
    """What a run keeps beside the servers' files: in its folder, or where its environment said otherwise."""
    told = state.environment
    return Places(
        Path(told.get("COUNTERSIGN_STORE", folder.store)),
        Path(told.get("COUNTERSIGN_SPOOL", folder.spool)),
        Path(told.get("COUNTERSIGN_SECRETS", folder.secrets)),
        Path(told.get("COUNTERSIGN_HEADS_FILE", folder.heads_file)),
    )


def cluster_of(root: Path) -> Path | None:
    """The cluster that belongs to a data folder, if there is one, wherever it lies."""
    folder = DataFolder(root)
    found = current_cluster(settle(folder.root, folder.logs).home / "postgres")
    return found if found.exists() else None


@contextmanager
def started(folder: DataFolder, state: State) -> Iterator[tuple[str, str]]:
    """Start PostgreSQL; hands over the programs' URL and the owner's. It is stopped at the end."""
    postgres = postgres_of(folder, state)
    hurry = StopRequest()
    try:
        postgres.start(hurry)
        folder.write_state(state)
        yield postgres.url(PROGRAM), postgres.url(OWNER)
    finally:
        postgres.stop(hurry)


@contextmanager
def database_of(folder: DataFolder) -> Iterator[tuple[str, str]]:
    """The same for a folder that holds a run which is down.

    Raises
    ------
    Misconfigured
        There is no run, it is not whole, or another PostgreSQL made its cluster.
    """
    if not folder.run.is_dir():
        raise Misconfigured(f"{folder.root} is no data folder of countersign. Was it made by `countersign up`?")
    with folder.locked():
        state = folder.read_state()
        folder.require_whole(state)
        if cluster_of(folder.root) is None:
            raise Misconfigured(f"{folder.root} holds no database yet.")
        with started(folder, state) as urls:
            yield urls
