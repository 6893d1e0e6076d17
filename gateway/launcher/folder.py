"""The data folder of an embedded run: its layout, its lock, and the state that lets other commands find the run.

`run/state.json` (0600) holds ports, passwords and the environment of the parts; `environment_of` reads it for every
command with `--data-dir`. Knows no server and no part.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from record.durable import write_private
from record.errors import Misconfigured


@dataclass(slots=True)
class State:
    """What a run remembers between two starts, and what others may read while it is up."""

    passwords: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    owner_database_url: str = ""
    embedded: bool = True
    ready: bool = False
    demo: bool = False
    """Whether `countersign demo` made this folder: only there does it add its physician and its phantoms."""
    unfinished: str = ""
    """The command that was interrupted while it filled this folder, and that has to be repeated; else empty."""

    def password(self, name: str) -> str:
        """The password kept under this name, made when it is first asked for."""
        return self.passwords.setdefault(name, secrets.token_urlsafe(24))


class DataFolder:
    """One run's folder. As root others may pass through (the servers' account must), but not list it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.run = self.root / "run"
        self.logs = self.root / "logs"
        self.store = self.root / "store"
        self.spool = self.root / "spool"
        self.secrets = self.root / "secrets"
        self.heads_file = self.root / "heads.log"
        self._state_file = self.run / "state.json"

    def prepare(self) -> None:
        """Make the folder and what belongs into it."""
        self._make(self.root, self.run, self.secrets, self.store, self.spool, self.logs)
        key = self.secrets / "seal.key"
        if not key.exists() and not self.read_state().unfinished:  # a restore brings its own
            write_private(key, secrets.token_hex(32) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder; a second owner is told so."""
        with (self.run / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Misconfigured(
                    f"countersign is already running on {self.root}. Stop that one, or choose another --data-dir."
                ) from None
            yield

    @contextlib.contextmanager
    def filling(self, command: str) -> Iterator[State]:
        """Own a folder that counts only when this ends well; until then every other command asks for this one again."""
        self._make(self.root, self.run)
        with self.locked():
            state = self.read_state()
            state.unfinished = command
            self.write_state(state)
            self.prepare()
            yield state
            state.unfinished = ""
            self.write_state(state)

    def make(self) -> None:
        """Make the folder itself."""
        self._make(self.root)

    def is_running(self) -> bool:
        """Whether some process owns the folder now."""
        try:
            with (self.run / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read_state(self) -> State:
        """The remembered state; an empty one for a new folder."""
        try:
            remembered: dict[str, Any] = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            return State()
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{self._state_file} cannot be read ({type(error).__name__}).") from None
        return State(**{name: remembered[name] for name in State.__slots__ if name in remembered})

    def require_whole(self, state: State) -> None:
        """Refuse a folder that some command has filled in part.

        Raises
        ------
        Misconfigured
            It was interrupted; the message names it.
        """
        if state.unfinished:
            raise Misconfigured(f"{self.root} is not whole: a restore was interrupted. Repeat it: {state.unfinished}")

    def is_new(self) -> bool:
        """Whether nothing is kept here yet."""
        own = {self._state_file.with_name(self._state_file.name + ".new"), self.run / "lock"}
        return not any(path.is_file() and path not in own for path in self.root.rglob("*"))

    def _make(self, root: Path, *below: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            for private in below:
                private.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misconfigured(f"The data folder {self.root} cannot be made: {error.strerror}.") from None

    def write_state(self, state: State) -> None:
        """Replace the remembered state; durable when it returns, for it holds the servers' passwords."""
        write_private(self._state_file, json.dumps(asdict(state), indent=1) + "\n")


def environment_of(root: Path, *, owner: bool = False) -> dict[str, str]:
    """The environment a command needs to work on the run in this folder; `owner` adds the migrating role's URL."""
    folder = DataFolder(root)
    if not folder.run.is_dir():
        raise Misconfigured(f"{folder.root} is no data folder of countersign. Was it made by `countersign up`?")
    state = folder.read_state()
    folder.require_whole(state)
    if not state.environment or (state.embedded and not folder.is_running()):
        raise Misconfigured(
            f"The servers of {folder.root} are not running. Start them with `countersign up --data-dir {folder.root}`."
        )
    owner_url = {"COUNTERSIGN_OWNER_DATABASE_URL": state.owner_database_url} if owner else {}
    return state.environment | owner_url


def stopped_environment_of(root: Path) -> dict[str, str] | None:
    """Where a run that is stopped keeps what it keeps; None where it runs, or was never whole."""
    folder = DataFolder(root)
    if not holds_run(root):
        return None
    state = folder.read_state()
    is_stopped = state.embedded and state.environment and not state.unfinished and not folder.is_running()
    return state.environment if is_stopped else None


def holds_run(root: Path) -> bool:
    """Whether `countersign up` has ever kept a run in this folder."""
    return os.path.isfile(DataFolder(root).run / "state.json")


def default_folder() -> Path:
    """Where `countersign up` keeps a run when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/countersign/data")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "countersign"
