"""The supervisor: starts the parts, passes their output on, restarts what dies, stops them in order.

Knows commands and exit statuses. Does not know what a part does. One thread per part copies output; everything else,
and every start of a process, happens in the main thread (the parent-death signal follows the starting thread).
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.launcher.processes import StopRequest, kill_group, spawn, tail, wait_until
from record.errors import Misconfigured

MOST_DEATHS = 5
IN_SECONDS = 60.0
LOG_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One command of the line. Lower stages are stopped first; a stage has `stop_s` to finish its work."""

    name: str
    argv: Sequence[str]
    stage: int
    stop_s: float


@dataclass(slots=True)
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_DEATHS))
    restart_at: float | None = None


class Supervisor:
    """Keeps a set of parts running.

    `echo` gets every line a part writes (with the part's name), `say` the supervisor's own.
    """

    def __init__(
        self,
        logs: Path,
        environment: Mapping[str, str],
        *,
        say: Callable[[str], None],
        echo: Callable[[str, str], None],
        stop: StopRequest,
    ) -> None:
        self._logs = logs
        self._environment = environment
        self._say = say
        self._echo = echo
        self._stop = stop
        self._running: dict[str, _Running] = {}

    def start(self, part: Part) -> None:
        """Start one part. Main thread only."""
        self._running[part.name] = _Running(part, self._spawn(part))

    def pids(self) -> dict[str, int]:
        """The process of every part."""
        return {name: running.process.pid for name, running in self._running.items()}

    def tend(self) -> bool:
        """Look at every part once and restart what died; returns whether a process is new.

        Raises
        ------
        Misconfigured
            A part died too often: restarting does not cure it.
        """
        changed = False
        for running in self._running.values():
            now = time.monotonic()
            if running.restart_at is not None:
                if now >= running.restart_at:
                    running.restart_at = None
                    running.process = self._spawn(running.part)
                    changed = True
                continue
            status = running.process.poll()
            if status is not None:
                self._note_death(running, status, now)
        return changed

    def stop(self) -> None:
        """Stop all parts, stage by stage; whoever does not finish in time is killed."""
        for stage in sorted({running.part.stage for running in self._running.values()}):
            group = [running for running in self._running.values() if running.part.stage == stage]
            for running in group:
                if running.process.poll() is None:
                    running.process.send_signal(signal.SIGTERM)
            finished = wait_until(
                lambda group=group: all(running.process.poll() is not None for running in group),  # type: ignore[misc]
                within_s=max(running.part.stop_s for running in group),
                unless=lambda: self._stop.count > 1,
            )
            for running in group:
                if not finished and running.process.poll() is None:
                    why = "not waiting any longer" if self._stop.count > 1 else "did not finish in time"
                    self._say(f"{running.part.name}: {why}; it is killed")
                kill_group(running.process.pid)
                running.process.wait()
        self._running.clear()

    def _note_death(self, running: _Running, status: int, now: float) -> None:
        kill_group(running.process.pid)  # its children, should they not have noticed
        name, deaths = running.part.name, running.deaths
        deaths.append(now)
        if len(deaths) == MOST_DEATHS and now - deaths[0] < IN_SECONDS:
            log = self._logs / f"{name}.log"
            raise Misconfigured(
                f"{name} ended {MOST_DEATHS} times within {IN_SECONDS:.0f} s, so everything is stopped. "
                f"The last lines of {log}:\n{tail(log)}"
            )
        recent = sum(now - death < IN_SECONDS for death in deaths)
        running.restart_at = now + 0.5 * (recent - 1)
        self._say(f"{name} ended ({_told(status)}); it is started again")

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        process = spawn(
            part.argv,
            env=self._environment,
            cwd=None,
            output=subprocess.PIPE,
            death_signal=signal.SIGKILL,  # every part survives that by design, and nothing may outlive us
        )
        assert process.stdout is not None  # noqa: S101  for the type checker: a pipe was asked for
        threading.Thread(target=self._copy, args=(part.name, process.stdout), daemon=True, name=part.name).start()
        return process

    def _copy(self, name: str, output: IO[bytes]) -> None:
        """Pass a part's lines on and keep them in a log of bounded size, until the part closes its output."""
        path = self._logs / f"{name}.log"
        log = path.open("ab")
        with output:
            for line in output:
                if log.tell() > LOG_LIMIT_BYTES:
                    log.close()
                    path.replace(path.with_suffix(".former.log"))
                    log = path.open("ab")
                log.write(line)
                log.flush()
                self._echo(name, line.decode(errors="replace").rstrip("\n"))
        log.close()


def _told(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
