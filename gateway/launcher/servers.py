"""Both servers of an embedded run as one thing: start, watch, stop. The tests use it without any supervisor.

Does not know the parts that use them.
"""

from __future__ import annotations

from pathlib import Path

from gateway.launcher.binaries import find_postgres, find_valkey
from gateway.launcher.folder import State
from gateway.launcher.grounds import settle
from gateway.launcher.postgres import OWNER, PROGRAM, Postgres
from gateway.launcher.processes import StopRequest
from gateway.launcher.valkey import Valkey


class Servers:
    """PostgreSQL and Valkey on the files of one data folder, whose lock the caller holds."""

    def __init__(self, root: Path, logs: Path, state: State, *, durable: bool = True) -> None:
        grounds = settle(root, logs)
        self.home = grounds.home
        self.valkey = Valkey(grounds, find_valkey(), state)
        self.postgres = Postgres(grounds, find_postgres(), state, durable=durable)

    def start(self, stop: StopRequest) -> None:
        """Start both; nothing is left running if that fails."""
        try:
            self.valkey.start(stop)
            self.postgres.start(stop)
        except BaseException:
            self.stop(stop)
            raise

    def stop(self, hurry: StopRequest) -> None:
        """Stop both, the bell first."""
        self.valkey.stop(hurry)
        self.postgres.stop(hurry)

    def database_url(self) -> str:
        """The programs' URL."""
        return self.postgres.url(PROGRAM)

    def owner_database_url(self) -> str:
        """The URL of the role that migrates and nothing else."""
        return self.postgres.url(OWNER)

    def redis_url(self) -> str:
        """The bell's URL."""
        return self.valkey.url()

    def dead(self) -> list[Postgres | Valkey]:
        """The servers that ended without being asked to."""
        return [
            server
            for server in (self.postgres, self.valkey)
            if server.process is not None and server.process.poll() is not None
        ]
