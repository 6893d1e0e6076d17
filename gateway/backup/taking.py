"""Taking a backup of a run, while it works or while it is down.

The order makes loss impossible. The seal heads go first, so that none is newer than the chain that is kept; then the
database, in one snapshot; then the spools; then the store. An instance that was acknowledged before the backup began has
its row in the snapshot, or its file in a spool, or has moved from there into the store meanwhile, which is copied last; a
file that comes twice does no harm, since its id says that it is the same.

Knows the places of a run. Does not know how a backup is put back.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateway import spool
from gateway.backup.shelf import (
    FORMAT,
    HEADS,
    LISTING,
    MANIFEST,
    Backup,
    Places,
    Shelf,
    copy_durably,
    digest_of,
    discard,
    side_by_side,
)
from gateway.launcher.folder import write_private
from gateway.spool import sync_folder
from record import dump
from record.audit import SEAL_KEY, head
from record.dump import Dump
from record.errors import Misconfigured, NotFound, StoreFull
from record.models import Instance, Reading, ReadingPicture
from record.owner import own_version
from record.store import Kind, Store

MARGIN_BYTES = 64 * 1024 * 1024
TELL_EVERY_S = 5.0
Tell = Callable[[str], None]


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
        self.add(target, size, sha256)


def take(engine: Engine, places: Places, shelf: Shelf, *, tell: Tell) -> Backup:
    """Write one backup; returns when it is whole and durable.

    Raises
    ------
    Misconfigured
        The folder is not usable, the seal key is not at hand, or the database has no schema.
    Conflict
        Another backup is being written there.
    StoreFull
        The backup's disk has no room, now or on the way; the former backups are as good as before.
    """
    _require_apart(places, shelf)
    _require_key(engine, places)
    try:
        shelf.make()
        with shelf.locked():
            _clear(shelf)
            source, former = Store(places.store), _digests_of(shelf)
            _require_room(engine, places, shelf, source)
            taking = _Taking(shelf, shelf.begin(), tell)
            if places.heads_file is not None:
                taking.copy(places.heads_file, HEADS)
            kept = _database(taking, engine)
            _spools(taking, places)
            _secrets(taking, places)
            _stored(taking, source, former)
            return _finish(taking, kept, _missing(engine, shelf.store(), kept))
    except (OSError, StoreFull) as error:
        cause = error.__cause__ if isinstance(error, StoreFull) else error
        if not isinstance(cause, OSError):
            raise  # there was no room from the first
        raise StoreFull(
            f"The backup was not finished: {cause.strerror} in {shelf.root}. Mend that and take it again; what is copied "
            "already is not copied anew, and the former backups are as good as before."
        ) from error


def _require_apart(places: Places, shelf: Shelf) -> None:
    for place in (places.store, places.spool, places.secrets):
        if place is not None and shelf.root.is_relative_to(place.resolve()):
            raise Misconfigured(f"{shelf.root} lies in what is to be backed up ({place}). Name another folder.")


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


def _digests_of(shelf: Shelf) -> dict[str, str]:
    """What the newest backup that can be read knows of the shared store."""
    for folder in reversed(shelf.whole()):
        with contextlib.suppress(Misconfigured):
            return {key: sha256 for _, key, sha256 in shelf.read(folder).stored()}
    return {}


def _require_room(engine: Engine, places: Places, shelf: Shelf, source: Store) -> None:
    target = shelf.store()
    needed = dump.database_bytes(engine) + MARGIN_BYTES
    needed += sum(path.stat().st_size for path in _spooled(places))
    for kind in Kind:
        for key in source.list(kind):
            if target.size_bytes(kind, key) is None:
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
        yield from sorted(each.quarantine.glob("*.dcm"))


def _spools(taking: _Taking, places: Places) -> None:
    for path in list(_spooled(places)):
        taking.copy(path, "spool", path.parent.parent.name, path.parent.name, path.name)


def _secrets(taking: _Taking, places: Places) -> None:
    """The key of the seals; the passwords and certificates beside it belong to the installation, not to the record."""
    if places.secrets is not None:
        taking.copy(places.secrets / SEAL_KEY, "secrets", SEAL_KEY)


def _stored(taking: _Taking, source: Store, former: dict[str, str]) -> None:
    """The store: what the shelf has is left there, what it lacks is copied."""
    target, copied, seen, told_at = taking.shelf.store(), 0, 0, time.monotonic()
    keys = ((kind, key) for kind in Kind for key in source.list(kind))
    for (kind, key), (sha256, is_new) in side_by_side(lambda one: _keep(source, target, *one, former), keys):
        if sha256 is None:
            continue  # erased meanwhile
        with target.local(kind, key) as path:
            taking.add(path, path.stat().st_size, sha256)
        seen, copied = seen + 1, copied + is_new
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            taking.tell(f"the store: {seen} files, {copied} of them new, {_mb(taking.bytes)}")
    taking.tell(f"the store: {seen} files, {copied} of them new")


def _keep(source: Store, target: Store, kind: Kind, key: str, former: dict[str, str]) -> tuple[str | None, bool]:
    """One stored file: its sha256 in the backup, and whether it was copied now."""
    size = target.size_bytes(kind, key)
    is_there = size is not None and size == source.size_bytes(kind, key)
    if is_there and key in former:
        return former[key], False
    try:
        with source.open(kind, key) as content:
            if is_there:  # an interrupted backup's
                with target.open(kind, key) as copied:
                    sha256 = digest_of(copied)
                if sha256 == digest_of(content):
                    return sha256, False
                content.seek(0)
            return target.copy_in(kind, key, content), True
    except NotFound:
        return None, False


def _missing(engine: Engine, target: Store, kept: Dump) -> int:
    """How many files the kept rows speak of and the backup lacks, without those that were erased meanwhile."""
    before = text("CAST(:taken_at AS timestamptz)").bindparams(taken_at=kept.taken_at)
    instances = select(Instance.id).where(
        Instance.duplicate_of_id.is_(None), Instance.erased_at.is_(None), Instance.created_at < before
    )
    pictures = (
        select(ReadingPicture.sha256)
        .join(Instance, Instance.id == ReadingPicture.instance_id)
        .join(Reading, Reading.id == ReadingPicture.reading_id)
        .where(Instance.erased_at.is_(None), Reading.prepared_at < before)
        .distinct()
    )
    missing = 0
    with Session(engine) as session:
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            session.execute(text(f"SET LOCAL {setting} = 0"))
        for instance_id in session.scalars(instances).yield_per(1000):
            missing += target.size_bytes(Kind.INSTANCE, instance_id.hex) is None
        for sha256 in session.scalars(pictures).yield_per(1000):
            missing += target.size_bytes(Kind.PICTURE, sha256) is None
    return missing


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
