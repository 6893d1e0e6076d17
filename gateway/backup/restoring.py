"""Putting a backup back: into an empty data folder, or into servers and folders of one's own.

Files first, each held against its sha256; the database last and in one transaction, so that nothing works on half a
record. Then instances that came while the backup was taken, whose files are there without a row, go back into a spool.

What only made sense in the life that is over ends: browser sessions with what was searched for in them, and the lists of
running parts and workers. That the record was put back is an event of its own. Does not know where the servers come from.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from gateway.backup.shelf import HEADS, TELL_EVERY_S, Backup, Places, Tell, side_by_side, spooled
from gateway.backup.source import Unreadable, opened
from gateway.respool import respool
from gateway.spool import Spool
from record import dump, migrate
from record.access import SYSTEM
from record.audit import SEAL_KEY
from record.db import connect
from record.durable import copy_durably, digest_of, sync_folder
from record.errors import Misconfigured, NotFound, StoreFull
from record.ids import new_id
from record.store import Kind, Store

MARGIN_BYTES = 256 * 1024 * 1024
_LIVING = ("workers", "parts")
_KEEPS_SEARCHES = (
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'user_sessions'::regclass AND attname = 'search')"
)
"""An older release kept none."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it: files that were put back, those the backup holds damaged, and instances put back into a spool."""

    files: int
    damaged: tuple[str, ...] = ()
    respooled: int = 0


def check(backup: Backup) -> None:
    """Read what everything else hangs on, before anything is touched.

    Raises
    ------
    Misconfigured
        A later release wrote it, or its listing, its database or its secrets are damaged.
    """
    own = migrate.own_revision()
    if int(backup.dump.revision) > int(own):
        raise Misconfigured(
            f"The backup was written by a later release, or on its schema ({backup.version}, schema {backup.dump.revision}; "
            f"this one brings {own}). Install that release, then restore."
        )
    listed = dict(backup.own())
    if absent := [name for name in backup.dump.tables if f"database/{name}{dump.SUFFIX}" not in listed]:
        raise Misconfigured(f"The backup is damaged: it lists no table {absent[0]}. Restore another one.")
    for path, sha256 in listed.items():
        if path.startswith("spool/"):
            continue
        try:
            with (backup.folder / path).open("rb") as content:
                found = digest_of(content)
        except OSError:
            found = ""
        if found != sha256:
            raise Misconfigured(f"The backup is damaged: {backup.folder / path}. Restore another one.")


def require_place_for_key(backup: Backup, places: Places) -> None:
    """Refuse to put a sealed record back without its key, which would be gone with the backup.

    Raises
    ------
    Misconfigured
        There is no folder of secrets.
    """
    if places.secrets is None and backup.holds_key():
        raise Misconfigured(
            f"The backup holds the key of the seals, and there is no place for it: without {SEAL_KEY} the record could be "
            "neither verified nor continued. Name a folder for it in COUNTERSIGN_SECRETS; nothing was changed."
        )


def require_room(backup: Backup, folder: Path, *, database: bool) -> None:
    """Refuse before anything is written what cannot fit; what an interrupted try has put there already counts."""
    needed = backup.bytes + MARGIN_BYTES + 2 * backup.dump.database_bytes * database
    needed -= sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreFull(
            f"{folder} has {free / 1e6:,.0f} MB free and the backup needs {needed / 1e6:,.0f} MB. Choose another place."
        )


def files(backup: Backup, places: Places, *, tell: Tell) -> Restored:
    """Put back everything outside the database. It may be repeated: what is there and right is left.

    What a store holds besides is left as well: it survived, and gets its rows as any stored instance without one.

    Raises
    ------
    StoreFull
        There is no room.
    """
    done, damaged = 0, []
    try:
        for path, sha256 in backup.own():
            target = _target(places, path)
            if target is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _is_to_stay(backup.folder / path, target, tell):
                continue
            if not _copied(backup.folder / path, target, sha256):
                damaged.append(path)
            done += 1
        for folder in {place for place in (places.secrets, places.spool) if place and place.is_dir()}:
            for each in (folder, *(below for below in folder.rglob("*") if below.is_dir())):
                sync_folder(each)
        more = _stored(backup, places, tell)
    except (OSError, StoreFull) as error:
        cause = error.__cause__ if isinstance(error, StoreFull) else error
        why = f"{cause.strerror} ({cause.filename or places.store})" if isinstance(cause, OSError) else error
        raise StoreFull(f"Not everything was put back: {why}. Mend that and restore again.") from error
    return Restored(done + more.files, (*damaged, *more.damaged))


def database(
    backup: Backup, restored: Restored, places: Places, owner_url: str | SecretStr, url: str | SecretStr, *, tell: Tell
) -> Restored:
    """Put back the record, bring it to this release's schema, and let the indexer make the rows that are missing.

    Raises
    ------
    Conflict
        The database holds a record.
    Misconfigured
        What was loaded is not what was dumped.
    """
    tell(f"the database: {backup.dump.rows} rows")

    def begin_anew(session: Session) -> None:
        session.execute(text("UPDATE user_sessions SET ended_at = now() WHERE ended_at IS NULL"))
        if session.scalar(text(_KEEPS_SEARCHES)):
            session.execute(text("UPDATE user_sessions SET search = NULL"))
        for table in _LIVING:
            if session.scalar(text("SELECT to_regclass(:table)").bindparams(table=table)) is not None:
                session.execute(text(f"DELETE FROM {table}"))  # noqa: S608  constants of ours
        facts = {"backup": backup.stamp, "position": backup.dump.position, "head": backup.dump.head}
        session.execute(  # in SQL, because the schema may be an older release's
            text("INSERT INTO events (id, kind, actor_kind, facts) VALUES (:id, 'record_restored', :by, :facts)"),
            {"id": new_id(), "by": SYSTEM.kind, "facts": json.dumps({**facts, "damaged": len(restored.damaged)})},
        )

    dump.load(owner_url, backup.folder / "database", backup.dump, then=begin_anew)
    migrate.upgrade(owner_url)
    if places.spool is None:
        return restored
    engine = connect(url, pool=1)
    try:
        return replace(restored, respooled=respool(engine, Store(places.store), places.spool))
    finally:
        engine.dispose()


def _target(places: Places, path: str) -> Path | None:
    """Where a file beside the store and the database belongs; None where it is not wanted."""
    room, _, below = path.partition("/")
    if room == HEADS:
        return places.heads_file
    if room == "secrets":
        return _inside(places.secrets, below) if places.secrets else None
    if (found := spooled(path)) and places.spool is not None:
        number, room, name = found
        single = (places.spool / "ready").is_dir()  # the spool of one dead listener
        spool = Spool(places.spool if single else _inside(places.spool, number))
        spool.make()
        target = _inside(spool.folder, room, name)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        return target
    return None


def _inside(folder: Path, *names: str) -> Path:
    """A path below a folder; whatever the names are, it does not lead out of it."""
    path = Path(os.path.normpath(folder.joinpath(*names)))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise Misconfigured(f"The backup names a file outside of {folder}. Use another one; nothing was written there.")
    return path


def _is_to_stay(source: Path, target: Path, tell: Tell) -> bool:
    """Whether something that survived, in a folder of one's own, is better than the backup's.

    Seal heads that go on where the backup's end know what is lost. Anything else of that name is kept aside.
    """
    if target.name not in {HEADS, SEAL_KEY} or not target.is_file() or not source.is_file():
        return False
    there, kept = target.read_bytes(), source.read_bytes()
    if there == kept or (target.name == HEADS and there.startswith(kept)):
        return there != kept
    aside = target.with_name(f"{target.name}.before-restore")
    if not aside.exists():
        target.rename(aside)
        tell(f"what was {target} is kept as {aside.name}")
    return False


def _copied(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file unless it is there and right; False where the backup's own is gone or damaged."""
    if target.is_file():
        with target.open("rb") as content:
            if digest_of(content) == sha256:
                return True
    try:
        with source.open("rb") as content:
            _, found = copy_durably(content, target)
    except FileNotFoundError:
        return False
    if found != sha256:
        target.unlink()
    return found == sha256


def _stored(backup: Backup, places: Places, tell: Tell) -> Restored:
    source, target = backup.shelf.store(), Store(places.store)
    done, damaged, told_at = 0, [], time.monotonic()
    for (kind, key, _), is_good in side_by_side(lambda one: _put_back(source, target, *one), backup.stored()):
        done += 1
        if not is_good:
            damaged.append(f"store/{kind}/{key}")
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            tell(f"the store: {done} of {backup.files} files")
    tell(f"the store: {done} files")
    return Restored(done, tuple(damaged))


def _put_back(source: Store, target: Store, kind: Kind, key: str, sha256: str) -> bool:
    """One stored file, unless it is there and right; False where the backup's own is gone or damaged."""
    if target.size_bytes(kind, key) is not None:
        with target.open(kind, key) as content:
            if digest_of(content) == sha256:
                return True
    try:
        with opened(source, kind, key) as content:
            found = target.copy_in(kind, key, content)
    except (NotFound, Unreadable):
        found = ""
    if found != sha256:
        target.delete(kind, key)
    return found == sha256
