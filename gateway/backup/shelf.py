"""Where backups lie: one folder of them, a store that they share, and what each of them consists of.

    DIR/store/                     instances and pictures of all backups: they never change, so each is copied once
    DIR/20261125T214500.123Z/      one backup
        database/TABLE.copy.gz     every table, as `record.dump` writes it
        spool/NN/ready|quarantine/ instances that had no row yet
        spool/NN/notices/         what senders asked besides, and had no row yet
        secrets/seal.key, heads.log the seal key, and the seal heads kept outside the database
        files.sha256               every file and its sha256, with paths from DIR (`sha256sum -c` reads it)
        manifest.json              what it is; written last, so a backup without it is an interrupted one

A listing is text that anybody may have written: what it names is one of these, or it is refused. Does not know how a
backup is taken or put back.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from record.audit import SEAL_KEY
from record.dump import SUFFIX, Dump
from record.durable import digest_of, sync_folder
from record.errors import Conflict, Misconfigured
from record.store import Kind, Store

FORMAT = 1
MANIFEST = "manifest.json"
LISTING = "files.sha256"
HEADS = "heads.log"
_AT_A_TIME = 16
TELL_EVERY_S = 5.0
Tell = Callable[[str], None]
"""Says to whoever waits how far it is, every so many seconds."""
_BATCH = 512
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")
_STAMP = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_STORED = re.compile(
    rf"store/(?:({Kind.INSTANCE})/(?:[0-9a-f]{{2}}/)*([0-9a-f]{{32}})\.dcm|"
    rf"({Kind.PICTURE})/(?:[0-9a-f]{{2}}/)*([0-9a-f]{{64}})\.png)"
)
_PLAIN = r"[^/\x00-\x1f\x7f]+"
_SPOOLED = re.compile(
    rf"spool/((?!\.{{1,2}}/){_PLAIN})/(?:(ready|quarantine)/({_PLAIN}\.dcm)|(notices)/({_PLAIN}\.(?:json|failed)))"
)
_SECRET = f"secrets/{SEAL_KEY}"
_OWN = re.compile(
    "|".join([_SPOOLED.pattern, re.escape(_SECRET), re.escape(HEADS), rf"database/[a-z_][a-z0-9_]*{re.escape(SUFFIX)}"])
)
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, slots=True)
class Places:
    """What a run keeps outside its database."""

    store: Path
    spool: Path | None
    secrets: Path | None
    heads_file: Path | None
    around: tuple[Path, ...] = ()
    """The folders that hold all of these, or the servers' own files."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One whole backup."""

    shelf: Shelf
    folder: Path
    version: str
    dump: Dump
    files: int
    bytes: int
    missing: int
    listing_sha256: str

    @property
    def stamp(self) -> str:
        """Its name: when it was begun."""
        return self.folder.name

    def listed(self) -> Iterator[tuple[str, str]]:
        """Every file's path from the shelf, and its sha256.

        Raises
        ------
        Misconfigured
            The listing is not the one that was written, or names what no backup of this name holds.
        """
        path = self.folder / LISTING
        try:
            with path.open("rb") as listing:
                if digest_of(listing) != self.listing_sha256:
                    raise Misconfigured(f"{path} is damaged: it is not what was written. Use another backup.")
                listing.seek(0)
                for line in listing:
                    found = _LINE.fullmatch(line.decode("utf-8", "replace").rstrip("\n"))
                    if found is None or not self._may_hold(found[2]):
                        raise Misconfigured(
                            f"{path} names what cannot belong to it. Was the folder renamed? Else use another backup."
                        )
                    yield found[2], found[1]
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}. Use another backup.") from None

    def _may_hold(self, path: str) -> bool:
        stamp, _, below = path.partition("/")
        return bool(_STORED.fullmatch(path) or (stamp == self.stamp and _OWN.fullmatch(below)))

    def stored(self) -> Iterator[tuple[Kind, str, str]]:
        """Every file of the shared store that belongs to it: kind, key, sha256."""
        for path, sha256 in self.listed():
            if found := _STORED.fullmatch(path):
                yield Kind(found[1] or found[3]), found[2] or found[4], sha256

    def own(self) -> Iterator[tuple[str, str]]:
        """Every file of its own folder, as a path from there, and its sha256."""
        for path, sha256 in self.listed():
            if path.startswith(self.stamp + "/"):
                yield path.removeprefix(self.stamp + "/"), sha256

    def holds_key(self) -> bool:
        """Whether the key of the seals is among its files."""
        return any(path == _SECRET for path, _ in self.own())


class Shelf:
    """A folder of backups."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    def store(self) -> Store:
        """The store that all backups share."""
        return Store(self.root / "store")

    def make(self) -> None:
        """Make the folder: whoever reads it can read everything."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misconfigured(f"{self.root} cannot be made: {error.strerror}.") from None
        if strangers := [each.name for each in self.root.iterdir() if not self._is_ours(each)]:
            raise Misconfigured(f"{self.root} holds other things ({strangers[0]} …). Name a folder for backups alone.")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Write to it alone."""
        with (self.root / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another backup is being written to {self.root}.") from None
            yield

    def whole(self) -> list[Path]:
        """The folders of every whole backup, the oldest first."""
        return [folder for folder in self._folders() if (folder / MANIFEST).is_file()]

    def backups(self) -> list[Backup]:
        """Every whole backup, the oldest first."""
        return [self.read(folder) for folder in self.whole()]

    def unfinished(self) -> list[Path]:
        """What interrupted backups left."""
        return [folder for folder in self._folders() if not (folder / MANIFEST).is_file()]

    def begin(self) -> Path:
        """A new backup's folder."""
        while True:
            with contextlib.suppress(FileExistsError):
                folder = self.root / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3]
                folder = folder.with_name(folder.name + "Z")
                folder.mkdir(mode=0o700)
                sync_folder(self.root)
                return folder
            time.sleep(0.001)

    def read(self, folder: Path) -> Backup:
        """What one whole backup says of itself.

        Raises
        ------
        Misconfigured
            It cannot be read, or a later release wrote it.
        """
        path = folder / MANIFEST
        try:
            told: dict[str, Any] = json.loads(path.read_bytes())
            if told["format"] > FORMAT:
                raise Misconfigured(f"{folder} was written by a later release ({told['version']}). Use that one.")
            return Backup(
                self,
                folder,
                str(told["version"]),
                Dump.of(told["database"]),
                int(told["files"]),
                int(told["bytes"]),
                int(told["missing"]),
                str(told["listing_sha256"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Misconfigured(
                f"{path} cannot be read ({type(error).__name__}): it is no backup's manifest. Use another backup, and remove "
                "the folder of this one."
            ) from None

    def prune(self, keep: int) -> tuple[int, int]:
        """Remove all but so many of the newest; returns how many backups went, and how many stored files with them.

        Raises
        ------
        Conflict
            An older one holds far more than the newest: whoever is sure that this is right removes it by hand.
        """
        backups = self.backups()
        older, newest = backups[:-keep], _count(backups[-1])
        for backup in older:
            if _count(backup) > 2 * newest:
                raise Conflict(
                    f"Nothing was removed: {backup.folder} holds {_count(backup)} stored files, and the newest backup only "
                    f"{newest}. If that is right, remove that folder yourself."
                )
        return len(older), self.forget(older)

    def forget(self, backups: list[Backup]) -> int:
        """Remove backups, and from the store what no other one needs; returns how many files went."""
        for backup in backups:
            discard(backup.folder)
        needed = {(kind, key) for backup in self.backups() for kind, key, _ in backup.stored()}
        store, gone = self.store(), 0
        for kind in Kind:
            for key in list(store.list(kind)):
                if (kind, key) not in needed:
                    gone += store.delete(kind, key)
        return gone

    def _folders(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(each for each in self.root.iterdir() if _STAMP.fullmatch(each.name))
        return []

    def _is_ours(self, path: Path) -> bool:
        return path.name in {"store", ".lock", "lost+found"} or bool(_STAMP.fullmatch(path.name))


def discard(folder: Path) -> None:
    """Remove a backup's folder, its manifest first, so that half of one never passes for a whole one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    sync_folder(folder)
    shutil.rmtree(folder)


def _count(backup: Backup) -> int:
    """How many stored files a backup lists; a damaged one none."""
    try:
        return sum(1 for _ in backup.stored())
    except Misconfigured:
        return 0


def find(path: Path) -> Backup:
    """The backup that a person means: a folder of backups means its newest whole one.

    Raises
    ------
    Misconfigured
        There is none.
    """
    path = path.expanduser().resolve()
    try:
        if (path / MANIFEST).is_file():
            return Shelf(path.parent).read(path)
        shelf = Shelf(path)
        if whole := shelf.whole():
            return shelf.read(whole[-1])
        if _STAMP.fullmatch(path.name) or shelf.unfinished():
            raise Misconfigured(f"The backup in {path} is not whole: it was interrupted. Name another one.")
    except OSError as error:
        raise Misconfigured(f"{error.filename or path} cannot be read: {error.strerror}.") from None
    raise Misconfigured(f"{path} holds no backup. Was it written by `countersign backup --to`?")


def spooled(path: str) -> tuple[str, str, str] | None:
    """A spooled file's spool, room and name, by its path in a backup; None where it is something else."""
    found = _SPOOLED.fullmatch(path)
    return (found[1], found[2] or found[4], found[3] or found[5]) if found else None


def side_by_side(work: Callable[[_Given], _Made], many: Iterable[_Given]) -> Iterator[tuple[_Given, _Made]]:
    """Do the same to many files, several at a time, because flushing one is mostly waiting; in their order."""
    left = iter(many)
    with ThreadPoolExecutor(_AT_A_TIME, "copy") as pool:
        while batch := list(itertools.islice(left, _BATCH)):
            yield from zip(batch, pool.map(work, batch), strict=True)
