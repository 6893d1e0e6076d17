"""Instances of the store that have no row are put back into a spool, so that the indexer makes their rows again.

That is what a database older than its store needs after a restore: a stored file tells about itself, as a spooled one
does. Nothing is ever taken out of the store. Does not know why a row is missing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, select

from gateway.spool import Spool, find
from record.db import transaction
from record.durable import copy_durably, sync_folder
from record.models import Instance
from record.store import Kind, Store

_BATCH = 1000


def respool(engine: Engine, store: Store, root: Path) -> int:
    """Put every stored instance without a row, and without a file in a spool, back into a spool; returns how many."""
    spools = find(root)
    waiting = {name for each in spools for name in _names(each)}
    target = spools[0] if spools else Spool(root / "00")
    target.make()
    count = 0
    for key in _without_rows(engine, store):
        if key in waiting:
            continue
        with store.local(Kind.INSTANCE, key) as path:
            _link(path, target.ready / f"{key}.dcm")
        count += 1
    sync_folder(target.ready)
    return count


def _names(each: Spool) -> Iterator[str]:
    """The ids of all files in a spool, those that are kept aside included."""
    for room in (each.ready, each.quarantine):
        for path in room.glob("*.dcm"):
            if found := re.match(r"[0-9a-f]{32}", path.name):
                yield found[0]


def _without_rows(engine: Engine, store: Store) -> Iterator[str]:
    batch: list[str] = []
    for key in store.list(Kind.INSTANCE):
        batch.append(key)
        if len(batch) == _BATCH:
            yield from _unknown(engine, batch)
            batch = []
    yield from _unknown(engine, batch)


def _unknown(engine: Engine, keys: list[str]) -> list[str]:
    with transaction(engine) as session:
        known = {found.hex for found in session.scalars(select(Instance.id).where(Instance.id.in_(keys)))}
    return [key for key in keys if key not in known]


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy where the spool lies on another disk."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            with source.open("rb") as content:
                copy_durably(content, target)
