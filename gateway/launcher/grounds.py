"""Where the servers keep their files, and as whom they run.

PostgreSQL refuses to run as root, so root hands both servers to an unprivileged account. That account must reach the
data folder and the programs; where it cannot (a clone or a folder under a home of mode 0700), the files go to the
system's state folder and the programs are copied there. No folder of the user's is ever opened wider.

Does not know how a server is started, nor which.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gateway.launcher.binaries import ServerProgram
from gateway.launcher.processes import Account
from record.errors import Misconfigured
from record.settings import EmbeddedSettings, load

SYSTEM_STATE = Path("/var/lib/countersign")


@dataclass(frozen=True, slots=True)
class Grounds:
    """One run's place for its servers: folder, logs, account (None when we are not root), and whose data folder it is."""

    home: Path
    logs: Path
    account: Account | None
    data_folder: Path

    def folder(self, name: str) -> Path:
        """A folder that belongs to the servers' account alone."""
        path = self.home / name
        path.mkdir(exist_ok=True, mode=0o700)
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Make the servers' account the owner of a path."""
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def usable(self, program: ServerProgram) -> Path:
        """The program itself, or a copy of its package where the account can reach it."""
        if self.account is None or can_reach(self.account, program.executable.parent):
            return program.executable
        stat = program.executable.stat()
        tag = f"{program.executable.name}-{stat.st_size:x}-{int(stat.st_mtime):x}"  # a new version gets a new copy
        kept = SYSTEM_STATE / "programs" / tag
        if not kept.exists():
            _copy(program, kept)
        return kept / program.executable.relative_to(program.root)


def settle(data_folder: Path, logs: Path) -> Grounds:
    """Decide account and folder for the servers of one data folder."""
    if os.geteuid() != 0:
        return Grounds(data_folder, logs, None, data_folder)
    account = _unprivileged_account()
    home = data_folder
    if not can_reach(account, data_folder):
        tag = hashlib.sha256(str(data_folder).encode()).hexdigest()[:10]
        home = SYSTEM_STATE / f"servers-{tag}"
        home.mkdir(parents=True, exist_ok=True)
        for passable in (SYSTEM_STATE, home):
            passable.chmod(0o711)
        if not can_reach(account, home):
            raise Misconfigured(
                f"The account {account.name} reaches neither {data_folder} nor {home}. Choose a --data-dir that it can "
                "enter (mode 0711), or set DATABASE_URL and REDIS_URL."
            )
    return Grounds(home, logs, account, data_folder)


def can_reach(account: Account, folder: Path) -> bool:
    """Whether the account may enter a folder."""
    entered = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
        check=False,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )
    return entered.returncode == 0


def _unprivileged_account() -> Account:
    for name in (load(EmbeddedSettings).os_user, "postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name) if name else None
        except KeyError:
            continue
        if entry:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise Misconfigured(
        "PostgreSQL refuses to run as root and there is neither a postgres nor a nobody account. Name one in "
        "EMBEDDED_OS_USER, run as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )


def _copy(program: ServerProgram, kept: Path) -> None:
    """Copy a program's tree with the shared objects a repaired wheel keeps beside itself; whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    SYSTEM_STATE.chmod(0o711)
    inside = program.tree.relative_to(program.root)
    unfinished = Path(tempfile.mkdtemp(dir=kept.parent, prefix="copying-"))
    unfinished.chmod(0o755)
    shutil.copytree(program.tree, unfinished / inside, symlinks=True)
    libraries = program.root / f"{inside.parts[0]}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name)
    try:
        unfinished.rename(kept)
    except OSError:  # somebody else finished first
        shutil.rmtree(unfinished)
