"""Starting a child process that cannot outlive us, and looking at processes and ports.

Knows sessions, signals and the parent-death signal of Linux. Does not know what is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.ports import port_at
from record.errors import Misconfigured

PR_SET_PDEATHSIG = 1
LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if LINUX else None


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system account that a server runs under when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(slots=True)
class StopRequest:
    """Whether SIGINT or SIGTERM arrived, and how often; the second one means: at once."""

    count: int = 0
    _former: dict[int, object] = field(default_factory=dict)

    def listen(self) -> None:
        """Count both signals from now on. Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    def check(self) -> None:
        """Leave the start-up if somebody has asked for the end meanwhile."""
        if self.count:
            raise Stopped


class Stopped(Exception):
    """The person at the terminal (or the service manager) wants the end."""


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    output: int | IO[bytes],
    death_signal: signal.Signals,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; on Linux the kernel ends it when we die, however we die.

    The death signal follows the *thread* that creates the child, so call it from the main thread only.
    """
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # the identity is optional
        [str(argument) for argument in argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
        preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509  two system calls, nothing that takes a lock
        **identity,
    )


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child calls so that the kernel ends it when this process dies, however it dies; None where none can (not Linux)."""
    if _libc is None:
        return None
    prctl, parent, number = _libc.prctl, os.getpid(), int(death_signal)

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)  # a change of uid clears it, and Popen calls us after that change
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def end(process: subprocess.Popen[bytes], number: signal.Signals, *, within_s: float, hurry: StopRequest) -> bool:
    """Ask a process to end; kill its group when it does not. Returns whether it went by itself."""
    if process.poll() is None:
        process.send_signal(number)
    by_itself = wait_until(lambda: process.poll() is not None, within_s=within_s, unless=lambda: hurry.count > 1)
    kill_group(process.pid)
    process.wait()
    return by_itself


def kill_group(leader: int) -> None:
    """Kill what is left of a session that one of our children led."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def wait_until(
    condition: Callable[[], bool], *, within_s: float, unless: Callable[[], bool] = lambda: False, every_s: float = 0.02
) -> bool:
    """Look again and again until the condition holds; False when time is over or `unless` holds first."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline or unless():
            return False
        time.sleep(every_s)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process of this number exists and is more than a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if LINUX:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (OSError, IndexError):
            return False
    return True


def command_line(pid: int) -> str:
    """The command line of a process, empty when it is gone. Slim Linux images have no `ps`."""
    try:
        if LINUX:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        listing = ["ps", "-o", "args=", "-p", str(pid)]
        return subprocess.run(listing, check=False, capture_output=True, text=True).stdout
    except OSError:
        return ""


def free_port(preferred: int | None = None) -> int:
    """The preferred loopback port if it is free, else one the system picks."""
    for wanted in (preferred or 0, 0):
        with contextlib.suppress(OSError):
            return port_at("127.0.0.1", wanted)
    raise Misconfigured("No free port on 127.0.0.1: are very many programs listening, or is loopback down?")


def fresh_log(path: Path) -> IO[bytes]:
    """An empty log for a new start, so that a failure's reason is this start's; the former one is kept beside it."""
    if path.exists():
        path.replace(path.with_suffix(".former.log"))
    return path.open("wb")


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for the error that needs them."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 20_000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
