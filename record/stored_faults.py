"""The store held against the rows: files that are missing, changed, nobody's, or none of ours.

The line goes on working meanwhile, and hashing takes hours; so no transaction is open while files are read, and what looks
wrong is asked about once more before it is named. A file goes from a spool into the store, then gets its row, then leaves
the spool; so whoever looks into the store, the spools and the rows, in this order, misses none.

Knows rows, files, and what a file's meta information says that it is. Does not know what is in a data set.
"""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select, text

from record.db import transaction
from record.durable import digest_of
from record.errors import InvalidInstance, NotFound
from record.faults import Fault, Walked, guarded
from record.models import Instance, ReadingPicture, StoreDeletion
from record.models.studies import KEEPS_A_FILE
from record.part10 import data_set_digest, meta_uids
from record.store import Kind, Store

_AT_A_TIME = 1000
_ID = re.compile(r"[0-9a-f]{32}")
_TOLD = ("SOP Class UID", "SOP Instance UID", "Transfer Syntax UID")
_PICTURES = (
    select(ReadingPicture.sha256)
    .join(Instance, Instance.id == ReadingPicture.instance_id)
    .where(Instance.erased_at.is_(None))
)


def stored_faults(
    engine: Engine, store: Store, spool: Path | None, walked: Walked, *, after_restore: bool
) -> Iterator[Fault]:
    """Every instance and every picture that is not what its row says, and every file of the store without a row."""
    for row in _instances(engine):
        walked.instances += 1
        where = f"instance {row.id}"
        yield from guarded(where, lambda: _instance(engine, store, row, where))  # noqa: B023  called at once
    for keys in _batches(store.list(Kind.INSTANCE)):
        yield from guarded("store", lambda: _nobodys(engine, store, spool, keys, after_restore))  # noqa: B023  called at once
    for sha256 in _pictures(engine):
        where = f"picture {sha256}"
        yield from guarded(where, lambda: _picture(engine, store, sha256, where))  # noqa: B023  called at once
    for kind in Kind:
        for path in store.strangers(kind):
            yield Fault("it is none of the store's files; move it away", f"store {path}")


@dataclass(frozen=True, slots=True)
class _Row:
    id: uuid.UUID
    sha256: str
    uids: tuple[str, str, str]


def _instances(engine: Engine) -> Iterator[_Row]:
    last = uuid.UUID(int=0)
    uids = (Instance.sop_class_uid, Instance.sop_instance_uid, Instance.transfer_syntax_uid)
    rows = select(Instance.id, Instance.sha256, *uids).where(KEEPS_A_FILE).order_by(Instance.id).limit(_AT_A_TIME)
    while True:
        with transaction(engine) as session:
            page = session.execute(rows.where(Instance.id > last)).all()
        if not page:
            return
        for row in page:
            yield _Row(row[0], row[1], (row[2], row[3], row[4]))
        last = page[-1].id


def _instance(engine: Engine, store: Store, row: _Row, where: str) -> Iterator[Fault]:
    try:
        with store.open(Kind.INSTANCE, row.id.hex) as stored:
            uids = meta_uids(stored)
            stored.seek(0)
            digest, _ = data_set_digest(stored)
    except NotFound:
        with transaction(engine) as session:
            is_erased = session.scalar(select(Instance.id).where(Instance.id == row.id, KEEPS_A_FILE)) is None
        if not is_erased:
            yield Fault("its file is missing from the store", where)
    except InvalidInstance:
        yield Fault("its bytes were changed: it has no head any more", where)
    else:
        if digest != row.sha256:
            yield Fault("its bytes were changed", where)
        for name, there, known in zip(_TOLD, uids, row.uids, strict=True):
            if there != known:
                yield Fault(f"the {name} in its file meta information is another than on record", where)


def _nobodys(engine: Engine, store: Store, spool: Path | None, keys: list[str], after_restore: bool) -> Iterator[Fault]:
    """Those files that no row, no spool and no deletion under way accounts for."""
    suspects = [key for key in keys if key not in _with_rows(engine, keys)]
    if not suspects:
        return
    spooled = _spooled(spool)
    suspects = [key for key in suspects if key not in spooled]
    known = _with_rows(engine, suspects)
    with transaction(engine) as session:
        leaving = set(session.scalars(select(StoreDeletion.key).where(StoreDeletion.key.in_(suspects))))
    for key in suspects:
        if key not in known and key not in leaving and store.size_bytes(Kind.INSTANCE, key) is not None:
            what = "a stored file has no row and lies in no spool of this machine"
            yield Fault(what, f"store instance {key}", expected=after_restore)


def _with_rows(engine: Engine, keys: list[str]) -> set[str]:
    with transaction(engine) as session:
        ids = [uuid.UUID(hex=key) for key in keys]
        return {found.hex for found in session.scalars(select(Instance.id).where(Instance.id.in_(ids), KEEPS_A_FILE))}


def _spooled(spool: Path | None) -> set[str]:
    """The ids of everything in the spools."""
    if spool is None:
        return set()
    return {found[0] for _, _, names in os.walk(spool) for name in names if (found := _ID.search(name))}


def _pictures(engine: Engine) -> Iterator[str]:
    with transaction(engine) as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))  # it looks through all of them
        found = session.scalars(_PICTURES.distinct()).all()
    yield from found


def _picture(engine: Engine, store: Store, sha256: str, where: str) -> Iterator[Fault]:
    try:
        with store.open(Kind.PICTURE, sha256) as stored:
            digest = digest_of(stored)
    except NotFound:
        with transaction(engine) as session:
            is_named = session.scalar(_PICTURES.where(ReadingPicture.sha256 == sha256).limit(1)) is not None
        if is_named:
            yield Fault("it is missing from the store", where)
        return
    if digest != sha256:
        yield Fault("its bytes were changed", where)


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while batch := list(itertools.islice(left, _AT_A_TIME)):
        yield batch
