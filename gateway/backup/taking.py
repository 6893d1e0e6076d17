"""Taking a backup of a run, while it works or while it is down.

The order makes loss impossible. The seal heads go first, so that none is newer than the chain that is kept; then the
database, in one snapshot; then the spools; then the store. An instance that was acknowledged before the backup began has
its row in the snapshot, or its file in a spool, or has moved from there into the store meanwhile, which is copied last; a
file that comes twice does no harm, since its id says that it is the same.

A backup of a run that lost files is kept, and what is wrong is named: until that is mended no older one may go.

Knows the places of a run. Does not know how a backup is put back.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateway import notices, spool
from gateway.backup.shelf import FORMAT, HEADS, LISTING, MANIFEST, Backup, Places, Shelf, Tell, discard
from gateway.backup.stored import Stored
from record import dump, migrate
from record.audit import SEAL_KEY, head
from record.dump import Dump
from record.durable import copy_durably, digest_of, sync_folder, write_private
from record.errors import Misconfigured, StoreFull
from record.owner import own_version
from record.store import Kind, Store

MARGIN_BYTES = 64 * 1024 * 1024
_HARMLESS = re.compile(r"[!-.0-~]+")
"""A name that a listing can hold."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A whole backup, and what is wrong with the run that it was taken of: as long as there is, older ones must stay."""

    backup: Backup
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class _Taking:
    """One backup in the making: its listing and what it counted."""

    shelf: Shelf
    folder: Path
    tell: Tell
    lines: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, path: Path, size: int, sha256: str) -> None:
        """One file of the backup."""
        self.lines.append(f"{sha256}  {path.relative_to(self.shelf.root).as_posix()}\n")
        self.bytes += size

    def copy(self, source: Path, *below: str) -> None:
        """One file beside the store; a spooled one may have gone into the store meanwhile."""
        target = self.folder.joinpath(*below)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with source.open("rb") as content:
                size, sha256 = copy_durably(content, target)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self.tell(f"{source} is no file and was left out")
            return
        self.add(target, size, sha256)


def take(engine: Engine, places: Places, shelf: Shelf, *, tell: Tell) -> Taken:
    """Write one backup; returns when it is whole and durable.

    Raises
    ------
    Misconfigured
        The folder is not usable, the seal key is not at hand, or the database has no schema, or that of a later release.
    Conflict
        Another backup is being written there.
    StoreFull
        The backup's disk has no room, now or on the way; the former backups are as good as before.
    """
    _require_apart(places, shelf)
    _require_schema(engine, tell)
    _require_key(engine, places)
    try:
        shelf.make()
        with shelf.locked():
            _clear(shelf)
            source = Store(places.store)
            _require_room(engine, places, shelf, source)
            taking = _Taking(shelf, shelf.begin(), tell)
            if places.heads_file is not None:
                taking.copy(places.heads_file, HEADS)
            _notices(taking, places)
            kept = _database(taking, engine)
            _spools(taking, places)
            _secrets(taking, places)
            stored = Stored(engine, source, shelf.store(), _known_to(shelf), taking.add, tell)
            stored.copy()
            stored.hold_against_rows(kept)
            return Taken(_finish(taking, kept, stored.missing), tuple(stored.faults))
    except (OSError, StoreFull) as error:
        cause = error.__cause__ if isinstance(error, StoreFull) else error
        if not isinstance(cause, OSError):
            raise  # there was no room from the first
        raise StoreFull(
            f"The backup was not finished: {cause.strerror} ({cause.filename or shelf.root}). Mend that and take it again; what is copied "
            "already is not copied anew, and the former backups are as good as before."
        ) from error


def _require_apart(places: Places, shelf: Shelf) -> None:
    for place in (places.store, places.spool, places.secrets, *places.around):
        if place is not None and shelf.root.is_relative_to(place.resolve()):
            raise Misconfigured(f"{shelf.root} lies in what is to be backed up ({place}). Name another folder.")


def _require_schema(engine: Engine, tell: Tell) -> None:
    """An older schema's backup is the one before an upgrade; a later one's could not be put back by this release."""
    own = migrate.own_revision()
    with engine.connect() as connection:
        there = migrate.schema_of(connection)
    if not there.is_newer_than(own):
        return
    if not there.takes(own):
        migrate.require_current(engine)
    tell(f"the schema is the next release's ({there.revision}): only that release can put this backup back")


def _require_key(engine: Engine, places: Places) -> None:
    """Seals that nobody can check or go on with are no seals."""
    if places.secrets is not None and (places.secrets / SEAL_KEY).is_file():
        return
    with Session(engine) as session:
        if head(session).position:
            raise Misconfigured(
                "The key of the seals belongs into the backup: without it the restored record could be neither verified nor "
                f"continued. Name the folder that holds {SEAL_KEY} in COUNTERSIGN_SECRETS."
            )


def _clear(shelf: Shelf) -> None:
    """What an interrupted backup left goes, but for the store's files, which the next one uses."""
    interrupted = shelf.unfinished()
    for folder in interrupted:
        discard(folder)
    if interrupted:
        shelf.store().clear()


def _known_to(shelf: Shelf) -> dict[str, str]:
    """What all backups that can be read list of the shared store; where they differ, the newest counts."""
    known: dict[str, str] = {}
    for folder in shelf.whole():
        with contextlib.suppress(Misconfigured):
            known.update((key, sha256) for _, key, sha256 in shelf.read(folder).stored())
    return known


def _require_room(engine: Engine, places: Places, shelf: Shelf, source: Store) -> None:
    target = shelf.store()
    needed = dump.database_bytes(engine) + MARGIN_BYTES
    needed += sum(path.stat().st_size for path in _spooled(places))
    for kind in Kind:
        for key in source.list(kind):
            if target.size_bytes(kind, key) is None:
                with contextlib.suppress(OSError):  # named when it is copied
                    needed += source.size_bytes(kind, key) or 0
    free = target.free_bytes()
    if free < needed:
        raise StoreFull(
            f"{shelf.root} has {_mb(free)} free, and the backup may need {_mb(needed)}. Make room (`--keep` removes older "
            "backups when a new one is whole), or choose another --to. Nothing was written."
        )


def _database(taking: _Taking, engine: Engine) -> Dump:
    taking.tell("the database")
    folder = taking.folder / "database"
    folder.mkdir(mode=0o700)
    kept = dump.take(engine, folder)
    for path in sorted(folder.iterdir()):
        with path.open("rb") as content:
            taking.add(path, path.stat().st_size, digest_of(content))
    taking.tell(f"the database: {len(kept.tables)} tables, {kept.rows} rows")
    return kept


def _spooled(places: Places) -> Iterator[Path]:
    """Every durable file in the spools, and what is kept aside there."""
    for each in spool.find(places.spool) if places.spool else []:
        yield from each.waiting()
        yield from (path for path in sorted(each.quarantine.glob("*.dcm")) if _HARMLESS.fullmatch(path.name))


def _notices(taking: _Taking, places: Places) -> None:
    """What senders asked besides images, before the database is read: a notice that gets its row meanwhile is in both, which is one."""
    for each in spool.find(places.spool) if places.spool else []:
        for path in notices.kept(each.folder):
            taking.copy(path, "spool", each.folder.name, notices.FOLDER, path.name)


def _spools(taking: _Taking, places: Places) -> None:
    for path in list(_spooled(places)):
        taking.copy(path, "spool", path.parent.parent.name, path.parent.name, path.name)


def _secrets(taking: _Taking, places: Places) -> None:
    """The key of the seals; the passwords and certificates beside it belong to the installation, not to the record."""
    if places.secrets is not None:
        taking.copy(places.secrets / SEAL_KEY, "secrets", SEAL_KEY)


def _finish(taking: _Taking, kept: Dump, missing: int) -> Backup:
    """The listing, then every folder's names, and last the manifest: only now it is a backup."""
    lines = sorted(taking.lines, key=lambda line: line.partition("  ")[2])
    _, sha256 = copy_durably(io.BytesIO("".join(lines).encode()), taking.folder / LISTING)
    for folder in (*(each for each in taking.folder.rglob("*") if each.is_dir()), taking.folder):
        sync_folder(folder)
    told = {
        "format": FORMAT,
        "version": own_version(),
        "database": kept.as_dict(),
        "files": len(taking.lines),
        "bytes": taking.bytes,
        "missing": missing,
        "listing_sha256": sha256,
    }
    write_private(taking.folder / MANIFEST, json.dumps(told, indent=1) + "\n")
    return taking.shelf.read(taking.folder)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
