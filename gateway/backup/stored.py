"""The store's files of one backup: which are copied, which the shelf has already, and what the rows say of them.

All backups of a shelf share one copy of each file, so a copy that a whole backup lists is never given up for what the run
happens to hold now: a disk that lost power, or is not there, leaves empty and missing files behind. Where the two differ
the row decides, and the shelf's stays unless it alone is wrong. Files that the rows name and only the shelf still has
belong to the new backup as well, so that it can be put back.

Knows stores and rows. Does not know what else a backup holds.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateway.backup.shelf import TELL_EVERY_S, Tell, side_by_side
from gateway.backup.source import Unreadable, opened
from record.dump import Dump
from record.durable import digest_of
from record.errors import NotFound
from record.models import Instance, Reading, ReadingPicture
from record.models.studies import KEEPS_A_FILE
from record.store import Kind, Store


@dataclass(frozen=True, slots=True)
class _Kept:
    """One file in the backup (None: erased meanwhile), whether it was copied now, and what is wrong with the run's own."""

    sha256: str | None
    is_new: bool = False
    digest: str = ""
    fault: str = ""


@dataclass(slots=True)
class Stored:
    """The stored files of one backup in the making; `known` is what the whole backups of the shelf list."""

    engine: Engine
    source: Store
    shelf: Store
    known: Mapping[str, str]
    add: Callable[[Path, int, str], None]
    tell: Tell
    faults: list[str] = field(default_factory=list)
    missing: int = 0
    _listed: set[str] = field(default_factory=set)
    _copied: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> None:
        """What the shelf has is left there, what it lacks is copied; a file that cannot be read holds up no other."""
        copied, told_at = 0, time.monotonic()
        keys = ((kind, key) for kind in Kind for key in self.source.list(kind))
        for (kind, key), kept in side_by_side(lambda one: self._keep(*one), keys):
            if kept.fault:
                self.faults.append(f"{kind}/{key}: {kept.fault}")
            if kept.sha256 is None:
                continue
            self._list(kind, key, kept.sha256)
            copied += kept.is_new
            if kept.digest:
                self._copied[key] = bytes.fromhex(kept.digest)
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                self.tell(f"the store: {len(self._listed)} files, {copied} of them new")
        self.tell(f"the store: {len(self._listed)} files, {copied} of them new")

    def hold_against_rows(self, dump: Dump) -> None:
        """Find what the dumped rows speak of and the run's store lacks, and what is not what they say.

        Rows of studies that were erased meanwhile do not count.
        """
        before = text("CAST(:taken_at AS timestamptz)").bindparams(taken_at=dump.taken_at)
        instances = select(Instance.id, Instance.sha256, Instance.size_bytes).where(
            KEEPS_A_FILE, Instance.created_at < before
        )
        pictures = (
            select(ReadingPicture.sha256)
            .join(Instance, Instance.id == ReadingPicture.instance_id)
            .join(Reading, Reading.id == ReadingPicture.reading_id)
            .where(Instance.erased_at.is_(None), Reading.prepared_at < before)
            .distinct()
        )
        lent = 0
        with Session(self.engine) as session:
            for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
                session.execute(text(f"SET LOCAL {setting} = 0"))
            for instance_id, sha256, size_bytes in session.execute(instances).yield_per(1000):
                lent += self._name(Kind.INSTANCE, instance_id.hex)
                self._compare(Kind.INSTANCE, instance_id.hex, sha256, size_bytes)
            for sha256 in session.scalars(pictures).yield_per(1000):
                lent += self._name(Kind.PICTURE, sha256)
                self._compare(Kind.PICTURE, sha256, sha256, 0)
        if self.missing:
            self.faults.append(
                f"{self.missing} files of which the record speaks are not in the store; `countersign verify` names them"
            )
        if lent:
            self.faults.append(
                f"{lent} files of which the record speaks are not in the store, or cannot be read there, but former backups "
                "have them, and this one lists those"
            )

    def _list(self, kind: Kind, key: str, sha256: str) -> None:
        with self.shelf.local(kind, key) as path:
            self.add(path, path.stat().st_size, sha256)
        self._listed.add(key)

    def _name(self, kind: Kind, key: str) -> bool:
        """Whether a file that a row names is on the shelf alone; then it is listed."""
        if key in self._listed:
            return False
        if key in self.known and self.shelf.size_bytes(kind, key) is not None:
            self._list(kind, key, self.known[key])
            return True
        self.missing += 1
        return False

    def _compare(self, kind: Kind, key: str, sha256: str, size_bytes: int) -> None:
        """A file that was copied now is what its row says, and an older copy at least as long."""
        if key in self._copied and self._copied[key].hex() != sha256:
            self.faults.append(f"{kind}/{key}: it is not what was received: its bytes were changed")
        elif key in self._listed and (self.shelf.size_bytes(kind, key) or 0) <= size_bytes:
            self.faults.append(f"{kind}/{key}: the backup's copy is shorter than what was received")

    def _keep(self, kind: Kind, key: str) -> _Kept:
        there, known = self.shelf.size_bytes(kind, key), self.known.get(key)
        try:
            if there is not None and known is not None:
                same = there == self._size_bytes(kind, key)
                return _Kept(known) if same else self._decide(kind, key, known)
            with opened(self.source, kind, key) as content:
                if there is not None:  # an interrupted backup's
                    with self.shelf.open(kind, key) as copied:
                        sha256 = digest_of(copied)
                    if sha256 == digest_of(content):
                        return _Kept(sha256, digest=content.digest)
                    content.restart()
                return _Kept(self.shelf.copy_in(kind, key, content), True, content.digest)
        except NotFound:
            return _Kept(None)
        except Unreadable as error:
            return _Kept(None, fault=f"it cannot be read: {error}")

    def _decide(self, kind: Kind, key: str, known: str) -> _Kept:
        """The run's file and the shelf's are not the same: the shelf's stays, unless the row says that it alone is wrong."""
        told = key if kind is Kind.PICTURE else self._told(key)
        if told is not None and self._digest(self.shelf, kind, key) != told:
            with opened(self.source, kind, key) as content:
                digest_of(content)
                if content.digest == told:
                    content.restart()
                    self.tell(f"the shelf's copy of {kind}/{key} was damaged and is copied anew")
                    return _Kept(self.shelf.copy_in(kind, key, content), True, content.digest)
        return _Kept(known, fault="the run's own file is not the one that was backed up before, whose copy is kept")

    def _size_bytes(self, kind: Kind, key: str) -> int:
        try:
            found = self.source.size_bytes(kind, key)
        except OSError as error:
            raise Unreadable(error.strerror) from error
        if found is None:
            raise NotFound("It was erased meanwhile.")
        return found

    def _digest(self, store: Store, kind: Kind, key: str) -> str:
        try:
            with opened(store, kind, key) as content:
                digest_of(content)
                return content.digest
        except Unreadable:
            return ""

    def _told(self, key: str) -> str | None:
        with Session(self.engine) as session:
            return session.scalar(select(Instance.sha256).where(Instance.id == uuid.UUID(hex=key)))
