"""The embedded Redis-compatible server, Valkey. It only rings a bell, so it keeps nothing on disk.

Knows its configuration and start. Does not know what is sent through it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.launcher.binaries import ServerProgram
from gateway.launcher.folder import State
from gateway.launcher.grounds import Grounds
from gateway.launcher.processes import StopRequest, end, free_port, fresh_log, spawn, tail, wait_until
from record.durable import write_private
from record.errors import Misconfigured

START_LIMIT_S = 20.0


class Valkey:
    """One embedded server on loopback, behind a generated password."""

    def __init__(self, grounds: Grounds, program: ServerProgram, state: State) -> None:
        self._grounds = grounds
        self._program = grounds.usable(program)
        self._state = state
        self._home = grounds.folder("valkey")
        self.log = grounds.logs / "valkey.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, stop: StopRequest) -> None:
        """Start the server; returns when it answers."""
        self._end_orphan()
        for _ in range(3):
            self._state.ports["redis"] = free_port(self._state.ports.get("redis"))
            if self._launch(stop):
                return
            if "in use" not in tail(self.log):
                break
            del self._state.ports["redis"]  # somebody was quicker
        raise Misconfigured(f"Valkey did not start. Its log ({self.log}) ends:\n{tail(self.log)}")

    def restart(self, stop: StopRequest) -> None:
        """Start a server that died again, on the port its clients know."""
        if not wait_until(lambda: self._launch(stop), within_s=START_LIMIT_S, unless=lambda: bool(stop), every_s=0.3):
            stop.check()
            raise Misconfigured(f"Valkey did not come back. Its log ({self.log}) ends:\n{tail(self.log)}")

    def stop(self, hurry: StopRequest) -> None:
        """End the server."""
        if self.process:
            end(self.process, signal.SIGTERM, within_s=10, hurry=hurry)
            self.process = None

    def url(self) -> str:
        """redis-py's and Celery's URL."""
        return f"redis://:{self._state.password('redis')}@127.0.0.1:{self._state.ports['redis']}/0"

    def _launch(self, stop: StopRequest) -> bool:
        settings = self._home / "valkey.conf"  # a file, because a command line can be read by everybody
        write_private(
            settings,
            f"bind 127.0.0.1\nport {self._state.ports['redis']}\nprotected-mode yes\ndaemonize no\n"
            f'requirepass {self._state.password("redis")}\ndir "{self._home}"\n'
            'appendonly no\nsave ""\nmaxmemory-policy noeviction\n',
        )
        self._grounds.give(settings)
        with fresh_log(self.log) as output:
            self.process = process = spawn(
                [self._program, settings],
                env={name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LD_"))},
                cwd=self._home,
                output=output,
                death_signal=signal.SIGTERM,
                account=self._grounds.account,
            )
        came = wait_until(
            lambda: process.poll() is not None or self._answers(), within_s=START_LIMIT_S, unless=lambda: bool(stop)
        )
        if process.poll() is None and came:
            return True
        self.stop(stop)
        stop.check()
        return False

    def _answers(self) -> bool:
        try:
            with contextlib.closing(self._client()) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def _end_orphan(self) -> None:
        """A server that outlived its launcher is told to leave, once it has shown that it is ours."""
        if "redis" not in self._state.ports:
            return
        with contextlib.suppress(redis.RedisError, OSError), contextlib.closing(self._client()) as client:
            if client.config_get("dir").get("dir") == str(self._home):
                client.shutdown(nosave=True)

    def _client(self) -> redis.Redis:
        return redis.Redis(
            host="127.0.0.1",
            port=self._state.ports["redis"],
            password=self._state.password("redis"),
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
