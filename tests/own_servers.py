"""PostgreSQL and Valkey of a test's own, which may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.launcher.folder import State
from gateway.launcher.processes import StopRequest
from gateway.launcher.servers import Servers
from record import migrate


class OwnServers:
    """PostgreSQL and Valkey that may be killed; each is brought back, as the supervisor would."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir()
        self._servers = Servers(folder, folder / "logs", State())
        self._stop = StopRequest()
        self._servers.start(self._stop)
        migrate.upgrade(self.owner_url)
        self.url, self.redis_url = self._servers.database_url(), self._servers.redis_url()

    @property
    def owner_url(self) -> str:
        return self._servers.owner_database_url()

    def kill_postgres(self) -> None:
        _kill_group(self._servers.postgres.process.pid)

    def kill_redis(self) -> None:
        _kill_group(self._servers.valkey.process.pid)

    def revive(self) -> None:
        for server in self._servers.dead():
            server.start(self._stop)

    def close(self) -> None:
        self._servers.stop(self._stop)


def _kill_group(pid: int) -> None:
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    time.sleep(0.1)


@contextlib.contextmanager
def own_servers() -> Iterator[OwnServers]:
    folder = Path(tempfile.mkdtemp(prefix="countersign-kill-"))
    folder.chmod(0o711)
    made = OwnServers(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
