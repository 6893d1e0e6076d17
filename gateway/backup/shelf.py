"""Where backups lie: one folder of them, a store that they share, and what each of them consists of.

    DIR/store/                     instances and pictures of all backups: they never change, so each is copied once
    DIR/20261125T214500.123Z/      one backup
        database/TABLE.copy.gz     every table, as `record.dump` writes it
        spool/NN/ready|quarantine/ instances that had no row yet
        secrets/seal.key, heads.log the seal key, and the seal heads kept outside the database
        files.sha256               every file and its sha256, with paths from DIR (`sha256sum -c` reads it)
        manifest.json              what it is; written last, so a backup without it is an interrupted one

Does not know how a backup is taken or put back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from gateway.spool import sync_folder
from record.dump import Dump
from record.errors import Conflict, Misconfigured
from record.store import Kind, Store

FORMAT = 1
MANIFEST = "manifest.json"
LISTING = "files.sha256"
HEADS = "heads.log"
_AT_A_TIME = 16
_BATCH = 512
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")
_STAMP = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_STORED = re.compile(r"store/(\w+)/.*/([0-9a-f]{32,64})\.\w+")


@dataclass(frozen=True, slots=True)
class Places:
    """What a run keeps outside its database."""

    store: Path
    spool: Path | None
    secrets: Path | None
    heads_file: Path | None


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
            The listing is not the one that was written.
        """
        path = self.folder / LISTING
        try:
            with path.open("rb") as listing:
                if digest_of(listing) != self.listing_sha256:
                    raise Misconfigured(f"{path} is damaged: it is not what was written. Use another backup.")
                listing.seek(0)
                for line in listing:
                    sha256, _, below = line.decode().rstrip("\n").partition("  ")
                    if ".." in below.split("/"):
                        raise Misconfigured(f"{path} names a file outside of the backup. Use another one.")
                    yield below, sha256
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}. Use another backup.") from None

    def stored(self) -> Iterator[tuple[Kind, str, str]]:
        """Every file of the shared store that belongs to it: kind, key, sha256."""
        for path, sha256 in self.listed():
            if found := _STORED.fullmatch(path):
                yield Kind(found[1]), found[2], sha256

    def own(self) -> Iterator[tuple[str, str]]:
        """Every file of its own folder, as a path from there, and its sha256."""
        for path, sha256 in self.listed():
            if path.startswith(self.stamp + "/"):
                yield path.removeprefix(self.stamp + "/"), sha256


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
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(
                f"{path} cannot be read ({type(error).__name__}): it is no backup's manifest. Use another backup, and remove "
                "the folder of this one."
            ) from None

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


def find(path: Path) -> Backup:
    """The backup that a person means: a folder of backups means its newest whole one.

    Raises
    ------
    Misconfigured
        There is none.
    """
    path = path.expanduser().resolve()
    if (path / MANIFEST).is_file():
        return Shelf(path.parent).read(path)
    shelf = Shelf(path)
    if whole := shelf.whole():
        return shelf.read(whole[-1])
    if _STAMP.fullmatch(path.name) or shelf.unfinished():
        raise Misconfigured(f"The backup in {path} is not whole: it was interrupted. Name another one.")
    raise Misconfigured(f"{path} holds no backup. Was it written by `countersign backup --to`?")


def copy_durably(source: IO[bytes], target: Path) -> tuple[int, str]:
    """Copy a stream into a new private file, whole or not at all; returns its size and sha256."""
    unfinished = target.with_name(f".{target.name}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    digest, size = hashlib.sha256(), 0
    with os.fdopen(descriptor, "wb") as out:
        while block := source.read(1 << 20):
            digest.update(block)
            size += out.write(block)
        out.flush()
        os.fsync(descriptor)
    os.replace(unfinished, target)
    return size, digest.hexdigest()


def digest_of(stream: IO[bytes]) -> str:
    """The sha256 of a stream."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # any reader will do


def side_by_side(work: Callable[[_Given], _Made], many: Iterable[_Given]) -> Iterator[tuple[_Given, _Made]]:
    """Do the same to many files, several at a time, because flushing one is mostly waiting; in their order."""
    left = iter(many)
    with ThreadPoolExecutor(_AT_A_TIME, "copy") as pool:
        while batch := list(itertools.islice(left, _BATCH)):
            yield from zip(batch, pool.map(work, batch), strict=True)
